# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The variables of the roles, checked as Ansible runs the action: in a play once, else with a task and templar of its own."""

import datetime
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from ansible.errors import AnsibleActionFail
from ansible.parsing.dataloader import DataLoader
from ansible.playbook.play_context import PlayContext
from ansible.playbook.task import Task
from ansible.plugins.loader import connection_loader
from ansible.template import Templar, trust_as_template
from ansible_collections.iopaint.fleet.plugins.action import variables_check
from ansible_collections.iopaint.fleet.plugins.plugin_utils import specification

ROOT = Path(__file__).resolve().parents[2]

SPECIFICATION = """
argument_specs:
  main:
    options:
      iopaint_text: {type: str, default: x}
      iopaint_untyped: {default: x}
      iopaint_choice: {type: str, choices: [cpu, gpu], default: cpu}
      iopaint_count: {type: int, choices: [1, 2], default: 1}
      iopaint_seconds: {type: int, default: 600}
      iopaint_gigabytes: {type: float, default: 1.5}
      iopaint_switch: {type: bool, default: false}
      iopaint_folder: {type: path, default: /opt}
      iopaint_words: {type: list, elements: str, choices: [cpu, gpu], default: []}
      iopaint_anything: {type: list, default: []}
      iopaint_settings: {type: dict, default: {}}
      iopaint_token: {type: int, no_log: true}
      iopaint_password: {type: str, no_log: true}
      iopaint_cuda: {type: str, choices: ["12.6", "13.0"]}
      iopaint_names: {type: list, elements: str}
      iopaint_entries:
        type: list
        elements: dict
        default: []
        options:
          name: {type: str, required: true}
          port: {type: int, required: true}
          variant: {type: str, choices: [cpu, gpu]}
          limits: {type: dict, options: {memory: {type: str}}}
"""


@pytest.fixture
def on_a_host():
    """An action runs on the control node."""


@pytest.fixture
def roles(tmp_path, monkeypatch):
    """Two roles in place of the collection's."""
    monkeypatch.setattr(specification, "ROLES", tmp_path)
    for name, text in {"iopaint": SPECIFICATION, "docker": SPECIFICATION.replace("iopaint_", "docker_")}.items():
        (tmp_path / name / "meta").mkdir(parents=True)
        (tmp_path / name / "meta" / "argument_specs.yml").write_text(text)
    specification.specification.cache_clear()
    yield tmp_path
    specification.specification.cache_clear()


def run(roles=("iopaint",), check=False, **variables):
    """Run the action in a task of its own, with templates of the inventory trusted."""
    variables = {name: trust_as_template(value) if isinstance(value, str) else value for name, value in variables.items()}
    loader = DataLoader()
    task = Task.load({"action": "iopaint.fleet.variables_check", "args": {"roles": list(roles)}})
    task.check_mode = check
    templar = Templar(loader=loader, variables=variables)
    context = PlayContext()
    action = variables_check.ActionModule(task, connection_loader.get("local", context), context, loader, templar, None)
    result = action.run(task_vars=variables)
    assert result["changed"] is False
    assert result.get("failed", False) is bool(result["problems"])
    if result["problems"]:
        assert result["msg"] == "Nothing was changed. " + "; ".join(result["problems"]) + "."
    return result["problems"]


@pytest.mark.parametrize("check", [False, True])
@pytest.mark.usefixtures("roles")
def test_nothing_set_is_nothing_wrong(check):
    assert run(check=check) == []
    assert run(check=check, ansible_host="localhost", inventory_hostname="a", other={"a": [None]}) == []


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("text", ["", "a", "äö ✓", "1.10", 28, "yes"]),
        ("password", ["", "0123"]),
        ("cuda", [12.6, "12.6"]),
        ("untyped", ["a", 1]),
        ("choice", ["cpu", "gpu"]),
        ("count", [1, "2"]),
        ("seconds", [0, -1, 600, "600"]),
        ("gigabytes", [1, 1.5, "12", "0.5"]),
        ("switch", [True, "yes", "off", 0]),
        ("folder", ["/a b", ""]),
        ("words", [[], ["cpu", "gpu", "cpu"]]),
        ("anything", [[1, {"a": None}, None]]),
        ("settings", [{}, {"log-opts": {"max-size": "10m"}, "dns": None}]),
        ("entries", [[], [{"name": "a", "port": 1}], [{"name": 7, "port": "1", "variant": None, "limits": {"memory": "6g"}}]]),
    ],
)
@pytest.mark.usefixtures("roles")
def test_what_a_role_accepts_passes(name, values):
    for value in values:
        assert run(**{f"iopaint_{name}": value}) == [], value


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("text", ["a"], "is a list, accepted: text"),
        ("text", {"a": 1}, "is a dictionary, accepted: text"),
        ("untyped", [1], "is a list, accepted: text"),
        ("folder", ["/a"], "is a list, accepted: a path"),
        ("choice", "distro", "is 'distro', accepted: cpu, gpu"),
        ("choice", "CPU", "is 'CPU', accepted: cpu, gpu"),
        ("count", 3, "is 3, accepted: 1, 2"),
        ("seconds", "ten", "is 'ten', accepted: a whole number"),
        ("seconds", 1.5, "is 1.5, accepted: a whole number"),
        ("seconds", True, "is True, accepted: a whole number"),
        ("gigabytes", "12 GB", "is '12 GB', accepted: a number"),
        ("gigabytes", True, "is True, accepted: a number"),
        ("switch", "maybe", "is 'maybe', accepted: true or false"),
        ("words", "cpu", "is text, accepted: a list"),
        ("words", 7, "is a number, accepted: a list"),
        ("words", {"a": 1}, "is a dictionary, accepted: a list"),
        ("words", ["cpu", "tpu"], "[1] is 'tpu', accepted: cpu, gpu"),
        ("words", [["cpu"]], "[0] is a list, accepted: text"),
        ("words", [None], "[0] is None, accepted: text"),
        ("settings", ["a"], "is a list, accepted: a dictionary"),
        ("settings", "a=b", "is text, accepted: a dictionary"),
        ("entries", ["cpu"], "[0] is text, accepted: a dictionary"),
        ("entries", [{"name": "a"}], "[0] has no port, which it needs"),
        ("entries", [{"name": None, "port": 1}], "[0].name is None, accepted: text"),
        ("entries", [{"name": "a", "port": "x"}], "[0].port is 'x', accepted: a whole number"),
        ("entries", [{"name": "a", "port": 1, "variant": "tpu"}], "[0].variant is 'tpu', accepted: cpu, gpu"),
        ("entries", [{"name": "a", "port": 1, "limits": {"memory": []}}], "[0].limits.memory is a list, accepted: text"),
        (
            "entries",
            [{"name": "a", "port": 1, "varaint": "cpu"}],
            "[0] has the unknown key varaint (nearest: variant), accepted: name, port, variant, limits",
        ),
        ("entries", [{"name": "a", "port": 1, True: 1}], "[0] has the unknown key True, accepted: name, port, variant, limits"),
        ("text", None, "is empty, accepted: text (without the line: 'x')"),
        ("seconds", None, "is empty, accepted: a whole number (without the line: 600)"),
        ("text", 1.1, "is 1.1, accepted: text in quotes (YAML reads 1.10 as the number 1.1)"),
        ("untyped", 1.1, "is 1.1, accepted: text in quotes (YAML reads 1.10 as the number 1.1)"),
        ("folder", 1.1, "is 1.1, accepted: a path in quotes (YAML reads 1.10 as the number 1.1)"),
        ("text", True, "is True, accepted: text in quotes (YAML reads on, off, yes and no as true or false)"),
        ("text", datetime.date(2025, 1, 2), "is 2025-01-02, accepted: text in quotes (YAML reads it as a date)"),
        ("names", ["a", 1.1], "[1] is 1.1, accepted: text in quotes (YAML reads 1.10 as the number 1.1)"),
        (
            "entries",
            [{"name": 1.1, "port": 1}],
            "[0].name is 1.1, accepted: text in quotes (YAML reads 1.10 as the number 1.1)",
        ),
        (
            "password",
            83,
            "is wrong (its value is secret), accepted: text in quotes (YAML drops the zeros that a number begins with)",
        ),
        ("cuda", 13.1, "is 13.1, accepted: 12.6, 13.0"),
        ("token", "s3cr3t", "is wrong (its value is secret), accepted: a whole number"),
        ("seconds", "x" * 200, f"is '{'x' * 79}…, accepted: a whole number"),
        ("seconds", "http://ann:s3cr3t@proxy", "is 'http://***@proxy', accepted: a whole number"),
        ("text", "two\nlines", "has a line end or another control character, accepted: one line"),
        ("text", "a\x1b[31m", "has a line end or another control character, accepted: one line"),
        ("words", ["cpu", "cpu\r"], "[1] has a line end or another control character, accepted: one line"),
        ("settings", {"a": [{"b": "c\0"}]}, ".a[0].b has a line end or another control character, accepted: one line"),
        ("entries", [{"name": "a\u2028", "port": 1}], "[0].name has a line end or another control character, accepted: one line"),
        ("text", "{{ nowhere }}", "can't be evaluated: 'nowhere' is undefined"),
    ],
)
@pytest.mark.usefixtures("roles")
def test_what_a_role_does_not_accept_is_said_with_name_value_and_what_it_accepts(name, value, problem):
    separator = "" if problem.startswith(("[", ".")) else " "
    assert run(**{f"iopaint_{name}": value}) == [f"iopaint_{name}{separator}{problem}"]


VERSIONS = [
    "docker_version",
    "iopaint_image_ref",
    "iopaint_image_release",
    "nvidia_container_toolkit_version",
    "nvidia_driver_branch",
    "nvidia_driver_minimum_version",
]


@pytest.mark.parametrize("name", VERSIONS)
def test_a_version_without_quotes_is_refused(name):
    """With the collection's own roles."""
    roles = ("docker", "nvidia_driver", "nvidia_container_toolkit", "iopaint_image")
    (problem,) = run(roles, **{name: yaml.safe_load("1.10")})
    assert problem == f"{name} is 1.1, accepted: text in quotes (YAML reads 1.10 as the number 1.1)"
    assert run(roles, **{name: yaml.safe_load("'1.10'")}) == []


def test_a_commit_of_digits_alone_wants_quotes():
    (problem,) = run(["iopaint_image"], iopaint_image_ref=yaml.safe_load("0123456"))
    assert problem.startswith("iopaint_image_ref is 42798, accepted: text in quotes (YAML drops")
    assert run(["nvidia_driver"], nvidia_driver_branch=580) == []


SECRET = "s3cr3t-of-the-vault"
KINDS = [SECRET, [SECRET], [[SECRET]], {"a": SECRET}, [{"a": SECRET}], [{"name": SECRET, "port": {"a": SECRET}}], {SECRET: 1}]


@pytest.mark.parametrize("value", KINDS, ids=range(len(KINDS)))
@pytest.mark.parametrize("name", ["settings", "entries", "token", "switch", "words", "text"])
@pytest.mark.usefixtures("roles")
def test_a_mistake_in_its_kind_shows_no_secret_of_a_variable(name, value):
    """A text where a list, or a list where a text should be, is how a password comes into a message."""
    if name in ("switch", "words", "text") and SECRET in (value, *(value if isinstance(value, list) else ())):
        value = {"a": SECRET}  # a single value of a variable that holds no secret is shown
    assert SECRET not in str(run(**{f"iopaint_{name}": value}))


@pytest.mark.usefixtures("roles")
def test_a_key_with_a_line_end_is_named_without_it():
    assert run(iopaint_settings={"a\nb": 1}) == [
        "A key of iopaint_settings has a line end or another control character, accepted: one line"
    ]


def test_variables_of_many_lines_are_variables():
    names = {name for path in ROOT.glob("roles/*/defaults/main.yml") for name in yaml.safe_load(path.read_text()) or {}}
    assert set(variables_check.OF_MANY_LINES) <= names


def test_an_option_that_is_the_text_of_a_file_may_have_many_lines():
    """By what the specifications say of the options: lines of known hosts, keys with an armour or in PEM form."""
    found = set()
    for path in ROOT.glob("roles/*/meta/argument_specs.yml"):
        for name, option in yaml.safe_load(path.read_text())["argument_specs"]["main"].get("options", {}).items():
            words = str(option["description"])
            is_text = option.get("type", "str") == "str" and re.search(
                "ssh-keyscan|known_hosts. file|armoured|[Pp]rivate key", words
            )
            found |= {name} if is_text and not name.startswith("apt_repository") else set()  # whose variables are other roles'
    assert found <= set(variables_check.OF_MANY_LINES)
    assert len(found) > 2, found


@pytest.mark.usefixtures("roles")
def test_a_template_counts_for_what_it_gives():
    assert run(iopaint_seconds="{{ minutes * 60 }}", minutes=10) == []
    assert run(iopaint_words="{{ both }}", both=["cpu", "gpu"]) == []
    assert run(iopaint_seconds="{{ minutes }}", minutes="ten") == ["iopaint_seconds is 'ten', accepted: a whole number"]


@pytest.mark.usefixtures("roles")
def test_all_that_is_wrong_is_said_at_once():
    wrong = {"iopaint_seconds": "x", "iopaint_entries": [{"port": "y", "nam": "a"}], "docker_switch": "z", "iopaint_secondss": 1}
    assert run(["iopaint", "docker"], **wrong) == [
        "iopaint_seconds is 'x', accepted: a whole number",
        "iopaint_entries[0] has no name, which it needs",
        "iopaint_entries[0].port is 'y', accepted: a whole number",
        "iopaint_entries[0] has the unknown key nam (nearest: name), accepted: name, port, variant, limits",
        "docker_switch is 'z', accepted: true or false",
        "iopaint_secondss is no variable of this collection (nearest: iopaint_seconds)",
    ]


@pytest.mark.usefixtures("roles")
def test_roles_that_are_not_named_are_not_checked():
    assert run(["iopaint"], docker_seconds="x") == []


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("iopaint_secnods", "iopaint_seconds"), ("iopaint_setings", "iopaint_settings"), ("iopaint_fodler", "iopaint_folder")],
)
@pytest.mark.usefixtures("roles")
def test_a_misspelt_name_is_refused_with_the_nearest(name, nearest):
    assert run([], **{name: 1}) == [f"{name} is no variable of this collection (nearest: {nearest})"]


@pytest.mark.parametrize(
    "name", ["iopaint_owner", "iopaint_my_own_setting", "my_iopaint_second", "__iopaint_second", "iopain_text"]
)
@pytest.mark.usefixtures("roles")
def test_other_names_are_the_user_s_own(name):
    assert run(**{name: None}) == []


def test_roles_are_wanted_by_a_name_that_is_there(roles):
    with pytest.raises(AnsibleActionFail) as error:
        run(["iopant"])
    assert "must be one or more of: docker, iopaint. Got no match for: iopant" in str(error.value)


def test_a_variable_of_an_older_release_is_refused_with_the_new_one():
    assert run([], iopaint_backup_target="nas:/x") == ["iopaint_backup_target was replaced by iopaint_backup_repository"]


def test_what_the_collection_s_own_tasks_set_is_no_misspelt_name():
    """What is registered, and facts, are variables of the host in the next play of the same run."""
    left = {}

    def walk(node):
        for item in node if isinstance(node, list) else node.values() if isinstance(node, dict) else ():
            walk(item)
        if isinstance(node, dict):
            left.update(dict.fromkeys(node.get("ansible.builtin.set_fact", ()), "x"))
            left[node.get("register", "")] = {"changed": False, "failed": False, "id": 10001}

    for path in [*ROOT.glob("roles/*/tasks/*.yml"), *ROOT.glob("playbooks/**/*.yml")]:
        walk(yaml.safe_load(path.read_text()))
    assert {"iopaint_image_built", "iopaint_image_user"} <= left.keys()
    assert run([], **left) == []


def test_every_role_accepts_its_own_defaults():
    names = sorted(path.parent.parent.name for path in ROOT.glob("roles/*/meta/argument_specs.yml"))
    defaults = {}
    for name in names:
        defaults.update(yaml.safe_load((ROOT / "roles" / name / "defaults" / "main.yml").read_text()) or {})
    assert len(defaults) > 20
    assert run(names, inventory_hostname="a", **defaults) == []


def test_a_play_stops_before_its_first_change(tmp_path):
    """With ansible-playbook itself, in check mode, as a user sees it."""
    play = {
        "hosts": "all",
        "gather_facts": False,
        "tasks": [
            {"name": "Check", "iopaint.fleet.variables_check": {"roles": ["docker", "iopaint_image", "iopaint"]}},
            {"name": "Change", "ansible.builtin.debug": {"msg": "was reached"}},
        ],
    }
    (tmp_path / "play.yml").write_text(yaml.dump([play]))
    wrong = {"iopaint_pids": "many", "iopaint_image_variants": ["cpu", "tpu"], "iopaint_memmory": "6g"}
    command = [Path(sys.executable).parent / "ansible-playbook", "--check", "-i", "unreachable.invalid,", "play.yml"]
    done = subprocess.run(
        [*command, "-e", json.dumps(wrong)],
        env={**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "build" / "collections"), "ANSIBLE_HOME": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert (
        "Nothing was changed. iopaint_image_variants[1] is 'tpu', accepted: cpu, gpu; "
        "iopaint_pids is 'many', accepted: a whole number; "
        "iopaint_memmory is no variable of this collection (nearest: iopaint_memory)."
    ) in done.stdout + done.stderr
    assert "was reached" not in done.stdout
