#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: are the ports that instances want free, or theirs already."""

from __future__ import annotations

DOCUMENTATION = r"""
module: port_check
short_description: Fails where a port is taken by something else than the compose project that wants it
version_added: 0.1.0
description:
  - Tries to bind each port; one that is taken is accepted where a container of the same compose project publishes it.
options:
  ports:
    description: What is wanted.
    type: list
    elements: dict
    required: true
    suboptions:
      address:
        description: Address to bind.
        type: str
        required: true
      port:
        description: TCP port.
        type: int
        required: true
      project:
        description: Compose project that will publish it.
        type: str
        required: true
attributes:
  check_mode:
    support: full
    description: Changes nothing.
author: iopaint.fleet contributors (@iopaint)
"""

EXAMPLES = r"""
- name: See that the ports are free
  iopaint.fleet.port_check:
    ports:
      - {address: 127.0.0.1, port: 8080, project: iopaint-cpu}
"""

RETURN = r"""
taken:
  description: The ports that somebody else holds; none on success.
  type: list
  elements: str
  returned: always
"""

import errno
import socket

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.iopaint.fleet.plugins.module_utils import containers


def is_free(address, port):
    """Tell whether nobody holds address:port. Where that can't be seen (no such address, no privilege) the answer is True."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            return error.errno != errno.EADDRINUSE
    return True


def publishes(module, project, port):
    """Tell whether a container of the compose project publishes the port."""
    docker = module.get_bin_path("docker")
    if not docker:
        return False
    label = f"label={containers.PROJECT}={project}"
    rc, out, _dummy = module.run_command([docker, "ps", "-q", "--filter", label, "--filter", f"publish={port}"])
    return rc == 0 and bool(out.strip())


def main():
    """Run the module."""
    spec = {
        "address": {"type": "str", "required": True},
        "port": {"type": "int", "required": True},
        "project": {"type": "str", "required": True},
    }
    module = AnsibleModule(
        argument_spec={"ports": {"type": "list", "elements": "dict", "required": True, "options": spec}},
        supports_check_mode=True,
    )
    taken = [
        f"{want['address']}:{want['port']}"
        for want in module.params["ports"]
        if not is_free(want["address"], want["port"]) and not publishes(module, want["project"], want["port"])
    ]
    if taken:
        module.fail_json(
            taken=taken,
            msg=f"Taken by another process: {', '.join(taken)}. `ss -ltnp` on the host names it; stop it, or choose another "
            "port in iopaint_instances.",
        )
    module.exit_json(changed=False, taken=[])


if __name__ == "__main__":
    main()
