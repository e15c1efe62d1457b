"""Reloads of the gateway and switches of an instance lose no request."""

import json
import re
import time

import pytest
from conftest import ALICE, GATEWAYS, candidates, lost, out_of_service
from play import play

pytestmark = pytest.mark.usefixtures("forgotten")


def test_a_reload_under_load_loses_nothing(gateway, load):
    answers = load(count=500, pause=0.02)
    for _reload in range(3):
        time.sleep(2)
        gateway("systemctl reload haproxy")
    found = answers()
    assert len(found) == 500
    assert lost(found) == []


def test_a_play_that_changes_the_gateway_under_load_loses_nothing(load):
    answers = load(count=5000, pause=0.1)
    run = play("playbooks/gateway.yml", gateway_frontend_lines=["http-response set-header X-Robots-Tag noindex"])
    assert run.rc == 0, run.output
    found = answers(enough=True)
    assert lost(found) == []
    assert any("x-robots-tag" in answer["headers"] for answer in found)


def test_a_pool_whose_only_instance_is_switched_holds_requests(gateway, load, runtime):
    """Maintenance, not drain: sticky users would go on to a server that drains."""
    one, two = (f"paint/{name}:cpu" for name in GATEWAYS)
    runtime(f"set server {two} state maint")
    try:
        answers = load(count=200, pause=0.05, parallel=30)
        time.sleep(2)
        runtime(f"set server {one} state maint")
        for _attempt in range(50):
            if f'proxy="paint",server="{GATEWAYS[0]}:cpu"}} 0' in metric(gateway, "haproxy_server_current_sessions"):
                break
            time.sleep(0.1)
        gateway("docker restart -t 1 iopaint-cpu-iopaint-cpu-1")
        gateway("until docker ps --filter health=healthy -q | grep -q .; do sleep 0.2; done")
        runtime(f"set server {one} state ready")
        found = answers()
    finally:
        for name in (one, two):
            runtime(f"set server {name} state ready")
    assert lost(found) == []
    assert max(answer["seconds"] for answer in found) > 1, "nothing was held"


@pytest.mark.parametrize("image", ["v2", "v1"])
def test_an_upgrade_of_all_hosts_at_once_loses_nothing(load, runtime, image):
    """Both instances are out of the pool at the same time, so requests wait."""
    answers = load(count=5000, pause=0.2, parallel=30)
    run = play("playbooks/upgrade.yml", iopaint_images={"cpu": f"iopaint:cpu-{image}-standin"}, iopaint_upgrade_batches=["100%"])
    assert run.rc == 0, run.output
    found = answers(enough=True)
    assert lost(found) == []
    assert json.loads(found[-1]["body"])["release"] == image
    assert out_of_service(runtime) == []


@pytest.mark.parametrize("image", ["v2", "v1"])
def test_nobody_waits_for_a_release_that_starts_next_to_the_current_one(gateway, second, load, runtime, image):
    """Both instances are switched at the same time, and their candidates serve, from another host as well."""
    began = gateway("date +%s")
    answers = load(count=5000, pause=0.2, parallel=30)
    wanted = {"iopaint_images": {"cpu": f"iopaint:cpu-{image}-standin"}, "iopaint_upgrade_strategy": "parallel"}
    run = play("playbooks/upgrade.yml", iopaint_upgrade_batches=["100%"], **wanted)
    assert run.rc == 0, run.output
    found = answers(enough=True)
    assert lost(found) == []
    assert json.loads(found[-1]["body"])["release"] == image
    assert not run.says("does not serve from the candidate"), run.output
    gateway("journalctl --sync")
    log = gateway(f"journalctl -t iopaint-gateway -o cat --since=@{began}")
    assert {int(held) for held in re.findall(r'"held_ms":([0-9]+)', log)} == {0}
    assert {f"{name}:cpu:candidate" for name in GATEWAYS} <= set(re.findall(r'"instance":"([^"]+)"', log))
    assert (out_of_service(runtime), candidates(runtime)) == ([], [])
    for host in (gateway, second):
        assert host("docker ps -aq --filter label=com.docker.compose.project=candidate-iopaint-cpu") == ""


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
    run = play("playbooks/upgrade.yml", "--limit", GATEWAYS[1])
    assert run.rc == 0, run.output
    assert run.changed(GATEWAYS[1]) >= 1
    assert (out_of_service(runtime), candidates(runtime)) == ([], [])


def metric(gateway, name):
    """The lines of a metric."""
    program = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:8404/metrics').read().decode())"
    return "\n".join(line for line in gateway(f'python3 -c "{program}"').splitlines() if line.startswith(name))


def asked(gateway):
    """How many requests the gateway has had."""
    (line,) = [line for line in metric(gateway, "haproxy_frontend_http_requests_total").splitlines() if 'proxy="gateway"' in line]
    return int(line.split()[-1])


def test_a_full_line_is_refused_at_once(gateway, load, runtime):
    before = asked(gateway)
    try:
        for name in GATEWAYS:
            runtime(f"set server paint/{name}:cpu state maint")
        answers = load(count=45, parallel=45)
        for _attempt in range(100):
            if asked(gateway) == before + 45:
                break
            time.sleep(0.2)
    finally:
        for name in GATEWAYS:
            runtime(f"set server paint/{name}:cpu state ready")
    statuses = [answer["status"] for answer in answers()]
    assert set(statuses) == {200, 503}
    assert 30 <= statuses.count(200) <= 33, statuses


def test_a_new_token_loses_nothing_and_ends_the_former_one(gateway, second, load, ask):
    former = gateway("cat /etc/iopaint-gateway/token")
    answers = load(count=5000, pause=0.1)
    run = play("playbooks/rotate_token.yml")
    found = answers(enough=True)
    assert run.rc == 0, run.output
    assert lost(found) == []
    token = gateway("cat /etc/iopaint-gateway/token")
    assert token != former
    assert token not in run.output
    for host in (gateway, second):
        assert host("cat /opt/iopaint/instances/.gateway/token") == token
        for given, status in ((former, 401), (token, 200)):
            assert ask(address=host.name, port=8080, ca=None, headers={"X-IOPaint-Token": given})["status"] == status


def test_a_new_token_is_for_the_whole_fleet(gateway):
    before = gateway("cat /etc/iopaint-gateway/token")
    run = play("playbooks/rotate_token.yml", "--limit", GATEWAYS[0])
    assert run.rc == 2, run.output
    assert run.says(f"-l leaves out {GATEWAYS[1]}", "Run the playbook without -l. Nothing was changed."), run.output
    assert gateway("cat /etc/iopaint-gateway/token") == before
