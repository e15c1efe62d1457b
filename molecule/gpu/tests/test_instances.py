"""Instances of IOPaint on a host with two made-up GPUs: each gets its own, and none goes on with the CPU unasked."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "shared"))
from play import deployed, play

IMAGE = "iopaint-stand-in:gpu"
GPU = {"name": "gpu", "variant": "gpu", "port": 8081, "model": "cv2"}
# The stand-in has no CUDA, so it is told to run on the CPU, which an operator may do as well.
ON_CPU = {"fleet_require_gpu": False, "device": "cpu"}
SITE = {"iopaint_image_source": "release", "iopaint_models": [], "iopaint_images": {"gpu": IMAGE}}


@pytest.fixture(scope="module", autouse=True)
def image(host):
    """The CPU image under the name of a GPU image: a GPU and CUDA can't be had here, the entrypoint's checks can."""
    run = play("playbooks/build.yml", **SITE)
    assert run.rc == 0, run.output
    recipe = r"FROM iopaint:cpu-latest\nENV IOPAINT_FLEET_VARIANT=gpu\n"
    host.check_output(f"printf '{recipe}' | docker build -q -t {IMAGE} -")


def nodes(host, name):
    """The GPU nodes and what the CDI spec sets in the environment of an instance's container."""
    container = f"iopaint-{name}-iopaint-gpu-1"
    found = host.check_output(f"docker exec {container} sh -c 'ls /dev | grep -E ^nvidia[0-9]; true'")
    return found.split()


def test_one_instance_for_each_gpu(host):
    run = play("deploy.yml", **SITE, iopaint_instances=[{**GPU, "options": ON_CPU}])
    assert run.rc == 0, run.output
    assert (nodes(host, "gpu-0"), nodes(host, "gpu-1")) == (["nvidia0"], ["nvidia1"])
    assert run.says("http://127.0.0.1:8081 inpaints with cv2", "http://127.0.0.1:8082 inpaints with cv2"), run.output
    again = play("deploy.yml", **SITE, iopaint_instances=[{**GPU, "options": ON_CPU}])
    assert (again.rc, again.changed("gpu-debian13")) == (0, 0), again.output


def test_an_instance_gets_exactly_its_device(host):
    run = play("deploy.yml", **SITE, iopaint_instances=[{**GPU, "port": 8083, "devices": ["1"], "options": ON_CPU}])
    assert run.rc == 0, run.output
    assert nodes(host, "gpu") == ["nvidia1"]


def test_two_on_one_gpu_have_to_ask(host):
    before = deployed(host)
    pair = [{**GPU, "devices": ["0"]}, {**GPU, "name": "other", "port": 8084, "devices": ["0"]}]
    run = play("deploy.yml", **SITE, iopaint_instances=pair)
    assert run.rc == 2, run.output
    assert run.says("gpu, other ask for the same GPU (nvidia.com/gpu=0)", "share: true"), run.output
    assert run.changed("gpu-debian13") == 0
    assert deployed(host) == before


def test_a_gpu_that_the_host_has_not(host):
    before = deployed(host)
    run = play("deploy.yml", **SITE, iopaint_instances=[{**GPU, "port": 8086, "devices": ["7"]}])
    assert run.rc == 2, run.output
    assert run.says("gpu asks for nvidia.com/gpu=7, and this host has nvidia.com/gpu=0, nvidia.com/gpu=1"), run.output
    assert deployed(host) == before


def test_no_silent_cpu(host):
    """Upstream would go on with the CPU where torch sees no CUDA; the deploy fails with torch's reason."""
    run = play("deploy.yml", **SITE, iopaint_instances=[{**GPU, "name": "strict", "port": 8085, "devices": ["0"]}])
    assert run.rc == 2, run.output
    assert run.says("The instance strict of iopaint_instances", "no usable GPU: torch says: Torch not compiled with CUDA"), (
        run.output
    )
    host.check_output("docker compose --project-name iopaint-strict down")
