# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The lock of a host: one holder at a time, explained to others, taken over where its play is known to be over."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from ansible_collections.iopaint.fleet.plugins.action import lock as action
from ansible_collections.iopaint.fleet.plugins.modules import lock

ROOT = Path(__file__).resolve().parents[2]
ANN = {"operator": "ann", "controller": "desk", "pid": 7, "process_started": "70", "token": "desk:b:7:70"}
BOB = {"operator": "bob", "controller": "lap", "pid": 8, "process_started": "80", "token": "lap:b:8:80"}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run" / "lock"


@pytest.fixture
def log(tmp_path):
    return tmp_path / "log" / "audit.log"


@pytest.fixture
def run(run_module, path, log):
    def call(owner=ANN, **options):
        return run_module(lock, path=str(path), audit=str(log), owner=owner, **options)

    return call


def test_it_is_taken_and_says_by_whom_since_when_for_what(run, path):
    result = run(play="upgrade", release="iopaint:cpu-v2")
    assert (result["changed"], result["taken_over"], result["owner"]) == (False, False, ANN)
    held = json.loads(path.read_text())
    assert held.pop("time").endswith("Z")
    assert held == {**ANN, "play": "upgrade", "release": "iopaint:cpu-v2"}
    assert os.listdir(path.parent) == ["lock"]


def test_a_second_play_is_told_who_holds_it_and_how_to_free_it(run, path):
    run(play="upgrade", release="iopaint:cpu-v2")
    before = path.read_text()
    result = run(BOB, failed=True, play="deploy")
    assert result["holder"]["operator"] == "ann"
    message = result["msg"]
    assert "upgrade by ann on desk (process 7), release iopaint:cpu-v2, since 20" in message
    assert f"ansible HOST -b -m iopaint.fleet.lock -a 'state=absent force=true path={path}'" in message
    assert path.read_text() == before


def test_its_holder_says_later_what_is_about_to_become_current(run, path):
    """An upgrade acquires it before its images are built, so the releases are known later."""
    run(play="upgrade")
    before = json.loads(path.read_text())
    run(play="upgrade", release="0002-cpu-v2")
    assert json.loads(path.read_text()) == {**before, "release": "0002-cpu-v2"}
    run(BOB, failed=True, release="0009-bob")
    run(play="upgrade", release="0003-cpu-v3", check=True)
    assert json.loads(path.read_text())["release"] == "0002-cpu-v2"


def test_the_same_play_takes_it_twice(run, path):
    run()
    before = path.read_text()
    run()
    assert path.read_text() == before


def test_only_its_holder_frees_it(run, path, log):
    run()
    assert run(BOB, state="absent")["changed"] is False
    assert path.exists()
    assert run(state="absent")["changed"] is False
    assert not path.exists()
    assert run(state="absent")["changed"] is False
    assert not log.exists()


def test_force_frees_it_and_is_in_the_audit_log(run, path, log):
    run(play="upgrade")
    assert run(BOB, state="absent", force=True)["changed"] is True
    assert not path.exists()
    (line,) = map(json.loads, log.read_text().splitlines())
    assert (line["action"], line["operator"], line["holder"]["operator"]) == ("lock freed by force", "bob", "ann")
    assert run(BOB, state="absent", force=True)["changed"] is False


def test_free_only_looks(run, path):
    run(state="free")
    assert not path.exists()
    run()
    assert run(BOB, state="free", failed=True)["holder"]["operator"] == "ann"
    run(state="free")


def test_it_waits_as_long_as_is_allowed(run):
    run()
    start = time.monotonic()
    message = run(BOB, failed=True, wait=1)["msg"]
    assert time.monotonic() - start >= 1
    assert "after 1 s (iopaint_lock_wait)" in message


def test_it_is_had_once_the_other_play_has_freed_it(run, path):
    run()
    freed = threading.Timer(0.3, path.unlink)
    freed.start()
    run(BOB, wait=20)
    freed.join()
    assert json.loads(path.read_text())["operator"] == "bob"


def test_a_lock_whose_play_is_over_is_taken_over_and_that_is_in_the_audit_log(run, path, log):
    run()
    result = run(BOB, take_over=ANN["token"])
    assert (result["taken_over"], result["holder"]["operator"]) == (True, "ann")
    assert json.loads(path.read_text())["operator"] == "bob"
    assert json.loads(log.read_text())["action"] == "lock taken over"


def test_another_lock_than_the_one_that_is_over_stays(run, path):
    run()
    assert run(BOB, failed=True, take_over="desk:b:6:60")["holder"]["operator"] == "ann"


@pytest.mark.parametrize("content", ["", "{", "[]"])
def test_a_lock_that_can_t_be_read_is_held_all_the_same(run, path, content):
    path.parent.mkdir()
    path.write_text(content)
    assert "the lock can't be read" in run(failed=True)["msg"]
    assert run(state="absent", force=True)["changed"] is True


def test_check_mode_takes_nothing_and_says_what_is_held(run, path):
    run(check=True)
    assert not path.exists()
    run()
    run(BOB, check=True, failed=True)
    run(state="absent", check=True)
    assert path.exists()


def test_of_many_that_ask_at_once_one_gets_it(tmp_path):
    path, won = str(tmp_path / "lock"), []
    start = threading.Barrier(12)

    def ask(number):
        start.wait()
        if lock.take(path, {"token": str(number)}):
            won.append(number)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert lock.read(path)["token"] == str(won[0])
    assert os.listdir(tmp_path) == ["lock"]


def test_a_place_that_can_t_be_written_is_said(run, path):
    path.parent.write_text("a file")
    assert "could not be read or made" in run(failed=True)["msg"]


def test_without_its_action_plugin_it_says_so(run_module, path):
    assert "action plugin" in run_module(lock, failed=True, path=str(path))["msg"]


# ---- the part on the control node ------------------------------------------------------------------------------------


def here(pid):
    return {
        "controller": "desk",
        "pid": pid,
        "process_started": action.started(pid),
        "token": f"desk:{action.boot_id()}:{pid}:{action.started(pid)}",
    }


def test_a_process_that_lives_holds_its_lock():
    me = here(os.getpid())
    assert me["process_started"].isdecimal()
    assert not action.is_over(me, me)


def test_a_process_that_ended_is_over():
    with subprocess.Popen(["sleep", "60"]) as process:
        holder = here(process.pid)
        process.kill()
        process.wait()
    assert action.is_over(holder, here(os.getpid()))


def test_a_number_that_another_process_has_now_is_over():
    holder = {**here(os.getpid()), "process_started": "1"}
    assert action.is_over(holder, here(os.getpid()))


def test_a_play_of_another_control_node_is_never_known_to_be_over():
    holder = {**here(os.getpid()), "controller": "elsewhere", "process_started": "1"}
    assert not action.is_over(holder, here(os.getpid()))
    assert not action.is_over({"controller": "desk", "pid": 1}, {**here(os.getpid())})


def test_a_play_before_the_control_node_s_reboot_is_over():
    me = here(os.getpid())
    assert action.is_over({**me, "token": f"desk:former:{me['pid']}:{me['process_started']}"}, me)


def test_the_owner_is_the_process_that_runs_the_play(monkeypatch):
    monkeypatch.setenv("SUDO_USER", "ann")
    owner = action.owner({})
    assert (owner["operator"], owner["pid"]) == ("ann", os.getppid())
    assert owner["token"].endswith(f":{os.getppid()}:{owner['process_started']}")


@pytest.mark.parametrize(
    ("job", "who"),
    [
        ({"awx_job_id": 42, "awx_user_name": "bob", "tower_job_id": 42, "tower_user_name": "bob"}, "bob (AWX job 42)"),
        ({"tower_job_id": 42, "tower_user_name": "bob"}, "bob (AWX job 42)"),  # a controller that gives one prefix
        ({"awx_job_id": 42, "awx_job_launch_type": "scheduled", "awx_schedule_name": "nightly"}, "schedule nightly (AWX job 42)"),
        (
            {"awx_job_id": 42, "awx_job_launch_type": "workflow", "awx_parent_job_schedule_name": "weekly"},
            "schedule weekly (AWX job 42)",
        ),
        ({"awx_job_id": 42, "awx_job_launch_type": "webhook"}, "webhook (AWX job 42)"),
        ({"awx_user_name": ""}, "ann"),  # no job of AWX
    ],
)
def test_in_a_job_of_awx_the_owner_is_the_person_of_the_job(monkeypatch, job, who):
    monkeypatch.setenv("SUDO_USER", "ann")  # of the container's user, whom nobody knows
    assert action.owner(job)["operator"] == who


def test_the_variables_of_a_job_reach_the_lock(tmp_path):
    """As AWX hands them over: extra variables of ansible-playbook."""
    play = {
        "hosts": "localhost",
        "connection": "local",
        "gather_facts": False,
        "tasks": [
            {"iopaint.fleet.lock": {"path": str(tmp_path / "lock"), "audit": str(tmp_path / "log")}},
            {
                "iopaint.fleet.lock": {
                    "path": str(tmp_path / "lock"),
                    "audit": str(tmp_path / "log"),
                    "state": "absent",
                    "force": True,
                }
            },
        ],
    }
    (tmp_path / "play.yml").write_text(json.dumps([play]))
    (tmp_path / "job.json").write_text(json.dumps({"awx_job_id": 42, "awx_user_name": "bob"}))
    command = [Path(sys.executable).parent / "ansible-playbook", "-i", "localhost,", "-e", f"@{tmp_path}/job.json"]
    environment = {
        **os.environ,
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "build" / "collections"),
        "ANSIBLE_HOME": str(tmp_path / "home"),
        "ANSIBLE_LOCALHOST_WARNING": "false",
        "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
    }
    done = subprocess.run([*command, tmp_path / "play.yml"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (line,) = map(json.loads, (tmp_path / "log").read_text().splitlines())
    assert (line["operator"], line["holder"]["operator"]) == ("bob (AWX job 42)",) * 2
