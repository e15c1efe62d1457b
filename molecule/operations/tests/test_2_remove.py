"""Instances are taken away, one and then all, with what is theirs; what is not, and data, stays."""

import json
import re

import pytest
from conftest import NAMES
from play import deployed, play

DATA = "cd /var/lib/iopaint && find . -type f | sort | xargs -r sha256sum"
OURS = ["/opt/iopaint", "/etc/logrotate.d/iopaint-fleet"]


def images(host):
    return set(host("docker images --format '{{.Repository}}:{{.Tag}}'").split())


@pytest.fixture(scope="module", autouse=True)
def neighbours(fleet):
    """On the first host: data, traces of a build, and what is somebody else's."""
    fleet[0]("docker tag iopaint:cpu-v1-standin somebody/else:1")
    fleet[0]("docker network create theirs && docker volume create theirs")
    fleet[0]("docker run -d --name neighbour --network theirs --entrypoint sleep iopaint:cpu-v2-standin infinity")
    fleet[0]("mkdir -p /opt/iopaint/image/docker /opt/iopaint/image/git && touch /opt/iopaint/image/docker/docker-bake.hcl")
    fleet[0]("echo theirs > /etc/logrotate.d/theirs")
    for host in fleet:
        host("echo weights > /var/lib/iopaint/models/lama.pt")
        host("for each in cpu second; do echo $each > /var/lib/iopaint/outputs/$each/a.png; done")
        host("chown -R 10001:10001 /var/lib/iopaint/outputs /var/lib/iopaint/models")


def test_a_dry_run_lists_what_would_go(fleet):
    before = [(deployed(host.shell), images(host), host("find /opt/iopaint")) for host in fleet]
    run = play("playbooks/remove.yml", "--check", "--diff", iopaint_remove_instances=["second"])
    assert run.rc == 0, run.output
    assert run.says(
        "-container iopaint-second-iopaint-cpu-1 -network iopaint-second_default -folder /opt/iopaint/instances/second"
    )
    assert "image " not in re.sub("\n[^-].*", "", run.output)
    assert run.says("Would be removed (second): 1 container, 1 network, 1 folder.", "Still here: cpu."), run.output
    assert [(deployed(host.shell), images(host), host("find /opt/iopaint")) for host in fleet] == before


def test_one_instance_goes_and_the_other_serves_on(fleet):
    before = [(deployed(host.shell), host(DATA)) for host in fleet]
    run = play("playbooks/remove.yml", iopaint_remove_instances=["second"])
    assert run.rc == 0, run.output
    for host, (containers, data) in zip(fleet, before):
        assert deployed(host.shell) == {name: state for name, state in containers.items() if "second" not in name}
        assert host.is_settled("v1") if host is fleet[1] else host.serves() == "v1"
        assert "iopaint-second_default" not in host("docker network ls")
        assert not host.shell.file("/opt/iopaint/instances/second").exists
        assert host(DATA) == data
        assert (host.audit()[-1]["action"], host.audit()[-1]["instances"]) == ("removed", ["second"])


def test_the_second_time_changes_nothing(fleet):
    before = [host.audit() for host in fleet]
    run = play("playbooks/remove.yml", iopaint_remove_instances=["second"])
    assert run.rc == 0, run.output
    assert [run.changed(name) for name in NAMES] == [0, 0], run.output
    assert run.says("Nothing to remove. Still here: cpu."), run.output
    assert [host.audit() for host in fleet] == before


def test_its_data_goes_where_that_is_asked_for(fleet):
    run = play("playbooks/remove.yml", "--limit", NAMES[1], iopaint_remove_instances=["second"], iopaint_remove_data=True)
    assert run.rc == 0, run.output
    assert not fleet[1].shell.file("/var/lib/iopaint/outputs/second").exists
    assert fleet[1]("cat /var/lib/iopaint/outputs/cpu/a.png /var/lib/iopaint/models/lama.pt") == "cpu\nweights"


def test_an_engine_that_is_down_stops_it_before_anything_is_removed(one):
    """One that systemd would start is started: that is what the play is for."""
    before = one("find /opt/iopaint | sort")
    one("systemctl stop docker.socket docker.service")
    run = play("playbooks/remove.yml", "--limit", NAMES[0])
    one("systemctl start docker.socket docker.service")
    assert run.rc == 2, run.output
    assert run.says("The Docker engine does not answer", "Start it (systemctl start docker), then run this again."), run.output
    assert run.says("Nothing was removed."), run.output
    assert one("find /opt/iopaint | sort") == before
    assert not one.shell.file("/run/iopaint/lock").exists


def test_another_play_is_not_disturbed(one):
    holder = {"operator": "ann", "controller": "a-laptop", "pid": 7, "play": "upgrade", "token": "a-laptop:1:7:70"}
    one(f"mkdir -p /run/iopaint && echo '{json.dumps(holder)}' > /run/iopaint/lock")
    run = play("playbooks/remove.yml", "--limit", NAMES[0])
    one("rm /run/iopaint/lock")
    assert run.rc == 2, run.output
    assert run.says("Another play holds the lock", "upgrade by ann on a-laptop"), run.output
    assert one.serves() == "v1"


def test_all_of_it_goes_and_nothing_else(fleet):
    before = [host(DATA) for host in fleet]
    run = play("playbooks/remove.yml", "--diff")
    assert run.rc == 0, run.output
    for host, data in zip(fleet, before):
        assert deployed(host.shell) == {}
        assert host(DATA) == data
        assert [path for path in OURS if host.shell.file(path).exists] == []
        assert not host.shell.file("/run/iopaint/lock").exists
        assert (host.audit()[-1]["action"], host.audit()[-1]["instances"]) == ("removed", ["cpu"])
    assert images(fleet[0]) == {"iopaint:cpu-v2-standin", "somebody/else:1"}
    assert images(fleet[1]) == set()
    assert fleet[0]("docker inspect --format '{{.State.Running}}' neighbour") == "true"
    assert fleet[0]("docker network ls -q --filter name=theirs; docker volume ls -q") != ""
    assert fleet[0].shell.file("/etc/logrotate.d/theirs").exists
    assert run.says("a container of somebody else's was made from them: iopaint:cpu-v2-standin."), run.output


def test_all_of_it_the_second_time_changes_nothing(fleet):
    run = play("playbooks/remove.yml", "--diff")
    assert run.rc == 0, run.output
    assert [run.changed(name) for name in NAMES] == [0, 0], run.output


def test_a_removed_fleet_is_told_as_such(fleet, status):
    run, document, _page = status()
    assert run.rc == 0, run.output
    assert {one["state"] for host in document["hosts"] for one in host["instances"]} == {"not deployed"}


def test_data_and_log_go_where_that_is_asked_for(fleet):
    options = {"iopaint_remove_data": True, "iopaint_remove_log": True}
    run = play("playbooks/remove.yml", "--limit", NAMES[1], **options)
    assert run.rc == 0, run.output
    assert not fleet[1].shell.file("/var/lib/iopaint").exists
    assert not fleet[1].shell.file("/var/log/iopaint").exists
    again = play("playbooks/remove.yml", "--limit", NAMES[1], **options)
    assert again.changed(NAMES[1]) == 0, again.output
    assert fleet[0]("cat /var/lib/iopaint/models/lama.pt") == "weights"


def test_a_host_without_docker_has_only_files(fleet):
    """As after the engine was taken away first."""
    fleet[1]("mkdir -p /opt/iopaint/instances/cpu/releases && chmod -x /usr/bin/docker")
    run = play("playbooks/remove.yml", "--limit", NAMES[1])
    fleet[1]("chmod +x /usr/bin/docker")
    assert run.rc == 0, run.output
    assert run.says("There is no docker command on this host, so only files are looked at."), run.output
    assert not fleet[1].shell.file("/opt/iopaint").exists
