"""A build is pushed with its cache, and a builder that has lost everything builds the next release on it."""

import re
import sys
from pathlib import Path

import testinfra

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "shared"))

from play import play

REPOSITORY = "iopaint-registry-build:5000/iopaint"
builder = testinfra.get_host("docker://iopaint-registry-build-1")


def named(ref):
    """What is known of the image of a ref: ID and digest."""
    form = "{{.Id}} {{range .RepoDigests}}{{.}} {{end}}"
    return builder.check_output(f"docker image inspect --format '{form}' iopaint:cpu-{ref}")


def row(output, ref):
    """The line of the play's table on the image of a ref."""
    return re.search(rf"^ *cpu +iopaint:cpu-{re.escape(ref)} .*", output, re.MULTILINE)[0]


def test_the_image_is_in_the_registry():
    assert f"{REPOSITORY}@sha256:" in named("v1.6.0")


def test_another_builder_pulls_it_and_builds_the_next_on_its_cache():
    before = named("v1.6.0")
    builder.check_output("docker images -q | sort -u | grep -v $(docker images -q iopaint-base:bookworm) | xargs docker rmi -f")
    builder.check_output("docker buildx prune --all --force")
    done = play("playbooks/build.yml")
    assert done.rc == 0, done.output
    assert named("v1.6.0") == before
    assert " was there " in row(done.output, "v1.6.0")

    builder.check_output("docker images -q iopaint | sort -u | xargs docker rmi -f")
    done = play("playbooks/build.yml", iopaint_image_ref="v1.6.1-test")
    assert done.rc == 0, done.output
    log = builder.check_output("cat /opt/iopaint/image/cpu.log")
    print(row(done.output, "v1.6.1-test"))
    for stage in ("torch", "packages"):
        steps = re.findall(rf"^(#\d+) \[{stage} .*\] RUN", log, re.MULTILINE)
        assert steps
        assert all(f"{step} CACHED" in log.splitlines() for step in steps), log
