# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""molecule/hosts/make-image: which archive each suite comes from, and hosts that can't be made on a machine."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCKER = """#!/bin/sh
case "$*" in
  *CgroupVersion*) echo "$CGROUPS" ;;
  "image inspect iopaint-fleet-host:trixie") ;;
  "image inspect"*) exit 1 ;;
  run*) echo key ;;
esac
"""
MMDEBSTRAP = """#!/bin/sh
printf '%s\\n' "$@" >>"$CALLS"
echo -- >>"$CALLS"
case "$*" in *--simulate*) exit "$ARCHIVE" ;; esac
"""


@pytest.fixture
def make(tmp_path):
    """Run the script with stand-ins for docker and mmdebstrap; return the exit status, its output and mmdebstrap's last call."""
    for name, text in {"docker": DOCKER, "mmdebstrap": MMDEBSTRAP, "dpkg": "#!/bin/sh\necho $PROCESSOR\n"}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)

    def call(suite, *, cgroups="2", archive="0", processor="amd64", **more):
        calls = tmp_path / "calls"
        calls.write_text("")
        environment = {name: value for name, value in os.environ.items() if not name.endswith("_MIRROR")}
        environment |= {"PATH": f"{tmp_path}:{os.environ['PATH']}", "CALLS": str(calls), "CGROUPS": cgroups, "ARCHIVE": archive}
        command = [ROOT / "molecule/hosts/make-image", suite]
        done = subprocess.run(
            command, env={**environment, "PROCESSOR": processor, **more}, capture_output=True, text=True, check=False
        )
        return done.returncode, done.stdout + done.stderr, calls.read_text().split("--\n")[-2:-1]

    return call


def sources(call):
    """Return the arguments after the archive's file."""
    arguments = call[0].splitlines()
    return arguments[next(i for i, argument in enumerate(arguments) if argument.endswith("/rootfs.tar")) + 1 :]


@pytest.mark.parametrize("suite", ["trixie", "bookworm"])
def test_debian_comes_from_the_mirror_that_is_named(make, suite):
    status, _, call = make(suite)
    assert (status, sources(call)) == (0, [])
    status, _, call = make(suite, DEBIAN_MIRROR="http://mirror.example.com/debian")
    assert (status, sources(call)) == (0, ["http://mirror.example.com/debian"])


@pytest.mark.parametrize("suite", ["jammy", "noble", "resolute"])
def test_ubuntu_comes_from_its_own_archive_with_its_updates(make, suite):
    status, _, call = make(suite, DEBIAN_MIRROR="http://mirror.example.com/debian")
    archive = "http://archive.ubuntu.com/ubuntu"
    assert (status, sources(call)) == (
        0,
        [f"deb {archive} {each} main universe" for each in (suite, f"{suite}-updates", f"{suite}-security")],
    )
    assert sources(make(suite, processor="arm64")[2])[0] == f"deb http://ports.ubuntu.com/ubuntu-ports {suite} main universe"
    status, _, call = make(suite, UBUNTU_MIRROR="http://mirror.example.com/ubuntu")
    assert sources(call)[0] == f"deb http://mirror.example.com/ubuntu {suite} main universe"


def test_an_archive_that_is_not_reached_is_no_failure(make):
    status, output, call = make("jammy", archive="25")
    assert status == 75
    assert "Ubuntu's archive can't be reached from here, so there is no test host image iopaint-fleet-host:jammy" in output
    assert "--simulate" in call[0]


def test_ubuntu_2604_needs_cgroup_v2(make):
    status, output, call = make("resolute", cgroups="1")
    assert (status, call) == (75, [])
    assert "needs cgroup v2" in output
    assert make("noble", cgroups="1")[0] == 0
