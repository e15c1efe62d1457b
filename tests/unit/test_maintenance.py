# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What maintenance changed on a host, whether it needs a reboot, and the table; the programs of a host are stand-ins."""

import os
import subprocess
from pathlib import Path

import pytest
from ansible_collections.iopaint.fleet.plugins.filter.maintenance import FilterModule
from ansible_collections.iopaint.fleet.plugins.filter.upgrades import upgrade_failures

FILTERS = FilterModule().filters()
STATE = Path(__file__).resolve().parents[2] / "roles" / "iopaint_maintain" / "files" / "state"
BEFORE = """boot a
engine 28.0.1
started 100
settings 1 2
kernel 6.1.0-28-amd64
installed 6.1.0-28-amd64
package docker-ce 5:28.0.1-1
package libc6:amd64 2.36-9
package gone 1
"""


def changes(*replaced, before=BEFORE):
    """What is found after a change of these lines."""
    after = before
    for old, new in replaced:
        assert old in after
        after = after.replace(old, new)
    return FILTERS["maintenance_changes"](before, after)


def test_nothing_changed():
    assert changes() == {"engine": "28.0.1", "packages": [], "rebooted": False, "reboot_needed": ""}


def test_packages_and_the_engine_have_versions_before_and_after():
    found = changes(
        ("engine 28.0.1", "engine 28.5.2"),
        ("started 100", "started 200"),
        ("5:28.0.1-1", "5:28.5.2-1"),
        ("package gone 1", "package new 2"),
    )
    assert found["engine"] == "28.0.1 → 28.5.2 (restarted)"
    assert found["packages"] == ["docker-ce 5:28.0.1-1 → 5:28.5.2-1", "gone 1 → none", "new none → 2"]


def test_a_changed_setting_and_a_restart_are_named():
    assert changes(("settings 1 2", "settings 3 4"))["engine"] == "28.0.1 (new settings)"
    assert (
        changes(("settings 1 2", "settings 3 4"), ("started 100", "started 200"))["engine"] == "28.0.1 (new settings, restarted)"
    )


def test_an_engine_that_does_not_answer():
    assert changes(("engine 28.0.1", "engine "))["engine"] == "28.0.1 → none"


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ("kernel 6.1.0-28-amd64\ninstalled 6.1.0-28-amd64\ninstalled 6.1.0-29-amd64\n", "6.1.0-28-amd64 runs and 6.1.0-29-amd64"),
        ("kernel 6.12.48+deb13-cloud-amd64\ninstalled 6.12.48+deb13-cloud-amd64\ninstalled 6.12.50+deb13-amd64\n", ""),
        ("kernel 5.15.0-91-generic\ninstalled 5.15.0-91-generic\ninstalled 5.15.0-94-generic\n", "5.15.0-91-generic runs"),
        ("kernel 5.15.0-94-generic\ninstalled 5.15.0-91-generic\ninstalled 5.15.0-94-generic\n", ""),
        ("kernel 6.18.1-of-another-host\ninstalled 6.1.0-28-amd64\n", ""),
        ("kernel 6.1.0-28-amd64\n", ""),
        ("kernel 6.1.0-28-amd64\nasked linux-image-6.1.0-28-amd64 libc6 \n", "asked for by linux-image-6.1.0-28-amd64 libc6"),
        ("kernel 6.1.0-28-amd64\nasked \n", "asked for by /run/reboot-required"),
    ],
)
def test_a_reboot_is_needed(lines, reason):
    found = FILTERS["maintenance_changes"]("boot a\n" + lines, "boot a\n" + lines)["reboot_needed"]
    assert found.startswith(reason)
    assert bool(found) == bool(reason)


def test_another_boot_is_a_reboot():
    assert changes(("boot a", "boot b"))["rebooted"] is True


@pytest.mark.parametrize(("before", "after"), [("", ""), (BEFORE, ""), ("", BEFORE)])
def test_of_a_host_that_did_not_answer_nothing_is_known(before, after):
    assert FILTERS["maintenance_changes"](before, after) == {
        "engine": "",
        "packages": [],
        "rebooted": False,
        "reboot_needed": "",
    }


def host(name, outcome=None, reason="", **changes):
    variables = {"inventory_hostname": name}
    if outcome:
        known = {"engine": "28.0.1", "packages": [], "rebooted": False, "reboot_needed": "", **changes}
        variables["iopaint_maintained"] = {"outcome": outcome, "seconds": 12.34, "reason": reason, "changes": known}
    return variables


def test_the_table_has_a_line_for_each_host():
    packages = [f"library-of-a-long-name-{number} 1 → 2" for number in range(9)]
    heading, one, two, three, four = FILTERS["maintenance_table"](
        [
            host("one", "maintained", packages=packages, rebooted=True),
            host("two", "maintained", reboot_needed="asked for by libc6"),
            host("three", "failed", "cpu: no\n\n\u0007health"),
            host("four"),
        ]
    ).splitlines()
    assert heading.split() == ["host", "outcome", "engine", "packages", "reboot", "seconds", "reason"]
    assert one.split()[:4] == ["one", "maintained", "28.0.1", "9:"]
    assert "…" in one
    assert " rebooted  12.3 " in one
    assert two.split()[:6] == ["two", "maintained", "28.0.1", "-", "needed", "12.3"]
    assert two.endswith("asked for by libc6")
    assert three.split() == ["three", "failed", "28.0.1", "-", "-", "12.3", "cpu:", "no", "health"]
    assert four.split() == ["four", "not", "reached", "-", "-", "-", "-", "-"]


def test_failures_of_maintenance_are_counted_apart_from_those_of_an_upgrade():
    hosts = [host("one", "failed"), host("two", "maintained"), host("three"), {"iopaint_upgraded": {"outcome": "failed"}}]
    assert upgrade_failures(hosts, "iopaint_maintained") == 1


def test_the_state_of_a_host_is_what_the_filter_reads(tmp_path):
    programs = {
        "docker": "echo 28.0.1",
        "systemctl": "echo 100",
        "uname": "echo 6.1.0-28-amd64",
        "linux-version": 'case $1 in list) printf "6.1.0-29-amd64\\n6.1.0-28-amd64\\n" ;; sort) sort ;; esac',
        "dpkg-query": 'printf "ii  docker-ce 5:28.0.1-1\\nhi  libc6:amd64 2.36-9\\nrc  gone 1\\n"',
    }
    for name, text in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)

    def state():
        path = f"{tmp_path}:{os.environ['PATH']}"
        return subprocess.run(["sh", STATE], env={"PATH": path}, capture_output=True, text=True, check=True).stdout

    before = state()
    (tmp_path / "dpkg-query").write_text('#!/bin/sh\nprintf "ii  docker-ce 5:28.5.2-1\\n"\n')
    found = FILTERS["maintenance_changes"](before, state())
    assert found["engine"] == "28.0.1"
    assert found["packages"] == ["docker-ce 5:28.0.1-1 → 5:28.5.2-1", "libc6:amd64 2.36-9 → none"]
    assert found["rebooted"] is False
    assert found["reboot_needed"]
