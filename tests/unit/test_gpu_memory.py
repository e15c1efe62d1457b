# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""GPUs that are too small for the models of their instances."""

import pytest
from ansible_collections.iopaint.fleet.plugins.filter.gpu_memory_warnings import FilterModule
from ansible_collections.iopaint.fleet.plugins.plugin_utils.known_models import GPU_MEMORY

WARNINGS = FilterModule().filters()["gpu_memory_warnings"]
SDXL = "diffusers/stable-diffusion-xl-1.0-inpainting-0.1"
SD15 = "stable-diffusion-v1-5/stable-diffusion-inpainting"


def gpu(index=0, gib=16, **keys):
    return {
        "index": index,
        "uuid": f"GPU-{index}",
        "name": "NVIDIA T4",
        "memory_total_mib": gib * 1024,
        "mig_enabled": False,
        "mig_devices": [],
        **keys,
    }


def instance(name="sd", model=SDXL, devices=("nvidia.com/gpu=0",), variant="gpu", **options):
    environment = {f"IOPAINT_{option.upper()}": value for option, value in options.items()}
    return {"name": name, "model": model, "devices": list(devices), "variant": variant, "environment": environment}


def warn(*instances, gpus=None):
    return WARNINGS(list(instances), {"gpus": gpus or [gpu(gib=8)]})


def test_a_model_that_fits_is_no_news():
    assert warn(instance(), gpus=[gpu(gib=16)]) == []
    assert warn(instance(model=SD15), gpus=[gpu(gib=4)]) == []


def test_a_model_that_does_not_fit_is_told_with_what_helps():
    (text,) = warn(instance())
    assert text == (
        f"GPU 0 (NVIDIA T4) has 8.6 GB, and its instances are known to need about 9 GB: sd ({SDXL}, 9 GB). "
        "What helps: cpu_offload: true in options of sd (7.1 GB); low_mem: true in options of sd; or a smaller model."
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"no_half": "true"}, "no_half: false in options of sd (9 GB); cpu_offload: true in options of sd (12.3 GB)"),
        ({"no_half": "true", "cpu_offload": "true"}, "no_half: false in options of sd (7.1 GB); low_mem"),
        ({"low_mem": "true"}, "What helps: cpu_offload: true in options of sd (7.1 GB); or a smaller model."),
    ],
)
def test_options_that_are_set_count(options, words):
    (text,) = warn(instance(**options))
    assert words in text


def test_what_is_offloaded_fits():
    assert warn(instance(cpu_offload="true")) == []


def test_instances_that_share_a_gpu_count_together():
    both = [instance("a", SD15, ["nvidia.com/gpu=GPU-0"]), instance("b", SD15)]
    (text,) = warn(*both, gpus=[gpu(gib=5), gpu(1, 80)])
    assert "need about 6 GB: a (" in text
    assert warn(*both, gpus=[gpu(gib=6), gpu(1, 80)]) == []
    assert warn(both[0], instance("b", SD15, ["nvidia.com/gpu=1"]), gpus=[gpu(gib=5), gpu(1, 5)]) == []


def test_an_instance_computes_on_the_first_of_its_gpus():
    assert warn(instance(devices=["nvidia.com/gpu=1", "nvidia.com/gpu=0"]), gpus=[gpu(gib=4), gpu(1, 80)]) == []
    assert len(warn(instance(devices=["nvidia.com/gpu=all"]), gpus=[gpu(gib=4), gpu(1, 80)])) == 1


def test_a_slice_has_its_own_memory():
    slices = [{"index": 0, "uuid": "MIG-a", "memory_total_mib": 4864}, {"index": 1, "uuid": "MIG-b", "memory_total_mib": 40448}]
    host = [gpu(gib=80, mig_enabled=True, mig_devices=slices)]
    (text,) = warn(instance(devices=["nvidia.com/gpu=0:0"]), gpus=host)
    assert text.startswith("Slice 0 of GPU 0 (NVIDIA T4) has 5.1 GB")
    assert warn(instance(devices=["nvidia.com/gpu=MIG-b"]), gpus=host) == []


def test_an_instance_that_stands_for_every_gpu_is_compared_with_the_smallest():
    (text,) = warn(instance(devices=["auto"]), gpus=[gpu(gib=80), gpu(1, 8)])
    assert text.startswith("GPU 1")


@pytest.mark.parametrize(
    "one", [instance(model="our/own"), instance(variant="cpu", devices=[]), instance(device="cpu"), instance(model="cv2")]
)
def test_what_is_not_known_or_not_on_a_gpu_counts_nothing(one):
    assert warn(one, gpus=[gpu(gib=1)]) == []


@pytest.mark.parametrize("info", [{}, {"gpus": []}, {"gpus": [gpu(memory_total_mib=None)]}])
def test_a_host_whose_gpus_are_not_known_is_not_judged(info):
    assert WARNINGS([instance()], info) == []


def test_known_needs_are_in_order():
    for known in GPU_MEMORY.values():
        assert 0 < known.half <= known.full
        assert known.half_offloaded <= known.half
        assert known.full_offloaded <= known.full
