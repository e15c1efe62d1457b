# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Action: a gateway that can't be reached or looked at is a result as well. Documented in plugins/modules."""

from __future__ import annotations

from ansible.plugins.action import ActionBase
from ansible_collections.iopaint.fleet.plugins.plugin_utils.look import look


class ActionModule(ActionBase):
    """Runs the module, and fails for no host."""

    def run(self, tmp=None, task_vars=None):
        """Run the module; return what it found."""
        super().run(tmp, task_vars)
        return look(self, "iopaint.fleet.gateway_status", self._task.args, task_vars)
