# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: status_report
short_description: Write the status of every host of a play as a table, a JSON file and an HTML page
version_added: 1.0.0
description:
  - Reads the variable C(iopaint_status) of each host, which is what iopaint.fleet.instance_status returned, and C(gateway_status)
    of each gateway, which is what iopaint.fleet.gateway_status returned. Runs on the control node alone.
  - What is broken or unreachable comes first.
options:
  dir:
    description: Folder on the control node for C(status.json) and C(status.html); empty for none. A dry run writes neither.
    type: str
    default: ""
  template:
    description: Jinja template of the page, on the control node. Without one no page is written.
    type: path
  min_free_gb:
    description: Gigabytes that ought to be free on each disk.
    type: float
    default: 0
  hosts:
    description: Hosts with instances. By default every host of the play.
    type: list
    elements: str
  gateways:
    description: Hosts with a gateway. A host may be in both lists.
    type: list
    elements: str
    default: []
extends_documentation_fragment: iopaint.fleet.names
attributes:
  check_mode:
    support: full
    description: Writes no files.
notes:
  - A report is no state, so that it is written is no change (C(changed) is false).
author: iopaint.fleet contributors (@iopaint)
"""

EXAMPLES = r"""
- name: Gather the state of each host
  iopaint.fleet.instance_status:
    dir: /opt/iopaint/instances
    data_dir: /var/lib/iopaint
    instances: "{{ iopaint_instances }}"
  register: iopaint_status

- name: Make the report
  iopaint.fleet.status_report:
    dir: reports
    template: "{{ role_path }}/templates/status.html.j2"
  register: report
  run_once: true
"""

RETURN = r"""
table:
  description: A table of the instances, one of the gateways if there are any, and what sums them up.
  type: str
  returned: always
written:
  description: The files that were written.
  type: list
  elements: str
  returned: always
wrong:
  description: What is broken, a list of sentences for each host that has any.
  type: dict
  returned: always
"""
