# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filter: what changed in the Debian packages of an image, in one line."""

from __future__ import annotations

DOCUMENTATION = r"""
name: package_list
short_description: Return changes of packages in one line
version_added: 1.0.0
description:
  - The first ten of them, and how many there are. The record of a release has all.
options:
  _input:
    description: Sentences such as V(libssl3 3.0.15-1 → 3.0.16-1).
    type: list
    elements: str
    required: true
author: iopaint.fleet contributors (@iopaint)
"""

EXAMPLES = r"""
line: "{{ release.packages | iopaint.fleet.package_list }}"
"""

RETURN = r"""
_value:
  description: The line, for example V(2 changed, libc6 2.36-9 → 2.36-10, libssl3 3.0.15-1 → 3.0.16-1).
  type: str
"""

SHOWN = 10


def package_list(changes):
    """Return the line."""
    rest = len(changes) - SHOWN
    return f"{len(changes)} changed, {', '.join(changes[:SHOWN])}" + (f" and {rest} more" if rest > 0 else "")


class FilterModule:
    """The filter of this file."""

    def filters(self):
        """Return name and function."""
        return {"package_list": package_list}
