#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: a backup of models and outputs, made while the instances serve."""

from __future__ import annotations

DOCUMENTATION = r"""
module: backup
short_description: Backs up models and outputs while the instances serve
version_added: 1.0.0
description:
  - Copies the trees C(models) and C(outputs/<instance>) by rsync into a new folder, and writes a manifest with the SHA-256 sum of
    each file as the last thing. What has no manifest is no backup.
  - Files that are unchanged since the former backup (size and time to the nanosecond) become hard links to it, and keep its sums.
  - A file that is written to while it is read, or that a process has open for writing, is read again. One that is still written
    to after O(wait) seconds is left out and named.
  - A backup that was killed on its way is removed by the next one.
extends_documentation_fragment: iopaint.fleet.backups
options:
  include:
    description: What is backed up.
    type: list
    elements: str
    choices: [models, outputs]
    default: [models, outputs]
  instances:
    description: Instances whose outputs are meant; none for all that the host has outputs of.
    type: list
    elements: str
    default: []
  mounted:
    description: Whether a folder has to lie on a mount of its own, so that nothing is written where the mount is missing.
    type: bool
    default: false
  keep:
    description: How many backups of each tree are kept. A backup goes once each of its trees is in so many newer ones.
    type: int
    default: 7
  wait:
    description: Seconds to wait for files that are written to.
    type: int
    default: 10
attributes:
  check_mode:
    support: full
    description: Says what would be copied and removed. Sums are not compared.
  diff_mode:
    support: full
    description: Shows which files are new, changed or gone since the former backup.
notes:
  - Each run makes a backup, so it is always a change.
author: iopaint.fleet contributors (@iopaint)
"""

EXAMPLES = r"""
- name: Models and outputs are backed up
  iopaint.fleet.backup:
    data: /var/lib/iopaint
    target: backup@nas.example.com:/volume1/iopaint
    host: "{{ inventory_hostname }}"
"""

RETURN = r"""
id:
  description: Name of the backup.
  type: str
  returned: success
place:
  description: Where it is.
  type: str
  returned: success
trees:
  description: What is in it.
  type: list
  elements: str
  returned: success
files:
  description: Number of files.
  type: int
  returned: success
bytes:
  description: Their size.
  type: int
  returned: success
copied:
  description: How many of the bytes were new or changed; the others are links to the former backup.
  type: int
  returned: success
read_again:
  description: Files that were written to while they were read, and were read again.
  type: list
  elements: str
  returned: success
left_out:
  description: What is not in it, C(path) and C(reason) each.
  type: list
  elements: dict
  returned: success
removed:
  description: Backups that were removed, as newer ones are enough.
  type: list
  elements: str
  returned: success
cleaned:
  description: Unfinished backups that were removed.
  type: list
  elements: str
  returned: success
"""

import contextlib
import os
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.iopaint.fleet.plugins.module_utils import audit, backups, manifest

SLACK = 16 << 20  # for folders and the manifest
SHOWN = 500  # lines of a diff


def superseded(known, keep):
    """Return the complete backups of which every tree is in `keep` newer ones; known: oldest first."""
    seen, old = {}, []
    for backup in reversed([each for each in known if each["complete"]]):
        if all(seen.get(tree, 0) >= keep for tree in backup["trees"]):
            old.append(backup["id"])
        for tree in backup["trees"]:
            seen[tree] = seen.get(tree, 0) + 1
    return sorted(old)


class Backup:
    """One run."""

    def __init__(self, module):
        """Take the module that runs."""
        self.module, self.params = module, module.params
        self.data = self.params["data"].rstrip("/")
        self.store = backups.Store(module)
        self.entries, self.left_out, self.again, self.former = {}, [], set(), {}
        self.diff, self.made = {"before": [], "after": []}, None

    def run(self):
        """Make the backup; return the result."""
        begun, clock = audit.now(), time.monotonic()
        trees = self.trees()
        self.see_the_mount()
        known = self.store.backups()
        cleaned = [each["id"] for each in known if each["unfinished"]]
        for each in known:
            if not each["complete"] and not each["unfinished"]:
                self.module.warn(
                    f"{self.store.shown}/{each['id']} has no {manifest.NAME}, so it is no backup. It was not touched."
                )
        sums = self.former_sums(trees, known)
        self.scan(trees, sums)
        files = self.files()
        new = [path for path in files if "sha256" not in self.entries[path]]
        if cleaned and not self.module.check_mode:
            self.store.change("", gone=cleaned)
        self.see_the_room(new)
        name = backups.next_id([each["id"] for each in known])
        current = {"id": name, "trees": trees, "complete": True}
        removed = superseded([*known, current], self.params["keep"])
        if not self.module.check_mode:
            document = {"id": name, "host": self.params["host"], "time": begun, "begun_ns": time.time_ns(), "trees": trees}
            document.update({key: self.params["owner"].get(key) for key in ("operator", "controller")})
            self.make(name, document)
            if removed:
                self.store.change("", gone=removed)
        files = self.files()
        result = {
            "id": name,
            "place": f"{self.store.shown}/{name}",
            "trees": trees,
            "files": len(files),
            "bytes": sum(self.entries[path]["size"] for path in files),
            "copied": sum(self.entries[path]["size"] for path in files if path in {*new, *self.again}),
            "read_again": sorted(self.again),
            "left_out": self.left_out,
            "removed": removed,
            "cleaned": cleaned,
        }
        if not self.module.check_mode:
            seconds = round(time.monotonic() - clock, 1)
            self.log("backup", **{key: value for key, value in result.items() if value not in ([], None)}, duration_s=seconds)
        return result

    def log(self, action, **facts):
        """Add a line to the audit log."""
        audit.append(self.params["audit"], action, self.params["owner"], **facts)

    def trees(self):
        """Return the trees that are asked for; raise BackupError where one is not there."""
        there = manifest.trees_there(self.data)
        trees, absent = manifest.chosen(there, self.params["include"], self.params["instances"])
        if absent or not trees:
            raise backups.BackupError(
                f"{self.data} (iopaint_data_dir) has no {' and no '.join(absent) or 'data'}. "
                f"There: {', '.join(there) or 'nothing'}. Correct iopaint_backup_include or iopaint_backup_instances."
            )
        return trees

    def see_the_mount(self):
        """Raise BackupError where the target is to be mounted and is not."""
        if not self.params["mounted"] or self.store.way != backups.FOLDER:
            return
        path = self.store.target
        while not os.path.ismount(path):
            path = os.path.dirname(path)
        if path == "/":
            raise backups.BackupError(
                f"Nothing is mounted at {self.store.target} (iopaint_backup_target), and iopaint_backup_mounted asks for it."
            )

    def former_sums(self, trees, known):
        """Return the entries of the newest backup of each tree, by path."""
        found = {}
        for tree in trees:
            newest = [each["id"] for each in known if each["complete"] and tree in each["trees"]][-1:]
            for name in newest:
                try:
                    if name not in self.former:
                        self.former[name] = self.store.manifest(name)
                except manifest.DamagedError as error:
                    self.module.warn(f"The backup {self.store.shown}/{name} is damaged: {error}. All is copied anew.")
                    continue
                entries = manifest.of_tree(self.former[name], tree)
                found.update({entry["path"]: entry for entry in entries.values()})
        return found

    def scan(self, trees, sums):
        """See what there is; what is unchanged since the former backup has its sum already."""
        for tree in trees:
            entries, odd = manifest.scan(self.data, tree)
            self.left_out += [{"path": path, "reason": "neither file, folder nor link"} for path in odd]
            self.entries.update(entries)
        for path, entry in self.entries.items():
            former = sums.get(path, {})
            if entry["type"] == manifest.FILE and all(former.get(key) == entry[key] for key in ("type", "size", "mtime_ns")):
                entry["sha256"] = former["sha256"]
            else:
                self.note(path, former, entry)
        for path, former in sums.items():
            if path not in self.entries:
                self.note(path, former, {})

    def note(self, path, former, entry):
        """Add a file to the diff."""
        for key, each in (("before", former), ("after", entry)):
            if each.get("type") == manifest.FILE:
                self.diff[key].append(f"{path} {each['size']} bytes of {audit.now(each['mtime_ns'] / 1e9)}\n")

    def files(self):
        """Return the paths of files."""
        return [path for path, entry in self.entries.items() if entry["type"] == manifest.FILE]

    def see_the_room(self, new):
        """Raise BackupError where the target has no room for what is to be copied."""
        needed = sum(self.entries[path]["size"] for path in new) + SLACK
        free = self.store.free(self.store.target)
        if free is not None and free < needed:
            raise backups.BackupError(
                f"The backup takes {needed / 1e9:.2f} GB in {self.store.target} (iopaint_backup_target), and "
                f"{free / 1e9:.2f} GB are free there. Free some, lower iopaint_backup_keep, or name another target."
            )

    def make(self, name, document):
        """Copy everything and write the manifest; what could not be brought to its end is gone again."""
        if self.store.way == backups.FOLDER:
            os.makedirs(self.store.target, mode=0o700, exist_ok=True)  # pictures of people
        try:
            self.store.change(name, {backups.UNFINISHED: audit.now() + "\n"})
            self.copy(name)
            document.update(left_out=self.left_out, entries=list(self.entries.values()))
            self.store.change(name, {manifest.NAME: manifest.dump(document)}, [backups.UNFINISHED])
        except (backups.BackupError, OSError):
            with contextlib.suppress(backups.BackupError, OSError):  # the next backup tries it too
                self.store.change("", gone=[name])
            raise
        self.made = name

    def copy(self, name):
        """Copy everything, and again what was written to meanwhile, until each file is whole or the time is over."""
        deadline = time.monotonic() + self.params["wait"]
        todo, tried = list(self.entries), set()
        while todo:
            busy = manifest.open_for_writing()
            ready = [path for path in todo if not self.is_open(path, busy)]
            before = {path: self.read(path, path in tried) for path in ready}
            ready = [path for path in ready if path in self.entries]
            if ready:
                self.store.send(name, self.data, ready, list(self.former), bool(tried & set(ready)))
            tried |= set(ready)
            busy = manifest.open_for_writing()
            todo = [path for path in todo if path in self.entries and not self.is_whole(path, before, busy)]
            self.again |= set(todo)
            if time.monotonic() >= deadline:
                break
            if todo:
                time.sleep(0.5)
        self.again -= set(todo)
        for path in todo:
            del self.entries[path]
            reason = f"still written to after {self.params['wait']} s (iopaint_backup_wait)"
            self.left_out.append({"path": path, "reason": reason})
            self.module.warn(f"{path} is not in the backup: {reason}.")
        stray = [path for path in tried if path not in self.entries]
        if stray:
            self.store.change(name, gone=stray)

    def is_open(self, path, busy):
        """Return whether a process has a file open for writing."""
        if self.entries[path]["type"] != manifest.FILE:
            return False
        try:
            return manifest.signature(os.path.join(self.data, path))[:2] in busy
        except FileNotFoundError:
            return False

    def read(self, path, anew):
        """Take a file's sum; return its signature before. One that was removed is taken off the list."""
        place = os.path.join(self.data, path)
        try:
            before = manifest.signature(place)
            entry = self.entries[path]
            if entry["type"] == manifest.FILE and (anew or before[2:4] != (entry["size"], entry["mtime_ns"])):
                entry = self.entries[path] = manifest.entry_of(path, os.lstat(place), self.data)
            if entry["type"] == manifest.FILE and "sha256" not in entry:
                entry["sha256"] = manifest.sha256(place)
        except FileNotFoundError:
            del self.entries[path]
            return None
        return before

    def is_whole(self, path, before, busy):
        """Return whether a file is as it was before it was read, and nobody writes to it; a removed one is off the list."""
        if self.entries[path]["type"] != manifest.FILE:
            return True
        try:
            same = path in before and before[path] == manifest.signature(os.path.join(self.data, path))
            return same and not self.is_open(path, busy)
        except FileNotFoundError:
            del self.entries[path]
            return True


def main():
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            **backups.OPTIONS,
            "mounted": {"type": "bool", "default": False},
            "keep": {"type": "int", "default": 7},
            "wait": {"type": "int", "default": 10},
        },
        supports_check_mode=True,
    )
    params = module.params
    if module.check_mode and not module.get_bin_path("rsync"):
        module.exit_json(changed=True, msg="rsync is to be installed first; what the backup would hold is known then.")
    backup = None
    try:
        backup = Backup(module)
        with backups.alone(backup.data):
            result = backup.run()
    except (backups.BackupError, manifest.DamagedError, OSError) as error:
        made, facts = backup and backup.made, {"target": params["target"], "reason": str(error)}
        if not module.check_mode:
            audit.append(params["audit"], "backup failed", params["owner"], id=made, **facts)
        what = f"The backup {made} was made, and older ones could not be removed." if made else "No backup was made."
        module.fail_json(msg=f"{what} {error}")
    diff = {key: "".join(sorted(lines)[:SHOWN]) for key, lines in backup.diff.items()}
    diff.update(before_header="the former backup", after_header=result["id"])
    module.exit_json(changed=True, **({"diff": diff} if module._diff else {}), **result)


if __name__ == "__main__":
    main()
