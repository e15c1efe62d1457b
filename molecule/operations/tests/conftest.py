"""What the tests of this scenario share: two hosts, and plays that look at more than these."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "shared"))

from hosts import NAMES, Host, pytest_runtest_makereport
from play import play

__all__ = ["NAMES", "pytest_runtest_makereport"]  # for the tests, and for pytest

CPU = {"name": "cpu", "variant": "cpu", "port": 8080, "model": "cv2"}


@pytest.fixture(scope="session")
def fleet():
    return [Host(name) for name in NAMES]


@pytest.fixture(scope="session")
def one(fleet):
    """The first host, for what one host shows."""
    return fleet[0]


@pytest.fixture
def status(tmp_path):
    """Look at the fleet; return the run, the document and the page."""

    def call(*arguments, **variables):
        folder = tmp_path / "report"
        run = play("playbooks/status.yml", *arguments, iopaint_status_dir=str(folder), **variables)
        files = {path.suffix: path.read_text() for path in folder.iterdir()} if folder.exists() else {}
        return run, json.loads(files.get(".json", "null")), files.get(".html")

    return call
