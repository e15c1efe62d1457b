#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: are the ports that instances want free, or theirs already."""

from __future__ import annotations

DOCUMENTATION = r"""
module: port_check
short_description: Fails where a port is taken by something else than the compose project that wants it
version_added: 1.0.0
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
  description: The ports that somebody else holds, with their addresses; none on success.
  type: list
  elements: str
  returned: always
"""

import errno
import socket

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.iopaint.fleet.plugins.module_utils import containers


def is_free(address, port):
    """Return whether nobody holds address:port. Where that can't be seen (no such address, no privilege) the answer is True."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            return error.errno != errno.EADDRINUSE
        except (ValueError, TypeError):  # no address at all, which compose refuses
            return True
    return True


def publishers(module, port):
    """Return the containers that publish the port, as (name, compose project); none where there is no engine to ask."""
    docker = module.get_bin_path("docker")
    if not docker:
        return []
    form = '{{.Names}}\t{{.Label "' + containers.PROJECT + '"}}'
    rc, out, _dummy = module.run_command([docker, "ps", "--filter", f"publish={port}", "--format", form])
    return [tuple(line.split("\t", 1)) for line in out.splitlines()] if rc == 0 else []


def explain(holder, ports):
    """Say who holds ports (a list in words): the container of that name, or with an empty name another process."""
    if holder:
        said = f"Taken by the container {holder}: {ports}. Stop it (`docker stop {holder}` on the host)"
    else:
        said = f"Taken by another process: {ports}. `ss -ltnp` on the host names it; stop it"
    return f"{said}, or choose another port in iopaint_instances."


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
    for want in module.params["ports"]:
        if not 1 <= want["port"] <= 65535:
            module.fail_json(msg=f"iopaint_instances: port {want['port']} is not from 1 to 65535. Nothing was changed.", taken=[])
    taken = {}  # what is taken, by the container that holds it ("": another process)
    for want in module.params["ports"]:
        if is_free(want["address"], want["port"]):
            continue
        found = publishers(module, want["port"])
        if want["project"] not in [project for _name, project in found]:
            taken.setdefault(found[0][0] if found else "", []).append(f"{want['address']}:{want['port']}")
    if taken:
        module.fail_json(
            taken=[name for names in taken.values() for name in names],
            msg=" ".join(explain(holder, ", ".join(names)) for holder, names in taken.items()),
        )
    module.exit_json(changed=False, taken=[])


if __name__ == "__main__":
    main()
