#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: a release of IOPaint from the Python package index, as a source tree."""

from __future__ import annotations

DOCUMENTATION = r"""
module: source_release
short_description: Writes a release of IOPaint from the Python package index to a folder, as a source tree
version_added: 0.1.0
description:
  - The target C(release) of the bake file fetches it, so that nothing has to be installed on the host.
  - A folder that holds a release is left as it is.
options:
  recipe:
    description: Folder C(docker/) of the collection, on the host.
    type: path
    required: true
  dest:
    description: Folder for the tree.
    type: path
    required: true
  release:
    description: The version.
    type: str
    required: true
  base:
    description: Base image, on the host.
    type: str
    required: true
  network:
    description: Variables of the bake file that say where downloads come from; they may hold passwords.
    type: dict
    default: {}
  ca_bundle:
    description: PEM file with extra CAs on the host, handed over as a build secret.
    type: str
    default: ""
attributes:
  check_mode:
    support: full
    description: Says whether it would be fetched.
requirements: [docker, docker buildx]
author: iopaint.fleet contributors (@iopaint)
"""

EXAMPLES = r"""
- name: The release lies on the host as a source tree
  iopaint.fleet.source_release:
    recipe: /opt/iopaint/image/docker
    dest: /opt/iopaint/image/release-1.6.0
    release: 1.6.0
    base: debian:bookworm-slim
"""

RETURN = r""" # """

import os
import shutil

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.iopaint.fleet.plugins.module_utils.docker_cli import Docker, bake_environment
from ansible_collections.iopaint.fleet.plugins.module_utils.network import keep_secret
from ansible_collections.iopaint.fleet.plugins.module_utils.text import plain


def main():
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "recipe": {"type": "path", "required": True},
            "dest": {"type": "path", "required": True},
            "release": {"type": "str", "required": True},
            "base": {"type": "str", "required": True},
            "network": {"type": "dict", "default": {}},
            "ca_bundle": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
        no_log=True,  # the host's journal is told nothing: network may hold passwords
    )
    params = module.params
    keep_secret(module, params["network"].values())
    if os.path.exists(os.path.join(params["dest"], "iopaint", "cli.py")):
        module.exit_json(changed=False)
    if module.check_mode:
        module.exit_json(changed=True)
    docker = Docker(module)
    given = {**params["network"], "BASE": params["base"], "RELEASE": params["release"], "CA_BUNDLE": params["ca_bundle"]}
    env = {**bake_environment(params["recipe"], given), "BUILDX_BAKE_ENTITLEMENTS_FS": "0"}
    unfinished = f"{params['dest']}.new"
    shutil.rmtree(unfinished, ignore_errors=True)  # of a run that was killed
    settings = ("release.context=.", f"release.output=type=local,dest={unfinished}")
    command = ["buildx", "bake", "--builder", docker.builder(), "--file=docker-bake.hcl", "--progress=plain"]
    command += [*(f"--set={text}" for text in settings), "release"]
    rc, out, err = docker.run(*command, cwd=params["recipe"], environ_update=env)
    if rc != 0:
        lines = [line for line in plain(out + err).splitlines() if line.strip()]
        module.fail_json(
            msg=f"IOPaint {params['release']} (iopaint_image_release) could not be downloaded from the Python package index "
            f"(iopaint_image_python_index and its neighbours). Nothing that runs was touched. The end of the log:\n"
            + "\n".join(lines[-12:])
        )
    shutil.rmtree(params["dest"], ignore_errors=True)
    os.rename(unfinished, params["dest"])
    module.exit_json(changed=True)


if __name__ == "__main__":
    main()
