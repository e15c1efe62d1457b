"""What the tests of this scenario share: the operator's plays, and the host that has no network."""

import hashlib
import sys
from functools import partial
from pathlib import Path

import pytest
import testinfra

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "shared"))
from play import ROOT, play

BUILDER, INSIDE = "iopaint-bundle-builder", "iopaint-bundle-inside"
BUNDLE = ROOT / "build" / "bundle" / "iopaint.tar.zst"


@pytest.fixture(scope="module")
def builder():
    """The connected host."""
    return testinfra.get_host(f"docker://{BUILDER}")


@pytest.fixture(scope="module")
def inside():
    """The host without a network."""
    return testinfra.get_host(f"docker://{INSIDE}")


@pytest.fixture(scope="session")
def said():
    """What the plays on the builder said, with all that -vvv adds."""
    return []


@pytest.fixture(scope="module")
def make():
    """Makes a bundle, as an operator does."""
    BUNDLE.parent.mkdir(parents=True, exist_ok=True)
    return partial(play, "playbooks/bundle.yml", "-l", BUILDER, iopaint_bundle_file=str(BUNDLE))


@pytest.fixture(scope="module")
def from_bundle():
    """Runs a playbook on the host without a network: from_bundle(playbook, *arguments, **variables)."""

    def run(playbook, *arguments, **variables):
        bundle = {"iopaint_image_source": "bundle", "iopaint_image_bundle": str(BUNDLE)}
        return play(playbook, "-l", INSIDE, *arguments, **{**bundle, **variables})

    return run


@pytest.fixture
def checksum():
    """The checksum of the bundle, as its maker prints it."""
    with BUNDLE.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
