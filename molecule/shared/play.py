"""Runs the collection's playbooks against the hosts of a scenario, as a user would, and gives what came of it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

# A task that is waited for has to be announced when it begins, not when it has ended.
BANNERS = {"ANSIBLE_DISPLAY_SKIPPED_HOSTS": "true"}
ROOT = Path(__file__).resolve().parents[2]


class Run(NamedTuple):
    """One run of a playbook."""

    rc: int
    output: str  # unwrapped, as the plain-text callback prints it
    seconds: float

    def changed(self, host: str) -> int:
        """Tasks that changed something on the host, by the recap."""
        return int(re.search(rf"^{host} .*changed=(\d+)", self.output, re.MULTILINE)[1])

    def says(self, *words: str) -> bool:
        """Return whether the output has all of these, wherever its lines break."""
        text = " ".join(self.output.split())
        return all(" ".join(word.split()) in text for word in words)


def process(playbook: str, *arguments: str, **variables) -> dict:
    """Return what subprocess needs to run a playbook with extra variables; MOLECULE_INVENTORY_FILE names the inventory.

    The playbook is a file of the checkout, or one of an installed collection by its full name.
    """
    path = str(ROOT / playbook) if playbook.endswith(".yml") else playbook
    command = ["ansible-playbook", "-i", os.environ["MOLECULE_INVENTORY_FILE"], path, *arguments]
    if variables:
        command += ["-e", json.dumps(variables)]
    return {
        "args": command,
        "env": {
            **os.environ,
            **BANNERS,
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_FORCE_COLOR": "0",
            "COLUMNS": "200",
        },
        "cwd": ROOT,
        "stdin": subprocess.DEVNULL,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.STDOUT,
        "text": True,
    }


def play(playbook: str, *arguments: str, **variables) -> Run:
    """Run a playbook to its end."""
    start = time.monotonic()
    done = subprocess.run(**process(playbook, *arguments, **variables), check=False)
    return Run(done.returncode, done.stdout, time.monotonic() - start)


def deployed(host) -> dict:
    """ID and start of each container of ours: equal before and after means that nothing was touched."""
    names = host.check_output("docker ps --filter label=com.docker.compose.project --format '{{.Names}}'").split()
    form = "{{.Id}} {{.Image}} {{.State.StartedAt}}"
    return {name: host.check_output(f"docker inspect --format '{form}' {name}") for name in names}
