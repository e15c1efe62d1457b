# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Files of an image that may be anybody's: nothing of it is run, and it decides nothing but a file's content."""

from __future__ import annotations

import contextlib
import io
import re
import tarfile

from ansible_collections.iopaint.fleet.plugins.module_utils.docker_cli import NO_RIGHTS

CHUNK = 2**20
PACKAGES = "/usr/share/iopaint-fleet/debian-packages.txt"  # in an image; a line PACKAGE=VERSION for each
PACKAGE = re.compile(r"([a-z0-9][a-z0-9+.:-]*)=([A-Za-z0-9.+:~-]+)")


class ImageFileError(Exception):
    """What is wrong with the file in the image."""


class UnreadableImageError(Exception):
    """Why the engine can't read the image, in its words."""


def copy(archive, most, stream):
    """Copy the only file of a tar archive; return its size."""
    try:
        with tarfile.open(fileobj=archive, mode="r|") as tar:
            member = tar.next()
            if member is None or not member.isreg():
                raise ImageFileError("it is no regular file there")
            if member.size > most:
                raise ImageFileError(f"it has {member.size} bytes, and {most} at most are copied")
            source = tar.extractfile(member)
            for piece in iter(lambda: source.read(CHUNK), b""):
                stream.write(piece)
            return member.size
    except (tarfile.TarError, EOFError) as error:
        raise ImageFileError("it is not there") from error


@contextlib.contextmanager
def archive(docker, image, path):
    """Yield the stream of a tar archive of a file of an image, out of a container that is never started."""
    rc, out, err = docker.run("create", *NO_RIGHTS, image, "none")
    if rc != 0:
        raise UnreadableImageError(err.strip())
    container = out.strip()
    try:
        with docker.start("cp", f"{container}:{path}", "-") as process:
            try:
                yield process.stdout
            finally:
                process.kill()  # what is left of the archive is of no interest
    finally:
        docker.run("rm", "--force", "--volumes", container)


def parse_packages(text):
    """Return the versions by package of a list as the images hold it; other lines are passed over."""
    return dict(found.groups() for found in map(PACKAGE.fullmatch, text.splitlines()) if found)


def debian_packages(docker, image):
    """Return the versions by package of the Debian packages in an image; none where it has no list of them."""
    content = io.BytesIO()
    try:
        with archive(docker, image, PACKAGES) as source:
            copy(source, CHUNK, content)
    except (ImageFileError, UnreadableImageError):
        return {}
    return parse_packages(content.getvalue().decode(errors="replace"))
