# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A look at a host by a module: one that can't be reached or looked at is a result as well."""

from __future__ import annotations

from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible_collections.iopaint.fleet.plugins.plugin_utils.table import one_line

PREFIX = "Failed to connect to the host via ssh: "  # ssh says as much in fewer words


def look(action, name, arguments, task_vars):
    """Run a module; return what it found, or `state` (unreachable, failed) and `reason`.

    action: the action plugin that runs. name: of the module.
    """
    try:
        result = action._execute_module(module_name=name, module_args=arguments, task_vars=task_vars)
    except AnsibleConnectionFailure as error:
        return {"changed": False, "state": "unreachable", "reason": one_line(error).removeprefix(PREFIX)}
    except AnsibleError as error:
        return {"changed": False, "state": "failed", "reason": one_line(error)}
    if result.get("unreachable"):
        return {"changed": False, "state": "unreachable", "reason": one_line(result.get("msg"))}
    if result.get("failed"):
        return {"changed": False, "state": "failed", "reason": one_line(result.get("module_stderr") or result.get("msg"))}
    return result
