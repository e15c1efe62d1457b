"""gpu_info against reports of several nvidia-smi generations, broken drivers and CDI specs.

The samples named h100-580 are from an H100 that served an instance, with another UUID and serial number and most of the clock
frequencies left out; cdi/h100-580.txt is what nvidia-ctk 1.20.0 wrote there. The others are written by hand after the layout of
nvsmi_device_v11, v12 and v13, shortened; their UUIDs and serial numbers are made up. The module runs as a process here, with a
stand-in for nvidia-smi that prints a sample.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.iopaint.fleet.plugins.module_utils import gpu

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = Path(__file__).parent / "samples" / "nvidia-smi"
REAL_SPEC = (SAMPLES.parent / "cdi" / "h100-580.txt").read_text()
H100 = "GPU-2f8b6c1e-7d40-4a95-b3c8-5e6f70819203"

MISMATCH = "Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 580.95\n"
NOT_LOADED = (
    "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. "
    "Make sure that the latest NVIDIA driver is installed and running.\n"
)
NO_LIBRARY = (
    "NVIDIA-SMI couldn't find libnvidia-ml.so library in your system. "
    "Please make sure that the NVIDIA Display Driver is properly installed and present in your system.\n"
    "Please also try adding directory that contains libnvidia-ml.so to your system PATH.\n"
)
NO_DEVICES = "No devices were found\n"
LOST = "Unable to determine the device handle for GPU0: 0000:01:00.0: Unknown Error\n"

A100_LIST = """\
GPU 0: NVIDIA A100-SXM4-80GB (UUID: GPU-5c1d4e6f-0a2b-4c3d-8e9f-102132435465)
  MIG 3g.40gb     Device  0: (UUID: MIG-0f1e2d3c-4b5a-5968-8776-655443322110)
  MIG 2g.20gb     Device  1: (UUID: MIG-1a2b3c4d-5e6f-5a7b-8c9d-0e1f2a3b4c5d)
  MIG 1g.10gb     Device  2: (UUID: MIG-99887766-5544-5332-a110-ffeeddccbbaa)
"""


def sample(name):
    return (SAMPLES / f"{name}.xml").read_text()


def report(name):
    return gpu.parse_report(sample(name))


def pick(mapping, *keys):
    return tuple(mapping[key] for key in keys)


# ---- reports ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "versions", "gpus"),
    [
        ("a100-mig-535", ("535.161.07", "12.2"), [("NVIDIA A100-SXM4-80GB", "0000:07:00.0", 81920, True, None)]),
        ("h100-580", ("580.159.04", "13.0"), [("NVIDIA H100 80GB HBM3", "0000:00:06.0", 81559, False, "9.0")]),
        ("h200-580", ("580.95.05", "13.0"), [("NVIDIA H200", "0000:1b:00.0", 143771, False, "9.0")]),
        ("rtx4090-550", ("550.127.05", "12.4"), [("NVIDIA GeForce RTX 4090", "0000:01:00.0", 24564, False, "8.9")]),
        ("t4-515", ("515.105.01", "11.7"), [("Tesla T4", "0000:00:1e.0", 15360, False, "7.5")]),
        (
            "two-470",
            ("470.74", "11.4"),
            [
                ("NVIDIA A100-PCIE-40GB", "0000:3b:00.0", 40536, False, None),
                ("Tesla V100-PCIE-32GB", "0000:af:00.0", 32510, False, None),
            ],
        ),
        ("no-values-470", ("470.199.02", "11.4"), [("NVIDIA GeForce GT 710", "0000:05:00.0", None, False, None)]),
        ("one-lost-570", ("570.158.01", "12.8"), [("NVIDIA RTX A6000", "0000:41:00.0", 49140, False, None)]),
    ],
)
def test_report_of_every_generation(name, versions, gpus):
    found = report(name)
    assert pick(found, "driver_version", "cuda_version") == versions
    keys = ("name", "pci_bus_id", "memory_total_mib", "mig_enabled", "compute_capability")
    assert [pick(one, *keys) for one in found["gpus"]] == gpus
    assert [one["index"] for one in found["gpus"]] == list(range(len(gpus)))
    assert all(one["uuid"].startswith("GPU-") for one in found["gpus"])


def test_memory():
    h200 = report("h200-580")["gpus"][0]
    assert pick(h200, "memory_used_mib", "memory_free_mib") == (0, 143156)


def test_a_real_report_of_a_gpu_that_serves_an_instance():
    (h100,) = report("h100-580")["gpus"]
    assert pick(h100, "uuid", "architecture", "memory_used_mib", "memory_free_mib") == (H100, "Hopper", 843, 80237)
    assert h100["processes"] == [
        {
            "pid": 2349,
            "name": "/opt/iopaint/bin/python",
            "type": "C",
            "used_memory_mib": 834,
            "gpu_instance_id": None,
            "compute_instance_id": None,
        }
    ]


def test_processes():
    processes = report("rtx4090-550")["gpus"][0]["processes"]
    assert [pick(process, "pid", "type", "used_memory_mib") for process in processes] == [
        (2112, "G", 412),
        (4386, "C+G", 231),
        (9931, "C", 8704),
        (10240, "C", None),
    ]
    assert processes[0]["name"] == "/usr/lib/xorg/Xorg"
    assert processes[3]["name"] is None
    assert processes[0]["gpu_instance_id"] is None


def test_no_processes():
    assert report("h200-580")["gpus"][0]["processes"] == []


@pytest.mark.parametrize("written", ["render <draft> & \x01co", "render &lt;draft&gt; &amp; co"])
def test_a_process_name_does_not_break_the_report(written):
    xml = sample("t4-515").replace("python3", written)
    assert gpu.parse_report(xml)["gpus"][0]["processes"][0]["name"] == "render <draft> & co"


def test_values_that_are_not_there_are_null():
    gt710 = report("no-values-470")["gpus"][0]
    assert pick(gt710, "memory_total_mib", "memory_used_mib", "memory_free_mib") == (None, None, None)
    assert pick(gt710["processes"][0], "pid", "name", "used_memory_mib") == (977, None, None)


def test_slices_with_what_only_the_list_knows():
    gpus = report("a100-mig-535")["gpus"]
    gpu.complete(gpus, {}, gpu.parse_slices(A100_LIST))
    keys = ("index", "gpu_instance_id", "compute_instance_id", "profile", "memory_total_mib", "memory_used_mib")
    assert [pick(mig, *keys) for mig in gpus[0]["mig_devices"]] == [
        (0, 2, 0, "3g.40gb", 40448, 1327),
        (1, 3, 0, "2g.20gb", 19968, 25),
        (2, 9, 0, "1g.10gb", 9728, 12),
    ]
    assert gpus[0]["mig_devices"][0]["uuid"] == "MIG-0f1e2d3c-4b5a-5968-8776-655443322110"
    assert gpus[0]["processes"][0]["gpu_instance_id"] == 2


def test_slices_without_the_list():
    gpus = report("a100-mig-535")["gpus"]
    gpu.complete(gpus, {}, {})
    assert [pick(mig, "uuid", "profile") for mig in gpus[0]["mig_devices"]] == [(None, None)] * 3


def test_slices_of_the_first_mig_drivers():
    uuid = "MIG-GPU-9de3d0e8-33f5-10dc-0c79-2c88a7ab0a23/2/0"
    text = f"GPU 0: A100 (UUID: GPU-9de3d0e8-33f5-10dc-0c79-2c88a7ab0a23)\n  MIG 4g.20gb Device 0: (UUID: {uuid})\n"
    assert gpu.parse_slices(text) == {("GPU-9de3d0e8-33f5-10dc-0c79-2c88a7ab0a23", 0): ("4g.20gb", uuid)}


def test_slices_of_two_gpus_are_kept_apart():
    text = (
        "GPU 0: A (UUID: GPU-a)\n  MIG 1g.5gb Device 0: (UUID: MIG-x)\n"
        "GPU 1: B (UUID: GPU-b)\n  MIG 2g.10gb Device 0: (UUID: MIG-y)\n"
    )
    assert gpu.parse_slices(text) == {("GPU-a", 0): ("1g.5gb", "MIG-x"), ("GPU-b", 0): ("2g.10gb", "MIG-y")}


def test_compute_capability_and_index_are_matched_by_uuid():
    gpus = report("two-470")["gpus"]
    caps = gpu.parse_compute_caps(f"1, {gpus[0]['uuid']}, 8.0\n0, {gpus[1]['uuid']}, 7.0\n")
    gpu.complete(gpus, caps, {})
    assert [pick(one, "index", "compute_capability") for one in gpus] == [(1, "8.0"), (0, "7.0")]


def test_compute_capability_of_a_driver_that_does_not_tell():
    gpus = report("t4-515")["gpus"] + report("a100-mig-535")["gpus"]
    gpu.complete(gpus, gpu.parse_compute_caps('Field "compute_cap" is not a valid field to query.\n'), {})
    assert [one["compute_capability"] for one in gpus] == ["7.5", None]


@pytest.mark.parametrize("value", ["[N/A]", "[Not Supported]", "[Unknown Error]"])
def test_compute_capability_without_a_value(value):
    assert gpu.parse_compute_caps(f"0, GPU-a, {value}\n") == {"GPU-a": (0, None)}


@pytest.mark.parametrize("output", ["", NO_DEVICES, "<nvidia_smi_log><gpu></nvidia_smi_log>"])
def test_no_report(output):
    with pytest.raises(ValueError, match="nvidia-smi -q -x printed"):
        gpu.parse_report(output)


# ---- problems --------------------------------------------------------------------------------------------------------


def on_bus(*drivers):
    return [{"address": f"0000:0{n}:00.0", "device_id": "0x20b2", "driver": driver} for n, driver in enumerate(drivers)]


@pytest.mark.parametrize(
    ("rc", "output", "drivers", "problem"),
    [
        (None, "", [], "no_gpu"),
        (None, "", ["none"], "driver_not_installed"),
        (None, "", ["nouveau"], "driver_not_installed"),
        (None, "", ["vfio-pci"], "no_gpu"),
        (18, MISMATCH, ["nvidia"], "version_mismatch"),
        (255, MISMATCH, ["nvidia"], "version_mismatch"),
        (18, "", ["nvidia"], "version_mismatch"),
        (9, NOT_LOADED, ["none"], "driver_not_loaded"),
        (9, NOT_LOADED, ["nouveau"], "driver_not_loaded"),
        (9, NOT_LOADED, [], "no_gpu"),
        (12, NO_LIBRARY, ["none"], "driver_not_installed"),
        (12, NO_LIBRARY, [], "no_gpu"),
        (6, NO_DEVICES, ["vfio-pci"], "no_gpu"),
        (6, NO_DEVICES, ["nvidia"], "gpu_lost"),
        (255, LOST, ["nvidia"], "gpu_lost"),
        (6, LOST, ["nvidia"], "gpu_lost"),
        (15, "", ["nvidia"], "gpu_lost"),
        (16, "GPU requires reset", ["nvidia"], "gpu_lost"),
        (-1, "nvidia-smi -q -x did not answer within 30 s", ["nvidia"], "unknown"),
        (4, "Insufficient Permissions", ["nvidia"], "unknown"),
    ],
)
def test_diagnosis_of_a_failure(rc, output, drivers, problem):
    assert gpu.diagnose(rc, output, [], on_bus(*drivers)) == problem


@pytest.mark.parametrize(
    ("loaded", "drivers", "problem"),
    [
        ("580.159.04", ["nvidia"], "driver_unreachable"),  # an H100 whose /dev/nvidia* were not there
        (None, ["nvidia"], "driver_not_loaded"),
        ("580.159.04", [], "no_gpu"),
    ],
)
def test_diagnosis_of_a_driver_that_is_loaded_and_not_reached(loaded, drivers, problem):
    assert gpu.diagnose(9, NOT_LOADED, [], on_bus(*drivers), loaded) == problem


@pytest.mark.parametrize(
    ("name", "problem"), [("h100-580", "none"), ("h200-580", "none"), ("a100-mig-535", "none"), ("one-lost-570", "gpu_lost")]
)
def test_diagnosis_of_a_report(name, problem):
    assert gpu.diagnose(0, sample(name), report(name)["gpus"], on_bus("nvidia")) == problem


def test_a_gpu_under_windows_is_on_no_bus():
    assert gpu.diagnose(0, sample("rtx4090-550"), report("rtx4090-550")["gpus"], []) == "none"


def test_a_failure_beside_a_report():
    assert gpu.diagnose(14, sample("t4-515"), report("t4-515")["gpus"], on_bus("nvidia")) == "unknown"


def test_every_problem_has_one_sentence_of_advice():
    problems = {name for name, _, _ in gpu.SYMPTOMS} | {"none", "unknown", "driver_unreachable"}
    assert set(gpu.ADVICE) == problems
    assert all(advice.endswith(".") and ". " not in advice for advice in gpu.ADVICE.values())


@pytest.mark.parametrize(
    ("output", "text"),
    [
        (MISMATCH, MISMATCH.strip()),
        (sample("one-lost-570"), LOST.strip()),
        (sample("t4-515").replace("15360 MiB", "[GPU is lost]"), "[GPU is lost]"),
        (sample("t4-515"), ""),
    ],
)
def test_error_text(output, text):
    assert gpu.error_text(output) == text


# ---- the kernel's view -----------------------------------------------------------------------------------------------


def make_pci(sysfs, address, *, vendor="0x10de", pci_class="0x030000", device="0x2684", driver=None):
    path = sysfs / "bus/pci/devices" / address
    path.mkdir(parents=True)
    for name, value in (("vendor", vendor), ("class", pci_class), ("device", device)):
        (path / name).write_text(value + "\n")
    if driver:
        home = sysfs / "bus/pci/drivers" / driver
        home.mkdir(parents=True, exist_ok=True)
        (path / "driver").symlink_to(os.path.relpath(home, path))


def test_pci_devices(tmp_path):
    make_pci(tmp_path, "0000:41:00.0", pci_class="0x030200", device="0x2330")
    make_pci(tmp_path, "0000:01:00.0", driver="nouveau")
    make_pci(tmp_path, "0000:01:00.1", pci_class="0x040300", driver="snd_hda_intel")  # the card's audio function
    make_pci(tmp_path, "0000:00:02.0", vendor="0x8086", driver="i915")
    assert gpu.pci_devices(str(tmp_path)) == [
        {"address": "0000:01:00.0", "device_id": "0x2684", "driver": "nouveau"},
        {"address": "0000:41:00.0", "device_id": "0x2330", "driver": "none"},
    ]


@pytest.mark.parametrize(
    ("line", "version"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  470.74  Mon Sep 13 23:09:15 UTC 2021", "470.74"),
        (
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build  (dvs-builder@U22)",
            "580.95.05",
        ),
    ],
)
def test_version_of_the_loaded_module(tmp_path, line, version):
    (tmp_path / "driver/nvidia").mkdir(parents=True)
    (tmp_path / "driver/nvidia/version").write_text(f"{line}\nGCC version:  gcc version 11.4.0 (Ubuntu)\n")
    assert gpu.kernel_module_version("/nonexistent", str(tmp_path)) == version


def test_version_of_the_loaded_module_from_sysfs(tmp_path):
    (tmp_path / "module/nvidia").mkdir(parents=True)
    (tmp_path / "module/nvidia/version").write_text("550.127.05\n")
    assert gpu.kernel_module_version(str(tmp_path), "/nonexistent") == "550.127.05"


def test_a_host_without_any_of_it():
    assert gpu.pci_devices("/nonexistent") == []
    assert gpu.kernel_module_version("/nonexistent", "/nonexistent") is None
    assert gpu.read_cdi(["/nonexistent"]) == {"cdi_devices": [], "cdi_conflicts": [], "cdi_errors": []}


def make_host(root, *, boot=None, dep="", headers=False, libraries=(), reboot=False, nouveau=False):
    """A host made of files; gives what host_state says of it."""
    (root / "proc/sys/kernel").mkdir(parents=True)
    (root / "proc/sys/kernel/osrelease").write_text("6.12.48\n")
    modules = root / "lib/modules/6.12.48"
    modules.mkdir(parents=True)
    (modules / "modules.dep").write_text(dep)
    if headers:
        (modules / "build").mkdir()
    if nouveau:
        (root / "sys/module/nouveau").mkdir(parents=True)
    if reboot:
        (root / "run").mkdir()
        (root / "run/reboot-required").touch()
    if boot is not None:
        (root / "sys/firmware/efi/efivars").mkdir(parents=True)
        variable = root / "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
        variable.write_bytes(bytes([6, 0, 0, 0, boot]))
    for path in libraries:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return gpu.host_state(f"{root}/sys", f"{root}/proc", str(root))


def test_state_of_a_plain_host(tmp_path):
    assert make_host(tmp_path, dep="kernel/drivers/net/nvidia_net.ko:\n") == {
        "kernel": "6.12.48",
        "kernel_headers": False,
        "kernel_module_installed": False,
        "nouveau_loaded": False,
        "secure_boot": None,
        "reboot_required": False,
        "library_versions": [],
    }


@pytest.mark.parametrize(
    ("made", "key", "value"),
    [
        ({"headers": True}, "kernel_headers", True),
        ({"dep": "updates/dkms/nvidia.ko.xz:\n"}, "kernel_module_installed", True),
        ({"dep": "updates/dkms/nvidia-current.ko:\n"}, "kernel_module_installed", True),
        ({"nouveau": True}, "nouveau_loaded", True),
        ({"boot": 1}, "secure_boot", True),
        ({"boot": 0}, "secure_boot", False),
        ({"reboot": True}, "reboot_required", True),
        (
            {
                "libraries": [
                    "usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1",
                    "usr/lib/x86_64-linux-gnu/libnvidia-ml.so.580.95.05",
                    "usr/lib/x86_64-linux-gnu/nvidia/current/libnvidia-ml.so.535.9",
                ]
            },
            "library_versions",
            ["535.9", "580.95.05"],
        ),
    ],
)
def test_state_of_a_host(tmp_path, made, key, value):
    assert make_host(tmp_path, **made)[key] == value


# ---- CDI -------------------------------------------------------------------------------------------------------------

# As nvidia-ctk writes it.
SPEC = """\
---
cdiVersion: 0.7.0
kind: nvidia.com/gpu
devices:
    - name: "0"
      containerEdits:
        deviceNodes:
            - path: /dev/nvidia0
              major: 195
    - name: all   # every one
      containerEdits:
        deviceNodes:
            - path: /dev/nvidia0
containerEdits:
    env:
        - NVIDIA_VISIBLE_DEVICES=void
    hooks:
        - hookName: createContainer
          path: /usr/bin/nvidia-cdi-hook
    additionalGids: []
"""

# Keys in alphabetical order, as marshallers that go through JSON write it.
SORTED_SPEC = """\
cdiVersion: 0.5.0
containerEdits:
  mounts:
  - containerPath: /usr/bin/nvidia-smi
    hostPath: /usr/bin/nvidia-smi
    options:
    - ro
devices:
- containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
      name: not-a-device
  name: '0:1'
- containerEdits: {}
  name: GPU-5c1d4e6f-0a2b-4c3d-8e9f-102132435465
kind: nvidia.com/gpu
"""

JSON_SPEC = '{"cdiVersion": "0.6.0", "kind": "nvidia.com/gpu", "devices": [{"name": "0"}, {"name": "1"}]}'


@pytest.fixture(params=["with PyYAML", "without PyYAML"])
def either_yaml(request, monkeypatch):
    if request.param == "without PyYAML":
        monkeypatch.setattr(gpu, "yaml", None)


def read_cdi(tmp_path, **files):
    """Write files, named directory__name__suffix, and read both directories."""
    for name, text in files.items():
        directory, stem, suffix = name.split("__")
        (tmp_path / directory).mkdir(exist_ok=True)
        (tmp_path / directory / f"{stem}.{suffix}").write_text(text)
    found = gpu.read_cdi([str(tmp_path / "etc"), str(tmp_path / "run")])
    return json.loads(json.dumps(found).replace(f"{tmp_path}/", ""))


@pytest.mark.usefixtures("either_yaml")
@pytest.mark.parametrize(
    ("suffix", "text", "names"),
    [
        ("yaml", SPEC, ["0", "all"]),
        ("yaml", SORTED_SPEC, ["0:1", "GPU-5c1d4e6f-0a2b-4c3d-8e9f-102132435465"]),
        ("yaml", SPEC.replace('"0"', "0"), ["0", "all"]),
        ("yaml", REAL_SPEC, ["0", H100, "all"]),
        ("yaml", JSON_SPEC, ["0", "1"]),
        ("json", JSON_SPEC, ["0", "1"]),
        ("yaml", SPEC.replace("nvidia.com/gpu", "amd.com/gpu"), []),
        ("yml", SPEC, []),  # not a name that engines read
    ],
)
def test_cdi_devices(tmp_path, suffix, text, names):
    found = read_cdi(tmp_path, **{f"run__nvidia__{suffix}": text})
    assert found["cdi_devices"] == [f"nvidia.com/gpu={name}" for name in names]
    assert found["cdi_errors"] == []


def test_the_later_directory_wins(tmp_path):
    found = read_cdi(tmp_path, etc__nvidia__yaml=SPEC, run__nvidia__json=JSON_SPEC)
    assert found["cdi_devices"] == ["nvidia.com/gpu=0", "nvidia.com/gpu=1", "nvidia.com/gpu=all"]
    assert found["cdi_conflicts"] == [
        {"device": "nvidia.com/gpu=0", "files": ["etc/nvidia.yaml", "run/nvidia.json"], "winner": "run/nvidia.json"}
    ]


def test_nobody_wins_within_a_directory(tmp_path):
    found = read_cdi(tmp_path, etc__a__json=JSON_SPEC, etc__b__yaml=SPEC)
    assert found["cdi_conflicts"] == [{"device": "nvidia.com/gpu=0", "files": ["etc/a.json", "etc/b.yaml"], "winner": None}]


@pytest.mark.usefixtures("either_yaml")
@pytest.mark.parametrize(
    ("suffix", "text"),
    [
        ("json", "{"),
        ("json", "[]"),
        ("json", '{"kind": "nvidia.com/gpu"}'),
        ("json", '{"kind": "nvidia.com/gpu", "devices": []}'),
        ("json", ""),
        ("yaml", ""),
        ("yaml", "kind: nvidia.com/gpu\n"),
        ("yaml", "kind: nvidia.com/gpu\ndevices:\n  - containerEdits:\n"),
        ("yaml", "kind: nvidia.com/gpu\ndevices:\n  name: x\n"),
        ("yaml", "kind: nvidia.com/gpu\ndevices: none\n"),
        ("yaml", "kind: nvidia.com/gpu\ndevices: [{name: 0"),
    ],
)
def test_broken_specs_are_named(tmp_path, suffix, text):
    found = read_cdi(tmp_path, **{f"etc__bad__{suffix}": text, "etc__good__json": JSON_SPEC})
    assert [error["file"] for error in found["cdi_errors"]] == [f"etc/bad.{suffix}"]
    assert found["cdi_errors"][0]["error"]
    assert found["cdi_devices"] == ["nvidia.com/gpu=0", "nvidia.com/gpu=1"]


@pytest.mark.parametrize(
    "text",
    [
        "kind: nvidia.com/gpu\ndevices: [{name: all}]\n",
        "kind: &kind nvidia.com/gpu\ndevices:\n  - name: all\n",
        "kind: nvidia.com/gpu\ndevices:\n  - name: *name\n",
        "kind: nvidia.com/gpu\ndevices:\n  -\n    name: all\n",
        "kind: nvidia.com/gpu\ndevices:\n  - {name: all}\n",
        '"kind": nvidia.com/gpu\n',
    ],
)
def test_yaml_that_needs_pyyaml_says_so(tmp_path, monkeypatch, text):
    monkeypatch.setattr(gpu, "yaml", None)
    found = read_cdi(tmp_path, etc__nvidia__yaml=text)
    assert found["cdi_errors"][0]["error"].startswith("PyYAML is needed on the host")


def test_specs_that_cannot_be_opened_are_named(tmp_path):
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "gone.yaml").symlink_to("nowhere")
    assert read_cdi(tmp_path)["cdi_errors"] == [{"file": "etc/gone.yaml", "error": "No such file or directory"}]


# ---- the module as a process -----------------------------------------------------------------------------------------

STAND_IN = """\
#!/bin/sh
echo "$*" >> '{calls}'
case "$*" in
    "-q -x") {query} ;;
    --query-gpu=*) printf '%s\\n' '{caps}' ;;
    -L) cat '{listing}' ;;
esac
"""


class Host:
    """A host made of files: its sysfs, procfs, CDI directory, and a PATH to put a stand-in for nvidia-smi on."""

    def __init__(self, root):
        self.root, self.path, self.calls = root, root / "bin", root / "calls"
        self.path.mkdir()

    def stand_in(self, query, caps="", listing=""):
        (self.root / "listing").write_text(listing)
        script = self.path / "nvidia-smi"
        script.write_text(STAND_IN.format(query=query, caps=caps, calls=self.calls, listing=self.root / "listing"))
        script.chmod(0o755)
        return script

    def prints(self, text, rc=0):
        (self.root / "output").write_text(text)
        return f"cat '{self.root}/output'; exit {rc}"

    def run(self, rc=0, **options):
        arguments = {"sysfs": f"{self.root}/sys", "procfs": f"{self.root}/proc", "cdi_dirs": [f"{self.root}/cdi"]}
        (self.root / "arguments").write_text(json.dumps({"ANSIBLE_MODULE_ARGS": {**arguments, **options}}))
        done = subprocess.run(
            [sys.executable, ROOT / "plugins/modules/gpu_info.py", self.root / "arguments"],
            env={"PATH": f"{self.path}:/usr/bin:/bin", "PYTHONPATH": str(ROOT / "build" / "collections")},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == rc, done.stderr
        return json.loads(done.stdout)


@pytest.fixture
def host(tmp_path):
    return Host(tmp_path)


def test_module_on_a_host_without_a_gpu(host):
    result = host.run(nvidia_smi="/nonexistent/nvidia-smi")
    assert pick(result, "changed", "gpus", "problem", "driver_error", "driver_version") == (
        False,
        [],
        "no_gpu",
        None,
        None,
    )


def test_module_on_a_mig_host(host):
    make_pci(host.root / "sys", "0000:07:00.0", pci_class="0x030200", device="0x20b2", driver="nvidia")
    (host.root / "cdi").mkdir()
    (host.root / "cdi/nvidia.yaml").write_text(SPEC)
    caps = "0, GPU-5c1d4e6f-0a2b-4c3d-8e9f-102132435465, 8.0"
    host.stand_in(host.prints(sample("a100-mig-535")), caps=caps, listing=A100_LIST)
    result = host.run()
    assert pick(result, "problem", "advice", "driver_error") == ("none", "Nothing to do.", None)
    assert result["cdi_devices"] == ["nvidia.com/gpu=0", "nvidia.com/gpu=all"]
    assert result["gpus"][0]["pci_bus_id"] == result["pci_devices"][0]["address"]
    assert result["gpus"][0]["compute_capability"] == "8.0"
    assert [mig["profile"] for mig in result["gpus"][0]["mig_devices"]] == ["3g.40gb", "2g.20gb", "1g.10gb"]


def test_module_asks_for_slices_only_where_there_are_any(host):
    host.stand_in(host.prints(sample("h200-580")))
    assert host.run()["gpus"][0]["compute_capability"] == "9.0"
    assert host.calls.read_text().splitlines() == [
        "-q -x",
        "--query-gpu=index,uuid,compute_cap --format=csv,noheader",
    ]


@pytest.mark.parametrize(
    ("text", "rc", "problem"),
    [(MISMATCH, 18, "version_mismatch"), (NO_DEVICES, 6, "gpu_lost"), (NOT_LOADED, 9, "driver_unreachable")],
)
@pytest.mark.parametrize("stream", ["", " >&2"])
def test_module_on_a_broken_driver(host, text, rc, problem, stream):
    make_pci(host.root / "sys", "0000:07:00.0", driver="nvidia")
    (host.root / "proc/driver/nvidia").mkdir(parents=True)
    (host.root / "proc/driver/nvidia/version").write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.82.07  x\n")
    host.stand_in(f"{{ {host.prints(text, rc)}; }}{stream}")
    result = host.run()
    assert pick(result, "problem", "driver_error", "gpus") == (problem, text.strip(), [])
    assert pick(result, "driver_version", "kernel_module_version") == (None, "580.82.07")
    assert host.calls.read_text().splitlines() == ["-q -x"]


def test_module_keeps_the_gpus_that_are_left(host):
    caps = "1, GPU-a6000a60-00a6-4000-a600-0a6000a6000a, 8.6"
    host.stand_in(host.prints(sample("one-lost-570")), caps=caps)
    result = host.run()
    assert pick(result, "problem", "driver_error") == ("gpu_lost", LOST.strip())
    assert [pick(one, "index", "compute_capability") for one in result["gpus"]] == [(1, "8.6")]


def test_module_with_a_card_and_no_driver(host):
    make_pci(host.root / "sys", "0000:07:00.0")
    result = host.run(nvidia_smi="/nonexistent/nvidia-smi")
    assert result["problem"] == "driver_not_installed"
    assert result["driver_error"] == "there is no executable /nonexistent/nvidia-smi"


def test_module_does_not_wait_for_a_driver_that_hangs(host):
    host.stand_in("exec sleep 60")
    result = host.run(timeout=1)
    assert result["problem"] == "unknown"
    assert "did not answer within 1 s" in result["driver_error"]


def test_module_on_output_that_is_no_report(host):
    host.stand_in(host.prints("hello"))
    result = host.run()
    assert result["problem"] == "unknown"
    assert result["driver_error"] == "hello\nnvidia-smi -q -x printed no report"


def test_module_asks_the_engine(host):
    docker = host.path / "docker"
    info = {"ServerVersion": "26.1.5", "CDISpecDirs": ["/etc/cdi"], "Runtimes": {"runc": {}}, "LiveRestoreEnabled": True}
    docker.write_text(f"#!/bin/sh\necho '{json.dumps(info)}'\n")
    docker.chmod(0o755)
    engine = host.run()["engine"]
    assert pick(engine, "version", "cdi_dirs", "runtimes", "live_restore", "running") == (
        "26.1.5",
        ["/etc/cdi"],
        ["runc"],
        True,
        0,
    )


@pytest.mark.parametrize("answer", ["exit 1", "echo '{}'", "echo nonsense"])
def test_module_without_an_engine_that_answers(host, answer):
    docker = host.path / "docker"
    docker.write_text(f"#!/bin/sh\n{answer}\n")
    docker.chmod(0o755)
    assert host.run()["engine"] is None


def test_module_refuses_a_timeout_below_a_second(host):
    assert "timeout is 0" in host.run(rc=1, timeout=0)["msg"]
