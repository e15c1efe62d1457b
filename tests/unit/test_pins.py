# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a build downloads is pinned by its content, in one way everywhere."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PINS = sorted([*(ROOT / "docker/constraints").glob("*.txt"), *(ROOT / "requirements").glob("*.txt")])
PINS = [path for path in PINS if path.name != "overrides.txt"]  # versions for the resolver, which installs nothing
ROLE = ROOT / "roles/iopaint_image"


@pytest.mark.parametrize("path", PINS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_pin_has_a_hash(path):
    lines = path.read_text().replace("\\\n", " ").splitlines()
    lines = [line for line in lines if line and not line.lstrip().startswith("#")]
    assert [line for line in lines if not re.search(r" --hash=sha256:[0-9a-f]{64}\b", line)] == []


def test_torch_has_the_hashes_of_both_processors():
    """So a build for arm64 downloads what was meant, too."""
    for block in (ROOT / "docker/constraints/torch-cpu.txt").read_text().split("\ntorch")[1:]:
        assert block.count("--hash=") >= 2, block


def test_images_are_by_digest_and_the_same_with_and_without_ansible():
    defaults = yaml.safe_load((ROLE / "defaults/main.yml").read_text())
    options = yaml.safe_load((ROLE / "meta/argument_specs.yml").read_text())["argument_specs"]["main"]["options"]
    for name in ("iopaint_image_base", "iopaint_image_sbom_generator"):
        assert re.search(r":[a-z0-9-]+@sha256:[0-9a-f]{64}$", defaults[name])
        assert options[name]["default"] == defaults[name]
    base = defaults["iopaint_image_base"]
    assert f"ARG BASE={base}\n" in (ROOT / "docker/Dockerfile").read_text()
    assert f'variable "BASE" {{ default = "{base}" }}' in (ROOT / "docker/docker-bake.hcl").read_text()
