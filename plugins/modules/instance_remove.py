#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: instances are gone, with all that is theirs and nothing that is not."""

from __future__ import annotations

DOCUMENTATION = r"""
module: instance_remove
short_description: Remove instances with their containers, networks, images and files
version_added: 1.0.0
description:
  - A container is ours where compose made it from a folder below O(dir), an image where this collection built or named it.
    Anything else stays, and so does an image that a container of somebody else's was made from.
  - Without O(instances) all instances of the host go, whether the inventory still lists them or not, and what they shared as
    well - images that were built ahead, the build's sources, the rotation of the audit log.
  - An engine that is installed and does not answer fails the module before anything is removed, as its containers would start
    again with it.
  - Running the module again resumes an interrupted removal.
options:
  dir:
    description: Folder on the host with a folder for each instance.
    type: path
    required: true
  instances:
    description: Names of the instances; empty for all on the host.
    type: list
    elements: str
    default: []
  data_dir:
    description: Folder on the host for models and outputs.
    type: path
    required: true
  data:
    description: Whether outputs go as well, and with all instances the models.
    type: bool
    default: false
  build_dir:
    description: Folder on the host that images are built in; it goes with all instances.
    type: path
    required: true
  rotation:
    description: The file of logrotate for the audit log; it goes with all instances.
    type: path
    default: /etc/logrotate.d/iopaint-fleet
  log:
    description: Whether the audit log and what was rotated go with all instances.
    type: bool
    default: false
extends_documentation_fragment: [iopaint.fleet.names, iopaint.fleet.audit]
attributes:
  check_mode:
    support: full
    description: Reports what would be removed.
  diff_mode:
    support: full
    description: Lists what is removed.
notes:
  - The engine's build cache stays, as it is shared with all that is built on the host (C(docker builder prune) empties it).
author: iopaint.fleet contributors (@iopaint)
"""

EXAMPLES = r"""
- name: One instance is gone
  iopaint.fleet.instance_remove:
    dir: /opt/iopaint/instances
    data_dir: /var/lib/iopaint
    build_dir: /opt/iopaint/image
    instances: [batch]
"""

RETURN = r"""
removed:
  description: What was removed, or would be in check mode, one line each.
  type: list
  elements: str
  returned: always
instances:
  description: Names of the instances that were removed.
  type: list
  elements: str
  returned: always
remaining:
  description: Names of the instances that are still on the host.
  type: list
  elements: str
  returned: always
kept:
  description: Images of ours that stay, as a container of somebody else's was made from them.
  type: list
  elements: str
  returned: always
data:
  description: Folders with data that stay.
  type: list
  elements: str
  returned: always
"""

import os
import re

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.iopaint.fleet.plugins.module_utils import audit, containers, exchange, files, images, releases
from ansible_collections.iopaint.fleet.plugins.module_utils.docker_cli import Docker, parse_documents
from ansible_collections.iopaint.fleet.plugins.module_utils.names import named
from ansible_collections.iopaint.fleet.plugins.module_utils.tree import shown

TEMPORARY = r"tmp[a-z0-9_]{8}"  # of a file that was being written when its play was killed
OF_INSTANCE = re.compile(rf"releases|current(\.new)?|proof\.png|{TEMPORARY}")
OF_ALL = re.compile(rf"photo\.png|models\.(json|log)|\.gateway|\.weights|{TEMPORARY}")
OF_BUILD = re.compile(r"docker|git|worktree|release-.*|wheelhouse|ca\.pem|(cpu|gpu)\.log|(base|bundle)\.tar")
BASES = ("iopaint-base", "iopaint-fleet/gpu-check")  # made on the host by other modules, and not labelled


def delete(path):
    """Remove a file, a link or a folder; a file system that is mounted there is emptied."""
    if os.path.ismount(path):  # which no link is
        for name in os.listdir(path):
            delete(os.path.join(path, name))
    else:
        files.remove(path)


def there(path):
    """Return whether there is something to remove: not an empty file system's mount point."""
    if os.path.islink(path) or not os.path.isdir(path):
        return os.path.lexists(path)
    return bool(os.listdir(path)) or not os.path.ismount(path)


class Removal:
    """What goes, and how."""

    def __init__(self, module):
        """Find out what is on the host."""
        self.module, self.params = module, module.params
        self.top, self.everything = self.params["dir"], not self.params["instances"]
        self.docker = self.engine()
        self.check_builds()
        held = self.containers()
        self.held = {}
        for document in held:
            name = containers.instance_of(document, self.top)
            if name:
                self.held.setdefault(name, []).append(document)
        self.present = list(dict.fromkeys([*containers.folders(self.top), *sorted(self.held)]))
        self.chosen = self.present if self.everything else [name for name in self.present if name in self.params["instances"]]
        self.remaining = [name for name in self.present if name not in self.chosen]
        self.stores = {name: releases.Releases(self.top, name) for name in self.present}
        going = {document["Id"] for name in self.chosen for document in self.held.get(name, [])}
        self.kept = []
        self.in_use = {document["Image"] for document in held if document["Id"] not in going}

    def engine(self):
        """Return the engine, None where docker is not installed."""
        if not self.module.get_bin_path("docker"):
            self.module.warn("There is no docker command on this host, so only files are looked at.")
            return None
        docker = Docker(self.module)
        rc, out, err = docker.run("info", "--format", "{{.ServerVersion}}")
        if rc != 0 or not out.strip():
            self.module.fail_json(
                msg=f"The Docker engine does not answer: {err.strip() or out.strip()} Containers can't be removed without it, "
                "and would start again with it. Start it (systemctl start docker), then run this again. Nothing was removed."
            )
        return docker

    def check_builds(self):
        """Fail the module while an image is built, whose folder would go."""
        logs = [os.path.join(self.params["build_dir"], f"{variant}.log") for variant in ("cpu", "gpu")]
        building = [log for log in logs if self.everything and files.is_locked(log)]
        if building:
            self.module.fail_json(
                msg=f"An image is being built on this host (its log is {', '.join(building)}). Wait for its end, then run this "
                f"again, or name the instances that are to go ({named(self.module, 'instances')}). Nothing was removed."
            )

    def containers(self):
        """Return the engine's documents of all containers."""
        if not self.docker:
            return []
        _rc, out, _err = self.docker.run("ps", "--all", "--quiet", "--no-trunc", check_rc=True)
        if not out.split():
            return []
        _rc, out, _err = self.docker.run("inspect", "--type", "container", *out.split())  # one that has gone by now is left out
        return parse_documents(self.module, out, "inspect") if out.strip() not in ("", "[]") else []

    # --- what goes ---------------------------------------------------------------------------------------------------

    def plan(self):
        """Return what goes, in the order in which it does: (line, function, arguments)."""
        for name in self.chosen:
            for document in self.held.get(name, []):
                yield f"container {document['Name'].lstrip('/')}", self.remove_container, (document["Id"],)
        for name in self.chosen:
            for network in self.networks(name):
                yield f"network {network}", self.remove_by_engine, ("network", network)
        for name in self.images():
            yield f"image {name}", self.remove_by_engine, ("image", name)
        # The records last: they say which images are ours.
        for name in self.chosen:
            folder = os.path.join(self.top, name)
            if os.path.isdir(folder):
                yield f"folder {folder}", self.remove_known, (folder, OF_INSTANCE)
        if self.everything:
            yield from self.shared()
        if self.params["data"]:
            for path in filter(there, self.data()):
                yield f"data {path}", self.remove_data, (path,)

    def shared(self):
        """Return what all instances share."""
        folder = self.params["build_dir"]
        if any(OF_BUILD.fullmatch(name) for name in listed(folder)):
            yield f"folder {folder}", self.remove_known, (folder, OF_BUILD)
        for name in listed(self.top):
            path = os.path.join(self.top, name)
            if OF_ALL.fullmatch(name):
                yield f"file {path}", delete, (path,)
        if os.path.lexists(self.params["rotation"]):
            yield f"file {self.params['rotation']}", delete, (self.params["rotation"],)
        if self.params["log"]:
            folder, log = os.path.split(self.params["audit"])
            for name in listed(folder):
                if re.fullmatch(rf"{re.escape(log)}(\.\d+(\.gz)?)?", name):
                    path = os.path.join(folder, name)
                    yield f"file {path}", delete, (path,)

    def networks(self, name):
        """Return the names of the networks of one instance."""
        if not self.docker:
            return []
        found = []
        for project in containers.projects(name):
            label = f"label={containers.PROJECT}={project}"
            _rc, out, _err = self.docker.run("network", "ls", "--filter", label, "--format", "{{.Name}}", check_rc=True)
            found += out.split()
        return found

    def images(self):
        """Return the names of the images that go."""
        if not self.docker:
            return []
        if any(self.stores[name].damaged for name in self.remaining):
            self.module.warn("No image was removed, as there are records of releases that stay and can't be read.")
            return []
        records = {name: list(store.records.values()) for name, store in self.stores.items()}
        of_remaining = {record.get("image_id") for name in self.remaining for record in records[name]}
        had = {record.get("image_id") for name in self.chosen for record in records[name]}
        had |= {document["Image"] for name in self.chosen for document in self.held.get(name, [])}
        ours = images.repositories(record for every in records.values() for record in every)
        names = []
        for image in images.find(self.docker):
            if not self.everything and image["Id"] not in had:
                continue
            if image["Id"] in self.in_use - of_remaining:
                self.kept += names_of(image, ours)
            elif image["Id"] not in of_remaining:
                names += names_of(image, ours)
        if self.everything:
            for repository in BASES:
                _rc, out, _err = self.docker.run(
                    "images", "--no-trunc", "--format", "{{.ID}} {{.Repository}}:{{.Tag}}", repository
                )
                names += [line.split()[1] for line in out.splitlines() if line.split()[0] not in self.in_use]
        return names

    def data(self):
        """Return the folders with data of the instances that go, each with what restores have left next to it."""
        top = self.params["data_dir"]
        names = ["outputs", "models"] if self.everything else [f"outputs/{name}" for name in self.params["instances"]]
        found = []
        for name in names:
            path, tree = os.path.join(top, name), exchange.Tree(top, name)
            found += [path] if os.path.islink(path) else [path, *tree.previous()]
        return found

    # --- how it goes -------------------------------------------------------------------------------------------------

    def remove_container(self, container):
        """Stop a container, with the time that it is given for that, and remove it."""
        self.docker.run("stop", container)
        self.docker.run("rm", "--force", "--volumes", container, check_rc=True)

    def remove_by_engine(self, kind, name):
        """Remove a network or an image; return False where the engine refuses."""
        rc, _out, err = self.docker.run(kind, "rm", name)
        if rc != 0:
            self.module.warn(f"The {kind} {name} stays: {err.strip()}")
        return rc == 0

    def remove_known(self, folder, known):
        """Remove what is ours in a folder, and the folder where nothing else is in it."""
        names = sorted(listed(folder), key=lambda name: name in ("releases", "docker"))  # what tells that it is ours goes last
        for name in names:
            if known.fullmatch(name):
                delete(os.path.join(folder, name))
        others = listed(folder)
        if others:
            names = ", ".join(shown(os.fsencode(name)) for name in others)
            self.module.warn(f"{folder} stays, as it holds what is not this collection's: {names}")
        elif not os.path.islink(folder) and not os.path.ismount(folder):
            os.rmdir(folder)

    def remove_data(self, path):
        """Remove a folder of data; where it is a link, what that names is somebody's decision."""
        if os.path.islink(path):
            self.module.warn(f"{path} was a link, and what it named stays: {os.path.realpath(path)}")
        delete(path)

    def empty_folders(self):
        """Remove the folders above, where nothing is left in them."""
        if not self.everything:
            return
        homes = [os.path.join(self.top, name) for name in listed(self.top) if containers.NAME.fullmatch(name)]
        parents = {os.path.dirname(self.top), os.path.dirname(self.params["build_dir"]), os.path.dirname(self.params["audit"])}
        above = sorted(path for path in parents if os.path.basename(path) == "iopaint")  # as the defaults have it
        data = [self.params["data_dir"]] if self.params["data"] else []
        for path in [*homes, self.top, *above, *data]:
            if os.path.isdir(path) and not os.path.islink(path) and not os.path.ismount(path) and not os.listdir(path):
                if not self.module.check_mode:
                    os.rmdir(path)
                yield f"folder {path}"


def listed(folder):
    """Return the names in a folder, none where there is none."""
    return sorted(os.listdir(folder)) if os.path.isdir(folder) else []


def names_of(image, ours):
    """Return by which names an image of ours is removed; a name that somebody else gave stays."""
    tags = image.get("RepoTags") or []
    if not images.labelled(image):  # the user's own, which a release gave a name
        return [tag for tag in tags if images.repository(tag) == images.HELD]
    return [tag for tag in tags if images.repository(tag) in ours] if tags else [image["Id"]]


def main():
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "dir": {"type": "path", "required": True},
            "instances": {"type": "list", "elements": "str", "default": []},
            "data_dir": {"type": "path", "required": True},
            "data": {"type": "bool", "default": False},
            "build_dir": {"type": "path", "required": True},
            "rotation": {"type": "path", "default": audit.ROTATION},
            "audit": {"type": "path", "default": audit.LOG},
            "log": {"type": "bool", "default": False},
            "owner": {"type": "dict", "default": {}},
            "names": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    params = module.params
    odd = sorted(name for name in params["instances"] if not containers.NAME.fullmatch(name))
    if odd:
        module.fail_json(
            msg=f"{named(module, 'instances')}: {', '.join(map(repr, odd))} can't be the name of an instance. "
            "Nothing was removed."
        )
    for name in ("dir", "data_dir", "build_dir"):
        params[name] = os.path.normpath(params[name])
    removal, removed = Removal(module), []
    try:
        for line, function, arguments in list(removal.plan()):
            if module.check_mode or function(*arguments) is not False:
                removed.append(line)
        removed += list(removal.empty_folders())
        if removed and not module.check_mode and not (params["log"] and removal.everything):
            count = {f"{kind}s": sum(line.startswith(f"{kind} ") for line in removed) for kind in ("container", "image")}
            data = [line.partition(" ")[2] for line in removed if line.startswith("data ")]
            audit.append(params["audit"], "removed", params["owner"], instances=removal.chosen, data=data or None, **count)
    except OSError as error:
        module.fail_json(
            msg=f"The removal was broken off: {error}. Removed until then: {', '.join(removed) or 'nothing'}. Run it again.",
            removed=removed,
        )
    diff = {
        "before_header": "on the host",
        "after_header": "removed",
        "before": "".join(f"{line}\n" for line in removed),
        "after": "",
    }
    module.exit_json(
        changed=bool(removed),
        removed=removed,
        instances=removal.chosen,
        remaining=removal.remaining,
        kept=removal.kept,
        data=[path for path in (os.path.join(params["data_dir"], name) for name in ("models", "outputs")) if listed(path)],
        **({"diff": diff} if module._diff and removed else {}),
    )


if __name__ == "__main__":
    main()
