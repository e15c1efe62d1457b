# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: variables_check
short_description: Check the variables of this collection's roles before anything is changed
version_added: 1.0.0
author: iopaint.fleet contributors (@iopaint)
description:
  - Compares every variable that the inventory sets with the C(meta/argument_specs.yml) of the roles. All that is wrong
    is reported at once, with the variable's name, its value and what is accepted.
  - A text option accepts text only; Ansible's own check would take a list for its text. What YAML reads as something else is
    refused with the advice to put it in quotes, as C(1.10) is the number 1.1. A whole number passes unless it is a commit or a
    secret.
  - Finds misspelt names too. A variable that begins with C(iopaint_) and that no role knows is refused where a known name
    is very close to it; others are the user's own.
options:
  roles:
    description: Names of roles of this collection.
    type: list
    elements: str
    required: true
attributes:
  check_mode:
    support: full
    description: Changes nothing. It runs on the control node and never connects to the host.
"""

EXAMPLES = r"""
- name: Every variable has a value that its role accepts
  iopaint.fleet.variables_check:
    roles: [docker, iopaint_image, iopaint]
"""

RETURN = r"""
problems:
  description: One sentence for each thing that is wrong.
  returned: always
  type: list
  elements: str
  sample: ["docker_package_source is 'distro', accepted: upstream, distribution"]
"""
