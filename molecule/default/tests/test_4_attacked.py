"""An instance that may write to the folder of models works against the next deploy."""

import attack
import pytest
from conftest import CONTAINER
from play import play

WRITABLE = {"iopaint_instances": [{"name": "cpu", "variant": "cpu", "port": 8080, "model": "cv2", "models_writable": True}]}
HUB = f"{attack.MODELS}/torch/hub"


@pytest.fixture(scope="module", autouse=True)
def deployed(request):
    host = request.getfixturevalue("host")
    done = play("deploy.yml", **WRITABLE)
    assert done.rc == 0, done.output
    yield
    # What exchanges the two ends with the container.
    host.check_output(f"docker stop {CONTAINER} && rm -rf {HUB}/checkpoints {HUB}/link && docker start {CONTAINER}")


@pytest.fixture
def victim(host):
    """What a folder of root's is like, which the container wants root to change."""
    yield from attack.victim(host)


def test_weights_are_not_downloaded_behind_a_link(host, victim):
    attack.in_container(host, CONTAINER, f"mv checkpoints aside && ln -s {attack.VICTIM} checkpoints")
    done = play("deploy.yml", **WRITABLE)
    assert done.rc != 0
    assert done.says(attack.REFUSED, f"'{HUB}/checkpoints'")
    assert attack.state(host) == victim
    attack.in_container(
        host, CONTAINER, f"rm checkpoints && mv aside checkpoints && ln -sf {attack.VICTIM}/big-lama.pt checkpoints/big-lama.pt"
    )
    done = play("deploy.yml", **WRITABLE)
    assert done.rc == 0, done.output
    assert attack.state(host) == victim
    assert host.check_output(f"stat -c '%F %u:%g %a' {HUB}/checkpoints/big-lama.pt") == "regular file 10001:10001 644"


def test_weights_are_not_downloaded_behind_an_exchanged_link(host, victim):
    attack.in_container(host, CONTAINER, f"ln -s {attack.VICTIM} link && rm checkpoints/big-lama.pt")
    exchange = f"docker exec -d -w /app/models/torch/hub {CONTAINER} /usr/bin/python3 -c %s checkpoints link"
    host.check_output(exchange, attack.EXCHANGE)
    for _attempt in range(2):
        play("deploy.yml", **WRITABLE)  # comes to its end or to the link, as luck will have it
        assert attack.state(host) == victim
