# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The lock of a host: one holder at a time, explained to others, taken over where its play is known to be over."""

import json
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from ansible_collections.iopaint.fleet.plugins.action import lock as action
from ansible_collections.iopaint.fleet.plugins.module_utils import lock as store
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
    assert sorted(os.listdir(path.parent)) == ["lock", "lock.guard"]


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


def test_its_holder_is_told_what_a_killed_play_has_left(run, tmp_path):
    left, dangling, absent = (str(tmp_path / name) for name in ("left", "dangling", "absent"))
    open(left, "w").close()
    os.symlink(absent, dangling)
    assert run(look_for=[left, dangling, absent])["found"] == [left, dangling]


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


def test_a_check_only_looks(run, path):
    run(state="checked")
    assert not path.exists()
    run()
    assert run(BOB, state="checked", failed=True)["holder"]["operator"] == "ann"
    run(state="checked")


def test_it_waits_as_long_as_is_allowed(run):
    run()
    start = time.monotonic()
    message = run(BOB, failed=True, wait=1)["msg"]
    assert time.monotonic() - start >= 1
    assert "after 1 s (wait)" in message


def test_it_is_had_once_the_other_play_has_freed_it(run, path):
    run()
    freed = threading.Timer(0.3, path.unlink)
    freed.start()
    run(BOB, wait=20)
    freed.join()
    assert json.loads(path.read_text())["operator"] == "bob"


@pytest.mark.parametrize(
    ("option", "reason"),
    [("over", "its play is over"), ("take_over", "the operator asked for it (take_over)")],
)
def test_a_lock_is_taken_over_and_that_is_in_the_audit_log(run, path, log, option, reason):
    run(play="upgrade")
    result = run(BOB, **{option: ANN["token"]})
    assert (result["taken_over"], result["holder"]["operator"]) == (True, "ann")
    assert f"held by upgrade of ann on desk since {result['holder']['time']}. It was taken over, as {reason}." in str(
        result["warnings"]
    )
    assert json.loads(path.read_text())["operator"] == "bob"
    line = json.loads(log.read_text())
    assert (line["action"], line["holder"]["operator"], line["reason"]) == ("lock taken over", "ann", reason)


def test_the_message_about_a_lock_says_how_to_take_it_over(run):
    run(play="upgrade")
    message = run(BOB, failed=True)["msg"]
    (token,) = [word for word in message.replace(",", "").split() if word.startswith("take_over=")]
    assert run(BOB, take_over=token.partition("=")[2])["taken_over"] is True


@pytest.mark.parametrize("option", ["over", "take_over"])
def test_another_lock_than_the_one_that_is_over_stays(run, path, option):
    run()
    assert run(BOB, failed=True, **{option: "desk:b:6:60"})["holder"]["operator"] == "ann"


def test_a_check_passes_the_lock_of_a_play_that_is_over_and_leaves_it(run, path, log):
    run()
    assert run(BOB, state="checked", over=ANN["token"])["taken_over"] is False
    assert json.loads(path.read_text())["operator"] == "ann"
    assert not log.exists()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"[]", "a list"),
        (b"{}", "no token"),
        (b'{"token": 7}', "no token"),
        (b"\xff\xfe", "byte 0 is not UTF-8"),
        (b"[" * 50_000, "nested too deeply"),
        (b'{"token": "' + b"x" * 100_000 + b'"}', "more than 65536 bytes"),
        (b'{"token": "\\ud800"}', "unpaired surrogate"),
    ],
)
def test_a_lock_that_can_t_be_read_is_held_all_the_same(run, path, content, why):
    path.parent.mkdir()
    path.write_bytes(content)
    message = run(failed=True)["msg"]
    assert "the lock can't be read: " in message
    assert why in message
    assert run(state="absent", force=True)["changed"] is True


def test_a_lock_that_can_t_be_read_is_taken_over_by_its_token(run, path):
    path.parent.mkdir()
    path.write_bytes(b"\xff")
    token = run(failed=True)["holder"]["token"]
    assert run(take_over=token)["taken_over"] is True


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("nowhere", path)])
def test_a_lock_that_is_no_file_is_held_and_waited_for_by_nobody(run, path, make):
    path.parent.mkdir()
    make(path)
    assert "the lock can't be read: it is " in run(failed=True)["msg"]


def test_what_a_lock_says_reaches_the_terminal_as_plain_text(run, path):
    path.parent.mkdir()
    path.write_text(json.dumps({"token": "t", "operator": "\x1b[31mann\n", "play": ["x"], "pid": "7"}))
    holder = run(failed=True)["holder"]
    assert holder == {"token": "t", "operator": "ann"}


def test_check_mode_takes_nothing_and_says_what_is_held(run, path):
    run(check=True)
    assert not path.exists()
    run()
    run(BOB, check=True, failed=True)
    run(state="absent", check=True)
    assert path.exists()


def attack(path, token, numbers, start, results):
    """Be plays of these numbers, one after the other, that take over the lock of a token; each waits for the other processes."""
    for number in numbers:
        start.wait()
        mine = {"token": f"{token}-{number}"}
        previous = store.replace(path, token, mine) if token else None
        results.put((number, bool(previous) if token else store.take(path, mine)))
        start.wait()


@pytest.mark.parametrize("token", ["stale", ""])
def test_of_many_processes_that_ask_at_once_one_gets_it(tmp_path, token):
    """Two that took over one lock at the same moment both held it in 1 % of tries."""
    path, processes, rounds = str(tmp_path / "lock"), 4, 150
    context = multiprocessing.get_context("fork")
    start, results = context.Barrier(processes + 1), context.Queue()
    workers = [
        context.Process(target=attack, args=(path, token, range(one, processes * rounds, processes), start, results), daemon=True)
        for one in range(processes)
    ]
    for worker in workers:
        worker.start()
    for _round in range(rounds):
        if token:
            (tmp_path / "lock").write_text(json.dumps({"token": token}))
        else:
            (tmp_path / "lock").unlink(missing_ok=True)
        start.wait(60)
        start.wait(60)
        won = [number for number, succeeded in (results.get(timeout=60) for _worker in workers) if succeeded]
        assert len(won) == 1
        assert store.read(path)["token"] == f"{token}-{won[0]}"
    for worker in workers:
        worker.join(60)
    assert sorted(os.listdir(tmp_path)) == ["lock", "lock.guard"]


def test_a_guard_that_somebody_holds_for_ever_is_said(run, path, monkeypatch):
    monkeypatch.setattr(store, "PATIENCE", 0.1)
    with store.guarded(str(path)):
        assert f"another process has held {path}.guard for 0.1 s" in run(failed=True)["msg"]


def test_a_place_that_can_t_be_written_is_said(run, path):
    path.parent.write_text("a file")
    assert "could not be read or made" in run(failed=True)["msg"]


def test_without_its_action_plugin_it_says_so(run_module, path):
    assert "action plugin" in run_module(lock, failed=True, path=str(path))["msg"]


# ---- the part on the control node ------------------------------------------------------------------------------------


def here(pid):
    return {**action.owner("run", {}), "pid": pid, "process_started": action.started(pid)}


@pytest.fixture
def ended():
    """What the lock of a play says whose process has ended."""
    with subprocess.Popen(["sleep", "60"]) as process:
        holder = here(process.pid)
        process.kill()
        process.wait()
    return holder


def test_a_process_that_lives_holds_its_lock():
    me = here(os.getpid())
    assert me["process_started"].isdecimal()
    assert not action.is_over(me, me)


def test_a_process_that_ended_is_over(ended):
    assert action.is_over(ended, here(os.getpid()))


def test_a_process_that_ended_and_was_not_waited_for_is_over():
    with subprocess.Popen(["sleep", "60"]) as process:
        holder = here(process.pid)
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert action.is_over(holder, here(os.getpid()))


def test_a_number_that_another_process_has_now_is_over():
    holder = {**here(os.getpid()), "process_started": "1"}
    assert action.is_over(holder, here(os.getpid()))


@pytest.mark.parametrize(
    "elsewhere",
    [
        {"controller": "elsewhere"},
        {"boot": "another boot"},  # the same host name, on another machine or before a reboot
        {"machine": "another machine"},
        {"namespaces": "pid:[4026532000] time:[4026531834]"},  # a container
        {"boot": "unknown"},
        {"namespaces": "unknown"},
    ],
)
def test_a_play_that_can_t_be_seen_from_here_is_never_known_to_be_over(ended, elsewhere):
    assert not action.is_over({**ended, **elsewhere}, here(os.getpid()))


@pytest.mark.parametrize("unknown", ["boot", "namespaces"])
def test_a_control_node_that_does_not_know_itself_takes_nothing_over(ended, unknown):
    me = {**here(os.getpid()), unknown: "unknown"}
    assert not action.is_over({**ended, unknown: "unknown"}, me)


@pytest.mark.parametrize(
    ("pid", "began"), [(None, "1"), (0, "1"), (-1, "1"), ("1", "1"), (10**30, "1"), (1, "unknown"), (1, None), (2**22 + 1, "")]
)
def test_nonsense_in_a_lock_proves_no_end(pid, began):
    assert not action.is_over({**here(os.getpid()), "pid": pid, "process_started": began}, here(os.getpid()))


def test_a_process_that_proc_hides_is_alive(monkeypatch):
    """Mounted with hidepid, /proc shows nothing of other users' processes; they are there all the same."""
    monkeypatch.setattr(action, "started", lambda _pid: None)
    monkeypatch.setattr(os, "kill", lambda *_arguments: (_ for _ in ()).throw(PermissionError()))
    assert not action.has_ended(os.getpid(), "1")


def test_a_namespace_of_processes_of_its_own_is_another_place():
    """As in a container: numbers of processes mean something else there, and a play that lives outside can't be seen."""
    script = f"import sys; sys.path[:0] = {sys.path!r}; import conftest; from {action.__name__} import *; print(namespaces())"
    folder = os.path.dirname(__file__)

    def ask(*prefix):
        return subprocess.run(
            [*prefix, sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        inside = ask("unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc")
        unmounted = ask("unshare", "--user", "--map-root-user", "--pid", "--fork")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"this machine makes no namespaces: {error.stderr.strip()}")
    assert inside.startswith("pid:[")
    assert inside != ask() == action.namespaces()
    assert unmounted == "unknown"


def test_the_owner_is_the_process_that_runs_the_play(monkeypatch):
    monkeypatch.setenv("SUDO_USER", "ann")
    owner = action.owner("run", {})
    assert (owner["operator"], owner["pid"]) == ("ann", os.getppid())
    assert owner["process_started"] == action.started(os.getppid())


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
    assert action.owner("run", job)["operator"] == who


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


def test_a_run_has_one_token_and_two_runs_on_one_node_have_two():
    assert action.owner("a", {})["token"] == action.owner("a", {})["token"] != action.owner("b", {})["token"]


class Play(action.ActionModule):
    """The action with a host's answers, one after the other."""

    def __init__(self, answers, **args):
        self.answers, self.calls = list(answers), []
        self._task = type("Task", (), {"args": args, "_uuid": "aa-bb-cc-dd-000000000007", "async_val": 0})()

    def module(self, args, task_vars):
        self.calls.append({key: args[key] for key in ("wait", "over") if key in args})
        return self.answers.pop(0)


@pytest.fixture
def play(monkeypatch):
    monkeypatch.setattr("ansible.plugins.action.ActionBase.run", lambda *_arguments: {})
    return Play


def test_the_action_takes_over_what_is_over_and_says_which(play, ended):
    found = {"failed": True, "holder": {**ended, "token": "t"}}
    one = play([found, {"taken_over": True}], wait=5)
    assert one.run() == {"taken_over": True}
    assert one.calls == [{"wait": 0}, {"wait": 5, "over": "t"}]


def test_the_action_looks_again_after_the_wait(play, ended):
    """The play that holds the lock may be killed in the meantime."""
    living = {"failed": True, "holder": {**here(os.getpid()), "token": "t"}}
    dead = {"failed": True, "holder": {**ended, "token": "t"}}
    one = play([living, dead, {"taken_over": True}], wait=5)
    assert one.run() == {"taken_over": True}
    assert one.calls == [{"wait": 0}, {"wait": 5}, {"wait": 5, "over": "t"}]


def test_the_action_leaves_the_lock_of_a_living_play(play):
    living = {"failed": True, "holder": {**here(os.getpid()), "token": "t"}}
    assert play([living]).run() is living
    assert play([living, living], wait="5").run() is living
