# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The manifest of a folder tree: the control node writes it, the host compares it with what it has.

Paths and link targets are bytes, since a file name need not be valid UTF-8.
"""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from typing import NamedTuple

FOLDER, FILE, LINK = "d", "f", "l"
CHUNK = 2**20


class Entry(NamedTuple):
    """One folder, file or link; `content` is the SHA-256 of a file or the target of a link."""

    path: bytes
    kind: str
    mode: int = 0
    size: int = 0
    content: bytes = b""


def dumps(entries):
    """Return the manifest as one line of text."""
    # Latin-1 maps every byte to one character and back, which JSON can hold.
    rows = [(e.path.decode("latin-1"), e.kind, e.mode, e.size, e.content.decode("latin-1")) for e in entries]
    return base64.b64encode(zlib.compress(json.dumps(rows).encode())).decode()


def loads(text):
    """Return the entries of a manifest."""
    rows = json.loads(zlib.decompress(base64.b64decode(text)))
    return [Entry(path.encode("latin-1"), *numbers, content.encode("latin-1")) for path, *numbers, content in rows]


def shown(path):
    """Return a path for messages: one line of printable text, whatever bytes the name holds."""
    text = path.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def digest(stream):
    """Return the SHA-256 of what is left in a stream, as hexadecimal bytes."""
    sha256 = hashlib.sha256()
    for piece in iter(lambda: stream.read(CHUNK), b""):
        sha256.update(piece)
    return sha256.hexdigest().encode()
