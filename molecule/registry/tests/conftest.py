"""What the tests of this scenario share: the hosts, and the stand-ins that take the place of builds."""

import json
import re
import sys
from pathlib import Path

import pytest
import testinfra

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "shared"))

from play import play

NAMES = ["iopaint-registry-1", "iopaint-registry-2"]
REPOSITORY = "iopaint-registry:5443/team/iopaint"
PASSWORD = "a secret of $the 'fleet'"
INSTANCE = "/opt/iopaint/instances/cpu"
ASK = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:8080/api/v1/model', timeout=10).read().decode())"


class Host:
    """One host of the fleet."""

    def __init__(self, name):
        self.name, self.shell = name, testinfra.get_host(f"docker://{name}")

    def __call__(self, command):
        return self.shell.check_output(command)

    def state(self):
        """What runs, which images there are and what is recorded: equal before and after means that nothing was touched."""
        images = "docker images --digests --no-trunc --format '{{.ID}} {{.Repository}}:{{.Tag}} {{.Digest}}' | sort"
        records = f"cd {INSTANCE} && readlink current && grep -H -E 'outcome|image' releases/*/release.json"
        return self(f"docker ps -aq --no-trunc; {images}; {records}")

    def serves(self):
        """Which of the stand-in's releases answers."""
        return json.loads(self(f'python3 -c "{ASK}"'))["release"]

    def record(self):
        """The record of the current release."""
        return json.loads(self(f"cat {INSTANCE}/current/release.json"))

    def images(self):
        """Names, by digest too, of the images that the engine has."""
        return self("docker images --digests --format '{{.Repository}}:{{.Tag}} {{.Digest}}'")

    def has_no_login(self):
        return (
            self("ls /run | grep -c iopaint-registry- || true") == "0" and not self.shell.file("/root/.docker/config.json").exists
        )


@pytest.fixture(scope="session")
def registry():
    return Host("iopaint-registry")


@pytest.fixture(scope="session")
def builder():
    return Host(NAMES[0])


@pytest.fixture(scope="session")
def other():
    return Host(NAMES[1])


@pytest.fixture(scope="session")
def failed_build():
    """A build that fails, as there is nothing to build in the source; it says what the image would have been called."""
    return play("playbooks/build.yml", iopaint_image_ref="v4")


@pytest.fixture(scope="session")
def stand_in(failed_build, builder):
    """Return a stand-in of the scenario fleet the name of a ref's image, as if it had been built; a layer of it is random."""
    recipe = re.search(r"The build of iopaint:cpu-[0-9a-f]{12}-([0-9a-f]{12}) failed", failed_build.output)[1]

    def stand_in(ref, megabytes=1):
        commit = builder(f"git -C /srv/source rev-parse {ref}^{{commit}}")[:12]
        name = f"iopaint:cpu-{commit}-{recipe}"
        lines = [
            f"FROM iopaint-fleet-standin:{ref}",
            f"LABEL io.iopaint.fleet.recipe={recipe}",
            "USER root",
            f"RUN head -c {megabytes}M /dev/urandom > /random",
            "USER 10001:10001",
        ]
        builder(f"printf '%s\\n' '{chr(10).join(lines)}' | docker build --quiet --tag {name} -")
        return name

    return stand_in


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """A failure shows what each host says of itself."""
    report = yield
    if report.when == "call" and report.failed:
        for name in NAMES:
            command = "docker ps -a; docker images --digests; df -h /var/lib/docker; tail -n 8 /var/log/iopaint/audit.log"
            report.sections.append((name, testinfra.get_host(f"docker://{name}").run(command).stdout))
        command = "systemctl status docker-registry; journalctl -u docker-registry -o cat | tail -n 15"
        report.sections.append(("registry", testinfra.get_host("docker://iopaint-registry").run(command).stdout))
    return report
