# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A new token for the gateways: what instances know before, while and after the gateways take it."""

import json
import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="the files are root's")

PLAY = """
- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.include_role: {name: iopaint.fleet.gateway, tasks_from: new_token}
      when: step == "begin"
    - ansible.builtin.include_role: {name: iopaint.fleet.gateway, tasks_from: token}
      when: step == "end"
    - ansible.builtin.include_role: {name: iopaint.fleet.iopaint, tasks_from: token}
      vars: {iopaint_token_keep: "{{ step == 'begin' }}"}
    - ansible.builtin.include_role: {name: iopaint.fleet.gateway, tasks_from: keep_token}
      when: step == "begin"
"""
HOSTS = """
[all:vars]
ansible_connection=local
ansible_python_interpreter={{ ansible_playbook_python }}
iopaint_dir=FOLDER/{{ inventory_hostname }}
[gateways]
one
[cpu_hosts]
one
two
three
"""


@pytest.fixture
def fleet(tmp_path):
    """A gateway, two hosts whose instances know its token, and one without instances."""
    (tmp_path / "play.yml").write_text(PLAY)
    (tmp_path / "hosts").write_text(HOSTS.replace("FOLDER", str(tmp_path)))
    for name in ("one/.gateway", "two/.gateway", "gateway"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "token").write_text("former\n" * (name != "gateway") or "former")
    for name in ("one", "two"):
        os.chown(tmp_path / name / ".gateway" / "token", 0, 10001)

    def run(step, *more, refused=False):
        variables = ["-e", f"step={step}", "-e", f"__gateway_dir={tmp_path}/gateway"]
        command = ["ansible-playbook", "-i", tmp_path / "hosts", tmp_path / "play.yml", "-vvv", *variables, *more]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if refused:
            assert done.returncode == 2, done.stdout + done.stderr
            return " ".join(done.stdout.split())
        assert done.returncode == 0, done.stdout + done.stderr
        known = [(tmp_path / name / ".gateway" / "token").read_text().split() for name in ("one", "two")]
        assert known[0] == known[1]
        assert not (tmp_path / "three").exists()
        assert known[0][0] not in done.stdout
        return known[0], (tmp_path / "gateway" / "token").read_text()

    return run


def test_instances_know_both_until_the_gateways_have_the_new_one(fleet, tmp_path):
    (new, *others), kept = fleet("begin")
    assert (others, kept) == (["former"], new)
    assert len(new) == 43
    known, kept = fleet("end")
    assert (known, kept) == ([new], new)
    for name in ("one", "two"):
        found = os.stat(tmp_path / name / ".gateway" / "token")
        assert (found.st_gid, found.st_mode & 0o777) == (10001, 0o440)


def test_a_run_that_was_killed_loses_no_token_that_a_gateway_may_have(fleet):
    (first, *_others), _kept = fleet("begin")
    (second, *others), _kept = fleet("begin")
    assert others == [first, "former"]
    assert second != first


def test_a_token_of_the_inventory_is_taken(fleet):
    known, kept = fleet("begin", "-e", "iopaint_gateway_token=of-the-vault-and-long")
    assert (known, kept) == (["of-the-vault-and-long", "former"], "former")


def test_a_token_of_a_gateway_that_is_not_in_the_inventory_is_taken(fleet, tmp_path):
    hosts = tmp_path / "hosts"
    hosts.write_text(hosts.read_text().replace("[gateways]", "[others]"))
    known, _kept = fleet("end", "-e", "iopaint_gateway_token=of-the-vault-and-long")
    assert known == ["of-the-vault-and-long"]


@pytest.mark.parametrize("token", ["short", "with spaces in it, and long enough"])
def test_a_token_that_can_not_be_one_is_refused_before_anything(fleet, tmp_path, token):
    said = fleet("begin", "-e", json.dumps({"iopaint_gateway_token": token}), refused=True)
    assert "iopaint_gateway_token must be of 16 to 200 printable ASCII characters without spaces" in said
    assert (tmp_path / "one" / ".gateway" / "token").read_text() == "former\n"
