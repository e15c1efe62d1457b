# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""docker/build/wheelhouse-has: whether a folder has a wheel of each pin."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

PINS = """# a comment == of three words
torch==2.13.0+cpu \\
    --hash=sha256:aa
jaraco.Text==4.0 ; python_version < "4"
typing-extensions==4.15.0
"""
WHEELS = [
    "torch-2.13.0+cpu-cp311-cp311-linux_x86_64.whl",
    "jaraco_text-4.0-1-py3-none-any.whl",
    "Typing_Extensions-4.15.0-py3-none-any.whl",
    "other-1-py3-none-any.whl",
]


@pytest.fixture
def succeeds(tmp_path):
    """Runs the script on pins and the names of wheels."""

    def run(pins, wheels):
        (tmp_path / "pins.txt").write_text(pins)
        (tmp_path / "wheels").mkdir()
        for name in wheels:
            (tmp_path / "wheels" / name).touch()
        command = ["/bin/sh", ROOT / "docker/build/wheelhouse-has", tmp_path / "pins.txt", tmp_path / "wheels"]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        assert (done.stdout, done.stderr) == ("", "")
        return done.returncode == 0

    return run


def test_all_wheels_are_there(succeeds):
    assert succeeds(PINS, WHEELS)


@pytest.mark.parametrize("missing", range(3))
def test_one_wheel_is_missing(succeeds, missing):
    assert not succeeds(PINS, WHEELS[:missing] + WHEELS[missing + 1 :])


@pytest.mark.parametrize("other", ["torch-2.13.0-cp311-cp311-linux_x86_64.whl", "torch-2.13.0+cpux-py3-none-any.whl"])
def test_another_version_is_another_wheel(succeeds, other):
    assert not succeeds(PINS, [other, *WHEELS[1:]])


def test_an_empty_folder_has_none(succeeds):
    assert not succeeds(PINS, [])


def test_a_file_without_pins_is_no_reason_for_a_wheelhouse(succeeds):
    assert not succeeds("# nothing\n", WHEELS)
