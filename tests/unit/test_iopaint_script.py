# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""docker/image/iopaint, the console script of the image, with stand-ins for the packages that it imports."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "docker/image/iopaint"
PACKAGES = ["cv2", "fastapi", "scipy", "scipy/spatial", "socketio", "torch", "torchvision", "uvicorn"]
IOPAINT = """
import gc, json, os, signal, sys
if "SIGNAL" in os.environ:
    os.kill(os.getpid(), signal.SIGTERM)
os.environ["TORCH_CUDNN_V8_API_LRU_CACHE_LIMIT"] = os.environ["LRU_CACHE_CAPACITY"] = "1"
before = sorted(sys.modules)
def entry_point():
    if "FAIL" in os.environ:
        raise eval(os.environ["FAIL"])
    print(json.dumps({
        "threshold": gc.get_threshold()[0], "frozen": gc.get_freeze_count(), "arguments": sys.argv[1:],
        "limits": [os.environ["TORCH_CUDNN_V8_API_LRU_CACHE_LIMIT"], os.environ["LRU_CACHE_CAPACITY"]],
        "torch": "torchvision" in sys.modules, "too_early": "torchvision" in before, "hub": os.environ.get("HF_HUB_CACHE"),
    }))
"""


@pytest.fixture
def script(tmp_path):
    """Run it, and give what the stand-in for iopaint saw."""
    for name in PACKAGES:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
    (tmp_path / "uvicorn/__init__.py").write_text("def run(app, **options): pass\n")
    (tmp_path / "iopaint").mkdir()
    (tmp_path / "iopaint/__init__.py").write_text(IOPAINT)

    def run(*arguments, rc=0, **variables):
        env = {**os.environ, "PYTHONPATH": str(tmp_path), **variables}
        done = subprocess.run([sys.executable, SCRIPT, *arguments], env=env, capture_output=True, text=True, check=False)
        assert done.returncode == rc, done.stderr
        if rc:
            return done.stderr
        assert not done.stderr
        return json.loads(done.stdout)

    return run


@pytest.mark.parametrize("command", ["start", "run"])
def test_what_serves_is_loaded_and_frozen_first(script, command):
    seen = script(command, "--model", "cv2")
    assert seen["arguments"] == [command, "--model", "cv2"]
    assert seen["torch"]
    assert seen["frozen"] > 1000
    assert seen["threshold"] == 1_000_000


@pytest.mark.parametrize("arguments", [[], ["list"], ["start", "--help"], ["download", "--model", "start"]])
def test_other_commands_load_nothing_more(script, arguments):
    seen = script(*arguments)
    assert not seen["torch"]
    own = [sys.executable, "-c", "import gc; print(gc.get_freeze_count())"]  # Python 3.12 freezes some objects itself
    assert seen["frozen"] == int(subprocess.run(own, capture_output=True, text=True, check=True).stdout)
    assert seen["threshold"] != 1_000_000


def test_iopaint_comes_before_torch_as_it_sets_its_variables(script):
    assert not script("start")["too_early"]


def test_what_the_container_was_given_wins_over_what_iopaint_sets(script):
    assert script("start", TORCH_CUDNN_V8_API_LRU_CACHE_LIMIT="200")["limits"] == ["200", "1"]


def test_torch_that_cannot_be_opened_is_left_to_its_import(script, tmp_path):
    (tmp_path / "torch/lib").mkdir()
    (tmp_path / "torch/lib/libtorch_python.so").write_text("no library")
    assert script("start")["torch"]


@pytest.mark.parametrize(
    ("arguments", "error", "folder"),
    [
        ([], "PermissionError(13, 'Permission denied', '/app/models/torch')", "/app/models"),
        (["--model-dir", "/m"], "PermissionError(1, 'Operation not permitted', '/m/torch')", "/m"),
        (["--output-dir=/o/"], "PermissionError(13, 'Permission denied', '/o')", "/o"),
    ],
)
def test_a_folder_that_can_not_be_used_is_one_sentence(script, arguments, error, folder):
    (line,) = script("start", *arguments, rc=77, FAIL=error).splitlines()
    assert line.startswith(f"iopaint: the folder {folder} can't be used ({folder}")
    assert f"; on the host run `chown -R {os.geteuid()}:{os.getegid()}` on the folder that is mounted there, or" in line
    assert ("without --user" in line) == (folder == "/app/models")


def test_a_read_only_folder_has_a_remedy_of_its_own(script):
    (line,) = script("start", rc=77, FAIL="OSError(30, 'Read-only file system', '/app/models/torch')").splitlines()
    assert line == (
        "iopaint: the folder /app/models can't be used (/app/models/torch: Read-only file system); mount it writable, "
        "or put what is missing there beforehand"
    )


@pytest.mark.parametrize(
    "error",
    [
        "PermissionError(13, 'Permission denied', '/etc/shadow')",
        "PermissionError(13, 'Permission denied', '/app/models-2/x')",
        "PermissionError(13, 'Permission denied')",
        "FileNotFoundError(2, 'No such file or directory', '/app/models/x')",
        "OSError(28, 'No space left on device', '/app/models/x')",
        "ValueError('wrong')",
    ],
)
def test_other_errors_keep_their_traceback(script, error):
    assert "Traceback (most recent call last)" in script("start", rc=1, FAIL=error)


def test_sigterm_ends_a_start_at_once(script):
    """As the first process of a container it has to handle the signal: the kernel gives that process no other."""
    assert script("start", rc=143, SIGNAL="1") == ""


@pytest.fixture
def cache(tmp_path):
    """A folder of models with two commits of a repository, of which main is the second, and another repository."""
    hub = tmp_path / "models/huggingface/hub"
    for commit in ("1" * 40, "2" * 40):
        (hub / "models--a--b/snapshots" / commit).mkdir(parents=True)
    for folder, commit in (("models--a--b", "2" * 40), ("models--c--d", "3" * 40)):
        (hub / folder / "blobs").mkdir(parents=True)
        (hub / folder / "refs").mkdir()
        (hub / folder / "refs/main").write_text(commit)
    return hub


def test_the_hub_s_libraries_find_the_commit_of_the_release(script, cache, tmp_path):
    models = str(tmp_path / "models")
    seen = script("start", "--model-dir", models, IOPAINT_FLEET_REVISIONS=f"a/b={'1' * 40}", TMPDIR=str(tmp_path))
    view = Path(seen["hub"])
    assert view.parent == tmp_path
    assert (view / "models--a--b/refs/main").read_text() == "1" * 40
    assert (view / "models--c--d/refs/main").read_text() == "3" * 40
    assert (view / "models--a--b/snapshots").resolve() == cache / "models--a--b/snapshots"
    assert (cache / "models--a--b/refs/main").read_text() == "2" * 40
    assert script("start", "--model-dir", models)["hub"] is None


@pytest.mark.parametrize("revisions", ["main", "a/b=main", f"a={'1' * 40}", f"a/b={'1' * 40},"])
def test_a_revision_that_is_no_commit_is_named(script, revisions):
    said = script("start", IOPAINT_FLEET_REVISIONS=revisions, rc=os.EX_USAGE)
    assert (
        said == f"iopaint: IOPAINT_FLEET_REVISIONS is {revisions!r}; OWNER/NAME=COMMIT is wanted, several separated by commas\n"
    )


def test_a_commit_that_is_not_there_is_named(script, cache, tmp_path):
    revisions = f"a/b={'9' * 40}"
    said = script("start", f"--model-dir={tmp_path}/models", IOPAINT_FLEET_REVISIONS=revisions, rc=os.EX_NOINPUT)
    assert f"{cache} has no a/b at {'9' * 40}, which IOPAINT_FLEET_REVISIONS names; deploy again" in said
    assert len(said.splitlines()) == 1
