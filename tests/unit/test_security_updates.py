# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The role iopaint_maintain: updates that apt takes by its preferences, from repositories of all kinds. Nothing is installed."""

import hashlib
import re
import shutil
import subprocess
from pathlib import Path

import pytest

PREFERENCES = Path(__file__).resolve().parents[2] / "roles" / "iopaint_maintain" / "files" / "security.pref"
# Fields of the Release file (none: there is no such file), and packages with their versions.
DEBIAN = {
    "main": ({"Origin": "Debian", "Label": "Debian", "Suite": "stable", "Codename": "trixie"}, {"fixed": "1.1", "new": "1"}),
    "updates": ({"Origin": "Debian", "Label": "Debian", "Suite": "stable-updates"}, {"fixed": "1.3", "other": "2"}),
    "security": ({"Origin": "Debian", "Label": "Debian-Security", "Suite": "oldstable-security"}, {"fixed": "1.2", "held": "2"}),
}
UBUNTU = {
    "main": ({"Origin": "Ubuntu", "Suite": "noble", "Codename": "noble"}, {"fixed": "1.1", "new": "1"}),
    "updates": ({"Origin": "Ubuntu", "Suite": "noble-updates", "Codename": "noble"}, {"fixed": "1.3", "other": "2"}),
    "security": ({"Origin": "Ubuntu", "Suite": "noble-security", "Codename": "noble"}, {"fixed": "1.2", "held": "2"}),
}
VENDORS = {
    "docker": ({"Origin": "Docker", "Label": "Docker CE", "Suite": "trixie"}, {"vendor": "2"}),
    "nvidia": ({"Origin": "NVIDIA", "Label": "NVIDIA CUDA"}, {"flat": "2"}),
    "nameless": ({}, {"nameless": "2"}),
    "bare": (None, {"bare": "2"}),
}
INSTALLED = ("fixed", "other", "held", "vendor", "flat", "nameless", "bare")

pytestmark = pytest.mark.skipif(shutil.which("apt-get") is None, reason="needs apt")


def stanza(name, version, *more):
    return "\n".join(
        [f"Package: {name}", f"Version: {version}", "Architecture: all", "Maintainer: x", "Description: x", *more, ""]
    )


def repository(folder, release, packages):
    """Write a flat repository. The package `fixed` of the security archive needs the package `new` of another one."""
    folder.mkdir()
    more = [f"SHA256: {'0' * 64}", "Size: 1", *(["Depends: new"] if folder.name == "security" else [])]
    text = "\n".join(stanza(name, version, f"Filename: ./{name}.deb", *more) for name, version in packages.items())
    (folder / "Packages").write_text(text)
    if release is not None:
        sums = f"SHA256:\n {hashlib.sha256(text.encode()).hexdigest()} {len(text)} Packages\n"
        fields = "".join(f"{name}: {value}\n" for name, value in release.items())
        (folder / "Release").write_text(f"{fields}Date: Sat, 28 Nov 2026 00:00:00 UTC\n{sums}")


@pytest.fixture(params=[DEBIAN, UBUNTU], ids=["Debian", "Ubuntu"])
def updates(request, tmp_path):
    """Return what apt would install on a host with these repositories, name -> version."""
    repositories = {**request.param, **VENDORS}
    for name, (release, packages) in repositories.items():
        repository(tmp_path / name, release, packages)
    for name in ("lists/partial", "archives/partial", "empty"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "sources.list").write_text("".join(f"deb [trusted=yes] file:{tmp_path}/{name} ./\n" for name in repositories))
    states = {name: f"Status: {'hold' if name == 'held' else 'install'} ok installed" for name in INSTALLED}
    (tmp_path / "status").write_text("\n".join(stanza(name, "1.0", state) for name, state in states.items()))
    settings = {
        "Dir::State::status": tmp_path / "status",
        "Dir::State::lists": tmp_path / "lists",
        "Dir::State::extended_states": tmp_path / "extended_states",
        "Dir::Cache": tmp_path,
        "Dir::Etc::SourceList": tmp_path / "sources.list",
        "Dir::Etc::SourceParts": tmp_path / "empty",
        "Dir::Etc::PreferencesParts": tmp_path / "empty",
        "Debug::NoLocking": "true",
        "APT::Sandbox::User": "root",
    }
    options = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]

    def apt(*words):
        return subprocess.run(["apt-get", *options, *words], capture_output=True, text=True, check=True).stdout

    def updates(*more):
        return dict(
            re.findall(r"^Inst (\S+) (?:\[\S+\] )?\((\S+)", apt(*more, "--simulate", "--with-new-pkgs", "upgrade"), re.MULTILINE)
        )

    apt("update")
    return updates


def test_all_updates_but_those_on_hold(updates):
    assert updates() == {"fixed": "1.3", "other": "2", "vendor": "2", "flat": "2", "nameless": "2", "bare": "2"}


def test_security_updates_alone_and_what_they_need(updates):
    """Also where another archive has a newer version of the package."""
    assert updates("-o", f"Dir::Etc::Preferences={PREFERENCES}") == {"fixed": "1.2", "new": "1"}
