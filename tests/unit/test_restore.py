# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Restores by the real rsync: checked first, exchanged by renames, put back, and repaired after a kill at any point."""

import json
import os
import shutil
import time
from pathlib import Path

import pytest
from ansible_collections.iopaint.fleet.plugins.module_utils import backups, exchange, manifest
from ansible_collections.iopaint.fleet.plugins.modules import backup, restore

ANN = {"operator": "ann", "controller": "desk"}
HOUR = 3600 * 10**9


@pytest.fixture
def data(tmp_path):
    for name, text in {
        "models/torch/lama.pt": "weights",
        "outputs/cpu/a.png": "a",
        "outputs/cpu/b.png": "b",
        "outputs/gpu/g.png": "g",
    }.items():
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "data" / "models" / "link.pt").symlink_to("torch/lama.pt")
    return tmp_path / "data"


@pytest.fixture
def target(tmp_path):
    return tmp_path / "target"


@pytest.fixture
def instances(tmp_path):
    """Two instances with a release each."""
    for name in ("cpu", "gpu"):
        folder = tmp_path / "instances" / name / "releases" / "0001-v1"
        folder.mkdir(parents=True)
        record = {"id": "0001-v1", "outcome": "current", "variant": name, "project": f"iopaint-{name}", "image": "iopaint:v1"}
        (folder / "release.json").write_text(json.dumps({**record, "url": "http://127.0.0.1:8080"}))
        (tmp_path / "instances" / name / "current").symlink_to("releases/0001-v1")
    return tmp_path / "instances"


@pytest.fixture
def run(run_module, tmp_path, data, target, instances):
    (tmp_path / "remote-tmp").mkdir()
    common = {"data": str(data), "target": str(target), "host": "one", "owner": ANN, "audit": str(tmp_path / "audit.log")}

    def call(state, **options):
        if state == "backup":
            return run_module(backup, **{**common, **options})
        return run_module(restore, **{**common, "state": state, "dir": str(instances), "user": os.getuid(), **options})

    return call


@pytest.fixture
def made(run):
    """A backup."""
    return run("backup")


@pytest.fixture
def through(run):
    """All steps of a restore."""

    def call(**options):
        return [run(state, **options) for state in ("staged", "swapped", "kept")]

    return call


def content(folder):
    """Every file below a folder: path -> text; what begins with a dot is left out."""
    found = {}
    for above, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name[0] != "."]
        paths = [Path(above, name) for name in files if name[0] != "."]
        found.update({str(path.relative_to(folder)): path.read_text() for path in paths})
    return found


def beside(data):
    """What lies beside the trees, but for a text that a killed play was writing."""
    names = sorted(name for folder in (data, data / "outputs") for name in os.listdir(folder) if name[0] == ".")
    return [name for name in names if not name.startswith(".iopaint-")]


def later(path, text):
    """Write to a file an hour from now."""
    path.write_text(text)
    os.utime(path, ns=(0, time.time_ns() + HOUR))


def names(entries):
    return [entry["name"] for entry in entries]


def test_what_is_lost_is_back(run, through, made, data, tmp_path):
    before = content(data)
    shutil.rmtree(data)
    staged, swapped, kept = through()
    assert (staged["changed"], swapped["changed"], kept["changed"]) == (True, True, True)
    assert content(data) == before
    assert (data / "models" / "link.pt").readlink().name == "lama.pt"
    assert names(staged["instances"]) == names(staged["stop"]) == ["cpu", "gpu"]
    assert (staged["files"], kept["former"], beside(data)) == (4, [], [])
    line = json.loads((tmp_path / "audit.log").read_text().splitlines()[-1])
    assert (line["action"], line["operator"], line["id"]) == ("restored", "ann", made["id"])
    assert line["trees"]["outputs/gpu"] == {"new": 2}


def test_the_same_again_changes_and_stops_nothing(through, made, data):
    shutil.rmtree(data / "models")
    through()
    numbers = {path: os.lstat(data / path).st_ino for path in [*content(data), "models", "outputs/cpu"]}
    again = through()
    assert [each["changed"] for each in again] == [False] * 3
    assert [each["stop"] for each in again] == [[]] * 3
    assert {path: os.lstat(data / path).st_ino for path in numbers} == numbers
    assert beside(data) == []


def test_only_what_differs_is_stopped_and_exchanged(through, made, data):
    number = os.lstat(data / "models").st_ino
    (data / "outputs/cpu/a.png").unlink()
    staged, _swapped, kept = through()
    assert names(staged["stop"]) == ["cpu"]
    assert staged["trees"] == {"models": {}, "outputs/cpu": {"new": 1}, "outputs/gpu": {}}
    assert os.lstat(data / "models").st_ino == number
    assert (data / "outputs/cpu/a.png").read_text() == "a"
    assert kept["former"] == []


def test_outputs_that_are_newer_stay_and_so_do_those_that_the_backup_does_not_have(run, through, made, data):
    later(data / "outputs/cpu/a.png", "a, worked on")
    later(data / "outputs/cpu/c.png", "new")
    (data / "outputs/cpu/b.png").unlink()
    (data / "outputs/cpu/folder").mkdir()
    later(data / "outputs/cpu/folder/d.png", "d")
    staged, _swapped, kept = through()
    assert staged["trees"]["outputs/cpu"] == {"new": 1, "newer and left": 1}
    assert content(data / "outputs/cpu") == {"a.png": "a, worked on", "b.png": "b", "c.png": "new", "folder/d.png": "d"}
    assert kept["former"] == []
    assert run("staged")["changed"] is False


def test_with_delete_the_data_is_just_what_the_backup_has(through, made, data):
    later(data / "outputs/cpu/a.png", "a, worked on")
    later(data / "outputs/cpu/c.png", "new")
    staged, _swapped, kept = through(delete=True)
    assert staged["trees"]["outputs/cpu"] == {"changed": 1, "removed": 1}
    assert content(data / "outputs/cpu") == {"a.png": "a", "b.png": "b"}
    (former,) = kept["former"]
    assert content(former) == {"a.png": "a, worked on", "c.png": "new"}
    assert [each["changed"] for each in through(delete=True)] == [False] * 3


def test_a_model_is_as_the_backup_has_it_however_new_and_the_former_one_stays_until_told(through, made, data):
    later(data / "models/torch/lama.pt", "damaged")
    later(data / "models/mine.pt", "mine")
    _staged, _swapped, kept = through()
    assert content(data / "models") == {"torch/lama.pt": "weights", "link.pt": "weights", "mine.pt": "mine"}
    (former,) = kept["former"]
    assert content(former) == {"torch/lama.pt": "damaged"}
    through(keep_former=False)
    assert beside(data) == []


def test_what_is_unchanged_is_linked_not_copied(run, made, data):
    (data / "outputs/cpu/b.png").unlink()
    run("staged")
    assert os.path.samefile(data / "outputs/.restore-cpu/a.png", data / "outputs/cpu/a.png")


def test_modes_are_those_of_the_backup_and_no_live_file_is_touched_before_the_exchange(run, through, data, target):
    (data / "outputs/cpu/a.png").chmod(0o600)
    made = run("backup")
    (target / "one" / made["id"] / "outputs/cpu/a.png").chmod(0o644)  # a target that keeps no modes
    (data / "outputs/cpu/a.png").chmod(0o644)
    staged = run("staged")
    assert staged["trees"]["outputs/cpu"] == {"changed": 1}
    assert (data / "outputs/cpu/a.png").stat().st_mode & 0o777 == 0o644
    through()
    assert (data / "outputs/cpu/a.png").stat().st_mode & 0o777 == 0o600
    assert run("staged")["changed"] is False


def test_a_mode_can_make_nobody_root(run, through, data):
    (data / "outputs/cpu/a.png").chmod(0o4755)
    run("backup")
    (data / "outputs/cpu/a.png").unlink()
    through()
    assert (data / "outputs/cpu/a.png").stat().st_mode & 0o7777 == 0o755


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (
            lambda place: (place / "models/torch/lama.pt").write_text("Weights"),
            "models/torch/lama.pt has another content (sha256",
        ),
        (lambda place: (place / "outputs/cpu/a.png").unlink(), "outputs/cpu/a.png is missing"),
        (lambda place: (place / "outputs/cpu/a.png").write_text(""), "outputs/cpu/a.png has 0 bytes and had 1"),
        (lambda place: shutil.rmtree(place / "outputs/gpu"), "has no outputs/gpu"),
        (lambda place: (place / "manifest.json").write_text("{"), "its manifest.json can't be read"),
        (
            lambda place: (place / "manifest.json").write_text((place / "manifest.json").read_text().replace("0755", "0777", 1)),
            "its manifest.json has been changed",
        ),
        (lambda place: (place / "manifest.json").unlink(), "is damaged: it has no manifest.json"),
    ],
)
def test_a_damaged_backup_is_named_and_refused(run, made, data, target, spoil, sentence, tmp_path):
    place, before = target / "one" / made["id"], content(data)
    status = (place / "models/torch/lama.pt").stat()
    spoil(place)
    if (place / "models/torch/lama.pt").exists():  # not even its time tells
        os.utime(place / "models/torch/lama.pt", ns=(status.st_atime_ns, status.st_mtime_ns))
    instances = ["cpu", "gpu"] if "gpu" in sentence else []
    message = run("staged", failed=True, instances=instances, **{"from": made["id"]})["msg"]
    assert message.startswith("Nothing was restored. ")
    assert sentence in message
    assert made["id"] in message
    assert (content(data), beside(data)) == (before, [])
    assert json.loads((tmp_path / "audit.log").read_text().splitlines()[-1])["action"] == "restore refused"


def test_an_unknown_backup_is_answered_with_what_there_is(run, made, target):
    (target / "one" / "20200101T000000Z" / "models").mkdir(parents=True)
    (target / "one" / "20200101T000000Z" / "unfinished").touch()
    (target / "one" / "20200102T000000Z" / "models").mkdir(parents=True)
    message = run("staged", failed=True, **{"from": "yesterday"})["msg"]
    there = f"in {target}/one. There:\n  {made['id']}: models, outputs/cpu, outputs/gpu\n"
    assert f"There is no backup yesterday (iopaint_restore_from) {there}" in message
    assert "\n  20200102T000000Z: models (damaged: no manifest.json)\n  20200101T000000Z: models (unfinished)" in message
    assert "was not finished" in run("staged", failed=True, **{"from": "20200101T000000Z"})["msg"]
    assert f"Hosts that have backups in {target} (iopaint_restore_host): one." in run("staged", failed=True, host="two")["msg"]


def test_the_newest_is_the_newest_that_has_what_is_asked_for(run, made, data, monkeypatch):
    monkeypatch.setattr(backups.time, "gmtime", lambda _seconds=None, real=time.gmtime: real(2_000_000_000))
    newer = run("backup", include=["outputs"], instances=["cpu"])
    assert run("staged")["id"] == made["id"]
    assert run("staged", include=["outputs"], instances=["cpu"])["id"] == newer["id"]
    assert run("staged", include=["outputs"], instances=["gpu"])["id"] == made["id"]
    assert "has no models. It has outputs/cpu." in run("staged", failed=True, **{"from": newer["id"]})["msg"]
    assert "There is no backup of models and outputs and none" in run("staged", failed=True, instances=["none"])["msg"]


def test_a_dry_run_compares_and_leaves_nothing(run, made, data, tmp_path):
    (data / "outputs/cpu/a.png").unlink()
    later(data / "outputs/cpu/b.png", "newer")
    before = content(data)
    result = run("staged", check=True, diff=True)
    assert (result["changed"], names(result["stop"])) == (True, ["cpu"])
    assert result["diff"]["after"] == "outputs/cpu/a.png (new)\noutputs/cpu/b.png (newer and left)\n"
    assert (content(data), beside(data)) == (before, [])
    shutil.rmtree(data)
    assert run("staged", check=True)["changed"]
    assert not data.exists()
    assert run("swapped", check=True)["changed"] is False


def test_the_room_is_looked_at_first(run, made, data, monkeypatch):
    (data / "models/torch/lama.pt").unlink()
    monkeypatch.setattr(backups, "free_above", lambda _path: 5_000_000)
    message = run("staged", failed=True)["msg"]
    assert f"The restore takes 0.02 GB in {data} (iopaint_data_dir), and 0.01 GB are free there." in message
    assert beside(data) == []


def test_a_tree_that_is_a_mount_is_refused(run, made, data, monkeypatch):
    monkeypatch.setattr(os.path, "ismount", lambda path: path == str(data / "models"))
    assert f"{data}/models is a mount point" in run("staged", failed=True)["msg"]


def test_a_tree_that_is_a_link_is_exchanged_where_it_is(through, made, data, tmp_path):
    (data / "models").rename(tmp_path / "elsewhere")
    (data / "models").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/torch/lama.pt").unlink()
    through()
    assert (data / "models").is_symlink()
    assert (tmp_path / "elsewhere/torch/lama.pt").read_text() == "weights"


def test_what_does_not_serve_is_put_back_with_what_was_written_since(run, made, data, tmp_path):
    later(data / "models/torch/lama.pt", "the former")
    (data / "outputs/cpu/a.png").unlink()
    run("staged")
    run("swapped")
    later(data / "outputs/cpu/since.png", "since")
    result = run("back", reason="it does not inpaint")
    assert result["back"] == ["models", "outputs/cpu"]
    assert content(data / "models")["torch/lama.pt"] == "the former"
    assert content(data / "outputs/cpu") == {"b.png": "b", "since.png": "since"}
    assert beside(data) == []
    line = json.loads((tmp_path / "audit.log").read_text().splitlines()[-1])
    assert (line["action"], line["reason"]) == ("restore put back", "it does not inpaint")


def test_back_before_the_exchange_leaves_all_as_it_was(run, made, data):
    (data / "outputs/cpu/a.png").unlink()
    before = content(data)
    run("staged")
    assert run("back")["changed"] is False
    assert (content(data), beside(data)) == (before, [])


def test_what_was_written_between_the_check_and_the_exchange_stays(run, made, data):
    (data / "outputs/cpu/b.png").unlink()
    run("staged")
    later(data / "outputs/cpu/a.png", "worked on meanwhile")
    later(data / "outputs/cpu/c.png", "new")
    run("swapped")
    run("kept")
    assert content(data / "outputs/cpu") == {"a.png": "worked on meanwhile", "b.png": "b", "c.png": "new"}


def test_what_is_not_as_the_manifest_says_after_the_exchange_is_no_success(run, made, data):
    (data / "outputs/cpu/b.png").unlink()
    run("staged")
    run("swapped")
    os.truncate(data / "outputs/cpu/a.png", 0)
    assert "What was restored is not what the manifest says: outputs/cpu/a.png has 0 bytes" in run("kept", failed=True)["msg"]


@pytest.mark.parametrize("call", range(1, 12))
def test_a_play_that_is_killed_at_any_rename_is_repaired_by_the_next_one(run, through, made, data, call):
    """The process ends at each rename, link and removal in turn, before it or after it."""
    (data / "models/torch/lama.pt").write_text("damaged")
    (data / "outputs/cpu/a.png").unlink()
    later(data / "outputs/cpu/new.png", "new")
    child = os.fork()
    if child == 0:
        left = [call]

        def deadly(real):
            def step(*arguments, **options):
                left[0] -= 1
                if left[0] == 0:
                    os._exit(9)
                return real(*arguments, **options)

            return step

        try:
            run("staged")
            for name in ("rename", "replace", "link", "unlink"):
                setattr(os, name, deadly(getattr(os, name)))
            run("swapped")
            run("kept")
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    _staged, _swapped, kept = through()
    assert content(data / "models") == {"torch/lama.pt": "weights", "link.pt": "weights"}
    assert content(data / "outputs/cpu") == {"a.png": "a", "b.png": "b", "new.png": "new"}
    assert [name for name in beside(data) if not name.startswith(".former-models-")] == []
    assert [content(former) for former in kept["former"]] == [{"torch/lama.pt": "damaged"}]


def test_a_killed_check_is_cleaned_up_by_the_next_one(run, through, made, data):
    shutil.copytree(data / "models", data / ".restore-models")
    assert "A restore was killed here" in run("staged", failed=True, check=True)["msg"]
    through()
    assert beside(data) == []


def test_without_any_instance_data_comes_back_all_the_same(run, through, made, data, instances):
    shutil.rmtree(instances)
    shutil.rmtree(data)
    staged, _swapped, _kept = through()
    assert (staged["instances"], staged["stop"]) == ([], [])
    assert content(data)["outputs/cpu/a.png"] == "a"


def test_a_step_without_the_one_before_says_so(run, made):
    assert "Run the restore from its beginning" in run("swapped", failed=True)["msg"]


def test_carry_does_not_follow_links_in_its_way(tmp_path):
    """A folder of the source where the target has a link: nothing is written behind it."""
    (tmp_path / "source/a").mkdir(parents=True)
    (tmp_path / "source/a/x").write_text("x")
    (tmp_path / "target").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "target/a").symlink_to(tmp_path / "elsewhere")
    exchange.carry(str(tmp_path / "source"), str(tmp_path / "target"), set())
    assert os.listdir(tmp_path / "elsewhere") == []


def test_named_faults_are_few():
    assert manifest.named([str(number) for number in range(30)]).endswith("; 9; and 20 more")
