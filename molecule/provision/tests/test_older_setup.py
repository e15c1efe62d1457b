"""The host on which somebody had set up Docker by hand; the scenario has one, on Debian 12, or none."""

from __future__ import annotations

import json

import pytest
from conftest import GROUPS
from test_provision import DISTRIBUTION, packages


@pytest.fixture(params=GROUPS.get("museum", []))
def name(request):
    return request.param


def test_what_was_there_before_is_there(on, name):
    host = on(name)
    settings = json.loads(host.file("/etc/docker/daemon.json").content_string)
    assert (settings["labels"], settings["debug"]) == (["site=museum"], False)
    assert host.check_output("docker run --rm --volume kept:/kept:ro kept sleep 0; docker image ls -q kept") != ""
    assert host.file("/var/lib/docker/volumes/kept/_data/file").content_string == "precious\n"


def test_other_entries_are_disabled_and_a_copy_is_kept(on, name):
    host = on(name)
    names = host.check_output("ls /etc/apt/sources.list.d").split()
    assert sorted(name.split(".")[0] for name in names if name.endswith("~")) == ["docker", "download_docker_com"]
    assert host.file("/etc/apt/sources.list.d/docker.list").content_string.startswith("# disabled by iopaint.fleet: deb [arch=")
    assert "\nEnabled: no\nURIs:" in host.file("/etc/apt/sources.list.d/download_docker_com.sources").content_string
    assert host.run("apt-get update").stderr == ""


def test_debian_12_itself_has_no_buildx_and_no_compose(play, on, name):
    before = packages(on(name))
    message = play("--limit", name, **DISTRIBUTION).message(name)
    assert "Debian 12 itself packages neither buildx nor Compose v2" in message
    assert "docker_package_source to 'upstream'" in message
    assert packages(on(name)) == before
