# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What lies in the folder of models: files of weights, and repositories of a hub by revision; found and removed by no link.

Containers can write the folder, so each folder in it is opened from the one above it, and what a link names is never looked at.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat

from ansible_collections.iopaint.fleet.plugins.module_utils import files

HUB = "huggingface/hub"  # below the folder of models
WEIGHTS = (".pt", ".pth", ".onnx", ".safetensors", ".ckpt", ".bin", ".pkl")  # names of files with weights end so
REPOSITORY = re.compile(r"models--([A-Za-z0-9_.-]+?)--([A-Za-z0-9_.-]+)")
COMMIT = re.compile("[0-9a-f]{40}")
DEEPEST = 20  # folders inside each other
MOST_TEXT = 100


def listed(folder):
    """Return the names in an open folder, sorted."""
    return sorted(os.listdir(folder))


def entry(folder, name):
    """Return the status of an entry of an open folder, None where it is gone; no link is followed."""
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except OSError:
        return None


@contextlib.contextmanager
def inner(folder, path):
    """Open a folder below an open one, or yield None where it is missing or no folder."""
    with contextlib.ExitStack() as stack:
        try:
            found = stack.enter_context(files.below(folder, path))
        except OSError:
            found = None
        yield found


def regular_files(folder, prefix="", depth=0):
    """Yield path and size of the regular files below an open folder, however deep, but for the hub's cache."""
    for name in listed(folder):
        path, status = f"{prefix}{name}", entry(folder, name)
        if status is None or path == "huggingface":
            continue
        if stat.S_ISREG(status.st_mode):
            yield path, status.st_size
        elif stat.S_ISDIR(status.st_mode) and depth < DEEPEST:
            with inner(folder, name) as below:
                if below is not None:
                    yield from regular_files(below, f"{path}/", depth + 1)


def blobs_of(folder, prefix="", depth=0):
    """Return the files of a snapshot, an open folder: by path, the name of the blob that a link names; None for a file itself."""
    found = {}
    for name in listed(folder):
        path, status = f"{prefix}{name}", entry(folder, name)
        if status is None:
            continue
        if stat.S_ISLNK(status.st_mode):
            with contextlib.suppress(OSError):
                found[path] = os.path.basename(os.readlink(name, dir_fd=folder))
        elif stat.S_ISREG(status.st_mode):
            found[path] = None
        elif stat.S_ISDIR(status.st_mode) and depth < DEEPEST:
            with inner(folder, name) as below:
                found.update(blobs_of(below, f"{path}/", depth + 1) if below is not None else {})
    return found


def sizes(folder, path):
    """Return the sizes of the regular files of a folder below an open one, by name."""
    with inner(folder, path) as found:
        if found is None:
            return {}
        known = {name: entry(found, name) for name in listed(found)}
    return {name: status.st_size for name, status in known.items() if status and stat.S_ISREG(status.st_mode)}


def main_of(folder):
    """Return the commit that main of a repository's cache, an open folder, names; None where there is none."""
    with inner(folder, "refs") as refs:
        if refs is None:
            return None
        try:
            with files.regular(refs, "main") as stream:
                text = stream.read(MOST_TEXT).decode("ascii").strip()
        except (OSError, ValueError):
            return None
    return text if COMMIT.fullmatch(text) else None


def revisions(folder):
    """Return the revisions of a repository, an open folder: commit, bytes, its files, and the blobs that each links to."""
    blobs, found = sizes(folder, "blobs"), []
    with inner(folder, "snapshots") as snapshots:
        for commit in listed(snapshots) if snapshots is not None else []:
            if COMMIT.fullmatch(commit):
                with inner(snapshots, commit) as snapshot:
                    parts = blobs_of(snapshot) if snapshot is not None else {}
                    own = sum(size for _path, size in regular_files(snapshot)) if snapshot is not None else 0
                linked = {blob for blob in parts.values() if blob is not None}
                size = own + sum(blobs.get(name, 0) for name in linked)
                found.append({"revision": commit, "bytes": size, "blobs": linked, "files": parts})
    return found


def stored(models_dir):
    """Return what the folder of models has: `files` (path, bytes) and `repositories` (hub, revision, current, bytes).

    A repository with nothing complete has one entry with the revision None. current: whether IOPaint loads that revision.
    """
    found = {"files": [], "repositories": []}
    with files.present(models_dir) as top:
        if top is None:
            return found
        found["files"] = [
            {"path": path, "bytes": size}
            for path, size in regular_files(top)
            if path.endswith(WEIGHTS) and not os.path.basename(path).startswith(".")
        ]
        with inner(top, HUB) as hub:
            for name in listed(hub) if hub is not None else []:
                known = REPOSITORY.fullmatch(name)
                with inner(hub, name) as folder:
                    if not known or folder is None:
                        continue
                    about, current = {"hub": f"{known[1]}/{known[2]}"}, main_of(folder)
                    some = [{key: each[key] for key in ("revision", "bytes")} for each in revisions(folder)]
                    some = some or [{"revision": None, "bytes": sum(sizes(folder, "blobs").values())}]
                    found["repositories"] += [
                        {**about, **each, "current": each["revision"] is not None and each["revision"] == current}
                        for each in some
                    ]
    return found


def parts(models_dir, hub):
    """Return the files of the revision that IOPaint loads of a repository, as a bundle has them.

    Each has `path`, at which a library of the hub finds it, and `source`, the file with its content, below the folder of models.
    There are no links among them, which such a library does without. None where the repository or a revision is missing.
    """
    top = f"{HUB}/models--{hub.replace('/', '--')}"
    with files.present(models_dir) as models, contextlib.ExitStack() as stack:
        folder = stack.enter_context(inner(models, top)) if models is not None else None
        commit = main_of(folder) if folder is not None else None
        known = [each for each in revisions(folder) if each["revision"] == commit] if commit else []
        record = f"fetched/{commit}.json"
        has_record = bool(known) and f"{commit}.json" in sizes(folder, "fetched")
    if not known:
        return None
    place = f"{top}/snapshots/{commit}"
    found = [
        {"path": f"{place}/{path}", "source": f"{place}/{path}" if blob is None else f"{top}/blobs/{blob}"}
        for path, blob in sorted(known[0]["files"].items())
    ]
    more = [f"{top}/{name}" for name in ([record] if has_record else []) + ["refs/main"]]  # main last: it makes the rest count
    return {"revision": commit, "files": found + [{"path": path, "source": path} for path in more]}


def _delete(folder, name):
    """Remove an entry of an open folder, with all that is in it."""
    files.remove(f"/proc/{os.getpid()}/fd/{folder}/{name}")


def remove_file(models_dir, path):
    """Remove a file of weights; return whether there was one."""
    above, name = os.path.split(path)
    with files.present(models_dir) as top, contextlib.ExitStack() as stack:
        folder = stack.enter_context(inner(top, above)) if top is not None else None
        status = entry(folder, name) if folder is not None else None
        if status is None or not stat.S_ISREG(status.st_mode):
            return False
        os.unlink(name, dir_fd=folder)
        return True


def remove_repository(models_dir, hub, commits):
    """Remove revisions of a repository, and the repository where none is left; return whether there was something.

    commits: those to remove; None stands for what is no whole revision.
    """
    name = "models--" + hub.replace("/", "--")
    with files.present(models_dir) as top, contextlib.ExitStack() as stack:
        above = stack.enter_context(inner(top, HUB)) if top is not None else None
        folder = stack.enter_context(inner(above, name)) if above is not None else None
        if folder is None:
            return False
        known = revisions(folder)
        staying = [each for each in known if each["revision"] not in commits]
        if not staying:
            _delete(above, name)
            return True
        going = [each for each in known if each["revision"] in commits]
        for each in going:
            shared = set().union(*(other["blobs"] for other in staying))
            for part, names in (
                ("snapshots", {each["revision"]}),
                ("fetched", {f"{each['revision']}.json"}),
                ("blobs", each["blobs"] - shared),
            ):
                with inner(folder, part) as place:
                    for one in names if place is not None else ():
                        if entry(place, one) is not None:
                            _delete(place, one)
        return bool(going)
