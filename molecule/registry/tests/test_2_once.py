"""One host builds and pushes, the others pull by digest, and nothing else is different."""

import re
from base64 import b64encode

from conftest import PASSWORD, REPOSITORY
from play import play


def test_a_build_that_fails_pushes_nothing_and_pulls_nothing(failed_build, registry, other):
    assert failed_build.rc != 0
    assert not registry("find /var/lib/docker-registry -type f")
    assert REPOSITORY not in other.images()
    assert "Report what was built" not in failed_build.output


def test_the_builder_pushes_and_the_others_pull_by_digest(stand_in, builder, other):
    name = stand_in("v1")
    done = play("playbooks/upgrade.yml", "-vvv")
    assert done.rc == 0, done.output
    assert (builder.serves(), other.serves()) == ("v1", "v1")
    digest = re.search(rf"{name} is {REPOSITORY}@(sha256:[0-9a-f]{{64}}), pushed in", " ".join(done.output.split()))[1]
    for host in (builder, other):
        record = host.record()
        assert (record["image"], record["digest"], record["outcome"]) == (name, digest, "current")
        assert f"{REPOSITORY}:<none> {digest}" in host.images()
        assert {f"{name} <none>", "iopaint:cpu-v1 <none>", "iopaint:cpu-latest <none>"} <= set(host.images().splitlines())
        assert host.has_no_login()
    assert other.record()["image_id"] == builder.record()["image_id"]
    # With -vvv the arguments of each module are shown; hosts log them too.
    for secret in (PASSWORD, b64encode(f"fleet:{PASSWORD}".encode()).decode()):
        assert secret not in done.output
        for host in (builder, other):
            assert secret not in host("journalctl --no-pager")


def test_no_registry_is_needed_for_what_is_there(registry, builder, other):
    """A second run, with the registry down: nothing is asked for and nothing changes."""
    before = [builder.state(), other.state()]
    registry("systemctl stop docker-registry")
    again = play("playbooks/upgrade.yml")
    registry("systemctl start docker-registry")
    assert again.rc == 0, again.output
    assert [again.changed(host.name) for host in (builder, other)] == [0, 0]
    assert [builder.state(), other.state()] == before


def test_what_the_registry_has_is_pulled_and_not_built(stand_in, builder, other):
    """A builder that lost the image; a build would fail in this scenario."""
    name = stand_in("v2")
    assert play("playbooks/build.yml", iopaint_image_ref="v2").rc == 0
    image = builder(f"docker inspect --format '{{{{.Id}}}}' {name}")
    builder(f"docker rmi -f {image}")
    dry = play("playbooks/build.yml", "--check", iopaint_image_ref="v2")
    assert dry.rc == 0, dry.output
    done = play("playbooks/build.yml", iopaint_image_ref="v2")
    assert done.rc == 0, done.output
    assert builder(f"docker inspect --format '{{{{.Id}}}}' {name}") == image
    assert (builder.serves(), other.serves()) == ("v1", "v1")
    assert builder.has_no_login()


def test_a_registry_that_was_emptied_is_filled_again(registry, builder, other):
    registry(
        "systemctl stop docker-registry && rm -rf /var/lib/docker-registry/docker/registry/v2/*; systemctl start docker-registry"
    )
    other("docker rmi -f $(docker images -q iopaint:cpu-v2)")
    done = play("playbooks/build.yml", iopaint_image_ref="v2")
    assert done.rc == 0, done.output
    assert "iopaint:cpu-v2 <none>" in other.images()


def test_a_limit_that_leaves_the_builder_out_is_said(builder, other):
    done = play("playbooks/build.yml", "-l", other.name)
    assert done.rc != 0
    assert done.says("iopaint-registry-1 builds for all hosts", f"-l '{other.name}:{builder.name}'")
