"""Reloads of the gateway and switches of an instance lose no request."""

import re
import time

import pytest
from conftest import ALICE, GATEWAYS, NAMES, candidates, out_of_service, serves
from hosts import image
from play import play

pytestmark = pytest.mark.usefixtures("forgotten")


def metric(gateway, name):
    """The lines of a metric."""
    program = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:8404/metrics').read().decode())"
    return "\n".join(line for line in gateway(f'python3 -c "{program}"').splitlines() if line.startswith(name))


def test_reloads_and_a_play_that_changes_the_gateway_lose_nothing(event, renew, ask):
    with event():
        for _reload in range(3):
            renew("reload")
        run = play("playbooks/gateway.yml", gateway_frontend_lines=["http-response set-header X-Robots-Tag noindex"])
        assert run.rc == 0, run.output
    assert ask(user=ALICE)["headers"]["x-robots-tag"] == "noindex"


def test_a_rolling_upgrade_of_three_hosts_loses_nothing(hosts, event, runtime):
    with event() as found:
        run = play("playbooks/upgrade.yml", **image("v2"), iopaint_upgrade_batches=[1])
        assert run.rc == 0, run.output
    assert set(found["releases"]) == {"v1", "v2"}
    assert [serves(host) for host in hosts] == ["v2"] * 3
    assert out_of_service(runtime) == []


def test_a_rollback_of_all_hosts_at_once_loses_nothing_while_a_gateway_is_down(hosts, second, event, runtime):
    """No instance is in the pool for a while, so requests wait; and a gateway that is down stops nothing."""
    second("systemctl stop haproxy")
    try:
        with event() as found:
            run = play("playbooks/rollback.yml")
            assert run.rc == 0, run.output
    finally:
        second("systemctl start haproxy")
    assert found["slowest"] > 1, "nothing was held"
    assert found["last"] == "v1"
    assert [serves(host) for host in hosts] == ["v1"] * 3
    assert out_of_service(runtime) == []


def test_an_upgrade_that_fails_and_is_reverted_loses_nothing(gateway, event, runtime):
    with event() as found:
        run = play("playbooks/upgrade.yml", "--limit", GATEWAYS[0], **image("broken"))
        assert run.rc == 2, run.output
        assert run.says("the stand-in is broken"), run.output
    assert set(found["releases"]) == {"v1"}
    assert serves(gateway) == "v1"
    assert out_of_service(runtime) == []


def test_nobody_waits_for_a_release_that_starts_next_to_the_current_one(hosts, gateway, event, runtime):
    """All instances are switched at the same time, and their candidates serve, from other hosts as well."""
    began = gateway("date +%s")
    with event() as found:
        wanted = {**image("v2"), "iopaint_upgrade_strategy": "parallel"}
        run = play("playbooks/upgrade.yml", iopaint_upgrade_batches=["100%"], **wanted)
        assert run.rc == 0, run.output
    assert found["last"] == "v2"
    assert not run.says("does not serve from the candidate"), run.output
    gateway("journalctl --sync")
    log = gateway(f"journalctl -t iopaint-gateway -p info..info -o cat --since=@{began}")
    assert {int(held) for held in re.findall(r'"held_ms":([0-9]+)', log)} == {0}
    assert {f"{name}:cpu:candidate" for name in NAMES} <= set(re.findall(r'"instance":"([^"]+)"', log))
    assert (out_of_service(runtime), candidates(runtime)) == ([], [])
    for host in hosts:
        assert host("docker ps -aq --filter label=com.docker.compose.project=candidate-iopaint-cpu") == ""


def test_an_upgrade_of_the_only_instance_of_a_pool_loses_nothing(gateway, event, runtime):
    """The others are out of service, by maintenance and not by drain, as sticky users would go on to a server that drains."""
    others = [f"paint/{name}:cpu" for name in NAMES[1:]]
    for name in others:
        runtime(f"set server {name} state maint")
    try:
        with event() as found:
            run = play("playbooks/upgrade.yml", "--limit", GATEWAYS[0], **image("v1"))
            assert run.rc == 0, run.output
    finally:
        for name in others:
            runtime(f"set server {name} state ready")
    assert found["slowest"] > 1, "nothing was held"
    assert (set(found["releases"]), found["last"]) == ({"v1", "v2"}, "v1")
    assert serves(gateway) == "v1"
    assert out_of_service(runtime) == []


def test_an_instance_stays_out_or_in_over_a_reload_and_a_restart(renew, runtime, ask):
    """By hand, so that no play saves the state: HAProxy's unit does."""
    server = f"{GATEWAYS[1]}:cpu"
    runtime(f"set server paint/{server} state maint")
    try:
        for command in ("reload", "restart"):
            renew(command)
            assert out_of_service(runtime) == [server, f"{server}:page"]
            assert ask(user=ALICE)["status"] == 200
    finally:
        runtime(f"set server paint/{server} state ready")
    renew("restart")
    assert out_of_service(runtime) == []


def test_a_play_that_was_killed_leaves_no_instance_out_and_no_candidate_in(renew, runtime):
    """The gateway's own instance stands for the candidate of the other one."""
    server, out = f"paint/{GATEWAYS[1]}:cpu", [f"{GATEWAYS[1]}:cpu", f"{GATEWAYS[1]}:cpu:page"]
    runtime(f"set server {server} state maint")
    runtime(f"set server {server}:candidate addr 127.0.0.1 port 8080")
    runtime(f"set server {server}:candidate state ready")
    assert (candidates(runtime), out_of_service(runtime)) == ([f"{GATEWAYS[1]}:cpu:candidate"], out)
    renew("reload")  # after which no candidate is served from
    assert (candidates(runtime), out_of_service(runtime)) == ([], out)
    runtime(f"set server {server}:candidate addr 127.0.0.1 port 8080")
    runtime(f"set server {server}:candidate state ready")
    run = play("playbooks/upgrade.yml", "--limit", GATEWAYS[1], **image("v2"))  # which it has
    assert run.rc == 0, run.output
    assert run.changed(GATEWAYS[1]) >= 1
    assert (out_of_service(runtime), candidates(runtime)) == ([], [])


def asked(gateway):
    """How many requests the gateway has had."""
    (line,) = [line for line in metric(gateway, "haproxy_frontend_http_requests_total").splitlines() if 'proxy="gateway"' in line]
    return int(line.split()[-1])


def test_a_full_line_is_refused_at_once(gateway, load, runtime):
    before = asked(gateway)
    try:
        for name in NAMES:
            runtime(f"set server paint/{name}:cpu state maint")
        answers = load(count=45, parallel=45)
        for _attempt in range(100):
            if asked(gateway) == before + 45:
                break
            time.sleep(0.2)
    finally:
        for name in NAMES:
            runtime(f"set server paint/{name}:cpu state ready")
    statuses = [answer["status"] for answer in answers()]
    assert set(statuses) == {200, 503}
    assert 30 <= statuses.count(200) <= 33, statuses


def test_a_new_token_loses_nothing_and_ends_the_former_one(hosts, gateway, event, ask):
    former = gateway("cat /etc/iopaint-gateway/token")
    with event():
        run = play("playbooks/rotate_token.yml")
        assert run.rc == 0, run.output
    token = gateway("cat /etc/iopaint-gateway/token")
    assert token != former
    assert token not in run.output
    for host in hosts:
        assert host("cat /opt/iopaint/instances/.gateway/token") == token
        for given, status in ((former, 401), (token, 200)):
            assert ask(address=host.name, port=8080, ca=None, headers={"X-IOPaint-Token": given})["status"] == status


def test_a_new_token_is_for_the_whole_fleet(gateway):
    before = gateway("cat /etc/iopaint-gateway/token")
    run = play("playbooks/rotate_token.yml", "--limit", GATEWAYS[0])
    assert run.rc == 2, run.output
    assert run.says(f"-l leaves out {', '.join(NAMES[1:])}", "Run the playbook without -l. Nothing was changed."), run.output
    assert gateway("cat /etc/iopaint-gateway/token") == before
