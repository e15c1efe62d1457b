"""Models that come from the folder of another host, and in a bundle. The host is as test_models.py has left it."""

import pytest
from conftest import CACHE, CONTAINER
from play import ROOT, play

MODELS, MIRROR = "/var/lib/iopaint/models", "/srv/models"
TINY, XL, VAE = "tests/tiny-inpainting", "tests/tiny-xl-inpainting", "madebyollin/sdxl-vae-fp16-fix"
UNET = "unet/diffusion_pytorch_model.safetensors"
BUNDLE = ROOT / "build" / "bundle" / "models.tar.zst"


@pytest.fixture
def pinned(commit):
    """iopaint_models with the commits that the host has."""
    return [{"hub": name, "revision": commit(name)} for name in (TINY, XL, VAE)]


@pytest.fixture
def restarts(host, healthy, inpaints):
    """Checks that the instance starts with what is in the folder of models now, and diffuses."""

    def check():
        host.check_output(f"docker restart {CONTAINER}")
        healthy()
        proof = inpaints(model=TINY)
        assert "msg" not in proof, proof["msg"]  # which only a failure has

    return check


def test_a_folder_of_another_host_that_is_missing_ends_the_play(host):
    done = play("molecule/models/deploy.yml", iopaint_models_mirror=MIRROR)
    assert done.rc != 0
    assert done.says(f"{MIRROR} (iopaint_models_mirror) must be a folder on the host", "Nothing was changed.")
    assert not host.file(MIRROR).exists


def test_what_another_host_has_is_copied_if_its_checksum_is_right(host, hub, asked, pinned, restarts):
    host.check_output(f"cp -a {MODELS} {MIRROR}")
    commit = pinned[0]["revision"]
    repository = f"{MIRROR}/huggingface/hub/models--tests--tiny-inpainting"
    host.check_output(f"printf x >> {repository}/snapshots/{commit}/{UNET}")
    host.check_output(f"find {MODELS} -mindepth 1 -delete")
    hub()
    done = play("molecule/models/deploy.yml", iopaint_models_mirror=MIRROR, iopaint_models=pinned)
    assert done.rc == 0, done.output[-4000:]
    downloaded = [each["path"] for each in asked() if each["method"] == "GET" and each["path"].startswith("/lfs/")]
    assert downloaded == [f"/lfs/{TINY}/{commit}/{UNET}"]
    host.check_output(f"rm -r {MIRROR}")
    restarts()


def test_a_backup_leaves_them_out_and_a_restore_fetches_them(host, hub, asked, pinned, restarts):
    """At the commits that the instance is held to, before it is stopped. A checkpoint of somebody's own is in the backup."""
    options = {"iopaint_backup_models": "own", "iopaint_backup_include": ["models"], "iopaint_backup_key": "of the test"}
    folder = f"{MODELS}/lora"
    checkpoint = f"{folder}/own.safetensors"
    host.check_output(f"mkdir -p {folder} && echo own > {checkpoint} && chown -R 10001:10001 {folder}")
    done = play("playbooks/backup.yml", **options)
    assert done.rc == 0, done.output[-4000:]
    assert done.says("own models (", *(f"{each['hub']} {each['revision'][:12]}" for each in pinned))
    listed = host.check_output("iopaint-restic ls latest --tag models")
    assert "/models/lora/own.safetensors" in listed
    assert "models--" not in listed

    main = [{"hub": name, "revision": "main"} for name in (TINY, XL, VAE)]
    before = host.check_output(f"cd {CACHE} && cat models--*/refs/main")
    host.check_output(f"find {MODELS} -mindepth 1 -delete")
    hub(failures=[404] * 100)
    done = play("playbooks/restore.yml", **options, iopaint_models=main)
    assert done.rc != 0
    assert done.says("Nothing was restored from", "could not be fetched", "No instance was touched.")
    assert host.run(f"ls {checkpoint}").rc != 0
    hub()
    done = play("playbooks/restore.yml", **options, iopaint_models=main)
    assert done.rc == 0, done.output[-4000:]
    assert done.output.index("Fetch models from the hub") < done.output.index("Stop each instance that uses the data")
    assert host.file(checkpoint).content_string == "own\n"
    assert host.check_output(f"cd {CACHE} && cat models--*/refs/main") == before
    restarts()
    hub()
    done = play("playbooks/restore.yml", **options, iopaint_models=main, iopaint_restore_delete=True)
    assert done.rc == 0, done.output[-4000:]
    assert done.changed("iopaint-models") == 0
    assert asked() == []
    host.check_output(f"rm {checkpoint}")


def test_a_bundle_brings_them_to_a_host_that_reaches_no_hub(host, pinned, restarts):
    BUNDLE.parent.mkdir(parents=True, exist_ok=True)
    done = play("playbooks/bundle.yml", iopaint_bundle_file=str(BUNDLE), iopaint_models=pinned)
    assert done.rc == 0, done.output[-4000:]
    assert done.says(TINY, XL, VAE, "Deploy it with iopaint_image_source=bundle")
    host.check_output("systemctl stop fixture-hub")
    try:
        host.check_output(f"find {MODELS} -mindepth 1 -delete")
        bundle = {"iopaint_image_source": "bundle", "iopaint_image_bundle": str(BUNDLE)}
        done = play("deploy.yml", **bundle, iopaint_models=pinned)
        assert done.rc == 0, done.output[-4000:]
        restarts()
    finally:
        host.check_output("systemctl start fixture-hub")
        BUNDLE.unlink()
