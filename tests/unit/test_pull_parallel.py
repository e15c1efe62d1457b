# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""iopaint_pull_parallel: how many hosts pull at a time, in the role's own tasks on five hosts of this machine."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

HOSTS = ["a", "b", "c", "d", "e"]
DIGEST = "sha256:" + "1" * 64
VARIABLES = {
    "ansible_connection": "local",
    "iopaint_registry": "registry:5000",
    "iopaint_registry_builder": "a",
    # what the entry point build leaves
    "iopaint_registry_images": {"cpu": {"image": "iopaint:cpu-1", "digest": DIGEST, "tags": []}},
    "iopaint_registry_wanted": ["cpu"],
}
# A stand-in for docker: a pull takes two seconds, during which its host is listed in PULLS, and counts who is listed.
DOCKER = f"""#!/bin/sh
case "$1 $2" in
  "image inspect") [ -e "$PULLS/$HOST.done" ] || {{ echo "No such image: $3" >&2; exit 1; }}
    echo '[{{"Id": "sha256:2", "Size": 1000, "RepoDigests": ["registry:5000/iopaint@{DIGEST}"]}}]' ;;
  "pull "*) touch "$PULLS/$HOST.now"; sleep 2
    ls "$PULLS" | grep -c now >> "$PULLS/counts"; rm "$PULLS/$HOST.now"; touch "$PULLS/$HOST.done" ;;
esac
"""


@pytest.fixture
def most_at_a_time(tmp_path):
    """Return how many hosts pulled at the same time, at most, with this iopaint_pull_parallel."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "docker").write_text(DOCKER)
    (tmp_path / "bin" / "docker").chmod(0o755)
    play = {
        "hosts": "all",
        "gather_facts": False,
        "environment": {"PULLS": str(tmp_path / "pulls"), "HOST": "{{ inventory_hostname }}"},
        "tasks": [{"ansible.builtin.include_role": {"name": "iopaint.fleet.iopaint_registry", "tasks_from": "pull"}}],
    }
    group = {"hosts": dict.fromkeys(HOSTS), "vars": VARIABLES}
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump({"all": group}))
    (tmp_path / "play.yml").write_text(yaml.safe_dump([play]))

    def run(limit):
        (tmp_path / "pulls").mkdir()
        environment = {
            **os.environ,
            "PATH": f"{tmp_path}/bin:{os.environ['PATH']}",
            "ANSIBLE_COLLECTIONS_PATH": str(Path(__file__).parents[2] / "build" / "collections"),
            "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
            "ANSIBLE_FORKS": str(len(HOSTS)),
        }
        command = [Path(sys.executable).parent / "ansible-playbook", "-i", tmp_path / "hosts.yml", tmp_path / "play.yml"]
        command += ["-e", json.dumps({"iopaint_pull_parallel": limit})]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert sorted(path.stem for path in (tmp_path / "pulls").glob("*.done")) == HOSTS
        return max(map(int, (tmp_path / "pulls" / "counts").read_text().split()))

    return run


@pytest.mark.parametrize("limit", [1, 2])
def test_no_more_hosts_than_allowed_pull_at_a_time(most_at_a_time, limit):
    assert most_at_a_time(limit) == limit


def test_without_a_limit_they_would_be_more(most_at_a_time):
    assert most_at_a_time(len(HOSTS)) > 2
