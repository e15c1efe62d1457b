# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the roles' meta/argument_specs.yml say about their variables."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from ansible.module_utils.common.yaml import yaml_load

ROLES = Path(__file__).resolve().parents[2] / "roles"


def role_names() -> list[str]:
    """Return the names of this collection's roles."""
    return sorted(path.name for path in ROLES.iterdir() if path.is_dir())


@cache
def specification(role: str) -> dict:
    """Return the options of a role's entry point main, by name."""
    path = ROLES / role / "meta" / "argument_specs.yml"
    return yaml_load(path.read_text(encoding="utf-8"))["argument_specs"]["main"]["options"]
