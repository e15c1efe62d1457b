# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Action: a download of models that is seen while it runs. Documented in plugins/modules."""

from __future__ import annotations

from ansible_collections.iopaint.fleet.plugins.module_utils import foreign
from ansible_collections.iopaint.fleet.plugins.plugin_utils import background
from ansible_collections.iopaint.fleet.plugins.plugin_utils.table import cut, one_line

HANDED_OVER = ("token", "endpoint", "environment")  # by a file in memory, as a job's arguments lie on the host's disk


def size(count: float) -> str:
    """Return bytes as people read them."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def speed(count: float, seconds: float) -> str:
    """Return how fast so many bytes came."""
    return f"{max(count, 0) / 1e6 / max(seconds, 0.1):.1f} MB/s"


class Progress(background.Progress):
    """Says what is downloaded, how far it is, and how fast it comes. The log has a line of fetch-models for each."""

    def __init__(self, prefix: str, many: bool, say):
        super().__init__(prefix, many, say)
        self.now, self.first, self.named = {}, {}, {}  # of one repository: the newest, the first and the last that has a line
        self.reason = ""  # why the hub was asked again since the last line

    def read(self, text: str):
        """Take what was added to the log."""
        for line in text.splitlines():
            try:
                said = foreign.parse_json(line, dict)
                numbers = {key: float(said.get(key) or 0) for key in ("files", "bytes", "fetched", "seconds", "wait")}
            except (TypeError, ValueError, OverflowError):  # a line that is not fetch-models' own
                continue
            texts = {key: cut(one_line(said.get(key))) for key in ("repository", "revision", "state", "reason")}
            if texts["repository"]:
                self.take({**texts, **numbers})

    def take(self, event: dict):
        """Take one line of fetch-models."""
        name, state = event["repository"], event["state"]
        if state == "waits":
            self.reason, event = event["reason"], self.now if self.now.get("repository") == name else event
        elif state == "begins":
            self.first = self.named = event
            there = f", {size(event['fetched'])} of them there" if event["fetched"] else ""
            if not self.many:
                self.line(f"{name} at {event['revision'][:12]}: {size(event['bytes'])} in {event['files']:.0f} files{there}")
        elif state == "ends" and self.first and event["seconds"] >= self.least:
            pace = speed(event["bytes"] - self.first["fetched"], event["seconds"] - self.first["seconds"])
            self.line(f"{name} took {event['seconds']:.1f} s: {size(event['bytes'])}, {pace}")
        self.now = {} if state == "ends" else event

    def going_on(self) -> str:
        """Return how far the repository is that is being downloaded."""
        now, reason, self.reason = self.now, self.reason, ""
        if not now:
            return ""
        if now["state"] == "checks":
            text = f"{now['repository']}: comparing checksums of {size(now['bytes'])}"
        elif now["bytes"]:
            before, self.named = self.named or now, now
            pace = speed(now["fetched"] - before["fetched"], now["seconds"] - before["seconds"])
            share = 100 * now["fetched"] / now["bytes"]
            text = f"{now['repository']}: {size(now['fetched'])} of {size(now['bytes'])} ({share:.0f} %), {pace}"
        else:
            text = now["repository"]
        return text + (f"; the hub is asked again, as {reason}" if reason else "")

    def end(self, result: dict):
        """Say what the download came to."""
        done = [each for each in result.get("repositories") or [] if each["changed"]]
        if done and not result.get("failed"):
            count = sum(each["missing_bytes"] for each in done)
            what = f"{len(done)} {'repository' if len(done) == 1 else 'repositories'}"
            self.line(f"{what}, {size(count)} fetched in {result['seconds']:.1f} s ({speed(count, result['seconds'])})")


class ActionModule(background.BackgroundAction):
    """Fetches models in the background of the host and reads the log meanwhile."""

    MODULE = "iopaint.fleet.hub_models"
    DRY = "fetch"
    TIMEOUT = 43200
    JOB_IS = "The download of the models"
    LEFT = "No instance was touched. Run the play again: it goes on where the download ended."

    def progress(self, host: str, many: bool) -> Progress:
        """Return what says how far the download is."""
        return Progress(f"{host} fetches models", many, background.display.display)

    def secrets(self) -> list:
        """Return the token and the addresses, which may hold passwords."""
        args = self._task.args
        return [{"token": str(args.get("token") or "")}, args.get("endpoint") or "", args.get("environment") or {}]

    def prepared(self, args: dict, looked: dict) -> dict:
        """Return the arguments of the job, without what was handed over."""
        return {**{key: value for key, value in args.items() if key not in HANDED_OVER}, "handed_over": looked["handed_over"]}
