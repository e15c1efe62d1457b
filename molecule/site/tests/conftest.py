"""What the tests of this scenario share: the operator's plays and ssh, and the host as its administrator sees it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import testinfra

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "shared"))

import play as shared

NAME, BASTION = "iopaint-site", "iopaint-site-bastion"
CONTAINER = "iopaint-cpu-iopaint-cpu-1"
FOLDER = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "site"
SECRET = (FOLDER / "password").read_text().strip()


def play(playbook, *arguments, **variables):
    """Run a playbook to its end; the sudo password must not be in what it prints."""
    run = shared.play(playbook, *arguments, **variables)
    assert SECRET not in run.output
    return run


def ssh(*arguments):
    """Run the operator's ssh; return its exit status and what it printed."""
    command = ["ssh", "-F", str(FOLDER / "ssh_config"), "-o", "ControlPath=none", *arguments]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60, check=False
    )
    return done.returncode, done.stdout


def as_root(command):
    """Run a shell command as Ansible's modules are run: over ssh, by sudo."""
    inventory = os.environ["MOLECULE_INVENTORY_FILE"]
    done = subprocess.run(
        ["ansible", "-i", inventory, NAME, "--become", "-m", "ansible.builtin.shell", "-a", command],
        env={**os.environ, "ANSIBLE_CONFIG": str(shared.ROOT / "ansible.cfg"), "ANSIBLE_FORCE_COLOR": "0"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="session")
def host():
    """The host by the engine's door, which the operator of this site does not have."""
    return testinfra.get_host(f"docker://{NAME}")


@pytest.fixture
def api(host):
    """Return the parsed answer of IOPaint's API: api(path)."""

    def call(path):
        return json.loads(host.check_output(f"curl -sS --fail -m 60 http://127.0.0.1:8080{path}"))

    return call


@pytest.fixture
def version(api):
    """Return the version that the deployed source calls itself."""
    return lambda: api("/openapi.json")["info"]["version"]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Show what the host says of itself when a test fails."""
    report = yield
    if report.when == "call" and report.failed:
        shell = testinfra.get_host(f"docker://{NAME}")
        for command in (
            f"docker ps -a; docker logs --tail 30 {CONTAINER} 2>&1",
            "journalctl --unit ssh --unit docker --no-pager --lines 15",
            "tail -n 5 /var/log/iopaint/audit.log",
        ):
            report.sections.append((command, shell.run(command).stdout))
    return report
