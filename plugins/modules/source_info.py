#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: is this folder an IOPaint source tree, and what is in it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: source_info
short_description: Check that a folder is an IOPaint source tree, and return its digest
version_added: 1.0.0
description:
  - Fails where C(iopaint/cli.py) or the front end is missing, or where files are pointers of Git LFS, before anything is built.
  - Computes a digest of the files that an image is made of, uncommitted edits included.
options:
  path:
    description: The folder that holds C(iopaint/) and C(web_app/).
    type: path
    required: true
extends_documentation_fragment: iopaint.fleet.names
attributes:
  check_mode:
    support: full
    description: Changes nothing.
author: iopaint.fleet contributors (@iopaint)
"""

EXAMPLES = r"""
- name: Look at the source
  iopaint.fleet.source_info:
    path: /opt/iopaint/build/source
  register: source
"""

RETURN = r"""
digest:
  description:
    - SHA-256 over C(requirements.txt) and C(.dockerignore), and over names, execute bits and contents of all files below
      C(iopaint/) and C(web_app/).
  type: str
  returned: success
  sample: 1f0c6d3b9f
epoch:
  description: Time of the commit in seconds since 1970, 0 where the folder is no git checkout.
  type: int
  returned: success
  sample: 1754000000
frontend:
  description: V(build) where C(web_app/package.json) is there, V(shipped) where only a built C(web_app/dist) is.
  type: str
  returned: success
  sample: build
"""

import hashlib
import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.iopaint.fleet.plugins.module_utils.names import named
from ansible_collections.iopaint.fleet.plugins.module_utils.source import files, pointers

ALONE = ("requirements.txt", ".dockerignore")  # files outside the folders that decide what an image is built from


def tree_digest(root, folders):
    """Return the SHA-256 (hex) of what an image is made from, by path, execute bit and content."""
    digest = hashlib.sha256()

    def content(path):
        with open(path, "rb") as stream:
            return hashlib.sha256(stream.read()).digest()

    for name in ALONE:
        path = os.path.join(root, name)
        if os.path.isfile(path):
            digest.update(f"{name}\0".encode() + content(path))
    for name in files(root, folders):
        path = os.path.join(root, name)
        digest.update(os.fsencode(name) + f"\0{os.access(path, os.X_OK)}\0".encode())
        digest.update(os.fsencode(os.readlink(path)) if os.path.islink(path) else content(path))
    return digest.hexdigest()


def commit_time(module, path):
    """Return the time of the checked-out commit, 0 where there is none."""
    if not os.path.exists(os.path.join(path, ".git")):
        return 0
    _rc, out, _err = module.run_command(["git", "-C", path, "log", "-1", "--format=%ct"], check_rc=True)
    return int(out)


def main():
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "names": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    path = module.params["path"]

    def there(name):
        return os.path.isfile(os.path.join(path, name))

    missing = [] if there("iopaint/cli.py") else ["iopaint/cli.py"]
    frontend = "build" if there("web_app/package.json") else "shipped"
    if frontend == "build" and not there("web_app/package-lock.json"):
        missing.append("web_app/package-lock.json (npm ci needs it)")
    if frontend == "shipped" and not there("web_app/dist/index.html"):
        missing.append("web_app/package.json")
    if missing:
        module.fail_json(
            msg=f"{path} is not an IOPaint source tree: it has no {' and no '.join(missing)}. Check {named(module, 'path')}. "
            "Nothing was built."
        )
    folders = ["iopaint", "web_app" if frontend == "build" else "web_app/dist"]
    unfetched = pointers(path, folders)
    if unfetched:
        module.fail_json(
            msg=f"The source ({named(module, 'path')}) has pointers of Git LFS in place of files: {', '.join(unfetched[:5])}"
            f"{f' and {len(unfetched) - 5} more' if len(unfetched) > 5 else ''}. If the play checks it out, install git-lfs on "
            "the host (Debian's package of this name) and run the play again. If it is a folder of your own, run `git lfs pull` "
            "there. Nothing was built."
        )
    module.exit_json(changed=False, digest=tree_digest(path, folders), epoch=commit_time(module, path), frontend=frontend)


if __name__ == "__main__":
    main()
