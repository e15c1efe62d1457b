# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of the options that all modules for backups take (OPTIONS of plugins/module_utils/backups.py)."""

from __future__ import annotations


class ModuleDocFragment:
    """The options, by what Ansible calls a fragment."""

    DOCUMENTATION = r"""
options:
  data:
    description: The folder of models and outputs.
    type: path
    required: true
  target:
    description:
      - Where backups are kept, below it a folder for each host. A folder of the host (V(/mnt/backups)), another host by ssh
        (V(user@host:/folder)) or an rsync daemon (V(rsync://user@host/module/folder)).
    type: str
    required: true
  host:
    description: Name of the host's folder.
    type: str
    required: true
  shell:
    description: The command by which rsync reaches another host.
    type: str
    default: ssh -o BatchMode=yes
  password:
    description: Password of an rsync daemon.
    type: str
    default: ""
  options:
    description: Further options of rsync.
    type: list
    elements: str
    default: []
  owner:
    description: Who does it, as the module iopaint.fleet.lock returned it.
    type: dict
    default: {}
  audit:
    description: The audit log on the host.
    type: path
    default: /var/log/iopaint/audit.log
requirements: [rsync >= 3.2.4, on the target too]
"""
