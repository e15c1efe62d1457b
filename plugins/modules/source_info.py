#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: is this folder an IOPaint source tree, and what is in it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: source_info
short_description: Checks that a folder is an IOPaint source tree and says what is in it
version_added: 0.1.0
description:
  - Fails where C(iopaint/cli.py) or the front end is missing, before anything is built from the folder.
  - Computes a digest of the files that an image is made of, uncommitted edits included.
options:
  path:
    description: The folder that holds C(iopaint/) and C(web_app/).
    type: path
    required: true
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
    - SHA-256 over C(requirements.txt), and over names, execute bits and contents of all files below C(iopaint/) and C(web_app/).
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

# What a working tree collects and no image holds.
PASSED_OVER = {"node_modules", "dist", "__pycache__", ".git"}


def tree_digest(root, folders):
    """Return the SHA-256 (hex) of requirements.txt and the files below root's folders, by path, execute bit and content."""
    digest = hashlib.sha256()
    requirements = os.path.join(root, "requirements.txt")  # a build refuses what the pins don't meet
    if os.path.isfile(requirements):
        with open(requirements, "rb") as stream:
            digest.update(b"requirements.txt\0" + hashlib.sha256(stream.read()).digest())
    for top in folders:
        for folder, names, files in os.walk(os.path.join(root, top)):
            names[:] = sorted(set(names) - PASSED_OVER)
            links = [name for name in names if os.path.islink(os.path.join(folder, name))]
            for name in sorted(files + links):
                path = os.path.join(folder, name)
                digest.update(os.fsencode(os.path.relpath(path, root)) + f"\0{os.access(path, os.X_OK)}\0".encode())
                if os.path.islink(path):
                    digest.update(os.fsencode(os.readlink(path)))
                    continue
                with open(path, "rb") as stream:
                    digest.update(hashlib.sha256(stream.read()).digest())
    return digest.hexdigest()


def commit_time(module, path):
    """Return the time of the checked-out commit, 0 where there is none."""
    if not os.path.exists(os.path.join(path, ".git")):
        return 0
    _rc, out, _err = module.run_command(["git", "-C", path, "log", "-1", "--format=%ct"], check_rc=True)
    return int(out)


def main():
    """Run the module."""
    module = AnsibleModule(argument_spec={"path": {"type": "path", "required": True}}, supports_check_mode=True)
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
            msg=f"{path} is not an IOPaint source tree: it has no {' and no '.join(missing)}. "
            "Check iopaint_image_source and what goes with it: iopaint_image_git_url and iopaint_image_ref for git, "
            "iopaint_image_directory for directory, iopaint_image_release for release."
        )
    folders = ["iopaint", "web_app" if frontend == "build" else "web_app/dist"]
    module.exit_json(changed=False, digest=tree_digest(path, folders), epoch=commit_time(module, path), frontend=frontend)


if __name__ == "__main__":
    main()
