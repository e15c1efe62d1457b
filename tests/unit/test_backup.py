# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Backups by the real rsync: whole, cheap, kept as long as they are wanted, and none where something went wrong."""

import json
import os
import subprocess
import sys
import threading
import time

import pytest
from ansible_collections.iopaint.fleet.plugins.module_utils import backups, manifest
from ansible_collections.iopaint.fleet.plugins.modules import backup

ANN = {"operator": "ann", "controller": "desk"}
ALL = ["models", "outputs/cpu", "outputs/gpu"]


@pytest.fixture
def data(tmp_path):
    """Models and the outputs of two instances."""
    for name, text in {
        "models/torch/lama.pt": "weights" * 1000,
        "outputs/cpu/a.png": "a",
        "outputs/cpu/über [1]*.png": "u",
        "outputs/gpu/b.png": "b",
        "outputs/.restore-cpu/x": "of a restore",
    }.items():
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "data" / "models" / "link.pt").symlink_to("torch/lama.pt")
    (tmp_path / "data" / "outputs" / "gpu" / "empty").mkdir()
    return tmp_path / "data"


@pytest.fixture
def target(tmp_path):
    return tmp_path / "a target"


@pytest.fixture
def run(run_module, tmp_path, data, target):
    (tmp_path / "remote-tmp").mkdir()

    def call(**options):
        given = {"data": str(data), "target": str(target), "host": "one", "owner": ANN, "audit": str(tmp_path / "audit.log")}
        return run_module(backup, **{**given, **options})

    return call


@pytest.fixture
def clock(monkeypatch):
    """A second goes by with each backup, without waiting for it."""
    seconds = iter(range(1_800_000_000, 1_800_009_999))
    monkeypatch.setattr(backups.time, "gmtime", lambda _seconds=None, real=time.gmtime: real(next(seconds)))


def document(target, name):
    return manifest.load((target / "one" / name / "manifest.json").read_text())


def faults(target, result):
    """What of a backup is not what its manifest says."""
    made, place = document(target, result["id"]), target / "one" / result["id"]
    return [fault for tree in made["trees"] for fault in manifest.faults(place / tree, manifest.of_tree(made, tree))]


def audit_lines(tmp_path):
    return [json.loads(line) for line in (tmp_path / "audit.log").read_text().splitlines()]


def test_a_backup_has_everything_and_a_manifest_that_proves_it(run, data, target, tmp_path):
    result = run()
    assert result["changed"]
    assert (result["trees"], result["files"], result["left_out"]) == (ALL, 4, [])
    place = target / "one" / result["id"]
    assert sorted(os.listdir(place)) == ["manifest.json", "models", "outputs"]
    assert (place / "models" / "link.pt").readlink().name == "lama.pt"
    assert (place / "outputs" / "gpu" / "empty").is_dir()
    assert not (place / "outputs" / ".restore-cpu").exists()
    made = document(target, result["id"])
    assert (made["operator"], made["host"]) == ("ann", "one")
    assert faults(target, result) == []
    (entry,) = [each for each in made["entries"] if each["path"] == "models/torch/lama.pt"]
    status = (data / "models/torch/lama.pt").stat()
    assert (entry["size"], entry["mode"], entry["mtime_ns"]) == (7000, f"{status.st_mode & 0o7777:04o}", status.st_mtime_ns)
    assert entry["sha256"] == manifest.sha256(data / "models/torch/lama.pt")
    (line,) = audit_lines(tmp_path)
    assert (line["action"], line["operator"], line["id"], line["files"]) == ("backup", "ann", result["id"], 4)
    assert (target.stat().st_mode & 0o777) == 0o700


def test_a_second_backup_links_to_the_first_and_reads_no_unchanged_file(run, data, target, clock, monkeypatch):
    first = run()
    (data / "outputs/cpu/c.png").write_text("new")
    asked = []
    monkeypatch.setattr(manifest, "sha256", lambda path, real=manifest.sha256: asked.append(os.path.basename(path)) or real(path))
    second = run()
    assert asked == ["c.png"]
    assert (second["files"], second["copied"]) == (5, 3)
    twins = [target / "one" / each["id"] / "models/torch/lama.pt" for each in (first, second)]
    assert os.path.samefile(*twins)
    assert faults(target, second) == []


def test_a_change_of_the_same_size_is_copied(run, data, target, clock):
    first = run()
    (data / "outputs/cpu/a.png").write_text("A")
    second = run()
    assert [(target / "one" / each["id"] / "outputs/cpu/a.png").read_text() for each in (first, second)] == ["a", "A"]


def test_what_is_asked_for(run, data):
    assert run(include=["models"])["trees"] == ["models"]
    assert run(include=["outputs"], instances=["gpu"])["trees"] == ["outputs/gpu"]
    result = run(failed=True, instances=["none"])
    assert "has no outputs/none. There: models, outputs/cpu, outputs/gpu." in result["msg"]
    assert "No backup was made." in result["msg"]


def test_a_backup_goes_once_all_that_it_has_is_in_enough_newer_ones(run, clock, target):
    models = run(include=["models"])
    outputs = [run(include=["outputs"], keep=2) for _each in range(3)]
    assert [each["removed"] for each in outputs] == [[], [], [outputs[0]["id"]]]
    assert sorted(os.listdir(target / "one")) == [models["id"], *[each["id"] for each in outputs[1:]]]
    assert run(keep=1)["removed"] == [models["id"], *[each["id"] for each in outputs[1:]]]


def test_a_dry_run_says_what_it_would_do(run, data, target, clock):
    assert run(check=True)["files"] == 4
    assert not target.exists()
    first = run()
    (data / "outputs/cpu/a.png").write_text("changed")
    (data / "outputs/gpu/b.png").unlink()
    result = run(check=True, diff=True, keep=1)
    assert (result["changed"], result["removed"], result["copied"]) == (True, [first["id"]], 7)
    assert "outputs/cpu/a.png 1 bytes" in result["diff"]["before"]
    assert "outputs/cpu/a.png 7 bytes" in result["diff"]["after"]
    assert "b.png" in result["diff"]["before"]
    assert "b.png" not in result["diff"]["after"]
    assert os.listdir(target / "one") == [first["id"]]


def test_a_dry_run_where_rsync_is_not_there(run, no_programs):
    assert run(check=True)["changed"]


def test_a_file_that_is_open_for_writing_is_waited_for(run, data, target):
    half = (data / "outputs/cpu/half.png").open("w")
    half.write("one half, ")
    half.flush()

    def finish():
        time.sleep(0.7)
        half.write("and the other")
        half.close()

    thread = threading.Thread(target=finish)
    thread.start()
    result = run()
    thread.join()
    assert result["read_again"] == ["outputs/cpu/half.png"]
    assert (target / "one" / result["id"] / "outputs/cpu/half.png").read_text() == "one half, and the other"
    assert faults(target, result) == []


def test_a_file_that_is_written_to_for_too_long_is_left_out_and_named(run, data, target):
    with (data / "outputs/cpu/long [1].png").open("w") as stream:
        stream.write("half")
        stream.flush()
        result = run(wait=0)
    assert [each["path"] for each in result["left_out"]] == ["outputs/cpu/long [1].png"]
    assert "iopaint_backup_wait" in result["left_out"][0]["reason"]
    assert "outputs/cpu/long [1].png is not in the backup" in str(result["warnings"])
    assert not (target / "one" / result["id"] / "outputs/cpu/long [1].png").exists()
    assert (target / "one" / result["id"] / "outputs/cpu/über [1]*.png").exists()


def test_a_file_that_changes_while_it_is_copied_is_read_again(run, data, target, monkeypatch):
    """Written and closed between its sum and its copy."""
    real, changes = backups.Store.send, iter(["second", None])

    def send(self, *arguments):
        text = next(changes)
        if text:
            (data / "outputs/cpu/a.png").write_text(text)
            (data / "outputs/gpu/b.png").unlink()
        real(self, *arguments)

    monkeypatch.setattr(backups.Store, "send", send)
    result = run()
    place = target / "one" / result["id"]
    assert result["read_again"] == ["outputs/cpu/a.png"]
    assert (place / "outputs/cpu/a.png").read_text() == "second"
    assert not (place / "outputs/gpu/b.png").exists()
    assert faults(target, result) == []


def test_a_file_that_changed_after_its_copy_is_never_taken_as_it_was(run, data, target, monkeypatch):
    """Copied, then removed: no trace of it is left."""
    real = backups.Store.send
    monkeypatch.setattr(
        backups.Store, "send", lambda self, *a: real(self, *a) or (data / "outputs/gpu/b.png").unlink(missing_ok=True)
    )
    result = run()
    assert "outputs/gpu/b.png" not in [each["path"] for each in document(target, result["id"])["entries"]]
    assert not (target / "one" / result["id"] / "outputs/gpu/b.png").exists()


def test_one_that_was_killed_is_no_backup_and_the_next_one_removes_it(run, data, target, monkeypatch):
    child = os.fork()
    if child == 0:  # killed once the files are copied and before the manifest is written
        monkeypatch.setattr(manifest, "dump", lambda _document: os.kill(os.getpid(), 9))
        run()
    os.waitpid(child, 0)
    (name,) = os.listdir(target / "one")
    assert sorted(os.listdir(target / "one" / name)) == ["models", "outputs", "unfinished"]
    result = run()
    assert result["cleaned"] == [name]
    assert result["id"] > name
    assert os.listdir(target / "one") == [result["id"]]


def test_one_that_fails_leaves_nothing(run, target, monkeypatch, tmp_path):
    def send(self, *_arguments):
        raise backups.BackupError(self.explain(11, "rsync: [receiver] write failed: No space left on device (28)"))

    monkeypatch.setattr(backups.Store, "send", send)
    message = run(failed=True)["msg"]
    assert message.startswith(f"No backup was made. There is no room left in {target} (iopaint_backup_target).")
    assert os.listdir(target / "one") == []
    assert audit_lines(tmp_path)[-1]["action"] == "backup failed"


def test_one_whose_control_node_was_lost_is_not_disturbed(run, data, target):
    with backups.alone(str(data)):
        assert "of an earlier play is still at work" in run(failed=True)["msg"]
    assert not target.exists()
    assert run()["files"] == 4


def test_the_room_is_looked_at_first(run, target, monkeypatch):
    monkeypatch.setattr(backups, "free_above", lambda _path: 5_000_000)
    message = run(failed=True)["msg"]
    assert "takes 0.02 GB in" in message
    assert "0.01 GB are free there" in message
    assert not target.exists()


def test_a_backup_without_manifest_is_named_and_left(run, target, clock):
    first = run()
    (target / "one" / first["id"] / "manifest.json").unlink()
    second = run(keep=1)
    assert f"{first['id']} has no manifest.json" in str(second["warnings"])
    assert sorted(os.listdir(target / "one")) == [first["id"], second["id"]]


def test_a_damaged_manifest_is_not_built_upon(run, target, clock):
    first = run()
    path = target / "one" / first["id"] / "manifest.json"
    path.write_text(path.read_text().replace('"size": 1,', '"size": 2,', 1))
    second = run()
    assert "is damaged: its manifest.json has been changed" in str(second["warnings"])
    twins = [target / "one" / each["id"] / "models/torch/lama.pt" for each in (first, second)]
    assert not os.path.samefile(*twins)


def test_a_clock_that_jumps_back_does_not_make_the_new_backup_the_older_one(run, monkeypatch):
    real = time.gmtime
    monkeypatch.setattr(backups.time, "gmtime", lambda seconds=None: real(1_800_000_000 if seconds is None else seconds))
    assert [run()["id"] for _each in range(3)] == ["20270115T080000Z", "20270115T080001Z", "20270115T080002Z"]


def test_a_target_that_has_to_be_mounted(run, target):
    message = run(failed=True, target="/a-folder-of-the-root/x", mounted=True)["msg"]
    assert "Nothing is mounted at /a-folder-of-the-root/x" in message
    assert not os.path.exists("/a-folder-of-the-root")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os.path, "ismount", lambda path: path == str(target))
        target.mkdir()
        run(mounted=True)


@pytest.mark.parametrize("wrong", ["backups", "http://host/x", ""])
def test_a_target_that_is_none(run, wrong):
    message = run(failed=True, target=wrong)["msg"]
    assert f"iopaint_backup_target is '{wrong}'. Accepted: a folder" in message


@pytest.mark.parametrize(
    ("target", "way"),
    [("/mnt/x:y", "folder"), ("ann@nas:/x", "ssh"), ("nas:x", "ssh"), ("rsync://nas/m", "daemon"), ("ann@nas::m/x", "daemon")],
)
def test_ways(target, way):
    assert backups.way_of(target) == way


def test_by_ssh(run, target, tmp_path, clock):
    """A stand-in for ssh runs on this machine what it is asked to run on another one."""
    ssh = tmp_path / "ssh"
    ssh.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n[ "$1" = -l ] && shift 2\nshift\nexec sh -c "$*"\n')
    ssh.chmod(0o755)
    options = {"target": f"ann@nas:{target}", "shell": str(ssh)}
    first = run(**options, keep=1)
    second = run(**options, keep=1)
    assert second["removed"] == [first["id"]]
    assert os.listdir(target / "one") == [second["id"]]
    assert faults(target, second) == []
    assert "df -Pk" in (tmp_path / "asked").read_text()
    ssh.write_text('#!/bin/sh\necho "Permission denied (publickey)." >&2\nexit 255\n')
    message = run(**options, failed=True)["msg"]
    assert "could not be reached" in message
    assert "iopaint_backup_ssh" in message
    assert "Permission denied (publickey)." in message


def test_by_a_daemon(run, target, tmp_path, monkeypatch, clock):
    """Rsync's own daemon, at the other end of a pipe."""
    target.mkdir()
    (tmp_path / "secrets").write_text("ann:a word\n")
    (tmp_path / "secrets").chmod(0o600)
    (tmp_path / "rsyncd.conf").write_text(
        f"use chroot = false\nlog file = {tmp_path}/log\n[m]\npath = {target}\nread only = false\nuid = {os.getuid()}\n"
        f"gid = {os.getgid()}\nauth users = ann\nsecrets file = {tmp_path}/secrets\n"
    )
    monkeypatch.setenv("RSYNC_CONNECT_PROG", f"rsync --config={tmp_path}/rsyncd.conf --daemon")
    options = {"target": "rsync://ann@nas/m", "password": "a word"}
    assert run(failed=True, **{**options, "password": "x"})["msg"].count("iopaint_backup_password") == 1
    first = run(**options, keep=1)
    second = run(**options, keep=1)
    assert os.listdir(target / "one") == [second["id"]]
    assert second["removed"] == [first["id"]]
    assert (target / "one" / second["id"] / "models/torch/lama.pt").read_text() == "weights" * 1000


# --- the manifest ----------------------------------------------------------------------------------------------------


def entries(*paths, **types):
    return [{"path": path, "type": types.get(path.replace("/", "_"), "file"), "size": 0} for path in paths]


@pytest.mark.parametrize(
    "inside",
    [
        entries("/etc/shadow"),
        entries("models", "models/../../x", models="folder"),
        entries("models", "models/a", "models/a/b", models="folder", models_a="link"),
        entries("models", "models/a", "models/a", models="folder"),
        entries("other"),
    ],
)
def test_a_manifest_that_leads_elsewhere_is_refused(inside):
    text = manifest.dump({"trees": ["models"], "entries": inside})
    with pytest.raises(manifest.DamagedError, match="not below its trees"):
        manifest.load(text)


@pytest.mark.parametrize("tree", ["outputs/..", "outputs", "etc", "outputs/a/b", "/models"])
def test_a_tree_that_is_none_is_refused(tree):
    with pytest.raises(manifest.DamagedError):
        manifest.load(manifest.dump({"trees": [tree], "entries": []}))


def test_names_that_are_no_text_survive(tmp_path):
    (tmp_path / "models").mkdir()
    name = b"\xff\xfe.png"
    (tmp_path / "models" / os.fsdecode(name)).write_text("x")
    found, _odd = manifest.scan(str(tmp_path), "models")
    again = manifest.load(manifest.dump({"trees": ["models"], "entries": list(found.values())}))
    assert os.fsencode(again["entries"][1]["path"]) == b"models/" + name


def test_odd_things_are_named(tmp_path):
    (tmp_path / "models").mkdir()
    os.mkfifo(tmp_path / "models" / "pipe")
    assert manifest.scan(str(tmp_path), "models")[1] == ["models/pipe"]


def test_who_writes_is_seen_across_processes(tmp_path):
    path = tmp_path / "x"
    command = [sys.executable, "-c", f"f = open({str(path)!r}, 'w'); print('open', flush=True); input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        writer.stdout.readline()
        assert manifest.signature(path)[:2] in manifest.open_for_writing()
        with path.open():
            writer.communicate("\n")
            assert manifest.signature(path)[:2] not in manifest.open_for_writing()
