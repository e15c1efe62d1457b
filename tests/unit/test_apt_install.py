# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""docker/build/apt-install: which calls of apt-get it makes, and that a failing one ends the step."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Writes down what it is asked for, and fails as often as the test wants.
APT_GET = """#!/bin/sh
for word in "$@"; do
  case "$word" in update|upgrade|install) verb=$word ;; esac
done
echo "$@" >> "$STATE/calls"
echo x >> "$STATE/$verb"
[ "$(wc -l < "$STATE/$verb")" -gt "$(cat "$STATE/$verb-fails" 2>/dev/null || echo 0)" ] || exit 100
"""


@pytest.fixture
def apt_install(tmp_path):
    """Run the script with a stand-in for apt-get; return the exit status and the calls."""

    def run(*words, mirror="", refreshed="", **fails):
        settings, state, secrets = tmp_path / "settings", tmp_path / "state", tmp_path / "secrets"
        for folder in (settings, state, secrets, tmp_path / "bin"):
            folder.mkdir(exist_ok=True)
        (settings / "docker-clean").touch()
        program = tmp_path / "bin" / "apt-get"
        program.write_text(APT_GET)
        program.chmod(0o755)
        for verb, times in fails.items():
            (state / f"{verb}-fails").write_text(str(times))
        env = {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "STATE": str(state)}
        env.update(APT_SETTINGS=str(settings), SECRETS=str(secrets), DEBIAN_MIRROR=mirror, REFRESHED=refreshed)
        command = ["/bin/sh", str(ROOT / "docker/build/apt-install"), *(words or ["python3"])]
        done = subprocess.run(command, env=env, check=False, capture_output=True)
        assert not (settings / "docker-clean").exists()
        calls = (state / "calls").read_text().splitlines()
        verbs = [next(word for word in call.split() if word in ("update", "upgrade", "install")) for call in calls]
        return done.returncode, verbs, calls

    return run


def test_lists_are_fetched_first(apt_install):
    status, verbs, calls = apt_install()
    assert (status, verbs) == (0, ["update", "install"])
    assert calls[1].endswith("--no-install-recommends python3")


def test_lists_that_cannot_be_fetched_end_the_step(apt_install):
    """Else a base without Python would be kept in the build cache."""
    status, verbs, _calls = apt_install(update=1)
    assert (status, verbs) == (100, ["update"])


def test_a_package_that_cannot_be_had_ends_the_step(apt_install):
    assert apt_install(install=1)[:2] == (100, ["update", "install"])


def test_a_refresh_upgrades_what_the_base_has(apt_install):
    status, verbs, calls = apt_install(refreshed="2026-01-01T00:00:00Z")
    assert (status, verbs) == (0, ["update", "upgrade", "install"])
    assert "--with-new-pkgs" in calls[1]


def test_an_upgrade_that_fails_ends_the_step(apt_install):
    assert apt_install(refreshed="now", upgrade=1)[:2] == (100, ["update", "upgrade"])


def test_a_mirror_takes_the_place_of_the_sources(apt_install):
    _status, _verbs, calls = apt_install(mirror="https://mirror.example.com/debian")
    assert calls
    assert all("Dir::Etc::sourcelist=/dev/shm/mirror.list" in call for call in calls)
