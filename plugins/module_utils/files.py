# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Folders with a mode that no umask changes; files, written in one step or not at all; who holds a file.

Root also works in folders that a container or another user can write. There a name may stand for another thing the next time it
is used, so `folder` and `below` open every folder from the one above it, and whatever follows goes by the open folder.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import stat
import subprocess

OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
PASS_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC  # which needs no right to list it
OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a FIFO must not hang the module
NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
MOST_LINKS = 40  # as the kernel has it
FOREIGN_LINK = "a link that somebody other than root can have put there, so it is not followed; remove it"


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


def is_trusted(above, link):
    """Return whether root alone can have put a link into a folder; both are given by their status."""
    ours = (0, os.geteuid())
    closed = not above.st_mode & 0o022 or above.st_mode & stat.S_ISVTX
    return bool(above.st_uid in ours and link.st_uid in ours and closed)


def _target(above, name):
    """Return where a link of an open folder leads, None where the name is no link; raise OSError unless it can be trusted."""
    try:
        target = os.readlink(name, dir_fd=above)
    except OSError:
        return None
    if not is_trusted(os.fstat(above), os.stat(name, dir_fd=above, follow_symlinks=False)):
        raise OSError(errno.ELOOP, FOREIGN_LINK)
    return target


def _make(above, name, owner):
    """Make a folder in an open one, with mode 0755 and its owner, and return it opened."""
    with contextlib.suppress(FileExistsError):  # another play was faster
        os.mkdir(name, 0o700, dir_fd=above)
    made = os.open(name, OPEN_FOLDER, dir_fd=above)
    if owner is not None:
        os.fchown(made, owner, owner)
    os.fchmod(made, 0o755)
    return made


class _Walk:
    """A walk from an open folder to another one. The folder that it has come to is `here`."""

    def __init__(self, here, place):
        """Take over an open folder; place: its path, for errors."""
        self.here, self.place = here, place

    def step(self, name, make=False, owner=None):
        """Go into a folder, which must be no link."""
        try:
            inner = os.open(name, PASS_FOLDER, dir_fd=self.here)
        except FileNotFoundError:
            if not make:
                raise
            inner = _make(self.here, name, owner)
        self.turn(inner, os.path.join(self.place, name))

    def turn(self, inner, place):
        """Go on from another open folder."""
        os.close(self.here)
        self.here, self.place = inner, place

    def open(self):
        """Open the folder that the walk has come to, so that it can be listed and changed; return it."""
        self.turn(os.open(".", OPEN_FOLDER, dir_fd=self.here), self.place)
        return self.here

    @contextlib.contextmanager
    def named(self, name):
        """Let an error name the whole path that it is about."""
        try:
            yield
        except OSError as error:
            by_kernel, error.filename = error.filename, os.path.join(self.place, name)
            if by_kernel and error.errno in (errno.ENOTDIR, errno.ELOOP) and os.path.islink(error.filename):
                error.strerror = FOREIGN_LINK
            raise


@contextlib.contextmanager
def folder(path, make=False):
    """Open a folder. A link on the way is followed only where root alone can have put it there; any other one is an OSError.

    make: whether to make the folder, and those above it that are missing, each with mode 0755.
    """
    left, links = os.path.abspath(path).split("/")[::-1], 0
    walk = _Walk(os.open("/", PASS_FOLDER), "/")
    try:
        while left:
            name = left.pop()
            if name in ("", "."):
                continue
            with walk.named(name):
                target = _target(walk.here, name)
                if target is None:
                    walk.step(name, make)
                    continue
                links += 1
                if links > MOST_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            left += target.split("/")[::-1]
            if target.startswith("/"):
                walk.turn(os.open("/", PASS_FOLDER), "/")
        with walk.named(""):
            walk.open()
        yield walk.here
    finally:
        os.close(walk.here)


@contextlib.contextmanager
def present(path):
    """Open a folder as `folder` does, or yield None where it is missing."""
    with contextlib.ExitStack() as stack:
        try:
            found = stack.enter_context(folder(path))
        except FileNotFoundError:
            found = None
        yield found


@contextlib.contextmanager
def below(top, path, make=False, owner=None):
    """Open a folder below an open one; no link is followed. path: relative, "" for the open one itself.

    make: whether to make folders that are missing, with mode 0755 and for this owner (number of user and group).
    """
    walk = _Walk(os.dup(top), os.readlink(f"/proc/self/fd/{top}"))
    try:
        for name in path.split("/") if path else ():
            with walk.named(name):
                if name == "..":
                    raise OSError(errno.EINVAL, "not a path below the folder")
                if name not in ("", "."):
                    walk.step(name, make, owner)
        with walk.named(""):
            walk.open()
        yield walk.here
    finally:
        os.close(walk.here)


def regular(above, name):
    """Open a file of an open folder for reading. A link, a FIFO or anything else that is no regular file is an OSError."""
    descriptor = os.open(name, OPEN_FILE, dir_fd=above)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", name)
    return os.fdopen(descriptor, "rb")


@contextlib.contextmanager
def replacing(above, name, mode=0o644, owner=None):
    """Yield a binary stream for the new content of a file in an open folder.

    It takes the file's place in one step at the end; an error leaves the file as it was. Mode and owner are set on the open file.
    """
    candidate = f".iopaint-{secrets.token_hex(8)}"
    descriptor = os.open(candidate, NEW_FILE, 0o600, dir_fd=above)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            yield stream
            stream.flush()
            if owner is not None:
                os.fchown(descriptor, owner, owner)
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)
        os.rename(candidate, name, src_dir_fd=above, dst_dir_fd=above)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(candidate, dir_fd=above)
        raise


def write(path, content, mode=0o644):
    """Put the text in the file's place in one step; an OSError leaves the file as it was."""
    above = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with replacing(above, os.path.basename(path), mode) as stream:
            stream.write(content.encode())
    finally:
        os.close(above)


def remove(path, ignore_errors=False):
    """Remove a file, a link, or a folder with all that is in it, if it is there; raise OSError with what rm says.

    By rm, as folders may lie deeper in each other than shutil.rmtree recurses.
    """
    done = subprocess.run(["/bin/rm", "-rf", "--", path], capture_output=True, text=True, errors="replace", check=False)
    if done.returncode != 0 and not ignore_errors:
        raise OSError(done.stderr.strip())


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
