#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: apt_packages
short_description: A vendor's packages in the wanted versions, held, and nothing else touched
version_added: 1.0.0
description:
  - Installs, upgrades or downgrades a set of packages together, removes those they conflict with, and holds them.
  - Says of a repository that fails what is wrong with it and what to do, where apt says C(is not signed) or nothing at all.
  - Asks the network for nothing while all is as wanted.
  - Simulates first, refuses when a package that is not named would be removed, and downloads before it removes anything.
    Removed packages leave their configuration and data behind.
options:
  packages:
    description:
      - The packages, each with its version.
      - An empty version takes the newest where the package is missing, and is content with what is there. V(latest) upgrades.
        Any other is installed exactly, up or down; V(28.5.2) finds C(5:28.5.2-1~debian.13~trixie). V(580.*) is content with any
        version that begins so, and else installs the newest of them.
    type: dict
    required: true
  requires:
    description: Further packages that have to be there in any version, and are never held.
    type: list
    elements: str
    default: []
  absent:
    description: Packages that conflict with them, removed if installed.
    type: list
    elements: str
    default: []
  hold:
    description: Whether C(apt upgrade) and unattended upgrades leave the packages alone. This module changes held ones as well.
    type: bool
    default: true
  source:
    description: The O(source) that the role apt_repository added under this name has to work; of others a warning is enough.
    type: str
    default: ""
  update:
    description: Refresh the lists even if nothing has to be installed, because the source has changed.
    type: bool
    default: false
  start_services:
    description: Whether services of newly installed packages are started at once, with their default configuration.
    type: bool
    default: true
  variables:
    description:
      - What to call things in messages, where a role hands its variables on.
      - Keys are C(source), C(proxy), C(components), C(fingerprints), and each package's name for its version.
    type: dict
    default: {}
  root:
    description: The folder that holds apt's configuration.
    type: path
    default: /etc/apt
  lists:
    description: The folder that holds apt's lists.
    type: path
    default: /var/lib/apt/lists
attributes:
  check_mode:
    description: Judges by the lists that the host has, as it can't refresh them.
    support: full
  diff_mode:
    description: Shows the versions before and after.
    support: full
seealso:
  - module: ansible.builtin.deb822_repository
author:
  - iopaint.fleet contributors (@iopaint)
"""

EXAMPLES = r"""
- name: The engine is installed in this version and held
  iopaint.fleet.apt_packages:
    packages:
      docker-ce: 28.5.2
      docker-ce-cli: 28.5.2
      containerd.io: ""
    absent: [docker.io, podman-docker]
    source: docker
    update: "{{ docker_source is changed }}"
    variables:
      docker-ce: docker_version
"""

RETURN = r"""
versions:
  description: The versions that are installed.
  returned: success, not in check mode for what is still to be installed
  type: dict
  sample: {docker-ce: "5:28.5.2-1~debian.13~trixie"}
removed:
  description: The conflicting packages that were removed.
  returned: success
  type: list
  elements: str
"""

import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.iopaint.fleet.plugins.module_utils.apt_output import advise, matches, removals, spellings, troubles
from ansible_collections.iopaint.fleet.plugins.module_utils.apt_sources import addresses, list_name

OPTIONS = [
    "-o",
    "DPkg::Lock::Timeout=300",
    "-o",
    "Acquire::Retries=2",
    "-o",
    "Acquire::http::Timeout=30",
    "-o",
    "Acquire::https::Timeout=30",
]
# A configuration file that somebody edited stays, without a question that nobody would answer.
CHANGE = ["-y", "--no-install-recommends", "--allow-downgrades", "--allow-change-held-packages"]
CHANGE += ["-o", "Dpkg::Options::=--force-confdef", "-o", "Dpkg::Options::=--force-confold"]
KEYS = "/var/cache/iopaint-fleet/apt-keys"  # where the role apt_repository keeps keys that it fetched
POLICY = "/usr/sbin/policy-rc.d"


class State(NamedTuple):
    """What dpkg knows of an installed package."""

    version: str
    held: bool


class Packages:
    """The packages as the host has them and as they should be."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.wanted = {name: str(version or "") for name, version in module.params["packages"].items()}
        self.requires, self.absent = module.params["requires"], module.params["absent"]
        self.result = {"changed": False, "versions": {}, "removed": []}

    def named(self, thing: str) -> str:
        """What the user knows the thing by."""
        return self.module.params["variables"].get(thing, thing)

    def fail(self, message: str, changed: bool = False) -> None:
        self.result["changed"] = changed
        self.module.fail_json(msg=message if changed else f"{message} No package was changed.", **self.result)

    def run(self) -> dict:
        before = self.installed([*self.wanted, *self.requires, *self.absent])
        conflicts = [name for name in self.absent if name in before]
        todo = [name for name, version in self.wanted.items() if not self.satisfied(before.get(name), version)]
        todo += [name for name in self.requires if name not in before]
        latest = [name for name, version in self.wanted.items() if version == "latest" and name in before]
        refresh = todo or latest or self.module.params["update"] or not self.listed()
        if refresh and not self.module.check_mode:
            self.update()
        todo += [name for name in latest if self.newer(name, before[name].version)]
        after = self.change(before, todo, conflicts) if todo or conflicts else before
        self.hold(after)
        self.result["versions"] = {name: after[name].version for name in self.wanted if name in after}
        if self.module._diff:
            texts = [
                self.listing(before),
                self.listing(self.planned(after, todo, conflicts) if self.module.check_mode else after),
            ]
            self.result["diff"] = {"before": texts[0], "after": texts[1], "before_header": "packages", "after_header": "packages"}
        return self.result

    # --- What is there

    def installed(self, names: Sequence[str]) -> dict[str, State]:
        _rc, out, _err = self.command("dpkg-query", "-W", "-f", "${Package}\t${Version}\t${db:Status-Abbrev}\n", *names)
        rows = [line.split("\t") for line in out.splitlines()]
        return {name: State(version, status[0] == "h") for name, version, status in rows if status[1:2] == "i"}

    @staticmethod
    def satisfied(state: State | None, version: str) -> bool:
        return state is not None and (version in {"", "latest"} or matches(state.version, version))

    def newer(self, name: str, version: str) -> bool:
        _rc, out, _err = self.command("apt-cache", "policy", name)
        candidate = re.search(r"(?m)^\s+Candidate: (\S+)", out)
        return bool(candidate) and self.command("dpkg", "--compare-versions", candidate[1], "gt", version)[0] == 0

    def available(self, name: str) -> list[str]:
        """The versions that the repositories have, the newest first."""
        _rc, out, _err = self.command("apt-cache", "madison", name)
        return list(dict.fromkeys(line.split("|")[1].strip() for line in out.splitlines() if line.count("|") == 2))

    # --- What becomes of it

    def update(self) -> None:
        """Refresh apt's lists; fail for the source that is asked for, warn of others."""
        for _round in range(24):
            rc, out, err = self.command("apt-get", *OPTIONS, "update")
            if rc == 0 or "Could not get lock" not in err:
                break
            time.sleep(5)
        source = self.module.params["source"]
        uris = self.source_uris()
        for uri, reason in troubles(f"{out}\n{err}"):
            if not uri or "Conflicting values" in reason:
                self.fail(f"apt can't work: {reason.rstrip('.')}. {self.culprits(uri)}")
            elif any(f"{uri.rstrip('/')}/".startswith(own) for own in uris):
                names = {key: self.named(key) for key in ("source", "proxy", "components", "fingerprints")}
                advice = advise(reason, {**names, "key": f"{KEYS}/{source}-*.key"})
                self.fail(f"The repository {source} at {uri} {advice.meaning}. {advice.action}")
            else:
                self.module.warn(f"apt: {uri}: {reason}")

    def source_uris(self) -> list[str]:
        path = f"{self.module.params['root']}/sources.list.d/{self.module.params['source']}.sources"
        if not os.path.exists(path):
            return []
        with open(path, encoding="utf-8", errors="replace") as file:
            return addresses(file.read(), self.command("dpkg", "--print-architecture")[1].strip())

    def listed(self) -> bool:
        """Whether apt has read each of the source's addresses before; after a failure it has not."""
        names = os.listdir(self.module.params["lists"]) if os.path.isdir(self.module.params["lists"]) else []
        return all(any(name.startswith(list_name(uri)) for name in names) for uri in self.source_uris())

    def culprits(self, uri: str) -> str:
        """The source files that name the address, or the advice to look."""
        folder = f"{self.module.params['root']}/sources.list.d"
        paths = [f"{self.module.params['root']}/sources.list", *(f"{folder}/{name}" for name in sorted(os.listdir(folder)))]
        files = []
        for path in filter(os.path.isfile, paths):
            with open(path, encoding="utf-8", errors="replace") as file:
                if uri and uri.rstrip("/") in file.read() and path.endswith((".list", ".sources")):
                    files.append(path)
        return (
            f"Remove the entry from one of {' and '.join(files)}."
            if files
            else f"Correct the files in {self.module.params['root']}."
        )

    def change(self, before: dict[str, State], todo: list[str], conflicts: list[str]) -> dict[str, State]:
        self.result.update(changed=True, removed=conflicts)
        if self.module.check_mode and not all(self.available(name) for name in todo):
            return before  # the lists of a fresh host don't know the source yet
        targets = [self.target(name) for name in todo]
        self.simulate([*targets, *(f"{name}-" for name in conflicts)], conflicts)
        if conflicts:
            self.simulate([f"{name}-" for name in conflicts], conflicts)
        if self.module.check_mode:
            return before
        self.apply("can't be downloaded", False, "--download-only", "install", *targets, *(f"{name}-" for name in conflicts))
        if conflicts:  # first, as packages that share files need not say so
            self.apply("can't be removed", True, "remove", *conflicts)
        with self.services(any(name not in before for name in todo)):
            if targets:
                self.apply("can't be installed", True, "install", *targets)
        return self.installed([*self.wanted, *self.requires, *self.absent])

    def target(self, name: str) -> str:
        """The package as apt-get is asked for it."""
        wanted = self.wanted.get(name, "")
        if wanted in {"", "latest"}:
            return name
        versions = self.available(name)
        for version in versions:
            if matches(version, wanted):
                return f"{name}={version}"
        known = ", ".join(dict.fromkeys(spellings(version)[2] for version in versions[:15])) or "no version at all"
        self.fail(f"{self.named(name)} is {wanted!r}, and the repositories have {name} in {known}.")
        raise AssertionError  # fail does not return

    def simulate(self, targets: list[str], conflicts: list[str]) -> None:
        if not targets:
            return
        rc, out, err = self.command("apt-get", *OPTIONS, *CHANGE, "--simulate", "install", *targets)
        if rc != 0:
            self.fail(f"apt finds no way to {' '.join(targets)}: {reasons(out, err)}")
        others = sorted(set(removals(out)) - set(conflicts))
        if others:
            self.fail(
                f"{', '.join(others)} would be removed with {' '.join(conflicts) or 'what is replaced'}, as it depends on that. "
                "Remove or replace it yourself if the host can do without."
            )

    def apply(self, problem: str, changed: bool, *arguments: str) -> None:
        rc, out, err = self.command("apt-get", *OPTIONS, *CHANGE, *arguments)
        if rc != 0:
            names = " ".join(word for word in arguments if not word.startswith("-"))
            self.fail(f"Packages {problem} (apt-get {names}): {reasons(out, err)}", changed)

    @contextmanager
    def services(self, new: bool) -> Iterator[None]:
        """Debian's way of saying that a package's installation starts no service."""
        deny = new and not self.module.params["start_services"] and not os.path.exists(POLICY)
        if deny:
            with open(POLICY, "w", encoding="utf-8") as file:
                file.write("#!/bin/sh\nexit 101\n")
            os.chmod(POLICY, 0o755)  # noqa: S103  # it is run, and anyone may read it
        try:
            yield
        finally:
            if deny:
                os.unlink(POLICY)

    def hold(self, states: dict[str, State]) -> None:
        hold = self.module.params["hold"]
        differ = [name for name in self.wanted if name in states and states[name].held is not hold]
        if not differ:
            return
        self.result["changed"] = True
        if not self.module.check_mode:
            selections = "".join(f"{name} {'hold' if hold else 'install'}\n" for name in differ)
            rc, out, err = self.command("dpkg", "--set-selections", data=selections)
            if rc != 0:
                self.fail(f"dpkg can't hold {' '.join(differ)}: {reasons(out, err)}", True)
        states.update({name: states[name]._replace(held=hold) for name in differ})

    # --- What is shown

    def planned(self, states: dict[str, State], todo: list[str], conflicts: list[str]) -> dict[str, State]:
        new = {
            name: State(self.wanted.get(name) or "(newest)", self.module.params["hold"] and name in self.wanted) for name in todo
        }
        return {**{name: state for name, state in states.items() if name not in conflicts}, **new}

    @staticmethod
    def listing(states: dict[str, State]) -> str:
        return "".join(f"{name} {state.version}{' held' if state.held else ''}\n" for name, state in sorted(states.items()))

    def command(self, program: str, *arguments: str, data: str | None = None) -> tuple[int, str, str]:
        environment = {"LC_ALL": "C", "LANGUAGE": "C", "DEBIAN_FRONTEND": "noninteractive", "NEEDRESTART_SUSPEND": "1"}
        path = self.module.get_bin_path(program, required=True)
        return self.module.run_command([path, *arguments], environ_update=environment, data=data)


def reasons(out: str, err: str) -> str:
    """apt's errors, or the end of what it said."""
    lines = [line[3:] for line in err.splitlines() if line.startswith("E: ")]
    unmet = re.findall(r"(?m)^ +\S+ : (?:Pre)?(?:Depends|Conflicts|Breaks): [^\n]*", out)
    found = [line.strip() for line in [*unmet, *lines]] or (err.strip() or out.strip()).splitlines()[-5:]
    return f"{'; '.join(found).rstrip('.')}."


def main() -> None:
    names = {"type": "list", "elements": "str", "default": []}
    module = AnsibleModule(
        argument_spec={
            "packages": {"type": "dict", "required": True},
            "requires": names,
            "absent": names,
            "hold": {"type": "bool", "default": True},
            "source": {"type": "str", "default": ""},
            "update": {"type": "bool", "default": False},
            "start_services": {"type": "bool", "default": True},
            "variables": {"type": "dict", "default": {}},
            "root": {"type": "path", "default": "/etc/apt"},
            "lists": {"type": "path", "default": "/var/lib/apt/lists"},
        },
        supports_check_mode=True,
    )
    module.exit_json(**Packages(module).run())


if __name__ == "__main__":
    main()
