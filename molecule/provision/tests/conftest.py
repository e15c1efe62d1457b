"""Plays against the hosts of the scenario, as its operator runs them."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
import testinfra
import yaml

SCENARIO = Path(__file__).resolve().parents[1]
INVENTORY = os.environ["MOLECULE_INVENTORY_FILE"]
GROUPS = {name: list(group.get("hosts", {})) for name, group in yaml.safe_load(Path(INVENTORY).read_text()).items()}
HOSTS = GROUPS["docker_hosts"]
FRESH = next(name for name in HOSTS if name not in GROUPS.get("museum", []))
SITE_HOST = GROUPS["repositories"][0]


class Outcome:
    """What a play did, host by host."""

    def __init__(self, done):
        self.output = done.stdout + done.stderr
        assert "\n{\n" in f"\n{done.stdout}", self.output
        report, _ = json.JSONDecoder().raw_decode(done.stdout[done.stdout.index("{\n") :])  # other callbacks print as well
        self.stats = report["stats"]
        self.tasks = [
            (task["task"]["name"].rpartition(" : ")[2], host, result)
            for play in report["plays"]
            for task in play["tasks"]
            for host, result in task["hosts"].items()
        ]

    def changed(self, host):
        return [name for name, of, result in self.tasks if of == host and result.get("changed")]

    def said(self, host, task):
        """What the last task of this name printed."""
        return [result["msg"] for name, of, result in self.tasks if (name, of) == (task, host) and "msg" in result][-1]

    def message(self, host):
        """What the play failed with, after all that it rescued."""
        failures = [result["msg"] for _, of, result in self.tasks if of == host and result.get("failed")]
        assert self.stats[host]["failures"] == 1, f"{host} did not fail: {self.stats[host]}\n{failures}"
        return failures[-1]

    def good(self):
        bad = {host: self.message(host) for host, stats in self.stats.items() if stats["failures"] or stats["unreachable"]}
        assert not bad, "\n".join(f"{host}: {message}" for host, message in bad.items())
        return self


def run(*options, variables=None, **environment):
    command = ["ansible-playbook", "--inventory", INVENTORY, SCENARIO / "converge.yml", *options]
    command += ["--extra-vars", json.dumps(variables or {})]
    environment = {**os.environ, **environment}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="session")
def play():
    """Run the role, with variables other than the site's where given."""

    def run_play(*options, **variables):
        return Outcome(run(*options, variables=variables, ANSIBLE_STDOUT_CALLBACK="ansible.posix.json"))

    return run_play


@pytest.fixture(scope="session")
def round_trips():
    """Run the role with these variables and give (module executions, round trips) by host."""

    def run_play(**variables):
        plugins = str(SCENARIO.parents[1] / "tests/callback")
        done = run(variables=variables, ANSIBLE_CALLBACK_PLUGINS=plugins, ANSIBLE_CALLBACKS_ENABLED="round_trips")
        assert done.returncode == 0, done.stdout
        table = done.stdout[done.stdout.index("ROUND TRIPS") :]
        print(table)
        rows = re.findall(r"(?m)^(\S+) +: module executions (\d+) +round trips (\d+)", table)
        return {host: (int(modules), int(trips)) for host, modules, trips in rows}

    return run_play


@pytest.fixture(scope="session")
def on():
    """A host by its name."""
    return lambda name: testinfra.get_host(f"ansible://{name}?ansible_inventory={INVENTORY}")
