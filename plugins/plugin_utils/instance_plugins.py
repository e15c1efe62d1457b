# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The plugins of IOPaint that an entry of iopaint_instances asks for: their options, weights, and the extras of the image."""

from __future__ import annotations

from ansible.errors import AnsibleFilterError
from ansible_collections.iopaint.fleet.plugins.plugin_utils.known_models import OF_REMBG, PLUGINS, REPOSITORIES


def chosen(entry, where):
    """Return the plugins of an entry with the model of each; raise AnsibleFilterError with its place on what is no plugin."""
    models, items = {}, entry.get("plugins") or []
    if not isinstance(items, list):
        raise AnsibleFilterError(f"{where}: plugins must be a list. Nothing was changed.")
    for item in items:
        pair = item if isinstance(item, dict) and len(item) == 1 else {item: None} if isinstance(item, str) else {}
        name, model = next(iter(pair.items()), (None, None))
        if name not in PLUGINS:
            raise AnsibleFilterError(
                f"{where}: plugins has {item!r}; known are {', '.join(PLUGINS)}, each by its name or as 'name: model'. "
                "Nothing was changed."
            )
        known = PLUGINS[name].models
        if model is not None and not (isinstance(model, str) and model in known):
            have = f"its models are {', '.join(known)}" if "" not in known else "it has no choice of models"
            raise AnsibleFilterError(f"{where}: plugins asks for the model {model!r} of {name}; {have}. Nothing was changed.")
        if name in models:
            raise AnsibleFilterError(f"{where}: plugins has {name} more than once. Nothing was changed.")
        models[name] = next(iter(known)) if model is None else model
    return models


def check_options(models, options, where):
    """Raise AnsibleFilterError where an option says what `plugins` says as well. models: as `chosen` returns them."""
    twice = [option for name in models for option in (f"enable_{name}", f"{name}_model") if option in options]
    if twice:
        raise AnsibleFilterError(
            f"{where}: options.{twice[0]} says what plugins says as well. Leave it out, and name the model in plugins "
            "as 'name: model'. Nothing was changed."
        )


def on_gpu(name, model):
    """Return whether IOPaint can run a plugin on a GPU; the models of rembg run on the CPU."""
    return PLUGINS[name].device and model not in OF_REMBG


def settings(models, gpu):
    """Return the options, as variables, that switch on plugins. gpu: whether the instance has a GPU that it must use."""
    found = {}
    for name, model in models.items():
        word = f"IOPAINT_{name.upper()}"
        found[f"IOPAINT_ENABLE_{name.upper()}"] = "true"
        if model:
            found[f"{word}_MODEL"] = model
        if gpu and on_gpu(name, model):
            found[f"{word}_DEVICE"] = "cuda"
    return found


def extras(models):
    """Return the extras that an image needs for plugins."""
    return sorted({PLUGINS[name].extra for name in models} - {""})


def wanted(models):
    """Return what plugins load, as entries of iopaint_models. models: as `chosen` returns them."""
    names = [weights for name, model in models.items() for weights in PLUGINS[name].models[model]]
    return [dict(REPOSITORIES.get(name, {"name": name})) for name in dict.fromkeys(names)]
