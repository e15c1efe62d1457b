# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Archives of images that others have made: which names `docker load` would give away."""

from __future__ import annotations

import contextlib
import json
import subprocess
import tarfile

ZSTD = b"\x28\xb5\x2f\xfd"
LISTS = ("manifest.json", "index.json", "repositories")  # each of them names images, to engines of different age
MOST = 16 * 2**20  # bytes of such a list
NAME = "io.containerd.image.name"


class ArchiveError(Exception):
    """Why an archive can't be read."""


@contextlib.contextmanager
def _plain(path, find):
    """Open an archive for tarfile, which reads every compression of `docker load` but zstd."""
    with open(path, "rb") as file:
        if file.read(4) != ZSTD:
            file.seek(0)
            yield file
            return
    program = find("zstd")
    if not program:
        raise ArchiveError("it is compressed with zstd, which is not on the host")
    command = [program, "-dcq", path]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            yield process.stdout
        finally:
            process.kill()


def _named(lists):
    """Return the names in the lists of an archive; lists: their values by name."""
    names = [tag for image in lists.get("manifest.json") or [] for tag in image.get("RepoTags") or []]
    entries = (lists.get("index.json") or {}).get("manifests") or []
    names += [entry["annotations"][NAME] for entry in entries if NAME in (entry.get("annotations") or {})]
    names += [f"{name}:{tag}" for name, tags in (lists.get("repositories") or {}).items() for tag in tags]
    return names


def short(name):
    """Return an image's name as `docker images` shows it."""
    return name.removeprefix("docker.io/").removeprefix("library/")


def names(path, find):
    """Return the names that the images of an archive have, as `docker save` wrote it; raise ArchiveError where it can't be read.

    find: gives the path of a program, or None.
    """
    lists = {}
    try:
        with _plain(path, find) as stream, tarfile.open(fileobj=stream, mode="r|*") as tar:
            for member in tar:
                place = member.name.removeprefix("./")
                if place in LISTS and member.isreg() and member.size <= MOST:
                    lists[place] = json.loads(tar.extractfile(member).read())
                elif place in LISTS:
                    raise ArchiveError(f"{place} in it is no list of images")
        return {short(name) for name in _named(lists)}
    except (OSError, EOFError, ValueError, TypeError, AttributeError, KeyError, tarfile.TarError) as error:
        raise ArchiveError(f"it can't be read ({error})") from error
