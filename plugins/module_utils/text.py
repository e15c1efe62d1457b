# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Text of containers and builds, made safe to print on an operator's terminal; text that is one line of a file."""

from __future__ import annotations

import re
import unicodedata

# Control sequences (ECMA-48): CSI, then OSC up to its end, then the other two-character ones.
ESCAPE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[ -/]*[0-~]|\x9b[0-?]*[ -/]*[@-~]")


def plain(text):
    """Return the text without terminal escapes and without control characters other than tabs and line ends."""
    clean = ESCAPE.sub("", text.replace("\r\n", "\n"))
    return "".join(character for character in clean if character in "\t\n" or character.isprintable())


def is_one_line(text):
    """Return whether a text is one line, without control characters; letters of any script are fine."""
    return not any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in text)


def version_changes(before, after):
    """Return what differs between two sets of packages, each version by name, as sentences such as `docker-ce 1 → 2`."""
    versions = {name: (before.get(name), after.get(name)) for name in {**before, **after}}
    return sorted(f"{name} {then or 'none'} → {now or 'none'}" for name, (then, now) in versions.items() if then != now)
