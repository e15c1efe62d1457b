"""The control node is lost after each task of a switch, and two of them at once."""

import json
import os
import re
import shlex
import signal
import subprocess

import pytest
from conftest import LOCK, NAMES, Killed, image
from play import ROOT, play

HOST = 1  # whose two releases are still there
# What a kill between two steps leaves is in tests/unit/test_release.py as well.
TASKS = [
    "Switch to the new releases",
    "Prove each instance with a real inpainting request",
    "Record the proof and prune old releases",
]


@pytest.mark.parametrize("task", TASKS)
def test_the_same_command_again_converges(fleet, task):
    host = fleet[HOST]
    kind = {"v1": "v2", "v2": "v1"}[host.serves()]
    (target,) = [name for name in host.outcomes() if f"-{kind}-" in name]
    command = ("playbooks/rollback.yml", "--limit", NAMES[HOST])
    Killed(*command, iopaint_rollback_to=target).until(task).kill()
    assert json.loads(host(f"cat {LOCK}"))["play"] == "rollback"
    run = play(*command, iopaint_rollback_to=target)
    assert run.rc == 0, run.output
    assert run.says("The lock was held by rollback of", "It was taken over"), run.output
    assert host.is_settled(kind)


def test_of_two_controllers_one_is_told_of_the_other(fleet):
    host = fleet[HOST]
    kind = {"v1": "v2", "v2": "v1"}[host.serves()]
    first = Killed("playbooks/upgrade.yml", "--limit", NAMES[HOST], **image(kind)).until(
        "Start instances and wait until they are healthy"
    )
    os.killpg(first.process.pid, signal.SIGSTOP)  # it would be over before the second one has begun
    second = play("playbooks/upgrade.yml", "--limit", NAMES[HOST], **image("v3"))
    os.killpg(first.process.pid, signal.SIGCONT)
    assert first.end() == 0, first.output
    assert second.rc == 2, second.output
    assert second.says(f"Another play holds the lock {LOCK} of this host: upgrade by", "state=absent force=true"), second.output
    assert host.is_settled(kind)


def test_a_lock_of_another_control_node_is_freed_by_the_command_it_names(fleet):
    host = fleet[HOST]
    kind = host.serves()
    holder = {
        "operator": "ann",
        "controller": "a-laptop",
        "pid": 7,
        "play": "upgrade",
        "token": "a-laptop:1:7:70",
        "time": "2026-01-01T00:00:00Z",
    }
    host(f"mkdir -p /run/iopaint && echo '{json.dumps(holder)}' > {LOCK}")
    run = play("playbooks/rollback.yml", "--limit", NAMES[HOST])
    assert run.rc == 2, run.output
    assert run.says("upgrade by ann on a-laptop (process 7), since 2026-01-01T00:00:00Z"), run.output
    assert host.serves() == kind
    command = shlex.split(re.search(r"remove it: (ansible HOST .*?')\.", " ".join(run.output.split()))[1])
    command = [NAMES[HOST] if word == "HOST" else word for word in command]
    freed = subprocess.run(
        [*command, "-i", os.environ["MOLECULE_INVENTORY_FILE"]], cwd=ROOT, check=False, capture_output=True, text=True
    )
    assert freed.returncode == 0, freed.stdout + freed.stderr
    assert host.is_settled(kind)
    assert host.audit()[-1]["action"] == "lock freed by force"


def test_a_host_that_is_lost_in_its_switch_is_in_the_summary_and_converges(fleet):
    """Power is cut to the last host; the other one of its batch is upgraded, and the same command again does the rest."""
    kind = {"v1": "v2", "v2": "v1"}[fleet[HOST].serves()]
    command = ("playbooks/upgrade.yml", "--limit", f"{NAMES[HOST]},{NAMES[2]}")
    options = {**image(kind), "iopaint_upgrade_batches": ["100%"]}
    run = Killed(*command, **options).until("Start instances and wait until they are healthy")
    subprocess.run(["docker", "kill", NAMES[2]], check=True, stdout=subprocess.DEVNULL)
    assert run.end() != 0, run.output
    assert re.search(rf"^ +{NAMES[HOST]} .* upgraded ", run.output, re.MULTILINE), run.output
    assert re.search(rf"^ +{NAMES[2]} .* failed ", run.output, re.MULTILINE), run.output
    assert fleet[HOST].is_settled(kind)

    subprocess.run(["docker", "start", NAMES[2]], check=True, stdout=subprocess.DEVNULL)
    fleet[2]("systemctl is-system-running --wait || true")
    again = play(*command, **options)
    assert again.rc == 0, again.output
    assert fleet[2].is_settled(kind)


def test_a_host_that_is_lost_between_batches_fails_by_itself(fleet):
    """Its power is cut while the canary is upgraded: the canary stays upgraded, and the same command again does the rest."""
    kind = {"v1": "v2", "v2": "v1"}[fleet[HOST].serves()]
    command = ("playbooks/upgrade.yml", "--limit", f"{NAMES[HOST]},{NAMES[2]}")
    options = {**image(kind), "iopaint_upgrade_batches": [1, "100%"]}
    run = Killed(*command, **options).until("Switch to the new releases")
    subprocess.run(["docker", "kill", NAMES[2]], check=True, stdout=subprocess.DEVNULL)
    assert run.end() != 0, run.output
    assert re.search(rf"^ +{NAMES[HOST]} .* upgraded ", run.output, re.MULTILINE), run.output
    assert fleet[HOST].is_settled(kind)

    subprocess.run(["docker", "start", NAMES[2]], check=True, stdout=subprocess.DEVNULL)
    fleet[2]("systemctl is-system-running --wait || true")
    again = play(*command, **options)
    assert again.rc == 0, again.output
    assert all(host.is_settled(kind) for host in fleet[HOST:])


@pytest.mark.parametrize("moment", [0.0, 3.0])
def test_an_engine_that_restarts_in_the_switch(fleet, moment):
    """The play may fail or not; something serves, and the same command again converges."""
    host = fleet[HOST]
    serving = host.serves()
    kind = {"v1": "v2", "v2": "v1"}[serving]
    command = ("playbooks/upgrade.yml", "--limit", NAMES[HOST])
    run = Killed(*command, **image(kind)).until("Start instances and wait until they are healthy", seconds=moment)
    host("systemctl restart docker")
    run.end()
    host("for try in $(seq 30); do curl -sf http://127.0.0.1:8080/api/v1/model && break; sleep 1; done")
    assert host.serves() in (serving, kind), run.output
    again = play(*command, **image(kind))
    assert again.rc == 0, again.output
    assert host.is_settled(kind)


def test_images_that_no_release_needs_go_and_others_stay(fleet):
    host = fleet[HOST]
    host("docker tag iopaint:cpu-broken-standin somebody/else:1")
    run = play("playbooks/upgrade.yml", "--limit", NAMES[HOST], **image("v3"), iopaint_releases_keep=1)
    assert run.rc == 0, run.output
    assert host.is_settled("v3")
    tags = host("docker images --format '{{.Repository}}:{{.Tag}}'").split()
    assert {"iopaint:cpu-v3-standin", "somebody/else:1"} <= set(tags)
    assert not {"iopaint:cpu-v1-standin", "iopaint:cpu-v2-standin"} & set(tags)
