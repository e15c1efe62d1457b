# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""docker/apt-install: which calls of apt-get it makes, and that a failing one ends the step."""

import os
import subprocess

import pytest
from conftest import ROOT

# Writes down what it is asked for, and fails as often as the test wants. A download gives the packages that the test has made.
APT_GET = """#!/bin/sh
for word in "$@"; do
  case "$word" in update|install) verb=$word ;; Dir::Cache::archives=*) archives=${word#*=} ;; esac
done
echo "$@" >> "$STATE/calls"
echo x >> "$STATE/$verb"
[ "$(wc -l < "$STATE/$verb")" -gt "$(cat "$STATE/$verb-fails" 2>/dev/null || echo 0)" ] || exit 100
[ -z "${archives:-}" ] || find "$STATE" -name '*.deb' -exec cp -t "$archives" {} +
"""


@pytest.fixture
def apt_install(tmp_path):
    """Runs the script with apt-get as a stand-in; gives the exit status and the calls."""

    def run(*words, mirror="", **fails):
        settings, state, secrets = tmp_path / "settings", tmp_path / "state", tmp_path / "secrets"
        for folder in (settings, state, secrets, tmp_path / "bin"):
            folder.mkdir(exist_ok=True)
        (settings / "docker-clean").touch()
        program = tmp_path / "bin" / "apt-get"
        program.write_text(APT_GET)
        program.chmod(0o755)
        for verb, times in fails.items():
            (state / f"{verb}-fails").write_text(str(times))
        if mirror:
            (secrets / "debian-mirror").write_text(mirror)
        env = {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "STATE": str(state)}
        env.update(APT_SETTINGS=str(settings), SECRETS=str(secrets), APT_INSTALL_DEBS=str(tmp_path / "debs"))
        env.update(APT_INSTALL_ROOT=str(tmp_path / "root"))
        command = ["/bin/sh", str(ROOT / "docker/apt-install"), *(words or ["python3"])]
        done = subprocess.run(command, env=env, check=False, capture_output=True)
        assert not (settings / "docker-clean").exists()
        calls = (state / "calls").read_text().splitlines()
        return done.returncode, [next(word for word in call.split() if word in ("update", "install")) for call in calls], calls

    return run


@pytest.fixture
def package(tmp_path):
    """Makes a package with these files, for the stand-in to download."""

    def make(name, files):
        tree = tmp_path / f"{name}-tree"
        for path, text in {**files, "DEBIAN/control": CONTROL % name}.items():
            (tree / path).parent.mkdir(parents=True, exist_ok=True)
            (tree / path).write_text(text)
        (tmp_path / "state").mkdir(exist_ok=True)
        subprocess.run(["dpkg-deb", "--build", tree, tmp_path / "state" / f"{name}.deb"], check=True, capture_output=True)

    return make


CONTROL = """Package: %s
Version: 1
Architecture: all
Maintainer: nobody <nobody@example.com>
Description: made for a test
"""


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


def test_a_mirror_takes_the_place_of_the_sources(apt_install):
    _status, _verbs, calls = apt_install(mirror="https://mirror.example.com/debian")
    assert all("Dir::Etc::sourcelist=/tmp/mirror.list" in call for call in calls)


def test_unpacked_packages_lie_in_a_root_whose_folders_are_links(apt_install, package, tmp_path):
    """A package's /lib would otherwise take the place of the link to /usr/lib, and with it of the C library."""
    root = tmp_path / "root"
    (root / "usr/lib").mkdir(parents=True)
    (root / "lib").symlink_to("usr/lib")
    package("libthing", {"lib/libthing.so": "a library"})
    authorities = "usr/share/ca-certificates/mozilla"
    package("ca-certificates", {f"{authorities}/A.crt": "A\n", f"{authorities}/B.crt": "B\n"})
    (root / "etc/ssl/certs").mkdir(parents=True)
    status, verbs, calls = apt_install("--unpack", "libthing", "ca-certificates")
    assert (status, verbs) == (0, ["update", "install"])
    assert calls[1].endswith("--download-only libthing ca-certificates")
    assert (root / "lib").is_symlink()
    assert (root / "usr/lib/libthing.so").read_text() == "a library"
    assert (root / "etc/ssl/certs/ca-certificates.crt").read_text() == "A\nB\n"


@pytest.fixture
def bundle(tmp_path):
    """The CA bundle of a base that has one."""
    path = tmp_path / "root/etc/ssl/certs/ca-certificates.crt"
    path.parent.mkdir(parents=True)
    path.write_text("the base's own")
    return path


def test_a_base_keeps_its_ca_bundle(apt_install, bundle):
    assert apt_install("--unpack", "python3")[0] == 0
    assert bundle.read_text() == "the base's own"


@pytest.mark.usefixtures("bundle")
def test_a_broken_package_ends_the_step(apt_install, tmp_path):
    (tmp_path / "state").mkdir()
    (tmp_path / "state/broken.deb").write_text("not a package")
    assert apt_install("--unpack", "broken")[0] != 0
