# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The manifest of a backup: every file, folder and link of its trees, and the sums by which they are known again.

A tree is a folder below the data folder that is backed up as a whole: `models`, or `outputs/<instance>`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections import Counter

SCHEMA = 1
NAME = "manifest.json"
FILE, FOLDER, LINK = "file", "folder", "link"
KINDS = ("models", "outputs")
TREE = re.compile(r"models|outputs/[^/.][^/]*")
BLOCK = 1 << 20
NAMED = 10  # of many faults, those that a message names


class DamagedError(ValueError):
    """What was read is no manifest, or not what it says."""


def trees_there(data):
    """Return the trees that the data folder holds."""
    found = ["models"] if os.path.isdir(os.path.join(data, "models")) else []
    outputs = os.path.join(data, "outputs")
    names = sorted(os.listdir(outputs)) if os.path.isdir(outputs) else []
    # What begins with a dot is a restore's own.
    return found + [f"outputs/{name}" for name in names if name[0] != "." and os.path.isdir(os.path.join(outputs, name))]


def kind(tree):
    """Return what a tree belongs to, models or outputs."""
    return tree.partition("/")[0]


def chosen(trees, include, instances):
    """Return those of the trees that are asked for, and the names of what is asked for and is not among them.

    include: kinds. instances: names whose outputs are meant, none for all.
    """
    wanted = [tree for tree in trees if kind(tree) in include and (tree == "models" or not instances or tree[8:] in instances)]
    absent = [f"outputs/{name}" for name in instances if "outputs" in include and f"outputs/{name}" not in wanted]
    return wanted, absent + [each for each in include if each not in map(kind, wanted) and not absent]


def entry_of(path, status, root):
    """Return a manifest's entry of one thing (its sum is added later), None where it is neither file, folder nor link."""
    entry = {"path": path, "mode": f"{stat.S_IMODE(status.st_mode):04o}", "mtime_ns": status.st_mtime_ns}
    if stat.S_ISREG(status.st_mode):
        return {**entry, "type": FILE, "size": status.st_size}
    if stat.S_ISDIR(status.st_mode):
        return {**entry, "type": FOLDER}
    if stat.S_ISLNK(status.st_mode):
        return {**entry, "type": LINK, "target": os.readlink(os.path.join(root, path))}
    return None


def scan(root, tree):
    """Return the entries of a tree by path, a folder before what it holds, and the paths that can't be in a manifest."""
    entries, odd = {}, []
    todo = [tree]
    while todo:
        path = todo.pop()
        try:
            entry = entry_of(path, os.lstat(os.path.join(root, path)), root)
            inside = sorted(os.listdir(os.path.join(root, path)), reverse=True) if entry and entry["type"] == FOLDER else []
        except FileNotFoundError:  # removed meanwhile
            continue
        if entry is None:
            odd.append(path)
            continue
        entries[path] = entry
        todo += [f"{path}/{name}" for name in inside]
    return entries, odd


def sha256(path):
    """Return a file's sum; a link is not followed."""
    digest = hashlib.sha256()
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb", buffering=0) as stream:
        while block := stream.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def signature(path):
    """Return what tells whether a file was written to: equal before and after means that it was not."""
    status = os.lstat(path)
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def open_for_writing():
    """Return device and number of each file that a process has open for writing: it may be half-written."""
    found = set()
    for process in filter(str.isdigit, os.listdir("/proc")):
        folder = f"/proc/{process}"
        try:
            for descriptor in os.listdir(f"{folder}/fd"):
                with open(f"{folder}/fdinfo/{descriptor}", encoding="ascii", errors="replace") as stream:
                    flags = next(line.split()[1] for line in stream if line.startswith("flags:"))
                if int(flags, 8) & os.O_ACCMODE != os.O_RDONLY:
                    status = os.stat(f"{folder}/fd/{descriptor}")
                    found.add((status.st_dev, status.st_ino))
        except (OSError, StopIteration):  # the process has ended or closed it, or it is not a file
            continue
    return found


# --- the document ----------------------------------------------------------------------------------------------------


def seal(document):
    """Return the sum over all of a manifest but the sum itself."""
    rest = {key: value for key, value in document.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def dump(document):
    """Return a manifest as the text of its file, its own sum in it."""
    return json.dumps({**document, "schema": SCHEMA, "sha256": seal({**document, "schema": SCHEMA})}, indent=1) + "\n"


def load(text):
    """Return the manifest of a text; raise DamagedError where it is not what dump wrote."""
    try:
        document = json.loads(text)
    except ValueError as error:
        raise DamagedError(f"its {NAME} can't be read: {error}") from error
    if not isinstance(document, dict) or document.get("schema") != SCHEMA or document.get("sha256") != seal(document):
        raise DamagedError(f"its {NAME} has been changed: it does not have the sum that it names")
    trees, paths = document["trees"], [entry["path"] for entry in document["entries"]]
    twice = {path for path, times in Counter(paths).items() if times > 1}
    folders = {entry["path"] for entry in document["entries"] if entry["type"] == FOLDER}
    for path in [*trees, *paths]:
        right = TREE.fullmatch(path) if path in trees else os.path.dirname(path) in folders  # nothing lies behind a link
        if not right or {"", ".", ".."} & set(path.split("/")) or path in twice:
            raise DamagedError(f"its {NAME} names {path!r}, which is not below its trees")
    return document


def of_tree(document, tree):
    """Return the entries of one tree by path, relative to the tree; the tree itself is '.'."""
    length = len(tree) + 1
    inside = (entry for entry in document["entries"] if entry["path"] == tree or entry["path"].startswith(f"{tree}/"))
    return {entry["path"][length:] or ".": entry for entry in inside}


def faults(folder, entries):
    """Return what of the entries is not in the folder, or is not what it was; one sentence each, without times and modes."""
    for path, entry in entries.items():
        place, shown = os.path.join(folder, path), entry["path"]
        try:
            status = os.lstat(place)
            if entry["type"] == LINK:
                same = stat.S_ISLNK(status.st_mode) and os.readlink(place) == entry["target"]
            else:
                same = (stat.S_ISREG if entry["type"] == FILE else stat.S_ISDIR)(status.st_mode)
            if not same:
                yield f"{shown} is no longer the {entry['type']} that it was"
            elif entry["type"] == FILE and status.st_size != entry["size"]:
                yield f"{shown} has {status.st_size} bytes and had {entry['size']}"
            elif entry["type"] == FILE and (found := sha256(place)) != entry["sha256"]:
                yield f"{shown} has another content (sha256 {found[:12]}… and not {entry['sha256'][:12]}…)"
        except FileNotFoundError:
            yield f"{shown} is missing"
        except OSError as error:
            yield f"{shown} can't be read: {error.strerror}"


def named(lines):
    """Return the first of many lines, and how many there are besides."""
    lines = list(lines)
    more = [f"and {len(lines) - NAMED} more"] if len(lines) > NAMED else []
    return "; ".join([*lines[:NAMED], *more])
