#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: data_root_check
short_description: Check that a new data root of the Docker Engine leaves no data behind
version_added: 1.0.0
description:
  - Fails where the engine's data root holds images, volumes or containers and the wanted one is another that holds none, as
    the engine would come up empty. Changes nothing.
options:
  path:
    description: The wanted data root.
    type: path
    required: true
  config:
    description: The file that names the present one.
    type: path
    default: /etc/docker/daemon.json
  default:
    description: The data root where that file names none.
    type: path
    default: /var/lib/docker
  variable:
    description: What to call O(path) in messages.
    type: str
    default: path
attributes:
  check_mode:
    description: Only looks, so that check mode makes no difference.
    support: full
author:
  - iopaint.fleet contributors (@iopaint)
"""

EXAMPLES = r"""
- name: Check that no data is left behind
  iopaint.fleet.data_root_check:
    path: /srv/docker
"""

RETURN = r"""
present:
  description: The data root there is.
  returned: always
  type: str
  sample: /var/lib/docker
"""

import glob
import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.iopaint.fleet.plugins.module_utils import foreign
from ansible_collections.iopaint.fleet.plugins.module_utils.daemon_json import ConfigError, decode, document

# What exists only once somebody has put something there; the engine makes everything else by itself.
CONTENT = {"images": "image/*/imagedb/content/sha256/*", "volumes": "volumes/*/_data", "containers": "containers/*"}


def present_root(config: str, default: str) -> str:
    """Return the data root that the configuration names; a file that can't be read is for the task that edits it."""
    try:
        named = document(decode(foreign.read_file(config))).get("data-root")
    except (OSError, ConfigError, foreign.ForeignError):
        return default
    return named if isinstance(named, str) and named.isprintable() and named else default


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "config": {"type": "path", "default": "/etc/docker/daemon.json"},
            "default": {"type": "path", "default": "/var/lib/docker"},
            "variable": {"type": "str", "default": "path"},
        },
        supports_check_mode=True,
    )
    wanted, variable = module.params["path"], module.params["variable"]
    present = present_root(module.params["config"], module.params["default"])
    content = [name for name, pattern in CONTENT.items() if glob.glob(os.path.join(glob.escape(present), pattern))]
    moved = os.path.isdir(os.path.join(wanted, "volumes"))
    if content and not moved and os.path.realpath(present) != os.path.realpath(wanted):
        module.fail_json(
            msg=f"{variable} is {wanted}, and the engine has {', '.join(content)} in {present} that it would no longer see. "
            f"Move them first: systemctl stop docker.socket docker.service && mkdir -p {wanted} && "
            f"rsync -aHAX --numeric-ids {present}/ {wanted}/ - or remove what nobody needs. Nothing was changed.",
            present=present,
        )
    module.exit_json(changed=False, present=present)


if __name__ == "__main__":
    main()
