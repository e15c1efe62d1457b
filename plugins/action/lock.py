# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Action: who asks for a host's lock, and whether the play that holds it still runs here. Documented in plugins/modules."""

from __future__ import annotations

import getpass
import hashlib
import os
import socket

from ansible.plugins.action import ActionBase

UNKNOWN = "unknown"  # of a control node that does not tell, as one without /proc
GONE = "gone"  # the state of a process that has ended and was not waited for


def started(pid: int) -> str | None:
    """Return when a process of this machine began, in the kernel's ticks; "gone" for a dead one, None where it can't be read."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stream:
            fields = stream.read().rpartition(")")[2].split()
    except OSError:
        return None
    return GONE if fields[0] in "ZX" else fields[19]


def has_ended(pid: object, began: object) -> bool:
    """Return whether the process of this number that began then is known to have ended; a number is used again."""
    if not isinstance(pid, int) or pid < 1 or not str(began).isdecimal():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):  # somebody else's, which /proc may hide
        pass
    return started(pid) not in (None, began)


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


def owner(run: str, variables: dict) -> dict:
    """Return this play, whose process is the parent of the one that runs a task. run: what all of its tasks have in common.

    variables: the play's.
    """
    pid = os.getppid()
    place = {"machine": machine(), "boot": boot_id(), "namespaces": namespaces()}
    return {
        "operator": operator(variables),
        "controller": socket.gethostname(),
        "pid": pid,
        "process_started": started(pid) or UNKNOWN,
        **place,
        "token": digest(run, *place.values()),
    }


def digest(*words: str) -> str:
    """Return a short name for these words, the same for the same words."""
    return hashlib.sha256("\0".join(words).encode()).hexdigest()[:16]


def machine() -> str:
    """Return a name for this machine's installation that hides its ID; containers may have none, or one from their image."""
    try:
        with open("/etc/machine-id", encoding="utf-8", errors="replace") as stream:
            return digest("iopaint.fleet", stream.read().strip())
    except OSError:
        return "none"


def boot_id() -> str:
    """Return the ID of this machine's boot: process numbers mean nothing beyond it."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as stream:
            return stream.read().strip() or UNKNOWN
    except OSError:
        return UNKNOWN


def namespaces() -> str:
    """Return the namespaces that give process numbers and start times their meaning; /proc may be another namespace's."""
    try:
        if os.readlink("/proc/self") != str(os.getpid()):
            return UNKNOWN
        kinds = [kind for kind in ("pid", "time") if kind == "pid" or os.path.lexists(f"/proc/self/ns/{kind}")]
        return " ".join(os.readlink(f"/proc/self/ns/{kind}") for kind in kinds)
    except OSError:
        return UNKNOWN


def is_over(holder: dict, here: dict) -> bool:
    """Return whether the play that holds the lock is known to have ended: it ran where its process could be seen from here."""
    place = ("controller", "machine", "boot", "namespaces")
    if UNKNOWN in (here["boot"], here["namespaces"]) or any(holder.get(key) != here[key] for key in place):
        return False
    return has_ended(holder.get("pid"), holder.get("process_started"))


class ActionModule(ActionBase):
    """Adds who asks; a lock whose play has ended on this control node is taken over."""

    def run(self, tmp=None, task_vars=None):
        """Run the module; where another play holds the lock, look whether that is over, before the wait and after it."""
        super().run(tmp, task_vars)
        # The unique IDs of tasks begin with what is one run's own, and end with a counter.
        here = owner(self._task._uuid.rpartition("-")[0], task_vars or {})
        args = {**self._task.args, "owner": here}
        if args.get("state", "present") == "absent":
            return self.module(args, task_vars)
        waits = [0] if str(args.get("wait", 0)) == "0" else [0, args["wait"]]
        for wait in waits:
            result = self.module({**args, "wait": wait}, task_vars)
            if not result.get("failed") or not result.get("holder"):
                break
            if is_over(result["holder"], here):
                return self.module({**args, "over": result["holder"]["token"]}, task_vars)
        return result

    def module(self, args: dict, task_vars: dict) -> dict:
        """Run the module on the host; return its result."""
        return self._execute_module(module_name="iopaint.fleet.lock", module_args=args, task_vars=task_vars)
