#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: models and outputs from a backup, checked beside the data before anything is touched."""

from __future__ import annotations

DOCUMENTATION = r"""
module: restore
short_description: Restores models and outputs from a backup of iopaint.fleet.backup
version_added: 1.0.0
description:
  - V(staged) makes each tree ready beside the one that is there, and compares every file with the manifest; while the instances
    serve. A backup that is damaged is refused. Files that are there already are linked, not copied.
  - Whatever uses a tree that differs is then stopped, V(swapped) exchanges the folders by renaming them, and once the instances
    are proven V(kept) compares the files with the manifest, or V(back) puts the former trees in their places again.
  - A play that was killed after any of these steps is repaired by V(staged) of the next one.
extends_documentation_fragment: iopaint.fleet.backups
options:
  state:
    description: The step.
    type: str
    choices: [staged, swapped, kept, back]
    required: true
  dir:
    description: Folder on the host with a folder for each instance.
    type: path
    required: true
  user:
    description: Number of the user and group that all belongs to.
    type: int
    required: true
  from:
    description: Name of a backup; V(newest) for the newest that has what is asked for.
    type: str
    default: newest
  include:
    description: What is restored.
    type: list
    elements: str
    choices: [models, outputs]
    default: [models, outputs]
  instances:
    description: Instances whose outputs are meant; none for all that the backup has.
    type: list
    elements: str
    default: []
  delete:
    description: Whether what the backup does not have goes, and outputs that are newer than it become those of the backup.
    type: bool
    default: false
  keep_former:
    description: Whether files that were replaced or removed stay in a folder beside the tree. Else they go once all is proven.
    type: bool
    default: true
  reason:
    description: "V(back): why."
    type: str
    default: ""
attributes:
  check_mode:
    support: full
    description: V(staged) fetches and compares all the same, and removes what it fetched. The other steps do nothing.
  diff_mode:
    support: full
    description: Shows which files are new, changed, removed, or newer and left as they are.
author: iopaint.fleet contributors (@iopaint)
"""

EXAMPLES = r"""
- name: The newest backup is whole, and lies beside the data
  iopaint.fleet.restore:
    state: staged
    data: /var/lib/iopaint
    dir: /opt/iopaint/instances
    user: 10001
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
  returned: with O(state=staged)
trees:
  description: What is asked for, by tree the number of files that are C(new), C(changed), C(removed), and C(newer and left).
  type: dict
  returned: success
files:
  description: Number of files that were compared with the manifest.
  type: int
  returned: with O(state=staged)
instances:
  description: Instances that have a release, as the module iopaint.fleet.release gives them.
  type: list
  elements: dict
  returned: success
stop:
  description: Those of them that use a tree that is to be exchanged.
  type: list
  elements: dict
  returned: success
former:
  description: Folders with what was replaced.
  type: list
  elements: str
  returned: with O(state=kept)
"""

import json
import os
import shutil
from collections import Counter

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.iopaint.fleet.plugins.module_utils import audit, backups, containers, exchange, manifest, releases
from ansible_collections.iopaint.fleet.plugins.module_utils.docker_cli import Docker
from ansible_collections.iopaint.fleet.plugins.module_utils.files import make_folder, write

STATE = ".restore.json"  # in the data folder, from staged to kept or back
SLACK = 16 << 20
SHOWN = 500  # lines of a diff


class Restore:
    """One step."""

    def __init__(self, module):
        """Take the module that runs."""
        self.module, self.params = module, module.params
        self.data = self.params["data"].rstrip("/")
        self.lines, self.path = [], os.path.join(self.data, STATE)

    def log(self, action, **facts):
        """Add a line to the audit log."""
        audit.append(self.params["audit"], action, self.params["owner"], **facts)

    def running(self, trees):
        """Return the instances that have a release, and those of them that use one of the trees."""
        stores = [releases.Releases(self.params["dir"], name) for name in containers.folders(self.params["dir"])]
        proven = [(store, store.proven()) for store in stores]
        unhealthy = containers.unhealthy_projects(Docker(self.module)) if any(record for _store, record in proven) else ()
        found = [store.to_run({**record, "rolled_back_from": None}) for store, record in proven if record]
        found = [{**each, "unhealthy": each["project"] in unhealthy} for each in found]
        return found, [each for each in found if "models" in trees or f"outputs/{each['name']}" in trees]

    # --- staged -------------------------------------------------------------------------------------------------------

    def staged(self):
        """Make the trees ready that differ, once the whole of the backup is known to be good; return the result."""
        store = backups.Store(self.module)
        name, names = self.choose(store)
        document = self.manifest(store, name)
        trees = [exchange.Tree(self.data, tree) for tree in names]
        for tree in trees:
            if os.path.ismount(tree.live):
                raise backups.BackupError(
                    f"{tree.live} is a mount point, and a restore exchanges whole folders. Mount a folder above it."
                )
        made = self.make_room(trees)
        entries = {tree.name: manifest.of_tree(document, tree.name) for tree in trees}
        try:
            self.see_the_room(trees, entries)
            self.fetch(store, name, trees, entries)
            found = {tree.name: self.differences(tree, document, entries[tree.name]) for tree in trees}
        except (backups.BackupError, manifest.DamagedError, OSError):
            self.drop(trees, made)
            raise
        differ = [tree for tree, changes in found.items() if set(changes.values()) - {exchange.NEWER}]
        self.drop([tree for tree in trees if self.module.check_mode or tree.name not in differ], made)
        if not self.module.check_mode:
            state = {"former": {}, "newer": {}, "differ": differ, "found": found, "document": document}
            write(self.path, json.dumps(state), 0o600)
        instances, stop = self.running(differ)
        return {
            "changed": bool(differ),
            "id": name,
            "place": f"{store.shown}/{name}",
            "files": sum(entry["type"] == manifest.FILE for each in entries.values() for entry in each.values()),
            "trees": {tree: dict(Counter(changes.values())) for tree, changes in found.items()},
            "instances": instances,
            "stop": stop,
        }

    def choose(self, store):
        """Return the name of the backup and the trees that are to be restored."""
        known, wanted = store.backups(), self.params["from"]
        if wanted == "newest":
            for each in reversed([each for each in known if each["complete"]]):
                trees, absent = self.chosen(each["trees"])
                if trees and not absent:
                    return each["id"], trees
            asked = [*self.params["include"], *self.params["instances"]]
            raise backups.BackupError(f"There is no backup of {' and '.join(asked)} in {store.shown}.{self.there(store, known)}")
        (each,) = [each for each in known if each["id"] == wanted] or [None]
        if each is None:
            raise backups.BackupError(
                f"There is no backup {wanted} (iopaint_restore_from) in {store.shown}.{self.there(store, known)}"
            )
        if not each["complete"]:
            what = "was not finished" if each["unfinished"] else f"is damaged: it has no {manifest.NAME}"
            raise backups.BackupError(f"The backup {store.shown}/{wanted} {what}.{self.there(store, known)}")
        trees, absent = self.chosen(each["trees"])
        if absent or not trees:
            raise backups.BackupError(
                f"The backup {store.shown}/{wanted} has no {' and no '.join(absent) or 'data'}. "
                f"It has {', '.join(each['trees'])}. Correct iopaint_backup_include or iopaint_backup_instances."
            )
        return wanted, trees

    def chosen(self, trees):
        """Return those of the trees that are asked for, and what is absent."""
        return manifest.chosen(trees, self.params["include"], self.params["instances"])

    def there(self, store, known):
        """Say which backups there are."""
        lines = []
        for each in reversed(known):
            state = "" if each["complete"] else " (unfinished)" if each["unfinished"] else f" (damaged: no {manifest.NAME})"
            lines.append(f"\n  {each['id']}: {', '.join(each['trees']) or 'nothing'}{state}")
        if lines:
            return " There:" + "".join(lines) + "\n"
        hosts = store.hosts()
        return f" Hosts that have backups in {store.target} (iopaint_restore_host): {', '.join(hosts) or 'none'}."

    def manifest(self, store, name):
        """Return the manifest of the backup; raise BackupError where it is damaged."""
        try:
            return store.manifest(name)
        except manifest.DamagedError as error:
            raise backups.BackupError(
                f"The backup {store.shown}/{name} is damaged: {error}. Choose another one (iopaint_restore_from)."
            ) from error

    def make_room(self, trees):
        """Make the folders above the trees, where they are not; repair what a killed play left behind. Give what was made."""
        made = []
        for tree in trees:
            for above in reversed([tree.above, *parents(tree.above)]):
                if not os.path.isdir(above):
                    make_folder(above)
                    made.append(above)
            if not self.module.check_mode:
                tree.repair()
            elif os.path.lexists(tree.ready):
                raise backups.BackupError(f"A restore was killed here and left {tree.ready}. Run it again without --check.")
        return made

    def see_the_room(self, trees, entries):
        """Raise BackupError where there is no room for what is to be copied."""
        needed = {}
        for tree in trees:
            files = {path: entry for path, entry in entries[tree.name].items() if entry["type"] == manifest.FILE}
            new = [entry["size"] for path, entry in files.items() if not exchange.is_there(os.path.join(tree.live, path), entry)]
            status = os.stat(tree.above)
            place = needed.setdefault(status.st_dev, [tree.above, SLACK])
            place[1] += sum(new)
        for folder, size in needed.values():
            free = backups.free_above(folder)
            if free < size:
                raise backups.BackupError(
                    f"The restore takes {size / 1e9:.2f} GB in {folder} (iopaint_data_dir), and "
                    f"{free / 1e9:.2f} GB are free there. Free some; nothing was changed."
                )

    def fetch(self, store, name, trees, entries):
        """Put the files of each tree beside it, and see that all of them are those of the manifest."""
        wrong = []
        for tree in trees:
            inside = entries[tree.name]
            tree.make_ready(inside)
            files = [path for path, entry in inside.items() if entry["type"] == manifest.FILE]
            same = tree.live if os.path.isdir(tree.live) else None
            store.fetch(name, tree.name, files, tree.ready, same=same, owner=self.params["user"])
            wrong += manifest.faults(tree.ready, inside)
        if wrong:
            raise backups.BackupError(
                f"The backup {store.shown}/{name} is damaged: {manifest.named(wrong)}. Choose another one (iopaint_restore_from)."
            )
        for tree in trees:
            tree.settle(entries[tree.name], self.params["user"])

    def differences(self, tree, document, entries):
        """Return what the exchange of a tree would change, and show it."""
        found = tree.differences(document, entries, self.params["user"], self.params["delete"])
        self.lines += [(f"{tree.name}/{path}" if path != "." else tree.name, what) for path, what in found.items()]
        return found

    def drop(self, trees, made):
        """Remove what was made ready; in a dry run the folders above as well."""
        for tree in trees:
            shutil.rmtree(tree.ready, ignore_errors=True)
        for folder in reversed(made if self.module.check_mode else []):
            os.rmdir(folder)

    # --- swapped, kept, back ------------------------------------------------------------------------------------------

    def read(self):
        """Return what staged has left for the steps after it."""
        try:
            with open(self.path, encoding="utf-8") as stream:
                return json.load(stream)
        except (OSError, ValueError) as error:
            raise backups.BackupError(f"{self.path} can't be read: {error}. Run the restore from its beginning.") from error

    def result(self, state, changed):
        """Return what every step returns."""
        instances, stop = self.running(state["differ"])
        return {"changed": changed, "id": state["document"]["id"], "trees": state["found"], "instances": instances, "stop": stop}

    def swapped(self):
        """Exchange the trees that differ."""
        state = self.read()
        for name in state["differ"]:
            if name not in state["former"]:
                entries = manifest.of_tree(state["document"], name)
                tree = exchange.Tree(self.data, name)
                former, newer = tree.exchange(state["document"], entries, self.params["delete"])
                state["former"][name], state["newer"][name] = former, newer
                write(self.path, json.dumps(state), 0o600)
        return self.result(state, bool(state["differ"]))

    def kept(self):
        """See that what is in place now is what the manifest says, and let go of what was replaced."""
        state = self.read()
        wrong, formers, trees = [], [], [exchange.Tree(self.data, name) for name in state["found"]]
        for tree in trees:
            if tree.name in state["differ"]:
                entries, newer = manifest.of_tree(state["document"], tree.name), state["newer"][tree.name]
                wrong += manifest.faults(tree.live, {path: entry for path, entry in entries.items() if path not in newer})
        if wrong:
            raise backups.BackupError(f"What was restored is not what the manifest says: {manifest.named(wrong)}.")
        for tree in trees:
            for former in tree.formers():  # those of a play that was killed before this as well
                if not self.params["keep_former"]:
                    shutil.rmtree(former)
                elif tree.prune(former):
                    formers.append(former)
        os.unlink(self.path)
        counts = {tree: dict(Counter(changes.values())) for tree, changes in state["found"].items()}
        self.log("restored", id=state["document"]["id"], target=self.params["target"], trees=counts, former=formers or None)
        return {**self.result(state, bool(state["differ"])), "former": formers}

    def back(self):
        """Put the former trees in their places again."""
        state = self.read()
        for name in state["differ"]:
            tree, former = exchange.Tree(self.data, name), state["former"].get(name)
            if former:
                tree.take_back(former, manifest.of_tree(state["document"], name))
            shutil.rmtree(tree.ready, ignore_errors=True)
        os.unlink(self.path)
        back, facts = [name for name, former in state["former"].items() if former], {"target": self.params["target"]}
        self.log("restore put back", id=state["document"]["id"], trees=back, reason=self.params["reason"], **facts)
        return {**self.result(state, bool(back)), "back": back}


def parents(path):
    """Return the folders above one, the nearest first."""
    while path != os.path.dirname(path):
        path = os.path.dirname(path)
        yield path


def main():
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            **backups.OPTIONS,
            "state": {"type": "str", "choices": ["staged", "swapped", "kept", "back"], "required": True},
            "dir": {"type": "path", "required": True},
            "user": {"type": "int", "required": True},
            "from": {"type": "str", "default": "newest"},
            "delete": {"type": "bool", "default": False},
            "keep_former": {"type": "bool", "default": True},
            "reason": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    state = module.params["state"]
    if module.check_mode and state != "staged":
        module.exit_json(changed=False)
    if module.check_mode and not module.get_bin_path("rsync"):
        module.exit_json(changed=True, msg="rsync is to be installed first; what the restore would change is known then.")
    restore = Restore(module)
    try:
        with backups.alone(restore.data):
            result = getattr(restore, state)()
    except (backups.BackupError, manifest.DamagedError, OSError) as error:
        if state == "staged" and not module.check_mode:
            restore.log("restore refused", target=module.params["target"], reason=str(error))
        module.fail_json(msg=f"Nothing was restored. {error}" if state == "staged" else str(error))
    shown = "".join(f"{path} ({what})\n" for path, what in sorted(restore.lines)[:SHOWN])
    diff = {"before": "", "after": shown, "before_header": "the data", "after_header": result["id"]}
    module.exit_json(**({"diff": diff} if module._diff else {}), **result)


if __name__ == "__main__":
    main()
