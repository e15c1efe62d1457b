# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A bundle: images, compose file and models in one archive, written and read as a stream.

    bundle.json          what is in it; first, so that it is read without the rest
    docker/compose.yaml
    models/PATH          as they lie below the model folder
    images/…             what `docker save` writes, member by member
    SHA256SUMS           of all of these, as sha256sum writes it; last, so that an archive that was cut off lacks it

Names, order and content are the same each time; owners and times are left out.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import posixpath
import re
import subprocess
import tarfile
from typing import NamedTuple

from ansible_collections.iopaint.fleet.plugins.module_utils import foreign
from ansible_collections.iopaint.fleet.plugins.module_utils.checksums import has_checksum

SCHEMA = 1
MANIFEST, SUMS, IMAGES, MODELS, COMPOSE = "bundle.json", "SHA256SUMS", "images/", "models/", "docker/compose.yaml"
SAVED = f"{IMAGES}manifest.json"
MOST_TEXT = 16 * 2**20  # of members that are read whole
CHUNK = 2**20
# What `docker load` is given of an image. A tar with other files, such as index.json, could name images that nobody asked for.
PARTS = re.compile(r"blobs/sha256/[0-9a-f]{64}|[0-9a-f]{64}[.]json|[^/]+/layer[.]tar")
COMPRESSIONS = {"zstd": (b"\x28\xb5\x2f\xfd", ["-q", "-3", "-T2"]), "gzip": (b"\x1f\x8b", ["-n", "-1"])}
ALGORITHMS = ("md5", "sha1", "sha224", "sha256", "sha384", "sha512")
SUFFIXES = {"zstd": "zst", "gzip": "gz"}


class BundleError(Exception):
    """What is wrong with an archive, for the person who has to do something about it."""


def chunks(stream, size):
    """Return the next `size` bytes of a stream in pieces; raise BundleError where it ends before."""
    left = size
    while left:
        piece = stream.read(min(left, CHUNK))
        if not piece:
            raise BundleError("it ends in the middle of a file")
        left -= len(piece)
        yield piece


def listed(sums):
    """Return the checksums, by name, as sha256sum writes them."""
    return "".join(f"{digest}  {name}\n" for name, digest in sums.items())


class Hashed:
    """A stream whose pieces go into a digest as they are read."""

    def __init__(self, stream, digest):
        """Take both."""
        self.stream, self.digest = stream, digest

    def read(self, length):
        """Return the next piece."""
        piece = self.stream.read(length)
        self.digest.update(piece)
        return piece


class Writer:
    """Adds members to an archive and keeps their checksums."""

    def __init__(self, stream, manifest):
        """Begin an archive on a stream with its manifest."""
        self.tar = tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT)  # noqa: SIM115
        self.sums, self.links = {}, {}
        self.text(MANIFEST, json.dumps(manifest, indent=2, sort_keys=True) + "\n")

    def add(self, name, size, stream):
        """Add `size` bytes of a stream as a member."""
        digest = hashlib.sha256()

        member = tarfile.TarInfo(name)
        member.size, member.mode = size, 0o644
        try:
            self.tar.addfile(member, Hashed(stream, digest))
        except OSError as error:
            if isinstance(error, BrokenPipeError):
                raise
            raise BundleError(f"{name}: {error}") from error
        self.sums[name] = digest.hexdigest()

    def text(self, name, content):
        """Add a text as a member."""
        data = content.encode()
        self.add(name, len(data), io.BytesIO(data))

    def images(self, stream):
        """Add what `docker save` writes to a stream."""
        with tarfile.open(fileobj=stream, mode="r|") as saved:
            for member in saved:
                name = IMAGES + posixpath.normpath(member.name)
                if member.isreg():
                    self.add(name, member.size, saved.extractfile(member))
                elif member.issym():
                    link = tarfile.TarInfo(name)
                    link.type, link.linkname = tarfile.SYMTYPE, member.linkname
                    self.tar.addfile(link)
                    self.links[name] = target(name, member.linkname)

    def __enter__(self):
        """Return the writer."""
        return self

    def __exit__(self, kind, _error, _trace):
        """Add the checksums and end the archive; after an error nothing more is written."""
        if kind:
            self.tar.fileobj.closed = True
            return
        self.sums.update({name: self.sums[file] for name, file in self.links.items()})
        self.text(SUMS, listed(self.sums))
        self.tar.close()


def target(name, link):
    """Return the member that a symbolic link names."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(name), link))


@contextlib.contextmanager
def compressed(path, compression, program):
    """Return the stream that writes a compressed file; raise BundleError where the program fails."""
    with (
        open(path, "wb") as file,
        subprocess.Popen(  # pylint: disable=ansible-bad-function # gigabytes stream by
            [program, *COMPRESSIONS[compression][1], "-c"], stdin=subprocess.PIPE, stdout=file, stderr=subprocess.PIPE
        ) as process,
    ):
        try:
            yield process.stdin
            process.stdin.close()
        except BrokenPipeError:
            pass  # it says why
        error = process.stderr.read().decode(errors="replace").strip()
        if process.wait() != 0:
            raise BundleError(f"{compression} failed: {error}")


def compression_of(path):
    """Return the compression of an archive by its first bytes; raise BundleError where it is none of ours."""
    try:
        if os.path.exists(path) and not os.path.isfile(path):  # a FIFO would be waited for
            raise BundleError("it is not a regular file")
        with open(path, "rb") as file:
            start = file.read(4)
    except OSError as error:
        raise BundleError(f"it can't be read: {error.strerror}") from error
    for name, (magic, _options) in COMPRESSIONS.items():
        if start.startswith(magic):
            return name
    raise BundleError(f"it is no bundle: its first bytes ({start.hex() or 'none'}) are those of neither zstd nor gzip")


def compare(path, checksum, name):
    """Raise BundleError unless an archive has a checksum, written as ALGORITHM:HEX; an empty one is not compared.

    name: what the user knows the checksum by.
    """
    if not checksum:
        return
    try:
        with open(path, "rb") as file:
            right = has_checksum(file, checksum)
    except OSError as error:
        raise BundleError(f"it can't be read: {error.strerror}") from error
    except ValueError as error:
        raise BundleError(f"{name} is {checksum!r}, and has to be like sha256:0123…") from error
    if not right:
        raise BundleError(f"it has not the checksum {checksum} ({name})")


@contextlib.contextmanager
def members(path, find):
    """Return the members of an archive one after the other, as (TarInfo, stream); raise BundleError on what is wrong with it.

    find: gives the path of a program, or None.
    """
    compression = compression_of(path)
    program = find(compression)
    if not program:
        raise BundleError(
            f"it is compressed with {compression}, which this machine has not. Install {compression} here, or make the bundle "
            "anew with another compression"
        )
    command = [program, "-dcq", path]
    with subprocess.Popen(  # pylint: disable=ansible-bad-function # gigabytes stream by
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        try:
            with tarfile.open(fileobj=process.stdout, mode="r|") as tar:
                yield each(tar, process, compression)
        except (tarfile.TarError, EOFError, OSError, ValueError, OverflowError, MemoryError) as error:  # of damaged headers
            raise BundleError(f"it can't be read to its end ({error})") from error
        finally:
            process.kill()  # whoever has what was looked for does not read on


def each(tar, process, compression):
    """Return each member and its stream; past the last one, see that the archive ends where its compression does."""
    for member in tar:
        yield member, tar.extractfile(member) if member.isreg() else None
    while process.stdout.read(CHUNK):
        pass
    if process.wait() != 0:
        raise BundleError(f"it can't be read to its end ({compression} ends with {process.returncode})")


def document(member, stream):
    """Return the bytes of a small member."""
    if stream is None or member.size > MOST_TEXT:
        raise BundleError(f"{member.name} is no text of a bundle")
    return b"".join(chunks(stream, member.size))


def parsed(name, text):
    """Return the JSON value of a member's bytes; raise BundleError where it is none."""
    try:
        return foreign.parse_json(foreign.decode(text))
    except foreign.ForeignError as error:
        raise BundleError(f"{name} is damaged ({error})") from error


def check(entries, fields, where):
    """Raise BundleError unless these entries are a list of objects that have the fields, each of its kind.

    fields: a type, or [type] for a list of such, by name.
    """
    if not isinstance(entries, list):
        raise BundleError(f"{where} is no list")
    for index, entry in enumerate(entries):
        for name, kind in fields.items():
            value = entry.get(name) if isinstance(entry, dict) else None
            items = value if isinstance(kind, list) else [value]
            wanted = kind[0] if isinstance(kind, list) else kind
            sound = isinstance(items, list) and all(isinstance(item, wanted) and not isinstance(item, bool) for item in items)
            if not sound or (wanted is int and any(item < 0 for item in items)):
                raise BundleError(f"{where}[{index}] has no {name} of the right kind")


def check_manifest(images, models):
    """Raise BundleError unless these are the images and models of a manifest."""
    check(images, {"variant": str, "image": str, "ref": str, "id": str, "size": int, "tags": [str]}, f"images in its {MANIFEST}")
    check_models(models, f"models in its {MANIFEST}")


def check_models(models, where):
    """Raise BundleError unless these are models, whose paths can be files and whose checksums can be computed."""
    check(models, {"name": str, "path": str, "checksum": str}, where)
    for index, model in enumerate(models):
        if not model["path"].isprintable() or model["checksum"].partition(":")[0] not in ALGORITHMS:
            raise BundleError(f"{where}[{index}] has a path or a checksum that can't be one")


def checked_list(saved):
    """Return docker's own list of the images; raise BundleError where it is none."""
    check(saved, {"Config": str, "Layers": [str]}, SAVED)
    for image in saved:
        check([{"RepoTags": image.get("RepoTags") or []}], {"RepoTags": [str]}, SAVED)
    return saved


def manifest_in(name, text):
    """Return the manifest, which has to be the first member."""
    if name != MANIFEST:
        raise BundleError(f"it is no bundle: it begins with {name} and not with {MANIFEST}")
    manifest = parsed(MANIFEST, text)
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
        raise BundleError(f"its {MANIFEST} is not of the form that this version of the collection reads; make it anew")
    check_manifest(manifest.get("images"), manifest.get("models"))
    return manifest


def manifest_of(path, find):
    """Return the manifest of an archive: what should follow, not yet compared with its checksum."""
    with members(path, find) as found:
        for member, stream in found:
            return manifest_in(member.name, document(member, stream))
    raise BundleError("it holds nothing")


def foreign_names(images):
    """Return the names of images in a manifest that a build of this collection does not give."""
    names = [(name, image["variant"]) for image in images for name in [image["image"], *image["tags"]]]
    return sorted(name for name, variant in names if not re.fullmatch(rf"iopaint:{re.escape(variant)}-[A-Za-z0-9_.-]+", name))


class Verified(NamedTuple):
    """An archive whose checksums are right."""

    manifest: dict
    saved: list  # docker's list of the images
    links: dict  # of symbolic links, the member that each names


def verify(path, find):
    """Read an archive to its end and compare every checksum; raise BundleError at the first that is wrong."""
    sums, links, texts = {}, {}, {}
    with members(path, find) as found:
        for member, stream in found:
            if member.issym():
                links[member.name] = target(member.name, member.linkname)
            elif member.name in (MANIFEST, SUMS, SAVED):
                texts[member.name] = document(member, stream)
                sums[member.name] = hashlib.sha256(texts[member.name]).hexdigest()
            elif stream:
                digest = hashlib.sha256()
                for piece in chunks(stream, member.size):
                    digest.update(piece)
                sums[member.name] = digest.hexdigest()
    if sums.pop(SUMS, None) is None:
        raise BundleError(f"its end is missing ({SUMS}, the last file in it)")
    wanted = {line[66:]: line[:64] for line in texts[SUMS].decode(errors="replace").splitlines()}
    sums.update({name: sums.get(file) for name, file in links.items()})
    for name in dict.fromkeys([*wanted, *sums]):
        if name not in sums:
            raise BundleError(f"{name} is missing")
        if sums[name] != wanted.get(name):
            raise BundleError(f"{name} has the checksum {sums[name]}, and {SUMS} says {wanted.get(name, 'nothing of it')}")
    first = next(iter(texts))
    manifest = manifest_in(first, texts[first])
    return Verified(manifest, checked_list(parsed(SAVED, texts[SAVED])) if SAVED in texts else [], links)


def copy_images(path, find, verified, names, out):
    """Write the images of these names as `docker load` reads them; the rest of the archive is passed over."""
    chosen = []
    for image in verified.saved:
        tags = [tag for tag in image.get("RepoTags") or [] if tag in names]
        if tags:
            chosen.append({**image, "RepoTags": tags})
    needed = {IMAGES + posixpath.normpath(file) for image in chosen for file in [image["Config"], *image["Layers"]]}
    needed |= {verified.links[name] for name in needed & set(verified.links)}
    strange = sorted(name for name in needed if not PARTS.fullmatch(name[len(IMAGES) :]))
    if strange:
        raise BundleError(f"{', '.join(strange)} is no part of an image")
    with members(path, find) as found, tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        text = json.dumps(chosen).encode()
        head = tarfile.TarInfo("manifest.json")
        head.size, head.mode = len(text), 0o644
        tar.addfile(head, io.BytesIO(text))
        for member, stream in found:
            if member.name in needed:
                member.name = member.name[len(IMAGES) :]
                tar.addfile(member, stream)
