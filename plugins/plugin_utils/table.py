# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Tables for the output of a play."""

from __future__ import annotations


def text_table(rows):
    """Give rows of texts, the heading first, as one text in columns; YAML would break long entries of a list."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join("  ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip() for row in rows)
