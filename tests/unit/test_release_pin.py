# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Checksums of what a build installs: docker/build/release-pin, and the steps of the Dockerfile."""

import re
import subprocess

import pytest
from conftest import ROOT

DOCKER = ROOT / "docker"


def release_pin(*words):
    command = ["/bin/sh", str(DOCKER / "build/release-pin"), str(DOCKER / "constraints/releases.txt"), *words]
    return subprocess.run(command, check=False, capture_output=True, text=True)


@pytest.mark.parametrize("version", ["1.6.0", "1.0.0"])
def test_a_known_release_has_the_checksums_of_its_files(version):
    first, *hashes = release_pin(version, "").stdout.splitlines()
    assert first == f"iopaint=={version} \\"
    assert len(hashes) == 2
    assert all(re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}(?: \\)?", line) for line in hashes)


def test_a_checksum_that_is_given_counts():
    assert release_pin("9.0", "0" * 64).stdout == f"iopaint==9.0 --hash=sha256:{'0' * 64}\n"


@pytest.mark.parametrize("version", ["9.0", "1.6", "1.6.0.1"])
def test_an_unknown_release_is_refused(version):
    done = release_pin(version, "")
    assert (done.returncode, done.stdout) == (1, "")
    assert f"The checksum of IOPaint {version} is not known. Name the SHA-256 of its wheel: RELEASE_SHA256" in done.stderr


def test_every_installation_checks_hashes():
    recipe = (DOCKER / "Dockerfile").read_text().replace("\\\n", "")
    steps = re.findall(r"pip install [^&\n]*", recipe)
    assert len(steps) == 3
    assert all("--require-hashes -r " in step for step in steps), steps


@pytest.mark.parametrize("name", ["tools", "node", "packages", "plugins", "torch-cu126", "torch-cu130", "xformers-cu126"])
def test_every_pin_has_hashes(name):
    lines = (DOCKER / "constraints" / f"{name}.txt").read_text().replace("\\\n", "").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert pins
    assert [line for line in pins if "--hash=sha256:" not in line] == []
