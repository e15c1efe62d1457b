# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Weights: what is missing, where it is downloaded to, and how it gets to its place in a folder that containers can write."""

import hashlib
import os
import stat
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
from ansible_collections.iopaint.fleet.plugins.modules import weights
from conftest import USER, as_root

CONTENT = b"weights" * 5000
LAMA = {
    "name": "lama",
    "url": "http://example.com/big-lama.pt",
    "path": "torch/hub/checkpoints/big-lama.pt",
    "checksum": "sha256:" + hashlib.sha256(CONTENT).hexdigest(),
}
OTHER = {**LAMA, "name": "other", "path": "other.pt", "checksum": "md5:" + hashlib.md5(CONTENT).hexdigest()}  # noqa: S324


@pytest.fixture
def run(run_module, tmp_path):
    def run(state, *models, **options):
        args = {"models_dir": str(tmp_path / "models"), "staging": str(tmp_path / "staging"), "owner": os.getuid()}
        return run_module(weights, state=state, models=list(models), **{**args, **options})

    return run


@pytest.fixture
def download(run):
    """Play get_url: list what is missing and put it where the result says."""

    def download(*models, content=CONTENT, **options):
        missing = run("listed", *models, **options)["missing"]
        for model in missing:
            with open(model["staged"], "wb") as file:
                file.write(content)
        return missing

    return download


@pytest.fixture
def place(tmp_path):
    """The place of lama's weights, in a folder that is there."""
    place = tmp_path / "models" / LAMA["path"]
    place.parent.mkdir(parents=True)
    return place


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_what_is_missing_is_downloaded_and_put_in_its_place_once(run, download, tmp_path):
    before = os.umask(0o077)
    try:
        missing = download(LAMA, OTHER)
        assert [model["name"] for model in missing] == ["lama", "other"]
        assert {os.path.dirname(model["staged"]) for model in missing} == {f"{tmp_path}/staging"}
        assert mode(tmp_path / "staging") == 0o700
        result = run("placed", *missing)
    finally:
        os.umask(before)
    assert (result["changed"], result["written"]) == (True, [LAMA["path"], OTHER["path"]])
    place = tmp_path / "models" / LAMA["path"]
    assert (place.read_bytes(), mode(place), mode(place.parent)) == (CONTENT, 0o644, 0o755)
    assert not (tmp_path / "staging").exists()
    again = run("listed", LAMA, OTHER)
    assert (again["changed"], again["missing"], again["written"]) == (False, [], [])


def test_weights_with_another_checksum_are_missing(run, place):
    place.write_bytes(b"cut off")
    assert [model["name"] for model in run("listed", LAMA)["missing"]] == ["lama"]


def test_weights_that_another_host_has_come_from_there(run, tmp_path):
    mirror = tmp_path / "mirror of models"
    (mirror / LAMA["path"]).parent.mkdir(parents=True)
    (mirror / LAMA["path"]).write_bytes(CONTENT)
    (mirror / "other.pt").write_bytes(b"cut off")
    (mirror / "linked.pt").symlink_to(mirror / LAMA["path"])
    linked = {**LAMA, "path": "linked.pt"}
    missing = run("listed", LAMA, OTHER, linked, mirror=str(mirror))["missing"]
    assert [model["url"] for model in missing] == [
        f"file://{tmp_path}/mirror%20of%20models/torch/hub/checkpoints/big-lama.pt",
        OTHER["url"],
        linked["url"],
    ]


def test_a_download_with_another_checksum_is_not_put_in_its_place(run, download, place):
    """get_url compares as well; something else may have written there since."""
    place.write_bytes(b"before")
    message = run("placed", *download(LAMA, content=b"other"), failed=True)["msg"]
    assert f"{LAMA['path']} has not the checksum {LAMA['checksum']}. No instance was touched." in message
    assert place.read_bytes() == b"before"
    assert [path.name for path in place.parent.iterdir()] == ["big-lama.pt"]


def test_an_unknown_algorithm_is_said(run, place):
    place.write_bytes(CONTENT)
    message = run("listed", {**LAMA, "checksum": "sha257:0123"}, failed=True)["msg"]
    assert "could not be put into" in message
    assert "unsupported hash type sha257" in message


def test_check_mode_writes_nothing(run, tmp_path):
    result = run("listed", LAMA, check=True)
    assert (result["changed"], result["staging"], len(result["missing"])) == (True, False, 1)
    assert run("placed", *result["missing"], check=True)["written"] == [LAMA["path"]]
    assert not list(tmp_path.glob("[ms]*"))


def test_what_an_interrupted_play_has_downloaded_goes_once_nothing_is_missing(run, download, place, tmp_path):
    download(LAMA)
    place.write_bytes(CONTENT)
    place.chmod(0o644)
    assert run("listed", LAMA, check=True)["staging"] is True
    assert run("listed", LAMA)["staging"] is False
    assert not (tmp_path / "staging").exists()


def test_mode_and_owner_of_weights_that_are_there_are_set(run, place):
    place.write_bytes(CONTENT)
    place.chmod(0o600)
    assert run("listed", LAMA, check=True)["written"] == [LAMA["path"]]
    assert mode(place) == 0o600
    result = run("listed", LAMA)
    assert (result["changed"], result["missing"], result["written"]) == (True, [], [LAMA["path"]])
    assert mode(place) == 0o644


def test_a_file_with_another_name_is_not_given_away(run, place, tmp_path):
    (tmp_path / "elsewhere").write_bytes(CONTENT)
    (tmp_path / "elsewhere").chmod(0o600)
    place.hardlink_to(tmp_path / "elsewhere")
    assert [model["name"] for model in run("listed", LAMA)["missing"]] == ["lama"]
    assert mode(tmp_path / "elsewhere") == 0o600


@pytest.mark.parametrize("kind", ["link", "fifo", "folder"])
def test_what_is_no_regular_file_is_missing_and_keeps_nobody_waiting(run, download, place, tmp_path, kind):
    (tmp_path / "elsewhere").write_bytes(CONTENT)
    (tmp_path / "elsewhere").chmod(0o600)
    {"link": lambda: place.symlink_to(tmp_path / "elsewhere"), "fifo": lambda: os.mkfifo(place), "folder": place.mkdir}[kind]()
    missing = download(LAMA)
    if kind == "folder":
        assert "Is a directory" in run("placed", *missing, failed=True)["msg"]
        return
    run("placed", *missing)
    assert not place.is_symlink()
    assert place.read_bytes() == CONTENT
    assert mode(tmp_path / "elsewhere") == 0o600


@as_root
def test_a_link_in_the_place_of_a_folder_is_named_and_nothing_is_put_behind_it(run, download, tmp_path):
    (tmp_path / "victim").mkdir()
    (tmp_path / "models" / "torch").mkdir(parents=True)
    (tmp_path / "models" / "torch" / "hub").symlink_to(tmp_path / "victim")
    for folder in (tmp_path / "models", tmp_path / "models" / "torch"):
        os.chown(folder, USER, USER)
    message = run("placed", *download(LAMA, owner=USER), owner=USER, failed=True)["msg"]
    assert f"so it is not followed; remove it: '{tmp_path}/models/torch/hub'" in message
    assert not list((tmp_path / "victim").iterdir())


@as_root
def test_nothing_is_put_behind_a_link_that_is_exchanged_for_a_folder(run, download, tmp_path, adversary):
    victim, hub = tmp_path / "victim", tmp_path / "models" / "torch" / "hub"
    victim.mkdir()
    hub.mkdir(parents=True)
    (hub.parent / "link").symlink_to(victim)
    for folder in (hub, hub.parent, hub.parent.parent):
        os.chown(folder, USER, USER)
    adversary(hub.parent, "exchange", "hub", "link")
    placed, end = 0, time.monotonic() + 10
    while placed < 5 and time.monotonic() < end:
        with suppress(AssertionError):  # a try that meets the link fails
            run("placed", *download(LAMA, owner=USER), owner=USER)
            placed += 1
        assert not list(victim.iterdir())
        assert victim.stat().st_uid == 0
    assert placed


# ---- room ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def free(monkeypatch):
    """Let every disk have this many bytes free."""
    return lambda count: monkeypatch.setattr(weights.shutil, "disk_usage", lambda _path: SimpleNamespace(free=count))


def test_a_disk_without_room_fails_before_anything_is_downloaded(run, free, tmp_path):
    free(2 * 700 * 10**6 + weights.SPARE - 1)  # the download, and its copy in its place
    names = {"models": "iopaint_models", "models_dir": "iopaint_data_dir", "staging": "iopaint_dir"}
    message = run("listed", {**LAMA, "megabytes": 700}, failed=True, names=names)["msg"]
    assert f"the disk of {tmp_path} has 1.7 GB free, and 1.7 GB are needed for lama" in message
    assert "move iopaint_data_dir and iopaint_dir to another disk" in message
    assert message.endswith("Nothing was downloaded. No instance was touched.")
    assert not (tmp_path / "staging").exists()


def test_room_that_is_just_enough_is_enough(run, free):
    free(2 * 700 * 10**6 + weights.SPARE)
    assert run("listed", {**LAMA, "megabytes": 700})["staging"] is True


def test_weights_that_are_there_need_no_room(run, place, free):
    place.write_bytes(CONTENT)
    place.chmod(0o644)
    free(0)
    assert run("listed", {**LAMA, "megabytes": 700})["missing"] == []


def test_what_an_interrupted_play_downloaded_is_not_counted_again(run, download, free):
    sized = {**LAMA, "megabytes": 1}
    (missing,) = download(sized)
    os.truncate(missing["staged"], 10**6)
    free(10**6 + weights.SPARE)
    assert run("listed", sized)["missing"] == [missing]


def test_the_size_of_a_file_on_the_host_is_known(tmp_path, run, free):
    source = tmp_path / "a b.pt"
    source.write_bytes(CONTENT)
    free(weights.SPARE + 2 * len(CONTENT) - 1)
    assert "0.3 GB are needed for lama" in run("listed", {**LAMA, "url": source.as_uri()}, failed=True)["msg"]


@pytest.fixture
def server():
    """A server that knows sizes and gives nothing away; its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_response(200 if self.path == "/big.pt" else 404)
            self.send_header("Content-Length", "5000000000")
            self.end_headers()

        def log_message(self, *_words):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_server_is_asked_for_a_size_that_is_not_known(run, server, free):
    free(10**10)
    assert "10.3 GB are needed for lama" in run("listed", {**LAMA, "url": f"{server}/big.pt"}, failed=True)["msg"]


@pytest.mark.parametrize("url", ["/gone.pt", ":x/big.pt"])
def test_an_address_that_says_no_size_is_left_to_the_download(run, server, free, url):
    free(weights.SPARE)
    assert run("listed", {**LAMA, "url": server + url})["staging"] is True
