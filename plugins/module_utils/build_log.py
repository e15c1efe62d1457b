# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What BuildKit's plain progress log says: the steps of a build, how long each took, what it downloaded, what was cached.

#10 [python-base 2/2] RUN --mount=type=cache,…        the step begins (or its lines go on after another's)
#10 6.004 Fetched 7588 kB in 0s (103 MB/s)            its output, with the seconds since it began
#10 DONE 18.6s                                        or CACHED, CANCELED, ERROR: …
"""

from __future__ import annotations

import re

LINE = re.compile(r"#(\d{1,9}) (.*)")
SECONDS = r"(\d{1,9}(?:\.\d{1,9})?)"
NAME = re.compile(r"\[(?!internal|context)([^\]]+)\] \S|(exporting to image)$")
DONE = re.compile(rf"DONE {SECONDS}s$")
OUTPUT = re.compile(rf"{SECONDS} (.*)$")
# apt's sum of a step, uv's packages one by one
DOWNLOAD = re.compile(
    rf"Fetched (\d[\d,]{{0,15}}(?:\.\d{{1,9}})?) ?([kMG]?)(i?)B in |Downloading \S+ \({SECONDS}([KMG]?)(i?)B\)$"
)
FACTOR = {"": 0, "k": 1, "K": 1, "M": 2, "G": 3}


def downloaded(text):
    """Return the bytes that a line of output says were downloaded."""
    found = DOWNLOAD.match(text)
    if not found:
        return 0
    amount, unit, binary = found.group(1, 2, 3) if found[1] else found.group(4, 5, 6)
    return int(float(amount.replace(",", "")) * (1024 if binary else 1000) ** FACTOR[unit])


class Step:
    """One step: its name (None for BuildKit's own), state, seconds and bytes downloaded."""

    def __init__(self):
        self.name, self.state, self.seconds, self.bytes, self.last = None, "running", 0.0, 0, ""

    @property
    def title(self):
        """Return the name, and what was downloaded."""
        return self.name + (f" ({self.bytes / 1e6:.1f} MB downloaded)" if self.bytes else "")


class BuildLog:
    """Reads a log piece by piece."""

    def __init__(self, text=""):
        self.steps, self._rest = {}, ""
        self.feed(text)

    def feed(self, text):
        """Take what was added to the log; return the named steps that ended in it, in their order."""
        lines = (self._rest + text).split("\n")
        self._rest = lines.pop()
        return [step for step in map(self._line, lines) if step]

    def _line(self, line):
        found = LINE.match(line)
        if not found:
            return None
        step, text = self.steps.setdefault(int(found[1]), Step()), found[2].rstrip()
        name, done, output = NAME.match(text), DONE.match(text), OUTPUT.match(text)
        if name and step.name is None:
            step.name = name[1] or name[2]
        elif output:
            step.seconds, step.last = float(output[1]), output[2].strip() or step.last
            step.bytes += downloaded(output[2])
        elif text == "CACHED" or done or text.startswith("ERROR"):
            step.seconds = float(done[1]) if done else step.seconds
            step.state = "cached" if text == "CACHED" else "done" if done else "failed"
            return step if step.name else None
        return None

    def named(self, *states):
        """Return the steps in these states, BuildKit's own left out."""
        return [step for step in self.steps.values() if step.name and step.state in states]

    def summary(self):
        """Return how many steps there were, how many of them came from the cache, and the bytes downloaded."""
        return {
            "steps": len(self.named("cached", "done")),
            "cached": len(self.named("cached")),
            "downloaded": sum(step.bytes for step in self.steps.values()),
        }
