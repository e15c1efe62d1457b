# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of the options by which a module that changes something writes into the audit log of the host."""

from __future__ import annotations


class ModuleDocFragment:
    """The options, by what Ansible calls a fragment."""

    DOCUMENTATION = r"""
options:
  audit:
    description: The audit log on the host; it takes a line for each change.
    type: path
    default: /var/log/iopaint/audit.log
  owner:
    description: Who does it (operator and control node), as the module M(iopaint.fleet.lock) returned it.
    type: dict
    default: {}
"""
