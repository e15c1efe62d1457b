# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of the option by which a role lends its variables' names to a module's messages."""

from __future__ import annotations


class ModuleDocFragment:
    """The option, by what Ansible calls a fragment."""

    DOCUMENTATION = r"""
options:
  names:
    description:
      - "What messages call the module's options, as C({dir: iopaint_dir}) where the variable C(iopaint_dir) sets C(dir)."
      - An option that is not listed keeps its own name.
    type: dict
    default: {}
"""
