"""A rolling upgrade: batch after batch, reverted and stopped where a host fails."""

import re

import pytest
from conftest import NAMES, Host, image
from play import play


def rows(output):
    """The summary table: host -> the rest of its line."""
    return dict(re.findall(r"^ +(iopaint-fleet-\d)  +(.*)$", output, re.MULTILINE))


def test_the_first_release_serves_everywhere(fleet):
    assert all(host.is_settled("v1") for host in fleet)
    (record,) = fleet[0].records().values()
    assert (record["id"], record["ref"], record["outcome"]) == ("0001-cpu-v1-standin", "v1", "current")
    assert record["proof"]["pixels"]["changed_outside"] == 0
    assert [line["action"] for line in fleet[0].audit()] == ["prepared", "switched", "kept"]


def test_a_second_upgrade_changes_nothing(fleet):
    before = [host.container() for host in fleet]
    run = play("playbooks/upgrade.yml", iopaint_upgrade_batches=["100%"])
    assert run.rc == 0, run.output
    assert [run.changed(name) for name in NAMES] == [0, 0, 0], run.output
    assert [host.container() for host in fleet] == before
    assert ["unchanged" in rows(run.output)[name] for name in NAMES] == [True, True, True]
    print(f"an idle upgrade of three hosts took {run.seconds:.1f} s")


def test_a_dry_run_says_what_would_change_and_changes_nothing(fleet):
    before = [(host.container(), host.outcomes()) for host in fleet]
    run = play("playbooks/upgrade.yml", "--check", "--diff", **image("v2"), iopaint_upgrade_batches=["100%"])
    assert run.rc == 0, run.output
    assert run.says("-iopaint:cpu-v1-standin", "+iopaint:cpu-v2-standin"), run.output
    assert [(host.container(), host.outcomes()) for host in fleet] == before


def test_a_host_that_fails_is_reverted_and_the_roll_stops(fleet):
    """The canary crashes at its start: hosts two and three are not touched."""
    before = [host.container() for host in fleet]
    run = play("playbooks/upgrade.yml", **image("crashes"))
    assert run.rc == 2, run.output
    table = rows(run.output)
    assert "reverted" in table[NAMES[0]], run.output
    assert "not reached" in table[NAMES[1]]
    assert "not reached" in table[NAMES[2]]
    assert run.says("the stand-in crashes at its start"), run.output
    assert all(host.is_settled("v1") for host in fleet)
    assert [host.container() for host in fleet[1:]] == before[1:]
    assert fleet[0].outcomes() == {"0001-cpu-v1-standin": "current", "0002-cpu-crashes-standin": "failed"}
    assert "the stand-in crashes at its start" in fleet[0].records()["0002-cpu-crashes-standin"]["reason"]
    assert fleet[1].outcomes() == {"0001-cpu-v1-standin": "current"}


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("unhealthy", "did not become healthy (iopaint_start_timeout is 12 s)"),
        ("broken", "the stand-in is broken"),
    ],
)
def test_a_release_that_does_not_serve_is_reverted(one, name, sentence):
    run = play("playbooks/upgrade.yml", "--limit", NAMES[0], **image(name), iopaint_start_timeout=12)
    assert run.rc == 2, run.output
    assert run.says(sentence, "reverted to the previous release 0001-cpu-v1-standin, which is proven"), run.output
    assert one.is_settled("v1")


def test_a_host_that_a_roll_may_lose_does_not_stop_it(fleet, tmp_path):
    """Host two asks for too much; one failure is allowed, and hooks see each host before and after."""
    hooks = {}
    for moment in ("before", "after"):
        hooks[f"iopaint_upgrade_{moment}"] = str(tmp_path / f"{moment}.yml")
        (tmp_path / f"{moment}.yml").write_text(
            "- ansible.builtin.shell: echo "
            f"{moment} {{{{ iopaint_upgraded.outcome | default('') }}}} >> {tmp_path}/{{{{ inventory_hostname }}}}\n"
            "  delegate_to: localhost\n  become: false\n"
        )
    (tmp_path / "before.yml").write_text(
        (tmp_path / "before.yml").read_text()
        + f"- ansible.builtin.fail:\n    msg: the balancer does not drain\n  when: inventory_hostname == '{NAMES[1]}'\n"
    )
    run = play("playbooks/upgrade.yml", **image("v2"), **hooks, iopaint_upgrade_max_failures=1)
    assert run.rc == 2, run.output
    table = rows(run.output)
    assert ["upgraded" in table[NAMES[0]], "failed" in table[NAMES[1]], "upgraded" in table[NAMES[2]]] == [True] * 3, run.output
    assert "the balancer does not drain" in table[NAMES[1]]
    assert [host.serves() for host in fleet] == ["v2", "v1", "v2"]
    assert (tmp_path / NAMES[0]).read_text().split() == ["before", "after", "upgraded"]
    assert (tmp_path / NAMES[1]).read_text().split() == ["before", "after", "failed"]
    gap = re.search(r"([\d.]+) s without service", run.output)
    assert gap, run.output
    assert 0 < float(gap[1]) < 40
    print(f"a roll over three hosts took {run.seconds:.1f} s, {gap[1]} s without service")


def test_a_roll_goes_on_where_it_stopped(fleet):
    before = [host.container() for host in fleet]
    run = play("playbooks/upgrade.yml", **image("v2"), iopaint_upgrade_batches=["100%"])
    assert run.rc == 0, run.output
    assert all(host.is_settled("v2") for host in fleet)
    after = [host.container() for host in fleet]
    assert [old == new for old, new in zip(before, after)] == [True, False, True]


def test_every_host_is_looked_at_before_the_first_is_changed(fleet):
    """The image is missing on the last one."""
    fleet[2]("docker rmi iopaint:cpu-v3-standin")
    before = [host.container() for host in fleet]
    run = play("playbooks/upgrade.yml", **image("v3"))
    assert run.rc == 2, run.output
    assert run.says("The image iopaint:cpu-v3-standin (iopaint_images, instance cpu) is not on this host"), run.output
    assert [host.container() for host in fleet] == before


def test_a_host_that_does_not_answer_stops_the_roll_before_it_begins(fleet):
    before = [host.container() for host in fleet[:2]]
    lost = Host(NAMES[2])
    run = play(
        "playbooks/upgrade.yml",
        "-e",
        "ansible_host={{ 'no-such-host' if inventory_hostname == 'iopaint-fleet-3' else inventory_hostname }}",
        **image("v3"),
    )
    assert run.rc in (2, 4), run.output
    assert [host.container() for host in fleet[:2]] == before
    assert lost.serves() == "v2"
