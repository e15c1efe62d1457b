"""A model that IOPaint itself fetches, from a mirror that the instance names."""

import hashlib
import json

import attack
import pytest

MIRROR = "/srv/mirror"
MODEL = "/var/lib/iopaint/models/torch/hub/checkpoints"
CONTAINER = "iopaint-mirrored-iopaint-cpu-1"


@pytest.fixture(scope="module")
def deploy(from_bundle, inside):
    """Deploys an instance with a mirror on the host."""
    inside.check_output(f"mkdir -p {MIRROR} && cp {MODEL}/big-lama.pt {MIRROR}/anime.pt")
    bridge = inside.check_output("docker network inspect bridge --format '{{(index .IPAM.Config 0).Gateway}}'")
    urls = {
        "ANIME_LAMA_MODEL_URL": f"http://{bridge}:8002/anime.pt",
        "ANIME_LAMA_MODEL_MD5": hashlib.md5(inside.file(f"{MIRROR}/anime.pt").content).hexdigest(),  # noqa: S324 - what IOPaint compares
    }
    mirrored = {"name": "mirrored", "variant": "cpu", "port": 8090, "model": "anime-lama"}
    instance = {**mirrored, "model_urls": urls, "hub_endpoint": "http://hub.example.com"}
    return lambda: from_bundle("deploy.yml", iopaint_instances=[instance])


def test_an_instance_fetches_its_model_from_its_mirror(deploy, inside):
    """The bundle's weights under another name, on the host itself, as the network has no other site."""
    bridge = inside.check_output("docker network inspect bridge --format '{{(index .IPAM.Config 0).Gateway}}'")
    inside.check_output(f"systemd-run --unit mirror /usr/bin/python3 -m http.server --bind {bridge} --directory {MIRROR} 8002")
    done = deploy()
    assert done.rc == 0, done.output[-3000:]
    assert inside.file(f"{MODEL}/anime.pt").content == inside.file(f"{MIRROR}/anime.pt").content
    assert json.loads(inside.check_output("curl -sSf http://127.0.0.1:8090/api/v1/model"))["name"] == "anime-lama"
    assert "GET /anime.pt" in inside.check_output("journalctl --unit mirror --no-pager --output cat")
    environment = inside.check_output(f"docker exec {CONTAINER} env")
    assert "HF_ENDPOINT=http://hub.example.com" in environment


@pytest.fixture
def victim(inside):
    """What a folder of root's is like, which the container wants root to change; afterwards the models are as they were."""
    yield from attack.victim(inside)


def test_a_deploy_does_not_follow_a_link_that_the_container_has_made(deploy, inside, victim):
    """It downloads models itself, so it may write to their folder."""
    attack.in_container(inside, CONTAINER, f"mv checkpoints aside && ln -s {attack.VICTIM} checkpoints")
    done = deploy()
    assert done.rc != 0
    assert done.says(attack.REFUSED, f"'{MODEL}'")
    assert attack.state(inside) == victim
    attack.in_container(inside, CONTAINER, "rm checkpoints && mv aside checkpoints")
    attack.in_container(inside, CONTAINER, f"ln -sf {attack.VICTIM}/big-lama.pt checkpoints/big-lama.pt")
    done = deploy()
    assert done.rc == 0, done.output[-3000:]
    assert attack.state(inside) == victim
    assert inside.check_output(f"stat -c '%F %u:%g %a' {MODEL}/big-lama.pt") == "regular file 10001:10001 644"


def test_a_link_exchanged_while_a_deploy_runs_is_not_followed(deploy, inside, victim):
    attack.in_container(inside, CONTAINER, f"ln -s {attack.VICTIM} link && rm checkpoints/big-lama.pt")
    inside.check_output(
        f"docker exec -d -w /app/models/torch/hub {CONTAINER} /usr/bin/python3 -c %s checkpoints link", attack.EXCHANGE
    )
    for _attempt in range(3):
        deploy()  # comes to its end or to the link, as luck will have it
        assert attack.state(inside) == victim
