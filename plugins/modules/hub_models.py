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
  - In a play the download runs in the background of the host, and how far it is is shown. A download whose control node is lost
    goes on to its end, and the next play finds the files.
options:
  fetch:
    description: Whether what is missing is fetched; with C(false), RV(needed) says that something is missing.
    type: bool
    default: true
  timeout:
    description: Seconds after which a download that runs in the background is stopped.
    type: int
    default: 43200
  log:
    description: File on the host that takes how far the download is. One download at a time holds it, another waits.
    type: path
    required: true
  handed_over:
    description:
      - File in memory with O(token), O(endpoint) and O(environment), as RV(handed_over) names it. It is read and removed.
      - The action hands them over this way, as the arguments of what runs in the background lie on the host's disk meanwhile.
    type: path
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
      replaced_by:
        description: What replaces the repository on the public hub, for a message where the hub has it no more.
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
  action:
    support: full
    description: Shows how far the download is while it runs.
  async:
    support: none
    description: The action runs a download in the background by itself.
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
    log: /opt/iopaint/instances/models.log
"""

RETURN = r"""
needed:
  description: Whether something is missing and was not fetched.
  type: bool
  returned: O(fetch=false)
handed_over:
  description: File in memory with O(token), O(endpoint) and O(environment), for the call that fetches.
  type: str
  returned: O(fetch=false), where something is missing
seconds:
  description: Time of the download, 0 where there was none.
  type: float
  returned: success
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

import contextlib
import fcntl
import json
import os
import threading
import time

from ansible_collections.iopaint.fleet.plugins.module_utils import foreign
from ansible_collections.iopaint.fleet.plugins.module_utils.docker_cli import Docker
from ansible_collections.iopaint.fleet.plugins.module_utils.images import USER
from ansible_collections.iopaint.fleet.plugins.module_utils.names import named
from ansible_collections.iopaint.fleet.plugins.module_utils.network import keep_secret, masked
from ansible_collections.iopaint.fleet.plugins.module_utils.quiet import QuietModule

RIGHTS = ("--pull=never", "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--tmpfs=/tmp")
MEMORY = "/run"
MOST = 16 * foreign.MIB  # bytes of fetch-models' answer
LINE = foreign.PIECE  # bytes of a line of it
AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"  # of Debian and Ubuntu; get_url trusts the same
WORDS = {
    os.EX_DATAERR: "A file is not what the hub says.",
    os.EX_NOINPUT: "Correct the entry in {repositories}. Without revision it takes the commit that the collection lists for the "
    "repository, which a mirror may lack; revision: main takes the newest.",
    os.EX_UNAVAILABLE: "See {endpoint} and the host's way there, such as a proxy, and run the play again: it goes on from here.",
    os.EX_CANTCREAT: "Make room on the disk of {models_dir}, and run the play again.",
    os.EX_NOPERM: "Set {token}.",
}


def command_of(module, repository, *further):
    """Return the arguments of docker that run fetch-models for a repository, and the variables that go with them."""
    params = module.params
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
    command += ["--token-stdin"] if params["token"] else []
    command += further
    command += ["--files", *repository["files"]] if repository["files"] else []
    return command, environment


def look(module, docker, repository):
    """Return what fetch-models says of a repository without a download, or fail the module."""
    command, environment = command_of(module, repository, "--check")
    return understood(module, repository, *docker.run(*command, data=module.params["token"], environ_update=environment))


def fetch(module, docker, repository, log):
    """Fetch one repository; return what fetch-models says of it, or fail the module. How far it is goes to a log."""
    command, environment = command_of(module, repository, "--progress", "--attended")
    process, said = docker.start(*command, fed=True, env=environment), []
    listener = threading.Thread(target=listen, args=(process.stderr, log, secrets_of(module), said))
    listener.start()
    with contextlib.suppress(BrokenPipeError):  # its error says more
        process.stdin.write(f"{module.params['token']}\n".encode())
        process.stdin.flush()  # and stays open: fetch-models ends when this process does
    out = process.stdout.read(MOST)
    process.stdout.close()
    listener.join()
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()
    return understood(module, repository, process.wait(), out.decode(errors="replace"), "".join(said))


def listen(stream, log, secrets, said):
    """Write the lines of progress in a program's errors to the log, without secrets, and add the others to what it said."""
    for line in iter(lambda: stream.readline(LINE), b""):
        text = line.decode(errors="replace")
        if text.startswith("{"):
            log.write(masked(text, secrets))
            log.flush()
        elif len(said) < MOST // LINE:
            said.append(text)


def secrets_of(module):
    """Return values of which no output shows what is secret."""
    params = module.params
    return [{"token": params["token"]}, params["endpoint"], params["environment"]]


def understood(module, repository, rc, out, err):
    """Return what fetch-models said of a repository; fail the module where it failed."""
    if rc != 0:
        lines = [line.removeprefix("fetch-models: ") for line in err.splitlines() if line.startswith("fetch-models: ")]
        hints = {
            "repositories": named(module, "repositories"),
            "endpoint": named(module, "endpoint"),
            "models_dir": named(module, "models_dir"),
            "token": named(module, "token"),
        }
        instead = repository["replaced_by"] if rc == os.EX_NOINPUT else ""
        module.fail_json(
            msg=f"{repository['hub']} ({named(module, 'repositories')}) could not be fetched: "
            f"{' '.join(lines) or err.strip() or f'exit status {rc}'} {WORDS.get(rc, '').format(**hints)}".rstrip()
            + (f" On the public hub {instead} replaces it." if instead else "")
            + " No instance was touched."
        )
    return foreign.parse_json(out, dict)


def hand_over(module, needed):
    """Write what may be secret to a file in memory that only root reads, if it is needed; return what names it.

    A file that an earlier play left is removed.
    """
    path = os.path.join(MEMORY, "iopaint-hub-models.json")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    if not needed:
        return {}
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as stream:
        json.dump({key: module.params[key] for key in ("token", "endpoint", "environment")}, stream)
    return {"handed_over": path}


def take_over(module):
    """Read the file of hand_over into the module's parameters, and remove it."""
    path = module.params["handed_over"]
    try:
        module.params.update(foreign.parse_json(foreign.read_text(path), dict))
        os.unlink(path)
    except (OSError, ValueError) as error:
        module.fail_json(msg=f"{path} can't be used: {error}. Run the play again. No instance was touched.")
    if module.params["token"]:
        module.no_log_values.add(module.params["token"])


def fetch_all(module, docker):
    """Fetch all repositories; return what fetch-models says of each."""
    with open(module.params["log"], "a", encoding="utf-8") as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        log.truncate(0)
        return [fetch(module, docker, each, log) for each in module.params["repositories"]]


def main():
    """Run the module."""
    repository = {
        "hub": {"type": "str", "required": True},
        "revision": {"type": "str", "default": "main"},
        "files": {"type": "list", "elements": "str", "default": []},
        "variant": {"type": "str", "default": ""},
        "replaced_by": {"type": "str", "default": ""},
    }
    module = QuietModule(
        argument_spec={
            "fetch": {"type": "bool", "default": True},
            "timeout": {"type": "int", "default": 43200},
            "log": {"type": "path", "required": True},
            "handed_over": {"type": "path"},
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
    params = module.params
    if params["handed_over"]:
        take_over(module)
    keep_secret(module, [params["endpoint"], params["environment"]])
    docker = Docker(module)
    if module.check_mode and docker.image(params["image"]) is None:
        module.exit_json(changed=True, skipped=True, repositories=[], msg=f"{params['image']} is still to be built.")
    start = time.monotonic()
    dry = module.check_mode or not params["fetch"]
    done = [look(module, docker, each) for each in params["repositories"]] if dry else fetch_all(module, docker)
    kept = ("repository", "revision", "changed", "bytes", "missing_bytes")
    found = [{key: each.get(key) for key in kept} for each in done]
    result = {"repositories": found, "seconds": 0.0 if dry else round(time.monotonic() - start, 1)}
    changed = any(each["changed"] for each in found)
    if params["fetch"]:
        module.exit_json(changed=changed, **result)
    over = {} if module.check_mode else hand_over(module, changed)
    module.exit_json(changed=False, needed=changed, **over, **result)


if __name__ == "__main__":
    main()
