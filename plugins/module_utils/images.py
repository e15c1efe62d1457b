# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which images on a host are this collection's, and which of their names."""

from __future__ import annotations

LABEL = "io.iopaint.fleet.recipe"
BASE = "io.iopaint.fleet.base"  # name and ID of the base image, an @ between
HELD = "iopaint-release"  # repository of the names that releases give to images whose own name may move
USER = 10001  # number of the images' own user and of its group
OURS = ("iopaint", HELD)


def labelled(image):
    """Return whether an image was built by this collection; image: the engine's document of it."""
    return LABEL in ((image.get("Config") or {}).get("Labels") or {})


def built_at(image):
    """Return when an image was built; its own time is its source's, so that the same source makes the same image."""
    labels = (image.get("Config") or {}).get("Labels") or {}
    return labels.get("org.opencontainers.image.created") or image.get("Created") or ""


def recorded_base(docker, names):
    """Return name and ID of the base of the newest image that was built from one of these names; None where none was."""
    found = []
    for image in find(docker):
        name, _at, base_id = ((image.get("Config") or {}).get("Labels") or {}).get(BASE, "").partition("@sha256:")
        if name in names and base_id:
            found.append((built_at(image), name, f"sha256:{base_id}"))
    return max(found)[1:] if found else None


def newest(docker):
    """Return the engine's document of the newest image that was built by this collection; None where there is none."""
    return max(filter(labelled, find(docker)), key=built_at, default=None)


def repository(name):
    """Return an image's name without tag and digest."""
    name = name.partition("@")[0]
    head, slash, tail = name.rpartition("/")
    return head + slash + tail.partition(":")[0]


def repositories(records):
    """Return the repositories whose names are ours: our own, and those that releases were asked for by."""
    names = [record.get(key) or "" for record in records for key in ("image", "asked")]
    return {*OURS, *map(repository, names)}


def find(docker):
    """Return the engine's documents of the images that carry our label, or a name that releases gave."""
    found = set()
    for chosen in (f"label={LABEL}", f"reference={HELD}"):
        _rc, out, _err = docker.run("images", "--quiet", "--no-trunc", "--filter", chosen)
        found.update(out.split())
    return [image for image in map(docker.image, sorted(found)) if image]
