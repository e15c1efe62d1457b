"""Make `ansible_collections.iopaint.fleet` importable from the checkout, as Ansible itself would; run its modules."""

import contextlib
import json
import marshal
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import hypothesis
import pytest
from ansible.module_utils.common.parameters import PASS_VARS
from ansible.module_utils.testing import patch_module_args
from ansible.utils.collection_loader._collection_finder import _AnsibleCollectionFinder

# How long an example takes is the machine's affair and no fault of the code.
hypothesis.settings.register_profile("untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("untimed")

ROOT = Path(__file__).resolve().parents[2]
USER = 10001  # of the images
as_root = pytest.mark.skipif(os.getuid() != 0, reason="root alone gives files away")

# `make env` links the checkout to build/collections/ansible_collections/iopaint/fleet.
_AnsibleCollectionFinder(paths=[str(ROOT / "build" / "collections")])._install()


@pytest.fixture(autouse=True)
def on_a_host(monkeypatch):
    """Let modules in this process behave as on a host (warnings in their result) though other tests import the controller."""
    monkeypatch.setattr("ansible.module_utils._internal.is_controller", False)
    monkeypatch.setattr("ansible.module_utils.common.warnings._global_warnings", {})  # a module's process begins with none


@pytest.fixture
def run_module(capsys, tmp_path):
    """Run a module with its arguments as Ansible hands them over, and give the result that it prints."""

    def run(module, failed=False, check=False, diff=False, **args):
        own = {"_ansible_check_mode": check, "_ansible_diff": diff, "_ansible_remote_tmp": str(tmp_path / "remote-tmp")}
        if "inject_invocation" in PASS_VARS:  # without it, a result of ansible-core 2.21 lacks the arguments
            own["_ansible_inject_invocation"] = True
        with patch_module_args({**own, **args}), pytest.raises(SystemExit):
            module.main()
        result = json.loads(capsys.readouterr().out)
        assert result.get("failed", False) is failed, result
        return result

    return run


class StandInEngine:
    """A `docker` on PATH that keeps images and containers in a file. A test sets the state and reads the calls."""

    def __init__(self, folder):
        self.bin, self.root = folder / "bin", folder / "engine-root"
        self._state, self._calls = folder / "state", folder / "calls"
        self.bin.mkdir(parents=True)
        self.root.mkdir()
        self._calls.touch()
        self.set(images={}, registry=[], containers=[], down=False, root=str(self.root))
        tests = Path(__file__).parent
        self.program("docker", (tests / "stand_in_docker.py").read_text(), STAND_IN=folder, TESTS=tests)

    def program(self, name, text, **constants):
        """Put a Python program on PATH, with constants set at its top."""
        lines = [f"#!{sys.executable} -IS", *(f"{key} = {str(value)!r}" for key, value in constants.items()), text]
        (self.bin / name).write_text("\n".join(lines))
        (self.bin / name).chmod(0o755)

    def set(self, **values):
        """Change the state."""
        self._state.write_bytes(marshal.dumps({**(self.state if self._state.exists() else {}), **values}))

    def have(self, *names):
        """Let the engine hold images of these names, each one of its own."""
        self.set(images={**self.state["images"], **{name: {"Id": f"sha256:{name}", "Size": 1000} for name in names}})

    @property
    def state(self):
        """What the engine holds."""
        return marshal.loads(self._state.read_bytes())  # noqa: S302 - its own file

    @property
    def ids(self):
        """The ID of each image, by name."""
        return {name: image["Id"] for name, image in self.state["images"].items()}

    def calls(self, *words):
        """The calls whose arguments begin with these words, each with argv, env and cwd."""
        calls, end = [], self._calls.stat().st_size
        with self._calls.open("rb") as stream:
            while stream.tell() < end:
                calls.append(marshal.load(stream))  # noqa: S302 - its own file
        return [call for call in calls if call["argv"][: len(words)] == list(words)]


@pytest.fixture
def engine(tmp_path, monkeypatch):
    """A stand-in for the Docker engine, alone on PATH."""
    engine = StandInEngine(tmp_path / "stand-in")
    monkeypatch.setenv("PATH", str(engine.bin))
    return engine


@pytest.fixture
def no_programs(tmp_path, monkeypatch):
    """A host with an empty PATH."""
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("PATH", os.fspath(tmp_path / "empty"))


@pytest.fixture
def nest():
    """Make folders inside each other: nest(folder, depth). The folder is removed by rm, as pytest's own removal recurses."""
    made = []

    def make(folder, depth):
        made.append(folder)
        place = os.open(folder, os.O_RDONLY)
        for _level in range(depth):
            os.mkdir("d", dir_fd=place)
            inner = os.open("d", os.O_RDONLY, dir_fd=place)
            os.close(place)
            place = inner
        os.close(place)

    yield make
    subprocess.run(["/bin/rm", "-rf", *made], check=True)


@pytest.fixture
def adversary():
    """Let somebody work against a module: adversary(folder, *arguments) starts adversary.py as the containers' user."""
    started = []

    def start(folder, *arguments):
        command = [sys.executable, "-IS", str(Path(__file__).parent / "adversary.py"), str(USER), *arguments]
        started.append(subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE))
        assert started[-1].stdout.readline() == b"begun\n"

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture
def raw_server():
    """Answer each connection with these bytes, then with pieces after pauses; return the address."""
    listeners = []

    def serve(begin, piece=b"", pause=0):
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def answer():
            peer, _address = listener.accept()
            with peer, contextlib.suppress(OSError):
                peer.recv(65536)
                peer.sendall(begin)
                while piece and listener.fileno() >= 0:
                    peer.sendall(piece)
                    time.sleep(pause)

        threading.Thread(target=answer, daemon=True).start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}"

    yield serve
    for listener in listeners:
        listener.close()
