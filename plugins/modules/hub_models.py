#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: repositories of a Hugging Face hub in the folder of models."""

from __future__ import annotations

DOCUMENTATION = r"""
module: hub_models
short_description: Fetches repositories of a Hugging Face hub into the folder of models, pinned and checked
version_added: 1.0.0
description:
  - Runs C(fetch-models) (C(docker/image/fetch-models)) of an IOPaint image, as the image's user, in a container that can write
    nothing but the folder of models.
  - A download that broke off is taken up by the next run. Each file is compared with the checksum of the hub's metadata. What a
    full commit names and is there already needs no hub.
  - Certificate authorities that the host trusts (C(/etc/ssl/certs/ca-certificates.crt)) are trusted.
options:
  repositories:
    description: What to fetch, as the filter P(iopaint.fleet.hub_models#filter) gives it.
    type: list
    elements: dict
    required: true
    suboptions:
      hub:
        description: The repository, as OWNER/NAME.
        type: str
        required: true
      revision:
        description: Commit, tag or branch.
        type: str
        default: main
      files:
        description: Patterns of the files to fetch. By default what diffusers loads.
        type: list
        elements: str
        default: []
      variant:
        description: Variant of the weights, such as V(fp16), where the repository has it.
        type: str
        default: ""
  image:
    description: The IOPaint image, on the host.
    type: str
    required: true
  models_dir:
    description: Folder of the models on the host.
    type: path
    required: true
  endpoint:
    description: Address of a mirror of the hub; empty for the hub itself.
    type: str
    default: ""
  mirror:
    description: Folder on the host with the models of another one, from which files are copied; empty for none.
    type: str
    default: ""
  token:
    description: Token for gated and private repositories. It is handed over by standard input.
    type: str
    default: ""
  environment:
    description: Further variables, such as C(HTTPS_PROXY).
    type: dict
    default: {}
extends_documentation_fragment: iopaint.fleet.names
attributes:
  check_mode:
    support: full
    description: Says what would be fetched, by the hub's metadata. Where the image is still to be built the module is skipped.
requirements: [docker]
author: iopaint.fleet contributors (@iopaint)
"""

EXAMPLES = r"""
- name: Fetch Stable Diffusion's inpainting model
  iopaint.fleet.hub_models:
    repositories:
      - hub: stable-diffusion-v1-5/stable-diffusion-inpainting
        revision: 8a4288a76071f7280aedbdb3253bdb9e9d5d84bb
        variant: fp16
    image: iopaint:gpu-latest
    models_dir: /var/lib/iopaint/models
"""

RETURN = r"""
repositories:
  description: What is there now, in the order that was given.
  type: list
  elements: dict
  returned: success
  contains:
    repository:
      description: The repository.
      type: str
    revision:
      description: Its commit.
      type: str
    changed:
      description: Whether something was fetched, or another commit is current now.
      type: bool
    bytes:
      description: Size of all its files.
      type: int
    missing_bytes:
      description: Size of those that were not there before.
      type: int
"""

import os

from ansible_collections.iopaint.fleet.plugins.module_utils import foreign
from ansible_collections.iopaint.fleet.plugins.module_utils.docker_cli import Docker
from ansible_collections.iopaint.fleet.plugins.module_utils.images import USER
from ansible_collections.iopaint.fleet.plugins.module_utils.names import named
from ansible_collections.iopaint.fleet.plugins.module_utils.network import keep_secret
from ansible_collections.iopaint.fleet.plugins.module_utils.quiet import QuietModule

RIGHTS = ("--pull=never", "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--tmpfs=/tmp")
AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"  # of Debian and Ubuntu; get_url trusts the same
# Repositories that IOPaint 1.6.0 names and the hub has no more, with what replaces them.
REPLACED = {
    "runwayml/stable-diffusion-inpainting": "stable-diffusion-v1-5/stable-diffusion-inpainting",
    "runwayml/stable-diffusion-v1-5": "stable-diffusion-v1-5/stable-diffusion-v1-5",
}
WORDS = {
    os.EX_DATAERR: "A file is not what the hub says.",
    os.EX_NOINPUT: "Correct the entry in {repositories}.",
    os.EX_UNAVAILABLE: "See {endpoint} and the host's way there, such as a proxy, and run the play again: it goes on from here.",
    os.EX_CANTCREAT: "Make room on the disk of {models_dir}, and run the play again.",
    os.EX_NOPERM: "Set {token}.",
}


def fetch(module, docker, repository):
    """Fetch one repository; return what fetch-models says of it, or fail the module."""
    params, token = module.params, module.params["token"]
    environment = {**params["environment"], **({"HF_ENDPOINT": params["endpoint"]} if params["endpoint"] else {})}
    environment = {key: str(value) for key, value in environment.items()}
    mounts = [(params["mirror"], "/mirror")] if params["mirror"] else []
    if os.path.isfile(AUTHORITIES):
        mounts.append((AUTHORITIES, AUTHORITIES))
        environment["REQUESTS_CA_BUNDLE"] = AUTHORITIES
    command = ["run", "--rm", "--interactive", *RIGHTS, f"--user={USER}:{USER}"]
    command += ["--volume", f"{params['models_dir']}:/app/models"]
    # Unlike --volume, --mount makes no folder that is missing.
    command += [f"--mount=type=bind,readonly,source={source},target={target}" for source, target in mounts]
    command += [word for key in environment for word in ("--env", key)]  # a value may be secret: in no process list
    command += [params["image"], "fetch-models", repository["hub"], "--revision", repository["revision"]]
    command += ["--variant", repository["variant"]] if repository["variant"] else []
    command += ["--mirror", "/mirror"] if params["mirror"] else []
    command += ["--token-stdin"] if token else []
    command += ["--check"] if module.check_mode else []
    command += ["--files", *repository["files"]] if repository["files"] else []
    rc, out, err = docker.run(*command, data=token, environ_update=environment)
    lines = [line.removeprefix("fetch-models: ") for line in err.splitlines() if line.startswith("fetch-models: ")]
    if rc != 0:
        hints = {
            "repositories": named(module, "repositories"),
            "endpoint": named(module, "endpoint"),
            "models_dir": named(module, "models_dir"),
            "token": named(module, "token"),
        }
        instead = REPLACED.get(repository["hub"]) if rc == os.EX_NOINPUT else None
        module.fail_json(
            msg=f"{repository['hub']} ({named(module, 'repositories')}) could not be fetched: "
            f"{' '.join(lines) or err.strip() or f'exit status {rc}'} {WORDS.get(rc, '').format(**hints)}".rstrip()
            + (f" On the public hub {instead} replaces it." if instead else "")
            + " No instance was touched."
        )
    return foreign.parse_json(out, dict)


def main():
    """Run the module."""
    repository = {
        "hub": {"type": "str", "required": True},
        "revision": {"type": "str", "default": "main"},
        "files": {"type": "list", "elements": "str", "default": []},
        "variant": {"type": "str", "default": ""},
    }
    module = QuietModule(
        argument_spec={
            "repositories": {"type": "list", "elements": "dict", "required": True, "options": repository},
            "image": {"type": "str", "required": True},
            "models_dir": {"type": "path", "required": True},
            "endpoint": {"type": "str", "default": ""},
            "mirror": {"type": "str", "default": ""},
            "token": {"type": "str", "default": "", "no_log": True},
            "environment": {"type": "dict", "default": {}},
            "names": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    keep_secret(module, [module.params["endpoint"], module.params["environment"]])
    docker = Docker(module)
    if module.check_mode and docker.image(module.params["image"]) is None:
        module.exit_json(changed=True, skipped=True, repositories=[], msg=f"{module.params['image']} is still to be built.")
    done = [fetch(module, docker, each) for each in module.params["repositories"]]
    kept = ("repository", "revision", "changed", "bytes", "missing_bytes")
    found = [{key: each.get(key) for key in kept} for each in done]
    module.exit_json(changed=any(each["changed"] for each in found), repositories=found)


if __name__ == "__main__":
    main()
