# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Action: a build that is seen while it runs, one line for each step that ends. Documented in plugins/modules."""

from __future__ import annotations

import time

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.iopaint.fleet.plugins.module_utils.build_log import BuildLog
from ansible_collections.iopaint.fleet.plugins.module_utils.network import masked

display = Display()

MANY = 8  # hosts from which on only what takes long is shown
SHOWN = {False: 1.0, True: 30.0}  # seconds of a step from which on it has a line, by whether there are many hosts
EVERY = {False: 2.0, True: 10.0}  # seconds between two looks at a host
STILL = 60.0  # seconds after which a step that goes on is named again
JOB = ("ansible_job_id", "started", "finished", "results_file")  # what belongs to the job, not to the build
TIMEOUT = 10800  # the module's own default
LOST = 30.0  # seconds without a process that holds the log, after which a build is given up


class Progress:
    """Says what a build does, in lines that a log without a terminal can keep."""

    def __init__(self, host: str, variant: str, many: bool, say):
        self.prefix, self.log, self.say = f"{host} builds {variant}", BuildLog(), say
        self.least, self.begun, self.last = SHOWN[many], time.monotonic(), time.monotonic()

    def feed(self, text: str):
        """Take what was added to the log."""
        for step in self.log.feed(text):
            if step.state == "cached" or (step.state == "done" and step.seconds < self.least):
                continue
            self.line(f"{step.title} {'FAILED after' if step.state == 'failed' else 'took'} {step.seconds:.1f} s")
        if time.monotonic() - self.last >= STILL:
            running = [step for step in self.log.named("running") if step.seconds]
            for step in running[-1:] or [None]:
                self.line(f"{step.title} goes on: {step.last[:80]}" if step else "goes on")

    def line(self, text: str):
        """Return one line, with the seconds since the build began."""
        self.last = time.monotonic()
        self.say(f"{self.prefix}, {time.monotonic() - self.begun:4.0f} s: {text}")

    def end(self, result: dict):
        """Say what the build came to, by the module's result: a build may end before its log is looked at."""
        if result.get("steps"):
            megabytes = result["downloaded"] / 1e6
            self.line(f"{result['steps']} steps, {result['cached']} of them cached, {megabytes:.1f} MB downloaded")


class ActionModule(ActionBase):
    """Builds in the background of the host and reads the log meanwhile; where nothing is to be built, one call is all."""

    def run(self, tmp=None, task_vars=None):
        """Run the module."""
        super().run(tmp, task_vars)
        args = dict(self._task.args)
        if self._task.check_mode or not args.get("build", True):
            return self.module(args, task_vars)
        looked = self.module({**args, "build": False}, task_vars)
        if looked.get("failed") or not looked.pop("needed", False):
            return looked
        many = len(task_vars.get("ansible_play_hosts") or []) > MANY
        progress = Progress(task_vars["inventory_hostname"], str(args["variant"]), many, display.display)
        job = self.start(args, task_vars)
        self.follow(job, str(args["log"]), progress, EVERY[many], task_vars)
        result = self.result(job, task_vars)
        progress.end(result)
        return result

    def module(self, args: dict, task_vars: dict, name: str = "iopaint.fleet.image_build", **options) -> dict:
        """Run a module on the host; return its result."""
        return self._execute_module(module_name=name, module_args=args, task_vars=task_vars, **options)

    def start(self, args: dict, task_vars: dict) -> dict:
        """Begin the build; return its job."""
        self._task.async_val = int(args.get("timeout", TIMEOUT))
        try:
            job = self.module(args, task_vars, wrap_async=True)
        finally:
            self._task.async_val = 0  # the task itself ends with the build
        if "ansible_job_id" not in job:
            raise AnsibleActionFail(f"The build could not be started in the background: {job.get('msg')}", result=job)
        return job

    def follow(self, job: dict, log: str, progress: Progress, every: float, task_vars: dict) -> None:
        """Read the log until the job has a result."""
        offset, held = 0, time.monotonic()
        while True:
            time.sleep(every)
            where = {"log": log, "job": job["results_file"], "offset": offset}
            seen = self.module(where, task_vars, name="iopaint.fleet.image_build_log")
            if seen.get("failed"):
                raise AnsibleActionFail(f"The log of the build could not be read: {seen.get('msg')}", result=seen)
            if seen["running"] or seen["finished"]:
                held = time.monotonic()
                if offset or seen["running"]:  # before that the log is an earlier build's
                    progress.feed(masked(seen["text"], (self._task.args.get("network") or {}).values()))
                    offset = seen["offset"]
            if seen["finished"]:
                return
            if time.monotonic() - held > LOST:
                raise AnsibleActionFail(
                    "The build ended without a result: its process is gone from the host (killed, or the host was restarted). "
                    f"The log {log} has what it did; nothing that runs was touched. Run the play again: what was built is cached."
                )

    def result(self, job: dict, task_vars: dict) -> dict:
        """Return the module's result, once its background job has ended."""
        where = {"jid": job["ansible_job_id"], "_async_dir": job["results_file"].rpartition("/")[0]}
        result = self.module(where, task_vars, name="ansible.legacy.async_status")
        self.module({**where, "mode": "cleanup"}, task_vars, name="ansible.legacy.async_status")
        if result.get("msg") == "Timeout exceeded":
            limit, log = self._task.args.get("timeout", TIMEOUT), self._task.args["log"]
            result["msg"] = (
                f"The build was stopped after {limit} s (its timeout). Nothing that runs was touched; its log is {log}."
            )
        return {name: value for name, value in result.items() if name not in JOB}
