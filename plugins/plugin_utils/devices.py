# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The GPUs that entries of iopaint_instances ask for: CDI names, one entry a GPU, who shares with whom."""

from __future__ import annotations

import re

from ansible.errors import AnsibleFilterError

KIND = "nvidia.com/gpu"
ALL = f"{KIND}=all"
AUTO = ["auto"]
SHORT = re.compile(r"all|\d+(:\d+)?|(GPU|MIG)-[0-9A-Za-z/-]+")
QUALIFIED = re.compile(r"[a-z0-9.-]+/[A-Za-z0-9_-]+=[A-Za-z0-9._:/-]+")
ACCEPTED = "[auto] for one instance per GPU, [all], or a list of indexes (0), UUIDs (GPU-…), MIG slices (0:1, MIG-…) or CDI names"


def cdi_name(device, where):
    """Return the CDI name of a device; where is its place in the variable, for the error."""
    name = str(device)
    if SHORT.fullmatch(name):
        return f"{KIND}={name}"
    if QUALIFIED.fullmatch(name):
        return name
    raise AnsibleFilterError(f"{where}.devices has {device!r}, accepted: {ACCEPTED}.")


def expand(entries, gpus):
    """Return (place, entry) pairs in which each GPU entry has its CDI names, and one with [auto] has become one per GPU.

    gpus: CDI names of the host, one a GPU; None where they are not known yet, and [auto] stays as it is.
    """
    pairs = []
    for index, entry in enumerate(entries):
        where = f"iopaint_instances[{index}]"
        if entry.get("variant") != "gpu":
            if entry.get("devices"):
                raise AnsibleFilterError(f"{where}: devices are for the variant gpu, and this one's is cpu.")
            pairs.append((where, entry))
            continue
        devices = [str(device) for device in entry.get("devices") or AUTO]
        if devices != AUTO:
            pairs.append((where, {**entry, "devices": [cdi_name(device, where) for device in devices]}))
        elif gpus is None:
            pairs.append((where, {**entry, "devices": AUTO}))
        elif not gpus:
            raise AnsibleFilterError(
                f"{where}: devices is [auto], and this host has no GPU to make an instance for. Move the host to cpu_hosts, "
                "or see what role nvidia_driver says of it."
            )
        else:
            for number, gpu in enumerate(gpus):
                own = {"name": f"{entry['name']}-{number}", "port": int(entry["port"]) + number, "devices": [gpu]}
                pairs.append((where, {**entry, **own}))
    return pairs


def check(instances, gpus):
    """Raise AnsibleFilterError where a device is not on the host, or is asked for twice and not shared by all who ask."""
    owners = {}
    asking = [instance for instance in instances if instance["variant"] == "gpu" and instance["devices"] != AUTO]
    for instance in asking:
        for device in instance["devices"]:
            # A name of another form (UUID for index) can't be compared here; the engine knows them all.
            unknown = gpus is not None and re.fullmatch(rf"{KIND}=\d+(:\d+)?", device) and device not in gpus
            if unknown:
                raise AnsibleFilterError(
                    f"iopaint_instances: {instance['name']} asks for {device}, and this host has {', '.join(gpus) or 'no GPU'}."
                )
            owners.setdefault(device, []).append(instance)
    everybody = asking if ALL in owners and len(asking) > 1 else []
    for device, sharing in [*owners.items(), (ALL, everybody)]:
        names = list(dict.fromkeys(instance["name"] for instance in sharing))
        if len(names) > 1 and not all(instance.get("share") for instance in sharing):
            raise AnsibleFilterError(
                f"iopaint_instances: {', '.join(names)} ask for the same GPU ({device}). Give each its own, or set share: true "
                "on each of them."
            )


def compose_override(instance, mode):
    """Return the text of a compose file that reserves the instance's devices; mode: cdi, or legacy for engines before 26.1."""
    names = instance["devices"]
    if mode == "legacy":
        short = [name.partition("=")[2] for name in names]
        wanted = "count: all" if short == ["all"] else f"device_ids: [{', '.join(repr(name) for name in short)}]"
        reservation = f"{{driver: nvidia, {wanted}, capabilities: [gpu]}}"
    else:
        reservation = f"{{driver: cdi, device_ids: [{', '.join(repr(name) for name in names)}], capabilities: [gpu]}}"
    return (
        "services:\n  iopaint-gpu:\n    deploy:\n      resources:\n        reservations:\n"
        f"          devices: !override\n            - {reservation}\n"
    )
