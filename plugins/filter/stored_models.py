# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filters: the models on a host, with who declares and who uses each, and a table of them."""

from __future__ import annotations

from pathlib import PurePosixPath

from ansible_collections.iopaint.fleet.plugins.filter.hub_models import hub_models
from ansible_collections.iopaint.fleet.plugins.filter.model_files import model_files
from ansible_collections.iopaint.fleet.plugins.plugin_utils import instance_plugins
from ansible_collections.iopaint.fleet.plugins.plugin_utils.known_models import PLUGINS, WEIGHTS
from ansible_collections.iopaint.fleet.plugins.plugin_utils.table import one_line, text_table

DOCUMENTATION = r"""
name: stored_models
short_description: Tell which models on a host are declared or in use
version_added: 1.0.0
description:
  - A model is declared by C(iopaint_models), by the C(model) of an instance or by its C(plugins).
  - Of a repository, the revision that IOPaint loads is declared, and one that C(iopaint_models) names by its commit.
  - A model is in use where a release loads it that serves, or that a rollback can go to. A release that serves and may download
    models by itself is taken to load every model.
options:
  _input:
    description: What M(iopaint.fleet.model_store) returned.
    type: dict
    required: true
  models:
    description: The variable C(iopaint_models), with what plugins load (filter P(iopaint.fleet.plugin_models#filter)).
    type: list
    elements: dict
    required: true
  instances:
    description: The variable C(iopaint_instances).
    type: list
    elements: dict
    required: true
  model:
    description: The model of instances that name none.
    type: str
    required: true
author: iopaint.fleet contributors (@iopaint)
"""

EXAMPLES = r"""
models: "{{ store | iopaint.fleet.stored_models(iopaint_models, iopaint_instances, iopaint_model) }}"
"""

RETURN = r"""
_value:
  description:
    - One entry for each file and each revision of a repository, as M(iopaint.fleet.model_store) has it, with C(name),
      C(declared_by) (names of instances, or C(iopaint_models)), C(used_by) (instances and releases), and C(removable).
  type: list
  elements: dict
"""

OFF = ("", "false", "0", "no", "off")
FOLDERS = ("stable_diffusion", "stable_diffusion_xl")  # in which a model goes by the name of its file


def keys_of(name):
    """Return by which keys a model that IOPaint loads by name is found among those on the host."""
    if "/" in name:
        return {("hub", name)}
    known = WEIGHTS.get(name)
    return {("path", known.path)} if known else {("path", f"{folder}/{name}") for folder in FOLDERS}


def loads(environment):
    """Return the keys of what a release loads, and whether it may load others; environment: its options as variables."""
    found = keys_of(str(environment.get("IOPAINT_MODEL") or ""))
    for name, plugin in PLUGINS.items():
        if str(environment.get(f"IOPAINT_ENABLE_{name.upper()}", "")).lower() not in OFF:
            model = str(environment.get(f"IOPAINT_{name.upper()}_MODEL") or next(iter(plugin.models)))
            for each in plugin.models.get(model, [model]):
                found |= keys_of(each)
    return found, str(environment.get("IOPAINT_LOCAL_FILES_ONLY", "")).lower() in OFF


def held_to(environment):
    """Return the commits that a release holds its instance to, by repository."""
    pairs = [each.partition("=") for each in str(environment.get("IOPAINT_FLEET_REVISIONS") or "").split(",")]
    return {name: commit for name, equals, commit in pairs if equals}


def stored_models(found, models, instances, model):
    """Return what a host has, with who declares and who uses it."""
    declared = {}
    for entry in model_files(models):
        declared.setdefault(("path", entry["path"]), [])
    commits = {entry["hub"]: entry["revision"] for entry in hub_models(models)}
    for hub in commits:
        declared.setdefault(("hub", hub), [])
    for index, instance in enumerate(instances):
        plugins = instance_plugins.chosen(instance, f"iopaint_instances[{index}]")
        names = [str(instance.get("model") or model)]
        names += [entry.get("hub") or entry["name"] for entry in instance_plugins.wanted(plugins)]
        for key in {key for name in names for key in [*keys_of(name), *own_files(name, models)]}:
            declared.setdefault(key, []).append(str(instance.get("name")))
    releases = [(one, held_to(one["environment"]), *loads(one["environment"])) for one in found["releases"]]
    done = []
    for one in [*found["files"], *found["repositories"]]:
        key = ("hub", one["hub"]) if "hub" in one else ("path", one["path"])
        loaded = "hub" not in one or one["current"] or one["revision"] is None  # an incomplete one is gone on with
        wanted = loaded or one["revision"] == commits.get(one["hub"])
        by = (declared[key] or ["iopaint_models"]) if key in declared and wanted else []
        used = [
            release["instance"] if release["current"] else f"{release['instance']} {release['id']}"
            for release, commits_held, needs, anything in releases
            if (
                one["revision"] == commits_held[one["hub"]]
                if one.get("hub") in commits_held
                else loaded and (key in needs or (anything and release["current"]))
            )
        ]
        name = one.get("hub") or next(
            (known for known, weights in WEIGHTS.items() if weights.path == one["path"]), PurePosixPath(one["path"]).name
        )
        about = {
            "name": name,
            "revision": one.get("revision"),
            "declared_by": sorted(set(by)),
            "used_by": list(dict.fromkeys(used)),
        }
        done.append({**one, **about, "removable": not by and not used})
    return done


def own_files(name, models):
    """Return the keys of a file that iopaint_models gives a name of its own."""
    return {("path", entry["path"]) for entry in model_files(models) if entry["name"] == name}


def models_table(models):
    """Return a table of models, the heading first."""
    rows = [["model", "revision", "size", "declared by", "used by", ""]]
    for one in models:
        revision = "-" if "hub" not in one else (one["revision"] or "incomplete")[:12]
        state = "removable" if one["removable"] else ""
        rows.append(
            [
                one_line(one["name"]),
                revision,
                f"{one['bytes'] / 1e6:.0f} MB",
                ", ".join(one["declared_by"]) or "-",
                ", ".join(one["used_by"]) or "-",
                state,
            ]
        )
    return text_table(rows) if models else "There are no models on the host."


class FilterModule:
    """The filters of this file."""

    def filters(self):
        """Return name and function."""
        return {"stored_models": stored_models, "models_table": models_table}
