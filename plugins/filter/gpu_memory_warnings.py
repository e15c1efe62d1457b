# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filter: instances whose models are known to need more GPU memory than their GPU has."""

from __future__ import annotations

from ansible_collections.iopaint.fleet.plugins.plugin_utils.devices import AUTO
from ansible_collections.iopaint.fleet.plugins.plugin_utils.known_models import GPU_MEMORY

DOCUMENTATION = r"""
name: gpu_memory_warnings
short_description: List the GPUs that are too small for the models of their instances
version_added: 1.0.0
description:
  - Compares what models are known to need, with the options of their instances, with the memory of the GPU or MIG slice.
  - Instances that share a GPU count together. Models whose need is not known, and plugins, count nothing.
  - An instance with C(devices=[auto]) whose GPU is not known yet is compared with the smallest one.
options:
  _input:
    description: Completed instances, as the filter P(iopaint.fleet.instances#filter) gives them.
    type: list
    elements: dict
    required: true
  info:
    description: What M(iopaint.fleet.gpu_info) returned.
    type: dict
    required: true
author: iopaint.fleet contributors (@iopaint)
"""

EXAMPLES = r"""
- name: Warn about likely problems
  ansible.builtin.debug:
    msg: "{{ iopaint_wanted | iopaint.fleet.gpu_memory_warnings(gpu) }}"
"""

RETURN = r"""
_value:
  description: One sentence or more for each GPU, with the options that help.
  type: list
  elements: str
"""

ON = ("true", "1", "yes", "on")
MIB = 2**20


def is_on(instance, option):
    """Return whether an option of an instance is switched on."""
    return instance["environment"].get(f"IOPAINT_{option.upper()}", "").lower() in ON


def need(instance):
    """Return what the model of an instance needs in GB, 0 where that is not known, and the options that would lower it."""
    known = GPU_MEMORY.get(instance["model"])
    if known is None or instance["environment"].get("IOPAINT_DEVICE", "cuda") != "cuda":
        return 0, {}
    full, offloaded = is_on(instance, "no_half"), is_on(instance, "cpu_offload")
    values = {
        (False, False): known.half,
        (True, False): known.full,
        (False, True): known.half_offloaded or known.half,
        (True, True): known.full_offloaded or known.full,
    }
    now, options = values[full, offloaded], {}
    if full and values[False, offloaded] < now:
        options["no_half: false"] = values[False, offloaded]
    if not offloaded and values[full, True] < now:
        options["cpu_offload: true"] = values[full, True]
    return now, options


def places(info):
    """Return the GPUs and MIG slices of a host: names that `devices` may have for it, what to call it, and its memory in MiB."""
    found = []
    for gpu in info.get("gpus") or []:
        index = gpu["index"]
        if not gpu.get("mig_enabled"):
            found.append(({str(index), gpu["uuid"], "all"}, f"GPU {index} ({gpu['name']})", gpu["memory_total_mib"]))
        for mig in gpu.get("mig_devices") or []:
            names = {f"{index}:{mig['index']}", mig["uuid"], "all"}
            found.append((names, f"Slice {mig['index']} of GPU {index} ({gpu['name']})", mig["memory_total_mib"]))
    return [place for place in found if place[2]]


def gpu_memory_warnings(instances, info):
    """Return one text for each GPU that is too small for what its instances are known to need."""
    here, warnings = places(info), []
    smallest = min(here, key=lambda place: place[2], default=None)
    for place in here:
        names, called, mib = place
        using = []
        for instance in (one for one in instances if one["variant"] == "gpu"):
            # IOPaint computes on the first GPU that it is given.
            first = str((instance.get("devices") or AUTO)[0]).rpartition("=")[2]
            if first in names - {"all"} or (first in ("all", *AUTO) and place is (here[0] if first == "all" else smallest)):
                using.append((instance, *need(instance)))
        using = [one for one in using if one[1]]
        total = sum(one[1] for one in using)
        if total * 1e9 <= mib * MIB:
            continue
        models = ", ".join(f"{one['name']} ({one['model']}, {count:g} GB)" for one, count, _options in using)
        helps = [
            f"{option} in options of {one['name']} ({count:g} GB)"
            for one, _now, options in using
            for option, count in options.items()
        ]
        # IOPaint's low_mem cuts what is computed at a time; how much that saves depends on the picture.
        helps += [
            f"low_mem: true in options of {one['name']}"
            for one, _now, _options in using
            if "/" in one["model"] and not is_on(one, "low_mem")
        ]
        remedy = f"What helps: {'; '.join(helps)}; or a smaller model" if helps else "Choose smaller models, or a larger GPU"
        warnings.append(
            f"{called} has {mib * MIB / 1e9:.1f} GB, and its instances are known to need about {total:g} GB: {models}. {remedy}."
        )
    return warnings


class FilterModule:
    """The filters of this file."""

    def filters(self):
        """Return name and function."""
        return {"gpu_memory_warnings": gpu_memory_warnings}
