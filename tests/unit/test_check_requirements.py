"""docker/build/check-requirements: a source's requirements against the pins."""

import subprocess
import sys
from pathlib import Path

import pytest

DOCKER = Path(__file__).resolve().parents[2] / "docker"
PINS = [DOCKER / "constraints" / "torch-cpu.txt", DOCKER / "constraints" / "packages.txt"]


@pytest.fixture
def check(tmp_path):
    """Run check-requirements against requirements of this text; None for a source without the file."""

    def run(text, pins=PINS):
        path = tmp_path / "requirements.txt"
        if text is not None:
            path.write_text(text)
        command = [sys.executable, DOCKER / "build" / "check-requirements", path, *pins]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    return run


def test_what_upstream_asks_for(check):
    done = check("torch>=2.0.0\nopencv-python\ndiffusers==0.27.2\nhuggingface-hub==0.25.2\n# comment\n\nPillow==9.5.0 # why\n")
    assert done.returncode == 0, done.stderr
    assert "torch==2.13.0+cpu" in done.stdout.split()
    assert "diffusers==0.27.2" in done.stdout.split()


def test_no_requirements(check):
    assert check(None).returncode == 0


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("diffusers==0.30.0", "diffusers==0.30.0: pinned is 0.27.2"),
        ("flask>=3", "flask>=3: not among the pinned packages"),
        ("torch @ https://example.com/torch.whl", "a URL"),
        ("not a requirement", "not understood"),
    ],
)
def test_names_what_does_not_fit(check, line, said):
    done = check(f"torch>=2.0.0\n{line}\n")
    assert done.returncode == 1
    assert said in done.stderr
    assert "torch>=2.0.0" not in done.stderr
    assert "make constraints" in done.stderr


@pytest.mark.parametrize("line", ["flask; sys_platform == 'win32'", "--extra-index-url https://example.com", "triton"])
def test_passes_over_what_is_not_installed_here(check, line):
    assert check(line + "\n").returncode == 0


@pytest.mark.parametrize("torch", ["cpu", "cu130", "cu126"])
def test_each_variant_has_pins_of_its_own(check, torch):
    done = check("torch>=2.0.0\n", [DOCKER / "constraints" / f"torch-{torch}.txt", PINS[1]])
    names = [line.split("==")[0] for line in done.stdout.split()]
    assert len(names) == len(set(names))
    assert any(name.startswith("nvidia-") for name in names) == (torch != "cpu")
    assert "triton" not in names
