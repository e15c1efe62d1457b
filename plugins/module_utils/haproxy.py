# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What HAProxy says of its pools, its certificate and its requests: answers of its runtime interface, and lines of its log.

Known from 2.4 to 3.0. A server is an instance of the fleet, and a pool is a backend whose name does not begin with `_`.
A server whose name ends in CANDIDATE is a new release that takes the place of its instance during a switch.
"""

from __future__ import annotations

import csv
import io
import re
import socket
import ssl
from datetime import datetime, timezone

from ansible_collections.iopaint.fleet.plugins.module_utils import foreign

HEADING = "# "
COLUMNS = {"pxname", "svname", "qcur", "scur", "status", "act", "bck", "lastchg", "type"}
BACKEND, SERVER = "1", "2"  # in the column type
NAME = re.compile(r"[A-Za-z0-9_.:-]+")  # as HAProxy itself takes names
DIGITS = re.compile(r"[0-9]{1,18}")
STATES = ("down", "out of service", "draining", "up")  # the worst first
UNRESOLVED = "MAINT (resolution)"
CANDIDATE = ":candidate"  # as vars/main.yml of the role gateway has it
LOG_TAG = "iopaint-gateway"  # of the requests' lines in the journal, as vars/main.yml of the role gateway has it
PLAIN = ("_redirect", "_acme_others")  # port 80, where nothing but a redirect and answers to an ACME server are to be had
NOBODY = "<NOSRV>"  # in place of the server, where HAProxy itself answered
HOUR = 3600
COUNTED = ("requests", "refused", "failed")


def ask(path, command, *, seconds, limit):
    """Return the answer of the runtime interface at a socket, which has to be there in full after these seconds.

    Raise ForeignError for more than limit bytes, and an OSError where nobody answers.
    """
    with foreign.deadline(seconds), socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        connection.sendall(command.encode() + b"\n")
        with connection.makefile("rb") as stream:
            return foreign.decode(foreign.read_stream(stream, limit))


def number(text):
    """Return a count of the statistics, 0 where there is none; raise ForeignError for anything else."""
    if text in ("", None):
        return 0
    if not DIGITS.fullmatch(text):
        raise foreign.ForeignError("it has text in place of a number")
    return int(text)


def rows(text):
    """Return the lines of `show stat` as dictionaries; raise ForeignError for other text."""
    if not text.startswith(HEADING):
        raise foreign.ForeignError("it does not begin with the names of its columns")
    try:
        heading, *lines = csv.reader(io.StringIO(text[len(HEADING) :]))
    except (csv.Error, ValueError) as error:
        raise foreign.ForeignError(f"it is no CSV ({error})") from None
    if not set(heading) >= COLUMNS:
        raise foreign.ForeignError(f"it lacks the columns {', '.join(sorted(COLUMNS - set(heading)))}")
    found = [{**dict.fromkeys(heading, ""), **dict(zip(heading, line))} for line in lines if line]
    for row in found:
        if not (NAME.fullmatch(row["pxname"]) and NAME.fullmatch(row["svname"])):
            raise foreign.ForeignError("it has a name that HAProxy does not allow")
    return found


def state_of(status, sessions):
    """Return the state of a server by HAProxy's own word for it and the requests that it answers now."""
    word = status.split(" ")[0]
    if word == "MAINT" and status != UNRESOLVED:
        return "draining" if sessions else "out of service"
    if word in ("DRAIN", "NOLB"):
        return "draining"
    return "up" if word == "UP" or status == "no check" else "down"


def checked(row):
    """Return what the last health check of a server found, or an empty text."""
    if row["status"] == UNRESOLVED:
        return "its name could not be resolved"
    more = ", ".join(filter(None, (row.get("check_code"), row.get("last_chk"))))
    return (row.get("check_desc") or "") + (f" ({more})" if row.get("check_desc") and more else "")


def server(row):
    """Return one server of a pool."""
    sessions = number(row["scur"])
    return {
        "name": row["svname"],
        "state": state_of(row["status"], sessions),
        "status": row["status"],
        "check": checked(row),
        "serving": sessions,
        "since": number(row["lastchg"]),
    }


def pools(text, hold):
    """Return the pools of `show stat`, the worst servers first; raise ForeignError for other text.

    hold: seconds that a request waits while no server of its pool serves.
    """
    table = [row for row in rows(text) if not row["pxname"].startswith("_")]
    found = []
    for whole in table:
        if whole["type"] != BACKEND:
            continue
        own = [row for row in table if row["type"] == SERVER and row["pxname"] == whole["pxname"]]
        known = [one for one in map(server, own) if not (one["name"].endswith(CANDIDATE) and one["state"] == "out of service")]
        servers = sorted(known, key=lambda one: STATES.index(one["state"]))
        queued = number(whole["qcur"]) + sum(number(row["qcur"]) for row in own)
        serves = number(whole["act"]) + number(whole["bck"]) > 0
        since = number(whole["lastchg"])
        # A held request is in the pool, and neither in a line nor at a server.
        held = 0 if serves else max(0, number(whole["scur"]) - queued - sum(one["serving"] for one in servers))
        state = "serves" if serves else "held" if since < hold else "down"
        found.append(
            {"name": whole["pxname"], "state": state, "since": since, "queued": queued, "held": held, "servers": servers}
        )
    return found


def version(text):
    """Return the version in `show info`, None where there is none."""
    found = re.search(r"^Version: ([0-9A-Za-z.+~-]{1,60})$", text, re.MULTILINE)
    return found and found[1]


def certificate(text):
    """Return from when until when the certificate of `show ssl cert` is valid; raise ForeignError where it is not shown."""
    found = dict(re.findall(r"^(notBefore|notAfter): (.{1,60})$", text, re.MULTILINE))
    try:
        return {"from": moment(found["notBefore"]), "until": moment(found["notAfter"])}
    except KeyError:
        raise foreign.ForeignError("HAProxy has not loaded it") from None
    except (ValueError, OverflowError, OSError):
        raise foreign.ForeignError("HAProxy shows no time until which it is valid") from None


def moment(text):
    """Return a time of a certificate (`Nov 28 11:35:28 2026 GMT`) as the collection writes it; the locale plays no part."""
    seconds = ssl.cert_time_to_seconds(text)
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def count(text, hosts, names):
    """Return requests by pool, those of no pool by an empty name, and when the oldest of them began (None without any).

    text: the log's lines, the newest first. hosts: pool by the host name that users ask for. names: of all pools.
    `refused` are answers from 400 to 499 of HAProxy itself, `failed` those from 500 on, of HAProxy or of an instance.
    """
    counts = {name: dict.fromkeys(COUNTED, 0) for name in ("", *names)}
    oldest = None
    for line in text.splitlines():
        if not line.startswith("{"):
            continue
        try:
            request = foreign.parse_json(line, dict)
        except foreign.ForeignError:  # the last one, of which a part was read, or somebody else's
            continue
        status, began = request.get("status"), request.get("time")
        if not isinstance(status, int) or not isinstance(began, (int, float)):
            continue
        if status == 0 or request.get("pool") in PLAIN:  # a connection that came to no request
            continue
        # A request that is refused has not come to its pool.
        pool = hosts.get(str(request.get("host")), str(request.get("pool")))
        of_pool = counts.get(pool, counts[""])
        of_pool["requests"] += 1
        of_pool["refused"] += 400 <= status < 500 and request.get("instance") == NOBODY
        of_pool["failed"] += status >= 500
        oldest = began
    return counts, oldest
