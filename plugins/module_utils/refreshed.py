# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the last refresh of a builder found: its time, and the Debian packages that images get since."""

from __future__ import annotations

import hashlib
import json

from ansible_collections.iopaint.fleet.plugins.module_utils import foreign
from ansible_collections.iopaint.fleet.plugins.module_utils.files import write


def read(module, path):
    """Return the record (time, packages), or None where nothing was refreshed yet; fail the module where it can't be read."""
    try:
        record = foreign.parse_json(foreign.read_text(path), dict)
        if not isinstance(record.get("time"), str) or not isinstance(record.get("packages"), dict):
            raise foreign.ForeignError("it has no time or no packages")
    except FileNotFoundError:
        return None
    except (OSError, foreign.ForeignError) as error:
        module.fail_json(
            msg=f"The record of the last refresh, {path}, can't be used: {error}. Remove the file, then refresh the "
            "images again. Nothing was built."
        )
    return record


def save(path, time, packages):
    """Write the record."""
    write(path, json.dumps({"time": time, "packages": packages}, indent=2, sort_keys=True) + "\n")


def digest(record):
    """Return the SHA-256 (hex) of the packages of a record; empty where there is none."""
    return hashlib.sha256(json.dumps(record["packages"], sort_keys=True).encode()).hexdigest() if record else ""
