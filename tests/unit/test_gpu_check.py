"""gpu_check: who sees which GPU, which containers have one, and the image of the host's own files."""

import io
import tarfile

import pytest
from ansible_collections.iopaint.fleet.plugins.modules import gpu_check

LIST = """\
GPU 0: NVIDIA A100-SXM4-80GB (UUID: GPU-a)
  MIG 3g.40gb     Device  0: (UUID: MIG-x)
  MIG 2g.20gb     Device  1: (UUID: MIG-y)
GPU 1: Tesla T4 (UUID: GPU-b)
"""


def test_a_gpu_in_slices_is_seen_by_its_slices():
    assert gpu_check.listed(LIST) == {"MIG-x", "MIG-y", "GPU-b"}
    assert gpu_check.listed("Failed to initialize NVML: Unknown Error\n") == set()
    assert gpu_check.listed("No devices found.\n") == set()  # and the exit status is 0


@pytest.mark.parametrize(
    ("name", "uuids"),
    [
        ("0:1", {"MIG-y"}),
        ("1", {"GPU-b"}),
        ("all", {"MIG-x", "MIG-y", "GPU-b"}),
        ("GPU-b", {"GPU-b"}),
        ("MIG-x", {"MIG-x"}),
        ("0:7", set()),
        ("7:0", set()),
        ("7", set()),
    ],
)
def test_what_a_device_has_to_show(name, uuids):
    assert gpu_check.expected(f"nvidia.com/gpu={name}", LIST) == uuids


def container(env=(), **host):
    return {"HostConfig": host, "Config": {"Env": list(env)}}


@pytest.mark.parametrize(
    ("found", "devices"),
    [
        (container(DeviceRequests=None, Runtime="runc"), []),
        (container(DeviceRequests=[{"Driver": "cdi", "DeviceIDs": ["nvidia.com/gpu=0"]}]), ["nvidia.com/gpu=0"]),
        (container(DeviceRequests=[{"Driver": "", "DeviceIDs": None, "Capabilities": [["gpu"]]}]), ["all"]),
        (container(DeviceRequests=[{"Driver": "other", "Capabilities": [["tpu"]]}]), []),
        (container(["PATH=/bin", "NVIDIA_VISIBLE_DEVICES=0,1"], Runtime="nvidia"), ["0", "1"]),
        (container(["NVIDIA_VISIBLE_DEVICES=void"], Runtime="nvidia"), []),
        (container(Runtime="nvidia"), []),
    ],
)
def test_containers_that_asked_for_a_gpu(found, devices):
    assert gpu_check.asks_for_gpu(found) == devices


def test_the_image_is_made_of_shell_and_c_library(tmp_path):
    for name in ("libc.so.6", "libm.so.6", "libselinux.so.1", "ld-linux-x86-64.so.2"):
        (tmp_path / name).write_text(name)
    ldd = (
        "\tlinux-vdso.so.1 (0x00007ffc)\n"
        f"\tlibselinux.so.1 => {tmp_path}/libselinux.so.1 (0x00007f01)\n"
        f"\tlibc.so.6 => {tmp_path}/libc.so.6 (0x00007f02)\n"
        f"\t{tmp_path}/ld-linux-x86-64.so.2 (0x00007f03)\n"
    )
    names = ["libselinux.so.1", "libc.so.6", "ld-linux-x86-64.so.2", "libm.so.6"]
    assert gpu_check.shell_files(ldd) == ["/bin/sh", *(f"{tmp_path}/{name}" for name in names)]


def test_the_same_files_are_the_same_image(tmp_path):
    shell = tmp_path / "sh"
    shell.write_text("#!")
    first = gpu_check.image_tar([str(shell)])
    shell.touch()
    assert gpu_check.image_tar([str(shell), str(shell)]) == first
    with tarfile.open(fileobj=io.BytesIO(first)) as tar:
        assert f"{shell}".lstrip("/") in tar.getnames()
        assert tar.getmember("dev").isdir()
