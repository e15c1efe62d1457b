# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Tables for the output of a play."""

from __future__ import annotations

WIDTH = 90  # of a sentence in a cell; the whole of it is elsewhere


def one_line(text):
    """Return text without line breaks and control characters."""
    return " ".join("".join(filter(str.isprintable, " ".join(str(text or "").split()))).split())


def cut(text):
    """Return text short enough for a cell."""
    return text if len(text) <= WIDTH else text[: WIDTH - 1] + "…"


def shown(value):
    """Return a cell's text."""
    return "-" if value in (None, "") else f"{value:.1f}" if isinstance(value, float) else str(value)


def text_table(rows):
    """Return rows of texts, the heading first, as one text in columns; YAML would break long entries of a list."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join("  ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip() for row in rows)
