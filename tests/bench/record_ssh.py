#!/usr/bin/env python3
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""ssh, as Ansible calls it for one host, with each exchange kept in $BENCH_RECORDING for paced_host.sh to give again.

Exchange N is N.out (standard output), N.err (standard error) and N.sh, which sets for a shell `seconds` (how long the host took,
less what ssh takes for a command that does nothing), `size` (bytes of standard input; 0 where there was none) and `rc` (the exit
status).
"""

import os
import subprocess
import sys
import time
from pathlib import Path


def main():
    """Run ssh and keep what passed."""
    folder = Path(os.environ["BENCH_RECORDING"])
    # without a module to hand over Ansible gives a terminal, which has no end to read to
    sent = b"" if os.isatty(0) else sys.stdin.buffer.read()
    begun = time.monotonic()
    subprocess.run(["ssh", *sys.argv[1:-1], "true"], check=False, capture_output=True, stdin=subprocess.DEVNULL)
    nothing = time.monotonic() - begun
    begun = time.monotonic()
    stdin = {"input": sent} if sent else {"stdin": None}
    done = subprocess.run(["ssh", *sys.argv[1:]], check=False, capture_output=True, **stdin)
    seconds = max(time.monotonic() - begun - nothing, 0)
    number = len(list(folder.glob("*.sh")))
    (folder / f"{number}.out").write_bytes(done.stdout.replace(b"\r\n", b"\n"))  # a terminal adds them anew
    (folder / f"{number}.err").write_bytes(done.stderr)
    (folder / f"{number}.sh").write_text(f"seconds={seconds:.3f} size={len(sent)} rc={done.returncode}\n")
    sys.stdout.buffer.write(done.stdout)
    sys.stdout.flush()
    sys.stderr.buffer.write(done.stderr)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
