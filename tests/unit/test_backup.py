# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The program that backs a host up, by the real restic: whole, honest about what it leaves out, and never hanging."""

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from importlib.machinery import SourceFileLoader

import pytest
from conftest import ROOT

LOADER = SourceFileLoader("iopaint_backup", str(ROOT / "roles" / "iopaint_backup" / "files" / "iopaint-backup"))
ODD = [
    "#1.png",
    ";x",
    "a $HOME.png",
    "b*.png",
    "c?.png",
    "d[1].png",
    "e\\f.png",
    " g ",
    "new\nline.png",
    "bad\udcff.png",
    "-rf",
    "ü.png",
]


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """A new repository, made once, as restic takes its time for a key."""
    path = tmp_path_factory.mktemp("restic") / "repository"
    subprocess.run(
        ["restic", "init"], env={**os.environ, "RESTIC_REPOSITORY": str(path), "RESTIC_PASSWORD": "secret"}, check=True
    )
    return path


@pytest.fixture
def program(tmp_path, monkeypatch, repository):
    """The program, with data that takes the place of the private mounts, and a repository."""
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("iopaint_backup", LOADER))
    LOADER.exec_module(module)
    for name in ("CONFIG", "LAST", "RUN", "SUMS"):
        monkeypatch.setattr(module, name, str(tmp_path / name.lower()))
    monkeypatch.setattr(module, "VIEW", str(tmp_path / "data"))
    monkeypatch.setattr(module, "view", lambda _config, tree: (str(tmp_path / "data" / tree), []))
    monkeypatch.setattr(module, "RESTIC", ["restic"])
    monkeypatch.setattr(module, "PAUSE", 0)
    for name, value in {"REPOSITORY": tmp_path / "repository", "PASSWORD": "secret", "CACHE_DIR": tmp_path / "cache"}.items():
        monkeypatch.setenv(f"RESTIC_{name}", str(value))
    shutil.copytree(repository, tmp_path / "repository")
    os.mkdir(module.RUN)
    for name in ("models/torch/lama.pt", "outputs/cpu/a.png", "outputs/.previous-cpu-x/x"):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).write_text(name)
    return module


@pytest.fixture
def data(tmp_path):
    return tmp_path / "data"


@pytest.fixture
def run(program, tmp_path, monkeypatch, capsys):
    """Run the program; return its result. right: its exit status."""

    def call(*arguments, right=0, **settings):
        keep = {"daily": 7, "weekly": 4, "monthly": 6}
        config = {"data": program.VIEW, "include": ["outputs"], "instances": [], "host": "one", "user": -1, "mount": ""}
        config.update(models="all", record=str(tmp_path / "models.json"))
        config.update(
            wait=1, maintain=False, keep=keep, check_parts=3, lock=str(tmp_path / "lock"), audit=str(tmp_path / "audit")
        )
        (tmp_path / "config").write_text(json.dumps({**config, **settings}))
        monkeypatch.setattr(sys, "argv", ["iopaint-backup", "--inside", *arguments])
        status, output = program.main(), capsys.readouterr().out
        assert status == right, output
        return json.loads(output.splitlines()[-1])

    return call


def restic(*arguments):
    """What restic prints."""
    return subprocess.run(["restic", *arguments], check=True, capture_output=True).stdout.decode()


def snapshots():
    return json.loads(restic("snapshots", "--json"))


def reasons(result):
    return {entry["path"]: entry["reason"] for entry in result["left_out"]}


def test_each_tree_becomes_a_snapshot_of_the_host(run, tmp_path):
    result = run("--operator=ann", "--controller=desk", include=["models", "outputs"])
    assert {snapshot["hostname"] for snapshot in snapshots()} == {"one"}
    found = {tuple(snapshot["tags"]): snapshot["id"] for snapshot in snapshots()}
    trees = ["models", "outputs/cpu"]
    assert sorted(found) == [("iopaint", tree, result["run"]) for tree in trees]
    assert restic("dump", found["iopaint", "outputs/cpu", result["run"]], "/outputs/cpu/a.png") == "outputs/cpu/a.png"
    assert (result["ok"], result["files"], result["counts"]) == (True, 2, dict.fromkeys(trees, 1))
    assert json.loads((tmp_path / "last").read_text()) == result
    (line,) = (tmp_path / "audit").read_text().splitlines()
    assert {"action": "backup", "operator": "ann", "files": 2}.items() <= json.loads(line).items()


def test_what_is_asked_for(run):
    assert list(run(include=["models"])["snapshots"]) == ["models"]
    assert list(run(instances=["cpu"])["snapshots"]) == ["outputs/cpu"]
    result = run(instances=["none"], right=1)
    assert "has no outputs/none. There: nothing." in result["reason"]
    assert result["snapshots"] == {}


def test_settings_of_a_play_come_before_those_of_the_timer(run):
    assert list(run('--settings={"include": ["models"]}')["snapshots"]) == ["models"]


def test_a_dry_run_leaves_no_trace(run, tmp_path):
    assert run("--dry-run")["files"] == 1
    assert snapshots() == []
    assert not (tmp_path / "last").exists()


def test_old_snapshots_go_and_the_next_share_of_the_data_is_read(run):
    results = [run(maintain=True, check_parts=2) for _time in range(3)]
    assert [result["share"] for result in results] == [1, 2, 1]
    assert [result["forgotten"] for result in results] == [0, 1, 1]
    assert len(snapshots()) == 1
    assert run()["share"] == 1
    assert len(snapshots()) == 2


def test_files_of_any_name_are_backed_up_and_excluded_each_alone(run, data, program):
    for name in ODD:
        (data / "outputs/cpu" / name).write_text("x")
    assert run()["counts"]["outputs/cpu"] == len(ODD) + 1
    places = [os.fsencode(data / "outputs/cpu" / name) for name in ODD]
    (data / "outputs/cpu/bbb.png").write_text("no b*.png")
    config = {**program.read(program.CONFIG), "run": "x"}
    _made, summary, _unread = program.snapshot(config, "outputs/cpu", places, False)
    assert summary["total_files_processed"] == 2


def test_what_cannot_be_backed_up_is_named_and_the_rest_is_done(run, data, nest):
    os.mkfifo(data / "outputs/cpu/fifo")
    with open(data / "outputs/cpu/sparse.png", "w") as stream:
        stream.truncate(8 << 40)
    nest(data / "outputs/cpu", 2500)
    (data / "outputs/odd").symlink_to("nowhere")
    (data / "outputs/file").touch()
    result = run(right=3)
    deep = "outputs/cpu" + "/d" * 100
    gone = "it is no folder of an instance, or a link to nothing"
    assert reasons(result) == {
        "outputs/cpu/fifo": "it is neither file, folder nor link",
        "outputs/cpu/sparse.png": f"it is a sparse file of {8 << 40} bytes",
        deep: "it lies below 100 folders",
        "outputs/odd": gone,
        "outputs/file": gone,
    }
    assert (result["ok"], result["counts"]["outputs/cpu"]) == (False, 1)
    listed = restic("ls", result["snapshots"]["outputs/cpu"])
    assert deep[: -len("/d")] + "\n" in listed
    assert [word for word in ("fifo", "sparse", deep + "\n") if word in listed] == []


def test_many_entries_are_named_in_part(run, data):
    for number in range(30):
        os.mkfifo(data / "outputs/cpu" / str(number))
    named = reasons(run(right=3))
    assert len(named) == 21
    assert "10 more" in named


def test_a_tree_that_has_become_empty_is_named_once(run, data):
    run()
    (data / "outputs/cpu/a.png").unlink()
    assert reasons(run(right=3)) == {"outputs/cpu": "it has no file, and had 1: is its disk mounted?"}
    run()


def test_a_missing_mount_is_named(run, tmp_path):
    (tmp_path / "nas").mkdir()
    assert "Nothing is mounted at" in run(mount=str(tmp_path / "nas"), right=1)["reason"]


def test_a_tree_that_the_containers_could_exchange_is_refused(program, data, tmp_path, monkeypatch):
    monkeypatch.undo()
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("iopaint_backup", LOADER))
    LOADER.exec_module(module)
    with pytest.raises(module.BackupError, match="which belongs to the containers' user"):
        module.view({"data": str(data), "user": os.stat(data).st_uid}, "models")


# --- models that can be fetched again ---------------------------------------------------------------------------------

COMMIT, OTHER = "1" * 40, "2" * 40
LAMA = {"name": "lama", "path": "torch/lama.pt", "checksum": f"md5:{hashlib.md5(b'models/torch/lama.pt').hexdigest()}"}  # noqa: S324
OWN = {"include": ["models"], "models": "own"}


def blob(text):
    """Return the name that a hub gives a small file."""
    return hashlib.sha1(b"blob %d\0%s" % (len(text), text.encode())).hexdigest()  # noqa: S324


def cached(models, name, commit=COMMIT, texts=None):
    """Put a repository into the hub's cache, as huggingface_hub lays it out; return its folder."""
    folder = models / "huggingface/hub" / f"models--{name.replace('/', '--')}"
    for path, text in (texts or {"unet/weights.safetensors": "heavy " * 99, "model_index.json": "{}"}).items():
        large = path.endswith(".safetensors")
        digest = hashlib.sha256(text.encode()).hexdigest() if large else blob(text)
        (folder / "blobs").mkdir(parents=True, exist_ok=True)
        (folder / "blobs" / digest).write_text(text)
        link = folder / "snapshots" / commit / path
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(f"{'../' * path.count('/')}../../blobs/{digest}")
    (folder / "refs").mkdir(exist_ok=True)
    (folder / "refs/main").write_text(commit)
    (folder / ".no_exist" / commit).mkdir(parents=True)
    (folder / ".no_exist" / commit / "added_tokens.json").touch()
    lock = folder.parent / ".locks" / folder.name / "etag.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    lock.touch()
    return folder


@pytest.fixture
def models(data, tmp_path):
    """Models from an address and from a hub, and what only this host has; the last deploy has declared the former."""
    (tmp_path / "models.json").write_text(json.dumps({"files": [LAMA], "repositories": ["a/b"], "gone": ["gone/model"]}))
    cached(data / "models", "a/b")
    for name in ("stable_diffusion/our [1].safetensors", "lora/x.safetensors", "torch/lama.pt.bak", "notes.txt"):
        (data / "models" / name).parent.mkdir(exist_ok=True)
        (data / "models" / name).write_text(f"own {name}")
    return data / "models"


def files_of(identity):
    """The files of a snapshot, links among them."""
    entries = [json.loads(line) for line in restic("ls", "--json", identity).splitlines()]
    return sorted(entry["path"] for entry in entries if entry.get("type") in ("file", "symlink"))


KEPT = ["/models/lora/x.safetensors", "/models/notes.txt", "/models/stable_diffusion/our [1].safetensors"]
KEPT += ["/models/torch/lama.pt.bak"]


def test_what_can_be_fetched_again_is_left_out_and_listed(run, models, tmp_path):
    result = run(**OWN)
    identity = result["snapshots"]["models"]
    assert files_of(identity) == ["/left-out.json", *KEPT]
    size = len("heavy " * 99) + 2
    left = [{**LAMA, "bytes": 20}, {"hub": "a/b", "revision": COMMIT, "bytes": size}]
    assert json.loads(restic("dump", identity, "/left-out.json")) == left == result["fetchable"]
    assert (result["ok"], result["models"], result["files"], result["unrecorded"]) == (True, "own", 4, False)
    assert snapshots()[0]["tags"] == ["iopaint", "models", result["run"], "own"]
    assert "models--a--b" not in restic("ls", identity)
    assert json.loads((tmp_path / "audit").read_text())["models"] == "own"


def test_all_models_by_default(run, models):
    result = run(include=["models"])
    assert (result["models"], result["fetchable"]) == ("all", [])
    assert len(files_of(result["snapshots"]["models"])) == len(KEPT) + 1 + 7
    assert "own" not in snapshots()[0]["tags"]


def test_no_file_is_left_out_on_suspicion(run, models, tmp_path):
    """A file with another content at a declared path, and everything where no deploy has said what it fetches."""
    (models / "torch/lama.pt").write_text("our own lama")
    result = run(**OWN)
    assert "/models/torch/lama.pt" in files_of(result["snapshots"]["models"])
    assert [entry["hub"] for entry in result["fetchable"]] == ["a/b"]
    (tmp_path / "models.json").unlink()
    result = run(**OWN)
    assert (result["ok"], result["models"], result["unrecorded"]) == (True, "all", True)
    assert len(files_of(result["snapshots"]["models"])) == len(KEPT) + 1 + 7


def written_through(folder):
    """Somebody copies weights of the same size over a link."""
    path = folder / "snapshots" / COMMIT / "unet/weights.safetensors"
    path.write_text("h" * path.stat().st_size)


def put_in_place_of_a_link(folder):
    path = folder / "snapshots" / COMMIT / "unet/weights.safetensors"
    path.unlink()
    path.write_text("fine-tuned")


@pytest.mark.parametrize(
    "spoil",
    [
        written_through,
        put_in_place_of_a_link,
        lambda folder: (folder / "snapshots" / COMMIT / "lora.safetensors").write_text("own"),
        lambda folder: (folder / "snapshots" / COMMIT / "lora.safetensors").symlink_to("/srv/lora.safetensors"),
        lambda folder: (folder / "blobs/lora.safetensors").write_text("own"),
        lambda folder: (folder / "lora.safetensors").write_text("own"),
        lambda folder: (folder / "refs/main").write_text("by hand"),
        lambda folder: (folder / "fetched").mkdir() or (folder / f"fetched/{COMMIT}.json").write_text("[]"),
        lambda folder: (folder / ".no_exist" / COMMIT / "x").write_text("own"),
        lambda folder: os.mkfifo(folder / "blobs" / ("3" * 40)),
        lambda folder: folder.rename(folder.with_name("models--gone--model")),
        lambda folder: folder.rename(folder.with_name("models--plain")),
    ],
)
def test_a_repository_with_anything_that_no_hub_gave_is_backed_up_whole(run, models, spoil):
    folder = models / "huggingface/hub/models--a--b"
    spoil(folder)
    fifo = any((models / "huggingface/hub").rglob("3" * 40))
    result = run(right=3 if fifo else 0, **OWN)
    assert [entry.get("hub") for entry in result["fetchable"]] == [None]
    assert len([path for path in files_of(result["snapshots"]["models"]) if "models--" in path]) >= 6


def test_a_repository_that_a_bundle_brought_has_no_links(run, models):
    """Its files are as they were recorded, or written to since."""
    folder = models / "huggingface/hub/models--a--b"
    shutil.rmtree(folder / "blobs")
    shutil.rmtree(folder / "snapshots")
    (folder / "snapshots" / COMMIT).mkdir(parents=True)
    file = folder / "snapshots" / COMMIT / "x.bin"
    file.write_text("1234")
    (folder / "fetched").mkdir()
    (folder / f"fetched/{COMMIT}.json").write_text(json.dumps({"asked": {}, "files": {"x.bin": 4}}))
    assert {"hub": "a/b", "revision": COMMIT, "bytes": 4} in run(**OWN)["fetchable"]
    file.write_text("5678")
    os.utime(file, ns=(1 << 62, 1 << 62))
    assert len(run(**OWN)["fetchable"]) == 1


def test_a_download_that_is_not_whole_is_left_out_and_not_waited_for(run, models):
    folder = models / "huggingface/hub/models--c--d/blobs"
    folder.mkdir(parents=True)
    with (folder / f"{'4' * 64}.incomplete").open("w") as stream:
        stream.write("half")
        stream.flush()
        result = run(wait=20, **OWN)
    assert {"hub": "c/d", "revision": None, "bytes": 0} in result["fetchable"]
    assert (result["busy"], result["duration_s"] < 15) == ([], True)


def test_declared_files_of_any_name_are_left_out_each_alone(run, models, tmp_path):
    checksum = f"sha256:{hashlib.sha256(b'declared').hexdigest()}"
    files = [{"name": "odd", "path": f"lora/{name}", "checksum": checksum} for name in ODD]
    for name in ODD:
        (models / "lora" / name).write_text("declared")
        (models / "lora" / f"{name}2").write_text("own")
    (models / "lora/bbb.png").write_text("no b*.png")
    (tmp_path / "models.json").write_text(json.dumps({"files": files, "repositories": [], "gone": []}))
    result = run(**OWN)
    assert len(result["fetchable"]) == len(ODD) + 1
    assert len([path for path in files_of(result["snapshots"]["models"]) if path.startswith("/models/lora/")]) == len(ODD) + 2


def test_checksums_are_computed_once(run, models, program, monkeypatch, tmp_path):
    run(**OWN)
    kept = json.loads((tmp_path / "sums").read_text())
    assert len(kept) == 3
    (tmp_path / "sums").write_text(json.dumps(dict.fromkeys(kept, "0")))
    assert run(**OWN)["fetchable"] == []
    (tmp_path / "sums").unlink()
    run("--dry-run", **OWN)
    assert not (tmp_path / "sums").exists()


def test_models_that_are_all_fetched_are_no_missing_disk(run, models):
    run(include=["models"])
    for name in KEPT:
        (models.parent / name[1:]).unlink()
    assert run(**OWN)["ok"]


def test_neither_kind_makes_the_other_be_forgotten(run, models):
    """All models once, then own ones on the same day: the last of each kind stays."""
    whole = run(include=["models"], maintain=True, check_parts=0)["snapshots"]["models"]
    results = [run(maintain=True, check_parts=0, **OWN) for _time in range(3)]
    assert [result["forgotten"] for result in results] == [0, 1, 1]
    assert {snapshot["short_id"] for snapshot in snapshots()} == {whole[:8], results[-1]["snapshots"]["models"][:8]}


# --- files that are written to ----------------------------------------------------------------------------------------


def test_a_file_that_is_open_for_writing_is_waited_for(run, data):
    half = (data / "outputs/cpu/half.png").open("w")
    half.write("one half, ")
    half.flush()

    def finish():
        time.sleep(0.7)
        half.write("and the other")
        half.close()

    thread = threading.Thread(target=finish)
    thread.start()
    result = run(wait=20)
    thread.join()
    assert restic("dump", result["snapshots"]["outputs/cpu"], "/outputs/cpu/half.png") == "one half, and the other"
    assert result["busy"] == []


def test_a_file_that_is_written_to_for_too_long_is_left_out_and_named(run, data):
    with (data / "outputs/cpu/long [1].png").open("w") as stream:
        stream.write("half")
        stream.flush()
        result = run(wait=0)
    assert result["busy"] == [
        {"path": "outputs/cpu/long [1].png", "reason": "it was still written to after 0 s (iopaint_backup_wait)"}
    ]
    assert result["ok"]
    assert "long" not in restic("ls", result["snapshots"]["outputs/cpu"])


@pytest.fixture
def written(program, data, monkeypatch):
    """Write to a.png and make a new picture just after restic has read a tree, as often as asked."""

    def arrange(times):
        real, left = program.snapshot, list(range(times))

        def snapshot(config, tree, *others):
            made = real(config, tree, *others)
            if tree == "outputs/cpu" and left:
                (data / "outputs/cpu/a.png").write_text(f"again {left.pop()}")
                (data / f"outputs/cpu/new-{len(left)}.png").write_text("new")
            return made

        monkeypatch.setattr(program, "snapshot", snapshot)

    return arrange


def test_a_file_that_changed_meanwhile_is_read_again(run, written):
    written(2)
    result = run(wait=60)
    assert restic("dump", result["snapshots"]["outputs/cpu"], "/outputs/cpu/a.png") == "again 0"
    assert len(snapshots()) == 1  # those with the other content are gone
    assert (result["ok"], result["counts"]["outputs/cpu"]) == (True, 3)


def test_one_that_never_rests_is_taken_out_of_the_snapshot(run, written, program, monkeypatch):
    """By restic's rewrite, from 0.15 on."""
    written(100)
    asked = []
    monkeypatch.setattr(program, "without", lambda made, torn: asked.append((made, sorted(torn))) or made)
    result = run(wait=0)
    ((made, torn),) = asked
    assert [os.path.basename(path) for path in torn] == [b"a.png", b"new-99.png"]
    assert [entry["path"] for entry in result["busy"]] == ["outputs/cpu/a.png"]
    assert result["snapshots"]["outputs/cpu"] == made


@pytest.mark.parametrize(
    ("answer", "made"),
    [
        ("echo 'saved new snapshot 12345678'", "12345678"),
        ("echo 'modified 0 snapshots'", "old"),
        ('echo \'unknown command "rewrite" for "restic"\' >&2; exit 1', None),
    ],
)
def test_what_rewrite_says(program, tmp_path, monkeypatch, answer, made):
    (tmp_path / "stand-in").write_text(f"#!/bin/sh\n{answer}\n")
    (tmp_path / "stand-in").chmod(0o755)
    monkeypatch.setattr(program, "RESTIC", [str(tmp_path / "stand-in")])
    assert program.without("old", {os.fsencode(program.VIEW) + b"/outputs/cpu/a.png"}) == made
    assert (tmp_path / "run" / "excludes").read_text() == "/outputs/cpu/a.png\n"


def test_one_that_an_older_restic_cannot_take_out_is_named(run, written, program, monkeypatch):
    written(100)
    monkeypatch.setattr(program, "without", lambda _made, _torn: None)
    assert "may be half-written in this snapshot" in reasons(run(wait=0, right=3))["outputs/cpu/a.png"]


# --- what goes wrong --------------------------------------------------------------------------------------------------


@pytest.fixture
def stand_in(program, tmp_path, monkeypatch):
    """Put a shell script in restic's place; real: the command that goes on with the real one."""

    def arrange(text):
        (tmp_path / "stand-in").write_text(f'#!/bin/sh\n{text}\nexec restic "$@"\n')
        (tmp_path / "stand-in").chmod(0o755)
        monkeypatch.setattr(program, "RESTIC", [str(tmp_path / "stand-in")])

    return arrange


def test_another_host_s_lock_is_waited_for(run, stand_in, tmp_path):
    stand_in(
        f'if [ "$1" = forget ] && ! [ -e {tmp_path}/once ]; then touch {tmp_path}/once;'
        " echo 'repository is already locked exclusively by PID 1 on two' >&2; exit 1; fi"
    )
    assert run(maintain=True, check_parts=0)["ok"]
    assert (tmp_path / "once").exists()


def test_one_that_stays_is_named(run, stand_in, program, monkeypatch):
    monkeypatch.setattr(program, "LOCKED", 0)
    stand_in("if [ $1 = backup ]; then echo 'unable to create lock: already locked by PID 1 on two' >&2; exit 11; fi")
    assert "outputs/cpu: restic backup ended with status 11: unable to create lock" in run(right=1)["reason"]


def test_a_restic_without_progress_is_ended(run, stand_in, program, monkeypatch):
    """As one that opens a FIFO, which took a file's place in that moment."""
    monkeypatch.setattr(program, "IDLE", 1)
    status = '{"message_type":"status","files_done":1,"current_files":["/outputs/cpu/x"]}'
    stand_in(f"if [ $1 = backup ]; then while :; do echo '{status}'; sleep 0.2; done; fi")
    assert "restic made no progress for 0 minutes" in run(include=["models"], right=1)["reason"]


def test_one_bad_tree_does_not_keep_the_others_from_the_repository(run, stand_in):
    stand_in('for last; do :; done; if [ "$1 $last" = "backup models" ]; then echo broken >&2; exit 1; fi')
    result = run(right=1, include=["models", "outputs"])
    assert result["reason"] == "models: restic backup ended with status 1: broken"
    assert list(result["snapshots"]) == ["outputs/cpu"]


def test_an_unreadable_file_is_named_and_a_vanished_one_is_not(run, stand_in):
    error = '{"message_type":"error","error":{"message":"input/output error"},"item":"models/torch/lama.pt"}'
    gone = '{"message_type":"error","error":{},"item":"models/gone"}'
    stand_in(f"if [ $1 = backup ]; then restic \"$@\"; echo '{error}' >&2; echo '{gone}' >&2; exit 3; fi")
    assert reasons(run(include=["models"], right=3)) == {"models/torch/lama.pt": "it could not be read: input/output error"}


def test_a_wrong_key_and_no_repository_are_named(run, monkeypatch, tmp_path):
    monkeypatch.setenv("RESTIC_PASSWORD", "wrong")
    assert "wrong password" in run(right=1)["reason"]
    monkeypatch.setenv("RESTIC_REPOSITORY", str(tmp_path / "none"))
    result = run(right=1)
    assert "Is there a repository at the following location" in result["reason"]
    assert json.loads((tmp_path / "last").read_text())["ok"] is False
    assert json.loads((tmp_path / "audit").read_text().splitlines()[-1])["action"] == "backup failed"


def test_a_damaged_repository_is_named(run, tmp_path, data):
    (data / "outputs/cpu/large").write_bytes(os.urandom(1 << 20))
    run()
    pack = max((tmp_path / "repository/data").rglob("*"), key=lambda path: path.stat().st_size if path.is_file() else 0)
    pack.chmod(0o600)
    with pack.open("r+b") as stream:
        stream.seek(1 << 19)
        stream.write(b"damage")
    assert "restic check ended with status 1" in run(maintain=True, check_parts=1, right=1)["reason"]


def test_two_at_once_are_refused(run, program):
    with open(f"{program.RUN}/lock", "w") as lock:
        program.fcntl.flock(lock, program.fcntl.LOCK_EX)
        assert "An earlier backup of this host is still at work" in run(right=1)["reason"]
    run()


def test_a_scheduled_one_waits_while_a_play_holds_the_lock_but_not_for_ever(run, tmp_path, program, monkeypatch):
    (tmp_path / "lock").touch()
    waited = []
    monkeypatch.setattr(program.time, "sleep", lambda _seconds: waited.append(1) or (tmp_path / "lock").unlink())
    assert run("--scheduled")["scheduled"]
    assert waited == [1]
    (tmp_path / "lock").touch()
    monkeypatch.setattr(program, "HOST_LOCKED", 0)
    assert run("--scheduled")["ok"]


def test_what_restic_says_is_shown_without_passwords_and_escapes(program):
    assert program.said(b"Fatal: rest:https://ann:secret@host/\x1b[31m\n  no") == "Fatal: rest:https://***@host/\ufffd[31m no"
