#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: apt_pinned
short_description: Packages at one exact version, held there
version_added: 0.1.0
description:
  - Installs, upgrades or downgrades packages to exact versions and holds them, so that neither an upgrade by hand nor an
    unattended one moves them.
  - Answers from dpkg's database alone where all is as wanted, without a look at package lists or network.
  - Names the versions that the host's package sources have where the wanted one is missing.
options:
  packages:
    description: Names, or C(name=version) where one package has its own version.
    type: list
    elements: str
    required: true
  version:
    description:
      - The version of the packages that name none. V(*) stands for anything, as in V(550.*).
      - Without one, any installed version is taken as it is.
    type: str
  hold:
    description: Whether apt is to keep the packages at their version.
    type: bool
    default: true
  variable:
    description: The variable that decides the version, for the error message.
    type: str
    default: version
  lock_timeout:
    description: How long, in seconds, to wait for another apt to end.
    type: int
    default: 300
attributes:
  check_mode:
    support: full
    description: Changes nothing, and says what would be installed and held.
  diff_mode:
    support: full
    description: Shows each package's version and hold.
author: iopaint.fleet contributors (@iopaint)
"""

EXAMPLES = r"""
- name: The toolkit is installed at one version and stays there
  iopaint.fleet.apt_pinned:
    packages: [nvidia-container-toolkit, nvidia-container-toolkit-base]
    version: 1.20.0-1
"""

RETURN = r"""
installed:
  description: Packages that were installed or moved to another version, as C(name=version).
  returned: success
  type: list
  elements: str
  sample: [nvidia-container-toolkit=1.20.0-1]
versions:
  description: Each package's installed version; in check mode that before the run.
  returned: success
  type: dict
  sample: {nvidia-container-toolkit: 1.20.0-1}
"""

import os
import re
from fnmatch import fnmatchcase

from ansible.module_utils.basic import AnsibleModule

APT = ["-y", "-q", "-o", "Dpkg::Options::=--force-confdef", "-o", "Dpkg::Options::=--force-confold"]
ENVIRONMENT = {"DEBIAN_FRONTEND": "noninteractive", "NEEDRESTART_MODE": "l", "LC_ALL": "C"}


def wanted(packages: list, version: str | None) -> dict:
    """Package -> version pattern."""
    pairs = (package.partition("=") for package in packages)
    return {name: own or version or "*" for name, _, own in pairs}


def installed(listing: str) -> dict:
    """Package -> version of dpkg-query's lines 'ii  name version'; packages that are removed but configured have none."""
    rows = (line.split() for line in listing.splitlines())
    return {row[1].partition(":")[0]: row[2] for row in rows if len(row) == 3 and row[0][1:2] == "i"}


def offered(listing: str) -> dict:
    """Package -> versions, newest first, of apt-cache madison's lines 'name | version | source'."""
    versions: dict = {}
    for line in listing.splitlines():
        fields = [field.strip() for field in line.split("|")]
        if len(fields) == 3 and fields[1] not in versions.setdefault(fields[0], []):
            versions[fields[0]].append(fields[1])
    return versions


class Host:
    """The host's apt and dpkg, run for the module."""

    def __init__(self, module: AnsibleModule):
        """Take the module that runs."""
        self.module = module

    def run(self, *command: str, check: bool = True) -> str:
        rc, out, err = self.module.run_command(list(command), environ_update=ENVIRONMENT)
        if check and rc != 0:
            problems = [line for line in (err + out).splitlines() if re.match(r"[EW]: |dpkg: ", line)]
            self.module.fail_json(
                msg=f"{' '.join(command[:2])} failed: {' '.join(problems) or (err or out).strip()}", rc=rc, stdout=out, stderr=err
            )
        return out

    def apt_get(self, *command: str) -> str:
        timeout = f"DPkg::Lock::Timeout={self.module.params['lock_timeout']}"
        return self.run("apt-get", *command, *APT, "-o", timeout)

    def versions(self, names: list) -> dict:
        return installed(self.run("dpkg-query", "-W", "-f", "${db:Status-Abbrev} ${Package} ${Version}\n", *names, check=False))

    def held(self, names: list) -> set:
        return set(self.run("apt-mark", "showhold").split()) & set(names)

    def resolve(self, patterns: dict) -> list:
        """name=version for each pattern, of the versions that the package sources have."""
        on_offer = offered(self.run("apt-cache", "madison", *patterns, check=False))
        found = {
            name: next((version for version in on_offer.get(name, []) if fnmatchcase(version, pattern)), None)
            for name, pattern in patterns.items()
        }
        missing = [name for name, version in found.items() if version is None]
        if missing:
            name = missing[0]
            have = f"they have {', '.join(on_offer[name])}" if on_offer.get(name) else "they don't have the package at all"
            self.module.fail_json(
                msg=f"{name}={patterns[name]} is not in this host's package sources: {have}. Correct "
                f"{self.module.params['variable']}, or the sources in /etc/apt/sources.list.d. Nothing was installed."
            )
        return [f"{name}={version}" for name, version in found.items()]


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "packages": {"type": "list", "elements": "str", "required": True},
            "version": {"type": "str"},
            "hold": {"type": "bool", "default": True},
            "variable": {"type": "str", "default": "version"},
            "lock_timeout": {"type": "int", "default": 300},
        },
        supports_check_mode=True,
    )
    if not os.path.exists("/usr/bin/apt-get"):
        module.fail_json(msg="This host has no apt-get: apt_pinned is for Debian and Ubuntu.")
    host = Host(module)
    patterns = wanted(module.params["packages"], module.params["version"])
    names = list(patterns)
    before, held = host.versions(names), host.held(names)
    moving = {
        name: pattern
        for name, pattern in patterns.items()
        if not fnmatchcase(before.get(name, ""), pattern) or name not in before
    }
    holding = set(names) - held if module.params["hold"] else set()
    releasing = set() if module.params["hold"] else held

    changes = [f"{name}={pattern}" for name, pattern in moving.items()]
    after = {**before, **moving}
    if moving and not module.check_mode:
        host.apt_get("update")
        changes = host.resolve(moving)
        host.apt_get("install", "--no-install-recommends", "--allow-downgrades", "--allow-change-held-packages", *changes)
        after = host.versions(names)
    if not module.check_mode:
        for verb, packages in (("hold", holding), ("unhold", releasing)):
            if packages:
                host.run("apt-mark", verb, *sorted(packages))

    def describe(versions: dict, hold: set) -> str:
        return "".join(f"{name} {versions.get(name, '(none)')}{' held' if name in hold else ''}\n" for name in names)

    module.exit_json(
        changed=bool(moving or holding or releasing),
        installed=changes,
        versions=before if module.check_mode else after,
        diff={"before": describe(before, held), "after": describe(after, (held | holding) - releasing)},
    )


if __name__ == "__main__":
    main()
