"""What the tests of this scenario share: the hosts, what they serve and record, and plays that are killed."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import testinfra

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "shared"))

from play import ROOT

NAMES = ["iopaint-fleet-1", "iopaint-fleet-2", "iopaint-fleet-3"]
INSTANCE = "/opt/iopaint/instances/cpu"
LOCK = "/run/iopaint/lock"
ASK = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:8080/api/v1/model', timeout=10).read().decode())"
DATA = "find /var/lib/iopaint -type f -exec sha256sum {} +"


def image(name):
    """The variables of a play that wants one of the stand-in's images."""
    return {"iopaint_images": {"cpu": f"iopaint:cpu-{name}-standin"}}


class Host:
    """One host of the fleet."""

    def __init__(self, name):
        self.name, self.shell = name, testinfra.get_host(f"docker://{name}")

    def __call__(self, command):
        return self.shell.check_output(command)

    def serves(self):
        """Which of the stand-in's releases answers."""
        return json.loads(self.shell.check_output(f'python3 -c "{ASK}"'))["release"]

    def container(self):
        """ID and start of the only container there is: equal before and after means that nothing was touched."""
        (found,) = self("docker ps -aq").split()
        return self(f"docker inspect --format '{{{{.Id}}}} {{{{.State.StartedAt}}}}' {found}")

    def container_of(self, project):
        """The same of the only container of a compose project."""
        (found,) = self(f"docker ps -aq --filter label=com.docker.compose.project={project}").split()
        return self(f"docker inspect --format '{{{{.Id}}}} {{{{.State.StartedAt}}}}' {found}")

    def current(self):
        """The release that the link names."""
        return self(f"readlink {INSTANCE}/current").removeprefix("releases/")

    def records(self):
        """Every record, by release."""
        texts = self(f"cd {INSTANCE}/releases && for each in *; do tr -d '\\n' < $each/release.json; echo; done")
        return {record["id"]: record for record in map(json.loads, texts.splitlines())}

    def outcomes(self):
        return {name: record["outcome"] for name, record in self.records().items()}

    def audit(self):
        return [json.loads(line) for line in self("cat /var/log/iopaint/audit.log").splitlines()]

    def is_settled(self, release):
        """One release serves and is recorded as current, and nothing of a switch is left over."""
        assert self.serves() == release
        current = [record for record in self.records().values() if record["outcome"] == "current"]
        assert [record["id"] for record in current] == [self.current()]
        assert current[0]["image"] == f"iopaint:cpu-{release}-standin"
        assert "prepared" not in self.outcomes().values()
        assert self.container()
        assert not self.shell.file(LOCK).exists
        return True


@pytest.fixture(scope="session")
def fleet():
    return [Host(name) for name in NAMES]


@pytest.fixture(scope="session")
def one(fleet):
    """The first host, for what one host shows."""
    return fleet[0]


@pytest.fixture(autouse=True)
def data_stays(fleet):
    """Whatever is done, no file of models and outputs changes."""
    for host in fleet:
        host("mkdir -p /var/lib/iopaint/outputs/cpu && echo a picture > /var/lib/iopaint/outputs/cpu/kept.png")
    before = [host(DATA) for host in fleet]
    yield
    assert [host(DATA) for host in fleet] == before


class Killed:
    """A play that is killed, as by a power cut of its control node, once it begins a task; or that goes on meanwhile."""

    def __init__(self, playbook, *arguments, **variables):
        command = ["ansible-playbook", "-i", os.environ["MOLECULE_INVENTORY_FILE"], str(ROOT / playbook), *arguments]
        environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_FORCE_COLOR": "0"}
        self.output = ""
        self.process = subprocess.Popen(
            [*command, "-e", json.dumps(variables)],
            env=environment,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def until(self, task, seconds=0.0):
        """Read on until the task begins, and let it run for some seconds."""
        for line in self.process.stdout:
            self.output += line
            if re.match(rf"TASK \[.*{re.escape(task)}\]", line):
                time.sleep(seconds)
                return self
        raise AssertionError(f"the play ended before {task}:\n{self.output}")

    def kill(self):
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def end(self):
        """Let it go on to its end; give the exit status."""
        self.output += self.process.stdout.read()
        return self.process.wait()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """A failure shows what each host says of itself."""
    report = yield
    if report.when == "call" and report.failed:
        for name in NAMES:
            command = f"docker ps -a; ls -la {INSTANCE} {INSTANCE}/releases; tail -n 12 /var/log/iopaint/audit.log; cat {LOCK}"
            report.sections.append((name, testinfra.get_host(f"docker://{name}").run(command).stdout))
    return report
