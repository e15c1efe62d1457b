"""Wrong input ends the play with a sentence for the reader, and what runs goes on running."""

import pytest
from play import deployed, play

INSTANCE = {"name": "cpu", "variant": "cpu", "port": 8080, "model": "cv2"}
LAMA = {"name": "lama", "url": "http://127.0.0.1:8000/big-lama.pt", "checksum": "sha256:" + "0" * 64}

# Known before the first change: nothing at all is changed.
BEFORE = {
    "kinds and names, all at once": (
        {
            "iopaint_image_min_free_gb": "lots",
            "iopaint_image_ref": 1.1,
            "iopaint_memory": ["6g"],
            "docker_package_source": "distro",
            "iopaint_image_reff": "main",
            "iopaint_instances": [{**INSTANCE, "prot": 1, "port": "http"}],
        },
        [
            "iopaint_image_min_free_gb is 'lots', accepted: a number",
            "iopaint_image_ref is 1.1, accepted: text in quotes (YAML reads 1.10 as",
            "iopaint_memory is a list, accepted: text",
            "docker_package_source is 'distro', accepted: upstream, distribution",
            "nearest: iopaint_image_ref",
            "nearest: port",
            "iopaint_instances[0].port is 'http'",
        ],
    ),
    "port twice": ({"iopaint_instances": [INSTANCE, {**INSTANCE, "name": "b"}]}, ["port 8080 is used by more than one"]),
    "port taken": (
        {"iopaint_instances": [{**INSTANCE, "port": 9418}]},
        ["Taken by another process: 127.0.0.1:9418", "ss -ltnp", "iopaint_instances"],
    ),
    "model incomplete": ({"iopaint_models": [{"name": "mine"}]}, ["iopaint_models: the model mine needs checksum, path, url"]),
}
# Known once the source is on the host, or its server has been asked.
BUILD = {
    "unknown ref": (
        {"iopaint_image_ref": "no-such-ref"},
        ["iopaint_image_ref no-such-ref", "the repository has no such branch, tag or other ref"],
    ),
    "repository out of reach": (
        {"iopaint_image_git_url": "git://127.0.0.1:1/iopaint.git"},
        ["iopaint_image_git_url git://127.0.0.1:1/iopaint.git: the host does not reach the server", "Connection refused"],
    ),
    "no web_app": (
        {"iopaint_image_ref": "broken-no-web_app"},
        ["it has no web_app/package.json", "Check iopaint_image_git_url and iopaint_image_ref"],
    ),
    "no package": (
        {"iopaint_image_ref": "broken-no-package"},
        ["it has no iopaint/cli.py", "Check iopaint_image_git_url and iopaint_image_ref"],
    ),
    "disk": (
        {"iopaint_image_min_free_gb": 1e6, "iopaint_image_ref": "v1.6.1-test"},
        ["Too little disk", "iopaint_image_min_free_gb asks for 1000000.0"],
    ),
    "release": (
        {"iopaint_image_source": "release", "iopaint_image_release": "0.0.0"},
        ["IOPaint 0.0.0 (iopaint_image_release) could not be downloaded from the Python package index"],
    ),
    "build fails": (
        {
            "iopaint_image_ref": "v1.6.1-test",
            "iopaint_image_base_source": "pull",
            "iopaint_image_base": "registry.invalid/base:1",
        },
        ["The base image registry.invalid/base:1 (iopaint_image_base) could not be pulled"],
    ),
}
# Known once there are images.
DEPLOY = {
    "options, all at once": (
        {"iopaint_instances": [{**INSTANCE, "model": "lamma", "options": {"low_men": True, "quality": 101}}]},
        [
            "iopaint_instances",
            "cpu: IOPAINT_LOW_MEN is no option of this IOPaint (nearest: IOPAINT_LOW_MEM)",
            "cpu: IOPAINT_QUALITY='101' is wrong, accepted: a whole number from 1 to 100",
            "cpu: IOPAINT_MODEL='lamma' is no model of this IOPaint (nearest: lama)",
        ],
    ),
    "checksum": (
        {"iopaint_models": [LAMA]},
        ["The model lama of iopaint_models could not be downloaded from http://127.0.0.1:8000/big-lama.pt", "sha256:0000"],
    ),
}


@pytest.mark.parametrize("case", [*BEFORE, *BUILD, *DEPLOY])
def test_bad_input(host, case):
    variables, sentences = {**BEFORE, **BUILD, **DEPLOY}[case]
    before = deployed(host)
    run = play("playbooks/build.yml" if case in BUILD else "deploy.yml", **variables)
    assert run.rc == 2, run.output
    assert run.says(*sentences), run.output
    if case in BEFORE:
        assert run.changed("iopaint-default") == 0
    assert deployed(host) == before


def test_failed_build_leaves_the_service_alone(host, api):
    """The build runs and breaks off: the index is out of reach for packages that are not there yet."""
    before = deployed(host)
    run = play("deploy.yml", iopaint_image_extras=["plugins"], iopaint_image_python_index="http://127.0.0.1:1/simple")
    assert run.rc == 2, run.output
    assert run.says("The build of iopaint:cpu-", "failed; nothing that runs was touched", "/opt/iopaint/image/cpu.log"), (
        run.output
    )
    assert deployed(host) == before
    assert api("/api/v1/model")[0] == 200
