# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""scripts/release: which version follows, and what may be in a tarball."""

import hashlib
import importlib.machinery
import importlib.util
import io
import json
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = {name: name for name in ("README.md", "LICENSE", "CHANGELOG.rst", "meta/runtime.yml", "playbooks/deploy.yml")}


@pytest.fixture(scope="module")
def script():
    loader = importlib.machinery.SourceFileLoader("release_script", str(ROOT / "scripts/release"))
    spec = importlib.util.spec_from_loader("release_script", loader)
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("version", "previous", "sections"),
    [
        ("1.0.0", None, {"major_changes", "breaking_changes"}),
        ("1.2.4", "1.2.3", {"bugfixes", "security_fixes"}),
        ("1.3.0", "1.2.3", {"bugfixes", "minor_changes"}),
        ("1.3.0", "1.2.3", {"deprecated_features"}),
        ("2.0.0", "1.2.3", {"bugfixes", "removed_features"}),
        ("2.0.0", "1.9.9", {"breaking_changes"}),
    ],
)
def test_a_version_that_follows(script, version, previous, sections):
    script.check_version(version, previous, sections)


@pytest.mark.parametrize(
    ("version", "previous", "sections", "said"),
    [
        ("1.0", None, {"bugfixes"}, "a release is X.Y.Z"),
        ("1.0.0-rc.1", None, {"bugfixes"}, "a release is X.Y.Z"),
        ("1.02.0", "1.1.0", {"minor_changes"}, "a release is X.Y.Z"),
        ("1.2.3", "1.2.3", {"bugfixes"}, "make it 1.2.4 or 1.3.0 or 2.0.0"),
        ("1.2.5", "1.2.3", {"bugfixes"}, "make it 1.2.4"),
        ("1.2.4", "1.2.3", {"minor_changes"}, "minor_changes make it 1.3.0 or 2.0.0"),
        ("1.3.0", "1.2.3", {"breaking_changes", "minor_changes"}, "breaking_changes make it 2.0.0"),
        ("1.3.1", "1.2.3", {"minor_changes"}, "make it 1.3.0"),
    ],
)
def test_a_version_that_does_not_follow(script, version, previous, sections, said):
    with pytest.raises(script.ReleaseError, match=said):
        script.check_version(version, previous, sections)


def test_breaking_changes_need_upgrade_notes(script):
    with pytest.raises(script.ReleaseError, match=r"no heading '### 2\.0\.0'"):
        script.check_notes("2.0.0", {"breaking_changes"}, "## Upgrade notes\n\n### 1.0.0\n\n### 2.0.0-beta\n")
    script.check_notes("2.0.0", {"breaking_changes"}, "## Upgrade notes\n\n### 2.0.0\n\nDo this.\n")
    script.check_notes("1.1.0", {"minor_changes"}, "## Upgrade notes\n")


def test_the_previous_release_is_the_newest_by_number(script, tmp_path):
    changelog = tmp_path / "changelog.yaml"
    assert script.previous_release(changelog) is None
    changelog.write_text("releases: {1.9.0: {}, 1.10.0: {}, 1.2.0: {}}\n")
    assert script.previous_release(changelog) == "1.10.0"


@pytest.fixture
def pack(tmp_path):
    """Return a function that packs a collection of version 1.0.0, with more or other files; None leaves one out."""

    def make(**more):
        files = {**FILES, "MANIFEST.json": json.dumps({"collection_info": {"version": "1.0.0"}}), "FILES.json": "{}"}
        files |= {name.replace("__", "/"): text for name, text in more.items()}
        path = tmp_path / "iopaint-fleet-1.0.0.tar.gz"
        with tarfile.open(path, "w:gz") as archive:
            for name, text in files.items():
                if text is not None:
                    member = tarfile.TarInfo(name)
                    member.size = len(text)
                    archive.addfile(member, io.BytesIO(text.encode()))
            link = tarfile.TarInfo("docs/contributing.md")
            link.type, link.linkname = tarfile.SYMTYPE, "../README.md"
            archive.addfile(link)
        return path

    return make


@pytest.fixture
def committed():
    sums = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in FILES.items()}
    return {**sums, "docs/contributing.md": sums["README.md"], "Makefile": "0" * 64}


def test_a_tarball_like_its_commit(script, pack, committed):
    assert script.check_tarball(pack(), "1.0.0", committed) == len(FILES) + 3


@pytest.mark.parametrize(
    ("more", "version", "said"),
    [
        ({".cache__facts": "x"}, "1.0.0", r"not in the commit: \.cache/facts\. See build_ignore"),
        ({"inventories__mine__hosts.yml": "x"}, "1.0.0", "not in the commit: inventories/mine/hosts.yml"),
        ({"README.md": "edited"}, "1.0.0", "not in the commit: README.md"),
        ({"README.md": None}, "1.0.0", "not in the commit: docs/contributing.md"),  # a link without its target
        ({"LICENSE": None}, "1.0.0", "lacks LICENSE"),
        ({"MANIFEST.json": None}, "1.0.0", "no MANIFEST.json"),
        ({}, "1.1.0", r"has version 1\.0\.0 in place of 1\.1\.0"),
    ],
)
def test_a_tarball_that_is_refused(script, pack, committed, more, version, said):
    with pytest.raises(script.ReleaseError, match=said):
        script.check_tarball(pack(**more), version, committed)


def test_a_committed_inventory_of_a_site_is_refused(script, pack, committed):
    content = "all: {}\n"
    committed["inventories/mine/hosts.yml"] = hashlib.sha256(content.encode()).hexdigest()
    with pytest.raises(script.ReleaseError, match=r"holds inventories: inventories/mine/hosts\.yml"):
        script.check_tarball(pack(**{"inventories__mine__hosts.yml": content}), "1.0.0", committed)


def test_a_release_names_outdated_pages_in_chinese(script, tmp_path, monkeypatch, capsys):
    tarball = tmp_path / "iopaint-fleet-1.0.0.tar.gz"
    tarball.write_bytes(b"")
    monkeypatch.setattr(script, "ROOT", tmp_path)
    monkeypatch.setattr(script, "git", lambda *arguments, **options: "")
    monkeypatch.setattr(
        script, "run", lambda *command, **options: "translations: docs/zh/backup.md: docs/backup.md has moved on.\n"
    )
    script.apply(script.Prepared("main", "1.0.0", "0" * 40, tarball, 7))
    said = capsys.readouterr().out.splitlines()
    assert said[-1] == "release: this release has an outdated page: docs/zh/backup.md: docs/backup.md has moved on."
    assert said[0].startswith("release: v1.0.0 is commit 000000000000 on main")
