#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: a folder tree of the control node on the host. Its part on the control node is plugins/action/tree.py."""

from __future__ import annotations

DOCUMENTATION = r"""
module: tree
short_description: Copy a folder tree to the host over Ansible's own connection
version_added: 1.0.0
description:
  - Makes a folder on the host equal to a folder on the control node. Only files that differ are sent, in one archive.
    What the source does not have is deleted.
  - The module is executed once if nothing has to be sent, else twice.
  - It exists because M(ansible.builtin.copy) needs a round trip for each file and deletes nothing, and
    C(ansible.posix.synchronize) leaves Ansible's connection and needs rsync on both sides.
  - Any connection plugin and any become method will do.
  - Files are compared by SHA-256, so a new modification time alone changes nothing.
  - Modes are normalized as git does it. Folders get 0755, files 0755 if their owner may execute them in the source, else 0644.
    The umask of either side does not count. Everything belongs to the user that the task becomes.
  - Each file is replaced in one step. Running the task again completes a copy that was interrupted.
options:
  src:
    description:
      - Folder on the control node. Its content becomes the content of O(dest).
      - A relative path is searched as M(ansible.builtin.copy) does it.
    type: path
    required: true
  dest:
    description:
      - Folder on the host, as an absolute path. It is created with its parents where it is missing.
      - It must not be a link itself. Links below it are never followed.
    type: path
    required: true
  exclude:
    description:
      - Files and folders that are not copied. What O(dest) has of them is deleted.
      - A name such as V(node_modules) counts in every folder, a path such as V(/.git) only from O(src) on. There are no patterns.
    type: list
    elements: str
    default: []
  follow:
    description: Whether to copy what a link points to. By default a link is copied as a link.
    type: bool
    default: false
  manifest:
    description: What the source holds. The action plugin sets it.
    type: str
  archive:
    description: The files that were sent, as a file. The action plugin sets it.
    type: path
  content:
    description: The files that were sent, as text, if they are small. The action plugin sets it.
    type: str
  needs:
    description: Numbers of the files that were sent. The action plugin sets it.
    type: list
    elements: str
attributes:
  check_mode:
    support: full
    description: Reports what would change, also where the parent of O(dest) is missing.
  diff_mode:
    support: full
    description: Lists the paths that are added, changed and removed, without their content.
notes:
  - Sockets, FIFOs and devices are skipped with a warning.
  - The archive passes through Ansible's temporary folders on both sides (C(local_tmp), C(remote_tmp)), which need room for it.
seealso:
  - module: ansible.builtin.copy
author: iopaint.fleet contributors (@iopaint)
"""

EXAMPLES = r"""
- name: Copy the working tree
  iopaint.fleet.tree:
    src: /home/ann/IOPaint
    dest: /opt/iopaint/image/worktree
    exclude: [/.git, node_modules, __pycache__]
"""

RETURN = r"""
added:
  description: Paths below O(dest) that were missing. The name of a folder ends with a slash.
  type: list
  elements: str
  returned: success
updated:
  description: Paths below O(dest) that differed in content, kind, mode or owner. The folder O(dest) itself is C(./).
  type: list
  elements: str
  returned: success
removed:
  description: Paths below O(dest) that the source does not have. A folder stands for all that it held.
  type: list
  elements: str
  returned: success
sent:
  description: Size of the archive that was sent, in bytes; 0 where none was needed.
  type: int
  returned: success
"""

import base64
import hashlib
import io
import os
import secrets
import stat
import tarfile
from contextlib import contextmanager
from typing import NamedTuple

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.iopaint.fleet.plugins.module_utils.files import make_folder
from ansible_collections.iopaint.fleet.plugins.module_utils.tree import CHUNK, FILE, FOLDER, LINK, Entry, digest, loads, shown

TYPES = {FOLDER: stat.S_IFDIR, FILE: stat.S_IFREG, LINK: stat.S_IFLNK}
OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK  # a FIFO must not hang the module
STAGE = b".iopaint-tree-"
SHOWN = 50  # paths in a diff


class TreeError(Exception):
    """What is wrong with the archive or the folder, for the person who has to do something about it."""


class Plan(NamedTuple):
    """What differs: entries that are missing, other, or only of another mode or owner; paths that are too many."""

    added: list
    updated: list
    attributes: list
    removed: list


def split(path):
    """Return the folder and the name of a path."""
    folder, _separator, name = path.rpartition(b"/")
    return folder, name


def is_folder(name, fd):
    """Return whether the folder has a folder of this name; a link is none."""
    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def remove(name, fd):
    """Remove a file, a link or a whole folder from an open folder, following no link."""
    if not is_folder(name, fd):
        os.unlink(name, dir_fd=fd)
        return
    inside = os.open(name, OPEN_FOLDER, dir_fd=fd)
    try:
        for item in os.listdir(inside):
            remove(os.fsencode(item), inside)
    finally:
        os.close(inside)
    os.rmdir(name, dir_fd=fd)


class Tree:
    """The folder on the host. Below it every folder is opened by its parent, so that no link leads elsewhere."""

    def __init__(self, dest, entries):
        """Take the folder and what it is to hold."""
        self.dest, self.entries = dest, entries
        self.root = Entry(b"", FOLDER, 0o755)
        self.owner = os.geteuid(), os.getegid()
        self.number = {entry.path: str(number) for number, entry in enumerate(entries)}  # names in the archive
        self.below = {b"": {}}  # entries by folder and name, parents first
        for entry in entries:
            folder, name = split(entry.path)
            self.below[folder][name] = entry
            if entry.kind == FOLDER:
                self.below[entry.path] = {}

    @contextmanager
    def folder(self, path):
        """Open a folder below the tree's."""
        fd = os.open(self.dest, OPEN_FOLDER)
        try:
            for name in path.split(b"/") if path else ():
                above, fd = fd, os.open(name, OPEN_FOLDER, dir_fd=fd)
                os.close(above)
            yield fd
        finally:
            os.close(fd)

    def exists(self):
        """Return whether the folder exists; raise TreeError if something else has its name."""
        try:
            mode = os.lstat(self.dest).st_mode
        except FileNotFoundError:
            return False
        if not stat.S_ISDIR(mode):
            what = "a link" if stat.S_ISLNK(mode) else "no folder"
            raise TreeError(f"{shown(self.dest)} is {what}. Name the folder itself, or remove it. Nothing was changed.")
        return True

    def compare(self, needs=None):
        """Return the plan. With the numbers of the files that differ no file is read."""
        plan, missing = Plan([], [], [], []), set()
        if not self.exists():
            missing.add(b"")
        elif not self.has_attributes(os.lstat(self.dest), self.root):
            plan.attributes.append(self.root)
        for path, wanted in self.below.items():
            if path in missing:
                plan.added.extend(wanted.values())
                missing.update(entry.path for entry in wanted.values() if entry.kind == FOLDER)
                continue
            with self.folder(path) as fd:
                present = {os.fsencode(name) for name in os.listdir(fd)}
                plan.removed.extend(os.path.join(path, name) for name in sorted(present - wanted.keys()))
                for name, entry in wanted.items():
                    difference = self.difference(name, fd, entry, needs) if name in present else "added"
                    if difference:
                        getattr(plan, difference).append(entry)
                    if difference in ("added", "updated") and entry.kind == FOLDER:
                        missing.add(entry.path)
        return plan

    def difference(self, name, fd, entry, needs):
        """Return the list of the plan that the entry belongs to, or None if it is as wanted."""
        found = os.stat(name, dir_fd=fd, follow_symlinks=False)
        right = self.has_attributes(found, entry)
        if stat.S_IFMT(found.st_mode) != TYPES[entry.kind]:
            return "updated"
        if entry.kind == LINK and os.readlink(name, dir_fd=fd) != entry.content:
            return "updated"
        if entry.kind == FILE:
            if found.st_size != entry.size or self.number[entry.path] in (needs or ()):
                return "updated"
            if needs is None and self.sha256(name, fd) != entry.content:
                return "updated"
            if not right and found.st_nlink > 1:  # its other name may be outside of the tree
                return "updated"
        return None if right else "attributes"

    def sha256(self, name, fd):
        """Return the SHA-256 of a file."""
        with os.fdopen(os.open(name, OPEN_FILE, dir_fd=fd), "rb") as stream:
            return digest(stream)

    def has_attributes(self, found, entry):
        """Return whether mode and owner are as wanted."""
        return (found.st_uid, found.st_gid) == self.owner and (entry.kind == LINK or stat.S_IMODE(found.st_mode) == entry.mode)

    def set_attributes(self, fd, mode):
        """Set mode and owner of an open file or folder."""
        found = os.fstat(fd)
        if (found.st_uid, found.st_gid) != self.owner:
            os.fchown(fd, *self.owner)
        os.fchmod(fd, mode)

    def apply(self, plan, archive):
        """Carry out a plan with the files of an open archive. Everything is staged and checked before the first change."""
        make_folder(self.dest)
        with self.folder(b"") as root:
            # In the folder itself: on the same file system, and removed by the next run if this one is killed.
            stage = STAGE + secrets.token_hex(8).encode()
            os.mkdir(stage, 0o700, dir_fd=root)
            try:
                fd = os.open(stage, OPEN_FOLDER, dir_fd=root)
                try:
                    self.fill(fd, plan, archive)
                    self.change(fd, plan)
                finally:
                    os.close(fd)
            finally:
                remove(stage, root)

    def fill(self, stage, plan, archive):
        """Write new files and links into the stage, named by their numbers."""
        files = {}
        for entry in plan.added + plan.updated:
            if entry.kind == LINK:
                os.symlink(entry.content, self.number[entry.path].encode(), dir_fd=stage)
            elif entry.kind == FILE:
                files[self.number[entry.path]] = entry
        if not files:
            return
        try:
            with tarfile.open(fileobj=archive, mode="r|*") as tar:
                for member in tar:
                    entry = files.pop(member.name, None)
                    if entry is None or not member.isreg():
                        raise tarfile.TarError(f"{member.name} was not asked for")
                    self.write(stage, entry, tar.extractfile(member))
        except (tarfile.TarError, EOFError) as error:
            raise TreeError(f"The archive is damaged: {error}. Run the play again. Nothing in the folder was changed.") from error
        if files:
            first = shown(min(entry.path for entry in files.values()))
            raise TreeError(f"The archive lacks {len(files)} files, {first} among them. Run the play again. Nothing was changed.")

    def write(self, stage, entry, stream):
        """Write one file into the stage; raise TreeError if its content is not the manifest's."""
        sha256 = hashlib.sha256()
        fd = os.open(self.number[entry.path], os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=stage)
        with os.fdopen(fd, "wb") as out:
            for piece in iter(lambda: stream.read(CHUNK), b""):
                sha256.update(piece)
                out.write(piece)
            self.set_attributes(fd, entry.mode)
        if sha256.hexdigest().encode() != entry.content:
            raise TreeError(f"{shown(entry.path)} was damaged on its way. Run the play again. Nothing was changed.")

    def change(self, stage, plan):
        """Bring the tree to what is wanted, from the stage."""
        added, updated = ({entry.path for entry in entries} for entries in (plan.added, plan.updated))
        for entry in self.entries:  # parents first
            if entry.path in added or entry.path in updated:
                self.place(stage, entry, entry.path in updated)
        for entry in plan.attributes:
            self.mend(entry)
        for path in plan.removed:
            folder, name = split(path)
            with self.folder(folder) as fd:
                remove(name, fd)

    def place(self, stage, entry, present):
        """Put one entry in its place; `present` says whether something else is there."""
        folder, name = split(entry.path)
        with self.folder(folder) as fd:
            if present and (entry.kind == FOLDER or is_folder(name, fd)):  # all else is replaced by the rename
                remove(name, fd)
            if entry.kind != FOLDER:
                os.rename(self.number[entry.path].encode(), name, src_dir_fd=stage, dst_dir_fd=fd)
                return
            os.mkdir(name, 0o700, dir_fd=fd)
        self.mend(entry)

    def mend(self, entry):
        """Set mode and owner of one entry."""
        folder, name = split(entry.path)
        if entry.kind == FOLDER:
            with self.folder(entry.path) as fd:
                self.set_attributes(fd, entry.mode)
            return
        with self.folder(folder) as fd:
            if entry.kind == LINK:
                os.chown(name, *self.owner, dir_fd=fd, follow_symlinks=False)
                return
            with os.fdopen(os.open(name, OPEN_FILE, dir_fd=fd), "rb") as stream:
                self.set_attributes(stream.fileno(), entry.mode)


def opened(path, content):
    """Open the archive."""
    return open(path, "rb") if path else io.BytesIO(base64.b64decode(content or ""))


def named(entries):
    """Return the paths of entries for the result."""
    return [(shown(entry.path) or ".") + ("/" if entry.kind == FOLDER else "") for entry in entries]


def described(plan):
    """Return what a plan adds, updates and removes."""
    return {
        "added": named(plan.added),
        "updated": named(plan.updated + plan.attributes),
        "removed": [shown(path) for path in plan.removed],
    }


def diff(dest, changes):
    """Return the paths that change, for --diff."""
    signs = {"added": "+", "updated": "~", "removed": "-"}
    lines = [f"{sign} {path}\n" for kind, sign in signs.items() for path in changes[kind]]
    more = [f"and {len(lines) - SHOWN} more\n"] if len(lines) > SHOWN else []
    return {"prepared": "".join([f"{shown(dest)}:\n", *lines[:SHOWN], *more]) if lines else ""}


def main():
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "src": {"type": "path", "required": True},
            "dest": {"type": "path", "required": True},
            "exclude": {"type": "list", "elements": "str", "default": []},
            "follow": {"type": "bool", "default": False},
            "manifest": {"type": "str", "no_log": True},  # no secret, but far too long for a log
            "archive": {"type": "path"},
            "content": {"type": "str", "no_log": True},
            "needs": {"type": "list", "elements": "str"},
        },
        supports_check_mode=True,
    )
    params = module.params
    if params["manifest"] is None:
        module.fail_json(msg="manifest is not set: this module is called by its action plugin.")
    dest = os.fsencode(os.path.normpath(params["dest"]))
    if not os.path.isabs(dest) or not dest.strip(b"/"):
        module.fail_json(msg=f"dest is {params['dest']}, no absolute path of a folder below /. Nothing was changed.")
    tree = Tree(dest, loads(params["manifest"]))
    try:
        plan = tree.compare(params["needs"] and set(params["needs"]))
        changes = described(plan)
        result = {"changed": any(changes.values()), "sent": 0, **changes}
        if module._diff:
            result["diff"] = diff(dest, changes)
        needs = [tree.number[entry.path] for entry in plan.added + plan.updated if entry.kind == FILE]
        if module.check_mode or not result["changed"]:
            module.exit_json(**result)
        if needs and params["needs"] is None:
            module.exit_json(needs=needs, **result)
        with opened(params["archive"], params["content"]) as archive:
            tree.apply(plan, archive)
        left = described(tree.compare())
    except TreeError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        where = f" ({shown(os.fsencode(error.filename))})" if error.filename else ""
        why = f"{error.strerror or error}{where}. Remove the cause and run the play again."
        module.fail_json(msg=f"{params['dest']} could not be made equal to its source: {why}")
    if any(left.values()):
        first = next(path for paths in left.values() for path in paths)
        module.fail_json(msg=f"{params['dest']}: {first} was changed by something else meanwhile. Run the play again.", **left)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
