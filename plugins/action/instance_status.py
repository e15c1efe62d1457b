# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Action: a host that can't be reached or looked at is a result as well. Documented in plugins/modules."""

from __future__ import annotations

from ansible.plugins.action import ActionBase
from ansible_collections.iopaint.fleet.plugins.plugin_utils import status
from ansible_collections.iopaint.fleet.plugins.plugin_utils.look import look


class ActionModule(ActionBase):
    """Compares what is on the host with what is wanted."""

    def run(self, tmp=None, task_vars=None):
        """Run the module; return what it found."""
        super().run(tmp, task_vars)
        wanted = self._task.args.get("instances") or []
        arguments = {key: value for key, value in self._task.args.items() if key != "instances"}  # options may be secret
        result = look(self, "iopaint.fleet.instance_status", arguments, task_vars)
        if result["state"] != "ok":
            return result
        return {**result, "instances": status.compared(result["instances"], wanted)}
