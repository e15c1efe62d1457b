# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Action: a build that is seen while it runs, one line for each step that ends. Documented in plugins/modules."""

from __future__ import annotations

from ansible_collections.iopaint.fleet.plugins.module_utils.build_log import BuildLog
from ansible_collections.iopaint.fleet.plugins.plugin_utils import background


class Progress(background.Progress):
    """Says which steps of a build have ended, and which goes on."""

    def __init__(self, prefix: str, many: bool, say):
        super().__init__(prefix, many, say)
        self.log = BuildLog()

    def read(self, text: str):
        """Take what was added to the log."""
        for step in self.log.feed(text):
            if step.state == "cached" or (step.state == "done" and step.seconds < self.least):
                continue
            self.line(f"{step.title} {'FAILED after' if step.state == 'failed' else 'took'} {step.seconds:.1f} s")

    def going_on(self) -> str:
        """Return the newest step that runs, with its last line."""
        running = [step for step in self.log.named("running") if step.seconds]
        return f"{running[-1].title} goes on: {running[-1].last[:80]}" if running else ""

    def end(self, result: dict):
        """Say what the build came to."""
        if result.get("steps"):
            megabytes = result["downloaded"] / 1e6
            self.line(f"{result['steps']} steps, {result['cached']} of them cached, {megabytes:.1f} MB downloaded")


class ActionModule(background.BackgroundAction):
    """Builds in the background of the host and reads the log meanwhile."""

    MODULE = "iopaint.fleet.image_build"
    DRY = "build"
    TIMEOUT = 10800
    JOB_IS = "The build"
    LEFT = "Nothing that runs was touched. Run the play again: what was built is cached."

    def progress(self, host: str, many: bool) -> Progress:
        """Return what says how far the build is."""
        return Progress(f"{host} builds {self._task.args['variant']}", many, background.display.display)

    def secrets(self) -> list:
        """Return where downloads come from, which may hold passwords."""
        return list((self._task.args.get("network") or {}).values())
