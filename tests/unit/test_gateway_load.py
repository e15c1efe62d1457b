# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The load client of scenario gateway: it counts every request, and finds each one that is lost."""

import base64
import contextlib
import itertools
import json
import resource
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

CLIENT = Path(__file__).resolve().parents[2] / "molecule" / "gateway" / "tests" / "load.py"
PNG = b"\x89PNG\r\n\x1a\n"


class Gateway(BaseHTTPRequestHandler):
    """Answers well, but for the requests that the test names by their number."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        seen = self.server
        number = next(seen.numbers)
        assert self.headers["Authorization"] == "Basic YTpi"
        seen.asked.setdefault(id(self.connection), []).append(self.headers["Cookie"])
        fault = seen.faults.get(number, "")
        if fault in ("cut", "none"):
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"[: {"cut": None, "none": 0}[fault]])
            self.close_connection = True
            return
        body = b"sorry" if fault else b'{"release": "v%d"}' % (1 + (number > 200))
        self.send_response(int(fault or 200))
        self.send_header("Content-Length", str(len(body)))
        if not self.headers["Cookie"]:
            self.send_header("Set-Cookie", f"IOPAINT_INSTANCE=c{number}; HttpOnly")
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        fine = all(base64.b64decode(request[key]).startswith(PNG) for key in ("image", "mask"))
        self.server.painted.append(fine)
        body = PNG if len(self.server.painted) > 1 else b"<html>"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_args):
        """Say nothing."""


@pytest.fixture
def gateway():
    class Server(ThreadingHTTPServer):
        request_queue_size = 64

    server = Server(("127.0.0.1", 0), Gateway)
    server.numbers, server.faults, server.asked, server.painted = itertools.count(1), {}, {}, []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with contextlib.closing(server.socket):
        yield server
        server.shutdown()


@pytest.fixture
def load(gateway):
    def load(**wanted):
        wanted = {"address": "127.0.0.1", "port": gateway.server_port, "host": "x", "rate": 200, "user": "a:b", **wanted}
        command = [sys.executable, CLIENT, json.dumps(wanted)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=100)
        return json.loads(done.stdout)

    return load


def test_every_request_is_counted_and_none_is_lost(gateway, load):
    found = load(least=400, pictures=5)
    assert found["total"] >= 400
    assert found["total"] == sum(found["counts"].values()) == sum(map(len, gateway.asked.values())) + len(gateway.painted)
    kinds = {f"{name}{sticky} 200" for name in ("page", "model", "config") for sticky in ("", ", sticky")}
    assert set(found["counts"]) == {*kinds, "picture 200", "picture 0"}
    assert [(one["kind"], one["reason"]) for one in found["failed"]] == [("picture", "no picture: b'<html>'")]
    assert all(gateway.painted)
    assert set(found["releases"]) == {"v1", "v2"}
    assert sum(found["releases"].values()) == found["counts"]["model 200"] + found["counts"]["model, sticky 200"]
    assert found["last"] == "v2"
    assert found["again"] == 0
    # Newcomers; and those that have no cookie, then the one that they were given.
    assert sorted(len(set(cookies)) for cookies in gateway.asked.values()) == [1] * 10 + [2] * 10


@pytest.mark.parametrize(("fault", "status"), [("503", 503), ("401", 401), ("cut", 0)])
def test_each_request_that_is_lost_is_named(gateway, load, fault, status):
    gateway.faults = dict.fromkeys((50, 51, 90), fault)
    found = load(least=150, pictures=0)
    assert [one["status"] for one in found["failed"]] == [status] * 3
    assert sum(number for kind, number in found["counts"].items() if kind.endswith(f" {status}")) == 3
    assert all(one["reason"] and one["at"] > 1 for one in found["failed"])


def test_a_kept_connection_that_is_closed_is_no_loss_and_a_new_one_is(gateway, load):
    gateway.faults = {60: "none"}
    found = load(least=150, pictures=0)
    assert (found["failed"], found["again"]) == ([], 1)
    gateway.numbers, gateway.faults = itertools.count(1), {1: "none"}
    found = load(least=50, pictures=0)
    assert [one["status"] for one in found["failed"]] == [0]


def test_it_goes_on_until_it_is_told_and_has_enough(load, tmp_path):
    enough = tmp_path / "enough"
    threading.Timer(3, enough.touch).start()
    began = time.monotonic()
    assert load(least=10, pictures=0, rate=50, until=str(enough))["total"] > 20
    assert time.monotonic() - began >= 3
    assert load(least=300, pictures=0, until=str(enough))["total"] >= 300
    assert load(least=5000, pictures=0, most=2, until=str(enough))["total"] < 1000


def test_the_client_is_no_bottleneck(load):
    """A request takes less than 2 ms of a processor, its start included: of 70 a second the hosts have the rest."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = load(least=1200, rate=70, pictures=2)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert found["seconds"] < 20
    assert used / found["total"] < 0.002
