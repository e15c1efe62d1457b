#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: the lock of a host, which one play holds at a time. Its part on the control node is plugins/action/lock.py."""

from __future__ import annotations

DOCUMENTATION = r"""
module: lock
short_description: Takes and frees the lock of a host, so that two plays never change it at once
version_added: 1.0.0
description:
  - The lock is a file that says who holds it (operator, control node, play, since when). It is made in one step, so of two
    plays that ask at the same moment one gets it.
  - A lock that a play on this very control node left behind, killed before it could free it, is taken over, and that is said.
  - Any other lock that is held fails the module once O(wait) is over, with its holder and the command that frees it.
options:
  state:
    description:
      - V(present) takes the lock, V(absent) frees it where this play holds it.
      - V(free) takes nothing, and fails where another play holds it.
    type: str
    choices: [present, absent, free]
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
  audit:
    description: The audit log on the host; it takes a line where a lock is taken over or freed by force.
    type: path
    default: /var/log/iopaint/audit.log
  owner:
    description: Who asks. The action plugin sets it.
    type: dict
  take_over:
    description: Token of a lock whose play is known to be over. The action plugin sets it.
    type: str
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

- name: A lock that nobody will free any more is gone
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
taken_over:
  description: Whether a lock was taken over from a play that is over.
  type: bool
  returned: with O(state=present)
"""

import json
import os
import tempfile
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.iopaint.fleet.plugins.module_utils import audit
from ansible_collections.iopaint.fleet.plugins.module_utils.files import make_folder, write
from ansible_collections.iopaint.fleet.plugins.module_utils.lock import PATH, read


def take(path, content):
    """Make the lock with its content in one step; return False where there is one."""
    make_folder(os.path.dirname(path))
    descriptor, candidate = tempfile.mkstemp(dir=os.path.dirname(path))
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        os.fchmod(descriptor, 0o644)
        json.dump(content, stream)
    try:
        os.link(candidate, path)
    except FileExistsError:
        return False
    finally:
        os.unlink(candidate)
    return True


def free(path, token):
    """Remove the lock of this token; return what it said, or None where it was not there."""
    holder = read(path)
    if holder is None or holder.get("token") != token:
        return None
    claimed = f"{path}.freed.{os.getpid()}"
    os.rename(path, claimed)  # of two that free the same lock one succeeds
    os.unlink(claimed)
    return holder


def explain(holder, path, wait):
    """Say who holds the lock and what can be done, for the person who is kept waiting."""
    release = f", release {holder['release']}" if holder.get("release") else ""
    waited = f" after {wait} s (iopaint_lock_wait)" if wait else ""
    who = f"{holder.get('play') or 'a play'} by {holder.get('operator')} on {holder.get('controller')}"
    return (
        f"Another play holds the lock {path} of this host{waited}: {who} (process {holder.get('pid', 'unknown')}){release}, "
        f"since {holder.get('time', 'unknown')}. Wait for it, or raise iopaint_lock_wait. If that play is over (its control "
        "node is gone, or the process is), free the lock: "
        f"ansible HOST -b -m iopaint.fleet.lock -a 'state=absent force=true path={path}'. Nothing was changed by this play."
    )


def acquire(module, path, owner):
    """Take the lock, waiting as long as is allowed; fail the module where it stays held."""
    params = module.params
    content = {
        **owner,
        "time": audit.now(),
        "play": params["play"],
        "release": params["release"],
    }
    deadline = time.monotonic() + params["wait"]
    taken_over = None
    while True:
        holder = read(path)
        if holder and holder.get("token") == owner["token"]:
            if params["release"] and params["release"] != holder.get("release") and not module.check_mode:
                write(path, json.dumps({**holder, "release": params["release"]}))
            return None, taken_over
        if holder and params["take_over"] and holder.get("token") == params["take_over"] and not module.check_mode:
            taken_over = free(path, params["take_over"]) or taken_over
            continue
        if holder is None and (module.check_mode or params["state"] == "free" or take(path, content)):
            return None, taken_over
        if holder and time.monotonic() >= deadline:
            return holder, taken_over
        time.sleep(0.5)


def main():
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["present", "absent", "free"], "default": "present"},
            "path": {"type": "path", "default": PATH},
            "wait": {"type": "int", "default": 0},
            "play": {"type": "str", "default": ""},
            "release": {"type": "str", "default": ""},
            "force": {"type": "bool", "default": False},
            "audit": {"type": "path", "default": audit.LOG},
            "owner": {"type": "dict"},
            "take_over": {"type": "str", "no_log": False},
        },
        supports_check_mode=True,
    )
    params = module.params
    path, owner = params["path"], params["owner"]
    if not owner or not owner.get("token"):
        module.fail_json(msg="owner is not set: this module is called by its action plugin.")
    try:
        if params["state"] == "absent":
            holder = read(path)
            token = holder.get("token") if holder and params["force"] else owner["token"]
            there = bool(holder and holder.get("token") == token)
            if there and not module.check_mode:
                free(path, token)
                if params["force"]:
                    audit.append(params["audit"], "lock freed by force", owner, holder=holder)
            module.exit_json(changed=there and params["force"], owner=owner, **({"holder": holder} if holder else {}))
        holder, taken_over = acquire(module, path, owner)
        if taken_over:
            audit.append(params["audit"], "lock taken over", owner, holder=taken_over)
    except OSError as error:
        module.fail_json(msg=f"The lock {path} could not be read or made: {error}. Nothing was changed.", owner=owner)
    if holder:
        module.fail_json(msg=explain(holder, path, params["wait"]), holder=holder, owner=owner)
    found = {"holder": taken_over} if taken_over else {}
    module.exit_json(changed=False, owner=owner, taken_over=bool(taken_over), **found)


if __name__ == "__main__":
    main()
