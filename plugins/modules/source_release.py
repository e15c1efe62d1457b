#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: a release of IOPaint from the Python package index, as a source tree."""

from __future__ import annotations

DOCUMENTATION = r"""
module: source_release
short_description: Write a release of IOPaint from the Python package index to a folder, as a source tree
version_added: 1.0.0
description:
  - The target C(release) of the bake file fetches it, so that nothing has to be installed on the host.
  - A folder that holds a release is left as it is.
  - What the build writes stays in a folder that only root can enter until owners and modes are those of this module, as it may
    hold a program with set-user-ID. Then it takes its place in one step.
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
  sha256:
    description: SHA-256 of its wheel, for a version that C(docker/constraints/releases.txt) does not have.
    type: str
    default: ""
  base:
    description: Base image, on the host.
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
    support: full
    description: Reports whether it would be fetched.
requirements: [docker, docker buildx]
author: iopaint.fleet contributors (@iopaint)
"""

EXAMPLES = r"""
- name: Download the release as a source tree
  iopaint.fleet.source_release:
    recipe: /opt/iopaint/image/docker
    dest: /opt/iopaint/image/release-1.6.0
    release: 1.6.0
    base: debian:bookworm-slim
"""

RETURN = r""" # """

import os
import stat

from ansible_collections.iopaint.fleet.plugins.module_utils.docker_cli import Docker, bake_environment, network_secret
from ansible_collections.iopaint.fleet.plugins.module_utils.files import remove
from ansible_collections.iopaint.fleet.plugins.module_utils.names import named
from ansible_collections.iopaint.fleet.plugins.module_utils.network import keep_secret
from ansible_collections.iopaint.fleet.plugins.module_utils.quiet import QuietModule
from ansible_collections.iopaint.fleet.plugins.module_utils.text import plain


def normalize(tree):
    """Set owner and mode of everything in a folder that nobody else can enter; raise OSError on a device, FIFO or socket."""
    owner = os.geteuid(), os.getegid()
    for folder, names, files in os.walk(tree):
        for path in (folder, *(os.path.join(folder, name) for name in [*names, *files])):
            mode = os.lstat(path).st_mode
            os.lchown(path, *owner)
            if stat.S_ISDIR(mode) or stat.S_ISREG(mode):
                os.chmod(path, 0o755 if stat.S_ISDIR(mode) or mode & 0o100 else 0o644)
            elif not stat.S_ISLNK(mode):
                raise OSError(f"{os.path.relpath(path, tree)} in it is neither a file nor a folder nor a link")


def put(stage, dest):
    """Move the tree from the stage to its place."""
    tree = os.path.join(stage, "tree")
    normalize(tree)
    remove(dest, ignore_errors=True)  # without a release, or it would have been left
    os.rename(tree, dest)
    os.rmdir(stage)


def main():
    """Run the module."""
    module = QuietModule(
        argument_spec={
            "recipe": {"type": "path", "required": True},
            "dest": {"type": "path", "required": True},
            "release": {"type": "str", "required": True},
            "sha256": {"type": "str", "default": ""},
            "base": {"type": "str", "required": True},
            "network": {"type": "dict", "default": {}},
            "ca_bundle": {"type": "str", "default": ""},
            "names": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    params = module.params
    keep_secret(module, params["network"].values())
    if os.path.exists(os.path.join(params["dest"], "iopaint", "cli.py")):
        module.exit_json(changed=False)
    if module.check_mode:
        module.exit_json(changed=True)
    docker, stage = Docker(module), f"{params['dest']}.new"
    remove(stage, ignore_errors=True)  # of a play that was interrupted
    os.mkdir(stage, 0o700)
    given = {"BASE": params["base"], "RELEASE": params["release"], "CA_BUNDLE": params["ca_bundle"]}
    given["RELEASE_SHA256"] = params["sha256"]
    given["NETWORK"] = network_secret(params["network"])
    env = {**bake_environment(params["recipe"], given), "BUILDX_BAKE_ENTITLEMENTS_FS": "0"}
    settings = ("release.context=.", f"release.output=type=local,dest={stage}/tree")
    command = ["buildx", "bake", "--builder", docker.builder(), "--file=docker-bake.hcl", "--progress=plain"]
    command += [*(f"--set={text}" for text in settings), "release"]
    rc, out, err = docker.run(*command, cwd=params["recipe"], environ_update=env)
    if rc != 0:
        lines = [line for line in plain(out + err).splitlines() if line.strip()]
        module.fail_json(
            msg=f"IOPaint {params['release']} ({named(module, 'release')}) could not be downloaded from the Python package index "
            f"({named(module, 'network')}). Nothing that runs was touched. The end of the log:\n" + "\n".join(lines[-12:])
        )
    try:
        put(stage, params["dest"])
    except OSError as error:
        module.fail_json(
            msg=f"IOPaint {params['release']} ({named(module, 'release')}) can't be used: {error}. Nothing that runs was touched."
        )
    module.exit_json(changed=True)


if __name__ == "__main__":
    main()
