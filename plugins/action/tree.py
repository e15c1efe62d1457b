# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Action: reads a folder tree on the control node and sends what the host lacks. Documented in plugins/modules."""

from __future__ import annotations

import base64
import gzip
import hashlib
import os
import stat
import tarfile
import tempfile
import zlib
from contextlib import contextmanager
from typing import BinaryIO

from ansible import constants as C  # noqa: N812 - Ansible's own name for it
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.iopaint.fleet.plugins.module_utils.tree import FILE, FOLDER, LINK, Entry, digest, dumps, shown

NOTHING = "Nothing was changed on the host."
INLINE = 2**20  # bytes of an archive that go along with the module, which saves the round trips of a file
SPECIMENS, SPECIMEN = 32, 2**16  # files, and bytes of each, that tell whether compression helps
HELPS = 0.8  # compressed size by size from which on it does


class Source:
    """A folder on the control node and what it holds."""

    def __init__(self, root: bytes, exclude: list[bytes], follow: bool):
        self.root, self.exclude, self.follow = root, frozenset(exclude), follow
        self.entries: list[Entry] = []
        self.skipped: list[bytes] = []

    def read(self) -> None:
        """List everything, parents first."""
        self.walk(b"", [])

    def walk(self, folder: bytes, above: list[tuple[int, int]]) -> None:
        """List one folder; `above` identifies its parents, by which a loop of links is found."""
        path = os.path.join(self.root, folder)
        found = os.stat(path)
        here = found.st_dev, found.st_ino
        if here in above:
            raise AnsibleActionFail(f"{shown(path)} is a link to a folder that holds it. {NOTHING}")
        for item in sorted(os.listdir(path)):
            name = os.path.join(folder, item)
            if item in self.exclude or b"/" + name in self.exclude:
                continue
            entry = self.entry(name)
            if entry is None:
                self.skipped.append(name)
                continue
            self.entries.append(entry)
            if entry.kind == FOLDER:
                self.walk(name, [*above, here])

    def entry(self, name: bytes) -> Entry | None:
        """Return the entry of one path, or None for a socket, a FIFO or a device."""
        path = os.path.join(self.root, name)
        mode = os.stat(path, follow_symlinks=self.follow).st_mode
        if stat.S_ISDIR(mode):
            return Entry(name, FOLDER, 0o755)
        if stat.S_ISLNK(mode):
            return Entry(name, LINK, content=os.readlink(path))
        if not stat.S_ISREG(mode):
            return None
        with open(path, "rb") as stream:
            content = digest(stream)
            return Entry(name, FILE, 0o755 if mode & stat.S_IXUSR else 0o644, stream.tell(), content)

    def pack(self, needs: list[str], out: BinaryIO) -> None:
        """Write files into an archive, where each is named by its number in the manifest."""
        entries = {number: self.entries[int(number)] for number in needs}
        if self.compressible(list(entries.values())):
            with gzip.GzipFile(filename="", fileobj=out, mode="wb", compresslevel=6, mtime=0) as stream:
                self.write(entries, stream)
        else:
            self.write(entries, out)

    def write(self, entries: dict[str, Entry], stream: BinaryIO) -> None:
        """Write the archive itself; raise AnsibleActionFail if a file is no longer what the manifest says."""
        with tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as tar:
            for number, entry in entries.items():
                path, member = os.path.join(self.root, entry.path), tarfile.TarInfo(number)
                member.size = entry.size
                with open(path, "rb") as file:
                    read = Hashed(file)
                    try:
                        tar.addfile(member, read)
                        same = read.sha256.hexdigest().encode() == entry.content
                    except OSError as error:
                        if error.errno:
                            raise
                        same = False  # tarfile found the file shorter than before
                if not same:
                    raise AnsibleActionFail(f"{shown(path)} changed while it was copied. {NOTHING} Run the play again.")

    def compressible(self, entries: list[Entry]) -> bool:
        """Return whether compression makes an archive of the files notably smaller; wheels and images are compressed already."""
        before = after = 0
        for entry in sorted(entries, key=lambda entry: -entry.size)[:SPECIMENS]:
            with open(os.path.join(self.root, entry.path), "rb") as stream:
                specimen = stream.read(SPECIMEN)
            before, after = before + len(specimen), after + len(zlib.compress(specimen, 1))
        return after < before * HELPS


class Hashed:
    """A file whose bytes are hashed as they are read."""

    def __init__(self, stream: BinaryIO):
        self.stream, self.sha256 = stream, hashlib.sha256()

    def read(self, size: int) -> bytes:
        """Return the next bytes."""
        piece = self.stream.read(size)
        self.sha256.update(piece)
        return piece


@contextmanager
def explained(src: str):
    """Raise AnsibleActionFail with the file's name for any error of the control node's files."""
    try:
        yield
    except OSError as error:
        where = shown(os.fsencode(error.filename)) if error.filename else src
        why = error.strerror or error
        raise AnsibleActionFail(f"{where} could not be read or packed on the control node: {why}. {NOTHING}") from None


class ActionModule(ActionBase):
    """Asks the host what differs, and sends the files that it needs."""

    def run(self, tmp=None, task_vars=None):
        """Run the module, a second time with an archive if the host lacks files."""
        super().run(tmp, task_vars)
        text = {"type": "str", "required": True}
        exclude, follow = {"type": "list", "elements": "str", "default": []}, {"type": "bool", "default": False}
        _result, args = self.validate_argument_spec({"src": text, "dest": text, "exclude": exclude, "follow": follow})
        found = os.fsencode(self._find_needle("files", args["src"]))
        if not os.path.isdir(found):
            raise AnsibleActionFail(f"src is {args['src']}, which is no folder on the control node. {NOTHING}")
        source = Source(found, [os.fsencode(name) for name in args["exclude"]], args["follow"])
        with explained(args["src"]):
            source.read()
        result = self.copy(source, {**args, "manifest": dumps(source.entries)}, task_vars)
        if source.skipped:
            names = ", ".join(map(shown, source.skipped[:10])) + (", …" if len(source.skipped) > 10 else "")
            said = f"{args['src']}: {len(source.skipped)} sockets, FIFOs or devices were not copied: {names}"
            result.setdefault("warnings", []).append(said)
        return result

    def copy(self, source: Source, args: dict, task_vars: dict) -> dict:
        """Return the result of the module after the files that it asked for were sent."""
        result = self.module(args, task_vars)
        needs = result.pop("needs", None)
        if result.get("failed") or not needs:
            return result
        descriptor, archive = tempfile.mkstemp(dir=C.DEFAULT_LOCAL_TMP, prefix="tree-")
        try:
            with explained(args["src"]), os.fdopen(descriptor, "wb") as stream:
                source.pack(needs, stream)
            sent = os.path.getsize(archive)
            result = self.module({**args, "needs": needs, **self.send(archive, sent)}, task_vars)
        finally:
            os.unlink(archive)
            self._remove_tmp_path(self._connection._shell.tmpdir)
        return result if result.get("failed") else {**result, "sent": sent}

    def send(self, archive: str, size: int) -> dict:
        """Send the archive unless it is small; return the argument by which the module finds it."""
        if size <= INLINE:
            with open(archive, "rb") as stream:
                return {"content": base64.b64encode(stream.read()).decode()}
        shell = self._connection._shell
        if not shell.tmpdir:
            self._make_tmp_path()
        remote = self._transfer_file(archive, shell.join_path(shell.tmpdir, "tree.tar"))
        self._fixup_perms2((shell.tmpdir, remote))
        return {"archive": remote}

    def module(self, args: dict, task_vars: dict) -> dict:
        """Return the result of one call of the module on the host."""
        return self._execute_module(module_name="iopaint.fleet.tree", module_args=args, task_vars=task_vars)
