# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A module whose parameters may hold secrets that no name of an option gives away."""

from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule


class QuietModule(AnsibleModule):
    """An AnsibleModule that tells the host's journal none of its parameters.

    AnsibleModule has no_log for that, and forgets it as soon as a play says what its task's no_log is, which each play does.
    """

    def _log_invocation(self):
        """Log that the module ran, without its parameters."""
        self.log("Invoked; its parameters are not logged, as they may hold secrets")
