# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Commands that may hang, as nvidia-smi and docker do when what is behind them is stuck, or that never stop talking."""

from __future__ import annotations

import os
import selectors
import subprocess
import time

MOST = 16 * 2**20  # bytes of each of the two outputs
PIECE = 2**16


def run(command: list, timeout: float, environment: dict | None = None, enough: int | None = None) -> tuple:
    """Exit status, stdout and stderr of a command. Never waits for longer than the timeout, nor reads more than MOST bytes.

    environment: further variables. enough: bytes of stdout after which the command is killed; that is no fault of it.
    """
    try:
        process = subprocess.Popen(  # pylint: disable=ansible-bad-function # run_command knows no timeout
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, **(environment or {})}
        )
    except OSError as error:
        return -1, "", f"{command[0]}: {error.strerror}"
    said: dict = {process.stdout: bytearray(), process.stderr: bytearray()}
    ends = time.monotonic() + timeout
    reason = None
    with selectors.DefaultSelector() as selector:
        for stream in said:
            selector.register(stream, selectors.EVENT_READ)
        while selector.get_map() and not reason:
            for key, _events in selector.select(max(ends - time.monotonic(), 0)):
                piece = os.read(key.fd, PIECE)
                said[key.fileobj] += piece
                if not piece:
                    selector.unregister(key.fileobj)
                elif len(said[key.fileobj]) > MOST:
                    reason = f"said more than {MOST} bytes"
            if enough is not None and len(said[process.stdout]) >= enough:
                process.kill()
                process.wait()
                return 0, said[process.stdout][:enough].decode(errors="replace"), ""
            if selector.get_map() and time.monotonic() >= ends:
                reason = reason or f"did not answer within {timeout} s"
    try:
        if not reason:
            process.wait(max(ends - time.monotonic(), 0.1))
    except subprocess.TimeoutExpired:
        reason = f"did not answer within {timeout} s"
    if reason:
        process.kill()  # and no wait: a process stuck in the driver can't be killed, and would hold up the play
        return -1, "", f"{' '.join(command)} {reason}"
    stdout, stderr = (text.decode(errors="replace") for text in said.values())
    return process.returncode, stdout, stderr
