# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filters: what maintenance changed on a host, and the table of what came of each host."""

from __future__ import annotations

import re

from ansible_collections.iopaint.fleet.plugins.module_utils.text import version_changes
from ansible_collections.iopaint.fleet.plugins.plugin_utils import table

HEADING = ("host", "outcome", "engine", "packages", "reboot", "seconds", "reason")
FLAVOUR = re.compile(r"^[^-]+-(\d+-)?")  # what stands before it in the name of a kernel


def facts(text):
    """Return the facts of roles/iopaint_maintain/files/state, by name, with packages as a dictionary and kernels as a list."""
    found = {"packages": {}, "installed": []}
    for line in text.splitlines():
        name, _space, value = line.partition(" ")
        if name == "package":
            package, _space, found["packages"][package] = value.partition(" ")
        elif name == "installed":
            found["installed"].append(value)
        else:
            found[name] = value.strip()
    return found


def reboot_needed(state):
    """Return why a host needs a reboot, empty where it does not.

    An update asks for one, or a newer kernel of the running one's flavour is installed. In a container no kernel counts, as the
    running one is another host's.
    """
    if "asked" in state:
        return f"asked for by {state['asked']}" if state["asked"] else "asked for by /run/reboot-required"
    running = state.get("kernel", "")
    kernels = [kernel for kernel in state["installed"] if FLAVOUR.sub("", kernel) == FLAVOUR.sub("", running)]
    if running in kernels[:-1]:
        return f"{running} runs and {kernels[-1]} is installed"
    return ""


def maintenance_changes(before, after):
    """Return what differs between two outputs of roles/iopaint_maintain/files/state; nothing where one is missing."""
    result = {"engine": "", "packages": [], "rebooted": False, "reboot_needed": ""}
    if not before or not after:
        return result
    old, new = facts(before), facts(after)
    engines = [state.get("engine") or "none" for state in (old, new)]
    notes = ["new settings"] if old.get("settings") != new.get("settings") else []
    notes += ["restarted"] if old.get("started") != new.get("started") else []
    result["engine"] = " → ".join(dict.fromkeys(engines)) + (f" ({', '.join(notes)})" if notes else "")
    result["packages"] = version_changes(old["packages"], new["packages"])
    result["rebooted"] = old.get("boot") != new.get("boot")
    result["reboot_needed"] = reboot_needed(new)
    return result


def cells(host, result):
    """Return the cells of one host."""
    changes = result.get("changes") or maintenance_changes("", "")
    packages = changes["packages"]
    listed = table.cut(f"{len(packages)}: {', '.join(packages)}") if packages else None
    reboot = ", ".join(filter(None, ["rebooted" * changes["rebooted"], "needed" * bool(changes["reboot_needed"])]))
    values = [result["outcome"], changes["engine"], listed, reboot, result.get("seconds")]
    return [host, *map(table.shown, [*values, table.cut(table.one_line(result.get("reason") or changes["reboot_needed"]))])]


def maintenance_table(hosts):
    """Return the table."""
    rows = [cells(host["inventory_hostname"], host.get("iopaint_maintained") or {"outcome": "not reached"}) for host in hosts]
    return table.text_table([list(HEADING), *rows])


class FilterModule:
    """The filters of this file."""

    def filters(self):
        """Return name and function."""
        return {"maintenance_changes": maintenance_changes, "maintenance_table": maintenance_table}
