#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: let a gateway serve from a candidate. community.general.haproxy sets no address."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gateway_candidate
short_description: Let a gateway serve from the candidate of an instance
version_added: 1.0.0
description:
  - A candidate is a new release of an instance that runs next to the current one on another port. The gateway's configuration
    has a server for it in each pool of the instance, out of service, with the same cookie.
  - Gives that server the instance's address and the candidate's port, and brings it into service once HAProxy's own health
    check has passed. The instance's users reach it as soon as the instance is taken out of service.
  - Does not fail where the candidate can't serve, for example behind a firewall. It is then out of service again.
options:
  server:
    description: Name of the instance's server, as C(gpu-01.example.com:gpu-0).
    type: str
    required: true
  port:
    description: Port on which the candidate is published.
    type: int
    required: true
  socket:
    description: HAProxy's runtime interface.
    type: path
    default: /run/haproxy/admin.sock
  timeout:
    description: How long, in seconds, the health check may take to pass.
    type: int
    default: 10
attributes:
  check_mode:
    support: none
    description: It is skipped, as nothing that it would show is there before the candidate is in service.
author: iopaint.fleet contributors (@iopaint)
"""

EXAMPLES = r"""
- name: Serve from the candidate
  iopaint.fleet.gateway_candidate:
    server: gpu-01.example.com:gpu-0
    port: 49153
"""

RETURN = r"""
serving:
  description: Whether the gateway serves from the candidate in every pool of the instance.
  type: bool
  returned: always
pools:
  description: The pools of the instance.
  type: list
  elements: str
  returned: always
reason:
  description: Why the gateway does not serve from the candidate.
  type: str
  returned: where it does not
"""

import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.iopaint.fleet.plugins.module_utils import foreign, haproxy

ANSWER = 20  # seconds that HAProxy may take for one


class Candidate:
    """The servers of a candidate at one gateway."""

    def __init__(self, params):
        """Take the parameters of the module."""
        self.params = params
        self.name = params["server"] + haproxy.CANDIDATE

    def ask(self, command):
        """Return the answer of HAProxy's runtime interface."""
        return haproxy.ask(self.params["socket"], command, seconds=ANSWER, limit=8 * foreign.MIB)

    def rows(self, name):
        """Return the statistics of a server, by pool."""
        return {row["pxname"]: row for row in haproxy.rows(self.ask("show stat")) if row["svname"] == name}

    def send(self, pool, *words):
        """Give a command about the candidate's server of a pool; return HAProxy's words."""
        return self.ask(" ".join(["set server", f"{pool}/{self.name}", *words])).strip()

    def serve(self, pools):
        """Bring the candidate into service; return why it does not serve, or an empty text."""
        for pool, row in pools.items():
            address = row.get("addr", "").rpartition(":")[0].strip("[]")
            if not address:
                return f"HAProxy shows no address of {self.params['server']}"
            port = str(self.params["port"])
            words = self.send(pool, "addr", address, "port", port)
            self.ask(f"set server _pages_{pool}/{self.name}:page addr {address} port {port}")
            if not self.rows(self.name)[pool].get("addr", "").endswith(f":{port}"):
                return f"HAProxy did not take its address: {words}"
            # Drained until it is down, as a server that leaves maintenance is up without a check.
            for command in ("state drain", "health down", "state ready"):
                self.send(pool, command)
        return self.checked()

    def checked(self):
        """Wait until the health checks have passed; return what the last one found where one has not, or an empty text."""
        until = time.monotonic() + self.params["timeout"]
        while True:
            found = [haproxy.server(row) for row in self.rows(self.name).values()]
            waiting = [one for one in found if one["state"] != "up"]
            if not waiting:
                return ""
            if time.monotonic() > until:
                return f"its health check found: {waiting[0]['check'] or 'nothing yet'}"
            time.sleep(0.2)

    def end(self, pools):
        """Take the candidate out of service."""
        for pool in pools:
            self.send(pool, "state maint")


def main():
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "server": {"type": "str", "required": True},
            "port": {"type": "int", "required": True},
            "socket": {"type": "path", "default": "/run/haproxy/admin.sock"},
            "timeout": {"type": "int", "default": 10},
        },
    )
    candidate = Candidate(module.params)
    try:
        pools = candidate.rows(module.params["server"])
        lacking = sorted(set(pools) - set(candidate.rows(candidate.name)))
        if not pools:
            reason = f"it has no server {module.params['server']}"
        elif lacking:
            reason = f"its configuration has no server for a candidate in {', '.join(lacking)}; iopaint.fleet.gateway adds it"
        else:
            reason = candidate.serve(pools)
            if reason:
                candidate.end(pools)
    except (foreign.ForeignError, OSError) as error:
        module.fail_json(msg=f"HAProxy at {module.params['socket']} did not answer as it should: {error}")
    result = {"serving": not reason, "pools": sorted(pools)}
    module.exit_json(changed=not reason, **result, **({"reason": reason} if reason else {}))


if __name__ == "__main__":
    main()
