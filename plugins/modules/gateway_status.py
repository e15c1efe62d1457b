#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: what a gateway says of its pools. Its part on the control node is plugins/action/gateway_status.py."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gateway_status
short_description: Gather the state of a gateway's pools, requests and certificate, in one round trip
version_added: 1.0.0
description:
  - Asks HAProxy by its runtime interface. C(show stat) gives the statistics of its page, and C(show ssl cert) the certificate
    that it has loaded.
  - Counts the requests of the last hour in the journal.
  - Changes nothing. A host that can't be reached or looked at does not fail the task; RV(state) reports it.
options:
  socket:
    description: HAProxy's runtime interface.
    type: path
    default: /run/haproxy/admin.sock
  certificate:
    description: File of the certificate, as HAProxy's configuration names it.
    type: path
    default: /etc/iopaint-gateway/tls/server.pem
  pools:
    description:
      - The pools that the gateway is to have, each with the host name by which users reach it. One that is missing is reported.
      - A request that the gateway refuses counts for the pool of its host name.
    type: dict
    default: {}
  hold:
    description: How long, in seconds, a request waits while no instance of its pool serves.
    type: int
    default: 120
  most:
    description:
      - How many lines of the journal are read, the newest first, and 8 MiB of them at most.
      - If the last hour has more, RV(seconds) says which time was counted.
    type: int
    default: 20000
  timeout:
    description: How long, in seconds, HAProxy and the journal may each take to answer.
    type: int
    default: 20
attributes:
  check_mode:
    support: full
    description: Changes nothing, in check mode or not.
author: iopaint.fleet contributors (@iopaint)
"""

EXAMPLES = r"""
- name: Gather the state of the gateway
  iopaint.fleet.gateway_status:
    pools:
      paint: paint.example.com
  register: gateway_status
"""

RETURN = r"""
state:
  description: V(ok), V(unreachable), or V(failed) where the host answers and can't be looked at.
  type: str
  returned: always
reason:
  description: Why it could not be reached or looked at.
  type: str
  returned: where it could not
time:
  description: The host's own time.
  type: str
  returned: with RV(state=ok)
haproxy:
  description: C(state) (V(running), V(not installed), V(not answering)), C(version), C(reason).
  type: dict
  returned: with RV(state=ok)
pools:
  description:
    - One entry a pool that HAProxy or O(pools) has, with C(name), C(state), C(since), C(queued), C(held), C(servers),
      C(requests), C(refused), C(failed), C(problems) and C(notes).
    - C(state) is V(serves), V(held) (no instance serves, and requests wait for one), V(down) (no instance has served for O(hold)
      seconds) or V(not deployed). C(since) has the seconds that it lasts.
    - C(queued) requests wait for a place at an instance, C(held) ones for any instance.
    - C(servers) are the instances, with C(name), C(state), C(status) (HAProxy's own word), C(check) (what the last health check
      found), C(serving) (requests that it answers now) and C(since). C(state) is V(up), V(draining), V(out of service) or
      V(down).
    - An instance may have a second server, whose name ends in C(:candidate). It is a new release that serves while the instance
      is switched. One that is out of service is left out.
    - C(refused) are answers from 400 to 499 that the gateway itself gave, C(failed) those from 500 on, whoever gave them. They
      and C(requests) are null where the journal could not be read.
  type: list
  elements: dict
  returned: with RV(state=ok)
elsewhere:
  description: C(requests), C(refused) and C(failed) of requests for no pool, such as for another host name.
  type: dict
  returned: with RV(state=ok)
seconds:
  description: The time whose requests were counted; null where the journal could not be read.
  type: int
  returned: with RV(state=ok)
journal:
  description: Why the journal could not be read; null where it was.
  type: str
  returned: with RV(state=ok)
certificate:
  description: C(from) and C(until), the times between which the certificate is valid, and C(reason) where they are not known.
  type: dict
  returned: with RV(state=ok)
"""

import os
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.iopaint.fleet.plugins.module_utils import audit, foreign, haproxy
from ansible_collections.iopaint.fleet.plugins.module_utils.commands import run

LIMIT = 8 * foreign.MIB  # of the statistics, and of the journal's lines
NOT_COUNTED = dict.fromkeys(haproxy.COUNTED)
NO_JOURNAL = "No journal files were"  # found, or opened
UNKNOWN = {"from": None, "until": None}


class Look:
    """One look at the gateway."""

    def __init__(self, module):
        """Take the module that runs."""
        self.module, self.params = module, module.params

    def asked(self, command):
        """Return the answer of HAProxy's runtime interface."""
        return haproxy.ask(self.params["socket"], command, seconds=self.params["timeout"], limit=LIMIT)

    def haproxy(self):
        """Return what HAProxy says of itself, and its pools."""
        try:
            found = haproxy.pools(self.asked("show stat"), self.params["hold"])
            return {"state": "running", "version": haproxy.version(self.asked("show info")), "reason": None}, found
        except foreign.ForeignError as error:
            reason = f"What it says at {self.params['socket']} can't be read: {error}."
        except OSError as error:
            reason = f"{self.params['socket']}: {error.strerror or error}."
        if not self.module.get_bin_path("haproxy") and not os.path.exists(self.params["socket"]):
            reason = "There is no haproxy command on the host; iopaint.fleet.gateway installs it."
            return {"state": "not installed", "version": None, "reason": reason}, []
        service = self.service()
        more = f" Its service is {service}; `journalctl -u haproxy -n 20` on the host says why." if service else ""
        return {"state": "not answering", "version": None, "reason": reason + more}, []

    def service(self):
        """Return systemd's word for the state of HAProxy's service, an empty text where there is none."""
        systemctl = self.module.get_bin_path("systemctl")
        return run([systemctl, "is-active", "haproxy"], self.params["timeout"])[1].strip() if systemctl else ""

    def certificate(self):
        """Return between which times the certificate is valid with which HAProxy serves."""
        try:
            return {**haproxy.certificate(self.asked(f"show ssl cert {self.params['certificate']}")), "reason": None}
        except (foreign.ForeignError, OSError) as error:
            return {**UNKNOWN, "reason": str(error)}

    def requests(self, names):
        """Return requests by pool (None: not known), of how many seconds they are, and why they are not known."""
        journalctl = self.module.get_bin_path("journalctl")
        if not journalctl:
            return None, None, "There is no journalctl command on the host."
        words = [f"--identifier={haproxy.LOG_TAG}", "--output=cat", "--reverse", f"--lines={self.params['most']}", "--since=-1h"]
        rc, out, err = run([journalctl, "--no-pager", *words], self.params["timeout"], enough=LIMIT)
        if rc == 0 and not out:  # with this output, no word of it where there is no journal
            rc, _out, err = run([journalctl, "--no-pager", "--lines=1"], self.params["timeout"])
        if rc != 0 or NO_JOURNAL in err:
            return None, None, f"The journal can't be read: {err.strip() or rc}"
        counts, oldest = haproxy.count(out, {str(host).lower(): str(name) for name, host in self.params["pools"].items()}, names)
        whole = len(out) < LIMIT and out.count("\n") < self.params["most"]
        passed = 0 if oldest is None else time.time() - oldest
        return counts, haproxy.HOUR if whole else int(max(0, min(passed, haproxy.HOUR))), None

    def pool(self, pool):
        """Return a pool with what is wrong with it, and what is odd."""
        problems, notes = [], []
        if pool["state"] == "down":
            problems.append(f"None of its instances has served for {pool['since']} s, so requests fail.")
        if pool["state"] == "held":
            notes.append("None of its instances serves. Requests wait for one.")
        for one in pool["servers"]:
            back = f'echo "set server {pool["name"]}/{one["name"]} state ready" | socat - {self.params["socket"]}'
            if one["name"].endswith(haproxy.CANDIDATE):
                instance = one["name"][: -len(haproxy.CANDIDATE)]
                notes.append(
                    f"{one['name']}, a new release of {instance}, is {one['state']}. If no play is at work on {instance}, "
                    f"bring that back, then take this out: {back.replace('state ready', 'state maint')}"
                )
            elif one["state"] == "down":
                notes.append(f"{one['name']} is down" + (f": {one['check']}." if one["check"] else "."))
            elif one["state"] != "up":
                notes.append(f"{one['name']} is {one['state']}. If no play is at work on it, this brings it back: {back}")
        return {**pool, "problems": problems, "notes": notes}

    def missing(self, found):
        """Return the pools that the gateway is to have and has not."""
        nothing = {"since": None, "queued": 0, "held": 0, "servers": [], "notes": []}
        problem = "It is in the inventory, and the gateway does not have it; iopaint.fleet.gateway adds it."
        names = [name for name in map(str, self.params["pools"]) if name not in {pool["name"] for pool in found}]
        return [{"name": name, "state": "not deployed", **nothing, "problems": [problem]} for name in names]

    def all(self):
        """Return all that is known of the gateway."""
        own, found = self.haproxy()
        running = own["state"] == "running"
        found = [*map(self.pool, found), *(self.missing(found) if running else [])]
        counts, seconds, journal = self.requests([pool["name"] for pool in found])
        return {
            "haproxy": own,
            "pools": [{**pool, **(counts[pool["name"]] if counts else NOT_COUNTED)} for pool in found],
            "elsewhere": counts[""] if counts else NOT_COUNTED,
            "seconds": seconds,
            "journal": journal,
            "certificate": self.certificate() if running else {**UNKNOWN, "reason": None},
        }


def main():
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "socket": {"type": "path", "default": "/run/haproxy/admin.sock"},
            "certificate": {"type": "path", "default": "/etc/iopaint-gateway/tls/server.pem"},
            "pools": {"type": "dict", "default": {}},
            "hold": {"type": "int", "default": 120},
            "most": {"type": "int", "default": 20000},
            "timeout": {"type": "int", "default": 20},
        },
        supports_check_mode=True,
    )
    module.exit_json(changed=False, state="ok", time=audit.now(), **Look(module).all())


if __name__ == "__main__":
    main()
