# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What of a source tree goes into an image."""

from __future__ import annotations

import os

FOLDERS = ("iopaint", "web_app")  # what an image is built from
PASSED_OVER = {".git", "node_modules", "__pycache__"}  # what the Dockerfile leaves out, in every folder
POINTER = b"version https://git-lfs.github.com/spec/v1\n"


def files(root, folders=FOLDERS):
    """Yield the paths of the files and links that an image is built from, sorted, relative to root."""
    for top in folders:
        for folder, names, found in os.walk(os.path.join(root, top)):
            dist = {"dist"} if os.path.relpath(folder, root) == "web_app" else set()
            names[:] = sorted(set(names) - PASSED_OVER - dist)
            links = [name for name in names if os.path.islink(os.path.join(folder, name))]
            for name in sorted(found + links):
                yield os.path.relpath(os.path.join(folder, name), root)


def pointers(root, folders=FOLDERS):
    """Return the files, among those that an image is built from, that Git LFS has left as pointers."""
    found = []
    for name in files(root, folders):
        path = os.path.join(root, name)
        if os.path.isfile(path) and os.path.getsize(path) < 1024:
            with open(path, "rb") as stream:
                if stream.read(len(POINTER)) == POINTER:
                    found.append(name)
    return found
