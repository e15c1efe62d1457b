# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which containers and instances on a host are this collection's."""

from __future__ import annotations

import os
import re

NAME = re.compile(r"[a-z0-9][a-z0-9_-]*(-[0-9]+)?")  # of an instance
PROJECT = "com.docker.compose.project"
PREFIX = "iopaint-"  # of the compose project of an instance
SERVICES = ("iopaint-cpu", "iopaint-gpu")


def instance_of(container, top):
    """Give the instance that a container runs, None for somebody else's.

    container: the engine's document of it. top: folder with a folder for each instance, which is what makes it ours: a project of
    the same name that compose was given from elsewhere is its owner's.
    """
    labels = (container.get("Config") or {}).get("Labels") or {}
    project = labels.get(PROJECT, "")
    name = project[len(PREFIX) :]
    if not project.startswith(PREFIX) or not NAME.fullmatch(name) or labels.get("com.docker.compose.service") not in SERVICES:
        return None
    home = os.path.join(os.path.realpath(top), name)
    folder = os.path.realpath(labels.get("com.docker.compose.project.working_dir", "/"))
    return name if folder == home or folder.startswith(home + os.sep) else None


def folders(top):
    """Give the names of the instances that have releases below top."""
    found = sorted(os.listdir(top)) if os.path.isdir(top) else []
    return [name for name in found if NAME.fullmatch(name) and os.path.isdir(os.path.join(top, name, "releases"))]
