"""What breaks between hosts and registry: what serves is untouched, nothing is recorded, and the error says what to do."""

import re
import threading

import pytest
from conftest import REPOSITORY
from play import play

HALF_PULLED = "find /var/lib/docker/tmp -name 'GetImageBlob*'"  # where the engine keeps a layer until it is whole
MEGABYTES = 60  # of random data in a layer of its own: long enough for a pull to be cut in its middle


@pytest.fixture
def untouched(builder, other):
    """Whatever fails, both hosts go on as before, and no login stays behind."""
    before = [(host.serves(), host.state()) for host in (builder, other)]
    yield
    assert [(host.serves(), host.state()) for host in (builder, other)] == before
    assert builder.has_no_login()
    assert other.has_no_login()


def lost(*hosts):
    """Let hosts not know the registry's authority, as on their first day."""
    for host in hosts:
        host("rm -rf /etc/docker/certs.d")


def test_registry_down(untouched, registry):
    registry("systemctl stop docker-registry")
    done = play("playbooks/build.yml", iopaint_image_ref="v3")
    registry("systemctl start docker-registry")
    assert done.rc != 0
    assert done.says(
        "connection refused", "that the host reaches iopaint-registry:5443 (iopaint_registry)", "Nothing that runs was touched."
    )


def test_wrong_password(untouched):
    done = play("playbooks/build.yml", iopaint_image_ref="v3", iopaint_registry_password="wrong")
    assert done.rc != 0
    assert done.says("The registry refuses the login. Check the login (iopaint_registry_username and iopaint_registry_password)")


def test_unknown_authority(untouched, builder, other):
    lost(builder, other)
    done = play("playbooks/build.yml", iopaint_image_ref="v3", iopaint_registry_ca="")
    assert done.rc != 0
    assert done.says("certificate signed by unknown authority", "iopaint_registry_ca")


@pytest.fixture(scope="module")
def pushed(stand_in, builder):
    """A release that the registry has and the other host doesn't: pushed as a run for the builder alone does."""
    name = stand_in("v3", MEGABYTES)
    done = play("playbooks/build.yml", "-l", builder.name, iopaint_image_ref="v3")
    assert done.rc == 0, done.output
    return name


def test_disk_full_during_a_pull(pushed, other, builder):
    """The builder has the image and is upgraded; the other host has no room for it."""
    before = (other.serves(), other.state())
    other("mount -t tmpfs -o size=20m tmpfs /var/lib/docker/tmp")  # where the engine keeps what it downloads
    done = play("playbooks/upgrade.yml", iopaint_image_ref="v3")
    left = other(HALF_PULLED)
    other("umount /var/lib/docker/tmp")
    assert done.rc != 0
    assert done.says("no space left on device. The disk is full where the engine keeps its data (/var/lib/docker)")
    assert re.search(rf"{other.name} +cpu +(\S+) +\1 +failed", done.output), done.output
    assert (other.serves(), other.state()) == before
    assert builder.serves() == "v3"
    assert left == ""  # the engine has cleared what it had


def test_a_pull_that_is_cut_in_its_middle(pushed, untouched, registry, other):
    """The line is slow, and the registry stops once a part of the layer is there."""
    registry("tc qdisc replace dev eth0 root tbf rate 40mbit burst 64kb latency 400ms")
    result = {}
    thread = threading.Thread(target=lambda: result.update(done=play("playbooks/build.yml", iopaint_image_ref="v3")))
    thread.start()
    half = other.shell.run(
        "for each in $(seq 3000); do [ $(du -sm /var/lib/docker/tmp | cut -f1) -ge 15 ] && exit 0; sleep 0.1; done; exit 1"
    )
    registry("systemctl stop docker-registry")
    thread.join()
    registry("tc qdisc del dev eth0 root; systemctl start docker-registry")
    done = result["done"]
    assert half.rc == 0, done.output
    assert done.rc != 0
    assert done.says(
        f"The image {REPOSITORY}@sha256:", "could not be pulled", "that the host reaches iopaint-registry:5443 (iopaint_registry)"
    )
    assert other(HALF_PULLED) == ""


def test_the_same_command_goes_on_once_the_cause_is_gone(pushed, builder, other):
    done = play("playbooks/upgrade.yml", iopaint_image_ref="v3")
    assert done.rc == 0, done.output
    assert (builder.serves(), other.serves()) == ("v3", "v3")
    assert other.record()["digest"] == builder.record()["digest"]
