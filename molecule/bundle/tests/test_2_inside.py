"""Deployed from the bundle by a host that reaches nothing."""

import json
import re
import shutil
import subprocess
import tarfile

import pytest
from conftest import BUNDLE, INSIDE
from play import ROOT, deployed


def nothing_is_loaded(host):
    return host.check_output("docker images -q") == "" and not host.file("/var/lib/iopaint/models").exists


def test_the_host_reaches_nothing(builder, inside):
    address = builder.check_output("hostname -i").split()[0]
    builder.check_output(f"curl -sS -m 5 -o /dev/null http://{address}:9418/ || [ $? -ne 7 ]")  # somebody listens there
    assert inside.run(f"curl -sS -m 3 http://{address}:9418/").rc in (7, 28)
    assert inside.run("timeout 20 apt-get update -o APT::Update::Error-Mode=any -o Acquire::Retries=0").rc != 0


@pytest.mark.parametrize("damage", ["cut off", "another byte"])
def test_a_damaged_bundle_is_named_and_nothing_is_loaded(from_bundle, inside, tmp_path, damage):
    broken = tmp_path / "broken.tar.zst"
    shutil.copy(BUNDLE, broken)
    with broken.open("r+b") as file:
        if damage == "cut off":
            file.truncate(int(BUNDLE.stat().st_size * 0.6))
        else:
            file.seek(int(BUNDLE.stat().st_size * 0.6))
            file.write(b"damaged")
    done = from_bundle("playbooks/build.yml", iopaint_image_bundle=str(broken))
    assert done.rc != 0
    assert done.says(
        f"The bundle {broken} (iopaint_image_bundle) is damaged: ", "Nothing was loaded, and nothing that runs was touched."
    )
    assert nothing_is_loaded(inside)
    assert not inside.file("/opt/iopaint/image/bundle.tar").exists


def test_a_variant_that_is_not_in_it_is_named(from_bundle, inside):
    done = from_bundle("playbooks/build.yml", iopaint_image_variants=["cpu", "gpu"])
    assert done.rc != 0
    assert done.says("holds no image for gpu. It holds: cpu (iopaint:cpu-", "iopaint_image_variants: [cpu, gpu]")
    assert nothing_is_loaded(inside)


def test_a_model_that_is_not_in_it_is_named(from_bundle, inside):
    models = [{"name": "mat", "url": "http://127.0.0.1:1/mat.pth"}]
    done = from_bundle("playbooks/build.yml", iopaint_models=models)
    assert done.rc != 0
    assert done.says(
        "lacks the model mat (md5:8ca927835fa3f5e21d65ffcb165377ed) of iopaint_models", "Models in the bundle: lama (sha256:"
    )
    assert nothing_is_loaded(inside)


def test_a_bundle_with_another_checksum_is_named(from_bundle, inside, checksum):
    wrong = checksum[:-1] + ("0" if checksum[-1] != "0" else "1")
    done = from_bundle("playbooks/build.yml", iopaint_image_bundle_checksum=wrong)
    assert done.rc != 0
    assert done.says(f"it has not the checksum {wrong} (iopaint_image_bundle_checksum)", "Nothing was changed.")
    assert nothing_is_loaded(inside)


@pytest.fixture
def forge(tmp_path, monkeypatch):
    """Makes the bundle anew with another manifest and another list of images, and every checksum right."""
    monkeypatch.syspath_prepend(str(ROOT / "build" / "collections"))
    from ansible_collections.iopaint.fleet.plugins.module_utils import bundle  # noqa: PLC0415

    def forge(manifest, saved):
        target = tmp_path / "forged.tar.zst"
        read = subprocess.Popen(["zstd", "-dcq", str(BUNDLE)], stdout=subprocess.PIPE)
        with (
            read,
            tarfile.open(fileobj=read.stdout, mode="r|") as tar,
            bundle.compressed(str(target), "zstd", shutil.which("zstd")) as stream,
            bundle.Writer(stream, manifest(json.load(tar.extractfile(next(members := iter(tar)))))) as writer,
        ):
            for member in members:
                if member.issym():
                    writer.tar.addfile(member)
                    writer.links[member.name] = bundle.target(member.name, member.linkname)
                elif member.name == bundle.SAVED:
                    writer.text(member.name, json.dumps(saved(json.load(tar.extractfile(member)))))
                elif member.name != bundle.SUMS:
                    writer.add(member.name, member.size, tar.extractfile(member))
        return str(target)

    return forge


def test_an_image_of_another_name_is_refused(from_bundle, inside, forge):
    def renamed(found):
        return {**found, "images": [{**image, "tags": [*image["tags"], "postgres:16"]} for image in found["images"]]}

    done = from_bundle("playbooks/build.yml", iopaint_image_bundle=forge(renamed, lambda images: images))
    assert done.rc != 0
    assert done.says("has images that are not of this collection: postgres:16", "Nothing was changed.")
    assert nothing_is_loaded(inside)


def test_a_further_name_does_not_reach_the_engine(from_bundle, inside, forge):
    """Of an image that is wanted: the engine is asked for the names that were checked."""

    def named(images):
        return [{**image, "RepoTags": [*image["RepoTags"], "postgres:16"]} for image in images]

    done = from_bundle("playbooks/build.yml", iopaint_image_bundle=forge(lambda found: found, named))
    assert done.rc == 0, done.output[-3000:]
    names = inside.check_output("docker images --format '{{.Repository}}'").split()
    assert set(names) == {"iopaint"}
    inside.check_output("docker rmi --force $(docker images -q) && rm -r /var/lib/iopaint")
    assert nothing_is_loaded(inside)


def test_a_dry_run_says_what_would_be_loaded(from_bundle, inside):
    done = from_bundle("deploy.yml", "--check", "--diff")
    assert done.rc == 0, done.output[-3000:]
    assert done.says("would be loaded from")
    assert nothing_is_loaded(inside)


def test_it_is_deployed_and_inpaints(from_bundle, inside, checksum):
    done = from_bundle("deploy.yml", iopaint_image_bundle_checksum=checksum)
    assert done.rc == 0, done.output[-3000:]
    assert re.search(r"inpaints with cv2: \d+ of \d+ pixels under the mask", " ".join(done.output.split()))
    assert not inside.file("/opt/iopaint/image/bundle.tar").exists
    model = inside.file("/var/lib/iopaint/models/torch/hub/checkpoints/big-lama.pt")
    assert (model.uid, model.gid, model.mode) == (10001, 10001, 0o644)


def test_the_instance_can_t_write_models(inside):
    container = "iopaint-cpu-iopaint-cpu-1"
    assert "Read-only file system" in inside.run(f"docker exec {container} ln -s / /app/models/link").stderr
    assert inside.run(f"docker exec {container} touch /app/outputs/written").rc == 0


def test_the_model_of_the_bundle_inpaints(inside):
    url = "http://127.0.0.1:8080/api/v1/model"
    answer = inside.check_output(f"curl -sSf -m 60 -H 'Content-Type: application/json' -d '{{\"name\": \"lama\"}}' {url}")
    assert json.loads(answer)["name"] == "lama"
    answer = inside.check_output(f"curl -sSf -m 60 -H 'Content-Type: application/json' -d '{{\"name\": \"cv2\"}}' {url}")
    assert json.loads(answer)["name"] == "cv2"


@pytest.mark.parametrize("arguments", [[], ["--check", "--diff"]])
def test_a_second_run_changes_nothing_and_moves_no_archive(from_bundle, inside, arguments):
    before = deployed(inside)
    done = from_bundle("deploy.yml", *arguments)
    assert done.rc == 0, done.output[-3000:]
    assert done.changed(INSIDE) == 0
    assert done.says("was there already")
    assert deployed(inside) == before


def test_the_image_is_the_builders(builder, inside):
    form = "docker image inspect --format '{{.Id}} {{.RepoTags}}' iopaint:cpu-latest"
    assert inside.check_output(form) == builder.check_output(form)


def test_an_upgrade_comes_from_a_bundle(make, from_bundle, builder, inside):
    """Another image, of an edit, takes the place of the one that serves."""
    builder.check_output(
        "rm -rf /root/edit && git clone -q -b v1.6.0 /srv/git/iopaint.git /root/edit && cd /root/edit"
        " && echo '# edited' >> iopaint/cli.py"
        " && git -c user.name=t -c user.email=t@example.com commit -qam edited && git push -qf origin HEAD:refs/heads/edited"
        " && git -C /srv/git/iopaint.git update-server-info"  # the site serves it by http
    )
    done = make(iopaint_image_ref="edited")
    assert done.rc == 0, done.output[-3000:]
    before = deployed(inside)
    done = from_bundle("playbooks/upgrade.yml")
    assert done.rc == 0, done.output[-3000:]
    assert deployed(inside) != before
    edited = builder.check_output("docker image inspect --format '{{.Id}}' iopaint:cpu-edited")
    assert [line.split()[1] for line in deployed(inside).values()] == [edited]
