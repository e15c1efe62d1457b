#!/usr/bin/env python3
"""find_on_host.py files FOLDER… | processes: where texts are found on a host, and who could read them there.

The first line of the input is JSON: `needles` (the texts), `since` (a time; files that changed before are left out) and `users`
(whose processes may have the texts in their environment). The answer has a line of JSON for each finding.
`processes` looks at all process lists until its input ends.
"""

from __future__ import annotations

import gzip
import json
import os
import select
import stat
import subprocess
import sys
import time
from pathlib import Path

PIECE = 1 << 20
OVERLAP = 4096  # so that what lies across two pieces is found
NOT_FILES = ("/proc", "/sys", "/dev", "/var/log/journal", "/run/log/journal")  # the journal is asked by its own program


def pieces(path):
    """Yield the content of a file, decompressed."""
    with open(path, "rb") as file:
        magic = file.read(4)
        file.seek(0)
        if magic[:2] == b"\x1f\x8b":
            stream = gzip.GzipFile(fileobj=file)
        elif magic == b"\x28\xb5\x2f\xfd":
            stream = subprocess.Popen(["zstd", "-dcq"], stdin=file, stdout=subprocess.PIPE).stdout
        else:
            stream = file
        last = b""
        while piece := stream.read(PIECE):
            yield last + piece
            last = piece[-OVERLAP:]


def contexts(needles, content):
    """Yield what stands around each place of a text, long enough to see which one it is."""
    for needle in needles:
        place = content.find(needle)
        while place >= 0:
            yield content[max(0, place - 40) : place + len(needle) + 12].decode(errors="replace")
            place = content.find(needle, place + len(needle))


def readers(path):
    """Return who can read a file besides root: everybody, a user or a group, with the folders above it in mind."""
    chain = [os.lstat(part) for part in [path, *Path(path).parents]]
    mode, uid, gid = chain[0].st_mode, chain[0].st_uid, chain[0].st_gid
    found = []
    if mode & 0o004 and all(part.st_mode & 0o001 for part in chain[1:]):
        found.append("everybody")
    if gid and mode & 0o040 and all(part.st_mode & 0o001 or (part.st_gid == gid and part.st_mode & 0o010) for part in chain[1:]):
        found.append(f"group {gid}")
    if uid and mode & 0o400 and all(part.st_mode & 0o001 or (part.st_uid == uid and part.st_mode & 0o100) for part in chain[1:]):
        found.append(f"user {uid}")
    return found


def files(folders, needles, since):
    """Yield each file below the folders that has changed and holds a text."""
    for folder in folders:
        for place, below, names in os.walk(folder):
            below[:] = [
                name
                for name in below
                if os.path.join(place, name) not in NOT_FILES
                # The engine's view of a container; the layers themselves are looked at.
                and not (name == "merged" and "/overlay2/" in place)
            ]
            for name in names:
                path = os.path.join(place, name)
                try:
                    state = os.lstat(path)
                    if not stat.S_ISREG(state.st_mode) or state.st_ctime < since:
                        continue
                    found = sorted({text for piece in pieces(path) for text in contexts(needles, piece)})
                    if found:
                        yield {"path": path, "mode": oct(stat.S_IMODE(state.st_mode)), "readers": readers(path), "texts": found}
                except (OSError, EOFError):
                    if name.endswith(".zst"):
                        raise  # without zstd nothing would be found
                    continue  # gone meanwhile, or compressed and not whole


def processes(needles, users):
    """Yield each process that has a text in its arguments, or in an environment that others than root can read."""
    seen, pause = set(), 0
    while not select.select([sys.stdin], [], [], pause)[0]:
        begun = time.monotonic()
        for pid in os.listdir("/proc"):
            if not pid.isdigit():
                continue
            try:
                arguments = Path(f"/proc/{pid}/cmdline").read_bytes()
                texts = sorted(set(contexts(needles, arguments)))
                where = "arguments"
                if not texts and os.stat(f"/proc/{pid}").st_uid not in users:
                    texts, where = sorted(set(contexts(needles, Path(f"/proc/{pid}/environ").read_bytes()))), "environment"
            except OSError:
                continue  # it has ended
            found = (where, arguments, tuple(texts))
            if texts and found not in seen:
                seen.add(found)
                yield {"where": where, "command": arguments.decode(errors="replace").replace("\0", " ")[:600], "texts": texts}
        pause = 6 * (time.monotonic() - begun)  # so that the plays keep the processor


def main():
    """Run the command."""
    wanted = json.loads(sys.stdin.readline())
    needles = [needle.encode() for needle in wanted["needles"]]
    if sys.argv[1] == "files":
        found = files(sys.argv[2:], needles, wanted["since"])
    else:
        print(json.dumps({"begun": time.time()}), flush=True)
        found = processes(needles, wanted["users"])
    for finding in found:
        print(json.dumps(finding), flush=True)


if __name__ == "__main__":
    main()
