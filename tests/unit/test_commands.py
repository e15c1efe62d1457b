# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Commands that hang, that never stop talking, and that do neither."""

import sys
import time

import pytest
from ansible_collections.iopaint.fleet.plugins.module_utils import commands


def python(script):
    return [sys.executable, "-IS", "-c", script]


def test_a_command_gives_status_and_both_outputs():
    script = "import os, sys; print(os.environ['A']); print('e', file=sys.stderr); sys.exit(3)"
    assert commands.run(python(script), 60, {"A": "a"}) == (3, "a\n", "e\n")


def test_much_on_both_outputs_at_once_is_read(monkeypatch):
    script = "import sys; [(sys.stdout.write('o' * 9999), sys.stderr.write('e' * 9999)) for _ in range(50)]"
    rc, out, err = commands.run(python(script), 60)
    assert (rc, len(out), len(err)) == (0, 50 * 9999, 50 * 9999)


def test_a_command_that_has_said_enough_is_ended():
    start = time.monotonic()
    script = "import sys\nwhile True: sys.stdout.write('x' * 1000)"
    assert commands.run(python(script), 60, enough=12345) == (0, "x" * 12345, "")
    assert commands.run(python("print('short')"), 60, enough=12345) == (0, "short\n", "")
    assert time.monotonic() - start < 30


@pytest.mark.parametrize(
    "script",
    [
        "import time; time.sleep(60)",
        "import time\nwhile True: print('x', flush=True); time.sleep(0.05)",  # never silent
        "import os, time; os.close(1); os.close(2); time.sleep(60)",  # said all and lives on
    ],
    ids=["silent", "chatty", "closed"],
)
def test_a_command_that_does_not_end_is_killed(script):
    start = time.monotonic()
    rc, out, err = commands.run(python(script), 2)
    assert (rc, out) == (-1, "")
    assert "did not answer within 2 s" in err
    assert time.monotonic() - start < 30


def test_a_command_that_never_stops_talking_is_killed():
    rc, out, err = commands.run(python("while True: print('x' * 9999)"), 60)
    assert (rc, out) == (-1, "")
    assert "said more than 16777216 bytes" in err


def test_a_command_that_is_not_there_is_named(tmp_path):
    assert commands.run([str(tmp_path / "none")], 5) == (-1, "", f"{tmp_path}/none: No such file or directory")
