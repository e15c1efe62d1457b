# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The models on a host: what is there, who declares and who uses it, and what of it is removed."""

import json
import os

import pytest
from ansible_collections.iopaint.fleet.plugins.filter.stored_models import FilterModule
from ansible_collections.iopaint.fleet.plugins.modules import model_store

FILTERS = FilterModule().filters()
OLD, NEW = "0" * 40, "1" * 40
CHECKPOINTS = "torch/hub/checkpoints"


@pytest.fixture
def models(tmp_path):
    """The folder of models."""
    folder = tmp_path / "models"
    folder.mkdir()
    return folder


@pytest.fixture
def run(run_module, models, tmp_path):
    def run(state="listed", **options):
        places = {"models_dir": str(models), "dir": str(tmp_path / "instances"), "audit": str(tmp_path / "log" / "audit.log")}
        return run_module(model_store, state=state, owner={"operator": "ann"}, **{**places, **options})

    return run


@pytest.fixture
def have(models):
    """Put a file of this size into the folder of models."""

    def have(path, size=3):
        place = models / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(b"x" * size)
        return place

    return have


@pytest.fixture
def repository(models, have):
    """Lay out a repository as huggingface_hub does; files: by commit, names with the blob of each."""

    def repository(hub, main=NEW, **files):
        folder = f"huggingface/hub/models--{hub.replace('/', '--')}"
        for commit, blobs in files.items():
            for name, blob in blobs.items():
                have(f"{folder}/blobs/{blob}", len(blob))
                link = models / folder / "snapshots" / commit.lstrip("c") / name
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(os.path.relpath(models / folder / "blobs" / blob, link.parent))
            have(f"{folder}/fetched/{commit.lstrip('c')}.json")
        if main:
            have(f"{folder}/refs/main").write_text(main)
        return models / folder

    return repository


@pytest.fixture
def release(tmp_path):
    """Let an instance have a release with these options."""

    def release(instance, release_id="0001-cpu", outcome="current", linked=True, **environment):
        folder = tmp_path / "instances" / instance / "releases" / release_id
        folder.mkdir(parents=True)
        for name in ("compose.yaml", ".env", "options.env"):
            (folder / name).write_text("")
        record = {"id": release_id, "outcome": outcome, "environment": environment}
        (folder / "release.json").write_text(json.dumps(record))
        if linked:
            (tmp_path / "instances" / instance / "current").symlink_to(f"releases/{release_id}")
        return folder

    return release


def judged(found, models=(), instances=(), model="cv2"):
    return {
        (one.get("path") or one["hub"], one["revision"]): one
        for one in FILTERS["stored_models"](found, list(models), list(instances), model)
    }


# ---- what is there ---------------------------------------------------------------------------------------------------


def test_files_and_repositories_are_listed_with_their_sizes(run, have, repository):
    have(f"{CHECKPOINTS}/big-lama.pt", 7)
    have("stable_diffusion/own.safetensors", 5)
    have("stable_diffusion/iopaint_cache.json")
    have(f"{CHECKPOINTS}/.iopaint-0123.pt")
    repository(
        "owner/model", **{f"c{OLD}": {"a.bin": "aa", "unet/b.bin": "bbb"}, f"c{NEW}": {"a.bin": "aa", "unet/b.bin": "cccc"}}
    )
    found = run()
    assert found["files"] == [
        {"path": "stable_diffusion/own.safetensors", "bytes": 5},
        {"path": f"{CHECKPOINTS}/big-lama.pt", "bytes": 7},
    ]
    assert found["repositories"] == [
        {"hub": "owner/model", "revision": OLD, "current": False, "bytes": 5},
        {"hub": "owner/model", "revision": NEW, "current": True, "bytes": 6},
    ]


def test_a_revision_without_links_has_the_size_of_its_files(run, have):
    """As a bundle brings it."""
    have(f"huggingface/hub/models--owner--model/snapshots/{NEW}/unet/model.safetensors", 9)
    have("huggingface/hub/models--owner--model/refs/main").write_text(NEW)
    assert run()["repositories"] == [{"hub": "owner/model", "revision": NEW, "current": True, "bytes": 9}]


def test_a_repository_without_a_whole_revision_is_incomplete(run, have):
    have("huggingface/hub/models--owner--model/blobs/abc.incomplete", 9)
    assert run()["repositories"] == [{"hub": "owner/model", "revision": None, "current": False, "bytes": 9}]


def test_a_host_without_models_has_none(run):
    found = run(models_dir="/nonexistent/models")
    assert [found[key] for key in ("files", "repositories", "releases")] == [[], [], []]


def test_no_link_is_followed(run, models, have, tmp_path):
    outside = tmp_path / "outside"
    (outside / "models--owner--model" / "blobs").mkdir(parents=True)
    (outside / "secret.pt").write_text("x")
    have("real.pt")
    (models / "link.pt").symlink_to(outside / "secret.pt")
    (models / "folder").symlink_to(outside)
    (models / "huggingface").mkdir()
    (models / "huggingface" / "hub").symlink_to(outside)
    found = run()
    assert ([one["path"] for one in found["files"]], found["repositories"]) == (["real.pt"], [])


# ---- who declares and uses it ----------------------------------------------------------------------------------------


def test_what_nobody_declares_or_uses_is_removable(run, have, repository):
    have(f"{CHECKPOINTS}/big-lama.pt")
    have(f"{CHECKPOINTS}/u2net.onnx")
    have(f"{CHECKPOINTS}/migan_traced.pt")
    repository("owner/model", **{f"c{NEW}": {"a": "a"}})
    found = judged(
        run(), [{"name": "migan"}], [{"name": "cpu", "plugins": [{"remove_bg": "u2net"}]}, {"name": "b", "model": "lama"}]
    )
    assert {key[0]: (one["declared_by"], one["removable"]) for key, one in found.items()} == {
        f"{CHECKPOINTS}/big-lama.pt": (["b"], False),
        f"{CHECKPOINTS}/u2net.onnx": (["cpu"], False),
        f"{CHECKPOINTS}/migan_traced.pt": (["iopaint_models"], False),
        "owner/model": ([], True),
    }


def test_of_a_repository_the_revision_that_is_loaded_is_declared(run, repository):
    repository("owner/model", **{f"c{OLD}": {"a": "a"}, f"c{NEW}": {"a": "b"}})
    instances = [{"name": "sd", "model": "owner/model"}]
    found = judged(run(), [], instances)
    assert [found["owner/model", commit]["removable"] for commit in (OLD, NEW)] == [True, False]
    pinned = judged(run(), [{"hub": "owner/model", "revision": OLD}], instances)
    assert [one["removable"] for one in pinned.values()] == [False, False]


def test_a_download_that_broke_off_stays_where_it_is_declared(run, have):
    have("huggingface/hub/models--owner--model/blobs/abc.incomplete")
    assert judged(run(), [{"hub": "owner/model"}])["owner/model", None]["removable"] is False
    assert judged(run())["owner/model", None]["removable"] is True


def test_what_a_release_loads_stays(run, have, repository, release):
    for name in ("big-lama.pt", "realesr-general-x4v3.pth", "RealESRGAN_x4plus.pth", "migan_traced.pt"):
        have(f"{CHECKPOINTS}/{name}")
    repository("owner/model", **{f"c{NEW}": {"a": "a"}})
    offline = {"IOPAINT_LOCAL_FILES_ONLY": "true"}
    release("cpu", IOPAINT_MODEL="lama", IOPAINT_ENABLE_REALESRGAN="true", IOPAINT_ENABLE_GFPGAN="false", **offline)
    release("cpu", "0000-cpu", "previous", linked=False, IOPAINT_MODEL="owner/model", **offline)  # no number: no release
    release("sd", "0001-gpu", "previous", linked=False, IOPAINT_MODEL="owner/model", **offline)
    found = judged(run())
    assert {key[0].rpartition("/")[2]: one["used_by"] for key, one in found.items()} == {
        "big-lama.pt": ["cpu"],
        "realesr-general-x4v3.pth": ["cpu"],
        "RealESRGAN_x4plus.pth": [],
        "migan_traced.pt": [],
        "model": ["sd 0001-gpu"],
    }
    assert [key[0].rpartition("/")[2] for key, one in found.items() if one["removable"]] == [
        "RealESRGAN_x4plus.pth",
        "migan_traced.pt",
    ]


def test_the_commits_that_a_release_is_held_to_stay(run, repository, release):
    repository("owner/model", **{f"c{OLD}": {"a": "a"}, f"c{NEW}": {"a": "b"}})
    offline = {"IOPAINT_LOCAL_FILES_ONLY": "true"}
    release("sd", "0002-cpu", IOPAINT_MODEL="cv2", **offline)
    release(
        "sd",
        "0001-cpu",
        "previous",
        linked=False,
        IOPAINT_MODEL="owner/model",
        IOPAINT_FLEET_REVISIONS=f"owner/model={OLD}",
        **offline,
    )
    found = judged(run())
    assert {commit: one["used_by"] for (_hub, commit), one in found.items()} == {OLD: ["sd 0001-cpu"], NEW: []}
    assert found["owner/model", OLD]["removable"] is False


def test_an_instance_that_downloads_by_itself_may_load_everything(run, have, repository, release):
    have(f"{CHECKPOINTS}/u2net.onnx")
    repository("owner/model", **{f"c{OLD}": {"a": "a"}, f"c{NEW}": {"a": "b"}})
    release("cpu", IOPAINT_MODEL="lama")
    found = judged(run())
    assert [one["removable"] for one in found.values()] == [False, True, False]


def test_a_record_that_can_t_be_read_ends_the_look(run, release):
    (release("cpu") / "release.json").write_text("{")
    message = run(failed=True)["msg"]
    assert "cpu/releases/0001-cpu/release.json can't be read, so what instance cpu loads is not known" in message


def test_the_table_names_what_goes(run, have, repository):
    have(f"{CHECKPOINTS}/big-lama.pt", 2 * 10**6)
    repository("owner/model", **{f"c{NEW}": {"a": "a"}})
    judgement = FILTERS["stored_models"](run(), [{"name": "lama"}], [], "lama")
    assert FILTERS["models_table"](judgement).splitlines() == [
        "model        revision      size  declared by     used by",
        "lama         -             2 MB  iopaint_models  -",
        f"owner/model  {NEW[:12]}  0 MB  -               -        removable",
    ]
    assert FILTERS["models_table"]([]) == "There are no models on the host."


# ---- what goes -------------------------------------------------------------------------------------------------------


def test_files_and_whole_repositories_are_removed_and_noted(run, have, repository, tmp_path):
    gone, stays = have("own.pt"), have("other.pt")
    folder = repository("owner/model", **{f"c{NEW}": {"a": "a"}})
    other = repository("owner/other", **{f"c{NEW}": {"a": "a"}})
    asked = {"files": ["own.pt"], "repositories": [{"hub": "owner/model", "revision": NEW, "bytes": 1}]}
    assert run("absent", check=True, **asked)["removed"] == ["own.pt", f"owner/model {NEW}"]
    assert gone.exists()
    assert folder.exists()
    done = run("absent", **asked)
    assert (done["changed"], done["removed"]) == (True, ["own.pt", f"owner/model {NEW}"])
    assert [path.exists() for path in (gone, folder, stays, other)] == [False, False, True, True]
    line = json.loads((tmp_path / "log" / "audit.log").read_text())
    assert (line["action"], line["operator"], line["models"]) == ("models removed", "ann", done["removed"])
    assert run("absent", **asked)["changed"] is False


def test_an_older_revision_goes_without_what_the_newer_one_shares(run, repository):
    folder = repository("owner/model", **{f"c{OLD}": {"a": "shared", "b": "older"}, f"c{NEW}": {"a": "shared", "b": "newer"}})
    run("absent", repositories=[{"hub": "owner/model", "revision": OLD}])
    assert sorted(os.listdir(folder / "blobs")) == ["newer", "shared"]
    assert os.listdir(folder / "snapshots") == [NEW]
    assert os.listdir(folder / "fetched") == [f"{NEW}.json"]
    assert (folder / "snapshots" / NEW / "a").read_text() == "x" * len("shared")


@pytest.mark.parametrize("path", ["link.pt", "folder/secret.pt", "../outside/secret.pt", "/etc/hostname", "none.pt"])
def test_nothing_is_removed_through_a_link_or_outside(run, models, tmp_path, path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.pt").write_text("x")
    (models / "link.pt").symlink_to(outside / "secret.pt")
    (models / "folder").symlink_to(outside)
    assert run("absent", files=[path])["changed"] is False
    assert (outside / "secret.pt").exists()
    assert (models / "link.pt").is_symlink()


def test_a_repository_that_is_a_link_stays_with_what_it_names(run, models, repository, tmp_path):
    folder = repository("owner/model", **{f"c{NEW}": {"a": "a"}})
    elsewhere = tmp_path / "elsewhere"
    folder.rename(elsewhere)
    folder.symlink_to(elsewhere)
    assert run("absent", repositories=[{"hub": "owner/model", "revision": NEW}])["changed"] is False
    assert (elsewhere / "blobs" / "a").exists()
    # A blob that is a link is removed as a link.
    folder.unlink()
    elsewhere.rename(folder)
    (tmp_path / "precious").write_text("x")
    (folder / "blobs" / "a").unlink()
    (folder / "blobs" / "a").symlink_to(tmp_path / "precious")
    assert run("absent", repositories=[{"hub": "owner/model", "revision": NEW}])["changed"] is True
    assert (tmp_path / "precious").exists()
