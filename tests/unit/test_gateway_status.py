# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a gateway says of itself: recorded answers of HAProxy, gateways that are down, and answers that are none.

The samples are of HAProxy 2.4.14 (Ubuntu 22.04), 2.6.12 (Debian 12), 2.8.5 (Ubuntu 24.04) and 3.0.11 (Debian 13), with a pool of
five servers and a pool whose only server is out of service.
"""

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from ansible.errors import AnsibleConnectionFailure
from ansible.module_utils.basic import AnsibleModule
from ansible_collections.iopaint.fleet.plugins.action import gateway_status as action
from ansible_collections.iopaint.fleet.plugins.action import status_report
from ansible_collections.iopaint.fleet.plugins.module_utils import foreign, haproxy
from ansible_collections.iopaint.fleet.plugins.modules import gateway_status
from ansible_collections.iopaint.fleet.plugins.plugin_utils import gateways, status
from hypothesis import given
from hypothesis import strategies as st

SAMPLES = Path(__file__).parent / "samples" / "haproxy"
VERSIONS = ["2.4", "2.6", "2.8", "3.0"]
STAT = (SAMPLES / "stat-3.0.csv").read_text()
CERTIFICATE = (SAMPLES / "certificate-3.0.txt").read_text()
LOG = "".join(reversed((SAMPLES / "requests.log").read_text().splitlines(keepends=True)))  # the newest first, as it is read
POOLS = {"paint": "paint.example.com", "small": "small.example.com"}
HOSTS = {host: name for name, host in POOLS.items()}
NOW = "2026-11-28T12:00:00Z"
BACK = 'this brings it back: echo "set server paint/gpu-02:gpu-0 state ready" | socat - '

# ---- what HAProxy and its log say ------------------------------------------------------------------------------------

TEMPLATE = Path(__file__).resolve().parents[2] / "roles" / "iopaint_status" / "templates" / "status.html.j2"


@pytest.mark.parametrize("version", VERSIONS)
def test_pools_and_servers_of_each_version(version):
    paint, small = haproxy.pools((SAMPLES / f"stat-{version}.csv").read_text(), 120)
    assert [(one["name"], one["state"], one["check"]) for one in paint["servers"]] == [
        ("gpu-03:gpu-0", "down", "Layer4 connection problem (Connection refused)"),
        ("gpu-04:gpu-0", "down", "Layer7 wrong status (401, Unauthorized)"),
        ("gpu-02:gpu-0", "out of service", ""),
        ("gpu-05:gpu-0", "draining", "Layer7 check passed (200)"),
        ("gpu-01:gpu-0", "up", "Layer7 check passed (200)"),
    ]
    assert (paint["name"], paint["state"], paint["queued"], paint["held"]) == ("paint", "serves", 1, 0)
    assert [one["serving"] for one in paint["servers"]] == [0, 0, 0, 0, 1]
    assert (small["name"], small["state"], small["queued"], small["held"]) == ("small", "held", 0, 3)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_certificate_of_each_version(version):
    text = (SAMPLES / f"certificate-{version}.txt").read_text()
    assert haproxy.certificate(text) == {"from": "2026-11-28T11:35:28Z", "until": "2027-02-26T11:35:28Z"}


def test_a_pool_that_has_not_served_for_as_long_as_requests_wait_is_down():
    assert [pool["state"] for pool in haproxy.pools(STAT, 1)] == ["serves", "down"]
    assert [pool["state"] for pool in haproxy.pools(STAT, 0)] == ["serves", "down"]


@pytest.mark.parametrize(
    ("status", "sessions", "state"),
    [
        ("UP", 3, "up"),
        ("UP 1/3", 0, "up"),
        ("no check", 0, "up"),
        ("DOWN", 0, "down"),
        ("DOWN 1/2", 0, "down"),
        ("DOWN (agent)", 0, "down"),
        ("MAINT", 0, "out of service"),
        ("MAINT", 1, "draining"),
        ("MAINT (via a/b)", 0, "out of service"),
        ("MAINT (resolution)", 0, "down"),
        ("DRAIN", 0, "draining"),
        ("DRAIN 1/2", 0, "draining"),
        ("NOLB", 0, "draining"),
        ("anything", 0, "down"),
    ],
)
def test_the_words_of_haproxy_for_the_state_of_a_server(status, sessions, state):
    assert haproxy.state_of(status, sessions) == state


def test_requests_are_counted_by_the_pool_that_they_were_for():
    """A request without a login is refused before it comes to a pool; one that waited for nothing failed."""
    counts, oldest = haproxy.count(LOG, HOSTS, list(POOLS))
    assert counts == {
        "paint": {"requests": 7, "refused": 2, "failed": 1},
        "small": {"requests": 4, "refused": 0, "failed": 3},
        "": {"requests": 1, "refused": 1, "failed": 0},
    }
    assert oldest == 1795865731.154


def test_connections_that_came_to_no_request_and_redirects_are_not_counted():
    handshake = {"time": 1.5, "host": "-", "status": 0, "pool": "gateway", "connection": "SSL handshake failure"}
    redirect = {"time": 1.5, "host": "paint.example.com", "status": 308, "pool": "_redirect", "instance": "<NOSRV>"}
    refused = {"time": 1.5, "host": "-", "status": 400, "pool": "gateway", "instance": "<NOSRV>"}  # what is no HTTP
    counts, _oldest = haproxy.count("\n".join(map(json.dumps, (handshake, redirect, refused))), HOSTS, list(POOLS))
    assert [of_pool["requests"] for of_pool in counts.values()] == [1, 0, 0]
    assert counts[""]["refused"] == 1


def test_a_host_name_that_is_not_known_counts_for_the_pool_that_the_log_names():
    counts, _oldest = haproxy.count(LOG, {}, list(POOLS))
    assert (counts["paint"]["requests"], counts["small"]["requests"], counts[""]["requests"]) == (5, 4, 3)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "does not begin with the names"),
        ("Unknown command.", "does not begin with the names"),
        ("# a,b\n1,2\n", "lacks the columns act, bck, lastchg"),
        (STAT.replace("paint,gpu-01:gpu-0,0", "paint,gpu-01:gpu-0,x"), "text in place of a number"),
        (STAT.replace("gpu-01:gpu-0", 'gpu"; reboot'), "a name that HAProxy does not allow"),
        (STAT + "x" * 200_000 + "\n", "it is no CSV"),
    ],
)
def test_statistics_that_are_none_are_refused(text, words):
    with pytest.raises(foreign.ForeignError, match=words):
        haproxy.pools(text, 120)


LINES = STAT.splitlines()
WORDS = ["", "0", "9" * 30, "-1", "BACKEND", "MAINT", "UP 1/2", "a b", '"', "\0", "\n", "1", "2", "é", "_x"]
ANY = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.lists(st.integers(), max_size=2)


@st.composite
def altered_statistics(draw):
    """The sample with fields that are exchanged for others."""
    lines = [line.split(",") for line in LINES]
    for _time in range(draw(st.integers(1, 4))):
        line = lines[draw(st.integers(0, len(lines) - 1))]
        line[draw(st.integers(0, len(line) - 1))] = draw(st.sampled_from(WORDS) | st.text(max_size=5))
    return "\n".join(map(",".join, lines))


@given(st.text() | st.text().map(lambda text: STAT[:700] + text) | altered_statistics(), st.integers(0, 200))
def test_any_statistics_are_read_or_refused(text, hold):
    try:
        found = haproxy.pools(text, hold)
    except foreign.ForeignError:
        return
    for pool in found:
        assert haproxy.NAME.fullmatch(pool["name"])
        assert pool["state"] in ("serves", "held", "down")
        assert pool["queued"] >= 0
        assert pool["held"] >= 0
        assert all(one["state"] in haproxy.STATES and haproxy.NAME.fullmatch(one["name"]) for one in pool["servers"])


@given(st.text() | st.text().map(lambda text: f"notBefore: {text}\nnotAfter: {text}\n") | st.integers(0, len(CERTIFICATE)))
def test_any_certificate_is_read_or_refused(text):
    with contextlib.suppress(foreign.ForeignError):
        found = haproxy.certificate(CERTIFICATE[:text] + "x" + CERTIFICATE[text:] if isinstance(text, int) else text)
        assert all(status.moment(found[key]) for key in ("from", "until"))


@given(
    st.lists(
        st.text()
        | st.fixed_dictionaries(
            {"status": st.sampled_from([200, 401, 503]) | ANY, "time": st.just(1.5) | ANY},
            optional={"host": st.sampled_from(list(HOSTS)) | ANY, "pool": ANY, "instance": st.just("<NOSRV>") | ANY},
        ).map(json.dumps)
    )
)
def test_any_log_is_counted(lines):
    counts, oldest = haproxy.count("\n".join(lines), HOSTS, list(POOLS))
    assert set(counts) == {"", "paint", "small"}
    for of_pool in counts.values():
        assert 0 <= of_pool["refused"] + of_pool["failed"] <= of_pool["requests"]
    assert (oldest is None) is (sum(of_pool["requests"] for of_pool in counts.values()) == 0)


# ---- the module ------------------------------------------------------------------------------------------------------

JOURNALCTL = """
import sys
open(CALLS, "a").write(" ".join(sys.argv[1:]) + "\\n")
sys.stdout.write(open(LOG).read())
"""


class Gateway:
    """A host on which something listens at the socket of HAProxy."""

    def __init__(self, engine, folder):
        self.engine, self.socket, self.log, self.calls = engine, folder / "admin.sock", folder / "log", folder / "calls"
        self.asked = []
        self.log.write_text(LOG)
        engine.program("journalctl", JOURNALCTL, LOG=self.log, CALLS=self.calls)
        engine.program("haproxy", "")

    def answer(self, answers, pause=0.0):
        """Listen, and answer each command; an answer that is None never ends."""
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(self.socket))
        listener.listen()

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    peer, _address = listener.accept()
                    with peer:
                        self.asked.append(peer.recv(999).decode().strip())
                        answer = next((text for begin, text in answers.items() if self.asked[-1].startswith(begin)), "Unknown.\n")
                        if answer is None:
                            time.sleep(pause)
                        else:
                            peer.sendall(answer.encode())

        threading.Thread(target=serve, daemon=True).start()
        return listener


ANSWERS = {"show stat": STAT, "show info": "Name: HAProxy\nVersion: 3.0.11-1+deb13u4\nPid: 7\n", "show ssl cert": CERTIFICATE}


@pytest.fixture
def gateway(engine, tmp_path):
    return Gateway(engine, tmp_path)


@pytest.fixture
def look(run_module, gateway):
    def call(**options):
        return run_module(gateway_status, socket=str(gateway.socket), **{"pools": POOLS, **options})

    return call


def test_a_gateway_that_serves(gateway, look):
    with gateway.answer(ANSWERS):
        result = look()
    assert (result["state"], result["changed"]) == ("ok", False)
    assert result["haproxy"] == {"state": "running", "version": "3.0.11-1+deb13u4", "reason": None}
    assert result["certificate"] == {"from": "2026-11-28T11:35:28Z", "until": "2027-02-26T11:35:28Z", "reason": None}
    paint, small = result["pools"]
    assert (paint["requests"], paint["refused"], paint["failed"]) == (7, 2, 1)
    assert (result["elsewhere"]["requests"], result["seconds"], result["journal"]) == (1, 3600, None)
    assert paint["problems"] == []
    assert paint["notes"] == [
        "gpu-03:gpu-0 is down: Layer4 connection problem (Connection refused).",
        "gpu-04:gpu-0 is down: Layer7 wrong status (401, Unauthorized).",
        f"gpu-02:gpu-0 is out of service. If no play is at work on it, {BACK}{gateway.socket}",
        f"gpu-05:gpu-0 is draining. If no play is at work on it, {BACK.replace('02', '05')}{gateway.socket}",
    ]
    assert small["notes"][0] == "None of its instances serves. Requests wait for one."
    assert gateway.asked == ["show stat", "show info", "show ssl cert /etc/iopaint-gateway/tls/server.pem"]
    assert gateway.calls.read_text().splitlines() == [
        "--no-pager --identifier=iopaint-gateway --output=cat --reverse --lines=20000 --since=-1h"
    ]


def test_a_pool_that_is_down_is_a_problem(gateway, look):
    with gateway.answer(ANSWERS):
        small = look(hold=1)["pools"][1]
    assert (small["state"], small["problems"]) == ("down", ["None of its instances has served for 1 s, so requests fail."])


def test_a_pool_of_the_inventory_that_the_gateway_lacks_is_told(gateway, look):
    with gateway.answer(ANSWERS):
        result = look(pools={**POOLS, "new": "new.example.com"})
    assert [(pool["name"], pool["state"]) for pool in result["pools"]] == [
        ("paint", "serves"),
        ("small", "held"),
        ("new", "not deployed"),
    ]
    assert "iopaint.fleet.gateway adds it" in result["pools"][2]["problems"][0]
    assert result["pools"][2]["requests"] == 0


def test_a_server_whose_name_could_not_be_resolved_is_down(gateway, look):
    with gateway.answer({**ANSWERS, "show stat": STAT.replace(",MAINT,", ",MAINT (resolution),")}):
        assert "gpu-02:gpu-0 is down: its name could not be resolved." in look()["pools"][0]["notes"]


def candidate(status):
    """The sample with a candidate of gpu-02's instance, in this state."""
    (line,) = [line for line in STAT.splitlines(keepends=True) if line.startswith("paint,gpu-02:gpu-0,")]
    return STAT.replace(line, line + line.replace("gpu-02:gpu-0", "gpu-02:gpu-0:candidate").replace(",MAINT,", f",{status},"))


def test_a_candidate_that_serves_is_named_with_what_ends_it(gateway, look):
    with gateway.answer({**ANSWERS, "show stat": candidate("UP")}):
        paint = look()["pools"][0]
    out = "gpu-02:gpu-0 is out of service. If no play is at work on it,"
    (note,) = [note for note in paint["notes"] if ":candidate" in note]
    assert note == (
        "gpu-02:gpu-0:candidate, a new release of gpu-02:gpu-0, is up. If no play is at work on gpu-02:gpu-0, bring that back, "
        f'then take this out: echo "set server paint/gpu-02:gpu-0:candidate state maint" | socat - {gateway.socket}'
    )
    assert any(note.startswith(out) for note in paint["notes"])
    assert paint["servers"][-1]["name"] == "gpu-02:gpu-0:candidate"


def test_a_candidate_that_is_out_of_service_is_left_out():
    assert haproxy.pools(candidate("MAINT"), 120) == haproxy.pools(STAT, 120)


def test_haproxy_that_is_not_installed_is_told(look, monkeypatch):
    """Also where the machine of the tests has one."""
    found = AnsibleModule.get_bin_path
    monkeypatch.setattr(AnsibleModule, "get_bin_path", lambda self, name: None if name == "haproxy" else found(self, name))
    result = look()
    assert result["haproxy"]["state"] == "not installed"
    assert (result["pools"], result["certificate"]["until"]) == ([], None)


def test_haproxy_that_ended_is_told_with_the_state_of_its_service(gateway, look):
    gateway.engine.program("systemctl", "import sys; print('failed'); sys.exit(3)")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(gateway.socket))
    result = look()
    assert result["haproxy"]["state"] == "not answering"
    assert f"{gateway.socket}: Connection refused. Its service is failed; `journalctl -u haproxy" in result["haproxy"]["reason"]
    assert result["elsewhere"]["requests"] == 12  # the journal is there all the same


def test_haproxy_that_hangs_is_not_waited_for(gateway, look):
    start = time.monotonic()
    with gateway.answer({"show stat": None}, pause=30):
        result = look(timeout=1)
    assert result["haproxy"]["state"] == "not answering"
    assert "not done within 1 s" in result["haproxy"]["reason"]
    assert time.monotonic() - start < 20


def test_an_answer_that_is_no_statistics_is_told(gateway, look):
    with gateway.answer({"show stat": "Permission denied\n"}):
        assert "can't be read: it does not begin with the names of its columns." in look()["haproxy"]["reason"]


def test_a_certificate_that_haproxy_has_not_loaded_is_told(gateway, look):
    with gateway.answer(
        {**ANSWERS, "show ssl cert": "Can't display the certificate: Not found or the certificate is a bundle!\n"}
    ):
        assert look()["certificate"] == {"from": None, "until": None, "reason": "HAProxy has not loaded it"}


def test_of_a_long_hour_the_newest_requests_are_counted_and_their_time_is_told(gateway, look):
    line = json.loads(LOG.splitlines()[0])
    lines = [json.dumps({**line, "time": int(time.time()) - seconds}) for seconds in range(0, 1200, 100)]
    gateway.log.write_text("\n".join(lines) + "\n")
    with gateway.answer(ANSWERS):
        result = look(most=12)
    assert 1100 <= result["seconds"] <= 1200
    assert result["pools"][1]["requests"] == 12


def test_a_journal_of_many_bytes_is_cut(gateway, look, monkeypatch):
    monkeypatch.setattr(gateway_status, "LIMIT", 8000)  # and the statistics have 6.8 kB
    line = json.dumps({**json.loads(LOG.splitlines()[0]), "time": int(time.time()) - 60, "path": "/" * 700})
    gateway.log.write_text(f"{line}\n" * 1000)
    with gateway.answer(ANSWERS):
        result = look()
    assert 60 <= result["seconds"] <= 120
    assert 5 <= result["pools"][1]["requests"] <= 8


def test_an_hour_without_requests_has_none(gateway, look):
    gateway.log.write_text("")
    with gateway.answer(ANSWERS):
        result = look()
    assert (result["pools"][0]["requests"], result["seconds"], result["journal"]) == (0, 3600, None)


@pytest.mark.parametrize(
    "program",
    [
        "import sys; sys.exit('No journal files were found.')",
        # systemd 252: with --output=cat it says nothing, and ends with 0.
        "import sys\nif '--lines=1' in sys.argv: print('No journal files were found.', file=sys.stderr)",
    ],
)
def test_a_journal_that_can_t_be_read_leaves_the_requests_unknown(gateway, look, program):
    gateway.engine.program("journalctl", program)
    with gateway.answer(ANSWERS):
        result = look()
    assert (result["seconds"], result["pools"][0]["requests"], result["elsewhere"]["failed"]) == (None, None, None)
    assert result["journal"] == "The journal can't be read: No journal files were found."


# ---- the report ------------------------------------------------------------------------------------------------------


def pool(name="paint", state="serves", **more):
    servers = [{"name": "a:cpu", "state": "up", "status": "UP", "check": "", "serving": 0, "since": 9}]
    counts = {"requests": 310, "refused": 4, "failed": 1}
    nothing = {"since": 9, "queued": 0, "held": 0, "problems": [], "notes": []}
    return {"name": name, "state": state, "servers": servers, **nothing, **counts, **more}


def answer(*pools, until="2027-02-26T11:35:28Z", begin="2026-11-28T11:35:28Z", **more):
    return {
        "state": "ok",
        "time": NOW,
        "haproxy": {"state": "running", "version": "3.0.11", "reason": None},
        "pools": list(pools),
        "elsewhere": {"requests": 0, "refused": 0, "failed": 0},
        "seconds": 3600,
        "journal": None,
        "certificate": {"from": begin, "until": until, "reason": None},
        **more,
    }


LOST = {"state": "unreachable", "reason": "ssh: connect to host gw-2 port 22: Connection refused"}
DOWN = {"state": "not answering", "version": None, "reason": "/run/haproxy/admin.sock: Connection refused."}
OUT = [
    {"name": "b:cpu", "state": "out of service", "status": "MAINT", "check": "", "serving": 0, "since": 9},
    {"name": "a:cpu", "state": "up", "status": "UP", "check": "", "serving": 2, "since": 9},
    {"name": "c:cpu", "state": "up", "status": "UP", "check": "", "serving": 0, "since": 9},
]


def fleet(**results):
    return gateways.add(status.document({}, 0, time=NOW), results)


def lines(document):
    """The cells of the table's lines, by column."""
    table, *_rest = re.split(r"\n(?=\S+: )", gateways.table(document))
    heading, *rest = table.splitlines()
    places = [heading.index(column) for column in gateways.COLUMNS]
    return [dict(zip(gateways.COLUMNS, (line[a:b].strip() for a, b in zip(places, [*places[1:], None])))) for line in rest]


def test_a_line_has_all_that_is_known():
    (line,) = lines(fleet(one=answer(pool(servers=OUT, queued=2))))
    assert line == {
        "gateway": "one",
        "pool": "paint",
        "state": "serves",
        "servers": "out of service: b:cpu; up: a:cpu, c:cpu",
        "waiting": "2 queued",
        "requests": "310",
        "refused": "4",
        "failed": "1",
        "certificate": "2026-11-28 to 2027-02-26",
    }


def test_requests_that_named_no_pool_have_a_line_of_their_own():
    first, second = lines(fleet(one=answer(pool(), elsewhere={"requests": 5, "refused": 5, "failed": 0})))
    assert (second["pool"], second["state"], second["requests"], second["refused"], second["failed"]) == ("-", "-", "5", "5", "0")
    assert first["requests"] == "310"


@pytest.mark.parametrize(("seconds", "cell"), [(3600, "310"), (780, "310 in 13 min"), (40, "310 in 40 s"), (None, "-")])
def test_a_count_of_less_than_an_hour_says_so(seconds, cell):
    (line,) = lines(fleet(one=answer(pool(requests=None if seconds is None else 310), seconds=seconds)))
    assert line["requests"] == cell


def test_commands_are_not_cut():
    note = "b:cpu is out of service. If no play is at work on it, this brings it back: " + "x" * 200
    document = fleet(one=answer(pool(notes=[note])))
    assert gateways.table(document).endswith(f"\none: Pool paint: {note}")
    assert document["gateways"][0]["level"] == "attention"


def test_the_worst_comes_first():
    document = fleet(
        good=answer(pool()),
        held=answer(pool(state="held", held=3, notes=["None of its instances serves."])),
        pool_down=answer(pool(), pool("small", "down", problems=["None of its instances has served for 300 s."])),
        stopped=answer(haproxy=DOWN),
        empty=answer(),
        lost=LOST,
        never=None,
    )
    assert [(gateway["host"], gateway["level"]) for gateway in document["gateways"]] == [
        ("lost", "unseen"),
        ("never", "unseen"),
        ("empty", "broken"),
        ("pool_down", "broken"),
        ("stopped", "broken"),
        ("held", "attention"),
        ("good", "ok"),
    ]
    assert gateways.summary(document) == "2 of 7 gateways serve."
    found = [(line["gateway"], line["pool"], line["state"], line["waiting"]) for line in lines(document)]
    assert found == [
        ("lost", "-", "unreachable", "-"),
        ("never", "-", "failed", "-"),
        ("empty", "-", "running", "-"),
        ("pool_down", "small", "down", "-"),
        ("pool_down", "paint", "serves", "-"),
        ("stopped", "-", "not answering", "-"),
        ("held", "paint", "held", "3 held"),
        ("good", "paint", "serves", "-"),
    ]
    wrong = {gateway["host"]: gateways.wrong(gateway) for gateway in document["gateways"]}
    assert wrong == {
        "good": [],
        "held": [],
        "pool_down": ["Gateway: Pool small is down. None of its instances has served for 300 s."],
        "stopped": ["Gateway: HAProxy is not answering. /run/haproxy/admin.sock: Connection refused."],
        "empty": ["Gateway: HAProxy runs and has no pool; iopaint.fleet.gateway sets it up."],
        "lost": [f"Gateway: {LOST['reason']}"],
        "never": ["Gateway: It was not looked at; the play's output says why."],
    }


@pytest.mark.parametrize(
    ("begin", "until", "level", "words"),
    [
        ("2026-11-28T11:00:00Z", "2027-02-26T11:00:00Z", "ok", ""),
        ("2026-09-20T11:00:00Z", "2026-12-18T11:00:00Z", "attention", "Its certificate ends at 2026-12-18T11:00:00Z."),
        ("2026-11-27T11:00:00Z", "2026-12-03T11:00:00Z", "ok", ""),  # one of six days
        ("2026-11-23T11:00:00Z", "2026-11-29T11:00:00Z", "attention", "Its certificate ends at"),
        ("2026-09-20T11:00:00Z", "2026-11-28T12:00:00Z", "broken", "Its certificate ended at 2026-11-28T12:00:00Z."),
        ("2026-11-29T11:00:00Z", "2027-11-28T12:00:00Z", "broken", "Its certificate is valid from 2026-11-29T11:00:00Z on"),
    ],
)
def test_a_certificate_that_ends_or_has_ended_is_told(begin, until, level, words):
    document = fleet(one=answer(pool(), begin=begin, until=until))
    assert document["gateways"][0]["level"] == level
    assert words in gateways.table(document)


def test_what_is_not_known_is_told():
    unknown = {"from": None, "until": None, "reason": "HAProxy has not loaded it"}
    document = fleet(one=answer(pool(), journal="The journal can't be read: x", certificate=unknown))
    assert document["gateways"][0]["notes"] == [
        "How long its certificate is valid is not known: HAProxy has not loaded it.",
        "Its requests are not known. The journal can't be read: x",
    ]


@pytest.fixture
def report(monkeypatch):
    def call(variables, **arguments):
        module = status_report.ActionModule.__new__(status_report.ActionModule)
        module._task = type("Task", (), {"args": arguments, "check_mode": False})()
        monkeypatch.setattr(status_report.ActionBase, "run", lambda self, tmp, task_vars: {})
        module.validate_argument_spec = lambda spec: (
            None,
            {key: arguments.get(key, spec[key].get("default", str(TEMPLATE))) for key in spec},
        )
        return module.run(task_vars={"ansible_play_hosts_all": list(variables), "hostvars": variables})

    return call


HOST = {
    "state": "ok",
    "time": NOW,
    "engine": {"state": "running", "reason": None, "version": "28.5.2", "root": "/var/lib/docker"},
    "instances": [],
    "gpu": {"gpus": [], "driver_version": None, "problem": "no_gpu", "advice": ""},
    "disks": [],
    "models": {"files": [], "repositories": [], "reason": None},
    "lock": None,
    "backup": None,
}


def test_files_and_table_have_hosts_and_gateways(report, tmp_path):
    variables = {
        "both": {"iopaint_status": HOST, "gateway_status": answer(pool())},
        "gw": {"gateway_status": answer(haproxy=DOWN)},
        "lost": {"iopaint_status": LOST},  # and its gateway was not asked
    }
    result = report(variables, hosts=["both", "lost"], gateways=["both", "gw", "lost"], dir=str(tmp_path))
    document = json.loads((tmp_path / "status.json").read_text())
    assert [host["host"] for host in document["hosts"]] == ["lost", "both"]
    assert [(gateway["host"], gateway["state"]) for gateway in document["gateways"]] == [
        ("lost", "unreachable"),
        ("gw", "not answering"),
        ("both", "running"),
    ]
    assert document["summary"]["gateways"] == 3
    assert result["wrong"] == {
        "gw": ["Gateway: HAProxy is not answering. /run/haproxy/admin.sock: Connection refused."],
        "lost": [LOST["reason"], f"Gateway: {LOST['reason']}"],
    }
    assert result["table"].endswith("hosts that could not be looked at: 1. 1 of 3 gateways serve.")
    assert result["table"].count("\n\n") == 2


def test_a_play_without_gateways_has_no_word_of_them(report):
    result = report({"one": {"iopaint_status": HOST}})
    assert "gateway" not in result["table"]
    assert "ateway" not in status_report.page(fleet(), TEMPLATE)


def test_a_play_of_gateways_alone_has_no_table_of_instances(report):
    result = report({"gw": {"gateway_status": answer(pool())}}, hosts=[], gateways=["gw"])
    assert result["table"].startswith("gateway  pool")


def test_the_page_shows_each_server_and_what_is_said():
    nasty = '<script>alert("x")</script>'
    page = status_report.page(fleet(one=answer(pool(servers=OUT, notes=[nasty])), lost={**LOST, "reason": nasty}), TEMPLATE)
    assert nasty not in page
    assert page.count("&lt;script&gt;") == 2
    assert page.count("<table>") == page.count("</table>") == page.count("<caption>") == 3
    for tag in ("tr", "td", "li", "ul", "th"):
        assert len(re.findall(f"<{tag}[ >]", page)) == page.count(f"</{tag}>"), tag
    assert "b:cpu: out of service<br>" in page
    assert "a:cpu: up, answers 2<br>" in page
    assert "one: HAProxy 3.0.11" in page
    assert re.findall(r'<tr class="(\w+)">\n<th scope="row">(\w+)</th>', page) == [("unseen", "lost"), ("attention", "one")]


def test_the_playbook_tells_hosts_with_instances_from_gateways(tmp_path):
    """A host of the group gateways alone has no engine, which is no fault; nothing listens at either gateway."""
    inventory = {
        "all": {
            "vars": {"ansible_connection": "local", "ansible_become": False, "ansible_python_interpreter": sys.executable},
            "children": {"cpu_hosts": {"hosts": {"both": {}, "host": {}}}, "gateways": {"hosts": {"both": {}, "gw": {}}}},
        }
    }
    (tmp_path / "hosts.json").write_text(json.dumps(inventory))
    variables = {"__gateway_socket": str(tmp_path / "none"), "iopaint_status_dir": str(tmp_path), "iopaint_dir": str(tmp_path)}
    root = Path(__file__).resolve().parents[2]
    command = [Path(sys.executable).with_name("ansible-playbook"), "-i", tmp_path / "hosts.json", "-e", json.dumps(variables)]
    places = {
        "ANSIBLE_COLLECTIONS_PATH": str(root / "build" / "collections"),
        "ANSIBLE_HOME": str(tmp_path / "home"),
        "DOCKER_HOST": f"unix://{tmp_path}/none",
    }
    done = subprocess.run(
        [*command, root / "playbooks" / "status.yml"],
        env={**os.environ, **places},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    document = json.loads((tmp_path / "status.json").read_text())
    assert sorted(host["host"] for host in document["hosts"]) == ["both", "host"]
    assert sorted(gateway["host"] for gateway in document["gateways"]) == ["both", "gw"]
    assert {gateway["state"] for gateway in document["gateways"]} <= {"not installed", "not answering"}


# ---- the control node ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "state", "reason"),
    [
        (AnsibleConnectionFailure("Failed to connect to the host via ssh: ssh: x\nport 22"), "unreachable", "ssh: x port 22"),
        ({"failed": True, "msg": "MODULE FAILURE", "module_stderr": "python3: not found"}, "failed", "python3: not found"),
        (answer(pool()), "ok", None),
    ],
)
def test_a_gateway_that_can_t_be_looked_at_is_a_result(monkeypatch, given, state, reason):
    module = action.ActionModule.__new__(action.ActionModule)
    module._task = type("Task", (), {"args": {"hold": 1}})()
    monkeypatch.setattr(action.ActionBase, "run", lambda self, tmp, task_vars: {})

    def execute(**_options):
        if isinstance(given, Exception):
            raise given
        return given

    module._execute_module = execute
    result = module.run(task_vars={})
    assert (result["state"], result.get("reason")) == (state, reason)
    assert "failed" not in result
