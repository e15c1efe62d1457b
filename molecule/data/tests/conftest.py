"""What the tests of this scenario share: the host that serves, its data, and the places where its backups are."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import testinfra

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "shared"))

import hosts
from play import deployed, process

NAME = "iopaint-data-1"
FOLDER = "/var/backups/iopaint"
SSH = {"iopaint_backup_target": "keeper@iopaint-data-2:/srv/ssh/iopaint"}
DAEMON = {"iopaint_backup_target": "rsync://iopaint@iopaint-data-2/backups/iopaint", "iopaint_backup_password": "a pass'word"}
SUMS = "cd {} && find . -type f -not -path '*/.*' -exec sha256sum {{}} + | sort -k2"
MODEL = "models/torch/hub/checkpoints/big-lama.pt"


class Host(hosts.Host):
    """A host with data, or with backups of it."""

    def sums(self, folder="/var/lib/iopaint"):
        """The sum of each file of models and outputs, by path."""
        return {line[66:]: line[:64] for line in self(SUMS.format(folder)).splitlines()}

    def state(self):
        """Data and containers: equal before and after means that nothing was touched."""
        return self.sums(), self("find /var/lib/iopaint -printf '%p %i %m %U:%G\n' | sort"), deployed(self.shell)

    def backups(self, folder=FOLDER, host=NAME):
        """Names of what lies in a folder of backups."""
        return self(f"ls {folder}/{host} 2>/dev/null || true").split()

    def manifest(self, name, folder=FOLDER):
        return json.loads(self(f"cat {folder}/{NAME}/{name}/manifest.json"))


@pytest.fixture(scope="session")
def host():
    return Host(NAME)


@pytest.fixture(scope="session")
def store():
    """The host that keeps backups."""
    return Host("iopaint-data-2")


@pytest.fixture(scope="session", autouse=True)
def data(host):
    """A model of some size, a link as the hub libraries make it, and pictures, all of the image's user."""
    host(
        f"cd /var/lib/iopaint && mkdir -p $(dirname {MODEL}) outputs/cpu/folder"
        f" && {{ test -e {MODEL} || head -c 40000000 /dev/urandom > {MODEL}; }}"
        " && ln -sf torch/hub/checkpoints/big-lama.pt models/lama.pt"
        " && for i in 1 2 3; do echo picture $i > outputs/cpu/$i.png; done && echo nested > 'outputs/cpu/folder/ü [x].png'"
        " && chmod 600 outputs/cpu/1.png && chown -hR 10001:10001 models outputs/cpu"
    )


class Killed:
    """A play whose control node is lost once it begins a task."""

    def __init__(self, playbook, task, **variables):
        with subprocess.Popen(**process(playbook, **variables), start_new_session=True) as running:
            self.output = ""
            for line in running.stdout:
                self.output += line
                if line.startswith("TASK [") and task in line:
                    os.killpg(running.pid, signal.SIGKILL)
                    return
        raise AssertionError(f"the play ended before {task}:\n{self.output}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """A failure shows what the hosts say of themselves."""
    report = yield
    if report.when == "call" and report.failed:
        command = f"docker ps -a; ls -laR /var/lib/iopaint; ls -la {FOLDER}/*; tail -n 5 /var/log/iopaint/audit.log"
        report.sections.append((NAME, testinfra.get_host(f"docker://{NAME}").run(command).stdout))
        report.sections.append(("store", testinfra.get_host("docker://iopaint-data-2").run("ls -la /srv/*/*/*").stdout))
    return report
