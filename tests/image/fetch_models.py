#!/usr/bin/env python3
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Fetch models with docker/image/fetch-models from a server that speaks the hub's protocol, and break what can break.

    docker run --rm --network none --volume "$PWD:/src:ro" --env PYTHONPATH=/src/molecule/fixtures --entrypoint python IMAGE \\
      /src/tests/image/fetch_models.py

The server is molecule/fixtures/hub_server.py, with a small repository in the layout of a diffusion pipeline. The client is
huggingface_hub, as the image has it.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import traceback
from pathlib import Path

from hub_server import Faults, Hub, altered, etag

PROGRAM = os.environ.get("FETCH_MODELS", "/opt/iopaint/bin/fetch-models")
REPOSITORY = "tests/pipeline"
ONE, TWO = "1" * 40, "2" * 40
BIG = os.urandom(25 << 20)  # huggingface_hub writes 10 MB at a time
FILES = {
    "model_index.json": b'{"_class_name": "StableDiffusionInpaintPipeline"}',
    "README.md": b"a pipeline",
    "v1.ckpt": b"all in one",
    "all-in-one.safetensors": b"all in one",
    "unet/config.json": b"{}",
    "unet/diffusion_pytorch_model.safetensors": BIG,
    "unet/diffusion_pytorch_model.fp16.safetensors": BIG[: 1 << 20],
    "unet/diffusion_pytorch_model.bin": b"pickle",
    "unet/flax_model.msgpack": b"flax",
    "vae/config.json": b"{}",
    "vae/diffusion_pytorch_model.safetensors": b"vae",
    "text_encoder/config.json": b"{}",
    "text_encoder/pytorch_model.bin": b"pickle only",
    "tokenizer/vocab.json": b"{}",
    "tokenizer/merges.txt": b"a b",
}
CHOSEN = {
    "model_index.json",
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
    "text_encoder/config.json",
    "text_encoder/pytorch_model.bin",
    "tokenizer/vocab.json",
    "tokenizer/merges.txt",
}


HUB = Hub()
HUB.add(REPOSITORY, "main", FILES, ONE)


class Case:
    """A cache, and the program run over it."""

    def __init__(self, cache, endpoint):
        self.cache, self.endpoint = Path(cache), endpoint
        self.folder = self.cache / "models--tests--pipeline"

    def __call__(self, *arguments, rc=0, token=None, repository=REPOSITORY, **environment):
        """Run the program; return its answer as JSON, or its error where another status is expected."""
        HUB.asked.clear()
        command = [sys.executable, PROGRAM, repository, "--cache", str(self.cache), *arguments, *["--token-stdin"] * bool(token)]
        done = subprocess.run(
            command,
            input=token or "",
            env={**os.environ, "HF_ENDPOINT": self.endpoint, "PYTHONDONTWRITEBYTECODE": "1", **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == rc, (done.returncode, done.stdout, done.stderr)
        return json.loads(done.stdout) if rc == 0 else done.stderr

    def start(self, *arguments, stdin=subprocess.DEVNULL):
        """Start the program; return the process."""
        command = [sys.executable, PROGRAM, REPOSITORY, "--cache", str(self.cache), *arguments]
        environment = {**os.environ, "HF_ENDPOINT": self.endpoint, "PYTHONDONTWRITEBYTECODE": "1"}
        return subprocess.Popen(command, env=environment, text=True, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def content(self, name, commit=ONE):
        return (self.folder / "snapshots" / commit / name).read_bytes()

    def downloaded(self):
        return [
            re.sub(rf"/(lfs/{REPOSITORY}|{REPOSITORY}/resolve)/\w+/", "", each["path"])
            for each in HUB.asked
            if each["method"] == "GET" and not each["path"].startswith("/api/")
        ]


def test_a_pipeline_is_fetched_and_main_names_its_commit(case):
    done = case()
    assert (done["revision"], done["changed"], set(done["files"])) == (ONE, True, CHOSEN)
    assert done["bytes"] == done["missing_bytes"] == sum(len(FILES[name]) for name in CHOSEN)
    assert all(case.content(name) == FILES[name] for name in CHOSEN)
    assert (case.folder / "refs/main").read_text() == ONE
    again = case()
    assert (again["changed"], again["missing_bytes"], case.downloaded()) == (False, 0, [])


def test_what_a_commit_names_and_is_there_needs_no_hub(case):
    case("--revision", ONE)
    assert case("--revision", ONE, HF_ENDPOINT="http://127.0.0.1:9")["changed"] is False
    assert HUB.asked == []


def test_libraries_that_are_offline_find_it(case):
    case("--revision", ONE)
    code = "import sys, huggingface_hub as h; print(h.hf_hub_download(sys.argv[1], 'unet/config.json', cache_dir=sys.argv[2]))"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code, REPOSITORY, str(case.cache)], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip().endswith("unet/config.json")


def test_a_variant_takes_the_place_of_the_weights_that_have_it(case):
    files = set(case("--variant", "fp16")["files"])
    assert "unet/diffusion_pytorch_model.fp16.safetensors" in files
    assert "unet/diffusion_pytorch_model.safetensors" not in files
    assert "vae/diffusion_pytorch_model.safetensors" in files


def test_patterns_choose_and_one_that_matches_nothing_is_named(case):
    assert set(case("--files", "*.ckpt", "unet/config.json")["files"]) == {"v1.ckpt", "unet/config.json"}
    assert "no file of the repository matches *.onnx; it has" in case("--files", "*.onnx", "*.json", rc=66)


def test_a_check_downloads_nothing(case):
    done = case("--check")
    assert (done["changed"], done["missing_bytes"] > 0, case.downloaded(), case.folder.exists()) == (True, True, [], False)


def test_a_branch_that_moved_is_fetched_anew_and_keeps_what_is_the_same(case):
    case()
    HUB.add(REPOSITORY, "main", FILES, TWO)
    try:
        done = case()
        assert (done["revision"], done["changed"], done["missing_bytes"]) == (TWO, True, 0)
        assert case.downloaded() == []
        assert (case.folder / "refs/main").read_text() == TWO
        assert case("--revision", ONE)["changed"] is True  # back, without a download
    finally:
        HUB.add(REPOSITORY, "main", FILES, ONE)
    assert (case.folder / "refs/main").read_text() == ONE


def test_a_download_that_broke_off_is_taken_up(case):
    with faults(cut={"unet/diffusion_pytorch_model.safetensors": 22 << 20}):
        case()
    assert [each["range"] for each in HUB.asked if each["path"].endswith("unet/diffusion_pytorch_model.safetensors")][-1]
    assert case.content("unet/diffusion_pytorch_model.safetensors") == BIG


def test_a_file_that_differs_is_refused_and_deleted(case):
    name = "vae/diffusion_pytorch_model.safetensors"
    with faults(tampered=[name]):
        message = case(rc=65)
    assert (
        f"{name} has {hashlib.sha256(altered(FILES[name])).hexdigest()}, and the hub's metadata says {etag(name, FILES[name])}"
        in message
    )
    assert not (case.folder / "snapshots" / ONE / name).exists()
    assert not (case.folder / "refs/main").exists()
    case()
    assert case.content(name) == FILES[name]


def test_a_file_that_somebody_removed_is_fetched_again(case):
    case("--revision", ONE)
    (case.folder / "snapshots" / ONE / "vae/config.json").resolve().unlink()
    case("--revision", ONE)
    assert case.content("vae/config.json") == b"{}"


def test_what_another_host_has_is_copied_and_the_rest_is_downloaded(case):
    mirror = Path(tempfile.mkdtemp())
    try:
        other = Case(mirror / "huggingface/hub", case.endpoint)
        other("--revision", ONE)
        broken = other.folder / "snapshots" / ONE / "vae/diffusion_pytorch_model.safetensors"
        broken.resolve().write_bytes(b"xxx")
        (other.folder / "snapshots" / ONE / "tokenizer/merges.txt").resolve().unlink()  # no other file has its content
        done = case("--mirror", str(mirror))
        assert set(done["files"]) == CHOSEN
        assert sorted(case.downloaded()) == ["tokenizer/merges.txt", "vae/diffusion_pytorch_model.safetensors"]
        assert all(case.content(name) == FILES[name] for name in CHOSEN)
        assert not list(case.folder.glob("blobs/*.mirrored"))
    finally:
        shutil.rmtree(mirror)


def test_files_that_a_bundle_placed_are_copied_from_another_host(case):
    mirror = Path(tempfile.mkdtemp())
    try:
        for name in CHOSEN:
            path = mirror / "huggingface/hub/models--tests--pipeline/snapshots" / ONE / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(FILES[name])
        case("--mirror", str(mirror))
        assert case.downloaded() == []
        assert all(case.content(name) == FILES[name] for name in CHOSEN)
    finally:
        shutil.rmtree(mirror)


def test_a_busy_hub_is_asked_again(case):
    with faults(failures=[429, 503]):
        assert case()["changed"] is True


def test_what_is_not_there_is_said(case):
    assert "the hub has no such repository, or it is private" in case(repository="tests/none", rc=66)
    assert "the repository has no such revision" in case("--revision", "v9", rc=66)
    assert "is no OWNER/NAME" in case(repository="../../etc", rc=2)


def test_a_repository_that_is_not_open_is_said(case):
    with faults(gated=True):
        assert "gated: accept its terms on the hub" in case(rc=77)
    with faults(token="hf_secret"):
        assert "private and the token" in case(rc=66)
        assert case(token="hf_secret")["changed"] is True


def test_a_hub_that_cannot_be_reached_is_said(case):
    assert "the hub can't be reached: " in case(rc=69, HF_ENDPOINT="http://127.0.0.1:9")


def test_progress_names_what_is_fetched_and_how_far_it_is(case):
    name = "unet/diffusion_pytorch_model.safetensors"
    said = []
    with faults(stalled={name: 22 << 20}), case.start("--progress") as running:
        for line in running.stderr:
            said.append(json.loads(line))
            if said[-1]["fetched"] >= 20 << 20:
                break
        HUB.faults = Faults()
        running.terminate()
    total = sum(len(FILES[path]) for path in CHOSEN)
    assert (said[0]["state"], said[0]["fetched"], said[0]["bytes"], said[0]["files"]) == ("begins", 0, total, len(CHOSEN))
    assert (said[-1]["state"], said[-1]["repository"], said[-1]["revision"]) == ("fetches", REPOSITORY, ONE)
    with case.start("--progress") as running:
        rest = [json.loads(line) for line in running.stderr]
    assert running.returncode == 0
    assert rest[0]["fetched"] >= 20 << 20
    assert (rest[-1]["state"], rest[-1]["fetched"]) == ("ends", rest[-1]["bytes"])
    with case.start("--progress") as running:
        assert running.stderr.read() == ""  # nothing was to be fetched


def test_a_hub_that_is_asked_again_is_named_with_the_reason(case):
    with faults(failures=[503]), case.start("--progress") as running:
        first = json.loads(running.stderr.readline())
        running.communicate()
    assert (first["state"], first["repository"], first["wait"]) == ("waits", REPOSITORY, 2)
    assert first["reason"].startswith("the hub answers 503")


def test_it_ends_with_who_started_it(case):
    name = "unet/diffusion_pytorch_model.safetensors"
    with faults(stalled={name: 1 << 20}), case.start("--progress", "--attended", stdin=subprocess.PIPE) as running:
        assert json.loads(running.stderr.readline())["state"] == "begins"
        assert running.poll() is None
        running.stdin.close()
        assert running.wait(20) == os.EX_TEMPFAIL
    assert case("--attended", "--token-stdin", rc=os.EX_TEMPFAIL) == ""
    with case.start("--attended", stdin=subprocess.PIPE) as running:
        assert running.wait(60) == 0


@contextlib.contextmanager
def faults(**faults):
    """Let the hub do something wrong for a while."""
    HUB.faults = Faults(**faults)
    yield
    HUB.faults = Faults()


def main():
    server = HUB.serve()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    tests = [value for name, value in globals().items() if name.startswith("test_") and sys.argv[1:] in ([], [name])]
    failed = 0
    for test in tests:
        cache = tempfile.mkdtemp()
        try:
            test(Case(cache, f"http://127.0.0.1:{server.server_address[1]}"))
        except Exception:
            failed += 1
            print(f"FAILED {test.__name__}")
            traceback.print_exc(file=sys.stdout)
        else:
            print(f"passed {test.__name__}")
        shutil.rmtree(cache)
    print(f"{len(tests) - failed} passed, {failed} failed")
    raise SystemExit(bool(failed))


if __name__ == "__main__":
    main()
