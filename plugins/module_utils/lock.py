# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The file that locks a host: where it lies, who holds it, and the steps that change it.

A second file, held by flock, guards each step that reads the lock and then changes it. So of two plays that take over the same
lock at the same moment one succeeds, and the other finds the lock of the first.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import tempfile
import time

from ansible_collections.iopaint.fleet.plugins.module_utils import audit, foreign
from ansible_collections.iopaint.fleet.plugins.module_utils.files import make_folder, write
from ansible_collections.iopaint.fleet.plugins.module_utils.text import plain

PATH = "/run/iopaint/lock"
SIZE = 2**16
TEXTS = ("token", "time", "operator", "controller", "play", "release", "process_started", "machine", "boot", "namespaces")
LONGEST = 300  # characters of a text
PATIENCE = 10  # seconds for the guard, which is held for the length of a rename


def read(path):
    """Return the holder of a lock, None where there is no lock. A lock that can't be read has an unknown holder."""
    try:
        return valid_fields(foreign.parse_json(foreign.read_text(path, SIZE), dict))
    except FileNotFoundError:
        return unreadable(path, "it is a link to nothing") if os.path.islink(path) else None
    except foreign.ForeignError as error:
        return unreadable(path, str(error))


def valid_fields(document):
    """Return the fields of a lock that have the right type, as printable text; raise ForeignError if there is no token."""
    texts = {key: document[key] for key in TEXTS if isinstance(document.get(key), str)}
    holder = {key: " ".join(plain(text).split())[:LONGEST] for key, text in texts.items()}
    if not holder.get("token"):
        raise foreign.ForeignError("it has no token")
    pid = document.get("pid")
    return {**holder, "pid": pid} if isinstance(pid, int) and not isinstance(pid, bool) else holder


def unreadable(path, reason):
    """Return the fields of a lock that can't be read, None where it is gone by now."""
    try:
        changed = os.lstat(path).st_mtime_ns
    except FileNotFoundError:
        return None
    try:
        since = audit.now(changed // 10**9)
    except (OverflowError, OSError, ValueError):
        since = "unknown"
    return {
        "operator": "unknown",
        "controller": "unknown",
        "play": f"unknown (the lock can't be read: {reason})",
        "time": since,
        "token": f"unreadable-{changed:x}",
    }


@contextlib.contextmanager
def guarded(path):
    """Let no other play change the lock during the block; an OSError says that the guard can't be had."""
    make_folder(os.path.dirname(path))
    guard = f"{path}.guard"
    descriptor = os.open(guard, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        ends = time.monotonic() + PATIENCE
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > ends:
                    raise OSError(f"another process has held {guard} for {PATIENCE} s") from None
            time.sleep(0.01)
        yield
    finally:
        os.close(descriptor)


def take(path, content):
    """Make the lock with its content; return False where there is one."""
    with guarded(path):
        descriptor, candidate = tempfile.mkstemp(dir=os.path.dirname(path))
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            os.fchmod(descriptor, 0o644)
            json.dump(content, stream)
        try:
            os.link(candidate, path)
        except FileExistsError:
            return False
        finally:
            os.unlink(candidate)
    return True


def replace(path, token, content):
    """Put a lock in the place of that of this token, in one step; return what it said, None where it is not there any more."""
    with guarded(path):
        holder = read(path)
        if holder is None or holder["token"] != token:
            return None
        write(path, json.dumps(content))
    return holder


def free(path, token):
    """Remove the lock of this token; return what it said, None where it is not there any more."""
    with guarded(path):
        holder = read(path)
        if holder is None or holder["token"] != token:
            return None
        os.unlink(path)
    return holder
