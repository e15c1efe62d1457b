"""The previous release of the collection deploys, then this one goes on with the same host. The tests build on each other."""

import re

import pytest
from play import play

KEPT = "/var/lib/iopaint/outputs/cpu/kept.png"
PICTURE = "cd /var/lib/iopaint/outputs/cpu && echo a picture > kept.png && chown 10001:10001 kept.png"


def proves(run):
    """Check that the play ended well, and that an instance was proven in it."""
    assert run.rc == 0, run.output
    assert re.search(r"inpaints with cv2: \d+ of \d+ pixels", run.output), run.output


def test_the_previous_release_deploys(install, one):
    print("previous:", install("previous"))
    proves(play("iopaint.fleet.deploy"))
    assert list(one.outcomes().values()) == ["current"]
    one(PICTURE)


def test_this_release_checks_the_host_without_a_change(install, one):
    print("this:", install("this"))
    before = one.container(), one.records()
    run = play("iopaint.fleet.deploy", "--check", "--diff")
    assert run.rc == 0, run.output
    assert (one.container(), one.records()) == before


def test_this_release_upgrades_the_host(one, inpaints):
    picture, before = one(f"sha256sum {KEPT}"), one.records()
    run = play("iopaint.fleet.upgrade")
    assert run.rc == 0, run.output
    proof = inpaints()
    assert "msg" not in proof, proof["msg"]  # which only a failure has
    assert before.keys() <= one.records().keys()
    assert list(one.outcomes().values()).count("current") == 1
    assert one(f"sha256sum {KEPT}") == picture
    assert len(one("docker ps -q").split()) == 1


def test_deploying_again_is_a_no_op(one):
    before = one.container()
    run = play("iopaint.fleet.deploy")
    assert run.rc == 0, run.output
    assert run.changed(one.name) == 0, run.output
    assert one.container() == before


def test_a_release_of_the_previous_collection_is_rolled_back_to(one, inpaints):
    first, *later = sorted(one.records())
    if not later:
        pytest.skip("both collections make the same release of an instance")
    run = play("iopaint.fleet.rollback", iopaint_rollback_to=first)
    assert run.rc == 0, run.output
    assert one.current() == first
    assert "msg" not in inpaints()
    proves(play("iopaint.fleet.deploy"))
    assert one.current() != first


def test_status_and_removal_know_what_the_previous_collection_left(one, tmp_path):
    run = play("iopaint.fleet.status", iopaint_status_dir=str(tmp_path))
    assert run.rc == 0, run.output
    run = play("iopaint.fleet.remove")
    assert run.rc == 0, run.output
    assert one("docker ps -aq") == ""
    assert not one.shell.file("/opt/iopaint/instances/cpu").exists
    assert one.shell.file(KEPT).exists
