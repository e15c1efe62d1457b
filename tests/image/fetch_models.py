#!/usr/bin/env python3
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Fetch models with docker/image/fetch-models from a server that speaks the hub's protocol, and break what can break.

    docker run --rm -i --network none --entrypoint python IMAGE - < tests/image/fetch_models.py

The server is this program's own, with a small repository in the layout of a diffusion pipeline. The client is huggingface_hub,
as the image has it.
"""

import contextlib
import hashlib
import http.server
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
from types import SimpleNamespace

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


HUB = SimpleNamespace(
    revisions={"main": ONE, ONE: ONE},
    failures=[],  # statuses that are answered before anything else
    tampered={},  # contents other than the metadata says
    cut={},  # file: bytes after which the connection ends, once
    gated=False,
    token=None,
    asked=[],  # command, path and range of each request
)


class Server(http.server.BaseHTTPRequestHandler):
    """The part of the hub's protocol that huggingface_hub uses for a snapshot."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_args):
        """Say nothing."""

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        self.answer()

    def send(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in {"content-length": len(body), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def answer(self):
        """Answer a request."""
        HUB.asked.append((self.command, self.path, self.headers.get("range")))
        if HUB.failures:
            return self.send(HUB.failures.pop(0), b"later", retry_after=0)
        if HUB.token and self.headers.get("authorization") != f"Bearer {HUB.token}":
            return self.send(401, x_error_code="RepoNotFound", x_error_message="Repository not found")
        if HUB.gated:
            return self.send(403, x_error_code="GatedRepo", x_error_message="Access is restricted")
        path = self.path.partition("?")[0]
        found = re.fullmatch(rf"/api/models/{REPOSITORY}(?:/revision/(.+))?", path)
        if found:
            return self.describe(found[1] or "main")
        found = re.fullmatch(rf"/{REPOSITORY}/resolve/(\w+)/(.+)", path)
        if found and found[2] in FILES:
            return self.file(found[1], found[2])
        return self.send(404, x_error_code="RepoNotFound", x_error_message="Repository not found")

    def describe(self, revision):
        """Answer what a revision has."""
        if revision not in HUB.revisions:
            return self.send(404, x_error_code="RevisionNotFound", x_error_message="Invalid rev id")
        siblings = []
        for name, content in FILES.items():
            entry = {"rfilename": name, "size": len(content), "blobId": etag(name, False)}
            if is_big(name):
                entry["lfs"] = {"sha256": etag(name, True), "size": len(content), "pointerSize": 130}
            siblings.append(entry)
        body = {
            "id": REPOSITORY,
            "sha": HUB.revisions[revision],
            "siblings": siblings,
            "private": False,
            "downloads": 0,
            "tags": [],
        }
        return self.send(200, json.dumps(body).encode(), content_type="application/json")

    def file(self, commit, name):
        """Answer a file, or the rest of it."""
        content = HUB.tampered.get(name, FILES[name])
        start = int((re.match(r"bytes=(\d+)-", self.headers.get("range") or "") or [0, 0])[1])
        headers = {"etag": f'"{etag(name, is_big(name))}"', "x_repo_commit": commit, "accept_ranges": "bytes"}
        if start:
            headers["content_range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        stop = HUB.cut.pop(name, None) if self.command == "GET" else None
        if stop is None:
            return self.send(206 if start else 200, content[start:], **headers)
        self.send_response(200)
        for key, value in {"content-length": len(content), **headers}.items():
            self.send_header(key.replace("_", "-"), str(value))
        self.end_headers()
        self.wfile.write(content[:stop])
        self.wfile.flush()
        self.close_connection = True
        return None


def is_big(name):
    """Whether the hub would keep a file in its large file storage."""
    return name.endswith((".safetensors", ".bin", ".ckpt"))


def git_blob(content):
    """The checksum that git gives a file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()  # noqa: S324 - the hub's own


def etag(name, big):
    """The checksum by which the hub names a file."""
    content = FILES[name]
    return hashlib.sha256(content).hexdigest() if big else git_blob(content)


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

    def content(self, name, commit=ONE):
        return (self.folder / "snapshots" / commit / name).read_bytes()

    def downloaded(self):
        return [
            path.rpartition("/resolve/")[2].partition("/")[2]
            for command, path, _range in HUB.asked
            if command == "GET" and "/resolve/" in path
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
    with changed(revisions={"main": TWO, TWO: TWO, ONE: ONE}):
        done = case()
        assert (done["revision"], done["changed"], done["missing_bytes"]) == (TWO, True, 0)
        assert case.downloaded() == []
        assert (case.folder / "refs/main").read_text() == TWO
        assert case("--revision", ONE)["changed"] is True  # back, without a download
    assert (case.folder / "refs/main").read_text() == ONE


def test_a_download_that_broke_off_is_taken_up(case):
    with changed(cut={"unet/diffusion_pytorch_model.safetensors": 22 << 20}):
        case()
    ranges = [each for _command, path, each in HUB.asked if path.endswith("unet/diffusion_pytorch_model.safetensors") and each]
    assert ranges, HUB.asked
    assert case.content("unet/diffusion_pytorch_model.safetensors") == BIG


def test_a_file_that_differs_is_refused_and_deleted(case):
    name = "vae/diffusion_pytorch_model.safetensors"
    with changed(tampered={name: b"eav"}):
        message = case(rc=65)
    assert f"{name} has {hashlib.sha256(b'eav').hexdigest()}, and the hub's metadata says {etag(name, True)}" in message
    assert not (case.folder / "snapshots" / ONE / name).exists()
    assert not (case.folder / "refs/main").exists()
    case()
    assert case.content(name) == FILES[name]


def test_a_file_that_somebody_removed_is_fetched_again(case):
    case("--revision", ONE)
    (case.folder / "snapshots" / ONE / "vae/config.json").resolve().unlink()
    case("--revision", ONE)
    assert case.content("vae/config.json") == b"{}"


def test_a_busy_hub_is_asked_again(case):
    with changed(failures=[429, 503]):
        assert case()["changed"] is True


def test_what_is_not_there_is_said(case):
    assert "the hub has no such repository, or it is private" in case(repository="tests/none", rc=66)
    assert "the repository has no such revision" in case("--revision", "v9", rc=66)
    assert "is no OWNER/NAME" in case(repository="../../etc", rc=2)


def test_a_repository_that_is_not_open_is_said(case):
    with changed(gated=True):
        assert "gated: accept its terms on the hub" in case(rc=77)
    with changed(token="hf_secret"):
        assert "private and the token" in case(rc=66)
        assert case(token="hf_secret")["changed"] is True


def test_a_hub_that_cannot_be_reached_is_said(case):
    assert "the hub can't be reached: " in case(rc=69, HF_ENDPOINT="http://127.0.0.1:9")


@contextlib.contextmanager
def changed(**settings):
    """Let the hub behave in another way for a while."""
    before = {name: getattr(HUB, name) for name in settings}
    for name, value in settings.items():
        setattr(HUB, name, value)
    yield
    for name, value in before.items():
        setattr(HUB, name, value)


def main():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
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
