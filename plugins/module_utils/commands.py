# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Commands that may hang, as nvidia-smi and docker do when what is behind them is stuck."""

from __future__ import annotations

import subprocess


def run(command: list, timeout: int) -> tuple:
    """Exit status, stdout and stderr of a command. Never waits for longer than the timeout."""
    try:
        process = subprocess.Popen(  # pylint: disable=ansible-bad-function # run_command knows no timeout
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
    except OSError as error:
        return -1, "", f"{command[0]}: {error.strerror}"
    try:
        stdout, stderr = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()  # and no wait: a process stuck in the driver can't be killed, and would hold up the play
        return -1, "", f"{' '.join(command)} did not answer within {timeout} s"
    return process.returncode, stdout.decode(errors="replace"), stderr.decode(errors="replace")
