# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Bundles are written, read and refused. The engine is a stand-in, zstd and gzip are the machine's."""

import hashlib
import io
import json
import os
import shutil
import stat
import subprocess
import tarfile
import time
from contextlib import suppress

import pytest
from ansible_collections.iopaint.fleet.plugins.module_utils import bundle
from ansible_collections.iopaint.fleet.plugins.modules import bundle_info, bundle_load, bundle_write
from conftest import USER, as_root

COMPRESSORS = {name: shutil.which(name) for name in ("zstd", "gzip")}
WEIGHTS = b"weights" * 5000
LAMA = {"name": "lama", "path": "torch/hub/checkpoints/big-lama.pt", "checksum": "sha256:" + hashlib.sha256(WEIGHTS).hexdigest()}


def built(variant):
    image = f"iopaint:{variant}-1234-5678"
    return {"image": image, "ref": "main", "tags": [image, f"iopaint:{variant}-main", f"iopaint:{variant}-latest"], "built": True}


@pytest.fixture
def host(engine, tmp_path):
    """A host with both images and a model, and gzip and zstd on its PATH."""
    for name, path in COMPRESSORS.items():
        (engine.bin / name).symlink_to(path)
    for variant in ("cpu", "gpu"):
        made = {"Id": f"sha256:{variant}", "Size": 1000}
        engine.set(images={**engine.state["images"], **dict.fromkeys(built(variant)["tags"], made)})
    model = tmp_path / "models" / LAMA["path"]
    model.parent.mkdir(parents=True)
    model.write_bytes(WEIGHTS)
    return engine


@pytest.fixture
def write(run_module, host, tmp_path):
    def write(variants=("cpu", "gpu"), **options):
        args = {
            "dir": str(tmp_path / "bundles"),
            "images": {variant: built(variant) for variant in variants},
            "models": [{**LAMA, "url": "http://example.com/big-lama.pt"}],
            "models_dir": str(tmp_path / "models"),
            "compose": "services: {}\n",
        }
        return run_module(bundle_write, **{**args, **options})

    return write


@pytest.fixture
def load(run_module, tmp_path):
    """Loads a bundle on a host that has nothing yet."""

    def load(path=None, variants=("cpu",), source=None, **options):
        info = run_module(bundle_info, path=str(source or path), variants=list(variants))
        args = {
            "images": info["images"],
            "held": info["models"],
            "models": [LAMA],
            "models_dir": str(tmp_path / "there"),
            "owner": os.getuid(),
            **({"path": str(path)} if path else {}),
        }
        return run_module(bundle_load, **{**args, **options})

    (tmp_path / "there").mkdir()
    return load


@pytest.fixture
def bare(write, host):
    """Gives the path of a bundle, and an engine that holds nothing."""
    path = write()["path"]
    host.set(images={})
    return path


def content(path):
    program = {"zst": "zstd", "gz": "gzip"}[path.rsplit(".", maxsplit=1)[1]]
    return subprocess.run([COMPRESSORS[program], "-dcq", path], capture_output=True, check=True).stdout


def damaged(path, data, name="damaged.tar.gz"):
    """Compress another content next to the bundle."""
    target = os.path.join(os.path.dirname(path), name)
    with open(target, "wb") as file:
        subprocess.run([COMPRESSORS["gzip"], "-c"], input=data, stdout=file, check=True)
    return target


@pytest.mark.parametrize(("compression", "suffix"), [("auto", "zst"), ("zstd", "zst"), ("gzip", "gz")])
def test_a_bundle_is_a_tar_that_sha256sum_can_check(write, tmp_path, compression, suffix):
    result = write(compression=compression)
    assert (result["changed"], result["path"]) == (True, f"{tmp_path}/bundles/iopaint-bundle.tar.{suffix}")
    assert os.listdir(tmp_path / "bundles") == [f"iopaint-bundle.tar.{suffix}"]
    out = tmp_path / "unpacked"
    out.mkdir()
    subprocess.run(["/bin/tar", "-x", "-C", str(out)], input=content(result["path"]), check=True)
    done = subprocess.run(
        ["/usr/bin/sha256sum", "--strict", "-c", "SHA256SUMS"], cwd=out, capture_output=True, text=True, check=True
    )
    names = {line.split(":")[0] for line in done.stdout.splitlines()}
    assert {"bundle.json", "docker/compose.yaml", f"models/{LAMA['path']}", "images/manifest.json"} < names
    assert names == {str(file.relative_to(out)) for file in out.rglob("*") if file.is_file()} - {"SHA256SUMS"}
    assert (out / "docker/compose.yaml").read_text() == "services: {}\n"


def test_auto_is_gzip_where_there_is_no_zstd(write, host):
    (host.bin / "zstd").unlink()
    assert write()["path"].endswith(".tar.gz")


def test_the_manifest_says_what_is_in_it_and_comes_first(write, run_module):
    result = write()
    assert [image["variant"] for image in result["manifest"]["images"]] == ["cpu", "gpu"]
    with tarfile.open(fileobj=io.BytesIO(content(result["path"]))) as tar:
        names = tar.getnames()
    assert names[0] == "bundle.json"
    assert names[-1] == "SHA256SUMS"
    info = run_module(bundle_info, path=result["path"], variants=["gpu"])
    assert [image["image"] for image in info["images"]] == ["iopaint:gpu-1234-5678"]
    assert info["models"] == [{**LAMA, "size": len(WEIGHTS)}]


def test_the_same_is_the_same_bytes_and_is_not_written_twice(write, host):
    first = write()
    data = content(first["path"])
    saves = len(host.calls("save"))
    again = write()
    assert (again["changed"], again["seconds"], again["size"]) == (False, 0, first["size"])
    assert len(host.calls("save")) == saves
    os.unlink(first["path"])
    assert write()["changed"] is True
    assert content(first["path"]) == data


@pytest.mark.parametrize("change", [{"compose": "services: {a: {}}\n"}, {"variants": ["cpu"]}, {"models": []}])
def test_another_content_is_written_anew(write, change):
    write()
    assert write(check=True, **change)["changed"] is True
    assert write(**change)["changed"] is True
    assert write(**change)["changed"] is False


def test_check_mode_writes_nothing(write, tmp_path):
    assert write(check=True)["changed"] is True
    assert not (tmp_path / "bundles").exists()


def test_a_save_that_fails_leaves_the_previous_bundle(write, host, tmp_path):
    path = write(variants=["cpu"])["path"]
    data = content(path)
    host.set(save_error="Error response from daemon: no space left on device\n")
    message = write(failed=True)["msg"]
    assert "no space left on device" in message
    assert "An earlier bundle was not touched" in message
    assert content(path) == data
    assert len(os.listdir(tmp_path / "bundles")) == 1


def test_an_image_or_model_that_is_not_there_is_named(write, host):
    message = write(failed=True, models=[{**LAMA, "path": "elsewhere.pt"}])["msg"]
    assert "The model lama of models is not at" in message
    host.set(images={})
    assert "The image iopaint:cpu-1234-5678 is not on the host" in write(failed=True)["msg"]


def test_what_is_missing_is_known_without_the_archive(load, bare, host):
    result = load(source=bare)
    assert (result["changed"], result["loaded"]) == (False, [])
    assert result["needs"] == ["iopaint:cpu-1234-5678", LAMA["path"]]
    assert not host.calls("load")


def test_images_and_models_are_loaded_once(load, bare, host, tmp_path):
    result = load(bare)
    assert (result["changed"], result["loaded"]) == (True, ["iopaint:cpu-1234-5678", LAMA["path"]])
    assert (tmp_path / "there" / LAMA["path"]).read_bytes() == WEIGHTS
    assert (tmp_path / "there" / LAMA["path"]).stat().st_mode & 0o777 == 0o644
    assert set(host.ids) - {"files-read"} == set(built("cpu")["tags"])
    assert result["built"]["cpu"] == {
        **built("cpu"),
        "tags": sorted(built("cpu")["tags"]),
        "built": False,
        "seconds": 0,
        "id": "sha256:cpu",
        "size": 1000,
    }
    again = load(bare)
    assert (again["changed"], again["needs"], again["loaded"]) == (False, [], [])
    assert len(host.calls("load")) == 1


def test_only_what_is_wanted_is_loaded(load, bare, host):
    """Of the files in the archive the engine gets the wanted image's: its configuration, its layers and what a link names."""
    load(bare, variants=["gpu"], models=[])
    assert set(host.ids) - {"files-read"} == set(built("gpu")["tags"])
    assert host.ids["files-read"] == "4"


def test_a_damaged_model_of_the_host_is_replaced(load, bare, tmp_path):
    load(bare)
    (tmp_path / "there" / LAMA["path"]).write_bytes(b"cut off")
    result = load(bare)
    assert result["loaded"] == [LAMA["path"]]
    assert (tmp_path / "there" / LAMA["path"]).read_bytes() == WEIGHTS


def test_tags_that_point_elsewhere_are_moved(load, bare, host):
    load(bare)
    host.have("iopaint:cpu-latest")
    assert load(source=bare, check=True)["changed"] is True
    assert load(source=bare)["changed"] is True
    assert host.ids["iopaint:cpu-latest"] == "sha256:cpu"
    assert load(source=bare)["changed"] is False


def test_check_mode_loads_nothing_and_needs_no_engine(load, bare, host, tmp_path):
    (host.bin / "docker").unlink()
    result = load(source=bare, check=True)
    assert (result["changed"], result["loaded"]) == (True, [])
    assert result["built"]["cpu"]["id"] == "sha256:cpu"
    assert not list((tmp_path / "there").iterdir())


def test_a_variant_that_is_not_in_it_is_named_with_those_that_are(write, run_module):
    path = write(variants=["cpu"])["path"]
    message = run_module(bundle_info, path=path, variants=["gpu"], failed=True)["msg"]
    assert f"{path} (path) holds no image for gpu. It holds: cpu (iopaint:cpu-1234-5678)" in message
    assert "variants: [gpu]" in message


def test_a_model_that_is_in_neither_place_is_named(load, bare, host):
    other = {**LAMA, "checksum": "sha256:" + "0" * 64}
    message = load(bare, models=[other], failed=True)["msg"]
    assert f"lacks the model lama (sha256:{'0' * 64})" in message
    assert f"Models in the bundle: lama ({LAMA['checksum']})" in message
    assert not host.ids


@pytest.mark.parametrize("path", ["../escape.pt", "/etc/escape.pt", "."])
def test_a_model_stays_below_its_folder(load, bare, host, path):
    message = load(bare, models=[{**LAMA, "path": path}], held=[{**LAMA, "path": path}], failed=True)["msg"]
    assert "not below the folder of models" in message


@pytest.mark.parametrize("share", [0.999, 0.9, 0.5, 0.1])
def test_a_truncated_archive_is_refused_before_anything_is_loaded(load, bare, host, tmp_path, share):
    cut = tmp_path / "cut.tar.zst"
    with open(bare, "rb") as file:
        data = file.read()
    cut.write_bytes(data[: int(len(data) * share)])
    message = load(cut, source=bare, names={"path": "/srv/cut.tar.zst"}, failed=True)["msg"]
    assert "The bundle /srv/cut.tar.zst is damaged: " in message
    assert "Nothing was loaded" in message
    assert not host.ids
    assert not list((tmp_path / "there").iterdir())


@pytest.mark.parametrize("share", [0.99, 0.9, 0.5, 0.1])
def test_a_truncated_tar_is_refused(load, bare, host, share):
    data = content(bare).rstrip(b"\0")
    assert "is damaged: " in load(damaged(bare, data[: int(len(data) * share)]), source=bare, failed=True)["msg"]
    assert not host.ids


@pytest.mark.parametrize("name", [f"models/{LAMA['path']}", "docker/compose.yaml", "images/manifest.json", "bundle.json"])
def test_a_changed_byte_is_found_and_its_file_named(load, bare, host, name):
    data = bytearray(content(bare))
    with tarfile.open(fileobj=io.BytesIO(bytes(data))) as tar:
        member = tar.getmember(name)
    data[member.offset_data + member.size // 2] ^= 1
    message = load(damaged(bare, bytes(data)), source=bare, failed=True)["msg"]
    assert f"{name} has the checksum " in message
    assert not host.ids


def test_a_changed_layer_is_found(load, bare, host):
    data = content(bare)
    assert data.count(b"sharedshared") > 1
    message = load(damaged(bare, data.replace(b"sharedshared", b"sharedSHARED", 1)), source=bare, failed=True)["msg"]
    assert "images/blobs/sha256/" in message
    assert not host.ids


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "its first bytes (none)"),
        (b"PK\x03\x04", "those of neither zstd nor gzip"),
        (None, "it can't be read: No such file or directory"),
    ],
)
def test_what_is_no_bundle_is_named(run_module, host, tmp_path, data, words):
    path = tmp_path / "bundle"
    if data is not None:
        path.write_bytes(data)
    message = run_module(bundle_info, path=str(path), failed=True)["msg"]
    assert f"The bundle {path} (path) can't be used: " in message
    assert words in message


def test_another_tar_is_named(run_module, bare):
    with tarfile.open(fileobj=(buffer := io.BytesIO()), mode="w") as tar:
        tar.addfile(tarfile.TarInfo("README"))
    message = run_module(bundle_info, path=damaged(bare, buffer.getvalue()), failed=True)["msg"]
    assert "it begins with README and not with bundle.json" in message


IMAGE = {"variant": "cpu", "image": "iopaint:cpu-1", "ref": "main", "id": "sha256:1", "size": 1, "tags": ["iopaint:cpu-1"]}


def of_members(bare, **members):
    """An archive of texts, by name with two underscores for a dot and SLASH for a slash."""
    with tarfile.open(fileobj=(buffer := io.BytesIO()), mode="w") as tar:
        for name, text in members.items():
            member = tarfile.TarInfo(name.replace("__", ".").replace("SLASH", "/"))
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text))
    return damaged(bare, buffer.getvalue())


@pytest.mark.parametrize(
    ("manifest", "words"),
    [
        ({}, "images in its bundle.json is no list"),
        ({"images": {}, "models": []}, "images in its bundle.json is no list"),
        ({"images": [], "models": None}, "models in its bundle.json is no list"),
        ({"images": ["x"], "models": []}, "images in its bundle.json[0] has no variant of the right kind"),
        ({"images": [{**IMAGE, "variant": []}], "models": []}, "has no variant of the right kind"),
        ({"images": [{**IMAGE, "size": -1}], "models": []}, "has no size of the right kind"),
        ({"images": [{**IMAGE, "tags": "x"}], "models": []}, "has no tags of the right kind"),
        ({"images": [IMAGE], "models": [{"name": "x", "path": "a"}]}, "has no checksum of the right kind"),
        ({"images": [IMAGE], "models": [{**LAMA, "checksum": "crc:00"}]}, "has a path or a checksum that can't be one"),
        ({"images": [IMAGE], "models": [{**LAMA, "path": "a\0b"}]}, "has a path or a checksum that can't be one"),
    ],
)
def test_a_manifest_of_another_form_is_named(run_module, bare, manifest, words):
    path = of_members(bare, bundle__json=json.dumps({"schema": 1, **manifest}).encode())
    assert words in run_module(bundle_info, path=path, variants=["cpu"], failed=True)["msg"]


@pytest.mark.parametrize("text", [b"[" * 100_000, b"\xff", b"NaN", b'{"schema": 1e999}'])
def test_a_manifest_that_is_no_json_is_named(run_module, bare, text):
    message = run_module(bundle_info, path=of_members(bare, bundle__json=text), failed=True)["msg"]
    assert "can't be used: " in message


@pytest.mark.parametrize(
    "saved",
    [[], [{}], [{"Config": "a"}], [{"Config": 1, "Layers": []}], [{"Config": "a", "Layers": [1]}], {}, "x", [None],
     [{"Config": "a", "Layers": [], "RepoTags": "iopaint:cpu-1"}]],
)  # fmt: skip
def test_docker_s_own_list_of_another_form_is_named(load, bare, saved):
    manifest = json.dumps({"schema": 1, "images": [IMAGE], "models": []}).encode()
    texts = {"bundle.json": manifest, "images/manifest.json": json.dumps(saved).encode()}
    sums = "".join(f"{hashlib.sha256(text).hexdigest()}  {name}\n" for name, text in texts.items()).encode()
    path = of_members(bare, bundle__json=manifest, imagesSLASHmanifest__json=texts["images/manifest.json"], SHA256SUMS=sums)
    message = load(path, source=bare, failed=True)["msg"]
    assert message.startswith("The bundle ")
    assert message.endswith("Nothing was loaded, and nothing that runs was touched.")


@pytest.mark.parametrize("images", [[{}], [{"image": 7}], [{**IMAGE, "size": "x"}]])
def test_entries_that_a_load_can_t_use_are_named(load, bare, images):
    assert "can't be used: images" in load(bare, images=images, failed=True)["msg"]


def test_a_fifo_in_the_place_of_a_bundle_is_named_and_not_waited_for(run_module, host, tmp_path):
    os.mkfifo(tmp_path / "bundle")
    assert "it is not a regular file" in run_module(bundle_info, path=str(tmp_path / "bundle"), failed=True)["msg"]


def test_a_host_without_the_program_says_so(run_module, bare, host):
    (host.bin / "zstd").unlink()
    message = run_module(bundle_info, path=bare, failed=True)["msg"]
    assert "compressed with zstd, which this machine has not" in message
    assert "with another compression" in message


def test_too_little_disk_is_said_before_a_load(load, bare, host, run_module):
    images = run_module(bundle_info, path=bare, variants=["cpu"])["images"]
    message = load(bare, images=[{**images[0], "size": 10**15}], failed=True)["msg"]
    assert f"needs 2000000.0 GB at {host.root} while it is loaded" in message
    assert not host.ids


def test_a_load_that_fails_says_why(load, bare, host):
    host.set(load_error="open /var/lib/docker/tmp: no space left on device\n")
    assert "docker load: open /var/lib/docker/tmp: no space left on device" in load(bare, failed=True)["msg"]


def test_compressions_of_the_reader_are_those_of_the_writer():
    assert set(bundle.SUFFIXES) == set(bundle.COMPRESSIONS) == set(COMPRESSORS)


# ---- a bundle that somebody else has made ----------------------------------------------------------------------------


def remade(path, manifest=None, saved=None):
    """Make a bundle anew with another manifest or another list of images, and every checksum right."""
    target = os.path.join(os.path.dirname(path), "remade.tar.gz")
    with (
        tarfile.open(fileobj=io.BytesIO(content(path))) as tar,
        bundle.compressed(target, "gzip", COMPRESSORS["gzip"]) as stream,
        bundle.Writer(stream, (manifest or dict)(json.load(tar.extractfile("bundle.json")))) as writer,
    ):
        for member in tar:
            if member.issym():
                writer.tar.addfile(member)
                writer.links[member.name] = bundle.target(member.name, member.linkname)
            elif member.name == bundle.SAVED and saved:
                writer.text(member.name, json.dumps(saved(json.load(tar.extractfile(member)))))
            elif member.name not in (bundle.MANIFEST, bundle.SUMS):
                writer.add(member.name, member.size, tar.extractfile(member))
    return target


@pytest.mark.parametrize("name", ["postgres:16", "iopaint:gpu-latest", "iopaint-release:cpu-0001", "evil.example/iopaint:cpu-1"])
def test_only_images_of_this_collection_are_loaded(load, bare, host, run_module, name):
    """Neither by their own name, nor as a further name of an image of ours."""

    def manifest(found):
        (image,) = [image for image in found["images"] if image["variant"] == "cpu"]
        return {**found, "images": [{**image, "tags": [*image["tags"], name]}]}

    path = remade(bare, manifest)
    message = run_module(bundle_info, path=path, variants=["cpu"], failed=True)["msg"]
    assert f"has images that are not of this collection: {name}. " in message
    host.have(name)
    images = bundle.manifest_of(path, lambda program: COMPRESSORS[program])["images"]
    message = load(path, source=bare, images=images, failed=True)["msg"]
    assert f"has images that are not of this collection: {name}. Nothing was loaded" in message
    assert host.ids == {name: f"sha256:{name}"}


def test_names_that_only_the_list_of_images_has_do_not_reach_the_engine(load, bare, host):
    path = remade(bare, saved=lambda images: [{**image, "RepoTags": [*image["RepoTags"], "postgres:16"]} for image in images])
    load(path)
    assert set(host.ids) - {"files-read"} == set(built("cpu")["tags"])


@pytest.mark.parametrize("name", ["index.json", "oci-layout", "repositories", "../../etc/passwd", "blobs/sha256/abc"])
def test_a_file_that_is_no_part_of_an_image_does_not_reach_the_engine(load, bare, host, name):
    """With an index.json an engine loads whatever names that has."""
    path = remade(bare, saved=lambda images: [{**image, "Layers": [*image["Layers"], name]} for image in images])
    assert "is no part of an image. Nothing was loaded" in load(path, failed=True)["msg"]
    assert not host.ids


def test_another_archive_than_was_looked_at_is_refused(load, bare, host, run_module):
    other = remade(bare, lambda found: {**found, "images": found["images"][1:]})
    assert "is another one than at the beginning of the play" in load(other, source=bare, failed=True)["msg"]
    assert not host.ids


def test_the_archive_is_compared_with_its_checksum_before_it_is_read(load, bare, host, run_module):
    with open(bare, "rb") as file:
        right = "sha256:" + hashlib.sha256(file.read()).hexdigest()
    wrong = "sha256:" + "0" * 64
    assert run_module(bundle_info, path=bare, checksum=right)["images"] == []
    message = run_module(bundle_info, path=bare, checksum=wrong, failed=True)["msg"]
    assert f"it has not the checksum {wrong} (checksum)" in message
    message = run_module(bundle_info, path=bare, checksum="0123", failed=True)["msg"]
    assert "checksum is '0123', and has to be like sha256:0123…" in message
    assert "it has not the checksum" in load(bare, checksum=wrong, failed=True)["msg"]
    assert not host.ids
    assert load(bare, checksum=right.upper().replace("SHA256", "sha256"))["changed"] is True


# ---- a folder of models that a container can write -------------------------------------------------------------------


@pytest.fixture
def victim(tmp_path):
    """A file of root's, outside of the folder of models."""
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "big-lama.pt").write_bytes(WEIGHTS)
    (tmp_path / "victim" / "big-lama.pt").chmod(0o600)
    return tmp_path / "victim" / "big-lama.pt"


def untouched(victim):
    status = victim.stat()
    assert (status.st_uid, stat.S_IMODE(status.st_mode), victim.read_bytes()) == (os.geteuid(), 0o600, WEIGHTS)
    assert len(list(victim.parent.iterdir())) == 1


@as_root
def test_a_model_is_not_put_behind_a_link(load, bare, tmp_path, victim):
    os.chown(tmp_path / "there", USER, USER)
    (tmp_path / "there" / "torch" / "hub").mkdir(parents=True)
    (tmp_path / "there" / "torch" / "hub" / "checkpoints").symlink_to(victim.parent)
    victim.unlink()
    message = load(bare, owner=USER, failed=True)["msg"]
    assert "a link that somebody other than root can have put there" in message
    assert f"'{tmp_path}/there/torch/hub/checkpoints'" in message
    assert not list(victim.parent.iterdir())


@pytest.mark.parametrize("kind", ["link", "fifo"])
def test_what_stands_in_the_place_of_a_model_is_replaced(load, bare, tmp_path, victim, kind):
    """A link to a file with the right content is no model, and a FIFO keeps nobody waiting."""
    place = tmp_path / "there" / LAMA["path"]
    place.parent.mkdir(parents=True)
    place.symlink_to(victim) if kind == "link" else os.mkfifo(place)
    assert load(bare)["loaded"][1:] == [LAMA["path"]]
    assert not place.is_symlink()
    assert place.read_bytes() == WEIGHTS
    untouched(victim)


@as_root
def test_no_file_of_root_s_is_given_away_while_a_model_is_placed(load, bare, tmp_path, victim, adversary, monkeypatch):
    """Somebody puts a link in place of the file that is being written, as fast as they can."""
    copy = shutil.copyfileobj
    monkeypatch.setattr(bundle_load.shutil, "copyfileobj", lambda *args: (copy(*args), time.sleep(0.05)))  # as for a large model
    folder = tmp_path / "there" / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    os.chown(folder, USER, USER)
    adversary(folder, "hijack", ".", str(victim))
    hijacked, end = 0, time.monotonic() + 20
    while not hijacked and time.monotonic() < end:
        with suppress(AssertionError):  # a try whose file is gone fails
            load(bare, owner=USER)
        hijacked += (folder / "big-lama.pt").is_symlink()
        untouched(victim)
    assert hijacked


@pytest.mark.parametrize("kind", ["link", "fifo"])
def test_a_bundle_takes_no_file_from_behind_a_link(write, host, tmp_path, victim, kind):
    place = tmp_path / "models" / LAMA["path"]
    place.unlink()
    place.symlink_to(victim) if kind == "link" else os.mkfifo(place)
    assert "The model lama of models is not at" in write(failed=True)["msg"]
    assert not (tmp_path / "bundles").exists()


def test_a_bundle_takes_no_model_that_was_changed(write, host, tmp_path):
    (tmp_path / "models" / LAMA["path"]).write_bytes(WEIGHTS[::-1])
    message = write(failed=True)["msg"]
    assert f"{LAMA['path']} has not the checksum {LAMA['checksum']}. An earlier bundle was not touched" in message
    assert not list((tmp_path / "bundles").iterdir())


# ---- repositories of a hub -------------------------------------------------------------------------------------------

COMMIT = "1" * 40
HUB = "huggingface/hub/models--owner--model"


@pytest.fixture
def repository(tmp_path):
    """A repository in the models of the host that writes the bundle, as huggingface_hub lays it out."""
    top = tmp_path / "models" / HUB
    for name, blob in {"model_index.json": "a" * 40, "unet/model.safetensors": "b" * 64}.items():
        (top / "blobs").mkdir(parents=True, exist_ok=True)
        (top / "blobs" / blob).write_text(f"content of {name}")
        link = top / "snapshots" / COMMIT / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(top / "blobs" / blob, link.parent))
    for name, text in {"refs/main": COMMIT, f"fetched/{COMMIT}.json": "{}"}.items():
        (top / name).parent.mkdir()
        (top / name).write_text(text)
    return top


@pytest.mark.parametrize("revision", [COMMIT, "main"])
def test_a_repository_goes_with_the_bundle(write, load, host, repository, tmp_path, revision):
    path = write(repositories=[{"hub": "owner/model"}])["path"]
    assert write(repositories=[{"hub": "owner/model"}])["changed"] is False
    host.set(images={})
    wanted = [{"hub": "owner/model", "revision": revision}]
    assert f"{HUB}/refs/main" in load(source=path, repositories=wanted)["needs"]
    assert load(path, repositories=wanted)["changed"] is True
    there = tmp_path / "there" / HUB
    found = {str(file.relative_to(there)): file.read_text() for file in there.rglob("*") if file.is_file()}
    assert found == {
        f"snapshots/{COMMIT}/model_index.json": "content of model_index.json",
        f"snapshots/{COMMIT}/unet/model.safetensors": "content of unet/model.safetensors",
        f"fetched/{COMMIT}.json": "{}",
        "refs/main": COMMIT,
    }
    assert not [file for file in there.rglob("*") if file.is_symlink()]
    assert not [need for need in load(source=path, repositories=wanted)["needs"] if "hub" in need]


@pytest.mark.parametrize(
    "wanted", [[], [{"hub": "owner/other", "revision": "main"}], [{"hub": "owner/model", "revision": "2" * 40}]]
)
def test_a_repository_that_is_not_wanted_stays_in_the_bundle(write, load, host, repository, tmp_path, wanted):
    path = write(repositories=[{"hub": "owner/model"}])["path"]
    host.set(images={})
    load(path, repositories=wanted)
    assert not (tmp_path / "there" / "huggingface").exists()


def test_a_repository_that_is_not_whole_is_named(write, repository):
    (repository / "blobs" / ("b" * 64)).unlink()
    message = write(repositories=[{"hub": "owner/model"}], failed=True)["msg"]
    assert message.startswith("The model owner/model of models is not whole in ")
    assert "The model owner/none of models" in write(repositories=[{"hub": "owner/none"}], failed=True)["msg"]


def test_a_blob_that_is_a_link_is_not_read(write, repository, tmp_path):
    (tmp_path / "secret").write_text("x")
    blob = repository / "blobs" / ("b" * 64)
    blob.unlink()
    blob.symlink_to(tmp_path / "secret")
    assert "is not whole" in write(repositories=[{"hub": "owner/model"}], failed=True)["msg"]
