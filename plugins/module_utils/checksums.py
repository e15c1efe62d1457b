# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Checksums written as ALGORITHM:HEX, as Ansible's own modules take them."""

from __future__ import annotations

import hashlib
import re

CHUNK = 2**20


class Checked:
    """A stream that compares what passes with a checksum, written as ALGORITHM:HEX."""

    def __init__(self, stream, checksum):
        """Take both."""
        algorithm, _colon, wanted = checksum.partition(":")
        self.stream, self.wanted = stream, re.sub(r"\W", "", wanted).lower()  # as get_url reads it
        self.digest = hashlib.new(algorithm)  # whoever gives the checksum says which

    def read(self, length):
        """Return the next piece."""
        piece = self.stream.read(length)
        self.digest.update(piece)
        return piece

    def write(self, piece):
        """Write a piece."""
        self.digest.update(piece)
        return self.stream.write(piece)

    def is_right(self):
        """Return whether all that has passed has the checksum."""
        return self.digest.hexdigest() == self.wanted


def has_checksum(stream, checksum):
    """Return whether the rest of a stream has the checksum."""
    checked = Checked(stream, checksum)
    while checked.read(CHUNK):
        pass
    return checked.is_right()
