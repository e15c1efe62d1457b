# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filter: the weights of the plugins that instances switch on, as entries of iopaint_models."""

from __future__ import annotations

from ansible_collections.iopaint.fleet.plugins.plugin_utils import instance_plugins

DOCUMENTATION = r"""
name: plugin_models
short_description: Add the weights of plugins to iopaint_models
version_added: 1.0.0
description:
  - Returns the entries of C(iopaint_models), and one more for each file or repository that a plugin of an instance loads and that
    is not among them by its C(name) or C(hub).
options:
  _input:
    description: The variable C(iopaint_models).
    type: list
    elements: dict
    required: true
  instances:
    description: The variable C(iopaint_instances), of which the key C(plugins) counts.
    type: list
    elements: dict
    required: true
author: iopaint.fleet contributors (@iopaint)
"""

EXAMPLES = r"""
# [{"name": "lama"}, {"name": "u2net"}]
models: "{{ [{'name': 'lama'}] | iopaint.fleet.plugin_models([{'name': 'cpu', 'plugins': [{'remove_bg': 'u2net'}]}]) }}"
"""

RETURN = r"""
_value:
  description: Entries as C(iopaint_models) has them.
  type: list
  elements: dict
"""


def plugin_models(models, instances):
    """Return the models with the weights of plugins that they lack."""
    done = list(models)
    for index, entry in enumerate(instances):
        plugins = instance_plugins.chosen(entry, f"iopaint_instances[{index}]") if isinstance(entry, dict) else {}
        for model in instance_plugins.wanted(plugins):
            key = "hub" if "hub" in model else "name"
            if not any(isinstance(known, dict) and known.get(key) == model[key] for known in done):
                done.append(model)
    return done


class FilterModule:
    """The filters of this file."""

    def filters(self):
        """Return name and function."""
        return {"plugin_models": plugin_models}
