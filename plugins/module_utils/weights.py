# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Weights in the folder of models, which containers can write: found and put there without following a link."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re

from ansible_collections.iopaint.fleet.plugins.module_utils import files

CHUNK = 2**20
MODE = 0o644  # the containers' user reads them


class WeightsError(Exception):
    """What is wrong with weights, for the person who has to do something about it."""


class Checked:
    """A stream that compares what passes with a checksum, written as ALGORITHM:HEX."""

    def __init__(self, stream, checksum):
        """Take both."""
        algorithm, _colon, wanted = checksum.partition(":")
        self.stream, self.wanted = stream, re.sub(r"\W", "", wanted).lower()  # as get_url reads it
        self.digest = hashlib.new(algorithm)  # iopaint_models says which

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


@contextlib.contextmanager
def opened(models_dir, model):
    """Open the weights of a model (path, relative to the folder), or yield None where there are none that are a regular file."""
    above, name = os.path.split(model["path"])
    with contextlib.ExitStack() as stack:
        try:
            top = stack.enter_context(files.folder(models_dir))
            stream = stack.enter_context(files.regular(stack.enter_context(files.below(top, above)), name))
        except OSError:
            stream = None
        yield stream


def has(models_dir, model):
    """Return whether the folder has the weights of a model, with the right checksum."""
    with opened(models_dir, model) as stream:
        return stream is not None and has_checksum(stream, model["checksum"])


@contextlib.contextmanager
def placing(models_dir, model, owner):
    """Yield a stream for the weights of a model. They are in their place at the end, if their checksum is right.

    Folders below the folder of models that are missing are made for the owner. Raise WeightsError on another checksum.
    """
    above, name = os.path.split(model["path"])
    with (
        files.folder(models_dir, make=True) as top,
        files.below(top, above, make=True, owner=owner) as inner,
        files.replacing(inner, name, MODE, owner) as stream,
    ):
        checked = Checked(stream, model["checksum"])
        yield checked
        if not checked.is_right():
            raise WeightsError(f"{model['path']} has not the checksum {model['checksum']} of iopaint_models")
