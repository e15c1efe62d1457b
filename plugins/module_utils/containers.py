# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which containers and instances on a host are this collection's."""

from __future__ import annotations

import json
import os
import re

NAME = re.compile(r"[a-z0-9][a-z0-9_-]*(-[0-9]+)?")  # of an instance
PROJECT = "com.docker.compose.project"
PREFIX = "iopaint-"  # begins the compose project of an instance
CANDIDATE = "candidate-"  # precedes that of an instance's candidate (tasks/prove_candidate.yml of the role iopaint)
SERVICES = ("iopaint-cpu", "iopaint-gpu")


def candidate_project(name):
    """Return the compose project of an instance's candidate; no project of an instance has this form."""
    return CANDIDATE + PREFIX + name


def projects(name):
    """Return the compose projects that an instance may have: its own, and that of its candidate."""
    return [PREFIX + name, candidate_project(name)]


def instance_of(container, top):
    """Return the instance that a container belongs to, None for somebody else's.

    container: the engine's document of it. top: the folder of the instances. A project of the same name in another folder is
    somebody else's.
    """
    labels = (container.get("Config") or {}).get("Labels") or {}
    folder = os.path.realpath(labels.get("com.docker.compose.project.working_dir", "/"))
    name = os.path.relpath(folder, os.path.realpath(top)).split(os.sep, maxsplit=1)[0]
    ours = labels.get(PROJECT) in projects(name) and labels.get("com.docker.compose.service") in SERVICES
    return name if ours and NAME.fullmatch(name) else None


def is_candidate(container, name):
    """Return whether a container of this instance is that of a candidate, a release started next to the current one."""
    return container["Config"]["Labels"][PROJECT] == candidate_project(name)


def documents(docker, *options):
    """Return the engine's documents of the running containers, with the option --all of all. docker: a Docker of docker_cli."""
    _rc, out, _err = docker.run("ps", "--quiet", "--no-trunc", *options, check_rc=True)
    if not out.split():
        return []
    _rc, out, _err = docker.run("inspect", "--type", "container", *out.split())  # one that has ended by now is left out
    return json.loads(out)


def published(container):
    """Return the pairs of address and TCP port that a container publishes. container: the engine's document of it."""
    ports = ((container.get("NetworkSettings") or {}).get("Ports") or {}).items()
    bindings = [each for name, found in ports if name.endswith("/tcp") for each in found or []]
    return [(each.get("HostIp") or "0.0.0.0", int(each["HostPort"])) for each in bindings]  # noqa: S104


def unhealthy_projects(docker):
    """Return the compose projects with a container that the engine calls unhealthy. docker: a Docker of docker_cli."""
    row = f'{{{{.Label "{PROJECT}"}}}}'
    filters = ("--filter", f"label={PROJECT}", "--filter", "health=unhealthy")
    _rc, out, _err = docker.run("ps", *filters, "--format", row)
    return set(out.splitlines())


def folders(top):
    """Return the names of the instances that have releases below top."""
    found = sorted(os.listdir(top)) if os.path.isdir(top) else []
    return [name for name in found if NAME.fullmatch(name) and os.path.isdir(os.path.join(top, name, "releases"))]
