# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The releases of one instance on a host: a folder for each, with a record in it, and the link to the current one.

    <instance>/releases/0007-cpu-61a759fb3f33/{compose.yaml,.env,options.env,release.json}
    <instance>/current -> releases/0007-cpu-61a759fb3f33

Each write is one rename. Their order lets a play resume where another one was killed: a release is prepared (record and files),
switched to (the link), and then kept or failed (its outcome).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile

from ansible_collections.iopaint.fleet.plugins.module_utils import foreign, network
from ansible_collections.iopaint.fleet.plugins.module_utils.audit import now
from ansible_collections.iopaint.fleet.plugins.module_utils.files import make_folder, remove, write

SCHEMA = 1
RECORD = "release.json"
# Compose files that a release may have after compose.yaml, in their order.
OVERRIDES = ("unprivileged.yaml", "devices.yaml", "token.yaml")
PREPARED, CURRENT, PREVIOUS, FAILED, SUPERSEDED = "prepared", "current", "previous", "failed", "superseded"
TEXT = (str, type(None))
WORDS = ("time", "operator", "controller", "reason", "image", "image_id", "asked", "digest", "ref", "revision")
KINDS = {  # types of a record's values
    **dict.fromkeys(("id", "outcome"), str),
    **dict.fromkeys((*WORDS, "variant", "project", "url", "started", "replaces", "rolled_back_from", "memory"), TEXT),
    **dict.fromkeys(("environment", "proof"), (dict, type(None))),
    **dict.fromkeys(("devices", "packages"), (list, type(None))),
    "started_uptime": (int, float, type(None)),
}
SLOWER, NOTICEABLE = 3, 1.0  # times as long as before, and by how many seconds
OUTCOMES = (PREPARED, CURRENT, PREVIOUS, FAILED, SUPERSEDED)


def without_secrets(environment):
    """Return options with the values of secrets left out."""
    return {
        name: "***" if network.SECRET.search(name) else network.masked(str(value), [value]) for name, value in environment.items()
    }


def from_dotenv(text):
    """Return the variables of an env file as the collection writes them."""
    values = {}
    for line in text.splitlines():
        name, _equals, value = line.partition("=")
        if value[:1] == "'":
            values[name] = value[1:-1]
        elif value[:1] == '"':
            values[name] = re.sub(r'\\([\\"$])', r"\1", value[1:-1])
    return values


def number(release_id):
    """Return the counter that a release's name begins with; 0 for other names."""
    found = re.match(r"\d+", release_id)
    return int(found[0]) if found else 0


def fingerprint(files, image_id):
    """Return a digest of what a release is made of; files: content by name, as wanted, without the image's pinned name."""
    return hashlib.sha256(json.dumps([sorted(files.items()), image_id]).encode()).hexdigest()


def takes_place_of(record):
    """Return the ID of the release that a release replaces, None where there is none.

    After a rollback, that is the release that was rolled back from; otherwise the one that was current when it was made.
    """
    return record["rolled_back_from"] if "rolled_back_from" in record else record.get("replaces")


def slowdown(proof, before):
    """Return how a proof took much longer than the one of the release before, in words; None where it did not.

    A diffusion is judged by its steps. Proofs of pictures that differ in size are not compared, nor a diffusion with a model
    that has no steps.
    """
    if not proof or not before or _pixels(proof) != _pixels(before):
        return None
    key, unit, per = "seconds_per_step", "s for each step", 1
    if not _number(proof.get(key)) and not _number(before.get(key)):
        key, unit, per = "latency_ms", "s", 1000
    took, took_before = proof.get(key), before.get(key)
    if not (_number(took) and _number(took_before)):
        return None
    took, took_before = took / per, took_before / per
    if took < SLOWER * took_before or took - took_before < NOTICEABLE:
        return None
    return (
        f"{proof.get('model')} took {took:.1f} {unit}, {took / took_before:.1f} times as long as {before.get('model')} in the "
        f"release before ({took_before:.1f} {unit})"
    )


def _pixels(proof):
    pixels = proof.get("pixels")
    return pixels.get("total") if isinstance(pixels, dict) else None


def _number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0.001 <= value < 1e9


def wanted_port(settings):
    """Return the pair of address and port that the settings of a release publish, None where they publish none."""
    ports = [value for name, value in settings.items() if name in ("CPU_PORT", "GPU_PORT")]
    address = settings.get("BIND_ADDRESS")
    return (address, int(ports[0])) if address and ports and str(ports[0]).isdecimal() else None


def pin(content, variable, image):
    """Return the text of .env with the image's name as its first line."""
    return f"{variable}='{image}'\n{content}"


def unpin(content):
    """Return the text of .env without its first line, the image's name."""
    return content.partition("\n")[2]


def read(path):
    """Return a file's text."""
    return foreign.read_text(path)


class Releases:
    """The releases of one instance. Records that can't be read are in `damaged`, by release, with what is wrong with them."""

    def __init__(self, instances, name):
        """Read the records. instances: the folder that holds a folder for each instance."""
        self.name, self.folder = name, os.path.join(instances, name)
        self.home, self.link = os.path.join(self.folder, "releases"), os.path.join(self.folder, "current")
        self.records, self.damaged = {}, {}
        for release_id in sorted(self._folders(), key=lambda each: (number(each), each)):
            try:
                self.records[release_id] = self._read(release_id)
            except (OSError, ValueError) as error:
                self.damaged[release_id] = str(error)

    def _folders(self):
        try:
            return [name for name in os.listdir(self.home) if number(name) and os.path.isdir(self.path(name))]
        except FileNotFoundError:
            return []

    def _read(self, release_id):
        record = foreign.parse_json(read(self.path(release_id, RECORD)), dict)
        record["outcome"] = PREVIOUS if record.get("outcome") == "former" else record.get("outcome")  # its name before 1.0.0
        wrong = sorted(key for key, kinds in KINDS.items() if not isinstance(record.get(key), kinds))
        if wrong or record["id"] != release_id or record["outcome"] not in OUTCOMES:
            raise ValueError(f"no record of this release ({', '.join(wrong) or 'id or outcome'})")
        return record

    def path(self, release_id, *names):
        """Return a path in a release's folder."""
        return os.path.join(self.home, release_id, *names)

    @property
    def linked(self):
        """Return the release that the link names, None where there is no link or nothing behind it."""
        try:
            name = os.path.basename(os.readlink(self.link))
        except OSError:
            return None
        return name if os.path.isdir(self.path(name)) else None

    def proven(self):
        """Return the record of the release that was proven last and not replaced since, None where there is none."""
        current = [record for record in self.records.values() if record["outcome"] == CURRENT]
        linked = [record for record in current if record["id"] == self.linked]
        return (linked or current[-1:] or [None])[0]

    def prepared(self):
        """Return the record of the release that was prepared and is neither kept nor failed, None where there is none."""
        found = [record for record in self.records.values() if record["outcome"] == PREPARED]
        return found[-1] if found else None

    def displaced(self):
        """Return the record of the release that served until another instance took its port, None for any other instance."""
        found = [record for record in self.records.values() if record.get("displaced_by")]
        return found[-1] if found and not self.proven() else None

    def files(self, release_id):
        """Return the files of a release, content by name, without the image's pinned name."""
        folder = self.path(release_id)
        names = [name for name in os.listdir(folder) if name.endswith((".yaml", ".env"))]
        found = {name: read(os.path.join(folder, name)) for name in names}
        return {name: unpin(content) if name == ".env" else content for name, content in found.items()}

    def made_of(self, record, wanted):
        """Return whether a release on the host has this fingerprint; a file edited by hand changes it."""
        return fingerprint(self.files(record["id"]), record.get("image_id")) == wanted

    def complete(self, record):
        """Return whether a release still has its files."""
        return all(os.path.isfile(self.path(record["id"], name)) for name in ("compose.yaml", ".env", "options.env"))

    def targets(self):
        """Return the records that a rollback may go to, newest first: proven once, not current now, files still there."""
        proven = self.proven()
        return [
            record
            for record in reversed(list(self.records.values()))
            if record["outcome"] == PREVIOUS and record is not proven and self.complete(record)
        ]

    def earlier(self, usable):
        """Return the records of `usable` that came before the current release, in the order in which a rollback wants them.

        First come the releases that the current one replaced, one after the other; releases that were rolled back from are not
        among them. Then come the other older ones, newest first. Without a current release, all of them are returned.
        """
        proven = self.proven()
        if not proven:
            return usable
        replaced, record = [], proven
        while record and number(record.get("replaces") or "") and number(record["replaces"]) < number(record["id"]):
            replaced.append(record["replaces"])
            record = self.records.get(record["replaces"])
        older = [each for each in usable if number(each["id"]) < number(proven["id"])]
        return sorted(older, key=lambda each: replaced.index(each["id"]) if each["id"] in replaced else len(replaced))

    def next_id(self, image):
        """Return the ID of a new release: a counter, which doesn't depend on the clock, and the image's tag."""
        highest = max(map(number, [*self._folders(), "0"]))
        tag = image.rpartition("/")[2].partition("@")[0].rpartition(":")[2]
        label = re.sub(r"[^A-Za-z0-9_.-]+", "-", tag).strip("-.")
        return f"{highest + 1:04d}-{label[:24].strip('-.') or 'image'}"

    def add(self, record, files):
        """Make the folder of a new release in one step; files: (name, content, mode)."""
        make_folder(self.home)
        for name in os.listdir(self.home):
            if name.startswith(".new-"):  # of a play that was killed here
                remove(os.path.join(self.home, name))
        candidate = tempfile.mkdtemp(prefix=".new-", dir=self.home)
        os.chmod(candidate, 0o755)  # noqa: S103 - mkdtemp made it for root alone; options.env has a mode of its own
        for name, content, mode in files:
            write(os.path.join(candidate, name), content, mode)
        write(os.path.join(candidate, RECORD), text(record))
        os.rename(candidate, self.path(record["id"]))
        self.records[record["id"]] = record

    def save(self, record):
        """Write a record that was changed."""
        write(self.path(record["id"], RECORD), text(record))
        self.records[record["id"]] = record
        self.damaged.pop(record["id"], None)

    def end(self, record, outcome, reason=None):
        """Write a release's outcome."""
        record.update(outcome=outcome)
        if reason is not None:
            record["reason"] = reason
        self.save(record)

    def point(self, release_id):
        """Point the link to a release, in one step."""
        candidate = f"{self.link}.new"
        if os.path.lexists(candidate):
            os.unlink(candidate)
        os.symlink(os.path.join("releases", release_id), candidate)
        os.replace(candidate, self.link)

    def unlink(self):
        """Remove the link, so that no release is current."""
        if os.path.lexists(self.link):
            os.unlink(self.link)

    def strip(self, record):
        """Remove the files of a release that keeps no image; its record stays."""
        for name in sorted(os.listdir(self.path(record["id"]))):
            if name.endswith((".yaml", ".env")):
                os.unlink(self.path(record["id"], name))

    def to_run(self, record, new=False):
        """Return what is needed to run and prove a release. new: whether it is still to be switched to."""
        keys = ("variant", "project", "url", "image", "ref", "environment")
        settings = self.path(record["id"], ".env")
        overrides = [name for name in OVERRIDES if os.path.isfile(self.path(record["id"], name))]
        return {
            "name": self.name,
            "id": record["id"],
            "new": new,
            "before": takes_place_of(record) if new else record["id"],
            "path": self.link,
            "folder": self.path(record["id"]),
            "memory": record.get("memory"),
            "files": ["compose.yaml", *overrides],
            "settings": from_dotenv(read(settings)) if os.path.isfile(settings) else {},
            "unhealthy": False,
            "devices": record.get("devices") or [],
            "packages": [] if record.get("rolled_back_from") else record.get("packages") or [],
            "cpu_allowed": bool(record.get("cpu_allowed")),
            **{key: record.get(key) for key in keys},
        }

    def rebuild(self, release_id, image_of, running_id):
        """Rebuild a damaged record from the release's files, the engine and what runs; return the record.

        image_of: returns the engine's document of an image by name, or None. running_id: ID of the image that the instance runs.
        """
        why, folder = self.damaged[release_id], self.path(release_id)
        broken = os.path.join(folder, RECORD)
        if os.path.exists(broken):
            os.replace(broken, f"{broken}.damaged")
        record = {
            "schema": SCHEMA,
            "id": release_id,
            "time": now(os.path.getmtime(folder)),
            "operator": None,
            "controller": None,
            "reason": f"rebuilt from its files and from what runs, as its record could not be read ({why})",
        }
        try:
            settings = from_dotenv(read(os.path.join(folder, ".env")))
            environment = without_secrets(from_dotenv(read(os.path.join(folder, "options.env"))))
            (variable,) = [name for name in settings if name.endswith("_IMAGE")]
        except (OSError, ValueError):
            self.save({**record, "outcome": FAILED, "reason": f"its record and its files are damaged ({why})"})
            return self.records[release_id]
        variant = variable[: -len("_IMAGE")].lower()
        image = image_of(settings[variable]) or {}
        address, port = settings.get("BIND_ADDRESS", ""), settings.get(f"{variant.upper()}_PORT")
        record.update(
            described(settings[variable], image),
            variant=variant,
            environment=environment,
            project=settings.get("PROJECT"),
            url=f"http://{network.reached_at(address)}:{port}",
        )
        here = image.get("Id") or "gone"
        seen = (None, here) if self.linked == release_id else (here,)  # a stopped instance is identified by its link
        runs = self.linked in (release_id, None) and running_id in seen
        self.save({**record, "outcome": CURRENT if runs else PREVIOUS})
        return self.records[release_id]


def described(name, image):
    """Return the facts of an image for a record; image: the engine's document of it."""
    labels = (image.get("Config") or {}).get("Labels") or {}
    digests = image.get("RepoDigests") or []
    return {
        "image": name,
        "image_id": image.get("Id"),
        "digest": digests[0].partition("@")[2] if digests else None,
        "ref": labels.get("org.opencontainers.image.version"),
        "revision": labels.get("org.opencontainers.image.revision"),
    }


def text(record):
    """Return a record as the text of its file."""
    shown = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
    return shown.encode(errors="backslashreplace").decode()  # a reason may have a file name that is not UTF-8
