# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filters: what came of an upgrade, per host, from the fact iopaint_upgraded that each host's turn leaves behind."""

from __future__ import annotations

from ansible_collections.iopaint.fleet.plugins.plugin_utils import table

HEADING = ("host", "instance", "before", "after", "outcome", "seconds", "no service", "reason")
FAILURES = ("failed", "reverted")


def rows(host, result):
    """Return the cells of one host."""
    reason = table.cut(table.one_line(result.get("reason")))
    for instance in result.get("instances") or [{}]:
        gap = instance.get("without_service_s")
        outcome = instance.get("outcome") or result["outcome"]
        why = reason if outcome in FAILURES or outcome == result["outcome"] else ""
        why = table.cut(table.one_line(instance["reason"])) if instance.get("reason") else why
        cells = [instance.get("name"), instance.get("before"), instance.get("after"), outcome, result.get("seconds")]
        yield [host, *map(table.shown, [*cells, None if gap is None else f"{gap:.1f} s", why])]


def upgrade_table(hosts):
    """Return the table."""
    cells = [list(HEADING)]
    for host in hosts:
        cells += rows(host["inventory_hostname"], host.get("iopaint_upgraded") or not_reached(host))
    return table.text_table(cells)


def not_reached(host):
    """Return the result of a host that the roll did not reach."""
    return {"outcome": "not reached", "instances": upgraded_instances([], host.get("iopaint_listed", {}).get("instances", []))}


def upgraded_instances(released, listed, failures=()):
    """Return release before and after of each instance, with its own outcome where it has one.

    released: what the role made current. listed: what the module release found before (state listed), of which name and proven
    (the release that served, or None) are read. failures: the fact iopaint_outcomes. An instance in neither released nor failures
    stays at its previous release.
    """
    before = {item["name"]: item["proven"] for item in listed}
    done = {item["name"]: item for item in released}
    failed = {item["instance"]["name"]: item for item in failures}
    return [
        {
            "name": name,
            "before": before.get(name),
            "after": done.get(name, {}).get("id", before.get(name)),
            "without_service_s": done.get(name, {}).get("without_service_s"),
            **own_outcome(done.get(name), failed.get(name)),
        }
        for name in dict.fromkeys([*before, *done])
    ]


def own_outcome(released, failure):
    """Return outcome and reason of one instance, or nothing where it was not its turn."""
    if failure:
        return {"outcome": "reverted" if failure["reverted"] else "failed", "reason": failure["reason"]}
    if released:
        return {"outcome": "upgraded" if released.get("new") else "unchanged"}
    return {}


def upgrade_batches(hostvars):
    """Return how many hosts are upgraded at a time, as a play's serial takes it.

    hostvars: the variables of every host. The first host that has the fact iopaint_upgrade_plan decides. Before it is set (as
    with --syntax-check and --list-tasks) nothing is run, and one host at a time is as good as any.
    """
    plans = [hostvars[host].get("iopaint_upgrade_plan") for host in hostvars]
    return next((plan["batches"] for plan in plans if plan), [1])


def upgrade_failures(hosts, fact="iopaint_upgraded"):
    """Return how many hosts have failed so far, by the fact with their outcome."""
    return sum((host.get(fact) or {}).get("outcome") in FAILURES for host in hosts)


class FilterModule:
    """The filters of this file."""

    def filters(self):
        """Return name and function."""
        return {
            "upgrade_table": upgrade_table,
            "upgrade_batches": upgrade_batches,
            "upgrade_failures": upgrade_failures,
            "upgraded_instances": upgraded_instances,
        }
