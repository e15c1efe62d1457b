# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Read OpenPGP public keys and tell their fingerprints, on hosts that have no gpg."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterator
from typing import NamedTuple

PUBLIC_KEY = 6  # packet tag, RFC 9580

_BLOCK = re.compile(rb"-----BEGIN PGP PUBLIC KEY BLOCK-----\s*?\n(.*?)-----END PGP PUBLIC KEY BLOCK-----", re.DOTALL)


class KeyFormatError(ValueError):
    """What is wrong with a key, as the rest of a sentence that begins with where it came from."""


class Key(NamedTuple):
    """A primary key with all that belongs to it."""

    fingerprint: str
    data: bytes


class _Packet(NamedTuple):
    tag: int
    body: bytes
    raw: bytes


def read_keys(data: bytes) -> list[Key]:
    """The keys in a file, be it armoured or binary."""
    keys: list[Key] = []
    for packet in _packets(_binary(data)):
        if packet.tag == PUBLIC_KEY:
            keys.append(Key(_fingerprint(packet.body), packet.raw))
        elif keys:
            keys[-1] = Key(keys[-1].fingerprint, keys[-1].data + packet.raw)
        else:
            raise KeyFormatError(f"begins with a packet of kind {packet.tag}, and should begin with a public key")
    return keys


def plain_fingerprint(text: str) -> str:
    """A fingerprint without the spaces, colons and 0x that people write into it."""
    plain = re.sub(r"[\s:]", "", text).upper()
    plain = plain[2:] if plain.startswith("0X") else plain
    if not re.fullmatch(r"[0-9A-F]{40}|[0-9A-F]{64}", plain):
        raise KeyFormatError(f"is {text!r}, and a fingerprint has 40 hexadecimal digits (64 for a version 6 key)")
    return plain


def _binary(data: bytes) -> bytes:
    if data[:1] and data[0] & 0x80:
        return data
    blocks = _BLOCK.findall(data.replace(b"\r\n", b"\n"))
    if not blocks:
        words = " ".join(data[:200].decode("utf-8", "replace").split())[:80]
        raise KeyFormatError(f"is no OpenPGP public key: it begins with {words!r}" if words else "is empty")
    return b"".join(map(_unarmoured, blocks))


def _unarmoured(block: bytes) -> bytes:
    lines = block.split(b"\n")
    if b"" in lines:  # headers (Version:, Comment:) end with an empty line
        lines = lines[lines.index(b"") + 1 :]
    try:
        return base64.b64decode(b"".join(line.strip() for line in lines if not line.startswith(b"=")), validate=True)
    except binascii.Error as error:
        raise KeyFormatError("is armoured, and its base64 is broken") from error


def _packets(data: bytes) -> Iterator[_Packet]:
    offset = 0
    while offset < len(data):
        try:
            tag, start, end = _header(data, offset)
        except IndexError as error:
            raise KeyFormatError("is cut off") from error
        if end > len(data):
            raise KeyFormatError("is cut off")
        yield _Packet(tag, data[start:end], data[offset:end])
        offset = end


def _header(data: bytes, offset: int) -> tuple[int, int, int]:
    """A packet's tag, and where its body begins and ends."""
    first = data[offset]
    if not first & 0x80:
        raise KeyFormatError(f"is no OpenPGP data at byte {offset}")
    if first & 0x40:
        tag, length = first & 0x3F, data[offset + 1]
        if length < 192:
            start = offset + 2
        elif length < 224:
            start, length = offset + 3, ((length - 192) << 8) + data[offset + 2] + 192
        elif length == 255:
            start, length = offset + 6, int.from_bytes(data[offset + 2 : offset + 6], "big")
        else:
            raise KeyFormatError("has a packet in parts, which keys don't have")
    else:
        tag, size = (first >> 2) & 0x0F, (1, 2, 4, 0)[first & 3]
        if not size:
            raise KeyFormatError("has a packet without a length, which keys don't have")
        start = offset + 1 + size
        data[start - 1]  # there at all
        length = int.from_bytes(data[offset + 1 : start], "big")
    return tag, start, start + length


def _fingerprint(body: bytes) -> str:
    version = body[0] if body else 0
    if version == 4:
        digest = hashlib.sha1(b"\x99" + len(body).to_bytes(2, "big") + body)  # noqa: S324  # what version 4 prescribes
    elif version == 6:
        digest = hashlib.sha256(b"\x9b" + len(body).to_bytes(4, "big") + body)
    else:
        raise KeyFormatError(f"is a version {version} key, of which apt makes nothing")
    return digest.hexdigest().upper()
