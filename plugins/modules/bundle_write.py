#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: images, compose file and models of a host in one archive."""

from __future__ import annotations

DOCUMENTATION = r"""
module: bundle_write
short_description: Write images, compose file and models into one archive with checksums
version_added: 1.0.0
description:
  - The archive is a compressed tar, C(iopaint-bundle.tar.zst) or C(iopaint-bundle.tar.gz), written as a stream, so that it takes
    no more disk than its own size. Its last file, C(SHA256SUMS), has the checksum of every other one.
  - One that holds the same already is left as it is.
options:
  dir:
    description: Folder on the host for the archive.
    type: path
    required: true
  images:
    description: By variant, C(image) (the immutable tag) and C(tags) (all of them), as M(iopaint.fleet.image_build) returns them.
    type: dict
    required: true
  models:
    description: The weights, each with C(name), C(path) below O(models_dir) and C(checksum).
    type: list
    elements: dict
    default: []
  repositories:
    description:
      - Repositories of a hub, each with C(hub), as the filter P(iopaint.fleet.hub_models#filter) gives them. The archive gets the
        revision that IOPaint loads.
    type: list
    elements: dict
    default: []
  models_dir:
    description: Folder of the models on the host.
    type: path
    required: true
  compose:
    description: Text of the compose file.
    type: str
    required: true
  compression:
    description: V(auto) is V(zstd) where the host has it, else V(gzip).
    type: str
    choices: [auto, zstd, gzip]
    default: auto
extends_documentation_fragment: iopaint.fleet.names
attributes:
  check_mode:
    support: full
    description: Reports whether an archive would be written.
requirements: [docker, zstd or gzip]
author: iopaint.fleet contributors (@iopaint)
"""

EXAMPLES = r"""
- name: Write the bundle
  iopaint.fleet.bundle_write:
    dir: /opt/iopaint/bundle
    images: "{{ iopaint_image_built }}"
    models_dir: /var/lib/iopaint/models
    compose: "{{ lookup('ansible.builtin.file', 'compose.yaml', rstrip=false) }}"
"""

RETURN = r"""
path:
  description: The archive.
  type: str
  returned: success
  sample: /opt/iopaint/bundle/iopaint-bundle.tar.zst
size:
  description: Its bytes.
  type: int
  returned: success, not in check mode where it would be written
seconds:
  description: How long it took to write, 0 where it was there.
  type: float
  returned: success
manifest:
  description: What is in it.
  type: dict
  returned: success
"""

import hashlib
import os
import tempfile
import time

from ansible_collections.iopaint.fleet.plugins.module_utils import bundle, model_store, weights
from ansible_collections.iopaint.fleet.plugins.module_utils.checksums import Checked
from ansible_collections.iopaint.fleet.plugins.module_utils.docker_cli import Docker
from ansible_collections.iopaint.fleet.plugins.module_utils.files import make_folder
from ansible_collections.iopaint.fleet.plugins.module_utils.names import named
from ansible_collections.iopaint.fleet.plugins.module_utils.network import keep_secret
from ansible_collections.iopaint.fleet.plugins.module_utils.quiet import QuietModule

LABELS = {"revision": "org.opencontainers.image.revision", "recipe": "io.iopaint.fleet.recipe"}


def described(module, docker):
    """Return the manifest; fail the module where an image or a model is not on the host."""
    params, images, models = module.params, [], []
    for variant, built in sorted(params["images"].items()):
        image = docker.image(built["image"])
        if image is None and module.check_mode:
            module.exit_json(changed=True, seconds=0.0)
        if image is None:
            module.fail_json(msg=f"The image {built['image']} is not on the host. Build it first (iopaint.fleet.build).")
        labels = (image.get("Config") or {}).get("Labels") or {}
        facts = {key: labels.get(label, "") for key, label in LABELS.items()}
        tags = sorted({built["image"], *built["tags"]})
        images.append(
            {
                "variant": variant,
                "image": built["image"],
                "ref": built["ref"],
                "id": image["Id"],
                "size": image["Size"],
                "tags": tags,
                **facts,
            }
        )
    for model in sorted(params["models"], key=lambda model: model["path"]):
        with weights.opened(params["models_dir"], model) as stream:
            if stream is None:
                path = os.path.join(params["models_dir"], model["path"])
                module.fail_json(
                    msg=f"The model {model['name']} of {named(module, 'models')} is not at {path} on the host. Fetch it first."
                )
            size = os.fstat(stream.fileno()).st_size
        models.append({**{key: model[key] for key in ("name", "path", "checksum")}, "size": size})
    for repository in params["repositories"]:
        models += of_repository(module, repository["hub"])
    compose = hashlib.sha256(params["compose"].encode()).hexdigest()
    return {"schema": bundle.SCHEMA, "images": images, "models": models, "compose": compose}


def of_repository(module, hub):
    """Return the files of a repository as models of the manifest; fail the module where it is not on the host."""
    top, models = module.params["models_dir"], []
    known = model_store.parts(top, hub)
    for file in known["files"] if known else []:
        with weights.opened(top, file) as stream:
            if stream is None:
                known = None
                break
            digest = hashlib.sha256()
            for piece in iter(lambda read=stream.read: read(bundle.CHUNK), b""):
                digest.update(piece)
            about = {"name": hub, "hub": hub, "revision": known["revision"], "checksum": f"sha256:{digest.hexdigest()}"}
            models.append({**about, **file, "size": stream.tell()})
    if known is None and module.check_mode:
        module.exit_json(changed=True, seconds=0.0)
    if known is None:
        module.fail_json(msg=f"The model {hub} of {named(module, 'models')} is not whole in {top} on the host. Fetch it first.")
    return models


def save(docker, manifest, writer):
    """Stream the images into the archive."""
    names = [tag for image in manifest["images"] for tag in image["tags"]]
    with docker.start("save", *names) as process:
        try:
            writer.images(process.stdout)
        except bundle.tarfile.TarError as error:
            raise bundle.BundleError(f"docker save: {process.stderr.read().decode(errors='replace').strip() or error}") from error
        process.stdout.read()
        why = process.stderr.read().decode(errors="replace").strip()
        if process.wait() != 0:
            raise bundle.BundleError(f"docker save failed: {why}")


def add(writer, models_dir, model):
    """Add a model. Containers can write the folder of models: a link in it is not followed, and what was read is compared."""
    with weights.opened(models_dir, model) as stream:
        if stream is None:
            raise bundle.BundleError(f"{model['path']} is not there any more")
        checked = Checked(stream, model["checksum"])
        writer.add(bundle.MODELS + model["path"], model["size"], checked)
        if not checked.is_right():
            raise bundle.BundleError(f"{model['path']} has not the checksum {model['checksum']}")


def write(module, docker, manifest, path, compression):
    """Write the archive under a temporary name, then rename it."""
    params = module.params
    descriptor, candidate = tempfile.mkstemp(dir=params["dir"], prefix=".bundle-")
    os.close(descriptor)
    try:
        program = module.get_bin_path(compression, required=True)
        with bundle.compressed(candidate, compression, program) as stream, bundle.Writer(stream, manifest) as writer:
            writer.text(bundle.COMPOSE, params["compose"])
            for model in manifest["models"]:
                add(writer, params["models_dir"], model)
            save(docker, manifest, writer)
        os.replace(candidate, path)
    except (bundle.BundleError, OSError) as error:
        os.unlink(candidate)
        module.fail_json(msg=f"The bundle {path} could not be written: {error}. An earlier bundle was not touched.")


def main():
    """Run the module."""
    module = QuietModule(
        argument_spec={
            "dir": {"type": "path", "required": True},
            "images": {"type": "dict", "required": True},
            "models": {"type": "list", "elements": "dict", "default": []},
            "repositories": {"type": "list", "elements": "dict", "default": []},
            "models_dir": {"type": "path", "required": True},
            "compose": {"type": "str", "required": True},
            "compression": {"type": "str", "choices": ["auto", "zstd", "gzip"], "default": "auto"},
            "names": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    keep_secret(module, module.params["models"])
    docker, compression = Docker(module), module.params["compression"]
    if compression == "auto":
        compression = "zstd" if module.get_bin_path("zstd") else "gzip"
    path = os.path.join(module.params["dir"], f"iopaint-bundle.tar.{bundle.SUFFIXES[compression]}")
    manifest = described(module, docker)
    try:
        there = bundle.manifest_of(path, module.get_bin_path) == manifest
    except bundle.BundleError:  # none, or one of another time
        there = False
    result = {"changed": not there, "path": path, "manifest": manifest, "seconds": 0.0}
    if not there:
        if module.check_mode:
            module.exit_json(**result)
        make_folder(module.params["dir"])
        start = time.monotonic()
        write(module, docker, manifest, path, compression)
        result["seconds"] = round(time.monotonic() - start, 1)
    module.exit_json(size=os.path.getsize(path), **result)


if __name__ == "__main__":
    main()
