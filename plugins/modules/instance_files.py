#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: the folders of all instances with their files, in one round trip."""

from __future__ import annotations

DOCUMENTATION = r"""
module: instance_files
short_description: Write the files of all instances in one round trip
version_added: 1.0.0
description:
  - Each folder is created where it is missing. Each file is replaced in one step, where its content or mode differs.
  - Files that it is not told about stay as they are, and so does the content of a folder whose owner is set.
  - It also works in folders that a container can write. A link there is not followed and fails the module. A link that root alone
    can have put in its place, such as a data folder on another disk, is followed.
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
      mode:
        description: Its permissions in octal; by default as they are, and V(0755) for one that is made.
        type: str
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
extends_documentation_fragment: iopaint.fleet.names
attributes:
  check_mode:
    support: full
    description: Reports what would be written.
  diff_mode:
    support: full
    description: Shows each file before and after, unless it is secret.
author: iopaint.fleet contributors (@iopaint)
"""

EXAMPLES = r"""
- name: Write the files of each instance
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

from ansible_collections.iopaint.fleet.plugins.module_utils import files
from ansible_collections.iopaint.fleet.plugins.module_utils.names import named
from ansible_collections.iopaint.fleet.plugins.module_utils.quiet import QuietModule


def read(folder, name):
    """Return text and mode of a file in an open folder, or (None, None) where there is none or something else."""
    try:
        with files.regular(folder, name) as stream:
            return stream.read().decode(errors="replace"), stat.S_IMODE(os.fstat(stream.fileno()).st_mode)
    except OSError:
        return None, None


def is_right(folder, owner, mode):
    """Return whether an open folder has the owner and the mode, where they are given."""
    status = os.fstat(folder)
    owned = owner is None or status.st_uid == status.st_gid == owner
    return owned and mode in (None, stat.S_IMODE(status.st_mode))


def difference(path, item, before, modes):
    """Return what changes in a file, for --diff; a secret's text is left out, equal texts give way to the modes."""
    texts = [before or "", item["content"]]
    if before == item["content"]:
        texts = [f"mode {mode:04o}\n" for mode in modes]
    elif item["secret"]:
        texts = ["(secret)\n" if before else "", "(secret, another)\n" if before else "(secret)\n"]
    return {"before_header": path, "after_header": path, "before": texts[0], "after": texts[1]}


def ensure(module, wanted):
    """See that one folder is as wanted; return path and differences of it and of each file as it is written."""
    path, owner, mode = wanted["path"], wanted["owner"], wanted["mode"] and int(wanted["mode"], 8)
    with files.present(path) as found:
        right = found is not None and is_right(found, owner, mode)
    if not right:
        if not module.check_mode:
            with files.folder(path, make=True) as made:
                if owner is not None:
                    os.fchown(made, owner, owner)
                if mode is not None:
                    os.fchmod(made, mode)
        yield path, []
    with files.present(path) as found:
        for item in wanted["files"]:
            yield from ensure_file(module, found, path, item)


def ensure_file(module, found, path, item):
    """See that one file of a folder is as wanted. found: the open folder, None where check mode has not made it."""
    place, mode = os.path.join(path, item["name"]), int(item["mode"], 8)
    before, mode_before = (None, None) if found is None else read(found, item["name"])
    if (before, mode_before) == (item["content"], mode):
        return
    if not module.check_mode:
        try:
            with files.replacing(found, item["name"], mode) as stream:
                stream.write(item["content"].encode())
        except OSError as error:
            error.filename, error.filename2 = place, None
            raise
    yield place, [difference(place, item, before, (mode_before, mode))]


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
        "mode": {"type": "str"},
        "files": {"type": "list", "elements": "dict", "default": [], "options": file},
    }
    module = QuietModule(
        argument_spec={
            "folders": {"type": "list", "elements": "dict", "required": True, "options": folder},
            "names": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    items = [item for wanted in module.params["folders"] for item in wanted["files"]]
    module.no_log_values.update(item["content"] for item in items if item["secret"] and item["content"])
    modes = {item["mode"] for item in [*items, *module.params["folders"]] if item["mode"] is not None}
    odd = sorted(mode for mode in modes if not re.fullmatch("[0-7]{3,4}", mode))
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
                msg=f"The folder {wanted['path']} could not be made or filled: {error}. Make room for it there, or choose "
                f"another folder ({named(module, 'folders')}).",
                written=written,
            )
    module.exit_json(changed=bool(written), written=written, **({"diff": diff} if module._diff else {}))


if __name__ == "__main__":
    main()
