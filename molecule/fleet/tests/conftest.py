"""What the tests of this scenario share: the hosts, and plays that are killed."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "shared"))

from hosts import LOCK, NAMES, Host, image, pytest_runtest_makereport
from play import process

__all__ = ["LOCK", "NAMES", "Host", "image", "pytest_runtest_makereport"]  # for the tests, and for pytest

INSTANCES = "molecule/fleet/instances.yml"  # the part of deploy.yml that is about instances
DATA = "find /var/lib/iopaint -type f -exec sha256sum {} +"


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
        host(
            "cd /var/lib/iopaint && mkdir -p outputs/cpu && echo a picture > outputs/cpu/kept.png"
            " && chown 10001:10001 outputs/cpu outputs/cpu/kept.png"
        )
    before = [host(DATA) for host in fleet]
    yield
    assert [host(DATA) for host in fleet] == before


class Killed:
    """A play that is killed, as by a power cut of its control node, once it begins a task; or that goes on meanwhile."""

    def __init__(self, playbook, *arguments, **variables):
        self.output = ""
        self.process = subprocess.Popen(**process(playbook, *arguments, **variables), start_new_session=True)

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
        """Let it go on to its end; return the exit status."""
        self.output += self.process.stdout.read()
        return self.process.wait()
