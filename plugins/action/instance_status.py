# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Action: a host that can't be reached or looked at is a result as well. Documented in plugins/modules."""

from __future__ import annotations

from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.plugins.action import ActionBase
from ansible_collections.iopaint.fleet.plugins.plugin_utils import status

PREFIX = "Failed to connect to the host via ssh: "  # ssh says as much in fewer words


class ActionModule(ActionBase):
    """Compares what is on the host with what is wanted."""

    def run(self, tmp=None, task_vars=None):
        """Run the module; return what it found."""
        super().run(tmp, task_vars)
        wanted = self._task.args.get("instances") or []
        arguments = {key: value for key, value in self._task.args.items() if key != "instances"}  # options may be secret
        try:
            result = self._execute_module(module_name="iopaint.fleet.instance_status", module_args=arguments, task_vars=task_vars)
        except AnsibleConnectionFailure as error:
            return {"changed": False, "state": "unreachable", "reason": status.one_line(error).removeprefix(PREFIX)}
        except AnsibleError as error:
            return {"changed": False, "state": "failed", "reason": status.one_line(error)}
        if result.get("unreachable"):
            return {"changed": False, "state": "unreachable", "reason": status.one_line(result.get("msg"))}
        if result.get("failed"):
            said = result.get("module_stderr") or result.get("msg")
            return {"changed": False, "state": "failed", "reason": status.one_line(said)}
        return {**result, "instances": status.compared(result["instances"], wanted)}
