# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""scripts/role-arguments over roles whose specification and defaults agree or do not."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]


def option(default=None, **keys):
    return {"type": "str", "description": "What it is.", "default": default, **keys}


@pytest.fixture
def compare(tmp_path):
    """Runs the script over roles, each given as options and defaults; gives exit status and lines."""
    (tmp_path / "scripts").mkdir()
    script = shutil.copy(ROOT / "scripts" / "role-arguments", tmp_path / "scripts")

    def run(*absent, **roles):
        for name, (options, defaults) in roles.items():
            role = tmp_path / "roles" / name
            for folder in ("meta", "defaults"):
                (role / folder).mkdir(parents=True)
            (role / "meta" / "argument_specs.yml").write_text(yaml.dump({"argument_specs": {"main": {"options": options}}}))
            (role / "defaults" / "main.yml").write_text("---\n" + (yaml.dump(defaults) if defaults else ""))
            for file in absent:
                (role / file).unlink()
        (tmp_path / "roles" / "README.md").write_text("no role")
        done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
        assert done.stderr == ""
        return done.returncode, done.stdout.splitlines()

    return run


def test_agreement_passes(compare):
    options = {"web_port": option(80, type="int"), "web_users": option(["a"], type="list"), "web_host": option(required=True)}
    del options["web_host"]["default"]
    assert compare(web=(options, {"web_port": 80, "web_users": ["a"]})) == (0, ["role arguments agree with their defaults"])


def test_a_role_without_defaults_passes(compare):
    assert compare(web=({"web_host": option(required=True)}, {}))[0] == 0


def test_the_roles_of_the_collection_agree():
    done = subprocess.run([ROOT / "scripts" / "role-arguments"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "role arguments agree with their defaults\n")


@pytest.mark.parametrize(
    ("options", "defaults", "line"),
    [
        ({"web_port": option(80)}, {}, "web_port is in argument_specs.yml only"),
        ({}, {"web_port": 80}, "web_port is in defaults/main.yml only"),
        ({"web_port": option(80)}, {"web_port": 81}, "web_port: 81 by defaults/main.yml, 80 by argument_specs.yml"),
        ({"web_port": option("80")}, {"web_port": 80}, "web_port: 80 by defaults/main.yml, '80' by argument_specs.yml"),
        ({"web_tls": option(1)}, {"web_tls": True}, "web_tls: True by defaults/main.yml, 1 by argument_specs.yml"),
        ({"web_port": {"type": "int", "default": 1}}, {"web_port": 1}, "web_port has no description"),
        ({"web_port": {"description": "x", "default": 1}}, {"web_port": 1}, "web_port has no type"),
        ({"port": option(80)}, {"port": 80}, "port does not begin with web_"),
        ({"website": option(80)}, {"website": 80}, "website does not begin with web_"),
        ({"host": option(required=True)}, {}, "host does not begin with web_"),
    ],
)
def test_a_difference_fails_and_names_role_variable_and_values(compare, options, defaults, line):
    assert compare(web=(options, defaults)) == (1, [f"roles/web: {line}"])


def test_all_differences_of_all_roles_are_listed(compare):
    status, lines = compare(web=({"web_a": option(1)}, {"web_a": 2, "web_b": 3}), api=({"api_a": option(1)}, {}))
    assert status == 1
    assert lines == [
        "roles/api: api_a is in argument_specs.yml only",
        "roles/web: web_b is in defaults/main.yml only",
        "roles/web: web_a: 2 by defaults/main.yml, 1 by argument_specs.yml",
    ]


@pytest.mark.parametrize("file", ["meta/argument_specs.yml", "defaults/main.yml"])
def test_a_file_that_is_not_there_is_named(compare, file):
    assert compare(file, web=({"web_a": option(1)}, {"web_a": 1})) == (1, [f"roles/web: {file} is not there"])


# ---- switches --------------------------------------------------------------------------------------------------------


def switches():
    """Return the names of the options of roles that are true or false."""
    specifications = [yaml.safe_load(path.read_text())["argument_specs"] for path in ROOT.glob("roles/*/meta/argument_specs.yml")]
    entries = [entry for specification in specifications for entry in specification.values()]
    return {name for entry in entries for name, about in (entry.get("options") or {}).items() if about.get("type") == "bool"}


def test_a_switch_from_the_command_line_is_read_as_true_or_false():
    """With -e NAME=false it is a text, which is no condition for Ansible and true for Python.

    A module's option and another switch take it as it is, and texts for the reader name it.
    """
    names = "|".join(sorted(switches()))
    bare = re.compile(rf"(?<![\w.])({names})\b(?!( \| default\(false\))? \| bool\b|:| is | to )")
    whole = re.compile(rf"(?:\w+|- name): \"?\{{\{{ (?:{names}) \}}\}}\"?$")
    files = [path for top in ("roles", "playbooks") for path in (ROOT / top).rglob("*.yml") if "meta" not in path.parts]
    found = [
        f"{path.relative_to(ROOT)}: {line}"
        for path in files
        for line in (re.sub(r"(^|\s)#.*", "", line).strip() for line in path.read_text().splitlines())
        if bare.search(line) and not whole.search(line)
    ]
    assert found == []
