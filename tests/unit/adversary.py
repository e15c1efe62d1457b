# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""An adversary in its own process: it works in the current folder, as another user, until it is killed.

    adversary.py USER exchange ONE OTHER     exchange two names with each other, as fast as the kernel does it
    adversary.py USER hijack FOLDER TARGET   put a link to TARGET in place of each new file of a folder, while it is written

It prints a line once it has begun.
"""

import contextlib
import ctypes
import os
import sys

AT_FDCWD, RENAME_EXCHANGE = -100, 2


def exchange(one, other):
    """Exchange two names for ever."""
    rename = ctypes.CDLL(None, use_errno=True).renameat2
    names = AT_FDCWD, one.encode(), AT_FDCWD, other.encode(), RENAME_EXCHANGE
    while True:
        rename(*names)


def hijack(folder, target):
    """Replace each hidden file of a folder by a link, for ever."""
    while True:
        with contextlib.suppress(OSError):
            for name in os.listdir(folder):
                if name.startswith(".") and not os.path.islink(os.path.join(folder, name)):
                    os.unlink(os.path.join(folder, name))
                    os.symlink(target, os.path.join(folder, name))


user = int(sys.argv[1])
os.setgroups([])
os.setresgid(user, user, user)
os.setresuid(user, user, user)
print("begun", flush=True)
{"exchange": exchange, "hijack": hijack}[sys.argv[2]](*sys.argv[3:])
