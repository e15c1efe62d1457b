"""What the tests of this scenario share: the host, and the collection as it is installed from a tarball."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "shared"))

from hosts import NAMES, Host, pytest_runtest_makereport
from play import ROOT

__all__ = ["pytest_runtest_makereport"]  # for pytest

INSTALLED = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "installed"
os.environ["ANSIBLE_COLLECTIONS_PATH"] = str(INSTALLED)  # for plays, in place of the checkout


@pytest.fixture(scope="session")
def one():
    return Host(NAMES[0])


@pytest.fixture(scope="session")
def install():
    """Install the collection, `previous` or `this`; return the commit or tag that it was made of."""

    def call(which):
        command = [ROOT / "scripts/install-collection", INSTALLED, which]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    return call


@pytest.fixture
def inpaints(host):
    """Prove the instance from outside of any deploy; return what the module inpaint_check says."""

    def check():
        arguments = {"url": "http://127.0.0.1:8080", "image": "/opt/iopaint/instances/photo.png", "model": "cv2"}
        return host.ansible("iopaint.fleet.inpaint_check", json.dumps(arguments), check=False)

    return check
