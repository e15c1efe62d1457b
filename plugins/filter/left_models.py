# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filters: models that a backup leaves out because a deploy fetches them, and what a restore fetches of them."""

from __future__ import annotations

import json
import re

from ansible_collections.iopaint.fleet.plugins.filter.hub_models import hub_models
from ansible_collections.iopaint.fleet.plugins.filter.model_files import model_files
from ansible_collections.iopaint.fleet.plugins.filter.stored_models import held_to
from ansible_collections.iopaint.fleet.plugins.plugin_utils.known_models import REPLACED

COMMIT = re.compile("[0-9a-f]{40}")


def models_record(models):
    """Return the text of the record that a deploy leaves on the host: which models it fetches. No address is in it."""
    repositories = [entry["hub"] for entry in hub_models(models)]
    record = {
        "files": [{key: entry[key] for key in ("name", "path", "checksum")} for entry in model_files(models)],
        "repositories": repositories,
        "gone": sorted(set(REPLACED) - set(repositories)),
    }
    return json.dumps(record, indent=1) + "\n"


def entry_for(model):
    """Return the entry of iopaint_models that lets a deploy fetch a model, as YAML."""
    if "hub" in model:
        return f"{{hub: {model['hub']}, revision: {model['revision']}}}"
    name, checksum, path = (json.dumps(model[key]) for key in ("name", "checksum", "path"))
    return f"{{name: {name}, url: …, checksum: {checksum}, path: {path}}}"


def commits_of(entry, held, before):
    """Return the revisions of a repository to fetch: those that releases are held to, the declared commit, or the one before."""
    declared = entry["revision"]
    return list(held.get(entry["hub"], ())) or [declared if COMMIT.fullmatch(declared) else before or declared]


def models_to_fetch(missing, models, instances):
    """Return what of the models that a host lacks is to be fetched."""
    held = {}
    for instance in instances:
        for hub, commit in held_to(instance.get("environment") or {}).items():
            held.setdefault(hub, {})[commit] = True
    paths = {one["path"] for one in missing if "path" in one}
    commits = {one["hub"]: one["revision"] for one in missing if "hub" in one}
    files = [entry for entry in model_files(models) if entry["path"] in paths]
    declared = [entry for entry in hub_models(models) if entry["hub"] in commits]
    repositories = [
        {**entry, "revision": commit} for entry in declared for commit in commits_of(entry, held, commits[entry["hub"]])
    ]
    known = {entry["path"] for entry in files} | {entry["hub"] for entry in declared}
    others = [one for one in missing if one.get("path", one.get("hub")) not in known]
    return {
        "files": files,
        "repositories": repositories,
        "names": [entry["name"] for entry in files] + [entry["hub"] for entry in declared],
        "undeclared": [entry_for(one) for one in others],
    }


class FilterModule:
    """The filters of this file."""

    def filters(self):
        """Return name and function of each."""
        return {"models_record": models_record, "models_to_fetch": models_to_fetch}
