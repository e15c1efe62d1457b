"""An engine that remaps users: what an instance writes belongs to the mapped user of the host."""

import json
import subprocess

import pytest
from conftest import INSTANCES, NAMES, image
from play import ROOT, play

HOST = 0
LIMIT = ("--limit", NAMES[HOST])
OUTPUTS = "/var/lib/iopaint/outputs/cpu"
CONTAINER = "iopaint-cpu-iopaint-cpu-1"
# A container in a container may not mount a new /proc or /sys while parts of its own are hidden.
UNHIDE = "awk '$2 ~ \"^/(proc/|sys/firmware)\" {print $2}' /proc/mounts | sort -r | xargs -r umount"


def owners(host):
    return host(f"stat -c %u:%g /var/lib/iopaint/models {OUTPUTS} {OUTPUTS}/*.png").split()


@pytest.fixture(scope="module", autouse=True)
def remapped(fleet):
    """The site turns userns-remap on, and off again. Each time the engine sees other images and containers."""
    host = fleet[HOST]
    before = host("cat /etc/docker/daemon.json")
    host("docker rm -f $(docker ps -aq)")
    host(UNHIDE)
    settings = json.dumps({**json.loads(before), "userns-remap": "default"})
    host(f"cat > /etc/docker/daemon.json <<'E'\n{settings}\nE\nsystemctl restart docker")
    subprocess.run([ROOT / "molecule/fleet/stand-in/load", NAMES[HOST]], check=True)
    assert "name=userns" in host("docker info --format '{{.SecurityOptions}}'")
    yield
    host("docker rm -f $(docker ps -aq)")
    host(f"cat > /etc/docker/daemon.json <<'E'\n{before}\nE\nsystemctl restart docker")
    run = play(INSTANCES, *LIMIT, iopaint_adopt_data=True)
    assert run.rc == 0, run.output


def test_data_of_before_is_named_by_the_mapped_user(fleet):
    host = fleet[HOST]
    run = play(INSTANCES, *LIMIT)
    assert run.rc == 2, run.output
    assert run.says(
        "that user 10001 of the image (110001 on the host, by userns-remap) can't write: kept.png (10001:10001 0644)",
        f"chown -R 110001:110001 {OUTPUTS}",
        "Nothing was changed.",
    ), run.output
    assert run.changed(NAMES[HOST]) == 0
    assert host("docker ps -aq") == ""


def test_an_instance_is_deployed_and_writes_its_folder(fleet):
    host = fleet[HOST]
    host("rm -f /opt/iopaint/instances/photo.png")  # it comes out of the image
    run = play("deploy.yml", *LIMIT, iopaint_adopt_data=True)
    assert run.rc == 0, run.output
    assert run.says("http://127.0.0.1:8080 inpaints with cv2"), run.output
    assert host(f"docker exec {CONTAINER} cat /proc/self/uid_map").split()[:2] == ["0", "100000"]
    host(f"docker exec {CONTAINER} sh -c 'echo saved > /app/outputs/new.png && cat /app/outputs/kept.png'")
    assert set(owners(host)) == {"110001:110001"}
    again = play(INSTANCES, *LIMIT)
    assert (again.rc, again.changed(NAMES[HOST])) == (0, 0), again.output
    host(f"rm {OUTPUTS}/new.png")


def test_a_mapping_that_is_too_small_stops_nothing(fleet):
    host = fleet[HOST]
    before = host.container()
    host("cp /etc/subuid /root/subuid && sed -i s/65536/5000/ /etc/subuid")
    run = play("playbooks/upgrade.yml", *LIMIT, **image("v2"))
    host("mv /root/subuid /etc/subuid")
    assert run.rc == 2, run.output
    assert run.says("The engine maps 5000 users (userns-remap), and the image runs as user 10001.", "Nothing was changed."), (
        run.output
    )
    assert host.container() == before
