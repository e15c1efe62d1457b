#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: one image of IOPaint by docker buildx bake, named by what is in it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: image_build
short_description: Build an IOPaint image by docker buildx bake unless it exists
version_added: 1.0.0
description:
  - The immutable tag is made of the source's revision and a digest of the recipe (its files, the base image and the
    arguments). Where an image of that tag is on the host nothing is built.
  - The tags C(VARIANT-REF) and C(VARIANT-latest) are pointed at it.
  - In a play the build runs in the background of the host, and its steps are shown as they end. A build whose control node
    is lost goes on to its end, and the next play finds the image.
options:
  build:
    description: Whether an image that is missing is built; with C(false), RV(needed) says that it is missing.
    type: bool
    default: true
  timeout:
    description: Seconds after which a build that runs in the background is stopped.
    type: int
    default: 10800
  recipe:
    description: Folder C(docker/) of the collection, on the host.
    type: path
    required: true
  source:
    description: The source tree, on the host.
    type: path
    required: true
  variant:
    description: Target of the bake file.
    type: str
    required: true
  ref:
    description: What the user calls this source; characters that a tag can't have become dashes.
    type: str
    required: true
  revision:
    description: Commit, version or digest of the source.
    type: str
    required: true
  base:
    description: Base image, on the host.
    type: str
    required: true
  base_id:
    description: Its ID, part of the recipe's digest.
    type: str
    required: true
  variables:
    description: Further variables of the bake file, part of the recipe's digest.
    type: dict
    default: {}
  network:
    description:
      - Where downloads come from, by the names of C(docker/build/with-network).
      - They may hold passwords, and make no other image.
    type: dict
    default: {}
  ca_bundle:
    description: PEM file with extra CAs on the host, handed over as a build secret.
    type: str
    default: ""
  wheelhouse:
    description:
      - Folder with wheels on the host, in place of the indexes where it has all that is asked for.
      - They may be builds of the operator's own, so what they hold is part of the recipe's digest.
    type: str
    default: ""
  refreshed:
    description:
      - File on the host that M(iopaint.fleet.image_refresh) wrote. Where it exists, the image gets the packages of that refresh,
        and they are part of the recipe's digest.
    type: path
  epoch:
    description: The source's own time in seconds since 1970, which becomes the image's; 0 for the time of the build.
    type: int
    default: 0
  min_free:
    description: Bytes that must be free where the engine keeps its data before a build begins.
    type: int
    default: 0
  attestations:
    description:
      - What is attached to the image, as in-toto statements. C(provenance) says how it was built, C(sbom) what is in it (SPDX).
      - The engine needs the containerd image store for it; its other store has no place for them, and the module fails.
    type: list
    elements: str
    choices: [provenance, sbom]
    default: []
  sbom_generator:
    description: Image that lists the packages for C(sbom); empty for BuildKit's own choice.
    type: str
    default: ""
  log:
    description: File on the host that takes the build's full log. One build at a time holds it, another waits.
    type: path
    required: true
extends_documentation_fragment: iopaint.fleet.names
attributes:
  action:
    support: full
    description: Shows the steps of the build while it runs.
  async:
    support: none
    description: The action runs a build in the background by itself.
  check_mode:
    support: full
    description: Reports whether an image would be built.
requirements: [docker, docker buildx]
author: iopaint.fleet contributors (@iopaint)
"""

EXAMPLES = r"""
- name: Build the CPU image
  iopaint.fleet.image_build:
    recipe: /opt/iopaint/build/docker
    source: /opt/iopaint/build/source
    variant: cpu
    ref: main
    revision: 61a759fb3f332bacdce8b2813f4837495c9b86e0
    base: debian:bookworm-slim
    base_id: sha256:0123
    log: /opt/iopaint/build/cpu.log
"""

RETURN = r"""
image:
  description: The immutable tag.
  type: str
  returned: success
  sample: iopaint:cpu-61a759fb3f33-9d2f0c11aa42
id:
  description: The image's ID.
  type: str
  returned: success, not in check mode where it would be built
tags:
  description: The tags that point at the image.
  type: list
  elements: str
  returned: success
ref:
  description: The ref that was asked for.
  type: str
  returned: success
built:
  description: Whether a build ran.
  type: bool
  returned: success
needed:
  description: Whether the image is missing and was not built.
  type: bool
  returned: O(build=false)
seconds:
  description: Time of the build, 0 where none ran.
  type: float
  returned: success
steps:
  description: Steps of the build.
  type: int
  returned: where a build ran
cached:
  description: How many of them came from the cache.
  type: int
  returned: where a build ran
downloaded:
  description: Bytes that the steps say they downloaded.
  type: int
  returned: where a build ran
size:
  description: Bytes, as C(docker image inspect) has them.
  type: int
  returned: success, not in check mode where it would be built
recipe_digest:
  description: SHA-256 of recipe files, base, variables, variant and the packages of the last refresh.
  type: str
  returned: success
"""

import datetime
import fcntl
import glob
import hashlib
import json
import os
import re
import time
import zipfile

from ansible_collections.iopaint.fleet.plugins.module_utils import refreshed
from ansible_collections.iopaint.fleet.plugins.module_utils.build_log import BuildLog
from ansible_collections.iopaint.fleet.plugins.module_utils.docker_cli import Docker, bake_environment, network_secret
from ansible_collections.iopaint.fleet.plugins.module_utils.names import named
from ansible_collections.iopaint.fleet.plugins.module_utils.network import keep_secret, masked
from ansible_collections.iopaint.fleet.plugins.module_utils.quiet import QuietModule
from ansible_collections.iopaint.fleet.plugins.module_utils.text import plain

# Parts of the recipe that an image is not made of.
NOT_IN_IMAGE = {"compose.yaml", "unprivileged.yaml", "docker-bake.hcl", "Dockerfile.dockerignore"}


def recipe_digest(folder, variant, base_id, variables):
    """Return the SHA-256 (hex) of everything besides the source that decides what is in an image."""
    digest = hashlib.sha256(json.dumps([variant, base_id, variables], sort_keys=True).encode())
    for top, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(set(files) - NOT_IN_IMAGE):
            path = os.path.join(top, name)
            with open(path, "rb") as stream:
                digest.update(os.fsencode(os.path.relpath(path, folder)) + b"\0" + stream.read() + b"\0")
    return digest.hexdigest()


def wheels_digest(folder):
    """Return the SHA-256 (hex) of what the wheels of a folder say is in them; empty where there are none."""
    digest, wheels = hashlib.sha256(), sorted(glob.glob(os.path.join(glob.escape(folder), "*.whl"))) if folder else []
    for path in wheels:
        try:
            with zipfile.ZipFile(path) as wheel:  # its RECORD has the SHA-256 of each file, gigabytes needn't be read
                content = b"".join(wheel.read(name) for name in wheel.namelist() if name.endswith(".dist-info/RECORD"))
        except zipfile.BadZipFile:
            with open(path, "rb") as stream:
                content = stream.read()
        digest.update(f"{os.path.basename(path)}\0".encode() + hashlib.sha256(content).digest())
    return digest.hexdigest() if wheels else ""


def tag_of(text):
    """Return text in the characters that a tag may have, 60 at most."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip("-.")[:60]


def check_disk(module, docker):
    """Fail the module where the engine's disk has less than min_free bytes left."""
    root, free = docker.room()
    if free < module.params["min_free"]:
        module.fail_json(
            msg=f"Too little disk for a build: {free / 1e9:.1f} GB are free at {root}, {named(module, 'min_free')} asks for "
            f"{module.params['min_free'] / 1e9:.1f}. Free some (docker system df shows what "
            f"the engine holds), or lower {named(module, 'min_free')}. Nothing was built."
        )


def attesting(module, docker):
    """Return the options of bake that attach what is asked for; fail the module where the engine can't keep it."""
    wanted = module.params["attestations"]
    if not wanted:
        return []
    store = docker.info("{{json .DriverStatus}}")
    if "io.containerd.snapshotter" not in store:
        module.fail_json(
            msg=f"{named(module, 'attestations')} is {', '.join(wanted)}, and the image store of this engine can't keep them. "
            "Switch it to the containerd image store (features: {containerd-snapshotter: true} in daemon.json, which hides the "
            f"images and containers of the present store), or empty {named(module, 'attestations')}. Nothing was built."
        )
    generator = module.params["sbom_generator"]
    options = {"provenance": "--provenance=mode=max", "sbom": f"--sbom=generator={generator}" if generator else "--sbom=true"}
    return [options[name] for name in wanted]


def bake(module, docker, immutable, digest, last):
    """Run the build, unless another play has just done so, and return its facts; fail the module with the end of the log.

    last: the record of the last refresh, None where there was none.
    """
    params = module.params
    given = {
        **params["variables"],
        "NETWORK": network_secret(params["network"]),
        "SOURCE": params["source"],
        "BASE": params["base"],
        "BASE_ID": params["base_id"],
        "REFRESHED": last["time"] if last else "",
        "TAGS": immutable,
        "VERSION": params["ref"],
        "REVISION": params["revision"],
        "RECIPE": digest,
        "CREATED": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "CA_BUNDLE": params["ca_bundle"],
        "WHEELHOUSE": params["wheelhouse"],
        "SOURCE_DATE_EPOCH": str(params["epoch"] or ""),
    }
    # Source, wheelhouse and CA lie outside the recipe's folder, and nobody is there to be asked.
    env = {**bake_environment(params["recipe"], given), "BUILDX_BAKE_ENTITLEMENTS_FS": "0"}
    command = [
        "buildx",
        "bake",
        "--builder",
        docker.builder(),
        "-f",
        "docker-bake.hcl",
        "--progress",
        "plain",
        "--load",
        params["variant"],
    ]
    command += ["--set", f"{params['variant']}.context={params['recipe']}", *attesting(module, docker)]
    with open(params["log"], "a+", encoding="utf-8", errors="replace") as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        if docker.image(immutable):
            return {"built": False}
        log.truncate(0)
        start = time.monotonic()
        rc = docker.log(log, *command, cwd=params["recipe"], env=env)
        seconds = round(time.monotonic() - start, 1)
        log.seek(0)
        text = log.read()
        if text != (text := masked(text, params["network"].values())):
            log.truncate(0)
            log.write(text)
    if rc != 0:
        module.fail_json(
            msg=f"The build of {immutable} failed; nothing that runs was touched. "
            f"The full log is on the host in {params['log']}. Its end:\n"
            + "\n".join([line for line in plain(text).splitlines() if line.strip()][-25:])
        )
    return {"built": True, "seconds": seconds, **BuildLog(text).summary()}


def main():
    """Run the module."""
    module = QuietModule(
        argument_spec={
            "build": {"type": "bool", "default": True},
            "timeout": {"type": "int", "default": 10800},
            "recipe": {"type": "path", "required": True},
            "source": {"type": "path", "required": True},
            "variant": {"type": "str", "required": True},
            "ref": {"type": "str", "required": True},
            "revision": {"type": "str", "required": True},
            "base": {"type": "str", "required": True},
            "base_id": {"type": "str", "required": True},
            "variables": {"type": "dict", "default": {}},
            "network": {"type": "dict", "default": {}},
            "ca_bundle": {"type": "str", "default": ""},
            "wheelhouse": {"type": "str", "default": ""},
            "refreshed": {"type": "path"},
            "epoch": {"type": "int", "default": 0},
            "min_free": {"type": "int", "default": 0},
            "attestations": {"type": "list", "elements": "str", "choices": ["provenance", "sbom"], "default": []},
            "sbom_generator": {"type": "str", "default": ""},
            "log": {"type": "path", "required": True},
            "names": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    params = module.params
    keep_secret(module, params["network"].values())
    docker = Docker(module)
    last = refreshed.read(module, params["refreshed"]) if params["refreshed"] else None
    further = {"attestations": sorted(params["attestations"]), "wheelhouse": wheels_digest(params["wheelhouse"])}
    further["debian"] = refreshed.digest(last)
    variables = {**params["variables"], **{name: value for name, value in further.items() if value}}
    digest = recipe_digest(params["recipe"], params["variant"], params["base_id"], variables)
    prefix = f"iopaint:{params['variant']}-"
    immutable = f"{prefix}{tag_of(params['revision'])[:12]}-{digest[:12]}"
    aliases = [prefix + tag_of(params["ref"]), prefix + "latest"]
    result = {
        "image": immutable,
        "tags": [immutable, *aliases],
        "ref": params["ref"],
        "built": False,
        "seconds": 0.0,
        "recipe_digest": digest,
    }

    image = docker.image(immutable)
    if image is None:
        check_disk(module, docker)
        if not params["build"]:
            module.exit_json(changed=False, needed=True, **result)
        if module.check_mode:
            module.exit_json(changed=True, **{**result, "built": True})
        result.update(bake(module, docker, immutable, digest, last))
        image = docker.image(immutable)
    changed = result["built"]
    for alias in aliases:
        current = docker.image(alias)
        if current is None or current["Id"] != image["Id"]:
            changed = True
            if not module.check_mode:
                docker.run("tag", immutable, alias, check_rc=True)
    module.exit_json(changed=changed, id=image["Id"], size=image["Size"], **result)


if __name__ == "__main__":
    main()
