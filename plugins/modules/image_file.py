#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: a file of an image on the host, without anything of the image being run."""

from __future__ import annotations

DOCUMENTATION = r"""
module: image_file
short_description: Copy a file out of an image without running the image
version_added: 1.0.0
description:
  - Makes a container that is never started, and reads the file from it as C(docker cp) does. No other module does so.
  - The image decides nothing but the file's content. A link, a folder or a device in its place fails the module, and so does a
    file larger than O(max_size). The file on the host belongs to the user of the task, and everybody may read it.
options:
  image:
    description: Name of the image.
    type: str
    required: true
  path:
    description: The file in the image.
    type: path
    required: true
  dest:
    description: The file on the host. One that is there is left as it is.
    type: path
    required: true
  max_size:
    description: Maximum size in bytes.
    type: int
    default: 16777216
attributes:
  check_mode:
    support: full
    description: Reports whether the file would be copied.
requirements: [docker]
author: iopaint.fleet contributors (@iopaint)
"""

EXAMPLES = r"""
- name: Copy the photograph of the proof out of the image
  iopaint.fleet.image_file:
    image: iopaint:cpu-latest
    path: /usr/share/iopaint-fleet/photo.png
    dest: /opt/iopaint/instances/photo.png
"""

RETURN = r"""
size:
  description: Bytes that were copied.
  type: int
  returned: when the file was copied
"""

import os
import subprocess
import tarfile

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.iopaint.fleet.plugins.module_utils import files
from ansible_collections.iopaint.fleet.plugins.module_utils.docker_cli import NO_RIGHTS, Docker

CHUNK = 2**20
MODE = 0o644  # of the file on the host


class ImageFileError(Exception):
    """What is wrong with the file in the image."""


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


def fetch(docker, container, params):
    """Copy the file out of a container; return its size."""
    folder, name = os.path.split(params["dest"])
    command = [docker.path, "cp", f"{container}:{params['path']}", "-"]
    with (
        files.folder(folder, make=True) as place,
        files.replacing(place, name, MODE) as stream,
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process,
    ):
        try:
            return copy(process.stdout, params["max_size"], stream)
        finally:
            process.kill()  # what is left of the archive is of no interest


def main():
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "image": {"type": "str", "required": True},
            "path": {"type": "path", "required": True},
            "dest": {"type": "path", "required": True},
            "max_size": {"type": "int", "default": 16 * 2**20},
        },
        supports_check_mode=True,
    )
    params = module.params
    if os.path.lexists(params["dest"]):
        module.exit_json(changed=False)
    if module.check_mode:
        module.exit_json(changed=True)
    docker = Docker(module)
    rc, out, err = docker.run("create", *NO_RIGHTS, params["image"], "none")
    if rc != 0:
        module.fail_json(msg=f"The image {params['image']} can't be read: {err.strip()} Nothing was copied.")
    container = out.strip()
    try:
        size = fetch(docker, container, params)
    except (ImageFileError, OSError) as error:
        module.fail_json(
            msg=f"{params['path']} of the image {params['image']} could not be copied to {params['dest']}: {error}. "
            "Build the image with this collection. Nothing that runs was touched."
        )
    finally:
        docker.run("rm", "--force", "--volumes", container)
    module.exit_json(changed=True, size=size)


if __name__ == "__main__":
    main()
