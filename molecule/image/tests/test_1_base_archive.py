"""The base image from an archive on the control node, as where no registry and no Debian mirror can be reached."""

import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "shared"))

from play import ROOT, play

MADE, NAMED = "iopaint-base:bookworm", "site/base:1"
ARCHIVE = ROOT / "build" / "base.tar"


@pytest.fixture
def archive(host):
    """An archive of the base under a site's own name; the host has the image no more until the test is over."""
    if host.run("docker image inspect iopaint:cpu-latest").rc != 0:
        pytest.skip("the CPU image shows it, and the base of both is the same")
    host.check_output(f"docker tag {MADE} {NAMED}")
    name = host.backend.get_pytest_id().rpartition("//")[2]
    with ARCHIVE.open("wb") as file:
        subprocess.run(["docker", "exec", name, "docker", "save", NAMED], stdout=file, check=True)
    base = host.check_output(f"docker image inspect --format '{{{{.Id}}}}' {MADE}")
    host.check_output(f"docker rmi {MADE} {NAMED}")
    assert host.run(f"docker image inspect {base}").rc != 0
    yield base
    with ARCHIVE.open("rb") as file:
        subprocess.run(["docker", "exec", "-i", name, "docker", "load", "--quiet"], stdin=file, check=True)
    host.check_output(f"docker tag {NAMED} {MADE} && docker rmi {NAMED}")
    ARCHIVE.unlink()


def test_a_base_from_an_archive_makes_the_same_image(host, archive):
    before = host.check_output("docker image inspect --format '{{json .RootFS.Layers}}' iopaint:cpu-latest")
    run = play("playbooks/build.yml", iopaint_image_base=NAMED, iopaint_image_base_archive=str(ARCHIVE))
    assert run.rc == 0, run.output[-3000:]
    assert run.says(f"Base image {NAMED}: loaded from {ARCHIVE}")
    assert host.check_output(f"docker image inspect --format '{{{{.Id}}}}' {NAMED}") == archive
    assert host.check_output("docker image inspect --format '{{json .RootFS.Layers}}' iopaint:cpu-latest") == before
    assert not host.file("/opt/iopaint/image/base.tar").exists
