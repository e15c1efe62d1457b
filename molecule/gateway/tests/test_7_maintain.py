"""Maintenance of the hosts loses no request, and a host that fails stops it."""

import re

import pytest
from conftest import GATEWAYS
from hosts import INSTANCE, LOCK
from play import play

pytestmark = pytest.mark.usefixtures("forgotten")

LIMIT = ("--limit", ",".join(GATEWAYS))
PHOTO = INSTANCE.replace("cpu", "photo.png")


def rows(output):
    """The summary table: host -> the rest of its line."""
    return dict(re.findall(r"^ +(iopaint-gateway-\d)  +(.*)$", output, re.MULTILINE))


def out_of_service(runtime):
    """The hosts of the instances that are out of the pool."""
    return re.findall(r"^paint,([^:]+):cpu,.*,MAINT,", runtime("show stat"), re.MULTILINE)


def test_a_dry_run_changes_nothing(gateway, runtime):
    before = gateway.container()
    wanted = {"iopaint_maintain_updates": "security", "iopaint_maintain_reboot": "if_needed"}
    limit = ("--limit", GATEWAYS[0])
    run = play("playbooks/maintain.yml", *limit, "--check", "--diff", **wanted, docker_log_options={"max-size": "11m"})
    assert run.rc == 0, run.output
    assert run.says("11m"), run.output
    assert [line.split()[0] for line in rows(run.output).values()] == ["checked"]
    assert gateway.container() == before
    assert out_of_service(runtime) == []


def test_a_roll_that_restarts_engines_loses_nothing(gateway, second, event, runtime):
    """Without live-restore a restart of the engine stops its containers."""
    hosts = (gateway, second)
    for host in hosts:
        host('sed -i \'s/"live-restore": true/"live-restore": false/\' /etc/docker/daemon.json && systemctl reload docker')
        assert host("docker info --format '{{.LiveRestoreEnabled}}'") == "false"
    before = [host.container() for host in hosts]
    with event():
        run = play("playbooks/maintain.yml", *LIMIT, docker_live_restore=False, docker_log_options={"max-size": "11m"})
        assert run.rc == 0, run.output
    table = rows(run.output)
    assert ["new settings, restarted" in table[name] for name in GATEWAYS] == [True, True], run.output
    assert [host.container() != old for host, old in zip(hosts, before)] == [True, True]
    assert out_of_service(runtime) == []


def test_a_host_that_fails_stays_out_of_service_and_stops_the_roll(gateway, second, event, runtime, renew):
    """The first host has no photograph to inpaint, so nothing is proven there. It stays out if HAProxy is killed."""
    before = second.container()
    gateway(f"mv {PHOTO} {PHOTO}.away")
    try:
        with event():
            run = play("playbooks/maintain.yml", *LIMIT, docker_live_restore=False, docker_log_options={"max-size": "12m"})
    finally:
        gateway(f"mv {PHOTO}.away {PHOTO}")
    assert run.rc == 2, run.output
    table = rows(run.output)
    assert table[GATEWAYS[0]].startswith("failed"), run.output
    assert "Out of service: cpu" in table[GATEWAYS[0]]
    assert table[GATEWAYS[1]].startswith("not reached")
    assert run.says(f"iopaint.fleet.maintain or iopaint.fleet.deploy with -l {GATEWAYS[0]}"), run.output
    assert out_of_service(runtime) == [GATEWAYS[0]]
    assert second.container() == before
    assert not gateway.shell.file(LOCK).exists
    renew("kill --signal=KILL")
    assert out_of_service(runtime) == [GATEWAYS[0]]


def test_the_same_command_goes_on(gateway, second, runtime, renew):
    run = play("playbooks/maintain.yml", *LIMIT, iopaint_maintain_updates="security", iopaint_maintain_reboot="if_needed")
    assert run.rc == 0, run.output
    assert [line.split()[0] for line in rows(run.output).values()] == ["maintained", "maintained"]
    renew("kill --signal=KILL")
    assert out_of_service(runtime) == []
    assert all(host("docker info --format '{{.LiveRestoreEnabled}}'") == "true" for host in (gateway, second))
