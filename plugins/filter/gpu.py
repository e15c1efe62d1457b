# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filters over what gpu_info returns: what is wrong, what is worth knowing, and the CDI names to hand out."""

from __future__ import annotations

from ansible.errors import AnsibleFilterError
from ansible_collections.iopaint.fleet.plugins.module_utils.gpu import CDI_KIND, version_key


def gpu_faults(info, minimum_driver=""):
    """Return one sentence for each thing that keeps this host's GPUs from serving; none where all is well."""
    addresses = [f"{device['address']} ({device['driver']})" for device in info["pci_devices"]]
    if info["problem"] == "no_gpu":
        if addresses:
            return [
                f"The NVIDIA GPU at {', '.join(addresses)} is reserved for a virtual machine: give it back to this host "
                "(driver in brackets), or move the host to cpu_hosts."
            ]
        return [
            "No NVIDIA GPU is on the PCI bus: move the host to cpu_hosts, or check that the card is seated and powered, "
            "or passed through if this is a virtual machine."
        ]
    explain = {
        "driver_not_installed": _not_installed,
        "driver_not_loaded": _not_loaded,
        "version_mismatch": _mismatch,
    }
    faults = []
    if info["problem"] in explain:
        faults.append(explain[info["problem"]](info))
    elif info["problem"] != "none":
        faults.append(info["advice"])
    if minimum_driver and info["driver_version"] and version_key(info["driver_version"]) < version_key(minimum_driver):
        faults.append(
            f"The driver is {info['driver_version']} and the images need {minimum_driver} or newer "
            "(nvidia_driver_minimum_version): install a newer branch, by nvidia_driver_install and nvidia_driver_branch."
        )
    return [f"{fault} nvidia-smi says: {_one_line(info)}" if info["driver_error"] else fault for fault in faults]


def gpu_warnings(info):
    """Return one sentence for each thing that works now and may not after the next reboot."""
    if info["problem"] == "no_gpu":
        return []
    warnings = []
    if info["reboot_required"]:
        warnings.append(
            "A reboot is due (/run/reboot-required): drain the host and reboot it, or a driver that was updated under "
            "its loaded kernel module keeps new containers from starting."
        )
    if len(info["library_versions"]) > 1:
        warnings.append(
            f"Driver libraries of several versions are installed ({', '.join(info['library_versions'])}): remove those "
            f"that don't belong to the loaded kernel module {info['kernel_module_version']}."
        )
    lost = [device["address"] for device in info["pci_devices"] if device["driver"] == "nouveau"]
    if lost and info["problem"] == "none":
        warnings.append(f"nouveau holds the GPU at {', '.join(lost)}: blacklist nouveau and reboot to use that one too.")
    return warnings


def gpu_cdi_names(info, by="index"):
    """Return the CDI names to hand out, one per GPU, or one per slice of a GPU in MIG mode, in the order of nvidia-smi.

    by is index (nvidia.com/gpu=0, nvidia.com/gpu=0:1) or uuid (the same for the life of the card).
    """
    if by not in ("index", "uuid"):
        raise AnsibleFilterError(f"gpu_cdi_names: by is {by!r}, and has to be 'index' or 'uuid'.")
    names = []
    for gpu in sorted(info["gpus"], key=lambda one: one["index"]):
        if not gpu["mig_enabled"]:
            names.append(str(gpu["index"]) if by == "index" else gpu["uuid"])
        for mig in gpu["mig_devices"]:
            names.append(f"{gpu['index']}:{mig['index']}" if by == "index" else mig["uuid"])
    return [f"{CDI_KIND}={name}" for name in names]


# PCI device IDs rise with the generations: the first of Turing, and the first of Blackwell.
TURING = 0x1E00
BLACKWELL = 0x2900


def gpu_kernel_module(info, wanted="auto"):
    """Return open or proprietary, whichever all GPUs of the host can use; a sentence where there is no such."""
    ids = {device["address"]: int(device["device_id"], 16) for device in info["pci_devices"] if device["device_id"]}
    old = [address for address, device in ids.items() if device < TURING]
    new = [address for address, device in ids.items() if device >= BLACKWELL]
    if old and new:
        return (
            f"The GPU at {', '.join(old)} needs the proprietary kernel module and the one at {', '.join(new)} the open one, "
            "so no driver serves both: take one of them out of the host."
        )
    if wanted == "open" and old:
        return (
            f"The GPU at {', '.join(old)} is older than Turing, and nvidia_driver_kernel_module is 'open', which does not "
            "know it: set nvidia_driver_kernel_module to 'auto' or 'proprietary'."
        )
    if wanted == "proprietary" and new:
        return (
            f"The GPU at {', '.join(new)} is of Blackwell or newer, and nvidia_driver_kernel_module is 'proprietary', which "
            "does not know it: set nvidia_driver_kernel_module to 'auto' or 'open'."
        )
    return ("proprietary" if old else "open") if wanted == "auto" else wanted


def _one_line(info):
    text = " ".join(info["driver_error"].split())
    return text if len(text) <= 300 else f"… {text[-300:]}"  # the end has what went wrong


def _not_installed(info):
    bus = ", ".join(f"{device['address']} (driver: {device['driver']})" for device in info["pci_devices"])
    return (
        f"The GPU at {bus} has no NVIDIA driver: set nvidia_driver_install to true, or install the driver by hand and "
        "reboot if nouveau holds the GPU."
    )


def _not_loaded(info):
    if info["nouveau_loaded"] or any(device["driver"] == "nouveau" for device in info["pci_devices"]):
        why = "nouveau holds the GPU: blacklist nouveau (NVIDIA's packages do), update the initramfs and reboot"
    elif not info["kernel_module_installed"]:
        headers = "" if info["kernel_headers"] else f" Its headers are missing too: install linux-headers-{info['kernel']} first."
        why = f"no nvidia module was built for the running kernel {info['kernel']}: see `dkms status`.{headers}"
    elif info["secure_boot"]:
        why = (
            "Secure Boot is on and loads signed modules only: enroll the key that the module is signed with "
            "(`mokutil --import /var/lib/dkms/mok.pub`, then confirm at the console on the next boot)"
        )
    else:
        why = "run `modprobe nvidia`, and if that fails read `dmesg`"
    return f"The NVIDIA driver is installed and its kernel module is not loaded: {why.rstrip('.')}."


def _mismatch(info):
    libraries = ", ".join(info["library_versions"]) or "another version"
    return (
        f"The loaded kernel module is {info['kernel_module_version']} and the installed libraries are {libraries}, as the "
        "driver was updated under it: what runs goes on, nothing new starts. Drain the host and reboot it, or set "
        "nvidia_driver_reboot to true."
    )


class FilterModule:
    """The filters of this file."""

    def filters(self):
        """Return each filter by its name."""
        return {
            "gpu_cdi_names": gpu_cdi_names,
            "gpu_faults": gpu_faults,
            "gpu_kernel_module": gpu_kernel_module,
            "gpu_warnings": gpu_warnings,
        }
