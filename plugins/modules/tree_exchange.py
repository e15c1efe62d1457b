#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: models and outputs exchanged for what was restored beside them."""

from __future__ import annotations

DOCUMENTATION = r"""
module: tree_exchange
short_description: Exchange models and outputs for what was restored next to them
version_added: 1.0.0
description:
  - V(staged) prepares a folder beside each tree for whatever restores into it. V(compared) hands the result to the containers'
    user and compares it with the data, while the instances serve.
  - Whatever uses a tree that differs is then stopped, V(exchanged) exchanges the folders, and once the instances are proven
    V(kept) keeps what was replaced. V(back) puts the previous trees in their places again, and removes what was staged.
  - The intention is written down first, in C(.restore.json) of the data folder. After a play that was killed, V(repaired) keeps
    each previous tree that was exchanged, removes what was only staged, and says so. V(staged) does this first, too.
  - A snapshot with C(own) lacks the models that can be fetched again. What it lacks stays, whatever O(delete) says. So does a
    model that the last deploy declared and that is in its place.
  - It exists because no module exchanges two folders in one step (C(RENAME_EXCHANGE)), and because the containers own the trees.
    Nothing below a tree is reached through a symbolic link.
options:
  state:
    description: The step.
    type: str
    choices: [staged, compared, exchanged, kept, back, repaired]
    required: true
  data:
    description: Folder of models and outputs.
    type: path
    required: true
  trees:
    description:
      - "V(staged): what is to be restored. C(tree) (V(models) or V(outputs/<instance>)), C(id) and C(time_ns) of the snapshot,
        C(size) in bytes, C(own) whether the snapshot has only models of that host alone."
    type: list
    elements: dict
    default: []
  stager:
    description: "V(staged): the user that restores into the folders."
    type: str
    default: root
  dir:
    description: Folder on the host with a folder for each instance.
    type: path
    default: /opt/iopaint/instances
  user:
    description: Number of the user and group that the trees belong to.
    type: int
    default: 10001
  delete:
    description: Whether what the snapshot does not have goes, and outputs that are newer become those of the snapshot.
    type: bool
    default: false
  keep_previous:
    description: Whether files that were replaced or removed stay in a folder beside the tree. Else they go once all is proven.
    type: bool
    default: true
  reason:
    description: "V(back): why, for the audit log."
    type: str
    default: ""
extends_documentation_fragment: iopaint.fleet.audit
attributes:
  check_mode:
    support: full
    description:
      - V(compared) compares, and removes what was staged. V(repaired) only says what a killed play has left. V(staged) runs with
        C(check_mode) false before it. The other steps do nothing.
  diff_mode:
    support: full
    description: Shows which files are new, changed, removed, or newer and left as they are.
author: iopaint.fleet contributors (@iopaint)
"""

EXAMPLES = r"""
- name: Prepare a folder beside the models
  iopaint.fleet.tree_exchange:
    state: staged
    data: /var/lib/iopaint
    stager: iopaint-backup
    trees:
      - {tree: models, id: 4a1f0c22, time_ns: 1795521600000000000, size: 1000000}
"""

RETURN = r"""
trees:
  description: The trees with their options, C(ready) (the folder to restore into) and C(live) (the folder to be replaced).
  type: list
  elements: dict
  returned: with O(state=staged)
counts:
  description: By tree the number of files that are C(new), C(changed), C(removed), and C(newer and left).
  type: dict
  returned: with O(state=compared)
instances:
  description: Instances that have a release, as the module iopaint.fleet.release gives them.
  type: list
  elements: dict
  returned: with O(state=compared)
stop:
  description: Those of them that use a tree that is to be exchanged.
  type: list
  elements: dict
  returned: with O(state=compared)
missing:
  description:
    - Models that a snapshot with C(own) leaves out, or the last deploy declared, and that are not on the host.
    - Each has C(name), C(path) and C(checksum), or C(hub) and C(revision), which is empty where it is not known.
  type: list
  elements: dict
  returned: with O(state=compared)
previous:
  description: Folders with what was replaced.
  type: list
  elements: str
  returned: with O(state=kept) and O(state=repaired)
back:
  description: Trees that were put back.
  type: list
  elements: str
  returned: with O(state=back)
"""

import contextlib
import fcntl
import json
import os
import pwd
import re
import secrets
import subprocess
from collections import Counter

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.iopaint.fleet.plugins.module_utils import audit, containers, foreign, model_store, releases, weights
from ansible_collections.iopaint.fleet.plugins.module_utils.docker_cli import Docker
from ansible_collections.iopaint.fleet.plugins.module_utils.exchange import NEWER, RECORD, TREE, Tree, opened
from ansible_collections.iopaint.fleet.plugins.module_utils.files import make_folder, write

SLACK = 16 << 20
LEFT = "left-out.json"  # beside the models in a snapshot
DECLARED = "models.json"  # in the folder of the instances: the models that the last deploy declared
WORD = "[A-Za-z0-9][A-Za-z0-9_.-]*"
LISTED = {  # what the list may say of a model
    "name": ".+",
    "path": r"(?!(.*/)?\.\.(/|$))[^/].*",
    "checksum": ".+",
    "hub": f"{WORD}/{WORD}",
    "revision": "[0-9a-f]{40}",
}
SHOWN = 500  # lines of a diff
NOT_STAGED = "There is no restore at work here ({path} is missing). Run iopaint.fleet.restore from its beginning."


class RestoreError(Exception):
    """What is wrong, for the person who reads it."""


class Steps:
    """The steps, one of which runs."""

    def __init__(self, module):
        """Take the module that runs."""
        self.module, self.params = module, module.params
        self.data = os.path.realpath(self.params["data"])
        self.path, self.lines = os.path.join(self.data, RECORD), []

    def log(self, action, **facts):
        """Add a line to the audit log."""
        audit.append(self.params["audit"], action, self.params["owner"], **facts)

    def record(self):
        """Return what was written down, None where nothing was."""
        try:
            with open(self.path, encoding="utf-8") as stream:
                return json.load(stream)
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise RestoreError(
                f"{self.path} can't be read: {error}. Look at .restore-* and .previous-* beside the data, then remove it."
            ) from error

    def work(self):
        """Return what was written down; raise RestoreError where nothing was."""
        record = self.record()
        if record is None:
            raise RestoreError(NOT_STAGED.format(path=self.path))
        return record

    def note(self, record):
        """Write down how far the restore is."""
        write(self.path, json.dumps(record), 0o600)

    def trees(self, record):
        """Return the trees of a record, with its entry of each."""
        return [(Tree(self.data, entry["tree"], record["token"]), entry) for entry in record["trees"]]

    @contextlib.contextmanager
    def alone(self):
        """Wait for a module that outlives its play, where the file system has locks."""
        with opened(self.data) as folder:
            if folder is not None:
                with contextlib.suppress(OSError):
                    fcntl.flock(folder, fcntl.LOCK_EX)
            yield

    def running(self, changed):
        """Return the instances that have a release, and those of them that use one of the trees."""
        stores = [releases.Releases(self.params["dir"], name) for name in containers.folders(self.params["dir"])]
        proven = [(store, store.proven()) for store in stores]
        unhealthy = containers.unhealthy_projects(Docker(self.module)) if any(record for _store, record in proven) else ()
        found = [store.to_run(record) for store, record in proven if record]
        found = [{**each, "unhealthy": each["project"] in unhealthy} for each in found]
        return found, [each for each in found if "models" in changed or f"outputs/{each['name']}" in changed]

    # --- models that the snapshot leaves out --------------------------------------------------------------------------

    def exact(self, entry):
        """Return whether what a snapshot does not have goes; one that leaves out models can't say that of any."""
        return self.params["delete"] and not entry.get("own")

    def left_out(self, tree, entry):
        """Return the models that a snapshot leaves out, as its list has them."""
        path = os.path.join(tree.ready, LEFT)
        try:
            found = foreign.parse_json(foreign.read_text(path), list)
        except (OSError, ValueError) as error:
            raise RestoreError(
                f"The snapshot {entry['id']} has no list of the models that it leaves out ({LEFT}: {error}). Choose another one."
            ) from error
        return [one for one in found if isinstance(one, dict) and is_listed(one)]

    def declared(self):
        """Return what the last deploy declared: files and repositories."""
        path = os.path.join(self.params["dir"], DECLARED)
        try:
            return foreign.parse_json(foreign.read_text(path), dict)
        except FileNotFoundError:
            return {"files": [], "repositories": []}
        except (OSError, ValueError) as error:
            raise RestoreError(f"{path} can't be read: {error}. Run iopaint.fleet.deploy, which writes it anew.") from error

    def lacking(self, tree, left):
        """Return models that a snapshot leaves out, or that the last deploy declared, and that neither tree has."""
        declared = self.declared()
        known = {one.get("path", one.get("hub")) for one in left}
        more = [one for one in declared["files"] if one["path"] not in known]
        more += [{"hub": hub, "revision": ""} for hub in declared["repositories"] if hub not in known]
        return lacking(tree.live, left) + lacking(tree.stage, lacking(tree.live, more))

    def give_way(self, tree):
        """Take out of the replacement what the last deploy declared and has put into the live tree."""
        declared = self.declared()
        for model in declared["files"]:
            with weights.opened(tree.stage, model) as stream:
                there = stream is not None
            if there and weights.has(tree.live, model):
                model_store.remove_file(tree.stage, model["path"])
        current = {one["hub"] for one in model_store.stored(tree.live)["repositories"] if one["current"]}
        for one in model_store.stored(tree.stage)["repositories"]:
            if one["hub"] in current and one["hub"] in declared["repositories"]:
                model_store.remove_repository(tree.stage, one["hub"], [one["revision"]])

    # --- the steps ----------------------------------------------------------------------------------------------------

    def repaired(self):
        """Keep what a killed restore has exchanged and remove what it only staged."""
        record = self.record()
        if record is None:
            return {"changed": False, "previous": []}
        previous, exchanged = [], []
        for tree, entry in self.trees(record):
            if self.module.check_mode:
                continue
            tree.mend_gap()
            if is_exchanged(tree, entry):
                exchanged.append(tree.name)
                if os.path.lexists(tree.stage):
                    previous.append(tree.put_aside())
            tree.drop()
        names = ", ".join(entry["tree"] for entry in record["trees"])
        if self.module.check_mode:
            self.module.warn(
                f"A restore of {names} was interrupted on this host. The next play without --check cleans up after it."
            )
        else:
            os.unlink(self.path)
            self.log("restore repaired", trees=exchanged, previous=previous or None)
            done = f"restored: {', '.join(exchanged) or 'nothing'}; previous data: {', '.join(previous) or 'none'}"
            self.module.warn(f"A restore of {names} was interrupted on this host: {done}. Run iopaint.fleet.restore again.")
        return {"changed": True, "previous": previous}

    def staged(self):
        """Prepare a folder beside each tree."""
        stager, token, trees, needed = pwd.getpwnam(self.params["stager"]), secrets.token_hex(4), [], {}
        for entry in self.params["trees"]:
            if not TREE.fullmatch(entry["tree"]):
                raise RestoreError(
                    f"The snapshot {entry['id']} is of {entry['tree']}, which is neither models nor outputs of an instance."
                )
            tree = Tree(self.data, entry["tree"], token)
            owned = tree.owner_above(self.params["user"])
            if owned:
                raise RestoreError(
                    f"{tree.live} lies in {owned}, which belongs to the containers' user. Move it to a folder of root."
                )
            if os.path.ismount(tree.live):
                raise RestoreError(
                    f"{tree.live} is a mount point, and a restore exchanges whole folders. Mount a folder above it."
                )
            make_folder(tree.above)
            trees.append((tree, {**entry, "ready": tree.ready, "live": tree.live}))
            place = needed.setdefault(os.stat(tree.above).st_dev, [tree.above, SLACK])
            place[1] += int(entry.get("size") or 0)
        self.repaired()
        for folder, size in needed.values():
            status = os.statvfs(folder)
            free = status.f_bavail * status.f_frsize
            if free < size:
                raise RestoreError(
                    f"The restore takes {size / 1e9:.2f} GB in {folder}, and {free / 1e9:.2f} GB are free there. "
                    "Free some, then restore again."
                )
        self.note({"token": token, "trees": [entry for _tree, entry in trees]})
        for tree, _entry in trees:
            os.mkdir(tree.ready, 0o700)
            os.chown(tree.ready, stager.pw_uid, stager.pw_gid)
        return {"changed": False, "trees": [entry for _tree, entry in trees]}

    def compared(self):
        """Compare what was restored with the data; what is the same needs no exchange."""
        record, dry = self.work(), self.module.check_mode
        counts, differ, missing = {}, [], []
        for tree, entry in self.trees(record):
            if not os.path.isdir(tree.stage):
                raise RestoreError(f"The snapshot {entry['id']} has no folder {tree.name}. Choose another snapshot.")
            tree.settle(self.params["user"])
            if entry.get("own"):
                missing += self.lacking(tree, self.left_out(tree, entry))
                self.give_way(tree)
            found = tree.compare(entry["time_ns"], self.exact(entry), not dry)
            counts[tree.name] = dict(Counter(found.values()))
            self.lines += [(f"{tree.name}/{path}", what) for path, what in found.items()]
            if set(found.values()) - {NEWER} or not os.path.isdir(tree.live):
                differ.append(tree.name)
            if dry or tree.name not in differ:
                tree.drop()
        record["trees"] = [entry for entry in record["trees"] if entry["tree"] in differ]
        if dry:
            os.unlink(self.path)
        else:
            self.note({**record, "counts": counts})
        instances, stop = self.running(differ)
        return {"changed": bool(differ), "counts": counts, "instances": instances, "stop": stop, "missing": missing}

    def exchanged(self):
        """Exchange the trees."""
        record = self.work()
        for tree, entry in self.trees(record):
            if not self.exact(entry):
                tree.carry_over(entry["time_ns"])
            entry["number"], entry["marks"] = os.stat(tree.stage).st_ino, tree.marks()
            self.note(record)
            tree.swap()
        return {"changed": bool(record["trees"])}

    def kept(self):
        """Keep what was replaced, and nothing else of the previous trees."""
        record, previous = self.work(), []
        for tree, _entry in self.trees(record):
            if os.path.lexists(tree.stage) and self.params["keep_previous"] and tree.prune():
                previous.append(tree.put_aside())
            tree.drop()
        os.unlink(self.path)
        snapshots = {entry["tree"]: entry["id"] for entry in record["trees"]}
        self.log("restored", snapshots=snapshots, trees=record["counts"], previous=previous or None)
        return {"changed": bool(record["trees"]), "previous": previous}

    def back(self):
        """Put the previous trees in their places again; remove what was staged."""
        record, back = self.record() or {"trees": []}, []
        for tree, entry in self.trees(record):
            if is_exchanged(tree, entry) and os.path.lexists(tree.stage):
                tree.take_back(entry["marks"])
                back.append(tree.name)
            tree.drop()
        if record["trees"]:
            os.unlink(self.path)
        self.log("restore put back" if back else "restore refused", trees=back or None, reason=self.params["reason"])
        return {"changed": bool(back), "back": back}


def is_listed(one):
    """Return whether an entry of a snapshot's list names a file or a whole revision of a repository."""
    keys = ("hub", "revision") if "hub" in one else ("name", "path", "checksum")
    texts = all(isinstance(one.get(key), str) and one[key].isprintable() and re.fullmatch(LISTED[key], one[key]) for key in keys)
    return texts and isinstance(one.get("bytes"), int)


def lacking(models_dir, left):
    """Return those of some models that are not in a folder of models.

    Another revision of a repository counts as the model: a deploy has put it there since.
    """
    there = {one["hub"]: one for one in model_store.stored(models_dir)["repositories"] if one["current"]}
    found = []
    for one in left:
        if "hub" in one:
            here = there.get(one["hub"])
            if not here or (here["revision"] == one["revision"] and here["bytes"] < one.get("bytes", 0)):
                found.append(one)
            continue
        with weights.opened(models_dir, one) as stream:
            size = stream and os.fstat(stream.fileno()).st_size
            if stream is None or size != one.get("bytes", size):
                found.append(one)
    return found


def is_exchanged(tree, entry):
    """Return whether the tree in place is the one that was restored."""
    return entry.get("number") is not None and os.path.lexists(tree.live) and os.stat(tree.live).st_ino == entry["number"]


def main():
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "state": {
                "type": "str",
                "choices": ["staged", "compared", "exchanged", "kept", "back", "repaired"],
                "required": True,
            },
            "data": {"type": "path", "required": True},
            "trees": {"type": "list", "elements": "dict", "default": []},
            "stager": {"type": "str", "default": "root"},
            "dir": {"type": "path", "default": "/opt/iopaint/instances"},
            "user": {"type": "int", "default": 10001},
            "delete": {"type": "bool", "default": False},
            "keep_previous": {"type": "bool", "default": True},
            "reason": {"type": "str", "default": ""},
            "owner": {"type": "dict", "default": {}},
            "audit": {"type": "path", "default": audit.LOG},
        },
        supports_check_mode=True,
    )
    state = module.params["state"]
    if module.check_mode and state in ("exchanged", "kept", "back"):
        module.exit_json(changed=False)
    steps = Steps(module)
    try:
        with steps.alone():
            result = getattr(steps, state)()
    except (RestoreError, OSError, KeyError, subprocess.CalledProcessError) as error:
        module.fail_json(msg=str(error))
    lines = [f"{path} ({what})".encode("utf-8", "replace").decode() + "\n" for path, what in sorted(steps.lines)[:SHOWN]]
    diff = {"before": "", "after": "".join(lines), "before_header": "the data", "after_header": "the snapshots"}
    module.exit_json(**({"diff": diff} if module._diff and lines else {}), **result)


if __name__ == "__main__":
    main()
