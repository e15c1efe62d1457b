# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is known of a fleet's gateways, from what each said of itself: a part of the document of status.py, and its table."""

from __future__ import annotations

from ansible_collections.iopaint.fleet.plugins.plugin_utils.status import LEVELS, moment, worst
from ansible_collections.iopaint.fleet.plugins.plugin_utils.table import cut, one_line, shown, text_table

COLUMNS = ("gateway", "pool", "state", "servers", "waiting", "requests", "refused", "failed", "certificate")
HOUR = 3600
SOON = 21 * 86400  # both the role and certbot renew a certificate in its last 30 days
RENEW = "`ansible-playbook iopaint.fleet.gateway` renews it, or takes your new one."
UNKNOWN = {
    "pools": [],
    "elsewhere": {},
    "seconds": None,
    "certificate": {"from": None, "until": None},
    "version": None,
    "time": None,
}


def add(fleet, results):
    """Add the gateways to a document of status.py, the worst first.

    results: of gateway_status by host, None for one that was not looked at.
    """
    known = [of_gateway(name, result) for name, result in results.items()]
    known.sort(key=lambda gateway: (LEVELS.index(gateway["level"]), gateway["host"]))
    serving = sum(gateway["level"] not in ("unseen", "broken") for gateway in known)
    return {**fleet, "summary": {**fleet["summary"], "gateways": len(known), "gateways_serving": serving}, "gateways": known}


def of_gateway(name, result):
    """Return what is known of one gateway."""
    if result is None or result["state"] != "ok":
        state = (result or {}).get("state", "failed")
        reason = (result or {}).get("reason") or "It was not looked at; the play's output says why."
        return {
            **UNKNOWN,
            "host": name,
            "level": "unseen",
            "own_level": "unseen",
            "state": state,
            "problems": [reason],
            "notes": [],
        }
    problems, notes = faults(result), oddities(result)
    pools = [of_pool(pool) for pool in result["pools"]]
    own = "broken" if problems else "attention" if notes else "ok"
    return {
        "host": name,
        "level": worst([own, *(pool["level"] for pool in pools)]),
        "own_level": own,
        "state": result["haproxy"]["state"],
        "problems": problems,
        "notes": notes,
        "version": result["haproxy"]["version"],
        "pools": sorted(pools, key=lambda pool: (LEVELS.index(pool["level"]), pool["name"])),
        **{key: result[key] for key in ("time", "certificate", "elsewhere", "seconds")},
    }


def of_pool(pool):
    """Return a pool with its level."""
    good = pool["state"] in ("serves", "held")
    return {**pool, "level": "broken" if not good else "attention" if pool["notes"] else "ok"}


def faults(result):
    """Return what keeps a gateway from serving, one sentence each."""
    haproxy, certificate = result["haproxy"], result["certificate"]
    if haproxy["state"] != "running":
        return [f"HAProxy is {haproxy['state']}. {one_line(haproxy['reason'])}"]
    if not result["pools"]:
        return ["HAProxy runs and has no pool; iopaint.fleet.gateway sets it up."]
    if certificate["until"] and left(certificate["until"], result["time"]) <= 0:
        return [f"Its certificate ended at {certificate['until']}. {RENEW}"]
    if certificate["from"] and left(certificate["from"], result["time"]) > 0:
        return [f"Its certificate is valid from {certificate['from']} on, and the host's clock says {result['time']}."]
    return []


def oddities(result):
    """Return what is odd about a gateway and does not keep it from serving, one sentence each."""
    if result["haproxy"]["state"] != "running":
        return []
    certificate, found = result["certificate"], []
    if certificate["reason"]:
        found.append(f"How long its certificate is valid is not known: {one_line(certificate['reason'])}.")
    elif 0 < left(certificate["until"], result["time"]) < min(SOON, left(certificate["until"], certificate["from"]) / 4):
        found.append(f"Its certificate ends at {certificate['until']}. {RENEW}")
    if result["journal"]:
        found.append(f"Its requests are not known. {one_line(result['journal'])}")
    return found


def left(then, now):
    """Return the seconds until a moment."""
    return (moment(then) - moment(now)).total_seconds()


def wrong(gateway):
    """Return what is broken at a gateway, one sentence each."""
    broken = [pool for pool in gateway["pools"] if pool["level"] == "broken"]
    own = [*gateway["problems"], *(f"Pool {pool['name']} is {pool['state']}. {' '.join(pool['problems'])}" for pool in broken)]
    return [f"Gateway: {sentence}" for sentence in own]


def said(gateway):
    """Return all that is said of a gateway and its pools, one sentence each."""
    pools = [f"Pool {pool['name']}: {each}" for pool in gateway["pools"] for each in (*pool["problems"], *pool["notes"])]
    return [*gateway["problems"], *gateway["notes"], *pools]


# ---- the table -------------------------------------------------------------------------------------------------------


def servers(pool):
    """Return the servers of a pool by their states, the worst first."""
    states = dict.fromkeys(one["state"] for one in pool["servers"])
    return "; ".join(f"{state}: {', '.join(one['name'] for one in pool['servers'] if one['state'] == state)}" for state in states)


def waiting(pool):
    """Return how many requests of a pool wait, and for what."""
    return ", ".join(f"{pool[key]} {key}" for key in ("queued", "held") if pool[key])


def counted(gateway, number):
    """Return a count of requests, with the time that it is of where that is less than an hour."""
    if number is None or gateway["seconds"] in (None, HOUR):
        return number
    minutes = gateway["seconds"] // 60
    return f"{number} in {minutes} min" if minutes else f"{number} in {gateway['seconds']} s"


def rows(gateway):
    """Return the rows of one gateway, a dictionary each: one for each pool, and one for requests that named none."""
    valid = gateway["certificate"]
    about = {
        **dict.fromkeys(COLUMNS),
        "gateway": gateway["host"],
        "certificate": valid["until"] and f"{valid['from'][:10]} to {valid['until'][:10]}",
        "level": gateway["own_level"],
        "list": [],
    }
    elsewhere = [gateway["elsewhere"]] if gateway["elsewhere"].get("requests") else []
    for pool in gateway["pools"]:
        yield {
            **about,
            "level": worst([pool["level"], gateway["own_level"]]),
            "pool": pool["name"],
            "state": pool["state"],
            "servers": servers(pool),
            "list": pool["servers"],
            "waiting": waiting(pool),
            **counts(gateway, pool),
        }
    if not gateway["pools"]:
        yield {**about, "state": gateway["state"], **counts(gateway, gateway["elsewhere"])}
    elif elsewhere:
        yield {**about, **counts(gateway, gateway["elsewhere"])}


def counts(gateway, of):
    """Return the cells of requests."""
    return {key: counted(gateway, of.get(key)) for key in ("requests", "refused", "failed")}


def every_row(fleet):
    """Return the rows of all gateways of a document."""
    return [row for gateway in fleet["gateways"] for row in rows(gateway)]


def table(fleet):
    """Return the table of a document's gateways and what is said of them, an empty text without any.

    Sentences are not cut, as some have a command.
    """
    if not fleet["gateways"]:
        return ""
    cells = [[cut(one_line(shown(row[column]))) for column in COLUMNS] for row in every_row(fleet)]
    sentences = [f"{gateway['host']}: {one_line(each)}" for gateway in fleet["gateways"] for each in said(gateway)]
    return "\n".join([text_table([list(COLUMNS), *cells]), *sentences])


def summary(fleet):
    """Return the gateways of a document in one sentence, an empty text without any."""
    about = fleet["summary"]
    return f"{about['gateways_serving']} of {about['gateways']} gateways serve." if about["gateways"] else ""
