"""The finished image, the CPU one or the GPU one, whichever this host has built."""

import json
import re
from pathlib import Path

import pytest
from conftest import FOLDER

# Bytes, by docker image inspect.
MOST = {"cpu": 1.35e9, "gpu": 4.8e9}
MOST_CUDA_126 = 5.3e9  # measured 5.16
PROGRAMS = Path(__file__).parents[3] / "tests/image"


def layers(host, image):
    return json.loads(host.check_output(f"docker image inspect --format '{{{{json .RootFS.Layers}}}}' {image}"))


def python_in(host, image, program, *arguments):
    """Runs a program in an image's Python, with what an instance has (files to read, /tmp to write), and gives its output."""
    options = "--user 10001:10001 --network none --read-only --tmpfs /tmp"
    container = f"docker run --rm -i {options} --entrypoint python {image}"
    done = host.run(f"printf %s %s | {container} - {' '.join(arguments)}", "%s", program)
    assert done.rc == 0, done.stdout + done.stderr
    return done.stdout


def test_size(host, variant):
    size = int(host.check_output(f"docker image inspect --format '{{{{.Size}}}}' iopaint:{variant}-latest"))
    assert size <= MOST[variant]


def test_nothing_that_is_called_was_stripped(host, variant):
    assert "7 passed, 0 failed" in python_in(host, f"iopaint:{variant}-latest", (PROGRAMS / "proof.py").read_text())


def has_byte_code(host, image):
    """Next to all of what a start loads has byte code; if not, docker/build/not-compiled.txt names too much."""
    found = json.loads(python_in(host, image, (PROGRAMS / "loaded.py").read_text()))
    assert sum(found["uncompiled"].values()) < 0.03 * found["loaded"], found["uncompiled"]


def test_what_is_loaded_at_a_start_is_compiled(host, variant):
    has_byte_code(host, f"iopaint:{variant}-latest")


def test_torch_is_the_one_meant(host, variant):
    cuda = python_in(host, f"iopaint:{variant}-latest", "import torch; print(torch.version.cuda)")
    assert cuda.strip() == {"cpu": "None", "gpu": "13.0"}[variant]


def test_older_drivers_have_an_image_too(host, bake, variant):
    """CUDA 12.6 has a torch of its own, which has to fit the same packages."""
    if variant == "cpu":
        pytest.skip("the CPU image has no CUDA")
    done = bake("iopaint:gpu-cu126", CUDA="12.6")
    assert done.rc == 0, done.stdout[-3000:]
    size = int(host.check_output("docker image inspect --format '{{.Size}}' iopaint:gpu-cu126"))
    print(f"the image for CUDA 12.6 has {size / 1e9:.2f} GB")
    assert size <= MOST_CUDA_126
    assert python_in(host, "iopaint:gpu-cu126", "import torch; print(torch.version.cuda)").strip() == "12.6"
    python_in(host, "iopaint:gpu-cu126", (PROGRAMS / "proof.py").read_text())
    has_byte_code(host, "iopaint:gpu-cu126")
    host.check_output("docker rmi iopaint:gpu-cu126")


def test_gpu_image_refuses_to_start_without_a_gpu(host, variant):
    done = host.run(f"docker run --rm --read-only --tmpfs /tmp iopaint:{variant}-latest iopaint start --help")
    assert done.rc == 0
    if variant == "gpu":
        done = host.run("docker run --rm --read-only --tmpfs /tmp iopaint:gpu-latest")
        assert done.rc == 78
        assert "no usable GPU: the container was given no GPU" in done.stderr
        assert "IOPAINT_FLEET_REQUIRE_GPU=false" in done.stderr


def test_serves_by_compose_without_ansible(host, variant):
    """With the GPU image on the CPU: the service is the same but for the device that this host lacks."""
    if variant == "gpu":
        host.check_output("docker tag iopaint:gpu-latest iopaint:cpu-latest")
    host.check_output(
        f"cd {FOLDER} && printf 'IOPAINT_MODEL=cv2\\nIOPAINT_DEVICE=cpu\\n' > docker/options.env"
        " && PROJECT=plain docker compose -f docker/compose.yaml --profile cpu up -d --wait"
    )
    model = json.loads(host.check_output("curl -sSf http://127.0.0.1:8080/api/v1/model"))
    assert model["name"] == "cv2"
    host.check_output(
        f"cd {FOLDER} && PROJECT=plain docker compose -f docker/compose.yaml --profile cpu down -v && rm docker/options.env"
    )


def test_a_source_that_does_not_fit_is_named(tree, bake):
    done = bake("iopaint:unfit", SOURCE=tree("unfit", "printf 'diffusers==0.30.0\\nflask\\n' >> requirements.txt"))
    assert done.rc != 0
    assert "diffusers==0.30.0: pinned is 0.27.2" in done.stdout
    assert "flask: not among the pinned packages" in done.stdout
    assert "diffusers==0.27.2:" not in done.stdout


REMOVE_BACKGROUND = """
import numpy
from PIL import Image
from rembg import remove
from rembg.sessions.base import BaseSession

class LeftHalf(BaseSession):  # in place of a model
    def __init__(self):
        pass

    def predict(self, image, *args, **kwargs):
        mask = numpy.zeros(image.size[::-1], numpy.uint8)
        mask[:, : image.size[0] // 2] = 255
        return [Image.fromarray(mask)]

photo = Image.open("/usr/share/iopaint-fleet/photo.png").resize((64, 64))
alpha = numpy.asarray(remove(photo, session=LeftHalf(), alpha_matting=True, alpha_matting_erode_size=4))[..., 3]
assert alpha[:, :16].mean() > 240 and alpha[:, 48:].mean() < 16, alpha
"""


XFORMERS = """
import xformers.ops
from xformers import _cpp_lib
assert _cpp_lib._cpp_library_load_exception is None, _cpp_lib._cpp_library_load_exception
"""


def test_xformers_loads_beside_its_torch(host, bake, variant):
    """Where it does not, it says so in a warning and computes nothing; CUDA 13 has no build that does."""
    if variant == "cpu":
        pytest.skip("the CPU image never has xformers")
    done = bake("iopaint:xformers", EXTRAS="xformers")
    assert done.rc != 0
    assert "There is no extra xformers for torch-cu130" in done.stdout
    done = bake("iopaint:xformers", EXTRAS="xformers", CUDA="12.6")
    assert done.rc == 0, done.stdout[-3000:]
    python_in(host, "iopaint:xformers", XFORMERS)
    host.check_output("docker rmi iopaint:xformers")


def test_extras_are_a_layer_of_their_own_and_work(host, bake, variant):
    if variant == "gpu":
        pytest.skip("the CPU image shows it, and the plugins of both are the same")
    done = bake("iopaint:plugins", EXTRAS="plugins", SOURCE_DATE_EPOCH="1800000000")
    assert done.rc == 0, done.stdout[-3000:]
    before, after = layers(host, "iopaint:cpu-latest"), layers(host, "iopaint:plugins")
    assert len(set(after) - set(before)) == 2  # the packages, and the list of all
    python_in(host, "iopaint:plugins", REMOVE_BACKGROUND)


def test_same_inputs_same_layers(host, tree, bake, variant):
    """Everything but the base and its packages is made anew, from a source with other times, and is the same."""
    stages = ["tools", "cuda-gpu", "torch", "packages", "requirements", "frontend-build", "runtime"]
    # In a file, as buildx 0.13 ignores --set VARIANT.no-cache-filter.
    override = f'target "{variant}" {{ no-cache-filter = {json.dumps(stages)} }}'
    host.run_expect([0], "printf %s %s > /root/again.hcl", "%s", override)
    done = bake(
        "iopaint:again",
        "-f /root/again.hcl",
        SOURCE=tree("again", "find . -exec touch -h -d 2001-01-01 {} +"),
        SOURCE_DATE_EPOCH=host.check_output(f"git -C {FOLDER}/git log -1 --format=%ct"),
    )
    assert done.rc == 0, done.stdout[-3000:]
    assert len(re.findall(r"^#\d+ CACHED", done.stdout, re.MULTILINE)) <= 1
    assert layers(host, "iopaint:again") == layers(host, f"iopaint:{variant}-latest")


def test_an_edit_moves_its_own_layer_only(host, tree, bake, variant):
    done = bake("iopaint:edited", SOURCE=tree("edited", "echo '# edited' >> iopaint/cli.py"), SOURCE_DATE_EPOCH="1800000000")
    assert done.rc == 0, done.stdout[-3000:]
    before, after = layers(host, f"iopaint:{variant}-latest"), layers(host, "iopaint:edited")
    assert len(set(after) - set(before)) == 1
