#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: does IOPaint know the options and models that instances ask for."""

from __future__ import annotations

DOCUMENTATION = r"""
module: options_check
short_description: Check the options of instances against IOPaint itself, before anything is started
version_added: 1.0.0
description:
  - Asks C(docker/image/entrypoint check) for each instance, which reads the options and models from IOPaint's own source.
  - The source is a tree on the host (O(source), before an image is built of it) or what an image holds (its key C(image)).
options:
  instances:
    description:
      - What to check, each with C(name) (for the message), C(environment) (options as C(IOPAINT_*) variables) and, where
        O(source) is not given, C(image). Other keys are passed over.
    type: list
    elements: dict
    required: true
  entrypoint:
    description: The program C(docker/image/entrypoint) on the host, with O(source).
    type: path
  source:
    description: Folder that holds C(iopaint/).
    type: path
  models:
    description: Folder of the models on the host; a name that is there is accepted as well.
    type: path
    required: true
extends_documentation_fragment: iopaint.fleet.names
attributes:
  check_mode:
    support: full
    description: Changes nothing. Where an image is still to be built the module is skipped.
author: iopaint.fleet contributors (@iopaint)
"""

EXAMPLES = r"""
- name: Check that the image knows the options
  iopaint.fleet.options_check:
    instances:
      - {name: cpu, image: "iopaint:cpu-latest", environment: {IOPAINT_MODEL: lama}}
    models: /var/lib/iopaint/models
"""

RETURN = r"""
problems:
  description: What is wrong, one sentence each.
  type: list
  elements: str
  returned: always
"""

import os
import secrets

from ansible_collections.iopaint.fleet.plugins.module_utils.commands import run
from ansible_collections.iopaint.fleet.plugins.module_utils.docker_cli import NO_RIGHTS, Docker
from ansible_collections.iopaint.fleet.plugins.module_utils.images import USER
from ansible_collections.iopaint.fleet.plugins.module_utils.names import named
from ansible_collections.iopaint.fleet.plugins.module_utils.network import keep_secret
from ansible_collections.iopaint.fleet.plugins.module_utils.quiet import QuietModule

WRONG_OPTIONS = os.EX_USAGE
PREFIX = "entrypoint: "
TIMEOUT = 300  # seconds for what an image does with its options, on a busy host
ENGINE_FAILED = 125  # docker's own: the container did not come up, which a busy host can do once


def ask_source(module, instance):
    """Run the entrypoint of the recipe over a source tree; return (rc, stderr)."""
    params = module.params
    environment = {"IOPAINT_MODEL_DIR": params["models"], **instance["environment"]}
    command = ["/usr/bin/python3", params["entrypoint"], "check", "--source", params["source"]]
    rc, _out, err = run(command, TIMEOUT, {name: str(value) for name, value in environment.items()})
    return rc, err


def ask_image(module, docker, instance):
    """Run the entrypoint of an image; return (rc, stderr), or None in check mode where the image is still to be built."""
    if docker.image(instance["image"]) is None:
        if module.check_mode:
            return None
        module.fail_json(
            msg=f"The image {instance['image']} of the instance {instance['name']} is not on the host. Build it first "
            f"(iopaint.fleet.build), or name another one in {named(module, 'images')}."
        )
    environment = {name: str(value) for name, value in instance["environment"].items()}
    variables = [word for name in environment for word in ("-e", name)]  # values may be secret: in no process list
    mount = ["-v", f"{module.params['models']}:/app/models:ro"] if os.path.isdir(module.params["models"]) else []
    for _attempt in range(3):
        name = f"iopaint-options-{secrets.token_hex(6)}"
        command = [
            "run",
            "--rm",
            f"--name={name}",
            *NO_RIGHTS,
            f"--user={USER}:{USER}",
            *mount,
            *variables,
            instance["image"],
            "check",
        ]
        rc, _out, err = run([docker.path, *command], TIMEOUT, environment)
        if rc != ENGINE_FAILED:
            break
    if rc < 0:  # docker was killed, and the container lives on
        docker.run("rm", "--force", name)
    return rc, err


def main():
    """Run the module."""
    module = QuietModule(
        argument_spec={
            "instances": {"type": "list", "elements": "dict", "required": True},
            "entrypoint": {"type": "path"},
            "source": {"type": "path"},
            "models": {"type": "path", "required": True},
            "names": {"type": "dict", "default": {}},
        },
        required_together=[("entrypoint", "source")],
        supports_check_mode=True,
    )
    keep_secret(module, module.params["instances"])
    keys = ["name", "environment"] + ([] if module.params["source"] else ["image"])
    for index, instance in enumerate(module.params["instances"]):
        missing = [key for key in keys if instance.get(key) is None]
        if missing:
            module.fail_json(
                msg=f"{named(module, 'instances')}[{index}] has no {' and no '.join(missing)}; name them.", problems=[]
            )
    docker = None if module.params["source"] else Docker(module)
    problems = []
    for instance in module.params["instances"]:
        answer = ask_source(module, instance) if docker is None else ask_image(module, docker, instance)
        if answer is None:
            module.exit_json(changed=False, skipped=True, problems=[], msg=f"{instance['image']} is still to be built.")
        rc, err = answer
        lines = [line[len(PREFIX) :] for line in err.splitlines() if line.startswith(PREFIX)]
        if rc == WRONG_OPTIONS:
            problems += [f"{instance['name']}: {line}" for line in lines]
        elif rc != 0:
            module.fail_json(
                msg=f"The options of {instance['name']} ({named(module, 'instances')}) could not be checked: {err.strip()} "
                "Nothing that runs was touched.",
                problems=problems,
            )
    if problems:
        module.fail_json(
            msg=f"{named(module, 'instances')} asks for what this IOPaint does not know; nothing that runs was touched.\n"
            + "\n".join(problems),
            problems=problems,
        )
    module.exit_json(changed=False, problems=[])


if __name__ == "__main__":
    main()
