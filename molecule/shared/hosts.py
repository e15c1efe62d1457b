"""The hosts of a scenario whose instances run the stand-in (molecule/fleet/stand-in): what they serve and record."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import testinfra
import yaml

INSTANCE = "/opt/iopaint/instances/cpu"
LOCK = "/run/iopaint/lock"
ASK = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:{}/api/v1/model', timeout=10).read().decode())"
NAMES = sorted(yaml.safe_load(Path(os.environ["MOLECULE_INVENTORY_FILE"]).read_text())["all"]["hosts"])


def image(name):
    """Return the variables of a play that wants one of the stand-in's images."""
    return {"iopaint_images": {"cpu": f"iopaint:cpu-{name}-standin"}}


class Host:
    """One host of the fleet."""

    def __init__(self, name):
        self.name, self.shell = name, testinfra.get_host(f"docker://{name}")

    def __call__(self, command):
        return self.shell.check_output(command)

    def serves(self, port=8080):
        """Return which of the stand-in's releases answers."""
        return json.loads(self(f'python3 -c "{ASK.format(port)}"'))["release"]

    def container(self, options=""):
        """ID and start of the only container there is, of those that options of docker ps choose: equal means untouched."""
        (found,) = self(f"docker ps -aq {options}").split()
        return self(f"docker inspect --format '{{{{.Id}}}} {{{{.State.StartedAt}}}}' {found}")

    def current(self):
        """Return the release that the link names."""
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
        """Return whether one release serves and is recorded as current, and nothing of a switch is left over."""
        assert self.serves() == release
        current = [record for record in self.records().values() if record["outcome"] == "current"]
        assert [record["id"] for record in current] == [self.current()]
        assert current[0]["image"] == f"iopaint:cpu-{release}-standin"
        assert "prepared" not in self.outcomes().values()
        assert self.container()
        assert not self.shell.file(LOCK).exists
        return True


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Show what each host says of itself where a test fails."""
    report = yield
    if report.when == "call" and report.failed:
        for name in NAMES:
            command = f"docker ps -a; ls -la {INSTANCE} {INSTANCE}/releases; tail -n 12 /var/log/iopaint/audit.log; cat {LOCK}"
            report.sections.append((name, testinfra.get_host(f"docker://{name}").run(command).stdout))
    return report
