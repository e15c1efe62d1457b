# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The audit log of a host: one JSON line for each thing that was done to it."""

from __future__ import annotations

import json
import os
import time

from ansible_collections.iopaint.fleet.plugins.module_utils.files import make_folder

LOG = "/var/log/iopaint/audit.log"
ROTATION = "/etc/logrotate.d/iopaint-fleet"


def now(seconds=None):
    """Return a moment (by default this one) as RFC 3339 in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def append(path, action, owner, **facts):
    """Add one line; a single write to a file opened for appending, so that lines of two writers never mix.

    owner: operator and controller, as the lock has them. facts: what else is known; None is left out.
    """
    known = {key: value for key, value in facts.items() if value is not None}
    who = {key: owner.get(key) for key in ("operator", "controller")}
    line = json.dumps({"time": now(), "action": action, **who, **known}, ensure_ascii=False) + "\n"
    make_folder(os.path.dirname(path))
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
    try:
        os.write(descriptor, line.encode(errors="backslashreplace"))  # a reason may have the name of a file
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
