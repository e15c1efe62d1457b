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
  - An engine that maps the users of containers keeps its data in a folder of its own below the data root, named by the mapped
    user and group. Turning that on or off hides all data just as well.
options:
  path:
    description: The wanted data root. Without it the present one stays.
    type: path
  userns_remap:
    description: The wanted value of C(userns-remap), empty for none. Without it the present one stays.
    type: str
  config:
    description: The file that names the present one.
    type: path
    default: /etc/docker/daemon.json
  default:
    description: The data root where that file names none.
    type: path
    default: /var/lib/docker
extends_documentation_fragment: iopaint.fleet.names
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

- name: Check that nothing is hidden when the engine maps users
  iopaint.fleet.data_root_check:
    userns_remap: default
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
from ansible_collections.iopaint.fleet.plugins.module_utils.names import named

# What exists only once somebody has put something there; the engine makes everything else by itself.
CONTENT = {"images": "image/*/imagedb/content/sha256/*", "volumes": "volumes/*/_data", "containers": "containers/*"}


MAPPED = "[0-9]*.[0-9]*"  # the folder of an engine that maps users


def configured(path: str) -> dict:
    """Return the engine's configuration; a file that can't be read is for the task that edits it."""
    try:
        return document(decode(foreign.read_file(path)))
    except (OSError, ConfigError, foreign.ForeignError):
        return {}


def word(value: object) -> str:
    """Return the value where it can be what the engine takes, otherwise nothing."""
    return value if isinstance(value, str) and value.isprintable() else ""


def account(remap: str) -> str:
    """Return the user that a value of userns-remap stands for."""
    return "dockremap" if remap == "default" else remap.partition(":")[0]


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path"},
            "userns_remap": {"type": "str"},
            "config": {"type": "path", "default": "/etc/docker/daemon.json"},
            "default": {"type": "path", "default": "/var/lib/docker"},
            "names": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    settings, wanted = configured(module.params["config"]), module.params["path"]
    present, remap = word(settings.get("data-root")) or module.params["default"], word(settings.get("userns-remap"))
    home = os.path.join(glob.escape(present), MAPPED if remap else "")
    content = [name for name, pattern in CONTENT.items() if glob.glob(os.path.join(home, pattern))]
    moved = (
        wanted is None or os.path.isdir(os.path.join(wanted, "volumes")) or os.path.realpath(present) == os.path.realpath(wanted)
    )
    if content and not moved:
        module.fail_json(
            msg=f"{named(module, 'path')} is {wanted}, and the engine has {', '.join(content)} in {present} that it would no "
            "longer see. "
            f"Move them first: systemctl stop docker.socket docker.service && mkdir -p {wanted} && "
            f"rsync -aHAX --numeric-ids {present}/ {wanted}/ - or remove what nobody needs. Nothing was changed.",
            present=present,
        )
    mapping = module.params["userns_remap"]
    if content and mapping is not None and account(mapping) != account(remap):
        change = f"maps users by userns-remap={mapping}" if mapping else "no longer maps users (userns-remap)"
        module.fail_json(
            msg=f"An engine that {change} no longer sees its present {', '.join(content)} in {present}. Remove what nobody "
            "needs, or set userns-remap in daemon.json by hand and restart Docker when the host may lose what it runs: this "
            "role keeps the key then. Nothing was changed.",
            present=present,
        )
    module.exit_json(changed=False, present=present)


if __name__ == "__main__":
    main()
