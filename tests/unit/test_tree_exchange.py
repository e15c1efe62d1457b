# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Trees exchanged for what was restored beside them: compared, exchanged in one step, put back, repaired after any kill."""

import errno
import fcntl
import hashlib
import json
import os
import pwd
import shutil
import time
from pathlib import Path

import pytest
from ansible_collections.iopaint.fleet.plugins.module_utils import exchange
from ansible_collections.iopaint.fleet.plugins.modules import tree_exchange

ANN = {"operator": "ann", "controller": "desk"}
HOUR = 3600 * 10**9
TEXTS = {"models/torch/lama.pt": "weights", "outputs/cpu/a.png": "a", "outputs/cpu/b.png": "b", "outputs/gpu/g.png": "g"}
NOW = time.time_ns()


def fill(folder):
    """The files that data and snapshots have, with the same times."""
    for name, text in TEXTS.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        os.utime(path, ns=(NOW - 2 * HOUR, NOW - 2 * HOUR))
    (folder / "models" / "link.pt").symlink_to("torch/lama.pt")


@pytest.fixture
def data(tmp_path):
    fill(tmp_path / "data")
    return tmp_path / "data"


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
def run(run_module, tmp_path, data, instances, monkeypatch, engine):
    """Run one step. Everything belongs to whoever runs the tests, the folders above the trees too."""
    monkeypatch.setenv("PATH", f"{engine.bin}:/usr/bin:/bin")
    monkeypatch.setattr(exchange.Tree, "owner_above", lambda _tree, _user: None)
    (tmp_path / "remote-tmp").mkdir()
    common = {"data": str(data), "dir": str(instances), "user": os.getuid(), "owner": ANN, "audit": str(tmp_path / "audit.log")}
    common["stager"] = pwd.getpwuid(os.getuid()).pw_name

    def call(state, **options):
        return run_module(tree_exchange, **{**common, "state": state, **options})

    return call


@pytest.fixture
def staged(run, tmp_path):
    """Let a restore of trees begin: what restic does is done by a copy of a snapshot, which a test may change first."""
    fill(tmp_path / "snapshot")

    def call(*trees, **options):
        entries = [
            {"tree": tree, "id": f"id-{tree}", "time_ns": NOW - HOUR, "size": 1} for tree in trees or ("models", "outputs/cpu")
        ]
        result = run("staged", trees=entries, **options)
        for entry in result["trees"]:
            shutil.copytree(tmp_path / "snapshot" / entry["tree"], Path(entry["ready"]) / entry["tree"], symlinks=True)
        return result

    return call


@pytest.fixture
def through(run, staged):
    """All steps of a restore."""

    def call(**options):
        staged()
        return [run(state, **options) for state in ("compared", "exchanged", "kept")]

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
    folders = [folder for folder in (data, data / "outputs") if folder.is_dir()]
    names = sorted(name for folder in folders for name in os.listdir(folder) if name[0] == ".")
    return [name for name in names if not name.startswith(".iopaint-")]


def actions(tmp_path):
    return [json.loads(line) for line in (tmp_path / "audit.log").read_text().splitlines()]


def names(entries):
    return [entry["name"] for entry in entries]


def test_what_is_lost_is_back(run, through, data, tmp_path):
    shutil.rmtree(data)
    compared, exchanged, kept = through()
    assert (compared["changed"], exchanged["changed"], kept["changed"]) == (True, True, True)
    assert content(data) == {name: text for name, text in TEXTS.items() if "gpu" not in name} | {"models/link.pt": "weights"}
    assert (data / "models" / "link.pt").readlink() == Path("torch/lama.pt")
    assert compared["counts"] == {"models": {"new": 3}, "outputs/cpu": {"new": 2}}
    assert beside(data) == kept["previous"] == []
    assert actions(tmp_path)[-1]["action"] == "restored"
    assert actions(tmp_path)[-1]["snapshots"] == {"models": "id-models", "outputs/cpu": "id-outputs/cpu"}


def test_the_same_changes_nothing_and_stops_nobody(through, data):
    before = (data / "models").stat().st_ino, content(data)
    compared, exchanged, kept = through()
    assert (compared["changed"], exchanged["changed"], kept["changed"]) == (False, False, False)
    assert (names(compared["instances"]), compared["stop"]) == (["cpu", "gpu"], [])
    assert ((data / "models").stat().st_ino, content(data)) == before
    assert beside(data) == []


@pytest.mark.parametrize(("tree", "stopped"), [("outputs/cpu/a.png", ["cpu"]), ("models/torch/lama.pt", ["cpu", "gpu"])])
def test_who_uses_what_differs_is_stopped(run, staged, data, tree, stopped):
    (data / tree).unlink()
    staged()
    assert names(run("compared")["stop"]) == stopped


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_text("Weights"),
        lambda path: path.chmod(0o600),
        lambda path: (path.unlink(), path.symlink_to("/etc/passwd")),
        lambda path: (path.unlink(), os.mkfifo(path)),
        lambda path: (path.unlink(), path.mkdir(), (path / "x").touch()),
    ],
)
def test_any_difference_is_seen_and_mended(run, through, data, spoil):
    """A content of the same size and time, too."""
    path = data / "models/torch/lama.pt"
    spoil(path)
    if path.is_file() and not path.is_symlink():
        os.utime(path, ns=(NOW - 2 * HOUR, NOW - 2 * HOUR))
    compared, _exchanged, kept = through()
    assert compared["counts"] == {"models": {"changed": 1}, "outputs/cpu": {}}
    assert path.read_text() == "weights"
    assert not path.is_symlink()
    (previous,) = kept["previous"]
    assert os.listdir(Path(previous) / "torch") == ["lama.pt"]
    assert os.listdir(previous) == ["torch"]  # nothing of what is in place as well


def test_what_the_snapshot_lacks_and_what_is_newer_stays(through, run, data):
    (data / "outputs/cpu/a.png").write_text("worked on")
    (data / "outputs/cpu/new").mkdir()
    (data / "outputs/cpu/new/c.png").write_text("new")
    (data / "outputs/cpu/b.png").unlink()
    compared, _exchanged, kept = through()
    assert compared["counts"]["outputs/cpu"] == {"newer and left": 1, "new": 1}
    assert content(data / "outputs/cpu") == {"a.png": "worked on", "b.png": "b", "new/c.png": "new"}
    assert (kept["previous"], beside(data)) == ([], [])


def test_exactly_the_snapshot_if_asked_for(through, data):
    (data / "outputs/cpu/a.png").write_text("worked on")
    (data / "outputs/cpu/c.png").write_text("new")
    compared, _exchanged, kept = through(delete=True)
    assert compared["counts"]["outputs/cpu"] == {"changed": 1, "removed": 1}
    assert content(data / "outputs/cpu") == {"a.png": "a", "b.png": "b"}
    (previous,) = kept["previous"]
    assert content(previous) == {"a.png": "worked on", "c.png": "new"}


def test_previous_files_go_if_asked_for(through, data):
    (data / "models/torch/lama.pt").write_text("damaged")
    *_steps, kept = through(keep_previous=False)
    assert (kept["previous"], beside(data)) == ([], [])


def test_a_picture_saved_between_the_steps_is_not_lost(run, staged, data):
    (data / "outputs/cpu/b.png").unlink()
    staged()
    run("compared")
    (data / "outputs/cpu/during.png").write_text("during")
    (data / "outputs/cpu/a.png").write_text("worked on")
    run("exchanged")
    (data / "outputs/cpu/after.png").write_text("after")
    run("kept")
    wanted = {"a.png": "worked on", "b.png": "b", "during.png": "during", "after.png": "after"}
    assert content(data / "outputs/cpu") == wanted


def test_a_picture_saved_in_the_moment_of_the_exchange_is_in_the_previous_tree(run, staged, data, monkeypatch):
    (data / "outputs/cpu/b.png").unlink()
    staged("outputs/cpu")
    run("compared")
    real = exchange.exchange

    def late(one, other):
        (data / "outputs/cpu/late.png").write_text("late")
        return real(one, other)

    monkeypatch.setattr(exchange, "exchange", late)
    run("exchanged")
    (previous,) = run("kept")["previous"]
    assert content(previous) == {"late.png": "late"}


def test_what_does_not_serve_is_put_back_with_what_was_saved_since(run, staged, data, tmp_path):
    (data / "models/torch/lama.pt").write_text("the previous")
    (data / "outputs/cpu/b.png").unlink()
    staged()
    run("compared")
    run("exchanged")
    assert content(data / "models")["torch/lama.pt"] == "weights"
    (data / "outputs/cpu/since.png").write_text("since")
    (data / "outputs/cpu/a.png").write_text("saved again, whatever the clock says")
    os.utime(data / "outputs/cpu/a.png", ns=(0, 0))
    result = run("back", reason="it does not inpaint")
    assert result["back"] == ["models", "outputs/cpu"]
    assert content(data / "models")["torch/lama.pt"] == "the previous"
    assert content(data / "outputs/cpu") == {"a.png": "saved again, whatever the clock says", "since.png": "since"}
    assert beside(data) == []
    assert actions(tmp_path)[-1] == {**actions(tmp_path)[-1], "action": "restore put back", "reason": "it does not inpaint"}


def test_back_before_the_exchange_only_removes_what_was_staged(run, staged, data, tmp_path):
    before = content(data)
    staged()
    assert run("back", reason="damaged")["back"] == []
    assert (content(data), beside(data)) == (before, [])
    assert actions(tmp_path)[-1]["action"] == "restore refused"
    assert run("back", reason="earlier")["changed"] is False


def test_a_dry_run_compares_and_leaves_nothing(run, staged, data):
    (data / "outputs/cpu/a.png").unlink()
    (data / "outputs/cpu/b.png").write_text("newer")
    before = content(data)
    staged()
    result = run("compared", check=True, diff=True)
    assert (result["changed"], names(result["stop"])) == (True, ["cpu"])
    assert result["diff"]["after"] == "outputs/cpu/a.png (new)\noutputs/cpu/b.png (newer and left)\n"
    assert (content(data), beside(data)) == (before, [])
    assert [run(state, check=True)["changed"] for state in ("exchanged", "kept", "back")] == [False] * 3


# --- snapshots that leave models out ------------------------------------------------------------------------------------

COMMIT, OTHER = "1" * 40, "2" * 40
LAMA = {"name": "lama", "path": "torch/lama.pt", "checksum": f"md5:{hashlib.md5(b'weights').hexdigest()}"}  # noqa: S324
LEFT = [{**LAMA, "bytes": 7}, {"hub": "a/b", "revision": COMMIT, "bytes": 4}]


def cached(models, hub="a/b", commit=COMMIT, text="1234"):
    """Put a repository into the hub's cache of a folder of models."""
    folder = models / "huggingface/hub" / f"models--{hub.replace('/', '--')}"
    for path, content_of in {f"snapshots/{commit}/x.bin": text, "refs/main": commit}.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(content_of)


@pytest.fixture
def own(run, tmp_path, data, instances):
    """Restore a snapshot that has only the host's own models, and say what it left out. ready: may spoil what is staged."""
    fill(tmp_path / "snapshot")
    (tmp_path / "snapshot/models/torch/lama.pt").unlink()
    (tmp_path / "snapshot/models/own.pt").write_text("own")
    (instances / "models.json").write_text(json.dumps({"files": [LAMA], "repositories": ["a/b"]}))

    def call(left=LEFT, states=("compared", "exchanged", "kept"), **options):
        entry_of = {"tree": "models", "id": "id", "time_ns": NOW - HOUR, "size": 1, "own": True}
        (staged,) = run("staged", trees=[entry_of], **options)["trees"]
        shutil.copytree(tmp_path / "snapshot/models", Path(staged["ready"]) / "models", symlinks=True)
        if left is not None:
            (Path(staged["ready"]) / "left-out.json").write_text(json.dumps(left))
        return [run(state, **options) for state in states]

    return call


@pytest.mark.parametrize("delete", [False, True])
def test_models_that_a_snapshot_leaves_out_stay(own, data, delete):
    cached(data / "models")
    (data / "models/newer.pt").write_text("newer")
    compared, _exchanged, kept = own(delete=delete)
    assert (compared["missing"], compared["counts"]) == ([], {"models": {"new": 1}})
    found = content(data / "models")
    assert {"own.pt": "own", "torch/lama.pt": "weights", "newer.pt": "newer", "link.pt": "weights"}.items() <= found.items()
    assert found[f"huggingface/hub/models--a--b/snapshots/{COMMIT}/x.bin"] == "1234"
    assert kept["previous"] == []


def test_what_is_missing_is_named_before_anything_is_stopped(own, data):
    shutil.rmtree(data / "models")
    (compared,) = own(states=["compared"])
    assert compared["missing"] == LEFT
    assert names(compared["stop"]) == ["cpu", "gpu"]
    assert not (data / "models").exists()


def test_what_is_damaged_is_missing_and_another_revision_is_not(own, data):
    cached(data / "models", text="12")
    (data / "models/torch/lama.pt").write_text("half")
    assert own(states=["compared"])[0]["missing"] == LEFT
    cached(data / "models", commit=OTHER, text="1")
    assert own(states=["compared"])[0]["missing"] == LEFT[:1]


def test_what_a_deploy_has_declared_since_is_missing_as_well(own, data, instances, tmp_path):
    new = {**LAMA, "name": "new", "path": "new.pt"}
    (instances / "models.json").write_text(json.dumps({"files": [LAMA, new], "repositories": ["a/b", "c/d", "e/f"]}))
    cached(data / "models")
    cached(tmp_path / "snapshot/models", "e/f")
    assert own(states=["compared"])[0]["missing"] == [new, {"hub": "c/d", "revision": ""}]
    (instances / "models.json").unlink()
    assert own(states=["compared"])[0]["missing"] == []


def test_a_fetched_model_is_not_exchanged_for_an_earlier_one_of_the_host(own, data, tmp_path):
    """By hand at the time of the backup, declared and fetched since."""
    cached(data / "models", commit=OTHER)
    cached(tmp_path / "snapshot/models")
    cached(tmp_path / "snapshot/models", "by/hand")
    (tmp_path / "snapshot/models/torch/lama.pt").write_text("by hand")
    own()
    found = content(data / "models")
    assert found["torch/lama.pt"] == "weights"
    assert found["huggingface/hub/models--a--b/refs/main"] == OTHER
    assert f"huggingface/hub/models--a--b/snapshots/{COMMIT}/x.bin" not in found
    assert found["huggingface/hub/models--by--hand/refs/main"] == COMMIT


def test_a_damaged_one_is(own, data, tmp_path):
    (data / "models/torch/lama.pt").write_text("damaged")
    (tmp_path / "snapshot/models/torch/lama.pt").write_text("by hand")
    own()
    assert content(data / "models")["torch/lama.pt"] == "by hand"


@pytest.mark.parametrize("left", [None, {"a": 1}])
def test_a_snapshot_without_its_list_is_refused(run, own, data, left):
    own(left, states=[])
    assert "has no list of the models that it leaves out" in run("compared", failed=True)["msg"]


def test_a_record_of_a_deploy_that_cannot_be_read_is_named(run, own, instances):
    (instances / "models.json").write_text("{")
    own(states=[])
    message = run("compared", failed=True)["msg"]
    assert f"{instances}/models.json can't be read" in message
    assert "Run iopaint.fleet.deploy" in message


def test_what_is_no_model_in_a_list_is_passed_over(own, data, instances):
    (instances / "models.json").unlink()
    odd = [1, {}, {"hub": "../x", "revision": COMMIT, "bytes": 1}, {"hub": "c/d", "revision": None, "bytes": 0}]
    odd += [
        {**LAMA, "name": "new\nline", "path": "x", "bytes": 1},
        {**LAMA, "path": "../../x", "bytes": 1},
        {**LAMA, "path": "y"},
    ]
    assert own([*odd, LEFT[1]], states=["compared"])[0]["missing"] == [LEFT[1]]


# --- what a killed play leaves ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("can_exchange", [True, False])
@pytest.mark.parametrize("call", range(1, 26))
def test_a_play_that_is_killed_at_any_point_is_repaired(run, through, staged, data, monkeypatch, call, can_exchange):
    """The process ends before each rename, link and removal in turn. Then a picture is saved, and the next restore ends well."""
    (data / "models/torch/lama.pt").write_text("damaged")
    (data / "outputs/cpu/a.png").unlink()
    (data / "outputs/cpu/new.png").write_text("new")
    if not can_exchange:  # a file system such as NFS
        monkeypatch.setattr(exchange, "exchange", lambda _one, _other: False)
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
            for name in ("rename", "replace", "link", "unlink", "mkdir"):
                setattr(os, name, deadly(getattr(os, name)))
            exchange.exchange = deadly(exchange.exchange)
            through()
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    repaired = run("repaired")
    assert {os.path.basename(previous) for previous in repaired["previous"]} <= set(beside(data))
    assert [name for name in beside(data) if not name.startswith(".previous-")] == []
    assert content(data / "outputs/cpu")["new.png"] == "new"  # whatever was in place by then
    (data / "outputs/cpu/saved.png").write_text("saved")
    *_steps, kept = through()
    assert content(data / "models") == {"torch/lama.pt": "weights", "link.pt": "weights"}
    assert content(data / "outputs/cpu") == {"a.png": "a", "b.png": "b", "new.png": "new", "saved.png": "saved"}
    previous = [data / name for name in beside(data) if name.startswith(".previous-models-")]
    assert [content(path)["torch/lama.pt"] for path in previous] == ["damaged"]
    assert {*map(str, kept["previous"])} <= {str(path.parent / path.name) for path in [*previous, *(data / "outputs").iterdir()]}
    assert run("repaired") == {**run("repaired"), "changed": False, "previous": []}


def test_a_restic_of_a_killed_play_cannot_add_to_the_next_restore(run, staged, data):
    """It goes on by the paths that it was given, which are no more."""
    first = staged("models")["trees"][0]["ready"]
    second = staged("models")["trees"][0]["ready"]
    assert first != second
    assert not os.path.exists(os.path.dirname(first + "/models"))
    assert run("compared")["counts"] == {"models": {}}


def test_a_module_that_outlives_its_play_is_waited_for(run, staged, data):
    staged("models")
    with exchange.opened(str(data)) as folder:
        fcntl.flock(folder, fcntl.LOCK_EX)
        child = os.fork()
        if child == 0:
            os.close(folder)
            run("repaired")
            os._exit(0)
        time.sleep(0.5)
        assert (data / exchange.RECORD).exists()
    os.waitpid(child, 0)
    assert not (data / exchange.RECORD).exists()


def test_what_a_killed_play_left_is_named_to_the_next(run, staged, data, tmp_path):
    (data / "models/torch/lama.pt").write_text("damaged")
    staged()
    run("compared")
    run("exchanged")
    dry = run("repaired", check=True)
    assert "was interrupted on this host" in str(dry["warnings"])
    assert "models" in json.loads((data / exchange.RECORD).read_text())["trees"][0]["tree"]
    result = run("repaired")
    assert "restored: models; previous data: " in str(result["warnings"][-1])
    (previous,) = result["previous"]
    assert content(previous)["torch/lama.pt"] == "damaged"
    assert actions(tmp_path)[-1]["action"] == "restore repaired"


def test_a_clock_that_jumps_back_brings_no_older_tree_back(run, staged, data, monkeypatch):
    """Two interrupted restores at the same time by the clock: both previous trees are kept, and neither comes back."""
    monkeypatch.setattr(exchange.time, "gmtime", lambda _now=None, real=time.gmtime: real(1_700_000_000))
    for text in ("first", "second"):
        (data / "models/torch/lama.pt").write_text(text)
        staged("models")
        run("compared")
        run("exchanged")
        run("repaired")
    previous = [content(data / name)["torch/lama.pt"] for name in beside(data)]
    assert sorted(previous) == ["first", "second"]
    assert content(data / "models")["torch/lama.pt"] == "weights"
    assert exchange.Tree(str(data), "models").previous() == [str(data / name) for name in beside(data)]


# --- what is refused --------------------------------------------------------------------------------------------------


def test_a_tree_that_is_a_link_is_exchanged_where_it_is(through, data, tmp_path):
    (data / "models").rename(tmp_path / "elsewhere")
    (data / "models").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/torch/lama.pt").unlink()
    through()
    assert (data / "models").is_symlink()
    assert (tmp_path / "elsewhere/torch/lama.pt").read_text() == "weights"


def test_a_tree_that_is_a_mount_is_refused(run, data, monkeypatch):
    monkeypatch.setattr(os.path, "ismount", lambda path: path == str(data / "models"))
    assert f"{data}/models is a mount point" in run("staged", failed=True, trees=[entry("models")])["msg"]


def entry(tree):
    return {"tree": tree, "id": "x", "time_ns": 0, "size": 0}


def test_a_tree_in_a_folder_of_the_containers_is_refused(run, data, monkeypatch):
    monkeypatch.undo()
    assert exchange.Tree(str(data), "models").owner_above(os.stat(data).st_uid) == str(data)
    assert exchange.Tree("/", "usr").owner_above(10001) is None


@pytest.mark.parametrize("tree", ["etc", "outputs/../../etc", "outputs", "outputs/.ssh", "outputs/a/b"])
def test_other_folders_are_refused(run, tree):
    assert "is neither models nor outputs of an instance" in run("staged", failed=True, trees=[entry(tree)])["msg"]


def test_the_room_is_looked_at_first(run, data):
    message = run("staged", failed=True, trees=[{**entry("models"), "size": 1 << 60}])["msg"]
    assert f"GB in {data}, and" in message
    assert beside(data) == []


def test_a_snapshot_without_the_tree_is_refused(run, data):
    run("staged", trees=[entry("models")])
    assert "has no folder models" in run("compared", failed=True)["msg"]


def test_a_step_without_the_one_before_says_so(run):
    assert "There is no restore at work here" in run("exchanged", failed=True)["msg"]


def test_a_record_that_cannot_be_read_is_named(run, data):
    (data / exchange.RECORD).write_text("{")
    assert f"{data}/{exchange.RECORD} can't be read" in run("repaired", failed=True)["msg"]


# --- links, and what is no file ---------------------------------------------------------------------------------------


def test_what_is_neither_file_folder_nor_link_is_not_restored(run, staged, data, tmp_path):
    os.mkfifo(tmp_path / "fifo")
    staged()
    os.mkfifo(next(data.glob(".restore-models-*/models")) / "fifo")
    assert run("compared")["counts"]["models"] == {}


def test_carry_does_not_follow_links_in_its_way(tmp_path):
    """Nothing is written behind a link where the source has a folder, and nothing read behind a link of the source."""
    (tmp_path / "source/a").mkdir(parents=True)
    (tmp_path / "source/a/x").write_text("x")
    (tmp_path / "source/b").symlink_to("/etc")
    (tmp_path / "target").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "target/a").symlink_to(tmp_path / "elsewhere")
    exchange.carry(str(tmp_path / "source"), str(tmp_path / "target"), lambda _status, there: not there)
    assert os.listdir(tmp_path / "elsewhere") == []
    assert os.readlink(tmp_path / "target/b") == "/etc"


def test_folders_deep_in_each_other_stay_in_the_previous_tree(through, data, nest, run):
    nest(data / "outputs/cpu", 2500)
    (data / "outputs/cpu/b.png").unlink()
    *_steps, kept = through()
    (previous,) = kept["previous"]
    deep = "/d" * 300
    assert os.path.isdir(previous + deep)
    assert not os.path.isdir(str(data / "outputs/cpu") + deep)
    nest(previous, 0)
    *_steps, kept = through(keep_previous=False)
    assert kept["previous"] == []


def test_a_file_system_that_cannot_exchange_is_told_from_a_failure(tmp_path):
    (tmp_path / "one").mkdir()
    with pytest.raises(OSError, match=os.strerror(errno.ENOENT)):
        exchange.exchange(str(tmp_path / "one"), str(tmp_path / "none"))
    (tmp_path / "two").mkdir()
    (tmp_path / "two/x").touch()
    assert exchange.exchange(str(tmp_path / "one"), str(tmp_path / "two"))
    assert os.listdir(tmp_path / "one") == ["x"]
