"""Rollbacks to the previous or a named release, without any network."""

from conftest import NAMES, image
from play import play

V1, V2 = "0001-cpu-v1-standin", "cpu-v2-standin"


def test_the_previous_release_is_rolled_back_to(fleet):
    run = play("playbooks/rollback.yml")
    assert run.rc == 0, run.output
    assert all(host.is_settled("v1") for host in fleet)
    assert fleet[0].current() == V1
    print(f"a rollback of three hosts took {run.seconds:.1f} s")


def test_an_unknown_release_is_answered_with_what_there_is(one):
    before = one.container()
    run = play("playbooks/rollback.yml", "--limit", NAMES[0], iopaint_rollback_to="0099-none")
    assert run.rc == 2, run.output
    assert run.says("no release 0099-none", f"{V1} (current", "(failed", "Nothing was changed."), run.output
    assert one.container() == before
    assert one.is_settled("v1")


def test_a_release_whose_image_is_gone_is_refused(one):
    (target,) = [name for name in one.outcomes() if V2 in name]
    one("docker tag iopaint:cpu-v2-standin somebody/kept:v2 && docker rmi iopaint:cpu-v2-standin somebody/kept:v2")
    before = one.container()
    run = play("playbooks/rollback.yml", "--limit", NAMES[0], iopaint_rollback_to=target)
    assert run.rc == 2, run.output
    assert run.says("its image or its files are gone from this host"), run.output
    assert one.container() == before
    assert one.is_settled("v1")


def test_a_damaged_record_is_named_and_rebuilt_from_what_runs(fleet):
    host, record = fleet[1], f"/opt/iopaint/instances/cpu/releases/{V1}/release.json"
    before = host.container()
    host(f"cp -p {record} /root/record.json && truncate -s 40 {record}")
    run = play("playbooks/upgrade.yml", "--limit", NAMES[1], **image("v1"))
    if run.rc != 0:  # the tests that follow have no part in it
        host(f"cp -p /root/record.json {record}")
    assert run.rc == 0, run.output
    assert run.says(f"releases/{V1}/release.json could not be read"), run.output
    assert host.container() == before
    assert host.is_settled("v1")
    assert "rebuilt" in host.records()[V1]["reason"]
