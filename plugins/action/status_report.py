# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Action: what every host said of itself, as a table, a JSON file and a page. Documented in plugins/modules."""

from __future__ import annotations

import json
import os
from pathlib import Path

from ansible.plugins.action import ActionBase
from ansible_collections.iopaint.fleet.plugins.module_utils import files
from ansible_collections.iopaint.fleet.plugins.module_utils.names import named
from ansible_collections.iopaint.fleet.plugins.plugin_utils import gateways, status
from jinja2 import Environment, FileSystemLoader, StrictUndefined

OF_HOST = ("driver", "disk", "backup", "lock")  # the page has a table of the hosts


def page(fleet, path):
    """Return a document as an HTML page that needs nothing from elsewhere, by the template at the path."""
    environment = Environment(
        loader=FileSystemLoader(path.parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(room=status.room, backed_up=status.backed_up)
    template = environment.get_template(path.name)
    columns = [column for column in status.COLUMNS if column not in OF_HOST]
    return template.render(
        fleet=fleet,
        rows=status.every_row(fleet, "own_level"),
        columns=columns,
        summary=summary(fleet),
        gateway_rows=gateways.every_row(fleet),
        gateway_columns=gateways.COLUMNS,
        said=gateways.said,
    )


def summary(fleet):
    """Return a document in a sentence or two."""
    return f"{status.summary(fleet)} {gateways.summary(fleet)}".rstrip()


def tables(fleet):
    """Return the tables of a document and its summary; a play of gateways alone has no table of instances."""
    instances = status.table(fleet) if fleet["hosts"] or not fleet["gateways"] else ""
    return "\n\n".join(filter(None, (instances, gateways.table(fleet), summary(fleet))))


def seen(variables):
    """Return what a gateway said of itself; one that was not asked, as its host is out of reach, has that as its answer."""
    host = variables.get("iopaint_status") or {}
    return variables.get("gateway_status") or (host if host.get("state", "ok") != "ok" else None)


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
            "hosts": {"type": "list", "elements": "str", "default": task_vars["ansible_play_hosts_all"]},
            "gateways": {"type": "list", "elements": "str", "default": []},
        }
        _result, arguments = self.validate_argument_spec(options)
        self.params = arguments
        variables = task_vars["hostvars"]
        hosts = {name: variables[name].get("iopaint_status") for name in arguments["hosts"]}
        fleet = status.document(hosts, arguments["min_free_gb"] * 1e9)
        fleet = gateways.add(fleet, {name: seen(variables[name]) for name in arguments["gateways"]})
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
        for gateway in fleet["gateways"]:
            wrong[gateway["host"]] = [*wrong.get(gateway["host"], []), *gateways.wrong(gateway)]
        return {
            **result,
            "changed": False,
            "table": tables(fleet),
            "written": [] if result.get("failed") else written,
            "wrong": {name: sentences for name, sentences in wrong.items() if sentences},
        }
