#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: which user of the host a container's user is."""

from __future__ import annotations

DOCUMENTATION = r"""
module: container_user
short_description: Return which user of the host a container's user is
version_added: 1.0.0
description:
  - An engine with C(userns-remap) maps the users of containers to others of the host. What a container is to read and write
    belongs to the mapped user there. Without C(userns-remap), or without an engine, the numbers are the same.
  - The engine names its mapping in its data root, as in C(/var/lib/docker/100000.100000).
options:
  user:
    description: Number of the user and of its group in the container.
    type: int
    required: true
  subuid:
    description: The host's ranges of subordinate users.
    type: path
    default: /etc/subuid
  subgid:
    description: The host's ranges of subordinate groups.
    type: path
    default: /etc/subgid
attributes:
  check_mode:
    support: full
    description: Changes nothing.
author: iopaint.fleet contributors (@iopaint)
"""

EXAMPLES = r"""
- name: Look up which user of the host the image's user is
  iopaint.fleet.container_user:
    user: 10001
  register: image_user
"""

RETURN = r"""
id:
  description: Number of the user and of its group on the host.
  type: int
  returned: success
  sample: 110001
remapped:
  description: Whether the engine maps users (C(userns-remap)).
  type: bool
  returned: success
"""

import json
import re

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.iopaint.fleet.plugins.module_utils.docker_cli import Docker


def mapping(info):
    """Return the first user and the first group of the host that the engine maps to, None where it maps none."""
    options = info.get("SecurityOptions") or []
    if not any("name=userns" in option.split(",") for option in options):
        return None
    found = re.search(r"/(\d+)\.(\d+)/?$", info.get("DockerRootDir") or "")
    return (int(found[1]), int(found[2])) if found else None


def sizes(path, first):
    """Return the sizes of the ranges of subordinate IDs that begin with a number."""
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            rows = [line.strip().split(":") for line in stream]
    except FileNotFoundError:  # a directory service has them
        return []
    return [int(row[2]) for row in rows if len(row) == 3 and row[1] == str(first) and row[2].isdecimal()]


def main():
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "user": {"type": "int", "required": True},
            "subuid": {"type": "path", "default": "/etc/subuid"},
            "subgid": {"type": "path", "default": "/etc/subgid"},
        },
        supports_check_mode=True,
    )
    user, first = module.params["user"], None
    if module.get_bin_path("docker"):
        rc, out, _err = Docker(module).run("info", "--format", "{{json .}}")
        first = mapping(json.loads(out)) if rc == 0 and out.strip() else None
    if first is None:
        module.exit_json(changed=False, id=user, remapped=False)
    if first[0] != first[1]:
        module.fail_json(
            msg=f"The engine maps users from {first[0]} on and groups from {first[1]} on (userns-remap), and data folders have "
            "one number for both. Let the range of its user begin with the same number in /etc/subuid and /etc/subgid, and "
            "restart Docker. Nothing was changed."
        )
    known = sizes(module.params["subuid"], first[0]) + sizes(module.params["subgid"], first[1])
    if known and min(known) <= user:
        module.fail_json(
            msg=f"The engine maps {min(known)} users (userns-remap), and the image runs as user {user}. Give the engine's user a "
            "range of 65536 in /etc/subuid and /etc/subgid, and restart Docker. Nothing was changed."
        )
    module.exit_json(changed=False, id=first[0] + user, remapped=True)


if __name__ == "__main__":
    main()
