#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: the lock of a host, which one play holds at a time. Its part on the control node is plugins/action/lock.py."""

from __future__ import annotations

DOCUMENTATION = r"""
module: lock
short_description: Take and free the lock of a host, so that two plays never change it at once
version_added: 1.0.0
description:
  - The lock is a file that says who holds it (operator, control node, play, since when). Of two plays that ask at the same
    moment one gets it.
  - A lock whose play was killed is taken over, and a warning says so. That the play is over is known only on the same
    control node, since its last boot and in the same namespace of processes. A container is another namespace, so AWX and
    CI, which start one for each play, never know it.
  - Any other lock that is held fails the module once O(wait) is over. The message has its holder and how to take it over.
options:
  state:
    description:
      - V(present) takes the lock, V(absent) frees it where this play holds it.
      - V(checked) changes nothing, and fails where another play holds it, unless that play is known to be over.
    type: str
    choices: [present, absent, checked]
    default: present
  path:
    description: The file on the host. Below C(/run) it is gone after a reboot, as is every play that ran then.
    type: path
    default: /run/iopaint/lock
  wait:
    description: Seconds to wait for another play to free it.
    type: int
    default: 0
  play:
    description: What the play does, for whoever finds the lock.
    type: str
    default: ""
  release:
    description: What it is about to make current, for whoever finds the lock.
    type: str
    default: ""
  force:
    description: With O(state=absent), free it whoever holds it.
    type: bool
    default: false
  look_for:
    description:
      - Files that a killed play may have left, and that the next one has to see to. RV(found) has those that are there once the
        lock is held.
    type: list
    elements: path
    default: []
  audit:
    description: The audit log on the host; it takes a line where a lock is taken over or freed by force.
    type: path
    default: /var/log/iopaint/audit.log
  owner:
    description: Who asks. The action plugin sets it.
    type: dict
  take_over:
    description:
      - Token of a lock that the operator knows to be nobody's any more, as the message about it has it. It is taken over.
      - All locks that one run left behind have the same token. A lock of another token stays.
    type: str
    default: ""
  over:
    description: Token of a lock whose play is known to be over. The action plugin sets it.
    type: str
    default: ""
extends_documentation_fragment: iopaint.fleet.names
attributes:
  check_mode:
    support: full
    description: Takes and frees nothing, and fails where it would have to wait longer than O(wait).
notes:
  - Taking and freeing are no change of the host's state (C(changed) is false), except with O(force).
author: iopaint.fleet contributors (@iopaint)
"""

EXAMPLES = r"""
- name: This play alone changes the host
  iopaint.fleet.lock:
    play: upgrade
    wait: 60

- name: Take over the lock of a play that was killed in a container that is gone
  iopaint.fleet.lock:
    play: upgrade
    take_over: 5f0c3e9a7b1d2846

- name: Remove a lock that nobody will release any more
  iopaint.fleet.lock:
    state: absent
    force: true
"""

RETURN = r"""
owner:
  description: Operator, control node and process of this play, as the lock has them.
  type: dict
  returned: always
holder:
  description: What the lock that was found says.
  type: dict
  returned: where one was found
found:
  description: Which of O(look_for) are there.
  type: list
  elements: str
  returned: with O(state=present)
taken_over:
  description: Whether the lock of another play was taken over.
  type: bool
  returned: with O(state=present)
"""

import os
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.iopaint.fleet.plugins.module_utils import audit, lock
from ansible_collections.iopaint.fleet.plugins.module_utils.names import named

OVER = "its play is over"
ASKED_FOR = "the operator asked for it"


def explain(module, holder):
    """Return the error that another play holds the lock: who holds it, since when, and what to do."""
    path, wait = module.params["path"], module.params["wait"]
    release = f", release {holder['release']}" if holder.get("release") else ""
    waited = f" after {wait} s ({named(module, 'wait')})" if wait else ""
    who = f"{holder.get('play') or 'a play'} by {holder.get('operator')} on {holder.get('controller')}"
    return (
        f"Another play holds the lock {path} of this host{waited}: {who} (process {holder.get('pid', 'unknown')}){release}, "
        f"since {holder.get('time', 'unknown')}. Wait for it, or raise {named(module, 'wait')}. If that play is over (its "
        "control node or its container is gone, or its process is), take the lock over with "
        f"{named(module, 'take_over')}={holder['token']}, or remove it: "
        f"ansible HOST -b -m iopaint.fleet.lock -a 'state=absent force=true path={path}'. "
        "Nothing was changed by this play."
    )


def acquire(module, path, owner):
    """Take the lock, waiting as long as is allowed; return who still holds it, then who held it before and why that is over.

    Each of them is None where there is nobody.
    """
    params = module.params
    content = {
        **owner,
        "time": audit.now(),
        "play": params["play"],
        "release": params["release"],
    }
    reasons = {params["take_over"]: f"{ASKED_FOR} ({named(module, 'take_over')})", params["over"]: OVER}
    deadline = time.monotonic() + params["wait"]
    stale, reason = None, None
    while True:
        holder = lock.read(path)
        if holder and holder["token"] == owner["token"]:
            if params["release"] and params["release"] != holder.get("release") and not module.check_mode:
                lock.replace(path, owner["token"], {**holder, "release": params["release"]})
            return None, stale, reason
        if holder and holder["token"] in reasons:
            if module.check_mode or params["state"] == "checked":
                return None, None, None
            step = lock.replace(path, holder["token"], content)
            if step:
                stale, reason = step, reasons[holder["token"]]
            continue  # somebody else may have been faster
        if holder is None and (module.check_mode or params["state"] == "checked" or lock.take(path, content)):
            return None, stale, reason
        if holder and time.monotonic() >= deadline:
            return holder, stale, reason
        time.sleep(0.5 if holder else 0)


def main():
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["present", "absent", "checked"], "default": "present"},
            "path": {"type": "path", "default": lock.PATH},
            "wait": {"type": "int", "default": 0},
            "play": {"type": "str", "default": ""},
            "release": {"type": "str", "default": ""},
            "look_for": {"type": "list", "elements": "path", "default": []},
            "force": {"type": "bool", "default": False},
            "audit": {"type": "path", "default": audit.LOG},
            "owner": {"type": "dict"},
            "take_over": {"type": "str", "default": "", "no_log": False},
            "over": {"type": "str", "default": "", "no_log": False},
            "names": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    params = module.params
    path, owner = params["path"], params["owner"]
    if not owner or not owner.get("token"):
        module.fail_json(msg="owner is not set: this module is called by its action plugin.")
    try:
        if params["state"] == "absent":
            holder = lock.read(path)
            token = holder["token"] if holder and params["force"] else owner["token"]
            there = bool(holder and holder["token"] == token)
            if there and not module.check_mode and lock.free(path, token) and params["force"]:
                audit.append(params["audit"], "lock freed by force", owner, holder=holder)
            module.exit_json(changed=there and params["force"], owner=owner, **({"holder": holder} if holder else {}))
        holder, stale, reason = acquire(module, path, owner)
        if stale:
            audit.append(params["audit"], "lock taken over", owner, holder=stale, reason=reason)
    except OSError as error:
        module.fail_json(msg=f"The lock {path} could not be read or made: {error}. Nothing was changed.", owner=owner)
    if holder:
        module.fail_json(msg=explain(module, holder), holder=holder, owner=owner)
    if stale:
        who = f"{stale.get('play') or 'a play'} of {stale.get('operator')} on {stale.get('controller')}"
        module.warn(f"The lock was held by {who} since {stale.get('time', 'unknown')}. It was taken over, as {reason}.")
    found = [each for each in params["look_for"] if os.path.lexists(each)]
    module.exit_json(changed=False, owner=owner, found=found, taken_over=bool(stale), **({"holder": stale} if stale else {}))


if __name__ == "__main__":
    main()
