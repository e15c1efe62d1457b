# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Folders with a mode that no umask changes; text files, written in one step or not at all; who holds a file."""

from __future__ import annotations

import fcntl
import os
import tempfile


def make_folder(path, mode=0o755):
    """Make a folder and those above it that are missing, each with this mode whatever the umask is."""
    if os.path.isdir(path):
        return
    if os.path.dirname(path) not in ("", path):
        make_folder(os.path.dirname(path), mode)
    try:
        os.mkdir(path)
    except FileExistsError:
        if os.path.isdir(path):  # another play was faster
            return
        raise
    os.chmod(path, mode)


def write(path, content, mode=0o644):
    """Put the text in the file's place in one step; an OSError leaves the file as it was."""
    descriptor, candidate = tempfile.mkstemp(dir=os.path.dirname(path))
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as stream:
            stream.write(content)
            os.fchmod(descriptor, mode)
            stream.flush()
            os.fsync(descriptor)
        os.replace(candidate, path)
    except OSError:
        os.unlink(candidate)
        raise


def is_locked(path):
    """Return whether another process holds the file by flock; False where there is no file."""
    try:
        with open(path, "rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False
