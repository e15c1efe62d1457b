# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Action: what every host said of itself, as a table, a JSON file and a page. Documented in plugins/modules."""

from __future__ import annotations

import json
import os
from pathlib import Path

from ansible.plugins.action import ActionBase
from ansible_collections.iopaint.fleet.plugins.module_utils import files
from ansible_collections.iopaint.fleet.plugins.module_utils.names import named
from ansible_collections.iopaint.fleet.plugins.plugin_utils import status
from jinja2 import Environment, FileSystemLoader, StrictUndefined

OF_HOST = ("driver", "disk", "backup", "lock")  # the page has a second table, of the hosts


def page(fleet, path):
    """Return a document as an HTML page that needs nothing from elsewhere, by the template at the path."""
    environment = Environment(
        loader=FileSystemLoader(path.parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(room=status.room, backed_up=status.backed_up)
    template = environment.get_template(path.name)
    columns = [column for column in status.COLUMNS if column not in OF_HOST]
    return template.render(fleet=fleet, rows=status.every_row(fleet, "own_level"), columns=columns, summary=status.summary(fleet))


class ActionModule(ActionBase):
    """Runs on the control node alone."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp=None, task_vars=None):
        """Return the table; write the files where there is a folder for them."""
        result = super().run(tmp, task_vars)
        options = {
            "min_free_gb": {"type": "float", "default": 0},
            "dir": {"type": "str", "default": ""},
            "template": {"type": "path"},
            "names": {"type": "dict", "default": {}},
        }
        _result, arguments = self.validate_argument_spec(options)
        self.params = arguments
        hosts = {name: task_vars["hostvars"][name].get("iopaint_status") for name in task_vars["ansible_play_hosts_all"]}
        fleet = status.document(hosts, arguments["min_free_gb"] * 1e9)
        written = []
        folder = os.path.abspath(os.path.expanduser(arguments["dir"])) if arguments["dir"] else None
        if folder and not self._task.check_mode:
            texts = {"status.json": json.dumps(fleet, indent=2, ensure_ascii=False) + "\n"}
            if arguments["template"]:
                texts["status.html"] = page(fleet, Path(arguments["template"]))
            try:
                os.makedirs(folder, exist_ok=True)
                for name, text in texts.items():
                    written.append(os.path.join(folder, name))
                    files.write(written[-1], text)
            except OSError as error:
                result.update(
                    failed=True,
                    msg=f"{folder} ({named(self, 'dir')}) on the control node can't be written: {error}",
                )
        wrong = {host["host"]: status.wrong(host) for host in fleet["hosts"]}
        return {
            **result,
            "changed": False,
            "table": f"{status.table(fleet)}\n\n{status.summary(fleet)}",
            "written": [] if result.get("failed") else written,
            "wrong": {name: sentences for name, sentences in wrong.items() if sentences},
        }
