#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: what is in a bundle, read from its beginning."""

from __future__ import annotations

DOCUMENTATION = r"""
module: bundle_info
short_description: Return what is in a bundle, and fail where a wanted variant is missing
version_added: 1.0.0
description:
  - Reads only the beginning of the archive; the module M(iopaint.fleet.bundle_load) compares the checksums of the whole before
    it loads anything.
  - An archive whose images have names that no build of this collection gives is refused, so that it replaces no other image.
  - Runs on the control node (C(delegate_to=localhost)).
options:
  path:
    description: The archive.
    type: path
    required: true
  variants:
    description: Variants that have to be in it.
    type: list
    elements: str
    default: []
  checksum:
    description: Checksum of the archive, as V(sha256:…), which is compared before anything of it is read; empty for none.
    type: str
    default: ""
extends_documentation_fragment: iopaint.fleet.names
attributes:
  check_mode:
    support: full
    description: Changes nothing.
requirements: [zstd or gzip, as the archive is compressed]
author: iopaint.fleet contributors (@iopaint)
"""

EXAMPLES = r"""
- name: Check that the bundle holds the CPU image
  iopaint.fleet.bundle_info:
    path: /srv/iopaint-bundle.tar.zst
    variants: [cpu]
  delegate_to: localhost
"""

RETURN = r"""
images:
  description: The images of the wanted variants, each with C(variant), C(image), C(id), C(size), C(tags), C(revision), C(recipe).
  type: list
  elements: dict
  returned: success
models:
  description: The models, each with C(name), C(path), C(checksum) and C(size).
  type: list
  elements: dict
  returned: success
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.iopaint.fleet.plugins.module_utils import bundle
from ansible_collections.iopaint.fleet.plugins.module_utils.names import named


def main():
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "variants": {"type": "list", "elements": "str", "default": []},
            "checksum": {"type": "str", "default": ""},
            "names": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    path, wanted = module.params["path"], module.params["variants"]
    shown = f"The bundle {path} ({named(module, 'path')})"
    try:
        bundle.compare(path, module.params["checksum"], named(module, "checksum"))
        manifest = bundle.manifest_of(path, module.get_bin_path)
    except bundle.BundleError as error:
        module.fail_json(msg=f"{shown} can't be used: {error}. Name one that iopaint.fleet.bundle made. Nothing was changed.")
    foreign = bundle.foreign_names(manifest["images"])
    if foreign:
        module.fail_json(
            msg=f"{shown} has images that are not of this collection: {', '.join(foreign)}. "
            "Name one that iopaint.fleet.bundle made. Nothing was changed."
        )
    absent = sorted(set(wanted) - {image["variant"] for image in manifest["images"]})
    if absent:
        there = ", ".join(f"{image['variant']} ({image['image']})" for image in manifest["images"]) or "none"
        module.fail_json(
            msg=f"{shown} holds no image for {', '.join(absent)}. It holds: {there}. Make one "
            f"with {named(module, 'variants')}: [{', '.join(sorted(set(wanted)))}] by iopaint.fleet.bundle. Nothing was changed."
        )
    images = [image for image in manifest["images"] if image["variant"] in wanted]
    module.exit_json(changed=False, images=images, models=manifest["models"])


if __name__ == "__main__":
    main()
