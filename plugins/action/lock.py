# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Action: who asks for a host's lock, and whether the play that holds it still runs here. Documented in plugins/modules."""

from __future__ import annotations

import getpass
import os
import socket

from ansible.plugins.action import ActionBase


def started(pid: int) -> str | None:
    """When a process of this machine began, in the kernel's ticks; None where there is none (a number may be used again)."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stream:
            fields = stream.read().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


def job_of(variables: dict, name: str) -> str:
    """Return what AWX or Automation Controller says of its job, empty where the play is none of theirs."""
    return next((str(variables[f"{prefix}_{name}"]) for prefix in ("awx", "tower") if variables.get(f"{prefix}_{name}")), "")


def operator(variables: dict) -> str:
    """Return the person: in a job of AWX it is in the job's variables, and sudo hides them behind root."""
    job = job_of(variables, "job_id")
    if job:
        schedule = job_of(variables, "schedule_name") or job_of(variables, "parent_job_schedule_name")
        who = job_of(variables, "user_name") or (f"schedule {schedule}" if schedule else job_of(variables, "job_launch_type"))
        return f"{who or 'unknown'} (AWX job {job})"
    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return str(os.getuid())


def owner(variables: dict) -> dict:
    """This play: the process that runs it is the parent of the one that runs a task."""
    pid = os.getppid()
    controller = socket.gethostname()
    began = started(pid) or "unknown"
    return {
        "operator": operator(variables),
        "controller": controller,
        "pid": pid,
        "process_started": began,
        "token": f"{controller}:{boot_id()}:{pid}:{began}",
    }


def boot_id() -> str:
    """The boot of this machine: process numbers mean nothing beyond it."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as stream:
            return stream.read().strip()[:8]
    except OSError:
        return "unknown"


def is_over(holder: dict, here: dict) -> bool:
    """Whether the play that holds the lock ran on this control node and is known to have ended."""
    if holder.get("controller") != here["controller"] or holder.get("process_started") in (None, "unknown"):
        return False
    before_boot = str(holder.get("token", "")).split(":")[1:2] != here["token"].split(":")[1:2]
    return before_boot or started(holder.get("pid", 0)) != holder["process_started"]


class ActionModule(ActionBase):
    """Adds who asks; a lock whose play has ended on this control node is taken over."""

    def run(self, tmp=None, task_vars=None):
        """Run the module, once more where there is something to take over or to wait for."""
        super().run(tmp, task_vars)
        here = owner(task_vars or {})
        args = {**self._task.args, "owner": here}
        if args.get("state", "present") == "absent":
            return self.module(args, task_vars)
        result = self.module({**args, "wait": 0}, task_vars)
        holder = result.get("holder")
        if not result.get("failed") or not holder:
            return result
        if is_over(holder, here):
            args["take_over"] = holder["token"]
            result = self.module(args, task_vars)
            if not result.get("failed"):
                who = f"{holder.get('play') or 'a play'} of {holder.get('operator')} since {holder.get('time')}"
                gone = f"whose process {holder.get('pid')} on this control node is gone"
                result.setdefault("warnings", []).append(f"The lock was held by {who}, {gone}; it was taken over.")
            return result
        return self.module(args, task_vars) if int(args.get("wait", 0)) > 0 else result

    def module(self, args: dict, task_vars: dict) -> dict:
        """One call of the module on the host."""
        return self._execute_module(module_name="iopaint.fleet.lock", module_args=args, task_vars=task_vars)
