"""Debian's packages taken anew: they are upgraded, make a release of their own, and a second time nothing."""

import json
import sys
from pathlib import Path

import pytest
from conftest import FOLDER, base

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "shared"))

from play import deployed, play

RECORD, LIST = f"{FOLDER}/refreshed.json", "/usr/share/iopaint-fleet/debian-packages.txt"
INSTANCE = "/opt/iopaint/instances/cpu"
OLD = "2020a-0+deb12u1"  # of tzdata, which Debian has no more


@pytest.fixture(autouse=True)
def on_the_cpu(variant):
    if variant == "gpu":
        pytest.skip("the CPU image shows it, and the packages of both are the same")


def derived(host, name, parent, command):
    """Make an image in which a command has run."""
    text = f"FROM {parent}\nRUN {command}\n"
    host.run_expect([0], "mkdir -p /root/derived && printf %s %s > /root/derived/Dockerfile", "%s", text)
    host.check_output(f"docker buildx build --quiet --load --tag {name} /root/derived")


def packages(host, image):
    lines = host.check_output(f"docker run --rm --network none --entrypoint cat {image} {LIST}").splitlines()
    return dict(line.split("=", 1) for line in lines)


def records(host):
    texts = host.check_output(f"cd {INSTANCE}/releases && for each in *; do tr -d '\\n' < $each/release.json; echo; done")
    return [json.loads(text) for text in texts.splitlines()]


def test_packages_of_the_base_are_upgraded_and_without_a_refresh_they_stay(host):
    """The base says that a package is old, as it would be months after it was pulled."""
    edit = f"sed -i '/^Package: tzdata$/,/^$/s/^Version: .*/Version: {OLD}/' /var/lib/dpkg/status"
    derived(host, "site/old:1", base(host), edit)
    found = {}
    for refreshed in ("", "now"):
        settings = f"BUILDX_BAKE_ENTITLEMENTS_FS=0 BASE=site/old:1 REFRESHED={refreshed}"
        options = "-f docker/docker-bake.hcl --progress plain --set debian-packages.output=type=local,dest=/root/list"
        done = host.run(f"cd {FOLDER} && {settings} docker buildx bake {options} debian-packages 2>&1")
        assert done.rc == 0, done.stdout[-3000:]
        found[refreshed] = dict(line.split("=", 1) for line in host.file("/root/list/debian-packages.txt").content_string.split())
    host.check_output("docker rmi site/old:1 && rm -r /root/list /root/derived")
    assert found[""]["tzdata"] == OLD
    assert found["now"]["tzdata"] > OLD
    assert found[""].keys() == found["now"].keys()


@pytest.fixture
def old(host):
    """A release whose image says that a package is old, and the record of a refresh that found it so."""
    before = host.check_output("docker image inspect --format '{{.Id}}' iopaint:cpu-latest")
    names = json.loads(host.check_output("docker image inspect --format '{{json .RepoTags}}' iopaint:cpu-latest"))
    host.check_output(f"docker tag {before} site/kept:1")  # a name that is not ours, so that no release removes the image
    edit = f"sed -i 's/^tzdata=.*/tzdata={OLD}/' {LIST}"
    derived(host, "iopaint:cpu-old", "iopaint:cpu-latest", edit)
    run = play("playbooks/deploy.yml", iopaint_images={"cpu": "iopaint:cpu-old"})
    assert run.rc == 0, run.output[-3000:]
    text = json.dumps({"time": "2020-02-01T00:00:00Z", "packages": packages(host, "iopaint:cpu-old")})
    host.run_expect([0], "printf %s %s > %s", "%s", text, RECORD)
    yield before
    host.check_output(f"docker compose --project-name iopaint-cpu down && rm -r {RECORD} {INSTANCE}")
    host.check_output(" && ".join(f"docker tag {before} {name}" for name in names))
    host.check_output("docker rmi site/kept:1")


def test_a_refresh_is_a_release_that_says_what_changed_and_a_second_one_is_none(host, old):
    run = play("playbooks/deploy.yml", iopaint_image_refresh=True)
    assert run.rc == 0, run.output[-3000:]
    first, second = records(host)
    assert (first["outcome"], second["outcome"]) == ("previous", "current")
    assert second["image_id"] not in (old, first["image_id"])
    change = f"tzdata {OLD} → {packages(host, second['image'])['tzdata']}"
    assert change in second["packages"]
    many = f"{len(second['packages'])} changed"  # one, unless Debian has published others since the base was made
    assert run.says(f"The images get newer Debian packages: {many}", f"; Debian packages: {many}")
    runs = deployed(host)

    again = play("playbooks/build.yml", iopaint_image_refresh=True)
    assert again.rc == 0, again.output[-3000:]
    assert again.says("Debian has no newer packages for the images.")
    without = play("playbooks/deploy.yml")
    assert without.rc == 0, without.output[-3000:]
    assert [record["id"] for record in records(host)] == [first["id"], second["id"]]
    assert deployed(host) == runs
