# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""scripts/install-collection: which release is the previous one, and that the working tree replaces it."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
GALAXY = (
    "namespace: iopaint\nname: fleet\nversion: {}\nreadme: README.md\nauthors: [nobody]\nbuild_ignore: [scripts, installed]\n"
)


class Checkout:
    """A repository with a small collection in it."""

    def __init__(self, folder):
        self.folder = folder
        (folder / "scripts").mkdir()
        shutil.copy(ROOT / "scripts/install-collection", folder / "scripts")
        (folder / "README.md").touch()
        self.git("init", "--quiet")

    def git(self, *arguments):
        identity = ["-c", "user.name=nobody", "-c", "user.email=nobody@example.org", "-c", "tag.gpgSign=false"]
        subprocess.run(["git", *identity, *arguments], cwd=self.folder, check=True, capture_output=True)

    def commit(self, version, *tags):
        (self.folder / "galaxy.yml").write_text(GALAXY.format(version))
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", version)
        for tag in tags:
            self.git("tag", tag)

    def install(self, which, **environment):
        """Return the exit status, what was printed and which version is installed."""
        command = [self.folder / "scripts/install-collection", self.folder / "installed", which]
        done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
        manifest = self.folder / "installed/ansible_collections/iopaint/fleet/MANIFEST.json"
        version = json.loads(manifest.read_text())["collection_info"]["version"] if manifest.exists() else None
        return done.returncode, done.stdout.strip() or done.stderr.strip(), version


@pytest.fixture
def checkout(tmp_path):
    return Checkout(tmp_path)


def test_the_previous_release_is_the_newest_tag_before_this_commit(checkout):
    checkout.commit("1.0.0", "v1.0.0")
    checkout.commit("1.1.0", "v1.1.0", "nightly")
    checkout.commit("1.2.0", "v1.2.0")  # as in the run for a release
    assert checkout.install("previous") == (0, "v1.1.0", "1.1.0")
    (checkout.folder / "galaxy.yml").write_text(GALAXY.format("1.3.0"))  # not committed
    assert checkout.install("this") == (0, "the working tree", "1.3.0")
    assert checkout.install("previous", PREVIOUS_REF="v1.0.0") == (0, "v1.0.0", "1.0.0")


def test_before_the_first_release_it_is_this_commit(checkout):
    checkout.commit("1.0.0")
    assert checkout.install("previous") == (0, "HEAD", "1.0.0")


def test_an_unknown_commit_is_named(checkout):
    checkout.commit("1.0.0")
    status, said, version = checkout.install("previous", PREVIOUS_REF="v9")
    assert (status, version) == (1, None)
    assert said == "install-collection: PREVIOUS_REF is 'v9', which is no commit here"
