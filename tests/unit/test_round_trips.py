# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The callback that counts, on a connection that leads to this very machine."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PLUGIN = """
DOCUMENTATION = '''
name: near
short_description: The local one, which is not counted, by a name that is
description: For tests.
'''
from ansible.plugins.connection.local import Connection as Local


class Connection(Local):
    transport = "near"
    has_pipelining = True
"""
PLAY = [
    {
        "hosts": "all",
        "gather_facts": False,
        "tasks": [
            {"ansible.builtin.ping": None},
            {"ansible.builtin.debug": {"msg": "costs nothing"}},
            {"ansible.builtin.ping": None, "delegate_to": "localhost"},
            {"ansible.builtin.ping": None, "when": "inventory_hostname == 'b'"},
            {"ansible.builtin.fetch": {"src": "{{ file }}", "dest": "{{ file }}.{{ inventory_hostname }}", "flat": True}},
        ],
    }
]


@pytest.fixture
def play(tmp_path):
    (tmp_path / "near.py").write_text(PLUGIN)
    (tmp_path / "play.yml").write_text(json.dumps(PLAY))
    (tmp_path / "inventory").write_text(
        "a ansible_connection=near\nb ansible_connection=near\nlocalhost ansible_connection=local\n"
    )

    def run_play(callbacks):
        environment = {
            **os.environ,
            "ANSIBLE_CONNECTION_PLUGINS": str(tmp_path),
            "ANSIBLE_CALLBACK_PLUGINS": str(Path(__file__).parents[1] / "callback"),
            "ANSIBLE_PIPELINING": "true",
            "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
            **({"ANSIBLE_CALLBACKS_ENABLED": callbacks} if callbacks else {}),
        }
        command = [Path(sys.executable).parent / "ansible-playbook", "-i", tmp_path / "inventory", tmp_path / "play.yml"]
        command += ["-e", json.dumps({"file": str(tmp_path / "near.py")})]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout

    return run_play


def test_each_host_gets_its_own_counts_and_the_control_node_none(play):
    rows = re.findall(r"(\S+) +: module executions (\d+) +round trips (\d+) +\((.*)\)", play("round_trips"))
    # ping, and what fetch asks before it takes the file; this connection fetches by its own put
    assert rows == [("a", "2", "4", "exec 2, put 1, fetch 1"), ("b", "3", "5", "exec 3, put 1, fetch 1")]


def test_it_is_off_unless_it_is_enabled(play):
    assert "ROUND TRIPS" not in play("")
