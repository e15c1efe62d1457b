# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filter: the weights that iopaint_models asks for, as files to be fetched."""

from __future__ import annotations

import re

from ansible.errors import AnsibleFilterError
from ansible_collections.iopaint.fleet.plugins.filter.hub_models import is_hub
from ansible_collections.iopaint.fleet.plugins.plugin_utils.known_models import ERASE, WEIGHTS

DOCUMENTATION = r"""
name: model_files
short_description: Complete iopaint_models with path, address and checksum of the weights that IOPaint asks for by name
version_added: 1.0.0
description:
  - Each model becomes one file with the keys C(name), C(url), C(checksum) and C(path) (below the model folder), and C(megabytes)
    where its size is known.
  - For C(lama), C(anime-lama), C(mat), C(fcf), C(migan) and the weights of IOPaint's plugins all but the name is known;
    others need C(url), C(checksum) and C(path).
  - Repositories of a hub (C(hub)) are left out. P(iopaint.fleet.hub_models#filter) lists those.
options:
  _input:
    description: The variable C(iopaint_models).
    type: list
    elements: dict
    required: true
author: iopaint.fleet contributors (@iopaint)
"""

EXAMPLES = r"""
files: "{{ [{'name': 'lama', 'url': 'https://mirror.example.com/big-lama.pt'}] | iopaint.fleet.model_files }}"
"""

RETURN = r"""
_value:
  description: One entry a file.
  type: list
  elements: dict
"""

KEYS = {"name", "url", "checksum", "path"}
CHECKSUM = re.compile("(md5|sha1|sha224|sha256|sha384|sha512):[0-9A-Fa-f]+")


def model_files(models):
    """Return one dict with name, url, checksum and path for each model; raise AnsibleFilterError on what can't be completed."""
    files = []
    for index, model in enumerate(models):
        if is_hub(model):
            continue
        if not isinstance(model, dict) or "name" not in model or set(model) - KEYS:  # what it holds may be a secret
            raise AnsibleFilterError(
                f"iopaint_models[{index}] must be a dictionary of name, url, checksum and path, or of hub and its keys."
            )
        entry = {key: value for key, value in model.items() if value is not None}
        sized = {}
        known = WEIGHTS.get(model["name"]) if isinstance(model["name"], str) else None
        if known:
            entry = {"url": known.url, "checksum": known.checksum, "path": known.path, **entry}
            sized = {"megabytes": known.megabytes} if known.megabytes and entry["checksum"] == known.checksum else {}
        missing = sorted(KEYS - set(entry))
        if missing:
            raise AnsibleFilterError(
                f"iopaint_models: the model {model['name']} needs {', '.join(missing)} as well; "
                f"only {', '.join(sorted(ERASE))} and the weights of IOPaint's plugins are known by name."
            )
        wrong = sorted(key for key, value in entry.items() if not isinstance(value, str) or not value.isprintable())
        if wrong:
            raise AnsibleFilterError(f"iopaint_models: {', '.join(wrong)} of {model['name']!r} must be one line of text.")
        if not CHECKSUM.fullmatch(str(entry["checksum"])):
            raise AnsibleFilterError(
                f"iopaint_models: checksum {entry['checksum']!r} of {model['name']} needs its algorithm in front: sha256:…"
            )
        if entry["path"].startswith("/") or ".." in entry["path"].split("/"):
            raise AnsibleFilterError(
                f"iopaint_models: path {entry['path']!r} of {model['name']} must lie below the model folder."
            )
        files.append({**entry, **sized})
    for key in ("name", "path"):
        values = [file[key] for file in files]
        twice = sorted({str(value) for value in values if values.count(value) > 1})
        if twice:
            raise AnsibleFilterError(
                f"iopaint_models: {key} {', '.join(twice)} is used by more than one model. Give each its own. "
                "Nothing was changed."
            )
    return files


class FilterModule:
    """The filters of this file."""

    def filters(self):
        """Return name and function."""
        return {"model_files": model_files}
