# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a host knows about its NVIDIA GPUs: nvidia-smi's reports, the PCI bus, the kernel module and CDI specs."""

from __future__ import annotations

import glob
import os
import re
import xml.etree.ElementTree as ET
from html import escape, unescape
from typing import Any

from ansible_collections.iopaint.fleet.plugins.module_utils import foreign
from ansible_collections.iopaint.fleet.plugins.module_utils.commands import run

try:
    import yaml
except ImportError:  # managed hosts need not have PyYAML
    yaml = None

CDI_KIND = "nvidia.com/gpu"
NO_REPORT = {"driver_version": None, "cuda_version": None, "gpus": []}

# Architectures with one compute capability on discrete GPUs; Pascal, Ampere and Blackwell have several.
COMPUTE_CAPABILITY = {"Volta": "7.0", "Turing": "7.5", "Ada Lovelace": "8.9", "Hopper": "9.0"}

# How nvidia-smi's failures look: problem, exit status (the NVML return code), text. Text is the more reliable.
SYMPTOMS = (
    ("gpu_lost", 15, r"GPU is lost|fallen off the bus|Unable to determine the device handle"),
    ("gpu_lost", 16, r"GPU requires reset"),
    ("version_mismatch", 18, r"Driver/library version mismatch"),
    ("driver_not_installed", 12, r"couldn't find libnvidia-ml|NVML Shared Library Not Found"),
    ("driver_not_loaded", 9, r"couldn't communicate with the NVIDIA driver|Driver Not Loaded"),
    ("no_gpu", 6, r"No devices were found"),
)

ADVICE = {
    "none": "Nothing to do.",
    "no_gpu": "There is no NVIDIA GPU for this host to use: run the CPU variant, or check that the card is seated, "
    "powered, and passed through if this is a virtual machine.",
    "driver_not_installed": "The GPU is on the bus and its driver is not installed: install the NVIDIA driver, and "
    "reboot if nouveau holds the GPU.",
    "driver_not_loaded": "The driver's kernel module is not loaded: run `modprobe nvidia`, and if that fails look in "
    "`dmesg` and `dkms status` for Secure Boot, nouveau, or a kernel the module was not built for.",
    "driver_unreachable": "The driver's kernel module is loaded and its device nodes /dev/nvidia* are missing or closed to this "
    "user: run `nvidia-smi` as root, which makes them, and look in `dmesg` if it fails there too.",
    "version_mismatch": "The driver was updated under the loaded kernel module, so what runs goes on and nothing new "
    "starts: drain this host and reboot it.",
    "gpu_lost": "A GPU stopped answering: move its work away, save the output of `nvidia-bug-report.sh`, reboot the "
    "host, and switch its power off and on if the GPU stays away.",
    "unknown": "nvidia-smi failed in a way this module does not know: read driver_error and "
    "`dmesg | grep -iE 'nvrm|xid'`, and reboot the host before reinstalling anything.",
}

# Drivers that hold a GPU for a virtual machine: it is not this host's to use.
PASSTHROUGH_DRIVERS = ("vfio-pci", "pciback")

NEEDS_PYYAML = "PyYAML is needed on the host to read this spec: {:.60}"

# What nvidia-smi prints, with or without brackets, where it has no value.
NO_VALUE = {
    "",
    "err!",
    "gpu is lost",
    "gpu requires reset",
    "insufficient permissions",
    "n/a",
    "none",
    "not found",
    "not supported",
    "requested functionality has been deprecated",
    "unknown error",
}


# ---- nvidia-smi ------------------------------------------------------------------------------------------------------


def query(nvidia_smi: str, timeout: int) -> tuple:
    """Exit status, output and report of nvidia-smi."""
    rc, stdout, stderr = run([nvidia_smi, "-q", "-x"], timeout)
    output = f"{stderr}\n{stdout}"
    try:
        report = parse_report(stdout)
    except ValueError as error:
        return (-1, f"{output}\n{error}", NO_REPORT) if rc == 0 else (rc, output, NO_REPORT)

    caps = slices = ""
    if report["gpus"]:
        _rc, caps, _err = run([nvidia_smi, "--query-gpu=index,uuid,compute_cap", "--format=csv,noheader"], timeout)
    if any(device["mig_devices"] for device in report["gpus"]):
        _rc, slices, _err = run([nvidia_smi, "-L"], timeout)
    complete(report["gpus"], parse_compute_caps(caps), parse_slices(slices))
    return rc, output, report


def parse_report(output: str) -> dict:
    """Return driver_version, cuda_version and gpus of `nvidia-smi -q -x`, all schema generations; ValueError without a report.

    Elements are looked up by name: the schema's versions differ in what surrounds these few, which kept theirs.
    """
    report = re.search(r"<nvidia_smi_log>.*</nvidia_smi_log>", output, re.DOTALL)
    if not report:
        raise ValueError("nvidia-smi -q -x printed no report")
    try:
        root = ET.fromstring(_well_formed(report[0]))  # noqa: S314 (no DOCTYPE left, so no entities to expand)
    except ET.ParseError as error:
        raise ValueError(f"nvidia-smi -q -x printed a report that is not XML: {error}") from error
    return {
        "driver_version": _text(root, "driver_version") or _text(root, "kmd_version"),
        "cuda_version": _text(root, "cuda_version") or _text(root, "cuda_umd_version"),
        "gpus": [_gpu(index, node) for index, node in enumerate(root.iterfind("gpu"))],
    }


def parse_compute_caps(output: str) -> dict:
    """Return UUID -> (index, compute capability) of `--query-gpu=index,uuid,compute_cap --format=csv,noheader`."""
    rows = re.findall(r"^(\d+), *(GPU-[^,\s]+), *(.+?) *$", output, re.MULTILINE)
    return {uuid: (int(index), cap if re.fullmatch(r"\d+\.\d+", cap) else None) for index, uuid, cap in rows}


def parse_slices(output: str) -> dict:
    """Return (GPU UUID, MIG device index) -> (profile, MIG UUID) of `nvidia-smi -L`: the XML report has neither."""
    slices, gpu = {}, None
    for line in output.splitlines():
        if match := re.match(r"GPU \d+:.*\(UUID: ([^)]+)\)", line):
            gpu = match[1]
        elif match := re.match(r"\s+MIG (\S+)\s+Device\s+(\d+): \(UUID: ([^)]+)\)", line):
            slices[gpu, int(match[2])] = (match[1], match[3])
    return slices


def complete(gpus: list, compute_caps: dict, slices: dict) -> None:
    """Add to the report's GPUs, in place, what only the other two queries know."""
    for gpu in gpus:
        index, capability = compute_caps.get(gpu["uuid"], (gpu["index"], None))
        gpu["index"] = index  # a GPU that is lost has no row in the report, which shifts those after it
        gpu["compute_capability"] = capability or gpu["compute_capability"]
        for mig in gpu["mig_devices"]:
            mig["profile"], mig["uuid"] = slices.get((gpu["uuid"], mig["index"]), (None, None))


def diagnose(rc: int | None, output: str, gpus: list, pci_devices: list, loaded: str | None = None) -> str:
    """Return the problem, a key of ADVICE.

    rc is None where there is no nvidia-smi to run; loaded is the version of the kernel module that is loaded, None where none is.
    """
    own = [device for device in pci_devices if device["driver"] not in PASSTHROUGH_DRIVERS]
    if rc is None:
        return "driver_not_installed" if own else "no_gpu"
    problem = next((name for name, _code, text in SYMPTOMS if re.search(text, output, re.IGNORECASE)), None)
    if problem is None and rc == 0:
        problem = "none" if gpus else "no_gpu"
    if problem is None:
        problem = next((name for name, code, _text in SYMPTOMS if code == rc), "unknown")
    if problem in ("driver_not_installed", "driver_not_loaded") and not own:
        return "no_gpu"
    if problem == "driver_not_loaded" and loaded:
        return "driver_unreachable"  # nvidia-smi says the same of a module that is not loaded and of nodes that are not there
    if problem == "no_gpu" and any(device["driver"] == "nvidia" for device in own):
        return "gpu_lost"  # the driver holds a GPU that it could not bring up
    return problem


def error_text(output: str) -> str:
    """Return what nvidia-smi says outside its report, or the value in the report that names the failure."""
    outside = re.sub(r"(<\?xml.*?)?<nvidia_smi_log>.*</nvidia_smi_log>", "", output, flags=re.DOTALL).strip()
    symptoms = "|".join(text for _name, _code, text in SYMPTOMS)
    inside = re.search(rf"[^<>\n]*({symptoms})[^<>\n]*", output, re.IGNORECASE)
    return outside or (inside[0].strip() if inside else "")


def _well_formed(xml: str) -> str:
    # Any program's command line can be in the report: one that is no XML must not hide every GPU.
    xml = re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f]", "", xml)
    return re.sub(r"(?s)(?<=<process_name>).*?(?=</process_name>)", lambda name: escape(unescape(name[0]), quote=False), xml)


def _text(node: ET.Element, path: str) -> str | None:
    text = (node.findtext(path) or "").strip()
    return None if text.strip("[]").lower() in NO_VALUE else text


def _number(node: ET.Element, path: str) -> int | None:
    match = re.match(r"\d+", _text(node, path) or "")  # "81920 MiB", the only unit there is
    return int(match[0]) if match else None


def _gpu(index: int, node: ET.Element) -> dict:
    architecture = _text(node, "product_architecture")
    return {
        "index": index,
        "uuid": _text(node, "uuid"),
        "name": _text(node, "product_name"),
        "architecture": architecture,
        "compute_capability": COMPUTE_CAPABILITY.get(architecture),
        "pci_bus_id": _pci_address(_text(node, "pci/pci_bus_id") or node.get("id")),
        "memory_total_mib": _number(node, "fb_memory_usage/total"),
        "memory_used_mib": _number(node, "fb_memory_usage/used"),
        "memory_free_mib": _number(node, "fb_memory_usage/free"),
        "mig_enabled": _text(node, "mig_mode/current_mig") == "Enabled",
        "mig_devices": [_mig_device(mig) for mig in node.iterfind("mig_devices/mig_device")],
        "processes": [_process(process) for process in node.iterfind("processes/process_info")],
    }


def _mig_device(node: ET.Element) -> dict:
    return {
        "index": _number(node, "index"),
        "uuid": None,
        "profile": None,
        "gpu_instance_id": _number(node, "gpu_instance_id"),
        "compute_instance_id": _number(node, "compute_instance_id"),
        "memory_total_mib": _number(node, "fb_memory_usage/total"),
        "memory_used_mib": _number(node, "fb_memory_usage/used"),
    }


def _process(node: ET.Element) -> dict:
    return {
        "pid": _number(node, "pid"),
        "name": _text(node, "process_name"),
        "type": _text(node, "type"),
        "used_memory_mib": _number(node, "used_memory"),
        "gpu_instance_id": _number(node, "gpu_instance_id"),
        "compute_instance_id": _number(node, "compute_instance_id"),
    }


def _pci_address(bus_id: str | None) -> str | None:
    """Return nvidia-smi's 00000000:1A:00.0 as sysfs writes it, 0000:1a:00.0."""
    domain, _separator, rest = (bus_id or "").partition(":")
    return f"{int(domain, 16):04x}:{rest.lower()}" if rest else None


# ---- the kernel's view -----------------------------------------------------------------------------------------------


def pci_devices(sysfs: str) -> list:
    """Return NVIDIA's VGA (0300) and 3D (0302) controllers on the bus, whatever driver they have."""
    bus = os.path.join(sysfs, "bus/pci/devices")
    devices = []
    for address in sorted(os.listdir(bus)) if os.path.isdir(bus) else ():
        path = os.path.join(bus, address)
        if _read(path, "vendor") == "0x10de" and _read(path, "class").startswith(("0x0300", "0x0302")):
            driver = os.path.join(path, "driver")
            bound = os.path.basename(os.readlink(driver)) if os.path.islink(driver) else "none"
            devices.append({"address": address, "device_id": _read(path, "device"), "driver": bound})
    return devices


def kernel_module_version(sysfs: str, procfs: str) -> str | None:
    """Return the version of the nvidia module that is loaded, which need not be the one that is installed."""
    loaded = re.search(r"NVRM version:.*?\s(\d+(?:\.\d+)+)\s", _read(procfs, "driver/nvidia/version") + "\n")
    return loaded[1] if loaded else _read(sysfs, "module/nvidia/version") or None


# Where the driver's libraries lie: multiarch, Debian's alternatives, other distributions, WSL.
LIBRARIES = (
    "usr/lib/*-linux-gnu/libnvidia-ml.so.*.*",
    "usr/lib/*-linux-gnu/nvidia/current/libnvidia-ml.so.*.*",
    "usr/lib64/libnvidia-ml.so.*.*",
    "usr/lib/libnvidia-ml.so.*.*",
)


def library_versions(root: str) -> list:
    """Return the versions of the driver's library that is installed, newest last; more than one is a fault in itself."""
    names = (os.path.basename(path) for pattern in LIBRARIES for path in glob.glob(os.path.join(root, pattern)))
    versions = {name.partition(".so.")[2] for name in names}
    return sorted((one for one in versions if re.fullmatch(r"\d+(\.\d+)+", one)), key=version_key)


def version_key(version: str) -> list:
    """Return the numbers of a driver's version, by which versions are compared."""
    return [int(part) for part in re.findall(r"\d+", version)]


def host_state(sysfs: str, procfs: str, root: str) -> dict:
    """Return what decides whether the kernel can load the driver: kernel, headers, nouveau, Secure Boot, a reboot that is due."""
    kernel = _read(procfs, "sys/kernel/osrelease")
    modules = os.path.join(root, "lib/modules", kernel)
    installed = re.search(r"/(nvidia|nvidia-current)\.ko", _read(modules, "modules.dep"))
    return {
        "kernel": kernel,
        "kernel_headers": os.path.isdir(os.path.join(modules, "build")),
        "kernel_module_installed": bool(installed),
        "nouveau_loaded": os.path.isdir(os.path.join(sysfs, "module/nouveau")),
        "secure_boot": _secure_boot(sysfs),
        "reboot_required": os.path.exists(os.path.join(root, "run/reboot-required")),
        "library_versions": library_versions(root),
    }


def _secure_boot(sysfs: str) -> bool | None:
    """Return the firmware's variable: four bytes of attributes, then the value. None on a host that did not boot by EFI."""
    found = glob.glob(os.path.join(sysfs, "firmware/efi/efivars/SecureBoot-*"))
    try:
        with open(found[0], "rb") as file:
            return file.read()[-1:] == b"\x01"
    except (IndexError, OSError):
        return None


def _read(*path: str) -> str:
    try:
        with open(os.path.join(*path), encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""


# ---- the engine's view ------------------------------------------------------------------------------------------------


def engine_state(info: dict) -> dict:
    """Return the facts of `docker info` that decide how containers get a GPU. An engine without CDI has no spec directories."""
    return {
        "version": info.get("ServerVersion") or None,
        "cdi_dirs": info.get("CDISpecDirs") or [],
        "runtimes": sorted(info.get("Runtimes") or {}),
        "default_runtime": info.get("DefaultRuntime") or None,
        "live_restore": bool(info.get("LiveRestoreEnabled")),
        "running": info.get("ContainersRunning") or 0,
    }


def explain_start(error: str, cdi: dict) -> str:
    """Return the cause of an engine's refusal to start a container with a GPU, or the engine's own text where it is unknown."""
    if unresolvable := re.search(r"unresolvable CDI devices (.*)", error):
        devices = re.findall(r"[\w.-]+/[\w.-]+=\w[\w.:-]*\b", unresolvable[1])
        return " ".join(_unresolvable(device, cdi) for device in devices)
    if 'could not select device driver "cdi"' in error or "CDI device injection failed: no CDI" in error:
        return (
            "CDI is off in the engine: set features.cdi to true in /etc/docker/daemon.json and restart the engine, "
            "as the role nvidia_container_toolkit does in its mode cdi."
        )
    if node := re.search(r"failed to stat CDI host device \"?([^\s\":]+)", error):
        return (
            f"The CDI spec names {node[1]}, which is not on this host, so it is older than the driver or the MIG layout: "
            "restart nvidia-cdi-refresh.service, or run the role nvidia_container_toolkit, to write it anew."
        )
    if re.search(r'could not select device driver "(nvidia)?" with capabilities: \[\[.*gpu', error):
        return "The NVIDIA Container Toolkit is not installed: run the role nvidia_container_toolkit on this host."
    if "unknown or invalid runtime name" in error or re.search(r"[Uu]nknown runtime", error):
        return "The engine knows no runtime nvidia: run the role nvidia_container_toolkit in its mode legacy on this host."
    return f"The engine says: {' '.join(error.split())}"


def _unresolvable(device: str, cdi: dict) -> str:
    files = next((one["files"] for one in cdi["cdi_conflicts"] if one["device"] == device), None)
    if files:
        return (
            f"{device} is declared by {' and by '.join(files)}, so the engine takes neither: remove the one that nobody "
            "writes any more, or let the role nvidia_container_toolkit set it aside."
        )
    known = ", ".join(cdi["cdi_devices"]) or "none"
    broken = "".join(f" {error['file']} can't be read: {error['error']}." for error in cdi["cdi_errors"])
    return f"No CDI spec declares {device}: ask for one of those that are declared ({known}).{broken}"


# ---- CDI -------------------------------------------------------------------------------------------------------------


def read_cdi(directories: list) -> dict:
    """Return cdi_devices, cdi_conflicts and cdi_errors of the spec directories, which are in rising order of precedence."""
    files, errors = {}, []
    for path in (path for directory in directories for path in spec_files(directory, errors)):
        try:
            kind, names = read_spec(path)
        except (OSError, ValueError) as error:
            errors.append({"file": path, "error": " ".join(str(getattr(error, "strerror", None) or error).split())})
            continue
        if kind == CDI_KIND:
            for name in names:
                files.setdefault(f"{kind}={name}", []).append(path)
    return {
        "cdi_devices": sorted(files),
        "cdi_conflicts": [
            {"device": device, "files": paths, "winner": _winner(paths)}
            for device, paths in sorted(files.items())
            if len(paths) > 1
        ],
        "cdi_errors": errors,
    }


def spec_files(directory: str, errors: list) -> list:
    try:
        names = sorted(os.listdir(directory))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        errors.append({"file": directory, "error": error.strerror})
        return []
    return [os.path.join(directory, name) for name in names if name.endswith((".json", ".yaml"))]


def _winner(paths: list) -> str | None:
    # The CDI library lets the later directory win, and drops a device that one directory declares twice.
    directories = [os.path.dirname(path) for path in paths]
    return paths[-1] if len(set(directories)) == len(directories) else None


def read_spec(path: str) -> tuple:
    """Return kind and device names of a spec file; ValueError says what is wrong with it."""
    text = foreign.read_text(path)
    if path.endswith(".json") or text.lstrip().startswith("{"):
        spec = foreign.parse_json(text)
    else:
        spec = _load_yaml(text) if yaml else outline(text)
    try:
        kind, names = spec["kind"], [device["name"] for device in spec["devices"]]
    except (KeyError, TypeError) as error:
        raise ValueError("not a CDI spec: it needs a kind, and devices that each have a name") from error
    if not all(isinstance(word, (str, int)) and str(word).isprintable() for word in [kind, *names]):
        raise ValueError("not a CDI spec: its kind and the names of its devices are no names")
    if not names:
        raise ValueError("declares no device")
    return kind, list(map(str, names))


def _load_yaml(text: str) -> Any:
    """Return a YAML document; raise ValueError on text that is none, or that grows or nests beyond measure."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    depth = 0
    try:
        for event in yaml.parse(text, loader):  # which does not recurse, as loading does
            depth += isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent))
            depth -= isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent))
            if depth > foreign.DEPTH or isinstance(event, yaml.AliasEvent):
                raise ValueError("not a CDI spec: it nests too deeply, or has aliases")
        return yaml.load(text, loader)
    except yaml.YAMLError as error:
        raise ValueError(f"not YAML: {error}") from error


def outline(text: str) -> dict:
    """Return kind and device names of a block-style YAML spec, as nvidia-ctk writes it; ValueError for anything fancier."""
    spec, section, column = {}, None, None  # column: where the keys of a device start
    for line in text.splitlines():
        match = re.match(r"( *)(- +)?([A-Za-z]+):(?:\s+(.*))?$", line)
        if not match:
            indent = len(line) - len(line.lstrip())
            in_item = column is not None and indent >= column
            if re.match(r"[^\s#-]", line) or (section == "devices" and line.strip().startswith("-") and not in_item):
                raise ValueError(NEEDS_PYYAML.format(line.strip()))
            continue
        indent, dash, key, value = match.groups()
        here = len(indent) + len(dash or "")
        if here == 0:
            section, column = key, None
            spec[key] = _scalar(value)
            if key == "devices":
                spec[key] = []
        elif section == "devices":
            if column is None and dash:
                column = here
            if here == column and dash:
                spec["devices"].append({})
            if here == column and key == "name":
                spec["devices"][-1]["name"] = _scalar(value)
    return spec


def _scalar(value: str | None) -> str:
    value = (value or "").strip()
    if quoted := re.match(r"""(["'])([^"'\\]*)\1\s*(#.*)?$""", value):
        return quoted[2]
    if re.match(r"""[&*!|>\[{"'%@`]""", value):
        raise ValueError(NEEDS_PYYAML.format(value))
    return "" if value.startswith("#") else value.split(" #")[0].strip()
