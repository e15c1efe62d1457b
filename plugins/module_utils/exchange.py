# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A tree of data beside its replacement: compared, exchanged in one step, taken back.

    models, .restore-models-1f0c22aa/models (its replacement), .previous-models-20261124T031500Z (what was replaced)

The container owns the tree, so nothing below it is reached by a path: folders are opened one by one, and no link is followed.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import stat
import time

from ansible_collections.iopaint.fleet.plugins.module_utils.files import remove

RECORD = ".restore.json"  # in the data folder, while a restore is at work
READY, PREVIOUS = ".restore-", ".previous-"
NEW, CHANGED, REMOVED, NEWER = "new", "changed", "removed", "newer and left"
STAMP = re.compile(r"-\d{8}T\d{6}Z(\.\d+)?$")
TREE = re.compile(r"models|outputs/[^/.,][^/,]*")
DEPTH = 100  # folders inside each other; a backup has no more either
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
BLOCK = 1 << 20
EXCHANGE = 2  # RENAME_EXCHANGE of renameat2(2)
AT_FDCWD = -100


def exchange(one, other):
    """Exchange two folders in one step; return False where the file system can't."""
    libc = ctypes.CDLL(None, use_errno=True)
    names = os.fsencode(one), os.fsencode(other)
    if libc.renameat2(AT_FDCWD, ctypes.c_char_p(names[0]), AT_FDCWD, ctypes.c_char_p(names[1]), EXCHANGE) == 0:
        return True
    if ctypes.get_errno() in (errno.EINVAL, errno.ENOSYS):
        return False
    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), one, None, other)


@contextlib.contextmanager
def opened(path, dir_fd=None):
    """Open a folder, never by a link; give its descriptor, None where there is no folder."""
    try:
        descriptor = os.open(path, FOLDER, dir_fd=dir_fd)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise
        descriptor = None
    try:
        yield descriptor
    finally:
        if descriptor is not None:
            os.close(descriptor)


@contextlib.contextmanager
def below(root, path):
    """Open a folder below a descriptor, each part of the path by itself; None where one of them is no folder."""
    with contextlib.ExitStack() as stack:
        for part in [part for part in path.split("/") if part != "."]:
            if root is not None:
                root = stack.enter_context(opened(part, root))
        yield root


def walk(path):
    """Yield (relative path of a folder, descriptor, names of folders, other names), from the top down; follow no link."""
    if os.path.isdir(path):
        for folder, folders, names, descriptor in os.fwalk(path, follow_symlinks=False):
            inside = os.path.relpath(folder, path)
            links = [name for name in folders if stat.S_ISLNK(os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mode)]
            folders[:] = [name for name in folders if name not in links]
            if inside.count("/") >= DEPTH:
                folders.clear()  # stays in the previous tree
            yield inside, descriptor, folders, names + links


def status_of(name, descriptor):
    """Return the status of a name in a folder, None where it is not there."""
    try:
        return os.stat(name, dir_fd=descriptor, follow_symlinks=False)
    except FileNotFoundError:
        return None


def mark(status):
    """Return what tells a file that was written to from one that was not."""
    return [status.st_size, status.st_mtime_ns]


class Tree:
    """One tree: where it is (the operator's links followed), and what lies beside it."""

    def __init__(self, data, name, token=""):
        """Take the data folder, the tree's name, and what tells this restore's folder from that of another restore."""
        self.name = name
        self.live = os.path.realpath(os.path.join(data, name))
        self.above, self.base = os.path.split(self.live)
        self.ready = os.path.join(self.above, f"{READY}{self.base}-{token}")
        self.stage = os.path.join(self.ready, name)

    def owner_above(self, user):
        """Return the folder above the tree that belongs to the container's user, None where there is none."""
        above = self.above
        while above != "/":
            if os.path.lexists(above) and user in (os.stat(above).st_uid, os.stat(above).st_gid):
                return above
            above = os.path.dirname(above)
        return None

    def previous(self):
        """Return what earlier exchanges have replaced."""
        names = sorted(os.listdir(self.above)) if os.path.isdir(self.above) else []
        wanted = PREVIOUS + self.base
        return [os.path.join(self.above, name) for name in names if STAMP.sub("", name) == wanted != name]

    def settle(self, user):
        """Hand the replacement to the container's user, without what is neither file, folder nor link."""
        if os.geteuid() == 0:
            os.chown(self.ready, 0, 0)
        for _inside, descriptor, folders, names in walk(self.stage):
            for name in [*folders, *names]:
                status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                kind = stat.S_IFMT(status.st_mode)
                if kind not in (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK):
                    os.unlink(name, dir_fd=descriptor)
                    continue
                os.chown(name, user, user, dir_fd=descriptor, follow_symlinks=False)
                if kind != stat.S_IFLNK:
                    os.chmod(name, status.st_mode & 0o777, dir_fd=descriptor)
        os.chown(self.stage, user, user)

    # --- before the exchange ------------------------------------------------------------------------------------------

    def compare(self, since, exact, link):
        """Return what an exchange would change: NEW, CHANGED, REMOVED or NEWER by path.

        since: when the snapshot was begun, in nanoseconds. exact: whether what the snapshot does not have goes, and what is newer
        does not stay. link: whether a file that is the same becomes one with the live one.
        """
        found = {}
        with opened(self.live) as root:
            for inside, staged, folders, names in walk(self.stage):
                with below(root, inside) as live:
                    for name in [*folders, *names]:
                        path = os.path.normpath(os.path.join(inside, name))
                        ours, theirs = os.stat(name, dir_fd=staged, follow_symlinks=False), live and status_of(name, live)
                        if not theirs:
                            found[path] = NEW
                        elif self.is_newer(theirs, since, exact) and not same_attributes(ours, theirs):
                            found[path] = NEWER
                        elif not is_same(name, staged, live, link):
                            found[path] = CHANGED
        if exact:
            for inside, _live, folders, names in walk(self.live):
                with opened(self.stage) as root, below(root, inside) as staged:
                    gone = [name for name in [*folders, *names] if staged is None or not status_of(name, staged)]
                    found.update({os.path.normpath(os.path.join(inside, name)): REMOVED for name in gone})
        return found

    def is_newer(self, status, since, exact):
        """Return whether a live file stays, as it was written after the snapshot was begun; never one of the models."""
        return not exact and self.name != "models" and stat.S_ISREG(status.st_mode) and status.st_mtime_ns > since

    # --- the exchange -------------------------------------------------------------------------------------------------

    def carry_over(self, since):
        """Give the replacement what only the live tree has, and what is newer there."""
        carry(self.live, self.stage, lambda status, there: not there or self.is_newer(status, since, False))

    def marks(self):
        """Return number and mark of each file of the replacement: what is written after the exchange is told by them."""
        marks = {}
        for _inside, descriptor, _folders, names in walk(self.stage):
            marks.update(
                {str(status.st_ino): mark(status) for status in (status_of(name, descriptor) for name in names) if status}
            )
        return marks

    def swap(self):
        """Exchange the replacement and the live tree."""
        if not os.path.lexists(self.live):
            os.rename(self.stage, self.live)
        elif not exchange(self.stage, self.live):
            aside = f"{self.ready}/.aside"  # a file system such as NFS; repair() knows the gap between the two
            os.rename(self.live, aside)
            os.rename(self.stage, self.live)
            os.rename(aside, self.stage)

    def mend_gap(self):
        """Close the gap that a process killed in swap() has left, on a file system that can't exchange."""
        aside = f"{self.ready}/.aside"
        if os.path.lexists(aside):
            os.rename(aside, self.stage if os.path.lexists(self.live) else self.live)

    def take_back(self, marks):
        """Put the previous tree in its place again, with what was written since the exchange; marks: as marks() gave them."""
        carry(self.live, self.stage, lambda status, _there: marks.get(str(status.st_ino)) != mark(status))
        self.swap()

    def put_aside(self):
        """Move the previous tree out of the replacement's folder; return where it is."""
        stamp = f"{PREVIOUS}{self.base}{time.strftime('-%Y%m%dT%H%M%SZ', time.gmtime())}"
        tries = [stamp, *(f"{stamp}.{number}" for number in range(1, 1000))]
        previous = next(path for path in (os.path.join(self.above, name) for name in tries) if not os.path.lexists(path))
        os.rename(self.stage, previous)
        self.drop()
        return previous

    def drop(self):
        """Remove the replacement's folder.

        It is renamed first: a restic whose play was killed may still be at work, and finds none of its paths then.
        """
        gone = f"{self.ready}.gone"
        with contextlib.suppress(FileNotFoundError):
            os.rename(self.ready, gone)
        remove(gone)

    def prune(self):
        """Remove of the previous tree what the tree has as well, the same file; return whether anything is left of it."""
        with opened(self.live) as root, opened(self.stage) as previous:
            for inside in reversed([inside for inside, *_rest in walk(self.stage)]):
                with below(root, inside) as live, below(previous, inside) as old:
                    for name in os.listdir(old):
                        ours, theirs = os.stat(name, dir_fd=old, follow_symlinks=False), live and status_of(name, live)
                        if stat.S_ISDIR(ours.st_mode):
                            with contextlib.suppress(OSError):  # only an empty one
                                os.rmdir(name, dir_fd=old)
                        elif theirs and (os.path.samestat(ours, theirs) or same_link(name, old, live)):
                            os.unlink(name, dir_fd=old)
            return bool(os.listdir(previous))


def same_attributes(ours, theirs):
    """Return whether kind, owner and mode of two are the same, and of files size and time."""
    kind = stat.S_IFMT(ours.st_mode)
    if (ours.st_uid, ours.st_gid, kind) != (theirs.st_uid, theirs.st_gid, stat.S_IFMT(theirs.st_mode)):
        return False
    if kind != stat.S_IFLNK and stat.S_IMODE(ours.st_mode) != stat.S_IMODE(theirs.st_mode):
        return False
    return kind != stat.S_IFREG or mark(ours) == mark(theirs)


def same_link(name, one, other):
    """Return whether a name is a symbolic link to the same place in two folders."""
    try:
        return os.readlink(name, dir_fd=one) == os.readlink(name, dir_fd=other)
    except OSError:
        return False


def is_same(name, staged, live, link):
    """Return whether a live file is as the replacement has it; if link is true, the two then become one file."""
    ours, theirs = os.stat(name, dir_fd=staged, follow_symlinks=False), status_of(name, live)
    if not theirs or not same_attributes(ours, theirs):
        return False
    if stat.S_ISREG(ours.st_mode):
        return same_content(name, staged, live, theirs) and (not link or make_one(name, staged, live, theirs))
    return stat.S_ISDIR(ours.st_mode) or same_link(name, staged, live)


def same_content(name, staged, live, theirs):
    """Return whether two files have the same content."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        other = os.open(name, flags, dir_fd=live)
    except OSError:
        return False
    with (
        os.fdopen(other, "rb", buffering=0) as second,
        os.fdopen(os.open(name, flags, dir_fd=staged), "rb", buffering=0) as first,
    ):
        if not os.path.samestat(os.fstat(other), theirs):
            return False
        while True:
            block = first.read(BLOCK)
            if block != second.read(len(block) or 1):
                return False
            if not block:
                return True


def make_one(name, staged, live, theirs):
    """Put the live file in the place of the replacement's copy; return False where it is another one by now."""
    aside = f".one-{os.getpid()}"
    try:
        os.link(name, aside, src_dir_fd=live, dst_dir_fd=staged, follow_symlinks=False)
    except FileNotFoundError:
        return False
    if os.path.samestat(os.stat(aside, dir_fd=staged, follow_symlinks=False), theirs):
        os.rename(aside, name, src_dir_fd=staged, dst_dir_fd=staged)
        return True
    os.unlink(aside, dir_fd=staged)
    return False


def carry(source, target, wanted):
    """Take over files and links of one tree into another, as links to the same file.

    wanted: tells by the status of a file, and of what the target has in its place or None, whether it is taken over.
    """
    with opened(target) as root:
        for inside, old, folders, names in walk(source):
            with below(root, inside) as new:
                if new is None:  # something else than a folder is there: what is below stays in the previous tree
                    folders.clear()
                    continue
                for name in folders:
                    if status_of(name, new) is None:
                        status = os.stat(name, dir_fd=old, follow_symlinks=False)
                        os.mkdir(name, dir_fd=new)
                        os.chown(name, status.st_uid, status.st_gid, dir_fd=new, follow_symlinks=False)
                        os.chmod(name, status.st_mode & 0o777, dir_fd=new)
                for name in names:
                    status, there = status_of(name, old), status_of(name, new)
                    if not status or not (stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode)):
                        continue
                    taken = there and (stat.S_ISDIR(there.st_mode) or os.path.samestat(status, there))
                    if taken or not wanted(status, there):
                        continue
                    if there:
                        os.unlink(name, dir_fd=new)
                    os.link(name, name, src_dir_fd=old, dst_dir_fd=new, follow_symlinks=False)
