# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filter: the hub repositories that iopaint_models asks for."""

from __future__ import annotations

import re

from ansible.errors import AnsibleFilterError
from ansible_collections.iopaint.fleet.plugins.plugin_utils.known_models import DEFAULTS, REPLACED

DOCUMENTATION = r"""
name: hub_models
short_description: List the hub repositories of iopaint_models
version_added: 1.0.0
description:
  - Entries with the key C(hub) are repositories of a Hugging Face hub. Each becomes one dictionary with all its keys.
  - An entry without C(revision) takes the commit that the collection lists for the repository
    (C(plugins/plugin_utils/models.json)), or C(main) where it lists none. An entry without C(files) takes those of the list, or
    what diffusers loads.
  - Other entries, which are single files, are left out. P(iopaint.fleet.model_files#filter) lists those.
options:
  _input:
    description: The variable C(iopaint_models).
    type: list
    elements: dict
    required: true
author: iopaint.fleet contributors (@iopaint)
"""

EXAMPLES = r"""
# [{"hub": "owner/model", "revision": "main", "files": [], "variant": "fp16"}]
repositories: "{{ [{'name': 'lama'}, {'hub': 'owner/model', 'variant': 'fp16'}] | iopaint.fleet.hub_models }}"
"""

RETURN = r"""
_value:
  description:
    - One dictionary for each repository, with C(hub), C(revision), C(files) and C(variant).
    - One that the public hub has no more has C(replaced_by) as well.
  type: list
  elements: dict
"""

KEYS = {"hub", "revision", "files", "variant"}
REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*/[A-Za-z0-9][A-Za-z0-9_.-]*")
WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_./-]*")
PATTERN = re.compile(r"[A-Za-z0-9_.*?\[\]!][A-Za-z0-9_.*?\[\]!/ -]*")  # none that begins like an option


def is_hub(model):
    """Return whether an entry of iopaint_models is a repository of a hub."""
    return isinstance(model, dict) and model.get("hub") is not None


def hub_models(models):
    """Return the repositories, completed; raise AnsibleFilterError with the entry on what is wrong."""
    done = []
    for index, model in enumerate(models):
        if not is_hub(model):
            continue
        where = f"iopaint_models[{index}]"
        given = {key: value for key, value in model.items() if value is not None}
        more = sorted(set(given) - KEYS)
        if more:
            raise AnsibleFilterError(f"{where}: {', '.join(more)} can't go with hub; a repository has {', '.join(sorted(KEYS))}.")
        known = DEFAULTS.get(given["hub"], {}) if isinstance(given["hub"], str) else {}
        entry = {"revision": "main", "files": [], "variant": "", **known, **given}
        if not REPOSITORY.fullmatch(str(entry["hub"])):
            raise AnsibleFilterError(
                f"{where}: hub {entry['hub']!r} must be OWNER/NAME, as the hub's page of the model shows it."
            )
        for key in ("revision", "variant"):
            if entry[key] and not (isinstance(entry[key], str) and WORD.fullmatch(entry[key])):
                raise AnsibleFilterError(f"{where}: {key} {entry[key]!r} must be one word in quotes, as 'main' or 'fp16'.")
        if not entry["revision"]:
            raise AnsibleFilterError(f"{where}: revision is empty; name a commit, a tag or a branch.")
        wrong = [name for name in entry["files"] if not (isinstance(name, str) and PATTERN.fullmatch(name))]
        if wrong:
            raise AnsibleFilterError(f"{where}: files has {wrong[0]!r}; patterns are wanted, as 'unet/*.safetensors'.")
        done.append({**entry, **({"replaced_by": REPLACED[entry["hub"]]} if entry["hub"] in REPLACED else {})})
    names = [entry["hub"] for entry in done]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise AnsibleFilterError(f"iopaint_models: {', '.join(twice)} is there more than once; a host has one revision of each.")
    return done


class FilterModule:
    """The filters of this file."""

    def filters(self):
        """Return name and function."""
        return {"hub_models": hub_models}
