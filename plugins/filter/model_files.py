# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filter: the weights that iopaint_models asks for, as files to be fetched."""

from __future__ import annotations

import re

from ansible.errors import AnsibleFilterError
from ansible_collections.iopaint.fleet.plugins.filter.hub_models import is_hub

DOCUMENTATION = r"""
name: model_files
short_description: Complete iopaint_models with path, address and checksum of IOPaint's erase models
version_added: 1.0.0
description:
  - Each model becomes one file with the keys C(name), C(url), C(checksum) and C(path) (below the model folder).
  - For C(lama), C(anime-lama), C(mat), C(fcf) and C(migan) all but the name is known;
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

RELEASES = "https://github.com/Sanster/models/releases/download/"
CHECKPOINTS = "torch/hub/checkpoints/"
# Addresses and MD5 sums as IOPaint 1.6.0 has them in iopaint/model/*.py.
KNOWN = {
    "lama": ("add_big_lama/big-lama.pt", "e3aa4aaa15225a33ec84f9f4bc47e500"),
    "anime-lama": ("AnimeMangaInpainting/anime-manga-big-lama.pt", "29f284f36a0a510bcacf39ecf4c4d54f"),
    "mat": ("add_mat/Places_512_FullData_G.pth", "8ca927835fa3f5e21d65ffcb165377ed"),
    "fcf": ("add_fcf/places_512_G.pth", "3323152bc01bf1c56fd8aba74435a211"),
    "migan": ("migan/migan_traced.pt", "76eb3b1a71c400ee3290524f7a11b89c"),
}
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
        if isinstance(model["name"], str) and model["name"] in KNOWN:
            place, md5 = KNOWN[model["name"]]
            entry = {
                "url": RELEASES + place,
                "checksum": f"md5:{md5}",
                "path": CHECKPOINTS + place.rsplit("/", maxsplit=1)[-1],
                **entry,
            }
        missing = sorted(KEYS - set(entry))
        if missing:
            raise AnsibleFilterError(
                f"iopaint_models: the model {model['name']} needs {', '.join(missing)} as well; "
                f"only {', '.join(sorted(KNOWN))} are known by name."
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
        files.append(entry)
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
