#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: weights in the folder of models, which containers can write."""

from __future__ import annotations

DOCUMENTATION = r"""
module: weights
short_description: Put downloaded weights into the folder of models without following a link
version_added: 1.0.0
description:
  - Containers can write the folder of models. M(ansible.builtin.get_url) would follow a link that one has put there, as root.
    So the play downloads weights into a folder of root's, and this module puts them in their place.
  - Each folder on the way is opened from the one above it, and a link fails the module. Weights are written into a new file.
    It gets its owner and mode while it is open, and takes its place in one step.
options:
  state:
    description:
      - V(listed) returns the weights that O(models_dir) lacks, or has with another checksum, and where to download them to.
        It sets owner and mode of those that are there, and fails where a disk has no room for what is missing.
      - V(placed) puts downloaded weights into O(models_dir), and removes O(staging).
    type: str
    choices: [listed, placed]
    required: true
  models:
    description:
      - The weights, each with C(name), C(path) below O(models_dir) and C(checksum), as of the filter C(model_files).
      - Their size is C(megabytes), that of the file that a C(url) with C(file://) names, or what the server of the C(url) says.
    type: list
    elements: dict
    required: true
  models_dir:
    description: Folder of the models on the host.
    type: path
    required: true
  staging:
    description: Folder for the downloads. Nobody but root may be able to write the folder that it lies in.
    type: path
    required: true
  mirror:
    description:
      - Folder on the host with the models of another one; empty for none.
      - With O(state=listed), weights that it has with the right checksum get its file as their C(url).
    type: str
    default: ""
  owner:
    description: Number of the user and group that weights belong to.
    type: int
    default: 10001
extends_documentation_fragment: iopaint.fleet.names
attributes:
  check_mode:
    support: full
    description: Reports which weights would be put in place.
author: iopaint.fleet contributors (@iopaint)
"""

EXAMPLES = r"""
- name: Check which weights are missing
  iopaint.fleet.weights:
    state: listed
    models: "{{ iopaint_models | iopaint.fleet.model_files }}"
    models_dir: /var/lib/iopaint/models
    staging: /opt/iopaint/instances/.weights
  register: weights

- name: Download weights
  ansible.builtin.get_url:
    url: "{{ item.url }}"
    dest: "{{ item.staged }}"
    checksum: "{{ item.checksum }}"
    mode: "0600"
  loop: "{{ weights.missing }}"

- name: Put the weights in their place
  iopaint.fleet.weights:
    state: placed
    models: "{{ weights.missing }}"
    models_dir: /var/lib/iopaint/models
    staging: /opt/iopaint/instances/.weights
"""

RETURN = r"""
missing:
  description: The entries of O(models) whose weights are missing, each with C(staged), the file to download it to.
  type: list
  elements: dict
  returned: with O(state=listed)
staging:
  description: Whether O(staging) is there. In check mode it may not be.
  type: bool
  returned: with O(state=listed)
written:
  description: Paths of the weights that were put in their place, or given their owner and mode.
  type: list
  elements: str
  returned: success
"""

import contextlib
import os
import re
import shutil
import stat
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.urls import open_url
from ansible_collections.iopaint.fleet.plugins.module_utils import files, weights
from ansible_collections.iopaint.fleet.plugins.module_utils.checksums import CHUNK, has_checksum
from ansible_collections.iopaint.fleet.plugins.module_utils.names import named

SPARE = 256 << 20  # bytes that stay free on a disk
TIMEOUT = 10  # seconds for the question how big a file is
NEAR = re.compile(r"https?://(localhost|127[.]|\[::1\])")  # which the play asks without a proxy, too


def staged(params, model):
    """Return the place for a download: weights of one checksum have one place."""
    return os.path.join(params["staging"], re.sub(r"\W+", "-", model["checksum"]))


def is_right(module, model):
    """Return whether the weights are there, and whether they lack owner or mode, which are then set."""
    owner = module.params["owner"]
    with weights.opened(module.params["models_dir"], model) as stream:
        if stream is None or not has_checksum(stream, model["checksum"]):
            return False, False
        status = os.fstat(stream.fileno())
        if (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (owner, owner, weights.MODE):
            return True, False
        if status.st_nlink > 1:  # its other name may be somebody else's
            return False, False
        if not module.check_mode:
            os.fchown(stream.fileno(), owner, owner)
            os.fchmod(stream.fileno(), weights.MODE)
        return True, True


def nearest(params, model):
    """Return a model that is missing, with the mirror's file as its address where the mirror has it."""
    mirror = params["mirror"]
    here = {"url": Path(mirror, model["path"]).as_uri()} if mirror and weights.has(mirror, model) else {}
    return {**model, **here, "staged": staged(params, model)}


def size(model):
    """Return how many bytes the weights of a model have; 0 where nobody says it."""
    url = model.get("url") or ""
    if model.get("megabytes"):
        return int(model["megabytes"]) * 10**6
    with contextlib.suppress(OSError, ValueError, HTTPException):  # get_url says what is wrong with an address
        if url.startswith("file:"):
            return os.path.getsize(url2pathname(urlsplit(url).path))
        if url.startswith(("http:", "https:")):
            with open_url(url, method="HEAD", timeout=TIMEOUT, use_proxy=not NEAR.match(url)) as answer:
                return max(0, int(answer.headers.get("Content-Length") or 0))
    return 0


def existing(path):
    """Return a path, or the nearest folder above it that is there."""
    return path if os.path.lexists(path) else existing(os.path.dirname(path))


def check_room(module, missing):
    """Raise WeightsError unless the disks have room for what is missing: first the download, then its copy in its place."""
    params, sizes = module.params, [size(model) for model in missing]
    here = sum(os.path.getsize(model["staged"]) for model in missing if os.path.isfile(model["staged"]))
    needed = {}
    folders = (
        (params["models_dir"], named(module, "models_dir"), sum(sizes)),
        (params["staging"], named(module, "staging"), max(0, sum(sizes) - here)),
    )
    for path, name, count in folders:
        place = existing(path)
        total, places = needed.get(os.stat(place).st_dev, (0, [place]))
        needed[os.stat(place).st_dev] = (total + count, [*places, name])
    for total, places in needed.values():
        place = places[0]
        free = shutil.disk_usage(place).free
        if total and total + SPARE > free:
            raise weights.WeightsError(
                f"the disk of {place} has {free / 1e9:.1f} GB free, and {(total + SPARE) / 1e9:.1f} GB are needed for "
                f"{', '.join(model['name'] for model in missing)}. Make room there, move {' and '.join(places[1:])} to another "
                "disk, or leave models out. Nothing was downloaded"
            )


def listed(module):
    """Return what is missing, and make the folder to download it to."""
    params, missing, written = module.params, [], []
    for model in params["models"]:
        there, mended = is_right(module, model)
        missing += [] if there else [nearest(params, model)]
        written += [model["path"]] if mended else []
    check_room(module, missing)
    if missing and not module.check_mode:
        with files.folder(params["staging"], make=True) as folder:
            os.fchmod(folder, 0o700)
    if not missing and not module.check_mode:
        files.remove(params["staging"], ignore_errors=True)  # of a play that was interrupted
    changed = bool(written) or (module.check_mode and bool(missing))
    return {"changed": changed, "missing": missing, "staging": os.path.isdir(params["staging"]), "written": written}


def placed(module):
    """Put what was downloaded in its place."""
    params = module.params
    if not module.check_mode:
        with files.folder(params["staging"]) as folder:
            for model in params["models"]:
                name = os.path.basename(staged(params, model))
                with (
                    files.regular(folder, name) as source,
                    weights.placing(params["models_dir"], model, params["owner"]) as target,
                ):
                    shutil.copyfileobj(source, target, CHUNK)
        files.remove(params["staging"])
    written = [model["path"] for model in params["models"]]
    return {"changed": bool(written), "written": written}


def main():
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["listed", "placed"], "required": True},
            "models": {"type": "list", "elements": "dict", "required": True},
            "models_dir": {"type": "path", "required": True},
            "staging": {"type": "path", "required": True},
            "mirror": {"type": "str", "default": ""},
            "owner": {"type": "int", "default": 10001},
            "names": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    try:
        result = {"listed": listed, "placed": placed}[module.params["state"]](module)
    except (OSError, ValueError, weights.WeightsError) as error:  # ValueError: a checksum of an unknown algorithm
        module.fail_json(
            msg=f"Weights of {named(module, 'models')} could not be put into {module.params['models_dir']} "
            f"({named(module, 'models_dir')}): {error}. No instance was touched."
        )
    module.exit_json(**result)


if __name__ == "__main__":
    main()
