# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filter: what came of the builds of a host, as a table."""

from __future__ import annotations

DOCUMENTATION = r"""
name: build_table
short_description: Return the images of a host as a table
version_added: 1.0.0
description:
  - One line for each variant, with tag, immutable tag, digest, size, time of the build, and how much was cached or downloaded.
options:
  _input:
    description: The results of M(iopaint.fleet.image_build), by variant.
    type: dict
    required: true
author: iopaint.fleet contributors (@iopaint)
"""

EXAMPLES = r"""
table: "{{ iopaint_image_built | iopaint.fleet.build_table }}"
"""

RETURN = r"""
_value:
  description: The table, its heading first.
  type: str
"""

from ansible_collections.iopaint.fleet.plugins.plugin_utils.table import text_table

HEADING = ("variant", "tag", "image", "digest", "size", "time", "cached", "downloaded")
DIGEST = 19  # sha256: and twelve characters, as docker shows an ID


def cells(variant, result):
    """Return the texts of one line."""
    made = "steps" in result
    time = f"{result['seconds']:.1f} s" if made else "would be built" if result.get("built") else "was there"
    return [
        variant,
        result["tags"][1],
        result["image"],
        (result.get("id") or "-")[:DIGEST],
        f"{result['size'] / 1e9:.2f} GB" if "size" in result else "-",
        time,
        f"{result['cached']} of {result['steps']} steps" if made else "-",
        f"{result['downloaded'] / 1e6:.1f} MB" if made else "-",
    ]


def build_table(built):
    """Return the table."""
    return text_table([list(HEADING), *(cells(variant, result) for variant, result in built.items())])


class FilterModule:
    """The filter of this file."""

    def filters(self):
        """Return name and function."""
        return {"build_table": build_table}
