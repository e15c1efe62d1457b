# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The file that locks a host: where it lies, and who holds it."""

from __future__ import annotations

import json
import os

from ansible_collections.iopaint.fleet.plugins.module_utils import audit

PATH = "/run/iopaint/lock"
UNREADABLE = {"operator": "unknown", "controller": "unknown", "play": "unknown (the lock can't be read)", "token": "unreadable"}


def read(path):
    """Return what the lock says, None where there is none."""
    try:
        with open(path, encoding="utf-8") as stream:
            text = stream.read()
    except FileNotFoundError:
        return None
    try:
        holder = json.loads(text)
    except ValueError:
        return dict(UNREADABLE, time=audit.now(os.path.getmtime(path)))
    return holder if isinstance(holder, dict) else dict(UNREADABLE)
