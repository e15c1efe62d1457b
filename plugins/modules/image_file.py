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

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.iopaint.fleet.plugins.module_utils import files, image_files
from ansible_collections.iopaint.fleet.plugins.module_utils.docker_cli import Docker

MODE = 0o644  # of the file on the host


def fetch(docker, params):
    """Copy the file out of the image; return its size."""
    folder, name = os.path.split(params["dest"])
    with (
        files.folder(folder, make=True) as place,
        files.replacing(place, name, MODE) as stream,
        image_files.archive(docker, params["image"], params["path"]) as source,
    ):
        return image_files.copy(source, params["max_size"], stream)


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
    try:
        size = fetch(Docker(module), params)
    except image_files.UnreadableImageError as error:
        module.fail_json(msg=f"The image {params['image']} can't be read: {error} Nothing was copied.")
    except (image_files.ImageFileError, OSError) as error:
        module.fail_json(
            msg=f"{params['path']} of the image {params['image']} could not be copied to {params['dest']}: {error}. "
            "Build the image with this collection. Nothing that runs was touched."
        )
    module.exit_json(changed=True, size=size)


if __name__ == "__main__":
    main()
