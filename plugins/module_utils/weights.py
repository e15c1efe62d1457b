# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Weights in the folder of models, which containers can write: found and put there without following a link."""

from __future__ import annotations

import contextlib
import os

from ansible_collections.iopaint.fleet.plugins.module_utils import files
from ansible_collections.iopaint.fleet.plugins.module_utils.checksums import Checked, has_checksum

MODE = 0o644  # the containers' user reads them


class WeightsError(Exception):
    """What is wrong with weights, for the person who has to do something about it."""


@contextlib.contextmanager
def opened(models_dir, model):
    """Open the weights of a model (source or path, relative to the folder), or yield None where there is no such regular file."""
    above, name = os.path.split(model.get("source", model["path"]))
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
    # contextlib runs this generator to its end, so each of them is left.
    with (  # pylint: disable=contextmanager-generator-missing-cleanup
        files.folder(models_dir, make=True) as top,
        files.below(top, above, make=True, owner=owner) as inner,
        files.replacing(inner, name, MODE, owner) as stream,
    ):
        checked = Checked(stream, model["checksum"])
        yield checked
        if not checked.is_right():
            raise WeightsError(f"{model['path']} has not the checksum {model['checksum']}")
