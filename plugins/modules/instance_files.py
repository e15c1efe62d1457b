#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: the folders of all instances with their files, in one round trip."""

from __future__ import annotations

DOCUMENTATION = r"""
module: instance_files
short_description: Writes the files of all instances in one round trip
version_added: 1.0.0
description:
  - Each folder is created where it is missing. Each file is replaced in one step, where its content or mode differs.
  - Files that it is not told about stay as they are, and so does the content of a folder whose owner is set.
options:
  folders:
    description: The folders.
    type: list
    elements: dict
    required: true
    suboptions:
      path:
        description: The folder.
        type: path
        required: true
      owner:
        description: Number of the user and group that the folder belongs to; by default as it is.
        type: int
      files:
        description: What it holds.
        type: list
        elements: dict
        default: []
        suboptions:
          name:
            description: File name.
            type: str
            required: true
          content:
            description: Text, written as UTF-8.
            type: str
            required: true
          mode:
            description: Permissions in octal.
            type: str
            default: "0644"
          secret:
            description: Whether a diff leaves out the content.
            type: bool
            default: false
attributes:
  check_mode:
    support: full
    description: Says what would be written.
  diff_mode:
    support: full
    description: Shows each file before and after, unless it is secret.
author: iopaint.fleet contributors (@iopaint)
"""

EXAMPLES = r"""
- name: The files of each instance are in place
  iopaint.fleet.instance_files:
    folders:
      - path: /opt/iopaint/instances/cpu
        files:
          - {name: .env, content: "CPU_PORT='8080'\n"}
          - {name: options.env, content: "IOPAINT_MODEL='lama'\n", mode: "0600", secret: true}
"""

RETURN = r"""
written:
  description: Files and folders that were written, or would be in check mode.
  type: list
  elements: str
  returned: success
"""

import os
import re
import stat

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.iopaint.fleet.plugins.module_utils.files import make_folder, write


def read(path):
    """Return a file's text and mode, or (None, None) where there is none."""
    try:
        with open(path, encoding="utf-8", errors="replace", newline="") as stream:
            return stream.read(), stat.S_IMODE(os.fstat(stream.fileno()).st_mode)
    except FileNotFoundError:
        return None, None


def right_folder(path, owner):
    """Return whether the folder is there and belongs to the owner, where one is given."""
    return os.path.isdir(path) and (owner is None or os.stat(path).st_uid == os.stat(path).st_gid == owner)


def own_folder(path, owner):
    """Make the folder, and those above it that are missing, for the owner."""
    make_folder(path)
    if owner is not None:
        os.chown(path, owner, owner)


def difference(path, item, before, modes):
    """Return what changes in a file, for --diff; a secret's text is left out, equal texts give way to the modes."""
    texts = [before or "", item["content"]]
    if before == item["content"]:
        texts = [f"mode {mode:04o}\n" for mode in modes]
    elif item["secret"]:
        texts = ["(secret)\n" if before else "", "(secret, another)\n" if before else "(secret)\n"]
    return {"before_header": path, "after_header": path, "before": texts[0], "after": texts[1]}


def ensure(module, folder):
    """See that one folder is as wanted; return path and differences of it and of each file as it is written."""
    if not right_folder(folder["path"], folder["owner"]):
        if not module.check_mode:
            own_folder(folder["path"], folder["owner"])
        yield folder["path"], []
    for item in folder["files"]:
        path, mode = os.path.join(folder["path"], item["name"]), int(item["mode"], 8)
        before, mode_before = read(path)
        if (before, mode_before) == (item["content"], mode):
            continue
        if not module.check_mode:
            write(path, item["content"], mode)
        yield path, [difference(path, item, before, (mode_before, mode))]


def main():
    """Run the module."""
    file = {
        "name": {"type": "str", "required": True},
        "content": {"type": "str", "required": True},
        "mode": {"type": "str", "default": "0644"},
        "secret": {"type": "bool", "default": False},
    }
    folder = {
        "path": {"type": "path", "required": True},
        "owner": {"type": "int"},
        "files": {"type": "list", "elements": "dict", "default": [], "options": file},
    }
    module = AnsibleModule(
        argument_spec={"folders": {"type": "list", "elements": "dict", "required": True, "options": folder}},
        supports_check_mode=True,
        no_log=True,  # no contents in the host's log
    )
    files = [item for wanted in module.params["folders"] for item in wanted["files"]]
    module.no_log_values.update(item["content"] for item in files if item["secret"] and item["content"])
    odd = sorted({item["mode"] for item in files if not re.fullmatch("[0-7]{3,4}", item["mode"])})
    if odd:
        module.fail_json(msg=f"folders: mode {', '.join(odd)} must be octal, in quotes, as '0644'. Nothing was written.")
    written, diff = [], []
    for wanted in module.params["folders"]:
        try:
            for path, shown in ensure(module, wanted):
                written.append(path)
                diff += shown
        except OSError as error:
            module.fail_json(
                msg=f"The folder {wanted['path']} could not be made or filled: {error}. Make room for it there, or set "
                "iopaint_dir (instances) or iopaint_data_dir (models, outputs) to another folder.",
                written=written,
            )
    module.exit_json(changed=bool(written), written=written, **({"diff": diff} if module._diff else {}))


if __name__ == "__main__":
    main()
