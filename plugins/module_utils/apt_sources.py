# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The addresses in apt's source files, and the names that apt gives to their lists."""

from __future__ import annotations

import re


def list_name(uri: str) -> str:
    """Return how the names of apt's lists for this address begin."""
    bare = _normal(uri).partition("://")[2] or _normal(uri)
    quoted = re.sub(r"[_~=@%]", lambda found: f"%{ord(found[0]):02x}", bare)
    return quoted.replace("/", "_")


def addresses(text: str, architecture: str) -> list[str]:
    """Return the addresses that a deb822 file names."""
    values = re.findall(r"(?mi)^URIs:((?:.*\n?)(?:[ \t].*\n?)*)", text)
    return [_normal(uri.replace("$(ARCH)", architecture)) for value in values for uri in value.split()]


def _normal(uri: str) -> str:
    """Return an address as apt compares it."""
    return uri.rstrip("/") + "/"
