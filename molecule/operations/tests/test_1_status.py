"""The fleet is looked at: what serves, what does not, and who can't be reached; nothing is changed by it."""

import re
import subprocess

import pytest
from conftest import CPU, NAMES
from hosts import LOCK
from play import deployed, play

EVERYTHING = "find /opt/iopaint /var/lib/iopaint /var/log/iopaint /etc /run/iopaint -xdev -type f -newermt @{} 2>/dev/null; true"


def rows(run):
    """The table's lines, by host and instance."""
    lines = re.findall(rf"^ +((?:{'|'.join(NAMES)}|lost) .*)$", run.output, re.MULTILINE)
    return {tuple(line.split()[:2]): re.split(" {2,}", line) for line in lines}


def states(document):
    return {(host["host"], one["name"]): one["state"] for host in document["hosts"] for one in host["instances"]}


def test_the_table_the_file_and_the_page_tell_of_every_instance(fleet, status):
    run, document, page = status()
    assert run.rc == 0, run.output
    table = rows(run)
    assert set(table) == {(name, instance) for name in NAMES for instance in ("cpu", "second")}
    for (name, instance), cells in table.items():
        assert cells[:4] == [name, instance, "cpu", "0001-cpu-v1-standin"]
        assert cells[5] == "healthy"
        assert re.fullmatch(r"\d+ ms", cells[7])
    counts = {"hosts": 2, "unseen": 0, "instances": 4, "serving": 4, "broken": 0}
    assert document["summary"] == {**counts, "gateways": 0, "gateways_serving": 0}
    assert all(host["engine"]["version"] and host["disks"][0]["free"] > 0 for host in document["hosts"])
    assert page.count('<tr class="ok">') == 6
    print(f"a look at two hosts took {run.seconds:.1f} s")


@pytest.mark.parametrize("arguments", [(), ("--check", "--diff")])
def test_a_look_changes_nothing(fleet, status, arguments):
    before = [(deployed(host.shell), host("date +%s")) for host in fleet]
    run, document, _page = status(*arguments)
    assert run.rc == 0, run.output
    assert [run.changed(name) for name in NAMES] == [0, 0]
    assert [deployed(host.shell) for host in fleet] == [containers for containers, _moment in before]
    assert [host(EVERYTHING.format(moment)) for host, (_containers, moment) in zip(fleet, before)] == ["", ""]
    assert (document is None) is bool(arguments)  # a dry run writes no files here either


def test_what_is_broken_and_who_is_lost_come_first(fleet, status, tmp_path):
    """One host is off, one is not there, one instance has ended; that is what is told, and no failure."""
    lost = tmp_path / "lost.yml"
    lost.write_text("cpu_hosts: {hosts: {lost: {ansible_connection: ssh, ansible_host: 127.0.0.1, ansible_port: 1}}}\n")
    fleet[0]("docker stop --time 1 iopaint-second-iopaint-cpu-1")
    subprocess.run(["docker", "kill", NAMES[1]], check=True, stdout=subprocess.DEVNULL)
    try:
        run, document, page = status("-i", str(lost))
        strict, _document, _page = status("-i", str(lost), iopaint_status_strict=True)
    finally:
        subprocess.run(["docker", "start", NAMES[1]], check=True, stdout=subprocess.DEVNULL)
        fleet[1]("systemctl is-system-running --wait || true")
        fleet[0]("docker start iopaint-second-iopaint-cpu-1")
    assert run.rc == 0, run.output
    order = [(host, cells[5]) for (host, _instance), cells in rows(run).items()]
    assert order == [(NAMES[1], "failed"), ("lost", "unreachable"), (NAMES[0], "exited"), (NAMES[0], "healthy")]
    assert run.says("1 of 2 instances on 3 hosts serve; broken: 1, hosts that could not be looked at: 2."), run.output
    assert [host["level"] for host in document["hosts"]] == ["unseen", "unseen", "broken"]
    assert "Connection refused" in page
    assert "is not running" in page  # what the engine says to those who go by it; ssh would not connect
    assert strict.rc == 2, strict.output
    assert strict.says("second is exited. Its container ended with status", "Connection refused"), strict.output
    assert re.search(rf"^{NAMES[0]} .*failed=1", strict.output, re.MULTILINE), strict.output


def test_an_engine_that_is_stopped_is_told_and_not_started(fleet, status):
    """A command to the engine would start it: systemd listens for that."""
    fleet[0]("systemctl stop docker.service")
    run, document, _page = status("--limit", NAMES[0])
    still = fleet[0]("systemctl is-active docker.service || true")
    fleet[0]("systemctl start docker.service")
    assert run.rc == 0, run.output
    assert run.says("The Docker engine is stopped: Its service is stopped; systemctl start docker starts it."), run.output
    assert set(states(document).values()) == {"unknown"}
    assert still == "inactive"


def test_a_lock_is_shown_and_not_waited_for(one, status):
    holder = '{"operator": "ann", "controller": "desk", "play": "upgrade", "time": "2026-01-01T00:00:00Z", "token": "x"}'
    one(f"mkdir -p /run/iopaint && echo '{holder}' > {LOCK}")
    run, document, _page = status("--limit", NAMES[0])
    still = one(f"cat {LOCK}")
    one(f"rm {LOCK}")
    assert run.rc == 0, run.output
    assert run.says("upgrade by ann", "Locked by upgrade by ann on desk, since 2026-01-01T00:00:00Z."), run.output
    assert document["hosts"][0]["lock"]["operator"] == "ann"
    assert still == holder


def test_an_instance_that_nobody_wants_any_more_runs_on_and_is_named(one, status):
    before = deployed(one.shell)
    # The end of deploy.yml as well, and sooner there.
    run = play("playbooks/upgrade.yml", "--limit", NAMES[0], iopaint_instances=[CPU])
    assert run.rc == 0, run.output
    assert run.changed(NAMES[0]) == 0, run.output
    assert deployed(one.shell) == before
    command = f"""ansible-playbook iopaint.fleet.remove -l {NAMES[0]} -e '{{"iopaint_remove_instances": ["second"]}}'"""
    assert command in run.output
    run, document, _page = status("--limit", NAMES[0], iopaint_instances=[CPU, {**CPU, "name": "third", "port": 8100}])
    assert run.rc == 0, run.output
    assert states(document) == {
        (NAMES[0], "cpu"): "healthy",
        (NAMES[0], "second"): "healthy",
        (NAMES[0], "third"): "not deployed",
    }
    assert run.says("It is not in iopaint_instances any more", "It is in iopaint_instances and was not deployed yet."), run.output
