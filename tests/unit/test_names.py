# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Messages of modules name a role's variable where the role says so, and otherwise the module's own option."""

import re
import socket

import pytest
import yaml
from ansible_collections.iopaint.fleet.plugins.module_utils import git_output, registry
from ansible_collections.iopaint.fleet.plugins.modules import instance_remove, lock, port_check
from conftest import ROOT

# These check what an operator wrote, so they name the variables. Backups have no names yet.
MODULES = sorted([*ROOT.glob("plugins/modules/*.py"), *ROOT.glob("plugins/module_utils/*.py")])
ROLES = sorted(ROOT.glob("roles/*/meta/argument_specs.yml"))
SPECIFICATIONS = [spec for path in ROLES for spec in yaml.safe_load(path.read_text())["argument_specs"].values()]
VARIABLES = {name for spec in SPECIFICATIONS for name in spec.get("options") or {}}


def tasks(node):
    """Yield each dictionary in a document."""
    if isinstance(node, dict):
        yield node
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else []:
        yield from tasks(child)


def handed_over():
    """Yield each pair of a module's file and the names that a role hands to it; templates are looked up in the role's vars."""
    for path in sorted(ROOT.glob("roles/*/tasks/*.yml")):
        variables = path.parents[1] / "vars" / "main.yml"
        known = yaml.safe_load(variables.read_text()) if variables.exists() else {}
        for task in tasks(yaml.safe_load(path.read_text())):
            for key, options in task.items():
                if str(key).startswith("iopaint.fleet.") and isinstance(options, dict) and "names" in options:
                    names = options["names"]
                    names = names if isinstance(names, dict) else known[names.strip("{ }")]
                    yield pytest.param(
                        ROOT / "plugins" / "modules" / f"{key.rpartition('.')[2]}.py",
                        names,
                        id=f"{path.parents[1].name}-{path.stem}-{key}",
                    )


@pytest.mark.parametrize(
    ("names", "wait", "take_over"),
    [({}, "wait", "take_over"), ({"wait": "my_wait", "take_over": "my_take_over"}, "my_wait", "my_take_over")],
)
def test_the_message_about_a_lock_names_both_options(run_module, tmp_path, names, wait, take_over):
    options = {"path": str(tmp_path / "lock"), "audit": str(tmp_path / "audit.log"), "names": names}
    run_module(lock, owner={"operator": "ann", "controller": "desk", "token": "0123"}, **options)
    message = run_module(lock, owner={"operator": "bob", "token": "4567"}, wait=1, failed=True, **options)["msg"]
    assert f"after 1 s ({wait})" in message
    assert f"or raise {wait}." in message
    assert f"take the lock over with {take_over}=0123" in message


@pytest.mark.parametrize(("names", "shown"), [({}, "ports"), ({"ports": "iopaint_instances"}, "iopaint_instances")])
def test_the_message_about_a_port_names_what_lists_the_ports(run_module, engine, names, shown):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ports = [{"address": "127.0.0.1", "port": listener.getsockname()[1], "project": "iopaint-cpu"}]
        message = run_module(port_check, ports=ports, dir="/opt/iopaint/instances", names=names, failed=True)["msg"]
    assert f"or choose another port in {shown}." in message


@pytest.mark.parametrize(("names", "shown"), [({}, "instances"), ({"instances": "my_list"}, "my_list")])
def test_the_message_about_an_instance_names_what_lists_the_instances(run_module, tmp_path, names, shown):
    folders = {name: str(tmp_path / name) for name in ("dir", "data_dir", "build_dir")}
    message = run_module(instance_remove, instances=["../x"], names=names, failed=True, **folders)["msg"]
    assert message.startswith(f"{shown}: '../x' can't be the name of an instance.")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_no_code_of_a_module_knows_a_variable_of_a_role(path):
    code = re.sub(r'(?s)^(DOCUMENTATION|EXAMPLES|RETURN) = r""".*?"""', "", path.read_text(), flags=re.MULTILINE)
    assert not VARIABLES & set(re.findall(r"\w+", code))


@pytest.mark.parametrize(("path", "names"), [*handed_over()])
def test_a_role_names_options_that_the_module_asks_for_by_variables_that_there_are(path, names):
    action = path.parents[1] / "action" / path.name
    code = path.read_text() + (action.read_text() if action.exists() else "")
    used = {*re.findall(r"""named\([\w.]+, ["']([^"']+)["']\)""", code)}
    used |= {*git_output.OPTIONS} if "git_output" in code else {*registry.SETTINGS} if "registry import" in code else set()
    assert set(names) <= used
    assert {word for name in names.values() for word in re.findall(r"\b(?:iopaint|nvidia)_\w+", name)} <= VARIABLES
