"""Another ref, a working tree with an edit, a release: each is built, deployed and proven over the previous one."""

import json
import shutil

import pytest
from conftest import CONTAINER
from play import ROOT, play


def layers(host):
    image = host.check_output(f"docker inspect --format '{{{{.Image}}}}' {CONTAINER}")
    return json.loads(host.check_output(f"docker image inspect --format '{{{{json .RootFS.Layers}}}}' {image}"))


def version(api):
    return json.loads(api("/openapi.json")[1])["info"]["version"]


def test_second_ref(host, api):
    kept = host.check_output("sha256sum /var/lib/iopaint/outputs/cpu/kept.png")
    run = play("deploy.yml", iopaint_image_ref="v1.6.1-test")
    assert run.rc == 0, run.output
    assert version(api) == "1.6.1"
    assert "test page 1.6.1" in api("/")[1]
    assert host.check_output("sha256sum /var/lib/iopaint/outputs/cpu/kept.png") == kept
    assert run.says("builds cpu, ", "iopaint:cpu-v1.6.1-test ", "cached", "inpaints with cv2"), run.output


def test_commit_by_its_id(host):
    """A commit is a ref like any other, and this one is there already."""
    commit = host.check_output("git -C /opt/iopaint/image/git rev-parse HEAD")
    run = play("deploy.yml", iopaint_image_ref=commit)
    assert run.rc == 0, run.output
    assert run.says(" was there "), run.output


@pytest.fixture
def tree(tmp_path):
    source = tmp_path / "IOPaint"
    shutil.copytree(ROOT / "build/fixtures/git/iopaint", source)
    return source


def test_edit_of_a_working_tree(host, api, tree):
    options = {"iopaint_image_source": "directory", "iopaint_image_directory": str(tree)}
    run = play("deploy.yml", **options)
    assert run.rc == 0, run.output
    before = layers(host)

    cli = tree / "iopaint/cli.py"
    cli.write_text(cli.read_text().replace('version="1.6.1"', 'version="1.6.1+edit"'))
    run = play("deploy.yml", **options)
    assert run.rc == 0, run.output
    assert version(api) == "1.6.1+edit"
    assert len(set(layers(host)) - set(before)) == 1  # the Python source
    print(f"an edit of one Python file was deployed in {run.seconds:.1f} s")


def test_release(api):
    run = play("deploy.yml", iopaint_image_source="release")
    assert run.rc == 0, run.output
    assert run.says("iopaint:cpu-1.6.0"), run.output
    assert "<title>IOPaint</title>" in api("/")[1]
