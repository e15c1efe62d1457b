# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A tree of data beside its replacement: made ready, exchanged by renames, taken back.

    models, .restore-models (made ready), .former-models-20261124T031500Z (what was replaced)

A container holds the folder that it was started with, so whatever uses a tree is stopped for the exchange.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
import time

from ansible_collections.iopaint.fleet.plugins.module_utils import manifest

READY, FORMER = ".restore-", ".former-"
NEW, CHANGED, REMOVED, NEWER = "new", "changed", "removed", "newer and left"
STAMP = re.compile(r"-\d{8}T\d{6}Z$")


class Tree:
    """One tree: where it is (links followed), and what lies beside it."""

    def __init__(self, data, name):
        """Take the data folder and the tree's name."""
        self.name = name
        self.live = os.path.realpath(os.path.join(data, name))
        self.above, self.base = os.path.split(self.live)
        self.ready = os.path.join(self.above, READY + self.base)

    def formers(self):
        """Return what earlier exchanges have replaced, oldest first."""
        names = sorted(os.listdir(self.above)) if os.path.isdir(self.above) else []
        wanted = FORMER + self.base
        return [os.path.join(self.above, name) for name in names if STAMP.sub("", name) == wanted != name]

    def repair(self):
        """Bring back a tree whose exchange was killed between its two renames, and drop what was being made ready."""
        formers = self.formers()
        if formers and not os.path.lexists(self.live):
            os.rename(formers[-1], self.live)
        if os.path.lexists(self.ready):
            shutil.rmtree(self.ready)

    def make_ready(self, entries):
        """Make the folders and links of a replacement; its files are then put into it."""
        os.makedirs(self.ready, mode=0o700)
        for path, entry in entries.items():
            place = os.path.join(self.ready, path)
            if entry["type"] == manifest.FOLDER and path != ".":
                os.mkdir(place)
            elif entry["type"] == manifest.LINK:
                os.symlink(entry["target"], place)

    def settle(self, entries, owner):
        """Return all of a replacement its owner, modes and times; a file that is linked to a live one becomes one of its own."""
        for path, entry in reversed(entries.items()):  # a folder after what it holds
            place = os.path.join(self.ready, path)
            if right(place, entry, owner):
                continue
            if entry["type"] == manifest.FILE and os.lstat(place).st_nlink > 1:
                shutil.copyfile(place, f"{self.ready}.copy")
                os.replace(f"{self.ready}.copy", place)
            os.lchown(place, owner, owner)
            if entry["type"] != manifest.LINK:
                os.chmod(place, int(entry["mode"], 8) & 0o777)
            if entry["type"] == manifest.FILE:
                os.utime(place, ns=(entry["mtime_ns"], entry["mtime_ns"]))

    def differences(self, document, entries, owner, exact):
        """Return what an exchange would change: NEW, CHANGED, REMOVED or NEWER by path.

        exact: whether what the backup does not have goes, and what is newer than it does not stay.
        """
        found = {}
        for path, entry in entries.items():
            if not self.is_same(path, entry, owner):
                there = os.path.lexists(os.path.join(self.live, path))
                newer = there and not exact and self.is_newer(path, entry, document)
                found[path] = NEWER if newer else CHANGED if there else NEW
        if exact and os.path.isdir(self.live):
            found.update({path: REMOVED for path in relative(self.live) if path not in entries})
        return found

    def is_same(self, path, entry, owner):
        """Return whether a live file is as the backup has it, attributes included."""
        place = os.path.join(self.live, path)
        with contextlib.suppress(OSError):
            if not right(place, entry, owner):
                return False
            if entry["type"] == manifest.FILE:
                twin = os.lstat(os.path.join(self.ready, path))
                return os.path.samestat(os.lstat(place), twin) or manifest.sha256(place) == entry["sha256"]
            return entry["type"] == manifest.FOLDER or os.readlink(place) == entry["target"]
        return False

    def is_newer(self, path, entry, document):
        """Return whether a live output was written after the backup had begun; models are as the backup has them."""
        if manifest.kind(self.name) != "outputs" or entry["type"] != manifest.FILE:
            return False
        status = os.lstat(os.path.join(self.live, path))
        return stat.S_ISREG(status.st_mode) and status.st_mtime_ns > max(document["begun_ns"], entry["mtime_ns"])

    def exchange(self, document, entries, exact):
        """Put the replacement in the tree's place; return where the former tree is now, or None, and what stays as newer."""
        former, newer = None, set()
        if os.path.lexists(self.live):
            if not exact:
                newer = {path for path, entry in entries.items() if self.keeps(path, entry, document)}
                carry(self.live, self.ready, set(entries) - newer)
            former = os.path.join(self.above, f"{FORMER}{self.base}{time.strftime('-%Y%m%dT%H%M%SZ', time.gmtime())}")
            os.rename(self.live, former)
        os.rename(self.ready, self.live)
        return former, sorted(newer)

    def keeps(self, path, entry, document):
        """Return whether a live file stays, as it is newer than the backup."""
        with contextlib.suppress(OSError):
            return self.is_newer(path, entry, document)
        return False

    def take_back(self, former, entries):
        """Put the former tree in its place again, with what was written since."""
        carry(self.live, former, entries)
        os.rename(self.live, self.ready)
        os.rename(former, self.live)
        shutil.rmtree(self.ready)

    def prune(self, former):
        """Remove of a former tree what the tree has as well, the same file; tell whether anything is left of it."""
        for path in reversed(list(relative(former))):
            old, new = os.path.join(former, path), os.path.join(self.live, path)
            with contextlib.suppress(OSError):
                if stat.S_ISDIR(os.lstat(old).st_mode):
                    os.rmdir(old)  # only an empty one
                elif os.path.samestat(os.lstat(old), os.lstat(new)) or same_link(old, new):
                    os.unlink(old)
        with contextlib.suppress(OSError):
            os.rmdir(former)
        return os.path.lexists(former)


def same_link(one, other):
    """Return whether both are links to the same place."""
    return os.path.islink(one) and os.path.islink(other) and os.readlink(one) == os.readlink(other)


def is_there(place, entry):
    """Return whether a file looks as an entry has it, by size and time."""
    try:
        status = os.lstat(place)
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and (status.st_size, status.st_mtime_ns) == (entry["size"], entry["mtime_ns"])


def right(place, entry, owner):
    """Return whether owner, mode and time are those of an entry."""
    status = os.lstat(place)
    if (status.st_uid, status.st_gid) != (owner, owner):
        return False
    if entry["type"] != manifest.LINK and stat.S_IMODE(status.st_mode) != int(entry["mode"], 8) & 0o777:
        return False
    return entry["type"] != manifest.FILE or (status.st_mtime_ns, status.st_size) == (entry["mtime_ns"], entry["size"])


def relative(folder):
    """Return the paths below a folder, a folder before what it holds."""
    for above, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            yield os.path.relpath(os.path.join(above, name), folder)


def carry(source, target, but):
    """Take over what the source has, but for some paths: files become links to the same file, in place of what is there."""
    for path in relative(source):
        if path in but:
            continue
        old, new = os.path.join(source, path), os.path.join(target, path)
        status = os.lstat(old)
        if not os.path.isdir(os.path.dirname(new)) or os.path.islink(os.path.dirname(new)):
            continue  # a folder in the source and something else in the target: it stays in the former tree
        if stat.S_ISDIR(status.st_mode):
            if not os.path.lexists(new):
                os.mkdir(new)
                os.chown(new, status.st_uid, status.st_gid)
                os.chmod(new, stat.S_IMODE(status.st_mode))
        elif not os.path.isdir(new):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(new)
            os.link(old, new, follow_symlinks=False)
