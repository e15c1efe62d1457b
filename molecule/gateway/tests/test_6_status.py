"""The report on the fleet shows both gateways: what each serves, holds, refuses, and has out of service."""

import json
import re
import time

import pytest
from conftest import ALICE, GATEWAYS, NAMES, lost, out_of_service
from play import play

pytestmark = pytest.mark.usefixtures("forgotten")


@pytest.fixture
def status(tmp_path):
    """Report, and return the run, what is known of each gateway, and the page."""

    def status(**variables):
        run = play("playbooks/status.yml", iopaint_status_dir=str(tmp_path), **variables)
        document = json.loads((tmp_path / "status.json").read_text())
        return run, {known["host"]: known for known in document["gateways"]}, (tmp_path / "status.html").read_text()

    return status


def test_an_instance_that_is_out_of_service_is_named_with_what_brings_it_back(gateway, runtime, ask, status):
    name = f"{GATEWAYS[1]}:cpu"
    runtime(f"set server paint/{name} state maint")
    try:
        for wanted, answer in (({}, 200), ({"user": "alice:wrong"}, 401), ({"headers": {"Host": "evil.example.com"}}, 421)):
            assert ask(**{"user": ALICE, **wanted})["status"] == answer
        gateway("journalctl --sync")
        run, after, page = status()
        assert run.rc == 0, run.output
        (pool,) = after[GATEWAYS[0]]["pools"]
        (note,) = pool["notes"]
        gateway(note.partition("this brings it back: ")[2])
        assert out_of_service(runtime) == []
    finally:
        runtime(f"set server paint/{name} state ready")
    assert [run.changed(host) for host in GATEWAYS] == [0, 0]
    assert {one["name"]: one["state"] for one in pool["servers"]} == {
        f"{each}:cpu": "out of service" if each == GATEWAYS[1] else "up" for each in NAMES
    }
    assert (pool["state"], pool["level"]) == ("serves", "attention")
    assert f"{name}: out of service" in page
    assert run.says("2 of 2 gateways serve.", f"out of service: {name}; up: {NAMES[0]}:cpu, {NAMES[2]}:cpu"), run.output
    assert pool["requests"] > pool["refused"] > 0
    assert after[GATEWAYS[0]]["elsewhere"]["refused"] > 0
    end = gateway('date -ud "$(openssl x509 -in /etc/iopaint-gateway/tls/server.crt -noout -enddate | cut -d= -f2)" +%FT%TZ')
    assert after[GATEWAYS[0]]["certificate"]["until"] == end


def test_held_requests_and_a_gateway_that_is_down(second, runtime, load, status):
    """One play that fails, as it is strict, for the gateway that is down alone."""
    servers = [f"paint/{name}:cpu" for name in NAMES]
    second("systemctl stop haproxy")
    try:
        for server in servers:
            runtime(f"set server {server} state maint")
        answers = load(count=3)
        time.sleep(2)
        run, known, page = status(iopaint_status_strict=True)
    finally:
        for server in servers:
            runtime(f"set server {server} state ready")
        second("systemctl start haproxy")
    assert lost(answers()) == []
    assert run.rc == 2, run.output
    assert run.says("HAProxy is not answering.", "Its service is inactive", "1 of 2 gateways serve."), run.output
    assert re.search(rf"^{GATEWAYS[0]} .*failed=0", run.output, re.MULTILINE), run.output
    assert re.search(rf"^{GATEWAYS[1]} .*failed=1", run.output, re.MULTILINE), run.output
    (pool,) = known[GATEWAYS[0]]["pools"]
    assert (pool["state"], pool["held"], pool["queued"]) == ("held", 3, 0)
    assert "3 held" in page
    assert (known[GATEWAYS[1]]["state"], known[GATEWAYS[1]]["level"]) == ("not answering", "broken")
