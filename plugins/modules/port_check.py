#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: can the host publish the ports that instances want."""

from __future__ import annotations

DOCUMENTATION = r"""
module: port_check
short_description: Check that the host can publish ports
version_added: 1.0.0
description:
  - Tries to bind each port. A port that is taken is accepted where instances of this collection alone hold it, since the switch
    to a new release stops what it takes the port of.
  - An address that the host doesn't have is an error where the Docker engine runs. Before that, it may be one of Docker's own
    networks.
options:
  ports:
    description: What is wanted.
    type: list
    elements: dict
    required: true
    suboptions:
      address:
        description: Address to bind, an IPv6 one without brackets.
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
  dir:
    description: Folder that holds one folder for each instance; containers that compose started from there are this collection's.
    type: path
    required: true
extends_documentation_fragment: iopaint.fleet.names
attributes:
  check_mode:
    support: full
    description: Changes nothing.
author: iopaint.fleet contributors (@iopaint)
"""

EXAMPLES = r"""
- name: Check that the ports are free
  iopaint.fleet.port_check:
    ports:
      - {address: 127.0.0.1, port: 8080, project: iopaint-cpu}
    dir: /opt/iopaint/instances
"""

RETURN = r"""
taken:
  description: The ports that somebody else holds, with their addresses; none on success.
  type: list
  elements: str
  returned: always
absent:
  description: The addresses that the host doesn't have; none on success.
  type: list
  elements: str
  returned: always
"""

import errno
import ipaddress
import socket
import struct

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.iopaint.fleet.plugins.module_utils import containers, network
from ansible_collections.iopaint.fleet.plugins.module_utils.docker_cli import Docker
from ansible_collections.iopaint.fleet.plugins.module_utils.names import named

NO_ADDRESS = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
LISTENS = "0A"  # a state of /proc/net/tcp


def bind_error(address, port):
    """Return the errno with which the kernel refuses address:port to the engine, or None."""
    is_six = ":" in address
    try:
        with socket.socket(socket.AF_INET6 if is_six else socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if is_six:  # as the engine does
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            probe.bind((address, port))
    except OSError as error:
        return error.errno
    except (ValueError, TypeError):  # no address at all, which compose refuses
        return None
    return None


def listeners(version):
    """Return the pairs of address and TCP port on which a process of the host listens. version: 4 or 6."""
    try:
        with open("/proc/net/tcp6" if version == 6 else "/proc/net/tcp", encoding="ascii") as stream:
            rows = [line.split() for line in stream.readlines()[1:]]
    except FileNotFoundError:  # no IPv6
        return []
    local = [row[1].split(":") for row in rows if row[3] == LISTENS]
    return [(from_kernel(address), int(port, 16)) for address, port in local]


def from_kernel(text):
    """Return an address as text; the kernel writes words of 32 bits in the order of the machine."""
    words = [int(text[start : start + 8], 16) for start in range(0, len(text), 8)]
    packed = struct.pack(f"={len(words)}I", *words)
    return str(ipaddress.ip_address(packed))


class Host:
    """Who publishes and listens on the host."""

    def __init__(self, module):
        """Ask the engine, where there is one."""
        self.top = module.params["dir"]
        docker = Docker(module) if module.get_bin_path("docker") else None
        rc, out, _err = docker.run("info", "--format", "{{.ServerVersion}}") if docker else (1, "", "")
        self.has_engine = rc == 0 and bool(out.strip())  # older clients exit 0 without an engine
        self.running = containers.documents(docker) if self.has_engine else []

    def holder(self, want):
        """Return who holds a port that is taken: a container's name, "" for another process, None for instances of ours alone."""
        wanted = (want["address"], want["port"])
        found = [each for each in self.running if any(network.overlap(wanted, pair) for pair in containers.published(each))]
        strangers = [each["Name"].lstrip("/") for each in found if not self.is_ours(each, want["project"])]
        if strangers:
            return strangers[0]
        engines = [pair for each in found for pair in containers.published(each)]
        version = ipaddress.ip_address(want["address"]).version
        others = [pair for pair in listeners(version) if network.overlap(wanted, pair) and pair not in engines]
        return None if found and not others else ""

    def is_ours(self, container, project):
        """Return whether a container is stopped when a release of the project is switched to."""
        labels = (container.get("Config") or {}).get("Labels") or {}
        return labels.get(containers.PROJECT) == project or containers.instance_of(container, self.top) is not None


def explain(module, holder, ports):
    """Return the error that ports (a list in words) are taken: by the container of that name, or without one by a process."""
    if holder:
        said = f"Taken by the container {holder}: {ports}. Stop it (`docker stop {holder}` on the host)"
    else:
        said = f"Taken by another process: {ports}. `ss -ltnp` on the host names it; stop it"
    return f"{said}, or choose another port in {named(module, 'ports')}."


def explain_absent(module, addresses):
    """Return the error that the host lacks addresses."""
    return (
        f"The host has no address {', '.join(addresses)}, which {named(module, 'ports[].address')} "
        "asks for. `ip -brief address` on the host lists what it has; choose one of these, or add the address."
    )


def main():
    """Run the module."""
    spec = {
        "address": {"type": "str", "required": True},
        "port": {"type": "int", "required": True},
        "project": {"type": "str", "required": True},
    }
    module = AnsibleModule(
        argument_spec={
            "ports": {"type": "list", "elements": "dict", "required": True, "options": spec},
            "dir": {"type": "path", "required": True},
            "names": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    for want in module.params["ports"]:
        if not 1 <= want["port"] <= 65535:
            module.fail_json(
                msg=f"{named(module, 'ports')}: port {want['port']} is not from 1 to 65535. Nothing was changed.", taken=[]
            )
    host = Host(module)
    taken, absent = {}, []  # what is taken, by the container that holds it ("": another process)
    for want in module.params["ports"]:
        error = bind_error(want["address"], want["port"])
        if error == errno.EADDRINUSE:
            holder = host.holder(want)
            if holder is not None:
                taken.setdefault(holder, []).append(network.shown(want["address"], want["port"]))
        elif error in NO_ADDRESS and host.has_engine:
            absent.append(want["address"])
    absent = list(dict.fromkeys(absent))
    if taken or absent:
        said = [explain(module, holder, ", ".join(names)) for holder, names in taken.items()]
        module.fail_json(
            taken=[name for names in taken.values() for name in names],
            absent=absent,
            msg=" ".join([*said, *([explain_absent(module, absent)] if absent else []), "Nothing that runs was touched."]),
        )
    module.exit_json(changed=False, taken=[], absent=[])


if __name__ == "__main__":
    main()
