# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The playbooks: whatever changes a host holds its lock."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
ROLE = [f"ansible.builtin.{how}_role" for how in ("include", "import")]
COMMON = "iopaint.fleet.iopaint_common"
LOOKS = ("check", "detect", "status", "iopaint.fleet.iopaint_status")  # entry points and a role that change nothing


def entries(tasks, key=None):
    """Yield name, entry point and section (block, rescue, always) of the roles that tasks run."""
    for task in tasks or []:
        for section in ("block", "rescue", "always"):
            yield from entries(task.get(section), key if key == "always" else section)
        for action in ROLE:
            if action in task:
                yield task[action]["name"], task[action].get("tasks_from", "main"), key


def holds_the_lock(tasks):
    found = list(entries(tasks))
    freed = {(COMMON, name, "always") for name in ("unlock", "unlock_or_report")} & set(found)
    return bool(freed) and any(entry[:2] == (COMMON, "lock") for entry in found)


def takes_the_lock_itself(role, entry):
    return holds_the_lock(yaml.safe_load((ROOT / "roles" / role.rpartition(".")[2] / "tasks" / f"{entry}.yml").read_text()))


def plays():
    for path in sorted(ROOT.glob("playbooks/**/*.yml")):
        for play in yaml.safe_load(path.read_text()):
            if "hosts" in play:
                yield pytest.param(play, id=f"{path.stem}: {play['name']}")


@pytest.mark.parametrize("play", list(plays()))
def test_a_play_that_changes_hosts_holds_their_lock(play):
    """Two control nodes that build or provision at once would put one's source into the other's image."""
    tasks = [{ROLE[1]: {"name": role["role"]}} for role in play.get("roles", [])] + play.get("tasks", [])
    changing = [entry[:2] for entry in entries(tasks) if entry[0] != COMMON and not set(LOOKS) & set(entry)]
    if holds_the_lock(tasks):
        inside = [entry[:2] for entry in entries(tasks) if entry[2] == "block"]
        assert [entry for entry in changing if entry not in inside and not takes_the_lock_itself(*entry)] == []
        assert not any(takes_the_lock_itself(*entry) for entry in inside), "a role would free the play's lock"
    else:
        assert [entry for entry in changing if not takes_the_lock_itself(*entry)] == []


def test_the_lock_is_looked_for():
    names = [play.id for play in plays()]
    once = ["bundle: Bundle", "registry: Provide the registry", "gateway: Provide the gateway", "maintain: Maintain"]
    assert {"provision: Provide Docker", "build: Build", *once} <= set(names)


LOST = """
- hosts: all
  gather_facts: false
  ignore_unreachable: true
  tasks:
    - ansible.builtin.include_role: {name: iopaint.fleet.iopaint_common, tasks_from: lock}
    - ansible.builtin.debug: {msg: went on without a lock}
"""


def test_a_roll_has_no_lock_on_a_host_that_does_not_answer(tmp_path):
    """It ignores such hosts, so that their turn has to end by itself."""
    (tmp_path / "play.yml").write_text(LOST)
    host = "lost ansible_connection=ssh ansible_host=127.0.0.1 ansible_port=1\n"
    (tmp_path / "hosts").write_text(host)
    command = ["ansible-playbook", "-i", tmp_path / "hosts", tmp_path / "play.yml"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stdout
    assert "msg: The host does not answer." in done.stdout
    assert "went on without a lock" not in done.stdout


def test_roles_and_plugins_name_playbooks_as_an_installed_collection_does():
    """Whoever has installed the collection has no folder playbooks to run them from."""
    files = [
        path for top in ("roles", "plugins") for path in (ROOT / top).rglob("*") if path.suffix in (".py", ".yml", ".j2", ".md")
    ]
    told = [path for path in files if re.search(r"playbooks/\w+\.yml", path.read_text())]
    assert told == []
