"""The guard before the real application: tests/image/guard.py attacks it, from the container's own network."""

from pathlib import Path

import pytest

ATTACKS = Path(__file__).parents[3] / "tests/image/guard.py"
OWN = ["REQUIRE_GPU=false", "QUEUE=0", "OUTPUTS_GB=1", "ALLOWED_HOSTS=paint.example.com"]
SETTINGS = " ".join(
    f"-e IOPAINT_{word}" for word in ["DEVICE=cpu", "MODEL=cv2", "INPUT=/app/outputs", *(f"FLEET_{word}" for word in OWN)]
)
HEALTHY = "import urllib.request as r; r.urlopen('http://127.0.0.1:8080/api/v1/model', timeout=5)"


@pytest.fixture
def image(host, variant):
    """The image, of which a container serves."""
    image = f"iopaint:{variant}-latest"
    host.check_output(f"docker run -d --name guarded --restart unless-stopped --read-only --tmpfs /tmp {SETTINGS} {image}")
    asked = f'docker exec guarded python3 -c "{HEALTHY}"'
    done = host.run(f"for i in $(seq 150); do {asked} 2>/dev/null && exit; sleep 0.5; done; docker logs guarded; exit 1")
    assert done.rc == 0, done.stdout + done.stderr
    yield image
    host.check_output("docker rm -fv guarded")


def test_attacks(host, image):
    attack = f"docker run --rm -i --network container:guarded --entrypoint python {image} -"
    done = host.run(f"printf %s %s | {attack}", "%s", ATTACKS.read_text())
    assert done.rc == 0, done.stdout + done.stderr
    assert host.check_output("docker inspect --format '{{.RestartCount}}' guarded") == "0"
