#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: images and models of a bundle on a host, once every checksum in it is right."""

from __future__ import annotations

DOCUMENTATION = r"""
module: bundle_load
short_description: Load the images and place the models of a bundle that the host lacks
version_added: 1.0.0
description:
  - Without O(path) it only looks. Where something is missing RV(needs) names it, and the archive has to be brought to the host.
  - With O(path) the archive is read to its end and every checksum compared before anything is loaded or placed.
  - The engine gets no other names than those of O(images), and these have to be names that a build of this collection gives.
options:
  path:
    description: The archive on the host.
    type: path

  checksum:
    description: Checksum of the archive, as V(sha256:…); empty for none.
    type: str
    default: ""
  images:
    description: The images that the host is to have, as M(iopaint.fleet.bundle_info) gives them.
    type: list
    elements: dict
    required: true
  held:
    description: The models in the bundle, as M(iopaint.fleet.bundle_info) gives them.
    type: list
    elements: dict
    default: []
  models:
    description: The models that the host is to have, each with C(name), C(path) below O(models_dir) and C(checksum).
    type: list
    elements: dict
    default: []
  repositories:
    description:
      - Repositories of a hub that the host is to have, each with C(hub) and C(revision).
      - Of those in the archive the ones with this commit are placed; where C(revision) is no commit, with any.
    type: list
    elements: dict
    default: []
  models_dir:
    description: Folder of the models on the host.
    type: path
    required: true
  owner:
    description: Number of user and group that models belong to.
    type: int
    default: 10001
extends_documentation_fragment: iopaint.fleet.names
attributes:
  check_mode:
    support: full
    description: Reports whether something would be loaded or placed; the archive need not be there.
requirements: [docker, zstd or gzip as the archive is compressed]
author: iopaint.fleet contributors (@iopaint)
"""

EXAMPLES = r"""
- name: Check what the host lacks of the bundle
  iopaint.fleet.bundle_load:
    images: "{{ bundle.images }}"
    models_dir: /var/lib/iopaint/models
"""

RETURN = r"""
needs:
  description: Images and models that the host lacks.
  type: list
  elements: str
  returned: success
loaded:
  description: Those of them that were loaded or placed.
  type: list
  elements: str
  returned: success
built:
  description: By variant C(image), C(tags), C(ref), C(id) and C(size), as the module M(iopaint.fleet.image_build) gives them.
  type: dict
  returned: success
"""

import os
import shutil

from ansible_collections.iopaint.fleet.plugins.module_utils import bundle, weights
from ansible_collections.iopaint.fleet.plugins.module_utils.docker_cli import Docker
from ansible_collections.iopaint.fleet.plugins.module_utils.model_store import COMMIT
from ansible_collections.iopaint.fleet.plugins.module_utils.names import named
from ansible_collections.iopaint.fleet.plugins.module_utils.network import keep_secret
from ansible_collections.iopaint.fleet.plugins.module_utils.quiet import QuietModule

NOTHING = "Nothing was loaded, and nothing that runs was touched."


def matches(model, wanted):
    """Return whether a model of an archive is a file of a repository that is wanted, in its revision; wanted: revision by hub."""
    hub = model.get("hub")
    revision = wanted.get(hub) if isinstance(hub, str) else None
    return revision is not None and (model.get("revision") == revision or not COMMIT.fullmatch(revision))


def shown(model):
    """Return a model of an archive for a message."""
    return f"{model['name']} ({model.get('revision') or model['checksum']})"


class Load:
    """What a host lacks of a bundle, and how it gets there."""

    def __init__(self, module):
        """Look at the host."""
        self.module, self.params = module, module.params
        foreign = bundle.foreign_names(self.params["images"])
        if foreign:
            self.fail(f"has images that are not of this collection: {', '.join(foreign)}")
        self.docker = None if module.check_mode and not module.get_bin_path("docker") else Docker(module)
        self.images = [image for image in self.params["images"] if self.image(image["image"]) is None]
        wanted = {each["hub"]: each.get("revision") or "" for each in self.params["repositories"]}
        parts = [{**model, "source": model["path"]} for model in self.params["held"] if matches(model, wanted)]
        self.models = [model for model in [*self.params["models"], *parts] if not self.has(model)]
        held = {model["path"]: model["checksum"] for model in self.params["held"]}
        absent = [model for model in self.models if held.get(model["path"]) != model["checksum"]]
        if absent:
            there = ", ".join(dict.fromkeys(map(shown, self.params["held"]))) or "none"
            what = ", ".join(f"{model['name']} ({model['checksum']})" for model in absent)
            self.fail(
                f"lacks the model {what} of {named(module, 'models')}, and this host has it not. "
                f"Models in the bundle: {there}. Make one with it by iopaint.fleet.bundle, "
                f"or put the file below {self.params['models_dir']} yourself"
            )

    def image(self, name):
        """Return the engine's document of an image; a dry run needs no engine."""
        return self.docker.image(name) if self.docker else None

    def has(self, model):
        """Return whether the host has a model, with the right checksum."""
        path = model["path"]
        if os.path.normpath(path) != path or path.startswith(("/", "../")) or path in (".", ".."):
            self.fail(f"has a model at {path!r}, which is not below the folder of models")
        return weights.has(self.params["models_dir"], model)

    def fail(self, why):
        """Fail the module."""
        self.module.fail_json(msg=f"The bundle {named(self.module, 'path')} {why}. {NOTHING}")

    def needs(self):
        """Return the names of what the host lacks."""
        return [image["image"] for image in self.images] + [model["path"] for model in self.models]

    def check_disk(self):
        """Fail the module where the engine's disk has no room: docker load unpacks next to what it keeps."""
        if not self.images:
            return
        root, free = self.docker.room()
        wanted = 2 * sum(image["size"] for image in self.images)
        if free < wanted:
            self.fail(f"needs {wanted / 1e9:.1f} GB at {root} while it is loaded, and {free / 1e9:.1f} GB are free there")

    def run(self):
        """Verify, then place the models and load the images."""
        path, find = self.params["path"], self.module.get_bin_path
        self.check_disk()
        try:
            bundle.compare(path, self.params["checksum"], named(self.module, "checksum"))
            verified = bundle.verify(path, find)
        except bundle.BundleError as error:
            self.fail(f"is damaged: {error}. Copy it anew, or make it anew by iopaint.fleet.bundle")
        names = [image["tags"] for image in verified.manifest["images"]]
        if any(image["tags"] not in names for image in self.images):
            self.fail("is another one than at the beginning of the play. Run the play again")
        self.place(path)
        if self.images:
            self.load(path, verified)

    def place(self, path):
        """Put each model in its place in one step; the archive is read once."""
        top, missing = self.params["models_dir"], {bundle.MODELS + model["path"]: model for model in self.models}
        place = top
        try:
            if missing:
                with bundle.members(path, self.module.get_bin_path) as found:
                    for member, stream in found:
                        model = missing.pop(member.name, None) if stream else None
                        if model:
                            place = f"{top}/{model['path']}"
                            with weights.placing(top, model, self.params["owner"]) as target:
                                shutil.copyfileobj(stream, target, bundle.CHUNK)
                        if not missing:
                            break
            if missing:
                raise bundle.BundleError(f"{', '.join(missing)} is missing")
        except (bundle.BundleError, weights.WeightsError, OSError) as error:
            self.fail(f"has a model that can't be put at {place}: {error}")

    def load(self, path, verified):
        """Stream the images that are missing to the engine."""
        names = {tag for image in self.images for tag in image["tags"]}
        with self.docker.start("load", "--quiet", fed=True) as process:
            try:
                bundle.copy_images(path, self.module.get_bin_path, verified, names, process.stdin)
                process.stdin.close()
            except BrokenPipeError:
                pass  # it says why
            except bundle.BundleError as error:
                process.kill()
                self.fail(f"can't be loaded: {error}")
            out, err = process.stdout.read(), process.stderr.read()
        said = (err or out).decode(errors="replace").strip()
        absent = [image["image"] for image in self.images if self.image(image["image"]) is None]
        if process.returncode != 0 or absent:
            self.fail(f"could not be loaded (docker load: {said or 'no word'}); {', '.join(absent)} is not there")

    def tagged(self):
        """Point the tags that move (the ref's, latest) at the images, and tell whether one did not."""
        moved = False
        for image in self.params["images"]:
            document = self.image(image["image"])
            for tag in image["tags"] if document else []:
                if (self.image(tag) or {}).get("Id") != document["Id"]:
                    moved = True
                    if not self.module.check_mode:
                        self.docker.run("tag", image["image"], tag, check_rc=True)
        return moved

    def built(self):
        """Return the images as the role that builds them does."""
        done = {}
        for image in self.params["images"]:
            document = self.image(image["image"]) or {"Id": image["id"], "Size": image["size"]}
            facts = {"image": image["image"], "tags": image["tags"], "ref": image["ref"], "built": False, "seconds": 0.0}
            done[image["variant"]] = {**facts, "id": document["Id"], "size": document["Size"]}
        return done


def main():
    """Run the module."""
    module = QuietModule(
        argument_spec={
            "path": {"type": "path"},
            "checksum": {"type": "str", "default": ""},
            "images": {"type": "list", "elements": "dict", "required": True},
            "held": {"type": "list", "elements": "dict", "default": []},
            "models": {"type": "list", "elements": "dict", "default": []},
            "repositories": {"type": "list", "elements": "dict", "default": []},
            "models_dir": {"type": "path", "required": True},
            "owner": {"type": "int", "default": 10001},
            "names": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    keep_secret(module, module.params["models"])
    try:
        bundle.check_manifest(module.params["images"], module.params["held"])
        bundle.check_models(module.params["models"], named(module, "models"))
    except bundle.BundleError as error:
        module.fail_json(msg=f"The bundle {named(module, 'path')} can't be used: {error}. {NOTHING}")
    load = Load(module)
    needs, loaded = load.needs(), []
    if needs and module.params["path"] and not module.check_mode:
        load.run()
        loaded = needs
    changed = bool(loaded) or (module.check_mode and bool(needs))
    if loaded or not needs:
        changed = load.tagged() or changed
    module.exit_json(changed=changed, needs=needs, loaded=loaded, built=load.built())


if __name__ == "__main__":
    main()
