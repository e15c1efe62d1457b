"""What the deploy play leaves on the host."""

import json
import re

from conftest import CONTAINER


def test_engine(host):
    docker = host.service("docker")
    assert docker.is_running
    assert docker.is_enabled
    assert host.check_output("docker buildx version")
    assert re.match(r"v?2\.", host.check_output("docker compose version --short"))


def test_daemon_json(host):
    settings = json.loads(host.file("/etc/docker/daemon.json").content_string)
    assert settings["live-restore"] is True
    assert host.check_output("docker info --format '{{.LiveRestoreEnabled}}'") == "true"


def test_container_is_healthy(container):
    assert container["State"]["Status"] == "running"
    assert container["State"]["Health"]["Status"] == "healthy"
    assert container["RestartCount"] == 0


def test_image_says_what_is_in_it(host, container):
    labels = container["Config"]["Labels"]
    commit = host.check_output("git -C /opt/iopaint/image/git rev-parse HEAD")
    assert labels["org.opencontainers.image.revision"] == commit
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", labels["org.opencontainers.image.created"])
    recipe = labels["io.iopaint.fleet.recipe"]
    assert container["Config"]["Image"] == f"iopaint:cpu-{commit[:12]}-{recipe[:12]}"
    for tag in ("iopaint:cpu-v1.6.0", "iopaint:cpu-latest"):
        assert host.check_output(f"docker image inspect --format '{{{{.Id}}}}' {tag}") == container["Image"]


def test_page_and_its_script(api):
    status, page = api("/")
    assert status == 200
    script = re.search(r'src="(/assets/[^"]+\.js)"', page)[1]
    status, code = api(script)
    assert status == 200
    assert "/api/v1" in code


def test_inpaints_with_cv2(inpaints):
    proof = inpaints(model="cv2")
    assert "msg" not in proof, proof["msg"]  # which only a failure has
    assert proof["pixels"]["changed_inside"] > 0.9 * proof["pixels"]["masked"]
    assert proof["pixels"]["changed_outside"] == 0


def test_switches_to_lama_and_back(api, inpaints):
    status, body = api("/api/v1/model", {"name": "lama"})
    assert (status, json.loads(body)["name"]) == (200, "lama")
    try:
        proof = inpaints(model="lama")
        assert "msg" not in proof, proof["msg"]  # which only a failure has
    finally:
        status, body = api("/api/v1/model", {"name": "cv2"})
    assert (status, json.loads(body)["name"]) == (200, "cv2")


def test_proof_can_tell(inpaints):
    """The proof fails where another model answers than the one that should."""
    assert "the model is cv2" in inpaints(model="mat")["msg"]


def test_outputs_survive_a_new_container(host, api, container):
    folder = "/var/lib/iopaint/outputs/cpu"
    host.check_output(
        "curl -sS -m 60 --fail -F 'file=@/opt/iopaint/instances/photo.png;filename=kept.png' http://127.0.0.1:8080/api/v1/save_image"
    )
    before = host.check_output(f"sha256sum {folder}/kept.png")
    host.check_output("cd /opt/iopaint/instances/cpu/current && docker compose --profile cpu up -d --wait --force-recreate")
    assert host.check_output(f"docker inspect --format '{{{{.Id}}}}' {CONTAINER}") != container["Id"]
    assert host.check_output(f"sha256sum {folder}/kept.png") == before
    assert host.check_output(f"docker exec {CONTAINER} sha256sum /app/outputs/kept.png").split()[0] == before.split()[0]


def test_not_root(host):
    status = host.check_output(f"docker exec {CONTAINER} cat /proc/1/status /proc/self/status")
    assert set(re.findall(r"^Uid:\s+(\d+)", status, re.MULTILINE)) == {"10001"}
    assert set(re.findall(r"^Cap(?:Eff|Bnd|Prm):\s+(\w+)", status, re.MULTILINE)) == {"0" * 16}
    assert set(re.findall(r"^NoNewPrivs:\s+(\d)", status, re.MULTILINE)) == {"1"}


def test_root_is_read_only(host):
    assert "Read-only file system" in host.run(f"docker exec {CONTAINER} touch /opt/iopaint/x").stderr
    assert host.run(f"docker exec {CONTAINER} touch /tmp/x").rc == 0


def test_models_are_read_only(host):
    """The play has downloaded the weights, so no instance can change them."""
    assert "Read-only file system" in host.run(f"docker exec {CONTAINER} ln -s / /app/models/link").stderr
    weights = "/var/lib/iopaint/models/torch/hub/checkpoints/big-lama.pt"
    assert host.check_output(f"stat -c '%F %u:%g %a' {weights}") == "regular file 10001:10001 644"
    assert not host.file("/opt/iopaint/instances/.weights").exists


def test_limits(container):
    limits = container["HostConfig"]
    assert limits["Memory"] == 6 * 1024**3
    assert limits["PidsLimit"] == 512
    assert limits["LogConfig"] == {"Type": "json-file", "Config": {"max-file": "5", "max-size": "10m"}}
    assert limits["RestartPolicy"]["Name"] == "unless-stopped"


def test_published_on_loopback_only(host):
    listening = host.check_output("ss -H -ltnp")
    published = [line.split()[3] for line in listening.splitlines() if "docker-proxy" in line]
    assert published == ["127.0.0.1:8080"]


def test_options_are_not_for_everybody(host):
    options = host.file("/opt/iopaint/instances/cpu/current/options.env")
    assert (options.mode, options.user) == (0o600, "root")
