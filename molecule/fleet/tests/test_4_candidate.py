"""A new release is proven as a candidate before the current one is touched."""

import json
import subprocess

import pytest
from conftest import LOCK, NAMES, Killed, image
from play import ROOT, play

HOST = 1
COMMAND = ("playbooks/upgrade.yml", "--limit", NAMES[HOST])
PARALLEL = {"iopaint_upgrade_strategy": "parallel"}


@pytest.fixture(autouse=True)
def images():
    """What an earlier upgrade has pruned is there again."""
    subprocess.run([ROOT / "molecule/fleet/stand-in/load", NAMES[HOST]], check=True)


def another(host):
    """A release that works and does not serve now, and the variables that ask for it."""
    kind = "v2" if host.serves() == "v3" else "v3"
    return kind, image(kind)


def of(project):
    return f"--filter label=com.docker.compose.project={project}"


def candidates(host):
    return host(f"docker ps -aq {of('candidate-iopaint-cpu')}")


def test_a_candidate_that_fails_touches_nothing(fleet):
    host = fleet[HOST]
    serving, before = host.serves(), host.container()
    run = play(*COMMAND, **image("broken"), **PARALLEL)
    assert run.rc == 2, run.output
    assert run.says("the stand-in is broken"), run.output
    assert host.container() == before  # neither stopped nor started anew
    assert host.is_settled(serving)
    assert not candidates(host)
    assert "failed" in host.outcomes().values()


def test_a_candidate_that_is_proven_replaces_the_current_release(fleet):
    host = fleet[HOST]
    kind, wanted = another(host)
    run = play(*COMMAND, **wanted, **PARALLEL)
    assert run.rc == 0, run.output
    assert run.output.count("inpaints with cv2") == 2, run.output  # as a candidate, and in its place
    assert host.is_settled(kind)
    assert not candidates(host)


def test_without_the_memory_for_both_it_is_replaced_at_once(fleet):
    host = fleet[HOST]
    kind, wanted = another(host)
    run = play(*COMMAND, **wanted, **PARALLEL, iopaint_memory="9000g")
    assert run.rc == 0, run.output
    assert run.says("start next to the current release and replaces it at once"), run.output
    assert run.output.count("inpaints with cv2") == 1, run.output
    assert host.is_settled(kind)


def test_a_candidate_whose_play_is_killed_is_gone_after_the_same_command(fleet):
    host = fleet[HOST]
    serving, before = host.serves(), host.container(of("iopaint-cpu"))
    kind, wanted = another(host)
    Killed(*COMMAND, **wanted, **PARALLEL).until("Remove the candidate").kill()
    assert host.container(of("iopaint-cpu")) == before
    assert host.serves() == serving
    assert json.loads(host(f"cat {LOCK}"))["play"] == "upgrade"
    run = play(*COMMAND, **wanted, **PARALLEL)
    assert run.rc == 0, run.output
    assert host.is_settled(kind)
    assert not candidates(host)
