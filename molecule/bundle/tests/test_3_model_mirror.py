"""A model that IOPaint itself fetches, from a mirror that the instance names."""

import hashlib
import json

MIRROR = "/srv/mirror"
MODEL = "/var/lib/iopaint/models/torch/hub/checkpoints"


def test_an_instance_fetches_its_model_from_its_mirror(from_bundle, inside):
    """The bundle's weights under another name, on the host itself, as the network has no other site."""
    bridge = inside.check_output("docker network inspect bridge --format '{{(index .IPAM.Config 0).Gateway}}'")
    inside.check_output(f"mkdir -p {MIRROR} && cp {MODEL}/big-lama.pt {MIRROR}/anime.pt")
    inside.check_output(f"systemd-run --unit mirror /usr/bin/python3 -m http.server --bind {bridge} --directory {MIRROR} 8002")
    weights = inside.file(f"{MIRROR}/anime.pt").content
    urls = {
        "ANIME_LAMA_MODEL_URL": f"http://{bridge}:8002/anime.pt",
        "ANIME_LAMA_MODEL_MD5": hashlib.md5(weights).hexdigest(),  # noqa: S324 - what IOPaint compares
    }
    mirrored = {"name": "mirrored", "variant": "cpu", "port": 8090, "model": "anime-lama"}
    instance = {**mirrored, "model_urls": urls, "hub_endpoint": "http://hub.example.com"}
    done = from_bundle("deploy.yml", iopaint_instances=[instance])
    assert done.rc == 0, done.output[-3000:]
    assert inside.file(f"{MODEL}/anime.pt").content == weights
    assert json.loads(inside.check_output("curl -sSf http://127.0.0.1:8090/api/v1/model"))["name"] == "anime-lama"
    assert "GET /anime.pt" in inside.check_output("journalctl --unit mirror --no-pager --output cat")
    environment = inside.check_output("docker exec iopaint-mirrored-iopaint-cpu-1 env")
    assert "HF_ENDPOINT=http://hub.example.com" in environment
