# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filter: how an instance is proven."""

from __future__ import annotations

import re

from ansible.errors import AnsibleFilterError

DOCUMENTATION = r"""
name: proof_options
short_description: Complete how an instance is proven, from its own entry and the defaults
version_added: 1.0.0
description:
  - What C(proof) of the instance's entry leaves out comes from the defaults, and what these leave out from this filter.
  - An entry that names a picture has the mask that it names itself, or none.
  - A value that M(iopaint.fleet.inpaint_check) would refuse is an error that names its variable.
options:
  _input:
    description: Name of an instance. An entry with C(devices=[auto]) stands for C(NAME-0), C(NAME-1) and so on.
    type: str
    required: true
  entries:
    description: The variable C(iopaint_instances). An instance without an entry has the defaults.
    type: list
    elements: dict
    required: true
  defaults:
    description: The variable C(iopaint_proof).
    type: dict
    required: true
author: iopaint.fleet contributors (@iopaint)
"""

EXAMPLES = r"""
proof: "{{ 'sd' | iopaint.fleet.proof_options(iopaint_instances, {'steps': 8}) }}"
"""

RETURN = r"""
_value:
  description:
    - C(picture) and C(mask), paths on the host or empty, C(size), C(timeout), and C(parameters), the fields of IOPaint's
      C(InpaintRequest).
  type: dict
"""

PROOF = {"picture": "", "mask": "", "prompt": "", "steps": 4, "seed": 42, "size": 512, "timeout": 300}
LIMITS = {"steps": (1, 1000), "seed": (0, 2**32 - 1), "size": (16, 4096), "timeout": (1, 86400)}


def given(proof, where):
    """Return what a proof sets; raise AnsibleFilterError on a value that can't be."""
    proof = {key: value for key, value in (proof or {}).items() if value is not None}
    unknown = sorted(set(proof) - set(PROOF))
    if unknown:
        raise AnsibleFilterError(f"{where} has {', '.join(unknown)}; it takes {', '.join(PROOF)}. Nothing was changed.")
    for key, (low, high) in LIMITS.items():
        value = str(proof.get(key, low))
        if not (re.fullmatch("[0-9]{1,10}", value) and low <= int(value) <= high):
            raise AnsibleFilterError(
                f"{where}.{key} is {proof[key]!r}; a whole number from {low} to {high} is wanted. Nothing was changed."
            )
    for key in ("picture", "mask"):
        value = proof.get(key) or "/"
        if not (isinstance(value, str) and value.startswith("/") and value.isprintable()):
            raise AnsibleFilterError(f"{where}.{key} is {value!r}; a full path on the host is wanted. Nothing was changed.")
    return proof


def entry_of(name, entries):
    """Return place and entry of an instance; None and an empty one where it has none."""
    for index, entry in enumerate(entries):
        numbered = entry.get("variant") == "gpu" and (entry.get("devices") or ["auto"]) == ["auto"]
        if entry.get("name") == name or (numbered and re.fullmatch(rf"{re.escape(str(entry.get('name')))}-[0-9]+", name)):
            return index, entry
    return None, {}


def proof_options(name, entries, defaults):
    """Return how an instance is proven; raise AnsibleFilterError with the variable on what is wrong."""
    index, entry = entry_of(str(name), entries)
    where = "iopaint_proof" if index is None else f"iopaint_instances[{index}].proof"
    own, common = given(entry.get("proof"), where), given(defaults, "iopaint_proof")
    if own.get("picture"):
        common.pop("mask", None)  # it belongs to another picture
    proof = {**PROOF, **common, **own}
    if proof["mask"] and not proof["picture"]:
        raise AnsibleFilterError(f"{where} has a mask and no picture, which it belongs to. Nothing was changed.")
    parameters = {"prompt": proof["prompt"], "sd_steps": int(proof["steps"]), "sd_seed": int(proof["seed"])}
    kept = {key: proof[key] for key in ("picture", "mask")}
    return {**kept, "size": int(proof["size"]), "timeout": int(proof["timeout"]), "parameters": parameters}


class FilterModule:
    """The filters of this file."""

    def filters(self):
        """Return name and function."""
        return {"proof_options": proof_options}
