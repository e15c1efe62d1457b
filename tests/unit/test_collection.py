# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The collection as its users get it: a checkout, and a tarball that is installed elsewhere."""

import importlib
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]

LAST = "Make the release of each instance current"
ONLY_IN_A_CHECKOUT = {"molecule", "scripts", "build", "requirements", "Makefile", ".ci", ".git", ".venv", ".hypothesis"}


def run(*command, cwd, **environment):
    done = subprocess.run(command, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def tarball(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tarball")
    run("ansible-galaxy", "collection", "build", "--output-path", str(folder), cwd=ROOT)
    (path,) = folder.glob("iopaint-fleet-*.tar.gz")
    return path


def test_the_tarball_holds_what_hosts_need(tarball):
    with tarfile.open(tarball) as archive:
        names = set(archive.getnames())
    assert {
        "docker/Dockerfile",
        "docker/compose.yaml",
        "docker/build/install-packages",
        "docker/image/entrypoint",
        "plugins/plugin_utils/models.json",
        "playbooks/deploy.yml",
        "LICENSE",
    } <= names
    assert not {name.split("/")[0] for name in names} & ONLY_IN_A_CHECKOUT
    assert {name.split("/")[1] for name in names if name.startswith("inventories/")} == {"example"}


def test_the_tarball_runs_elsewhere(tarball, tmp_path):
    """Installed without the checkout next to it, every playbook parses and lists its tasks."""
    (tmp_path / "ansible.cfg").touch()
    elsewhere = {"ANSIBLE_COLLECTIONS_PATH": str(tmp_path / "installed"), "ANSIBLE_CONFIG": str(tmp_path / "ansible.cfg")}
    install = [
        "ansible-galaxy",
        "collection",
        "install",
        str(tarball),
        "--no-deps",
        "--offline",
        "-p",
        str(tmp_path / "installed"),
    ]
    run(*install, cwd=tmp_path, **elsewhere)
    inventory = str(ROOT / "inventories" / "example")
    for playbook in sorted((ROOT / "playbooks").glob("*.yml")):
        name = f"iopaint.fleet.{playbook.stem}"
        assert "play #1" in run("ansible-playbook", name, "-i", inventory, "--list-tasks", cwd=tmp_path, **elsewhere)
    tasks = run("ansible-playbook", "iopaint.fleet.deploy", "-i", inventory, "--list-tasks", cwd=tmp_path, **elsewhere)
    assert LAST in tasks


def test_the_checkout_lists_its_tasks():
    tasks = run("ansible-playbook", "deploy.yml", "-l", "gpu_hosts", "-i", "inventories/example", "--list-tasks", cwd=ROOT)
    assert LAST in tasks


def test_molecule_accepts_every_scenario():
    """Those that `make test` leaves out as well; it reads them all before it runs one."""
    listed = run("molecule", "list", "--format", "plain", cwd=ROOT)
    scenarios = [path.parent.name for path in (ROOT / "molecule").glob("*/molecule.yml")]
    assert [name for name in scenarios if f" {name} " not in listed] == []


def filters():
    """Return each filter of the collection by its name."""
    found = {}
    for path in sorted((ROOT / "plugins" / "filter").glob("*.py")):
        module = importlib.import_module(f"ansible_collections.iopaint.fleet.plugins.filter.{path.stem}")
        found.update(module.FilterModule().filters())
    return found


def documented(name):
    """Return the documentation of a filter, from its sidecar or from the file of its name."""
    sidecar = ROOT / "plugins" / "filter" / f"{name}.yml"
    if sidecar.is_file():
        return yaml.safe_load(sidecar.read_text())["DOCUMENTATION"]
    return yaml.safe_load(importlib.import_module(f"ansible_collections.iopaint.fleet.plugins.filter.{name}").DOCUMENTATION)


@pytest.mark.parametrize("name", filters())
def test_a_filter_documents_itself_and_all_that_it_takes(name):
    """Without a sidecar, ansible-doc shows the documentation of another filter of the same file."""
    document = documented(name)
    (first, *others) = inspect.signature(filters()[name]).parameters.values()
    assert (document["name"], first.kind) == (name, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    options = document["options"]
    assert [option for option in options if option != "_input"] == [parameter.name for parameter in others]
    required = {parameter.name for parameter in others if parameter.default is inspect.Parameter.empty} | {"_input"}
    assert {option for option in options if options[option].get("required")} == required


@pytest.mark.parametrize("path", sorted((ROOT / "plugins/modules").glob("*.py")), ids=lambda path: path.stem)
def test_a_module_says_of_each_attribute_what_it_does(path):
    """As antsibull-docs and ansible-test want it, which `make conformance` runs."""
    module = importlib.import_module(f"ansible_collections.iopaint.fleet.plugins.modules.{path.stem}")
    attributes = yaml.safe_load(module.DOCUMENTATION)["attributes"]
    assert [name for name, each in attributes.items() if not each.get("description")] == []


def test_the_local_inventory_needs_no_python_of_path(tmp_path):
    """pyenv and asdf put shims first in PATH, which don't run where their version is not installed."""
    for name in ("python", "python3", *(f"python3.{minor}" for minor in range(6, 20))):
        (tmp_path / name).write_text(f"#!/bin/sh\necho 'pyenv: {name}: command not found' >&2\nexit 127\n")
        (tmp_path / name).chmod(0o755)
    shims = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "ANSIBLE_INVENTORY": str(ROOT / "inventories" / "local")}
    ansible = shutil.which("ansible")
    assert run(sys.executable, ansible, "localhost", "-m", "ansible.builtin.ping", cwd=ROOT, **shims)


def test_a_password_in_the_address_of_weights_is_not_shown(tmp_path):
    """Neither by the download, nor by what is said of its failure, with all that -vvv shows."""
    model = {
        "name": "lama",
        "url": "http://ann:s3cr3t@127.0.0.1:1/a.pt",
        "checksum": "sha256:00",
        "staged": str(tmp_path / "a.pt"),
    }
    variables = {"__iopaint_missing": {"missing": [model]}, "ansible_python_interpreter": sys.executable}
    (tmp_path / "play.yml").write_text(
        "- hosts: localhost\n  connection: local\n  gather_facts: false\n  tasks:\n"
        "    - ansible.builtin.include_role: {name: iopaint.fleet.iopaint, tasks_from: download_weights}\n"
    )
    command = [Path(sys.executable).with_name("ansible-playbook"), "-vvv", "-i", "localhost,", "-e", json.dumps(variables)]
    places = {"ANSIBLE_COLLECTIONS_PATH": str(ROOT / "build" / "collections"), "ANSIBLE_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [*command, tmp_path / "play.yml"], env={**os.environ, **places}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert "The model lama of iopaint_models could not be downloaded from http://***@127.0.0.1:1/a.pt" in " ".join(
        done.stdout.split()
    )
    assert "s3cr3t" not in done.stdout + done.stderr


@pytest.mark.parametrize("script", sorted(path.name for path in (ROOT / "scripts").iterdir() if path.is_file()))
def test_no_script_cuts_an_endless_source(script):
    """`head` ends its source by a signal, which `set -o pipefail` takes for a failure: `make demo` ended there without a word."""
    assert not re.search(r"/dev/u?random\b.*\|\s*head\b", (ROOT / "scripts" / script).read_text())
