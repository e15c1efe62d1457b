#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: Debian's packages taken anew for the images of a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: image_refresh
short_description: Look for newer Debian packages for the images, and have the next builds take them
version_added: 1.0.0
description:
  - Makes the layer of Debian's packages anew, without the build cache and with the packages of the base image upgraded. Then it
    compares the packages with those of the last refresh, or else with those of the newest image on the host.
  - Where they differ, it writes O(path). M(iopaint.fleet.image_build) makes this file part of what an image is named by.
  - Where they are the same, it changes nothing, and no image is built.
options:
  recipe:
    description: Folder C(docker/) of the collection, on the host.
    type: path
    required: true
  path:
    description: File on the host that records time and packages of the last refresh.
    type: path
    required: true
  base:
    description: Base image, on the host.
    type: str
    required: true
  base_id:
    description: Its ID.
    type: str
    required: true
  network:
    description: Where downloads come from, by the names of C(docker/build/with-network); they may hold passwords.
    type: dict
    default: {}
  ca_bundle:
    description: PEM file with extra CAs on the host, handed over as a build secret.
    type: str
    default: ""
extends_documentation_fragment: iopaint.fleet.names
attributes:
  check_mode:
    support: none
    description: What there is to upgrade is known only once the packages are installed.
requirements: [docker, docker buildx]
author: iopaint.fleet contributors (@iopaint)
"""

EXAMPLES = r"""
- name: Look for newer Debian packages
  iopaint.fleet.image_refresh:
    recipe: /opt/iopaint/image/docker
    path: /opt/iopaint/image/refreshed.json
    base: debian:bookworm-slim
    base_id: sha256:0123
"""

RETURN = r"""
packages:
  description: What differs, as sentences such as V(libssl3 3.0.15-1 → 3.0.16-1). Empty where there was nothing to compare with.
  type: list
  elements: str
  returned: success
time:
  description: When the packages that the images get were taken; empty where none of them was ever refreshed.
  type: str
  returned: success
"""

import os
import tempfile

from ansible_collections.iopaint.fleet.plugins.module_utils import audit, foreign, refreshed
from ansible_collections.iopaint.fleet.plugins.module_utils.docker_cli import Docker, bake_environment, network_secret
from ansible_collections.iopaint.fleet.plugins.module_utils.image_files import PACKAGES, debian_packages, parse_packages
from ansible_collections.iopaint.fleet.plugins.module_utils.images import BASE, newest
from ansible_collections.iopaint.fleet.plugins.module_utils.names import named
from ansible_collections.iopaint.fleet.plugins.module_utils.network import keep_secret
from ansible_collections.iopaint.fleet.plugins.module_utils.quiet import QuietModule
from ansible_collections.iopaint.fleet.plugins.module_utils.text import plain, version_changes

TARGET = "debian-packages"  # of the bake file


def take(module, docker, time):
    """Make the layer of Debian's packages with this time; return their versions by name, or fail the module."""
    params = module.params
    given = {"BASE": params["base"], "REFRESHED": time, "CA_BUNDLE": params["ca_bundle"]}
    given["NETWORK"] = network_secret(params["network"])
    env = {**bake_environment(params["recipe"], given), "BUILDX_BAKE_ENTITLEMENTS_FS": "0"}
    command = ["buildx", "bake", "--builder", docker.builder(), "--file=docker-bake.hcl", "--progress=plain"]
    rest = "No image was built, and nothing that runs was touched."
    with tempfile.TemporaryDirectory(dir=module.tmpdir) as folder:
        settings = (f"{TARGET}.context=.", f"{TARGET}.output=type=local,dest={folder}")
        command += [*(f"--set={text}" for text in settings), TARGET]
        rc, out, err = docker.run(*command, cwd=params["recipe"], environ_update=env)
        if rc != 0:
            lines = [line for line in plain(out + err).splitlines() if line.strip()]
            module.fail_json(
                msg=f"Debian's packages could not be taken anew ({named(module, 'network')}). {rest} The end of the log:\n"
                + "\n".join(lines[-12:])
            )
        try:
            packages = parse_packages(foreign.read_text(os.path.join(folder, os.path.basename(PACKAGES))))
        except (OSError, foreign.ForeignError) as error:
            module.fail_json(msg=f"The list of Debian's packages can't be read from the build: {error}. {rest}")
    if not packages:
        module.fail_json(msg=f"The base image {params['base']} has no Debian packages, so there is nothing to refresh. {rest}")
    return packages


def main():
    """Run the module."""
    module = QuietModule(
        argument_spec={
            "recipe": {"type": "path", "required": True},
            "path": {"type": "path", "required": True},
            "base": {"type": "str", "required": True},
            "base_id": {"type": "str", "required": True},
            "network": {"type": "dict", "default": {}},
            "ca_bundle": {"type": "str", "default": ""},
            "names": {"type": "dict", "default": {}},
        },
    )
    params = module.params
    keep_secret(module, params["network"].values())
    docker, last, time = Docker(module), refreshed.read(module, params["path"]), audit.now()
    image = None if last else newest(docker)
    before = last["packages"] if last else debian_packages(docker, image["Id"]) if image else {}
    packages = take(module, docker, time)
    # An image of another base is built anew in any case, and then with the packages of this refresh.
    same_base = last or (image and image["Config"]["Labels"].get(BASE) == f"{params['base']}@{params['base_id']}")
    if packages == before and same_base:
        module.exit_json(changed=False, packages=[], time=last["time"] if last else "")
    refreshed.save(params["path"], time, packages)
    module.exit_json(changed=True, packages=version_changes(before, packages) if before else [], time=time)


if __name__ == "__main__":
    main()
