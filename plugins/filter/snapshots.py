# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filters: what restic and iopaint-backup said, for the role iopaint_backup."""

from __future__ import annotations

import calendar
import json
import re
import time

from ansible.errors import AnsibleFilterError
from ansible_collections.iopaint.fleet.plugins.module_utils.exchange import TREE
from ansible_collections.iopaint.fleet.plugins.module_utils.network import USERINFO
from ansible_collections.iopaint.fleet.plugins.module_utils.text import plain

RUN = re.compile(r"\d{8}T\d{6}Z")
SHOWN = 20
HINTS = {
    "wrong password": "The key is not that of the repository: set iopaint_backup_key to the repository's.",
    "is there a repository at": "There is no repository there: correct iopaint_backup_repository, or run iopaint.fleet.backup.",
    "no space left": "There is no room left: free some, or keep fewer snapshots (iopaint_backup_keep_daily).",
    "host key verification failed": "The server is not known: add its public keys to iopaint_backup_ssh_known_hosts.",
    "permission denied (publickey": "The server does not accept the key: let it accept the public key that the play shows.",
    "already locked": "Another host works in the repository, or did until it was lost: wait half an hour.",
}


def entry_of(snapshot):
    """Return what is needed of a snapshot, None where it is not of this collection."""
    tags = snapshot.get("tags") or []
    tree = next((tag for tag in tags if TREE.fullmatch(tag)), None)
    run = next((tag for tag in tags if RUN.fullmatch(tag)), "")
    whole, _dot, rest = snapshot["time"].rstrip("Z").partition(".")
    seconds = calendar.timegm(time.strptime(whole, "%Y-%m-%dT%H:%M:%S"))
    moment = seconds * 10**9 + int(rest.ljust(9, "0") or 0)
    about = {"tree": tree, "id": snapshot["id"], "run": run, "time_ns": moment, "own": "own" in tags}
    return {**about, "host": snapshot["hostname"]} if tree else None


def called(tree, own):
    """Return what an operator reads of a tree. own: whether models are left out that can be fetched again."""
    return f"own {tree}" if own else tree


def there(known, host):
    """Return which backups of a host there are, or which hosts have some."""
    runs = {}
    for entry in known:
        if entry["host"] == host:
            runs.setdefault(entry["run"], []).append(f"{called(entry['tree'], entry['own'])} ({entry['id'][:8]})")
    if runs:
        return " There:" + "".join(f"\n  {run}: {', '.join(sorted(runs[run]))}" for run in sorted(runs, reverse=True)[:SHOWN])
    hosts = sorted({entry["host"] for entry in known})
    return f" Hosts that have snapshots in the repository (iopaint_restore_host): {', '.join(hosts) or 'none'}."


def restore_choice(snapshots, host, wanted, include, instances):
    """Return the snapshots to restore."""
    known = sorted(filter(None, map(entry_of, snapshots)), key=lambda entry: (entry["time_ns"], entry["run"]))
    chosen = {}
    for entry in known:
        tree, instance = entry["tree"], entry["tree"].partition("/")[2]
        meant = wanted in ("latest", entry["run"]) or (len(wanted) >= 4 and entry["id"].startswith(wanted))
        asked = tree.partition("/")[0] in include and (not instance or not instances or instance in instances)
        if entry["host"] == host and meant and asked:
            chosen[tree] = {key: entry[key] for key in ("tree", "id", "run", "time_ns", "own")}
    if not chosen and wanted != "latest":
        raise AnsibleFilterError(f"There is no backup {wanted} (iopaint_restore_snapshot) of {host}.{there(known, host)}")
    absent = [f"outputs/{name}" for name in instances if "outputs" in include and f"outputs/{name}" not in chosen]
    if wanted == "latest" or RUN.fullmatch(wanted):
        absent += [kind for kind in include if not absent and not any(tree.partition("/")[0] == kind for tree in chosen)]
    if absent or not chosen:
        raise AnsibleFilterError(f"There is no snapshot of {' and '.join(absent) or 'anything'} of {host}.{there(known, host)}")
    return list(chosen.values())


def restic_reason(result):
    """Return why a command of restic failed, with the variable to correct: the end of what each item printed, or its message."""
    items = [item for item in result.get("results") or [result] if item.get("failed")] or [result]
    said = " ".join(plain((item.get("stderr") or item.get("msg") or "")[-1500:]).strip() for item in items)
    said = USERINFO.sub("***", said)
    hints = [sentence for words, sentence in HINTS.items() if words in said.lower()]
    return " ".join([*hints[:1], said])


def lines_of(entries):
    """Return a line for each entry that was left out."""
    return "".join(f"\n  {entry['path']}: {entry['reason']}" for entry in entries)


def names_of(models):
    """Return a line for each model that was not backed up."""
    shown = [f"{one['hub']} {(one['revision'] or 'incomplete')[:12]}" if "hub" in one else one["name"] for one in models]
    more = [f"{len(shown) - SHOWN} more"] if len(shown) > SHOWN else []
    return "".join(f"\n  {plain(line)}" for line in shown[:SHOWN] + more)


def backup_report(run, repository):
    """Return what an operator reads of a run of iopaint-backup. run: result of the command."""
    try:
        result = json.loads(run["stdout"].strip().splitlines()[-1])
    except (ValueError, IndexError):
        return f"iopaint-backup failed: {plain(run.get('stderr') or run.get('stdout') or run.get('msg') or '')[-1500:]}"
    trees = {called(tree, tree == "models" and result["models"] == "own"): made for tree, made in result["snapshots"].items()}
    made = ", ".join(f"{tree} ({snapshot[:8]})" if snapshot else tree for tree, snapshot in trees.items())
    text = (
        f"{repository}: {result['run']}; {made or 'nothing'}; {result['files']} files of {result['bytes'] / 1e9:.3f} GB, "
        f"{result['added'] / 1e9:.3f} GB of it new"
    )
    if result["forgotten"]:
        text += f"; snapshots removed: {result['forgotten']}"
    if result["fetchable"]:
        size = sum(entry["bytes"] for entry in result["fetchable"]) / 1e9
        text += f"\nNot backed up, as they can be fetched again, {size:.3f} GB:{names_of(result['fetchable'])}"
    if result["unrecorded"]:
        text += "\nAll models are backed up, as no deploy has recorded which it fetches. Run iopaint.fleet.deploy first."
    if result["busy"]:
        text += f"\nBeing written, and left out:{lines_of(result['busy'])}"
    if result["left_out"]:
        text += f"\nLEFT OUT. The rest is backed up:{lines_of(result['left_out'])}"
    if run["rc"] not in (0, 3):
        reason = restic_reason({"msg": result["reason"]})
        text = f"{'Not everything was done' if result['snapshots'] else 'No backup was made'}. {reason}\n{text}"
    return text


class FilterModule:
    """The filters of this file."""

    def filters(self):
        """Return name and function of each."""
        return {"restore_choice": restore_choice, "restic_reason": restic_reason, "backup_report": backup_report}
