# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is known of a fleet, from what each host said of itself: a document, and a table of it."""

from __future__ import annotations

import re
from datetime import datetime, timezone

from ansible_collections.iopaint.fleet.plugins.plugin_utils import devices
from ansible_collections.iopaint.fleet.plugins.plugin_utils.table import cut, one_line, shown, text_table

SCHEMA = 1
COLUMNS = (
    "host",
    "instance",
    "variant",
    "release",
    "since",
    "health",
    "proof",
    "latency",
    "gpu",
    "driver",
    "disk",
    "backup",
    "lock",
    "note",
)
LEVELS = ("unseen", "broken", "attention", "ok")  # the worst first, as the rows are sorted
SERVING = ("healthy", "running")
ON_THE_WAY = ("starting",)
NOTHING = {"release": None, "since": None, "proof": None, "devices": [], "url": None, "container": None}
UNKNOWN = {  # of a host that could not be looked at
    "notes": [],
    "instances": [],
    "time": None,
    "engine": dict.fromkeys(("state", "reason", "version", "root")),
    "gpu": {"gpus": [], **dict.fromkeys(("driver_version", "problem", "advice"))},
    "disks": [],
    "models": {"files": [], "repositories": [], "reason": None},
    "lock": None,
    "backup": None,
}


# ---- what is wanted --------------------------------------------------------------------------------------------------


def stands_for(entry, name):
    """Return whether an entry of iopaint_instances asks for the instance of this name; [auto] makes one for each GPU."""
    wanted = str(entry.get("name"))
    auto = entry.get("variant") == "gpu" and list(map(str, entry.get("devices") or devices.AUTO)) == devices.AUTO
    return re.fullmatch(re.escape(wanted) + r"-\d+", name) is not None if auto else name == wanted


def compared(found, wanted):
    """Return the instances that a host has and those that it is to have, with what differs."""
    done = []
    for instance in found:
        listed = any(stands_for(entry, instance["name"]) for entry in wanted)
        more = [] if listed else ["It is not in iopaint_instances any more; iopaint.fleet.remove takes it away."]
        done.append({**instance, "listed": listed, "notes": [*instance["notes"], *more]})
    for entry in wanted:
        if not any(stands_for(entry, instance["name"]) for instance in found):
            about = {
                "name": str(entry.get("name")),
                "variant": entry.get("variant", "cpu"),
                "state": "not deployed",
                "listed": True,
            }
            done.append({**about, **NOTHING, "problems": ["It is in iopaint_instances and was not deployed yet."], "notes": []})
    return done


# ---- the document ----------------------------------------------------------------------------------------------------


def document(hosts, minimum, time=None):
    """Return what is known of the fleet, the worst first.

    hosts: result of instance_status by host, None for one that was not looked at. minimum: bytes that ought to be free on disks.
    """
    known = [of_host(name, result, minimum) for name, result in hosts.items()]
    known.sort(key=lambda host: (LEVELS.index(host["level"]), host["host"]))
    instances = [instance for host in known for instance in host["instances"]]
    return {
        "schema": SCHEMA,
        "time": time or datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "summary": {
            "hosts": len(known),
            "unseen": sum(host["level"] == "unseen" for host in known),
            "instances": sum(instance["state"] != "displaced" or instance["listed"] for instance in instances),
            "serving": sum(instance["state"] in SERVING for instance in instances),
            "broken": sum(instance["level"] == "broken" for instance in instances),
        },
        "hosts": known,
    }


def of_host(name, result, minimum):
    """Return what is known of one host."""
    if result is None or result["state"] != "ok":
        state = (result or {}).get("state", "failed")
        reason = (result or {}).get("reason") or "It was not looked at; the play's output says why."
        return {**UNKNOWN, "host": name, "level": "unseen", "own_level": "unseen", "state": state, "problems": [reason]}
    engine, instances = result["engine"], [of_instance(instance) for instance in result["instances"]]
    problems = [] if engine["state"] == "running" else [f"The Docker engine is {engine['state']}: {one_line(engine['reason'])}"]
    notes = host_notes(result, minimum) + ([] if instances else ["No instance is here, and none is wanted."])
    own = "broken" if problems else "attention" if notes else "ok"
    levels = [own, *(instance["level"] for instance in instances)]
    return {
        "host": name,
        "level": worst(levels),
        "own_level": own,
        "state": "engine " + engine["state"] if engine["state"] != "running" else "answers",
        "problems": problems,
        "notes": notes,
        "instances": sorted(instances, key=lambda instance: (LEVELS.index(instance["level"]), instance["name"])),
        **{key: result[key] for key in ("time", "engine", "gpu", "disks", "models", "lock", "backup")},
    }


def worst(levels):
    """Return the worst of some levels."""
    return min(levels, key=LEVELS.index)


def of_instance(instance):
    """Return an instance with its level."""
    good = instance["state"] in (*SERVING, *ON_THE_WAY) or (instance["state"] == "displaced" and not instance["listed"])
    odd = instance["state"] in ON_THE_WAY or instance["notes"] or instance["problems"]
    return {**instance, "level": "broken" if not good else "attention" if odd else "ok"}


def host_notes(result, minimum):
    """Return what is odd about a host and does not keep it from serving."""
    tight = [f"{disk['free'] / 1e9:.1f} GB at {disk['path']}" for disk in result["disks"] if disk["free"] < minimum]
    notes = [f"Free are {' and '.join(tight)}; iopaint_upgrade_min_free_gb asks for {minimum / 1e9:g}."] if tight else []
    if result["gpu"]["problem"] not in ("none", "no_gpu"):
        notes.append(result["gpu"]["advice"])
    lock = result["lock"]
    if lock:
        who = f"{lock.get('play') or 'a play'} by {lock.get('operator')} on {lock.get('controller')}"
        notes.append(f"Locked by {who}, since {lock.get('time', 'unknown')}.")
    backup = result["backup"]
    if backup and not backup["ok"]:
        notes.append(f"The last backup ({backup['time'] or 'unknown time'}) did not succeed: {one_line(backup['reason'])}")
    if result["models"]["reason"]:
        notes.append(f"The models could not be looked at: {one_line(result['models']['reason'])}")
    if result.get("restore"):
        notes.append("A restore was interrupted here; the next play that changes the host cleans up after it.")
    return notes


def wrong(host):
    """Return what is broken on a host of the document, one sentence each; nothing where all that is wanted serves."""
    broken = [instance for instance in host["instances"] if instance["level"] == "broken"]
    return [*host["problems"], *(f"{one['name']} is {one['state']}. {' '.join(one['problems'])}".rstrip() for one in broken)]


# ---- the table -------------------------------------------------------------------------------------------------------


def age(then, now):
    """Return how long ago a moment was, both as RFC 3339; None where that is not known."""
    try:
        seconds = int((moment(now) - moment(then)).total_seconds())
    except (TypeError, ValueError):
        return None
    for unit, size, smaller, small in (("d", 86400, "h", 3600), ("h", 3600, "min", 60)):
        if seconds >= size:
            return f"{seconds // size} {unit} {seconds % size // small} {smaller}"
    return f"{seconds // 60} min" if seconds >= 60 else f"{max(0, seconds)} s"


def moment(text):
    """Return a moment in UTC as the collection writes it."""
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)


def gpu_of(instance, gpus):
    """Return the GPUs of an instance: what it was handed, and what they are called."""
    if not instance["devices"]:
        return None
    handed = [str(device).rpartition("=")[2] for device in instance["devices"]]
    names = [
        one["name"]
        for one in gpus
        if any(short in (one["uuid"], "all") or short.partition(":")[0] == str(one["index"]) for short in handed)
    ]
    return ", ".join(handed) + (f" ({', '.join(dict.fromkeys(map(str, names)))})" if names else "")


def room(disk):
    """Return how much of a disk is free."""
    return f"{disk['free'] / 1e9:.1f} of {disk['total'] / 1e9:.1f} GB free"


def backed_up(host):
    """Return how long ago the last backup of a host was, whether it succeeded, and whether it left models out; or None."""
    backup = host["backup"]
    ago = backup and age(backup["time"], host["time"])
    ago = ago and (ago if backup["ok"] else f"failed, {ago}")
    return f"{ago}, own models" if ago and backup.get("models") == "own" else ago


def rows(host):
    """Return the rows of one host, a dictionary of texts each; what is said of the host itself stands in the first.

    own_level and own_note are those of the row's instance alone.
    """
    gpu = host["gpu"]
    tight = min(host["disks"], key=lambda disk: disk["free"], default=None)
    lock = host["lock"]
    about = {
        **dict.fromkeys(COLUMNS),
        "host": host["host"],
        "driver": gpu["driver_version"],
        "disk": tight and room(tight),
        "backup": backed_up(host),
        "lock": lock and f"{lock.get('play') or 'a play'} by {lock.get('operator')}",
    }
    said = " ".join([*host["problems"], *host["notes"]])
    for instance in host["instances"] or [None]:
        if instance is None:
            names = ", ".join(dict.fromkeys(str(one["name"]) for one in gpu["gpus"]))
            yield {
                **about,
                "level": host["own_level"],
                "own_level": host["own_level"],
                "health": host["state"],
                "gpu": names,
                "note": said,
                "own_note": said,
            }
            continue
        proof, release = instance["proof"] or {}, instance["release"] or {}
        latency = proof.get("latency_ms")
        yield {
            **about,
            "level": worst([instance["level"], host["own_level"] if said else "ok"]),
            "own_level": instance["level"],
            "instance": instance["name"],
            "variant": instance["variant"],
            "release": release.get("id"),
            "since": age(instance["since"], host["time"]),
            "health": instance["state"],
            "proof": age(proof.get("time"), host["time"]),
            "latency": None if latency is None else f"{latency:.0f} ms",
            "gpu": gpu_of(instance, gpu["gpus"]),
            "own_note": " ".join([*instance["problems"], *instance["notes"]]),
            "note": " ".join([*instance["problems"], *instance["notes"], said]).strip(),
        }
        said = ""


def every_row(fleet, by="level"):
    """Return the rows of all hosts of a document, the worst first whichever host they are on; by: level, or own_level."""
    found = [row for host in fleet["hosts"] for row in rows(host)]
    return sorted(found, key=lambda row: LEVELS.index(row[by]))


def table(fleet):
    """Return the table of a document, its heading first."""
    cells = [[cut(one_line(shown(row[column]))) for column in COLUMNS] for row in every_row(fleet)]
    return text_table([list(COLUMNS), *cells])


def summary(fleet):
    """Return a document in one sentence."""
    counts = fleet["summary"]
    what = f"{counts['serving']} of {counts['instances']} instances on {counts['hosts']} hosts serve"
    return f"{what}; broken: {counts['broken']}, hosts that could not be looked at: {counts['unseen']}."
