# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the stand-in's `docker save` writes and its `docker load` reads: the engine's form, with layers that images share."""

import hashlib
import io
import json
import sys
import tarfile


def add(tar, name, data):
    """Add a member."""
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def blob(data):
    """The place of a blob."""
    return "blobs/sha256/" + hashlib.sha256(data).hexdigest()


def save(images, names):
    """Write the images to standard output."""
    found = {}
    for name in names:
        found.setdefault(images[name]["Id"], []).append(name)
    blobs, listed = {}, []
    for number, (key, tags) in enumerate(found.items()):
        config, own, shared = (json.dumps({"Id": key, **images[tags[0]]}).encode(), key.encode() * 1000, b"shared" * 1000)
        blobs.update({blob(data): data for data in (config, own, shared)})
        # as engines before 25 do, a layer that was written before is a link
        link = f"link-{number}/layer.tar"
        listed.append({"Config": blob(config), "RepoTags": tags, "Layers": [link, blob(own)]})
        blobs[link] = "../" + blob(shared)
    with tarfile.open(fileobj=sys.stdout.buffer, mode="w|") as tar:
        for name, data in sorted(blobs.items()):
            if isinstance(data, str):
                member = tarfile.TarInfo(name)
                member.type, member.linkname = tarfile.SYMTYPE, data
                tar.addfile(member)
            else:
                add(tar, name, data)
        add(tar, "manifest.json", json.dumps(listed).encode())


def load():
    """Read images from standard input, every file of theirs, and give them by name."""
    files = {}
    with tarfile.open(fileobj=sys.stdin.buffer, mode="r|") as tar:
        for member in tar:
            files[member.name] = member.linkname if member.issym() else tar.extractfile(member).read()
    images = {}
    for image in json.loads(files.pop("manifest.json")):
        config = json.loads(files[image["Config"]])
        for name in image["Layers"]:
            content = files[name]
            if isinstance(content, str):
                content = files[content[3:]]
            assert content
        images.update({tag: {"Id": config["Id"], "Size": config["Size"]} for tag in image["RepoTags"]})
    used = len(files)
    return {**images, "files-read": {"Id": str(used), "Size": used}}
