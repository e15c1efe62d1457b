#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: what was added to the log of a job that runs in the background, and whether it still runs."""

from __future__ import annotations

DOCUMENTATION = r"""
module: job_log
short_description: Read the log of a job in the background from an offset on
version_added: 1.0.0
description:
  - Used by the actions of M(iopaint.fleet.image_build) and M(iopaint.fleet.hub_models), which show what a build or a download
    does while it runs.
options:
  log:
    description: The job's log on the host.
    type: path
    required: true
  job:
    description: File of the background job's result on the host.
    type: path
    required: true
  offset:
    description: Bytes of the log that are known already.
    type: int
    default: 0
attributes:
  check_mode:
    support: full
    description: It only reads.
author: iopaint.fleet contributors (@iopaint)
"""

EXAMPLES = r"""
- name: Read on
  iopaint.fleet.job_log:
    log: /opt/iopaint/build/cpu.log
    job: /root/.ansible_async/j123.456
    offset: 8000
"""

RETURN = r"""
text:
  description: What was added, 256 KiB at most.
  type: str
  returned: success
offset:
  description: Bytes of the log that are known now.
  type: int
  returned: success
finished:
  description: Whether the job has a result.
  type: bool
  returned: success
running:
  description: Whether a process holds the log.
  type: bool
  returned: success
"""


from ansible.module_utils.basic import AnsibleModule
from ansible_collections.iopaint.fleet.plugins.module_utils import foreign
from ansible_collections.iopaint.fleet.plugins.module_utils.files import is_locked

MOST = 256 * 1024


def added(path, offset):
    """Return the text after offset, and the offset of what comes next; no character is torn."""
    try:
        with open(path, "rb") as stream:
            stream.seek(offset)
            piece = stream.read(MOST)
    except FileNotFoundError:
        return "", offset
    piece = piece[: piece.rfind(b"\n") + 1]
    return piece.decode(errors="replace"), offset + len(piece)


def finished(path):
    """Return whether the job's file has its result."""
    try:
        return bool(foreign.parse_json(foreign.read_text(path, 16 * foreign.MIB), dict).get("finished", True))
    except (OSError, ValueError):  # not there yet, or just being written
        return False


def main():
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "log": {"type": "path", "required": True},
            "job": {"type": "path", "required": True},
            "offset": {"type": "int", "default": 0},
        },
        supports_check_mode=True,
    )
    params = module.params
    done, running = finished(params["job"]), is_locked(params["log"])  # before the text: nothing that was said is missed
    text, offset = added(params["log"], params["offset"])
    module.exit_json(changed=False, text=text, offset=offset, finished=done, running=running)


if __name__ == "__main__":
    main()
