# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a host says of itself: instances in every state, an engine that sleeps, hangs or is not there."""

import json
import os
from pathlib import Path

import pytest
from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible_collections.iopaint.fleet.plugins.action import instance_status as action
from ansible_collections.iopaint.fleet.plugins.modules import instance_status

DOCKER = """
import json, sys, time
state = json.load(open(STATE))
with open(CALLS, "a") as calls: calls.write(" ".join(sys.argv[1:]) + "\\n")
if state.get("hangs"): time.sleep(30)
if state.get("down"): sys.exit("Cannot connect to the Docker daemon")
if sys.argv[1] == "info": print(json.dumps({"ServerVersion": "28.5.2", "DockerRootDir": "/"}))
if sys.argv[1] == "ps": print("\\n".join(one["Id"] for one in state["containers"]))
if sys.argv[1] == "inspect": print(json.dumps([one for one in state["containers"] if one["Id"] in sys.argv]))
"""
SYSTEMCTL = """
print(SERVICE)
print(SOCKET)
"""


class Host:
    """A host with an engine and instances."""

    def __init__(self, engine, folder):
        self.engine, self.top, self.state, self.calls = (
            engine,
            folder / "instances",
            folder / "docker.json",
            folder / "docker.calls",
        )
        self.top.mkdir()
        self.containers = []
        engine.program("docker", DOCKER, STATE=self.state, CALLS=self.calls)
        self.docker()

    def docker(self, **state):
        self.state.write_text(json.dumps({"containers": self.containers, **state}))

    def release(self, name="cpu", release_id="0001-v1", outcome="current", **record):
        folder = self.top / name / "releases" / release_id
        folder.mkdir(parents=True)
        own = {"id": release_id, "outcome": outcome, "variant": "cpu", "image": "iopaint:v1", "image_id": "sha256:1"}
        times = {"time": "2026-01-01T00:00:00Z", "started": "2026-01-01T00:01:00Z"}
        proof = {"time": "2026-01-01T00:02:00Z", "model": "cv2", "latency_ms": 12.5}
        (folder / "release.json").write_text(json.dumps({**own, **times, "proof": proof, **record}))
        if outcome == "current":
            os.symlink(f"releases/{release_id}", self.top / name / "current")

    def container(self, name="cpu", top=None, image="sha256:1", service="iopaint-cpu", project="iopaint-{}", **state):
        labels = {
            "com.docker.compose.project": project.format(name),
            "com.docker.compose.service": service,
            "com.docker.compose.project.working_dir": f"{top or self.top}/{name}/current",
        }
        state = {"Status": "running", "Health": {"Status": "healthy"}, "StartedAt": "2026-01-01T00:01:01Z", **state}
        document = {"Id": f"c{len(self.containers)}", "Name": f"/iopaint-{name}-1", "Image": image, "State": state}
        self.containers.append({**document, "Config": {"Labels": labels}})
        self.docker()


@pytest.fixture
def host(engine, tmp_path):
    return Host(engine, tmp_path)


@pytest.fixture
def look(run_module, host, tmp_path):
    def call(**options):
        arguments = {
            "dir": str(host.top),
            "data_dir": str(tmp_path / "not" / "there"),
            "lock": str(tmp_path / "lock"),
            "backup": str(tmp_path / "last"),
        }
        return run_module(instance_status, **{**arguments, **options})

    return call


def test_an_instance_that_serves(host, look):
    host.release()
    host.container()
    result = look()
    (found,) = result["instances"]
    assert (found["name"], found["state"], found["problems"], found["notes"]) == ("cpu", "healthy", [], [])
    assert found["release"] == {"id": "0001-v1", "image": "iopaint:v1", "ref": None, "revision": None, "operator": None}
    assert (found["since"], found["proof"]["latency_ms"]) == ("2026-01-01T00:01:00Z", 12.5)
    assert found["container"] == {
        "name": "iopaint-cpu-1",
        "image_id": "sha256:1",
        "started": "2026-01-01T00:01:01Z",
        "restarts": 0,
    }
    assert (result["state"], result["changed"], result["lock"]) == ("ok", False, None)
    assert result["engine"] == {"state": "running", "reason": None, "version": "28.5.2", "root": "/"}
    assert [disk["purpose"] for disk in result["disks"]] == ["engine", "data"]
    assert all(0 < disk["free"] <= disk["total"] for disk in result["disks"])
    assert len(host.calls.read_text().splitlines()) == 3


def test_the_models_are_told_by_revision_and_size(look, tmp_path):
    place = tmp_path / "data" / "models"
    snapshot = place / "huggingface/hub/models--owner--model/snapshots" / ("1" * 40)
    snapshot.mkdir(parents=True)
    (place / "own.pt").write_bytes(b"1234567")
    models = look(data_dir=str(tmp_path / "data"))["models"]
    assert (models["files"], models["reason"]) == ([{"path": "own.pt", "bytes": 7}], None)
    assert [(one["hub"], one["revision"]) for one in models["repositories"]] == [("owner/model", "1" * 40)]


def test_models_that_can_t_be_looked_at_hide_nothing_else(look, tmp_path):
    (tmp_path / "data").write_text("no folder")
    result = look(data_dir=str(tmp_path / "data"))
    assert (result["state"], result["models"]["files"]) == ("ok", [])
    assert "Not a directory" in result["models"]["reason"]


@pytest.mark.parametrize(
    ("state", "expected", "sentence"),
    [
        ({"Health": {"Status": "starting"}}, "starting", None),
        ({"Health": {"Status": "unhealthy", "Log": [{"Output": "a\nHTTP Error 500\n"}]}}, "unhealthy", "says: HTTP Error 500"),
        ({"Health": None}, "running", None),
        ({"Status": "exited", "ExitCode": 137, "OOMKilled": True}, "exited", "ended with status 137, out of memory."),
        ({"Status": "created", "Error": "no such device", "StartedAt": "0001-01-01T00:00:00Z"}, "created", "no such device"),
    ],
)
def test_the_state_of_a_container(host, look, state, expected, sentence):
    host.release()
    host.container(**state)
    (found,) = look()["instances"]
    assert found["state"] == expected
    assert sentence is None or sentence in " ".join(found["problems"])


def test_a_release_without_a_container_is_missing(host, look):
    host.release()
    (found,) = look()["instances"]
    assert (found["state"], found["container"]) == ("missing", None)


def test_a_displaced_instance_is_replaced(host, look):
    host.release(outcome="previous", displaced_by="main/0002-v1")
    (found,) = look()["instances"]
    assert (found["state"], found["problems"], found["container"]) == ("displaced", [], None)
    assert found["notes"] == ["It was stopped when main took its port; a rollback right after that starts it again."]
    assert found["release"]["id"] == "0001-v1"


def test_a_container_without_a_release_is_seen(host, look):
    host.container("lost")
    (found,) = look()["instances"]
    assert (found["name"], found["state"], found["release"]) == ("lost", "healthy", None)


def test_a_candidate_is_not_what_serves(host, look):
    host.release()
    host.container(project="candidate-iopaint-{}", Health={"Status": "starting"})
    host.container()
    (found,) = look()["instances"]
    assert (found["state"], found["notes"]) == ("healthy", ["A candidate for a new release runs next to it."])


def test_containers_of_others_are_not_ours(host, look, tmp_path):
    host.release()
    host.container(top=tmp_path / "elsewhere")
    host.container(service="web")
    host.container(project="web-{}")
    (found,) = look()["instances"]
    assert found["state"] == "missing"


def test_what_is_odd_is_noted(host, look):
    host.release()
    host.release(release_id="0002-v2", outcome="prepared", started="2026-01-02T00:00:00Z")
    (host.top / "cpu" / "releases" / "0003-v3").mkdir()
    (host.top / "cpu" / "releases" / "0003-v3" / "release.json").write_text("{")
    host.container(image="sha256:2")
    notes = " ".join(look()["instances"][0]["notes"])
    assert "0003-v3/release.json can't be read." in notes
    assert "The switch to 0002-v2 was begun at 2026-01-02T00:00:00Z and has not ended." in notes
    assert "It runs another image than that of its release 0001-v1." in notes


def test_an_engine_that_does_not_answer_is_said(host, look):
    host.release()
    host.docker(down=True)
    result = look()
    assert result["engine"]["state"] == "not answering"
    assert "Cannot connect to the Docker daemon" in result["engine"]["reason"]
    assert result["instances"][0]["state"] == "unknown"


def test_an_engine_that_hangs_is_not_waited_for(host, look):
    host.docker(hangs=True)
    assert "did not answer within 1 s" in look(timeout=1)["engine"]["reason"]


def test_an_engine_that_is_not_installed_is_said(host, look, no_programs):
    assert look()["engine"]["state"] == "not installed"


@pytest.mark.parametrize(("service", "sleeps"), [("inactive", True), ("failed", True), ("active", False)])
def test_an_engine_that_systemd_would_start_is_not_woken(host, look, engine, service, sleeps):
    engine.program("systemctl", SYSTEMCTL, SERVICE=service, SOCKET="active")
    assert look()["engine"]["state"] == ("stopped" if sleeps else "running")
    assert host.calls.exists() is not sleeps


def test_the_lock_and_the_gpus_are_told(look, tmp_path, engine):
    (tmp_path / "lock").write_text('{"operator": "ann", "play": "upgrade", "token": "t"}')
    engine.program("nvidia-smi", "import sys; sys.exit('Failed to initialize NVML: Driver/library version mismatch')")
    result = look()
    assert result["lock"] == {"operator": "ann", "play": "upgrade", "token": "t"}
    assert (result["gpu"]["problem"], result["gpu"]["gpus"]) == ("version_mismatch", [])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            '{"time": "2026-01-03T00:00:00Z", "ok": true, "reason": "", "scheduled": true, "snapshots": {}}',
            {"time": "2026-01-03T00:00:00Z", "ok": True, "reason": "", "scheduled": True, "models": None},
        ),
        (
            '{"time": "2026-01-03T00:00:00Z", "ok": true, "reason": "", "scheduled": true, "models": "own"}',
            {"time": "2026-01-03T00:00:00Z", "ok": True, "reason": "", "scheduled": True, "models": "own"},
        ),
        ("[", {"time": None, "ok": False, "reason": "{} can't be read.", "scheduled": None, "models": None}),
    ],
)
def test_the_last_backup_is_told(look, tmp_path, text, told):
    assert look()["backup"] is None
    (tmp_path / "last").write_text(text)
    assert look()["backup"] == {**told, "reason": told["reason"].format(tmp_path / "last")}


def test_the_gpus_of_a_host(look, engine):
    sample = Path(__file__).parent / "samples" / "nvidia-smi" / "h200-580.xml"
    engine.program("nvidia-smi", "print(open(SAMPLE).read())", SAMPLE=sample)
    told = look()["gpu"]
    assert (told["driver_version"], told["problem"]) == ("580.95.05", "none")
    assert told["gpus"][0]["name"] == "NVIDIA H200"
    assert set(told["gpus"][0]) == {"index", "uuid", "name", "memory_total_mib", "memory_used_mib"}


# ---- the control node ------------------------------------------------------------------------------------------------


@pytest.fixture
def ask(monkeypatch):
    """Run the action with an answer of the module, or an exception."""

    def call(answer, **arguments):
        module = action.ActionModule.__new__(action.ActionModule)
        module._task = type("Task", (), {"args": arguments})()
        monkeypatch.setattr(action.ActionBase, "run", lambda self, tmp, task_vars: {})
        handed = {}

        def execute(**options):
            handed.update(options)
            if isinstance(answer, Exception):
                raise answer
            return answer

        module._execute_module = execute
        return module.run(task_vars={}), handed.get("module_args")

    return call


@pytest.mark.parametrize(
    ("answer", "state", "reason"),
    [
        (AnsibleConnectionFailure("Failed to connect to the host via ssh: ssh: x\nport 22"), "unreachable", "ssh: x port 22"),
        (AnsibleError("Missing sudo password"), "failed", "Missing sudo password"),
        ({"failed": True, "msg": "MODULE FAILURE", "module_stderr": "python3: not found"}, "failed", "python3: not found"),
        ({"unreachable": True, "msg": "timed out"}, "unreachable", "timed out"),
    ],
)
def test_a_host_that_can_t_be_looked_at_is_a_result(ask, answer, state, reason):
    result, _handed = ask(answer)
    assert (result["state"], result["changed"]) == (state, False)
    assert result["reason"] == reason
    assert "failed" not in result


def test_what_is_wanted_stays_on_the_control_node(ask):
    wanted = [{"name": "cpu", "options": {"hf_token": "s3cr3t"}}]
    result, handed = ask({"state": "ok", "instances": []}, instances=wanted, dir="/d")
    assert handed == {"dir": "/d"}
    assert [(one["name"], one["state"]) for one in result["instances"]] == [("cpu", "not deployed")]
    assert "s3cr3t" not in json.dumps(result)
