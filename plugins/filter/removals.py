# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filters: what an operator is told of instances that go, or that ought to."""

from __future__ import annotations

import json

KINDS = ("container", "network", "image", "folder", "file", "data")


def removal_summary(result, dry=False):
    """Return the lines."""
    counts = {kind: sum(line.startswith(f"{kind} ") for line in result["removed"]) for kind in KINDS}
    what = ", ".join(f"{count} {kind}{'s' if count > 1 and kind != 'data' else ''}" for kind, count in counts.items() if count)
    verb = "Would be removed" if dry else "Removed"
    names = f" ({', '.join(result['instances'])})" if result["instances"] else ""
    lines = [f"{verb}{names}: {what}." if what else "Nothing to remove."]
    if result["remaining"]:
        lines.append(f"Still here: {', '.join(result['remaining'])}.")
    if result["kept"]:
        lines.append(f"Images that stay, as a container of somebody else's was made from them: {', '.join(result['kept'])}.")
    if result["data"] and not (dry and counts["data"]):
        lines.append(f"Data stays: {', '.join(result['data'])} (iopaint_remove_data).")
    return "\n".join(lines)


def removal_hint(names, host):
    """Return what is not wanted any more and which command takes it away, in two lines, which YAML does not quote."""
    command = f"ansible-playbook iopaint.fleet.remove -l {host} -e '{json.dumps({'iopaint_remove_instances': names})}'"
    return f"On this host and not in iopaint_instances: {', '.join(names)}. To remove it, its data excepted:\n{command}"


class FilterModule:
    """The filters of this file."""

    def filters(self):
        """Return name and function."""
        return {"removal_summary": removal_summary, "removal_hint": removal_hint}
