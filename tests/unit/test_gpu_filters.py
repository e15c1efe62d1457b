"""The sentences for whatever keeps GPUs from serving, and the CDI names to hand out."""

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.iopaint.fleet.plugins.filter.gpu import (
    gpu_cdi_names,
    gpu_faults,
    gpu_kernel_module,
    gpu_warnings,
)
from ansible_collections.iopaint.fleet.plugins.module_utils import gpu

WELL = {
    "problem": "none",
    "advice": "Nothing to do.",
    "driver_error": None,
    "driver_version": "580.95.05",
    "kernel": "6.12.48+deb13-amd64",
    "kernel_headers": True,
    "kernel_module_installed": True,
    "kernel_module_version": "580.95.05",
    "library_versions": ["580.95.05"],
    "nouveau_loaded": False,
    "secure_boot": None,
    "reboot_required": False,
    "pci_devices": [{"address": "0000:07:00.0", "device_id": "0x20b2", "driver": "nvidia"}],
    "gpus": [],
    "cdi_devices": ["nvidia.com/gpu=0"],
    "cdi_conflicts": [],
    "cdi_errors": [],
    "engine": {"version": "26.1.5"},
}


def host(driver=None, device_id=None, **other):
    info = {**WELL, **other}
    if driver or device_id:
        info["pci_devices"] = [{"address": "0000:07:00.0", "device_id": device_id or "0x20b2", "driver": driver or "nvidia"}]
    return info


def test_nothing_is_wrong_with_a_host_that_is_well():
    assert gpu_faults(WELL, "580.65.06") == []
    assert gpu_warnings(WELL) == []


@pytest.mark.parametrize(
    ("info", "words"),
    [
        (host(problem="no_gpu", pci_devices=[]), "move the host to cpu_hosts, or check that the card is seated"),
        (host(problem="no_gpu", driver="vfio-pci"), "0000:07:00.0 (vfio-pci) is reserved for a virtual machine"),
        (host(problem="driver_not_installed", driver="nouveau"), "set nvidia_driver_install to true"),
        (host(problem="driver_not_loaded", driver="nouveau"), "nouveau holds the GPU: blacklist nouveau"),
        (host(problem="driver_not_loaded", nouveau_loaded=True), "nouveau holds the GPU: blacklist nouveau"),
        (
            host(problem="driver_not_loaded", kernel_module_installed=False),
            "no nvidia module was built for the running kernel 6.12.48+deb13-amd64: see `dkms status`.",
        ),
        (
            host(problem="driver_not_loaded", kernel_module_installed=False, kernel_headers=False),
            "install linux-headers-6.12.48+deb13-amd64 first.",
        ),
        (host(problem="driver_not_loaded", secure_boot=True), "Secure Boot is on and loads signed modules only: enroll the key"),
        (
            host(problem="driver_unreachable", advice=gpu.ADVICE["driver_unreachable"]),
            "device nodes /dev/nvidia* are missing or closed to this user: run `nvidia-smi` as root",
        ),
        (host(problem="driver_not_loaded"), "run `modprobe nvidia`, and if that fails read `dmesg`."),
        (
            host(problem="version_mismatch", kernel_module_version="575.57.08"),
            "The loaded kernel module is 575.57.08 and the installed libraries are 580.95.05",
        ),
        (host(problem="version_mismatch", library_versions=[]), "the installed libraries are another version"),
        (host(problem="gpu_lost", advice="Reboot the host."), "Reboot the host."),
        (host(driver_version="535.161.07"), "The driver is 535.161.07 and the images need 580.65.06 or newer"),
        (host(driver_version="580.65"), "The driver is 580.65 and the images need"),
    ],
)
def test_every_fault_has_its_sentence(info, words):
    (fault,) = gpu_faults(info, "580.65.06")
    assert words in fault
    assert fault.endswith(".")
    assert ".." not in fault


def test_what_nvidia_smi_says_is_added_in_one_short_line():
    (fault,) = gpu_faults(host(problem="version_mismatch", driver_error="Failed to\n initialize"))
    assert fault.endswith("nvidia-smi says: Failed to initialize")
    (fault,) = gpu_faults(host(problem="unknown", driver_error="<xml>" * 1000 + "the end"))
    assert fault.endswith("the end")
    assert len(fault) < 700


def test_no_minimum_takes_any_driver():
    assert gpu_faults(host(driver_version="470.74"), "") == []


@pytest.mark.parametrize(
    ("info", "words"),
    [
        (host(reboot_required=True), "A reboot is due"),
        (host(library_versions=["575.57.08", "580.95.05"]), "several versions are installed (575.57.08, 580.95.05)"),
        (host(driver="nouveau"), "nouveau holds the GPU at 0000:07:00.0"),
    ],
)
def test_warnings(info, words):
    (warning,) = gpu_warnings(info)
    assert words in warning


def test_no_warning_where_there_is_no_gpu():
    assert gpu_warnings(host(problem="no_gpu", reboot_required=True)) == []


# ---- kernel module ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("device_id", "wanted", "module"),
    [
        ("0x1db6", "auto", "proprietary"),  # V100
        ("0x1eb8", "auto", "open"),  # T4
        ("0x2b85", "auto", "open"),  # RTX 5090
        ("0x20b2", "proprietary", "proprietary"),  # A100
        ("0x1db6", "open", "older than Turing"),
        ("0x2b85", "proprietary", "of Blackwell or newer"),
    ],
)
def test_kernel_module(device_id, wanted, module):
    assert module in gpu_kernel_module(host(device_id=device_id), wanted)


def test_no_kernel_module_serves_pascal_and_blackwell():
    devices = [{"address": f"0000:0{n}:00.0", "device_id": one, "driver": "none"} for n, one in enumerate(["0x1b06", "0x2b85"])]
    assert "no driver serves both" in gpu_kernel_module(host(pci_devices=devices))


# ---- CDI names -------------------------------------------------------------------------------------------------------

GPUS = [
    {
        "index": 1,
        "uuid": "GPU-b",
        "mig_enabled": True,
        "mig_devices": [{"index": 0, "uuid": "MIG-x"}, {"index": 1, "uuid": "MIG-y"}],
    },
    {"index": 0, "uuid": "GPU-a", "mig_enabled": False, "mig_devices": []},
]


@pytest.mark.parametrize(("by", "names"), [("index", ["0", "1:0", "1:1"]), ("uuid", ["GPU-a", "MIG-x", "MIG-y"])])
def test_one_name_for_each_gpu_or_slice(by, names):
    assert gpu_cdi_names(host(gpus=GPUS), by) == [f"nvidia.com/gpu={name}" for name in names]


def test_a_name_is_by_index_or_uuid():
    with pytest.raises(AnsibleFilterError, match="'index' or 'uuid'"):
        gpu_cdi_names(WELL, "name")


# ---- what engines say ------------------------------------------------------------------------------------------------

TWICE = [{"device": "nvidia.com/gpu=0", "files": ["/etc/cdi/a.yaml", "/etc/cdi/b.yaml"], "winner": None}]
BROKEN = [{"file": "/etc/cdi/nvidia.yaml", "error": "not a CDI spec"}]
DAEMON = "docker: Error response from daemon: "


@pytest.mark.parametrize(
    ("error", "info", "words"),
    [
        (
            f"{DAEMON}CDI device injection failed: unresolvable CDI devices nvidia.com/gpu=7.\nSee",
            WELL,
            "declares nvidia.com/gpu=7: ask",
        ),
        (
            "unresolvable CDI devices nvidia.com/gpu=0",
            host(cdi_conflicts=TWICE),
            "/etc/cdi/a.yaml and by /etc/cdi/b.yaml, so the",
        ),
        ("unresolvable CDI devices nvidia.com/gpu=7", host(cdi_errors=BROKEN), "/etc/cdi/nvidia.yaml can't be read: not a CDI"),
        ("unresolvable CDI devices nvidia.com/gpu=7, nvidia.com/gpu=8", WELL, "No CDI spec declares nvidia.com/gpu=8"),
        (
            'could not select device driver "cdi" with capabilities: [[gpu]]',
            WELL,
            "CDI is off in the engine: set features",
        ),
        ('failed to stat CDI host device "/dev/nvidia1": no such file', WELL, "The CDI spec names /dev/nvidia1, which is not"),
        (f'{DAEMON}could not select device driver "nvidia" with capabilities: [[gpu]].', WELL, "Toolkit is not installed"),
        (f'{DAEMON}could not select device driver "" with capabilities: [[gpu]].', WELL, "Toolkit is not installed"),
        (f"{DAEMON}unknown or invalid runtime name: nvidia.", WELL, "The engine knows no runtime nvidia"),
        ("port is already\n allocated", WELL, "The engine says: port is already allocated"),
    ],
)
def test_the_engines_refusals_become_sentences(error, info, words):
    assert words in gpu.explain_start(error, info)


def test_an_engine_without_cdi_has_no_directories():
    assert gpu.engine_state({"ServerVersion": "24.0.7"})["cdi_dirs"] == []
