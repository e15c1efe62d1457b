"""Diffusion models on a host without a network: fetched, proven by a diffusion, switched, upgraded and rolled back.

Each test goes on from what the one before it left.
"""

import subprocess

from conftest import CACHE, CONTAINER, wait
from play import play, process

TINY, XL, VAE = "tests/tiny-inpainting", "tests/tiny-xl-inpainting", "madebyollin/sdxl-vae-fp16-fix"
FOLDER = f"{CACHE}/models--tests--tiny-inpainting"
UNET, TEXT = "unet/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"
FETCH = "docker run --rm --network none --volume /srv/fixtures:/fixtures:ro --entrypoint python iopaint:cpu-latest"


def test_the_host_has_no_way_out(host):
    """Its packages came from the same sites before (prepare.yml)."""
    assert host.run("timeout 60 apt-get update -o APT::Update::Error-Mode=any -o Acquire::Retries=0").rc == 100


def test_the_program_that_fetches_holds_against_a_bad_hub(host):
    done = host.run(f"{FETCH} /fixtures/fetch_models.py")
    assert done.rc == 0, done.stdout + done.stderr
    assert ", 0 failed" in done.stdout


def test_a_file_that_differs_ends_the_play_before_an_instance_is_touched(host, hub):
    hub(tampered=[UNET])
    done = play("molecule/models/deploy.yml")
    assert done.rc != 0
    assert done.says(f"{TINY} (iopaint_models) could not be fetched", f"{UNET} has ", "and the hub's metadata says")
    assert done.says("No instance was touched.")
    assert not host.file(f"{FOLDER}/refs/main").exists
    assert host.check_output("docker ps -aq") == ""


def test_a_download_that_was_killed_is_taken_up_and_the_model_is_proven(host, hub, asked):
    host.check_output(f"rm -rf {FOLDER}")
    hub(stalled={TEXT: 22 << 20})
    with subprocess.Popen(**process("molecule/models/deploy.yml")) as running:
        wait(lambda: host.run(f"find {FOLDER}/blobs -name '*.incomplete' -size +19M | grep .").rc == 0, 180)
        host.check_output("docker kill $(docker ps -q)")
        output = running.communicate(timeout=180)[0]
    assert running.returncode != 0
    assert "could not be fetched" in output
    hub()
    done = play("deploy.yml")
    assert done.rc == 0, done.output[-4000:]
    ranges = [each["range"] for each in asked() if f"/{TINY}/" in each["path"] and each["path"].endswith(TEXT) and each["range"]]
    assert ranges == [f"bytes={20 << 20}-"]
    assert done.says("iopaint-models fetches models, ", f"{TINY} at ", "3 repositories, ", "MB/s)")
    assert done.says(f"inpaints with {TINY}:", "s for each step")


def test_the_record_has_proof_and_commits(release, commit):
    record, _picture = release()
    proof = record["proof"]
    assert proof["model"] == TINY
    assert 0 < proof["seconds_per_step"] * 4000 <= proof["latency_ms"] + 10
    assert proof["pixels"]["changed_inside"] > 0.9 * proof["pixels"]["masked"]
    assert proof["pixels"]["changed_outside"] == 0
    held = dict(each.split("=") for each in record["environment"]["IOPAINT_FLEET_REVISIONS"].split(","))
    assert held == {name: commit(name) for name in (TINY, XL, VAE)}


def test_neither_deploy_nor_start_asks_the_hub(host, commit, healthy, inpaints):
    host.check_output("systemctl stop fixture-hub")
    try:
        done = play("deploy.yml", iopaint_models=[{"hub": name, "revision": commit(name)} for name in (TINY, XL, VAE)])
        assert done.rc == 0, done.output[-4000:]
        assert done.changed("iopaint-models") == 0
        host.check_output(f"docker restart {CONTAINER}")
        healthy()
        proof = inpaints(model=TINY)
        assert "msg" not in proof, proof["msg"]  # which only a failure has
    finally:
        host.check_output("systemctl start fixture-hub")


def test_the_page_offers_what_is_on_the_host_and_switches_to_it(api, inpaints):
    offered = {model["name"]: model["model_type"] for model in api("/api/v1/server-config")["modelInfos"]}
    assert offered == {"cv2": "inpaint", TINY: "diffusers_sd_inpaint", XL: "diffusers_sdxl_inpaint"}
    try:
        assert api("/api/v1/model", {"name": XL})["name"] == XL
        proof = inpaints(model=XL)
        assert "msg" not in proof, proof["msg"]
        assert proof["seconds_per_step"] > 0
    finally:
        assert api("/api/v1/model", {"name": TINY})["name"] == TINY


def test_another_revision_is_a_release_and_a_rollback_brings_the_model_back(hub, asked, release):
    first, picture = release()
    hub()
    done = play("deploy.yml", iopaint_models=[{"hub": TINY, "revision": "v2"}, {"hub": XL}, {"hub": VAE, "revision": "main"}])
    assert done.rc == 0, done.output[-4000:]
    fetched = [each["path"] for each in asked() if each["method"] == "GET" and each["path"].startswith("/lfs/")]
    assert [path.endswith(UNET) for path in fetched] == [True]  # the rest is the same
    second, other_picture = release()
    assert second["replaces"] == first["id"]
    assert second["environment"]["IOPAINT_FLEET_REVISIONS"] != first["environment"]["IOPAINT_FLEET_REVISIONS"]
    assert other_picture != picture

    hub(failures=[503] * 100)
    done = play("playbooks/rollback.yml")
    assert done.rc == 0, done.output[-4000:]
    again, same_picture = release()
    assert (again["id"], same_picture) == (first["id"], picture)
    assert asked() == []


def test_a_checkpoint_in_one_file_is_offered(host, api):
    source = "/srv/hub/checkpoint/tiny-inpainting.safetensors"
    checkpoint = {
        "name": "tiny-checkpoint",
        "url": f"file://{source}",
        "checksum": f"sha256:{host.check_output(f'sha256sum {source}').split()[0]}",
        "path": "stable_diffusion/tiny-inpainting.safetensors",
    }
    models = [{"hub": name, "revision": "main"} for name in (TINY, XL, VAE)]
    done = play("molecule/models/deploy.yml", iopaint_models=[*models, checkpoint])
    assert done.rc == 0, done.output[-4000:]
    offered = {model["name"]: model["model_type"] for model in api("/api/v1/server-config")["modelInfos"]}
    assert offered["tiny-inpainting.safetensors"] == "diffusers_sd_inpaint"
