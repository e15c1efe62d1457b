# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Actions whose module runs in the background of the host, and is seen while it runs: a build, the download of models."""

from __future__ import annotations

import time
from abc import abstractmethod

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.iopaint.fleet.plugins.module_utils.network import masked

display = Display()

MANY = 8  # hosts from which on only what takes long is shown
SHOWN = {False: 1.0, True: 30.0}  # seconds of a step from which on it has a line, by whether there are many hosts
EVERY = {False: 2.0, True: 10.0}  # seconds between two looks at a host
STILL = 60.0  # seconds after which what goes on is named again
JOB = ("ansible_job_id", "child_pid", "started", "finished", "results_file")  # what belongs to the job, not to what it did
LOST = 30.0  # seconds without a process that holds the log, after which a job is given up


class Progress:
    """Says what a job does, in lines that a log without a terminal can keep."""

    def __init__(self, prefix: str, many: bool, say):
        self.prefix, self.many, self.say = prefix, many, say
        self.least, self.begun, self.last = SHOWN[many], time.monotonic(), time.monotonic()

    def feed(self, text: str):
        """Take what was added to the log, and name what goes on once a minute."""
        self.read(text)
        if time.monotonic() - self.last >= STILL:
            self.line(self.going_on() or "goes on")

    def line(self, text: str):
        """Say one line, with the seconds since the job began."""
        self.last = time.monotonic()
        self.say(f"{self.prefix}, {time.monotonic() - self.begun:4.0f} s: {text}")

    def read(self, text: str):
        """Take what was added to the log, and say what has ended in it."""

    def going_on(self) -> str:
        """Return what goes on."""
        return ""

    def end(self, result: dict):
        """Say what the job came to, by the module's result: a job may end before its log is looked at."""


class BackgroundAction(ActionBase):
    """Runs a module in the background of the host and reads its log meanwhile; where nothing is to be done, one call is all.

    The module has the options `log`, a file that it holds by flock while it works, and `timeout`. With the option DRY false it
    does nothing, and returns `needed`.
    """

    MODULE = ""
    DRY = ""
    TIMEOUT = 0  # the module's own default
    JOB_IS = "The job"  # how a message calls it
    LEFT = ""  # what a failed one left, and how to go on

    @abstractmethod
    def progress(self, host: str, many: bool) -> Progress:
        """Return what says how far the job is."""

    def secrets(self) -> list:
        """Return values whose secrets no line shows."""
        return []

    def prepared(self, args: dict, looked: dict) -> dict:  # pylint: disable=unused-argument
        """Return the arguments of the job, by what the call without it returned."""
        return args

    def run(self, tmp=None, task_vars=None):
        """Run the module."""
        super().run(tmp, task_vars)
        args = dict(self._task.args)
        if self._task.check_mode or not args.get(self.DRY, True):
            return self.module(args, task_vars)
        looked = self.module({**args, self.DRY: False}, task_vars)
        if looked.get("failed") or not looked.pop("needed", False):
            return looked
        many = len(task_vars.get("ansible_play_hosts") or []) > MANY
        progress = self.progress(task_vars["inventory_hostname"], many)
        job = self.start(self.prepared(args, looked), task_vars)
        self.follow(job, str(args["log"]), progress, EVERY[many], task_vars)
        result = self.result(job, task_vars)
        progress.end(result)
        return result

    def module(self, args: dict, task_vars: dict, name: str = "", **options) -> dict:
        """Run a module on the host; return its result."""
        return self._execute_module(module_name=name or self.MODULE, module_args=args, task_vars=task_vars, **options)

    def start(self, args: dict, task_vars: dict) -> dict:
        """Begin the job; return what identifies it."""
        self._task.async_val = int(args.get("timeout", self.TIMEOUT))
        try:
            job = self.module(args, task_vars, wrap_async=True)
        finally:
            self._task.async_val = 0  # the task itself ends with the job
        if "ansible_job_id" not in job:
            raise AnsibleActionFail(f"{self.JOB_IS} could not be started in the background: {job.get('msg')}", result=job)
        return job

    def follow(self, job: dict, log: str, progress: Progress, every: float, task_vars: dict) -> None:
        """Read the log until the job has a result."""
        offset, held = 0, time.monotonic()
        while True:
            time.sleep(every)
            where = {"log": log, "job": job["results_file"], "offset": offset}
            seen = self.module(where, task_vars, name="iopaint.fleet.job_log")
            if seen.get("failed"):
                raise AnsibleActionFail(f"{self.JOB_IS} can't be followed, its log was not read: {seen.get('msg')}", result=seen)
            if seen["running"] or seen["finished"]:
                held = time.monotonic()
                if offset or seen["running"]:  # before that the log is an earlier job's
                    progress.feed(masked(seen["text"], self.secrets()))
                    offset = seen["offset"]
            if seen["finished"]:
                return
            if time.monotonic() - held > LOST:
                raise AnsibleActionFail(
                    f"{self.JOB_IS} ended without a result: its process is gone from the host (killed, or the host was "
                    f"restarted). The log {log} has what it did. {self.LEFT}"
                )

    def result(self, job: dict, task_vars: dict) -> dict:
        """Return the module's result, once its background job has ended."""
        where = {"jid": job["ansible_job_id"], "_async_dir": job["results_file"].rpartition("/")[0]}
        result = self.module(where, task_vars, name="ansible.legacy.async_status")
        self.module({**where, "mode": "cleanup"}, task_vars, name="ansible.legacy.async_status")
        if result.get("msg") == "Timeout exceeded":
            limit, log = self._task.args.get("timeout", self.TIMEOUT), self._task.args["log"]
            result["msg"] = f"{self.JOB_IS} was stopped after {limit} s (its timeout); its log is {log}. {self.LEFT}"
        return {name: value for name, value in result.items() if name not in JOB}
