# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The rooms and their doors: the roles are entered as docs/architecture.md says, and each thing has one place."""

import functools
import re

import pytest
import yaml
from conftest import ROOT

ROLES = sorted(path.parents[1] for path in ROOT.glob("roles/*/meta/argument_specs.yml"))
TASKS = sorted(ROOT.glob("roles/*/tasks/*.yml"))
CONDITIONS = ("when", "that", "until", "failed_when", "changed_when")
# Of the driver's role, which a play runs before these two: read where the inventory sets them, else taken for false.
READ_ELSEWHERE = {("iopaint_maintain", "nvidia_driver_reboot"), ("nvidia_container_toolkit", "nvidia_driver_install")}


@functools.cache
def specification(role):
    """Return the entry points of a role with their options."""
    return yaml.safe_load((role / "meta" / "argument_specs.yml").read_text())["argument_specs"]


def documented():
    """Return the entry points of each role by the table of docs/architecture.md."""
    found = {}
    for line in (ROOT / "docs" / "architecture.md").read_text().partition("## Roles and their entry points")[2].splitlines():
        if line.startswith("| `"):
            _, names, _what, doors, _ = line.split("|")
            found |= {name: set(re.findall(r"`(\w+)`", doors)) for name in re.findall(r"`(\w+)`", names)}
    return found


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_the_architecture_lists_each_entry_point(role):
    assert documented()[role.name] == specification(role).keys() - {"main"}


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_an_entry_point_is_a_task_file(role):
    doors = specification(role).keys() - {"main"}  # iopaint_common has no tasks of its own
    assert {name for name in doors if not (role / "tasks" / f"{name}.yml").is_file()} == set()


@pytest.mark.parametrize("path", TASKS, ids=lambda path: f"{path.parents[1].name}-{path.stem}")
def test_included_task_files_are_there(path):
    included = re.findall(r"(?:include|import)_tasks: (\w+\.yml)$", path.read_text(), re.MULTILINE)
    assert [name for name in included if not (path.parent / name).is_file()] == []


def test_one_role_calls_the_module_of_the_lock():
    """Its arguments are to stand in one room."""
    assert {path.parents[1].name for path in TASKS if "iopaint.fleet.lock:" in path.read_text()} == {"iopaint_common"}


def test_a_room_is_entered_by_its_doors():
    text = "\n".join(path.read_text() for path in [*TASKS, *ROOT.glob("playbooks/**/*.yml")])
    entered = set(re.findall(r"name: iopaint\.fleet\.(\w+)\n +tasks_from: (\w+)\n", text))
    assert len(entered) > 20
    assert {(role, name) for role, name in entered if name not in specification(ROOT / "roles" / role)} == set()


def nodes(tree):
    """Return each mapping in a tree of YAML."""
    if isinstance(tree, dict):
        yield tree
    for child in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ():
        yield from nodes(child)


def test_what_a_task_registers_hides_no_variable():
    """What is registered, or set as a fact, comes before a role's variables and those of a play, from then on."""
    tasks = [node for path in [*TASKS, *ROOT.glob("playbooks/**/*.yml")] for node in nodes(yaml.safe_load(path.read_text()))]
    files = [*ROOT.glob("roles/*/vars/*.yml"), *ROOT.glob("roles/*/defaults/*.yml")]
    given = {name for path in files for name in yaml.safe_load(path.read_text()) or {}}
    given |= {name for node in tasks if isinstance(node.get("vars"), dict) for name in node["vars"]}
    made = {node["register"] for node in tasks if isinstance(node.get("register"), str)}
    made |= {name for node in tasks for name in node.get("ansible.builtin.set_fact") or {}}
    assert len(given) > 100
    assert len(made) > 100
    assert given & made == set()


def test_an_internal_variable_is_called_other_than_an_option():
    """Two leading underscores are easily overlooked."""
    known = {name for role in ROLES for name in options(role)}
    facts = set(re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", (ROOT / "docs" / "architecture.md").read_text(), re.MULTILINE))
    public = known | {name for names in facts for name in re.findall(r"\w+", names)}
    assert {"iopaint_instances", "iopaint_image_built", "iopaint_kept"} <= public
    texts = [path.read_text() for path in ROOT.glob("roles/*/*/*") if path.suffix in (".yml", ".j2")]
    assert {name for text in texts for name in re.findall(r"\b__(\w+)", text)} & public == set()


def options(role):
    """Return the names of a role's options, those of its entry points included."""
    return {name for spec in specification(role).values() for name in spec.get("options") or {}}


def expressions(node, key=""):
    """Yield each expression of a document, without the texts in it."""
    if isinstance(node, dict):
        for name, child in node.items():
            yield from expressions(child, name)
    elif isinstance(node, list):
        for child in node:
            yield from expressions(child, key)
    elif isinstance(node, str):
        for text in [node] if key in CONDITIONS else re.findall(r"\{[{%](.*?)[}%]\}", node, re.DOTALL):
            yield re.sub(r"'[^']*'|\"[^\"]*\"", "", text)


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_a_role_reads_no_option_of_another_one(role):
    """Except of iopaint_common where it depends on that role, and what it sets itself to hand it over."""
    depends = yaml.safe_load((role / "meta" / "main.yml").read_text()).get("dependencies") or []
    known = options(role).union(*(options(role.parent / each["role"].rpartition(".")[2]) for each in depends))
    other = {name for each in ROLES for name in options(each)} - known
    for path in [*role.glob("tasks/*.yml"), *role.glob("vars/*.yml"), *role.glob("templates/*")]:
        document = path.read_text() if path.suffix == ".j2" else yaml.safe_load(path.read_text())
        read = {word for text in expressions(document) for word in re.findall(r"\w+", text)} & other
        handed_over = {name for name in read if re.search(rf"^ +{name}:", path.read_text(), re.MULTILINE)}
        assert {name for name in read - handed_over if (role.name, name) not in READ_ELSEWHERE} == set(), path
