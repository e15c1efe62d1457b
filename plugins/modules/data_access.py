#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: can the image's user use what lies in the data folders."""

from __future__ import annotations

DOCUMENTATION = r"""
module: data_access
short_description: Find files and folders that the image's user can't use, or hand them over to that user
version_added: 1.0.0
description:
  - Older IOPaint images ran as root and left files that the image's user can't overwrite or read.
  - The kernel is asked with the user's own identity, so access control lists and read-only mounts count as well.
  - A file with more than one name may be somebody else's too. It is found, and never handed over.
  - Links are not followed, except one on the way to a given folder that root alone can have put there. Links, FIFOs, sockets and
    devices below it are left alone.
  - Folders more than 300 levels deep are left alone.
  - C(lost+found) at the top of a folder and temporary files of this collection and of Ansible are no data, and left alone.
  - A given folder itself is not judged, since a deploy hands it over in any case. A missing folder holds nothing to find.
options:
  folders:
    description: The folders to look through.
    type: list
    elements: dict
    required: true
    suboptions:
      path:
        description: The folder on the host.
        type: path
        required: true
      access:
        description: What the user has to be able to do with files and folders below it. Folders have to be searchable as well.
        type: str
        choices: [read, write]
        required: true
  user:
    description: Number of the user and of its group.
    type: int
    required: true
  adopt:
    description:
      - Whether to hand over what the user can't write, in every folder, whatever O(folders[].access) says.
      - Owner and group become O(user), and the owner may read and write. Nothing else is changed.
    type: bool
    default: false
extends_documentation_fragment: iopaint.fleet.names
attributes:
  check_mode:
    support: full
    description: Reports what would be handed over.
  diff_mode:
    support: none
    description: RV(found) names the files and folders.
author: iopaint.fleet contributors (@iopaint)
"""

EXAMPLES = r"""
- name: Check that the image's user can use models and pictures
  iopaint.fleet.data_access:
    user: 10001
    folders:
      - {path: /var/lib/iopaint/models, access: read}
      - {path: /var/lib/iopaint/outputs/cpu, access: write}
  register: data
  failed_when: data.found | length > 0
"""

RETURN = r"""
found:
  description:
    - One entry for each folder with something in it that the user can't use, with C(path), C(access), C(count) and C(examples),
      the first five files and folders with owner, group and mode.
    - With O(adopt=true) what was handed over.
  type: list
  elements: dict
  returned: success
  sample:
    - path: /var/lib/iopaint/outputs/cpu
      access: write
      count: 2
      examples: ["1.png (0:0 0644)", "old (0:0 0755)"]
"""

import os
import re
import stat
from contextlib import contextmanager

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.iopaint.fleet.plugins.module_utils import files
from ansible_collections.iopaint.fleet.plugins.module_utils.names import named
from ansible_collections.iopaint.fleet.plugins.module_utils.tree import shown

EXAMPLES_SHOWN = 5
DEEPEST = 300  # each level holds an open folder, and a process may have 1,024
NEEDS = {"read": os.R_OK, "write": os.R_OK | os.W_OK}
NO_DATA = re.compile(r"[.]ansible_tmp|[.]iopaint-")  # begins the names of files that a play was writing


@contextmanager
def acting_as(user):
    """Let the kernel judge access as this user, without other groups, for as long as the context lasts."""
    if os.geteuid() != 0:  # a play without root sees with its own eyes
        yield
        return
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(user)
    os.seteuid(user)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


def refused(folder, entries, need, user):
    """Return those entries of an open folder that the user can't use; entries: (name, whether it is a folder)."""
    with acting_as(user):
        if os.access(".", os.X_OK, dir_fd=folder, effective_ids=True):
            return {
                name
                for name, is_folder in entries
                if not os.access(name, need | (os.X_OK if is_folder else 0), dir_fd=folder, effective_ids=True)
            }
    # The folder itself is in the way, and handed over by the deploy: what its entries allow is judged by their modes.
    return {name for name, is_folder in entries if lacks(folder, name, need | (os.X_OK if is_folder else 0), user)}


def lacks(folder, name, need, user):
    """Return whether an entry's mode refuses the user what it needs."""
    found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    shift = 6 if found.st_uid == user else 3 if found.st_gid == user else 0
    return bool(need & ~(found.st_mode >> shift))


def hand_over(folder, name, user):
    """Return one entry of an open folder to the user, and return whether that was done.

    An entry that has become something else meanwhile, and a file with more than one name, is left alone.
    """
    entry = os.open(name, files.OPEN_FILE, dir_fd=folder)
    try:
        found = os.fstat(entry)
        is_folder = stat.S_ISDIR(found.st_mode)
        if not is_folder and not (stat.S_ISREG(found.st_mode) and found.st_nlink == 1):
            return False
        os.fchown(entry, user, user)
        mode = stat.S_IMODE(os.fstat(entry).st_mode)  # read again: fchown clears set-user-ID
        os.fchmod(entry, mode | (0o700 if is_folder else 0o600))
        return True
    finally:
        os.close(entry)


def walk(folder, place, visit, depth=0):
    """Call visit(folder, place, entries) for an open folder and each one below it; entries: (name, whether it is a folder)."""
    with os.scandir(folder) as found:
        entries = [
            (entry.name, entry.is_dir(follow_symlinks=False))
            for entry in found
            if (entry.is_dir(follow_symlinks=False) or entry.is_file(follow_symlinks=False))
            and not NO_DATA.match(entry.name)
            and (place or entry.name != "lost+found")
        ]
    entries.sort()
    visit(folder, place, entries)
    for name, is_folder in entries:
        if is_folder and depth < DEEPEST:
            try:
                inner = os.open(name, files.OPEN_FOLDER, dir_fd=folder)
            except OSError:  # gone, or a link by now
                continue
            try:
                walk(inner, os.path.join(place, name), visit, depth + 1)
            finally:
                os.close(inner)


def described(folder, place, name):
    """Return an entry as an operator reads it: path, owner, group and mode."""
    found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    path = os.fsencode(os.path.join(place, name))
    return f"{shown(path)} ({found.st_uid}:{found.st_gid} {stat.S_IMODE(found.st_mode):04o})"


class Look:
    """One look through a folder."""

    def __init__(self, user, need, adopt):
        """Take the number of the user, what it needs (a mask of os.access), and whether to hand over what it lacks."""
        self.user, self.need, self.adopt = user, need, adopt
        self.count, self.examples = 0, []

    def visit(self, folder, place, entries):
        """Count what the user can't use among the entries of an open folder, and hand it over where that is asked for."""
        for name in sorted(refused(folder, entries, self.need, self.user)):
            try:
                text = described(folder, place, name)
                if self.adopt and not hand_over(folder, name, self.user):
                    continue
                self.count += 1
                self.examples += [text] if len(self.examples) < EXAMPLES_SHOWN else []
            except FileNotFoundError:  # removed meanwhile
                continue


def main():
    """Run the module."""
    folder = {
        "path": {"type": "path", "required": True},
        "access": {"type": "str", "choices": sorted(NEEDS), "required": True},
    }
    module = AnsibleModule(
        argument_spec={
            "folders": {"type": "list", "elements": "dict", "required": True, "options": folder},
            "user": {"type": "int", "required": True},
            "adopt": {"type": "bool", "default": False},
            "names": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    adopt, found = module.params["adopt"], []
    for wanted in module.params["folders"]:
        look = Look(module.params["user"], NEEDS["write" if adopt else wanted["access"]], adopt and not module.check_mode)
        try:
            with files.present(wanted["path"]) as top:
                if top is not None:
                    walk(top, "", look.visit)
        except OSError as error:
            module.fail_json(
                msg=f"{wanted['path']} ({named(module, 'folders')}) could not be looked through or handed over: {error}",
                found=found,
            )
        if look.count:
            found.append({**wanted, "count": look.count, "examples": look.examples})
    module.exit_json(changed=bool(adopt and found), found=found)


if __name__ == "__main__":
    main()
