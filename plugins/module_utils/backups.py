# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Where the backups of a host are kept: a folder, or a folder of another host by ssh or by an rsync daemon.

    <target>/<host>/20261124T031500Z/{models/,outputs/<instance>/,manifest.json}

All of it goes through rsync, so that a daemon, which can do nothing else, will do. A backup begins with the file `unfinished`
and ends with the manifest, which takes its place: one that was killed on its way is told from one that lost its manifest.
"""

from __future__ import annotations

import calendar
import contextlib
import fcntl
import os
import re
import shlex
import tempfile
import time

from ansible_collections.iopaint.fleet.plugins.module_utils import audit, manifest

UNFINISHED = "unfinished"
ID = re.compile(r"\d{8}T\d{6}Z")
FORM = "%Y%m%dT%H%M%SZ"
GONE, VANISHED = "No such file or directory", 24
LISTED = re.compile(r"[-dlcbps]\S{9}\s+[\d,.]+\s+\S+\s+\S+\s(.*)")
FOLDER, SSH, DAEMON = "folder", "ssh", "daemon"
ROOM = "There is no room left in {target} (iopaint_backup_target). Free some, or lower iopaint_backup_keep."
# What the modules for backups have in common; documented in plugins/doc_fragments/backups.py.
OPTIONS = {
    "data": {"type": "path", "required": True},
    "include": {"type": "list", "elements": "str", "choices": list(manifest.KINDS), "default": list(manifest.KINDS)},
    "instances": {"type": "list", "elements": "str", "default": []},
    "target": {"type": "str", "required": True},
    "host": {"type": "str", "required": True},
    "shell": {"type": "str", "default": "ssh -o BatchMode=yes"},
    "password": {"type": "str", "default": "", "no_log": True},
    "options": {"type": "list", "elements": "str", "default": []},
    "owner": {"type": "dict", "default": {}},
    "audit": {"type": "path", "default": audit.LOG},
}
IDLE = 1800  # seconds without a byte, after which the other end is given up; it may read big files for long


class BackupError(Exception):
    """What went wrong with the target, for the person who reads it."""


@contextlib.contextmanager
def alone(data):
    """Hold the data folder: the lock of a play whose control node was lost is taken over while its module may still run."""
    if not os.path.isdir(data):
        yield
        return
    descriptor = os.open(data, os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BackupError(f"In {data} a backup or restore of an earlier play is still at work. Let it end first.") from error
        yield
    finally:
        os.close(descriptor)


def way_of(target):
    """Return how a target is reached; raise BackupError where it is none."""
    if target.startswith("rsync://") or "::" in target.partition("/")[0]:
        return DAEMON
    if target.startswith("/"):
        return FOLDER
    if ":" in target.partition("/")[0] and "://" not in target:
        return SSH
    raise BackupError(
        f"iopaint_backup_target is '{target}'. Accepted: a folder of the host (/mnt/backups), another host by ssh "
        "(user@host:/folder), or an rsync daemon (rsync://user@host/module/folder)."
    )


def next_id(known):
    """Return the name of a new backup, the time; it comes after all that are known, whatever the clock says."""
    name = time.strftime(FORM, time.gmtime())
    newest = max(known, default="")
    if name <= newest:
        name = time.strftime(FORM, time.gmtime(calendar.timegm(time.strptime(newest, FORM)) + 1))
    return name


def literal(path):
    """Return a path as a pattern of rsync's that matches just it."""
    return re.sub(r"([\\*?\[])", r"\\\1", path) if re.search(r"[*?\[]", path) else path


def free_above(path):
    """Return the bytes that are free where a path is, or will be made."""
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize


class Store:
    """The backups of one host."""

    def __init__(self, module):
        """Take the AnsibleModule that runs; its options target, host, shell, password and options say where and how."""
        self.module, params = module, module.params
        self.host, self.way, self.target = params["host"], way_of(params["target"]), params["target"].rstrip("/")
        self.shell, self.options, self.password = params["shell"], params["options"], params["password"]
        self.rsync = module.get_bin_path("rsync", required=True)
        self.shown = f"{self.target}/{self.host}"

    def at(self, *names):
        """Return a place below the host's folder as rsync takes it."""
        return "/".join([self.target, self.host, *filter(None, names)])

    def run(self, *arguments, data=None, right=(0,), full=ROOM):
        """Run rsync; return (rc, stdout, stderr), and raise BackupError unless rc is among those that are right."""
        shell = ["--rsh", self.shell] if self.way == SSH else []
        command = [self.rsync, "-s", f"--timeout={IDLE}", *shell, *self.options, *arguments]
        environment = {"LC_ALL": "C.UTF-8", **({"RSYNC_PASSWORD": self.password} if self.way == DAEMON else {})}
        rc, out, err = self.module.run_command(command, data=data, binary_data=True, environ_update=environment)
        if rc not in right:
            raise BackupError(self.explain(rc, err, full))
        return rc, out, err

    def explain(self, rc, err, full=ROOM):
        """Say what rsync's failure means; full: what a full disk means."""
        said = " ".join(" ".join(line.split()) for line in err.splitlines() if line.strip())[-600:]
        if "No space left" in err or "Disk quota exceeded" in err:
            return f"{full.format(target=self.target)} rsync: {said}"
        if rc in (5, 10, 12, 30, 35, 255):
            hint = {
                FOLDER: "",
                SSH: " Root of this host has to reach it without a password (iopaint_backup_ssh is the command).",
                DAEMON: " iopaint_backup_password is the password of the user that the target names.",
            }[self.way]
            return f"The target {self.target} (iopaint_backup_target) could not be reached.{hint} rsync: {said}"
        return f"rsync failed with {self.target} (iopaint_backup_target), status {rc}: {said}"

    # --- what there is ------------------------------------------------------------------------------------------------

    def listed(self, place, *filters):
        """Return the paths that a place holds, none where it is not there."""
        rc, out, err = self.run("--recursive", "--list-only", *filters, "--exclude=*", place, right=(0, 23))
        if rc and GONE not in err:
            raise BackupError(self.explain(rc, err))
        found = (LISTED.fullmatch(line) for line in out.splitlines())
        return [match[1] for match in found if match and match[1] != "."]

    def backups(self):
        """Return the host's backups, oldest first: id, trees, complete, unfinished."""
        names = (f"/*/{manifest.NAME}", f"/*/{UNFINISHED}", "/*/models/", "/*/outputs/", "/*/outputs/*/", "/*/")
        paths = self.listed(f"{self.at()}/", *(f"--include={name}" for name in names))
        found = []
        for name in sorted({path.partition("/")[0] for path in paths}):
            inside = [path.partition("/")[2] for path in paths if path.startswith(f"{name}/")]
            if ID.fullmatch(name):
                complete = manifest.NAME in inside
                trees = sorted(path for path in inside if manifest.TREE.fullmatch(path))
                found.append(
                    {"id": name, "trees": trees, "complete": complete, "unfinished": UNFINISHED in inside and not complete}
                )
        return found

    def hosts(self):
        """Return the names of the hosts that have backups in the target."""
        return sorted(self.listed(f"{self.target}/", "--include=/*/"))

    def manifest(self, name):
        """Return the manifest of a backup; raise manifest.DamagedError where it is not right."""
        with tempfile.TemporaryDirectory(dir=self.module.tmpdir) as folder:
            self.run(self.at(name, manifest.NAME), f"{folder}/")
            try:
                with open(os.path.join(folder, manifest.NAME), encoding="utf-8", newline="") as stream:
                    document = manifest.load(stream.read())
            except (UnicodeDecodeError, KeyError, TypeError) as error:
                raise manifest.DamagedError(f"its {manifest.NAME} can't be read: {error}") from error
        if document.get("id") != name:
            raise manifest.DamagedError(f"its {manifest.NAME} is that of {document.get('id')}")
        return document

    def free(self, place):
        """Return the bytes that are free for the backups, None where that can't be asked."""
        if self.way == FOLDER:
            return free_above(place)
        if self.way == DAEMON:
            return None
        host, _colon, path = self.target.partition(":")
        command = [*shlex.split(self.shell), host, f"df -Pk {shlex.quote(path)} || df -Pk {shlex.quote(os.path.dirname(path))}"]
        rc, out, _err = self.module.run_command(command)
        fields = out.splitlines()[-1].split() if rc == 0 and out.strip() else []
        return int(fields[3]) * 1024 if len(fields) >= 6 and fields[3].isdigit() else None

    # --- changes ------------------------------------------------------------------------------------------------------

    def change(self, name, files=None, gone=()):
        """Write small files (text by name) into a backup, or into the host's folder (name ''), and remove what is to be gone."""
        with tempfile.TemporaryDirectory(dir=self.module.tmpdir) as folder:
            filters = []
            for path in [*(files or {}), *gone]:
                parts = path.split("/")
                for length in range(1, len(parts)):
                    os.makedirs(os.path.join(folder, *parts[:length]), exist_ok=True)
                    filters.append(f"--include=/{literal('/'.join(parts[:length]))}/")
                filters += [f"--include=/{literal(path)}", f"--include=/{literal(path)}/***"]
            for path, text in (files or {}).items():
                with open(os.path.join(folder, path), "w", encoding="utf-8", newline="") as stream:
                    stream.write(text)
            self.run("--recursive", "--mkpath", "--delete-after", *filters, "--exclude=*", f"{folder}/", f"{self.at(name)}/")

    def send(self, name, root, paths, former, again):
        """Copy the paths below root into a backup; what is as one of the former backups has it becomes a link to that."""
        links = [] if again else [f"--link-dest=../{each}" for each in former]
        self.run(
            "--archive",
            "--fsync",  # the manifest, and a restore's rename, are to come after the files on the disk as well
            "--numeric-ids",
            "--modify-window=-1",  # to the nanosecond
            "--ignore-missing-args",
            *(["--ignore-times"] if again else []),
            *links,
            "--from0",
            "--files-from=-",
            f"{root}/",
            f"{self.at(name)}/",
            data=b"".join(os.fsencode(path) + b"\0" for path in paths),
            right=(0, VANISHED),
        )

    def fetch(self, name, tree, paths, folder, *, same, owner):
        """Copy paths of a tree of a backup into a folder; what has the same content in the folder `same` becomes a link to it."""
        self.run(
            "--archive",
            "--fsync",
            "--checksum",
            "--modify-window=-1",
            "--no-implied-dirs",
            f"--chown={owner}:{owner}",
            *([f"--link-dest={same}"] if same else []),
            "--from0",
            "--files-from=-",
            f"{self.at(name, tree)}/",
            f"{folder}/",
            data=b"".join(os.fsencode(path) + b"\0" for path in paths),
            right=(0, 23, VANISHED),  # what is missing is found by the manifest
            full=f"There is no room left in {folder} (iopaint_data_dir).",
        )
