#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: daemon_json
short_description: Set keys of Docker's daemon.json and leave the rest to its owner
version_added: 1.0.0
description:
  - Merges wanted keys into the Docker Engine's configuration file, deep and key by key. Everything else stays letter by
    letter as it was, the order of keys, the spelling of numbers and the layout included.
  - Refuses, before anything is written, what the engine cannot read and what would keep it from starting.
  - If the file holds a secret, the file and its copies become readable for root alone, and no output shows it. Secrets are
    users and passwords in addresses, those of a proxy for example, and texts below a key whose name has C(key), C(token),
    C(secret) or C(password).
  - Says whether the engine has to be reloaded or restarted to take up what changed, and does neither.
options:
  path:
    description:
      - The file. A missing one is created with its folder, an empty one filled. Of a symbolic link the target is
        replaced and the link kept.
    type: path
    default: /etc/docker/daemon.json
  settings:
    description:
      - Keys and values to be in the file. A dictionary is merged into the one that is there, at every depth. A V(null)
        in the file gives way to any value; here it is refused, as O(absent) is what removes a key.
      - Docker tells numbers from strings, C(max-file) is V("3") and C(mtu) is V(1500).
    type: dict
    default: {}
  absent:
    description:
      - Keys to be gone from the file. Dots lead into dictionaries, as in V(runtimes.nvidia); a key that has dots of its
        own is found too.
    type: list
    elements: str
    default: []
  lists:
    description:
      - What becomes of a list that is there and differs from the wanted one.
    type: str
    choices:
      replace: It becomes the wanted list.
      union: It keeps its items, and those it lacks are appended.
    default: replace
  validate:
    description:
      - The command that judges the new file before it takes the old one's place; C(%s) stands for its path. It runs
        without a shell.
      - The default needs a Docker Engine of 23.0 or newer on the host. An empty string skips the judgement.
    type: str
    default: dockerd --validate --config-file=%s
  backup:
    description:
      - Keep a copy of the previous file, with the time in its name, in the folder of O(path).
    type: bool
    default: false
  unit:
    description:
      - The systemd unit that starts the engine. A flag on its command line, be it from the unit, a drop-in or the
        environment they set, must not be a key of the file as well, for the engine does not start then.
      - A unit that does not exist is passed over, an empty string skips the look. What a shell script between
        systemd and C(dockerd) adds is not seen.
    type: str
    default: docker.service
attributes:
  check_mode:
    description: Reports what would change, and lets O(validate) judge it where that command is installed.
    support: full
  diff_mode:
    description: Shows the whole file before and after, without secrets.
    support: full
author:
  - iopaint.fleet contributors (@iopaint)
"""

EXAMPLES = r"""
- name: Docker keeps containers running while the engine restarts, and logs within bounds
  iopaint.fleet.daemon_json:
    settings:
      live-restore: true
      log-driver: json-file
      log-opts:
        max-size: 10m
        max-file: "3"
    backup: true
  register: daemon_json

- name: Reload or restart the engine
  ansible.builtin.service:
    name: docker
    state: "{{ daemon_json.action }}ed" # reloaded or restarted
  when: daemon_json.action != "none"

- name: One more registry may be spoken to without TLS
  iopaint.fleet.daemon_json:
    settings:
      insecure-registries: [registry.example.com:5000]
    lists: union

- name: Remove the old runtime
  iopaint.fleet.daemon_json:
    absent: [runtimes.nvidia-legacy]

- name: Write the file before the engine is installed
  iopaint.fleet.daemon_json:
    settings:
      data-root: /srv/docker
    validate: ""
"""

RETURN = r"""
action:
  description:
    - What the engine needs to take up the change. V(restart) where a single key needs it.
    - V(reload) is for the keys that Docker documents as reconfigurable. C(features) is among those and still counts as
      V(restart), because C(features.cdi) takes effect only then; so does the removal of a key that a reload would
      leave at its running value.
  returned: success
  type: str
  sample: reload
changed_keys:
  description:
    - The top-level keys that changed, each with the action it needs.
  returned: success
  type: dict
  sample:
    runtimes: reload
    log-driver: restart
backup_file:
  description: The copy of the previous file.
  returned: when O(backup) is set and a file that was there has been changed
  type: str
  sample: /etc/docker/daemon.json.4711.2026-11-24@06:02:41~
"""

import glob
import os
import shlex
import stat
import tempfile

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.iopaint.fleet.plugins.module_utils import foreign
from ansible_collections.iopaint.fleet.plugins.module_utils.daemon_json import (
    ConfigError,
    Flag,
    actions,
    check,
    command_line,
    decode,
    document,
    merge,
    parse_flags,
)
from ansible_collections.iopaint.fleet.plugins.module_utils.files import make_folder
from ansible_collections.iopaint.fleet.plugins.module_utils.network import keep_secret, secrets
from ansible_collections.iopaint.fleet.plugins.module_utils.quiet import QuietModule

PRIVATE = 0o600


def read(path: str) -> str:
    try:
        return decode(foreign.read_file(path))
    except FileNotFoundError:
        return ""
    except foreign.ForeignError as error:
        raise ConfigError(f"{error}. Put a file with the engine's options there.") from error


def read_environment(path: str) -> str:
    try:
        return foreign.read_file(path).decode(errors="replace")
    except (OSError, ValueError):  # systemd decides whether the engine starts without it
        return ""


def unit_flags(module: AnsibleModule, target: str) -> list[Flag]:
    """Return the flags on the command line of the engine that reads the file."""
    unit = module.params["unit"]
    systemctl = module.get_bin_path("systemctl")
    if not unit or not systemctl:
        return []
    # fails for a unit that is not installed yet, and where systemd does not run
    rc, listing, _err = module.run_command([systemctl, "cat", "--no-pager", "--", unit])
    flags = parse_flags(command_line(listing, read_environment)) if rc == 0 else []
    for flag in flags:
        if flag.name == "config-file" and os.path.realpath(flag.value) != target:
            module.warn(f"{unit} reads {flag.value}, as {flag.source} says, and not {module.params['path']}.")
            return []
    return flags


def validate(module: AnsibleModule, candidate: str) -> None:
    command = shlex.split(module.params["validate"])
    if not command:
        return
    if "%s" not in module.params["validate"]:
        raise ConfigError("validate has no %s to stand for the file. Put it where the command expects the path.")
    program = module.get_bin_path(command[0])
    if not program:
        if module.check_mode:  # a host on which the engine is still to be installed
            return
        raise ConfigError(
            f"{command[0]}, which validate asks to judge the new file, is not installed. "
            'Install it first, or set validate to "" to do without.'
        )
    # dockerd looks for docker-proxy, and a remote user's PATH may lack the folders that Debian keeps it in
    search = {"PATH": f"{os.environ.get('PATH', os.defpath)}:/usr/local/sbin:/usr/sbin:/sbin"}
    arguments = [word.replace("%s", candidate) for word in command[1:]]
    rc, out, err = module.run_command([program, *arguments], environ_update=search)
    if rc != 0:
        words = (err.strip() or out.strip() or f"exit status {rc}").replace(candidate, module.params["path"])
        if "unknown flag: --validate" in words:
            advice = 'Engines before 23.0 cannot judge a file: upgrade the engine, or set validate to "".'
        else:
            advice = "Correct the settings, or the file if the fault was there before."
        raise ConfigError(f"{command[0]} refuses the new content: {words.rstrip('.')}. {advice}")


def content(text: str) -> dict | str:
    """Return what the text of a file holds, or the text itself where it can't be read."""
    try:
        return document(text)
    except ConfigError:
        return text


def secret(text: str) -> bool:
    """Return whether the text of a file holds a secret."""
    return bool(secrets([content(text)]))


def exposed(path: str) -> list[str]:
    """Return the file and the copies of it that have a password and that others can read; dockerd reads it as root."""
    found = [name for name in [path, *glob.glob(f"{glob.escape(path)}.*~")] if os.path.isfile(name)]
    return [name for name in found if stat.S_IMODE(os.stat(name).st_mode) & 0o077 and secret(read_environment(name))]


def install(module: AnsibleModule, target: str, text: str) -> str | None:
    """Put the text in the file's place at once or not at all; returns the backup's path."""
    folder = module.tmpdir if module.check_mode else os.path.dirname(target)
    make_folder(folder)
    descriptor, candidate = tempfile.mkstemp(prefix=".daemon.json.", dir=folder)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
        validate(module, candidate)
        if module.check_mode:
            return None
        if (secret(text) and os.path.exists(target)) or exposed(target):
            os.chmod(target, PRIVATE)  # before the copy and the move, which keep the mode
        backup = module.backup_local(module.params["path"]) if module.params["backup"] else None
        if secret(text) and not os.path.exists(target):
            os.rename(candidate, target)  # a move would give it the mode of a new file
            return backup
        module.atomic_move(candidate, target)  # keeps owner, group, mode and SELinux context
        return backup
    finally:
        if os.path.exists(candidate):
            os.unlink(candidate)


def run(module: AnsibleModule) -> dict:
    path = module.params["path"]
    target = os.path.realpath(path)
    before = read(target)
    keep_secret(module, [content(before)])
    after = merge(before, module.params["settings"], module.params["absent"], module.params["lists"])
    options = document(after)
    check(options, unit_flags(module, target))
    keys = actions(document(before), options)
    result = {
        "changed": after != before,
        "action": max(keys.values(), default="none", key=["none", "reload", "restart"].index),
        "changed_keys": keys,
    }
    if module._diff:
        result["diff"] = {"before_header": path, "after_header": path, "before": before, "after": after}
    if result["changed"]:
        backup = install(module, target, after)
        if backup:
            result["backup_file"] = backup
    for name in dict.fromkeys([*exposed(target), *exposed(path)]):
        result["changed"] = True
        if not module.check_mode:
            os.chmod(name, PRIVATE)
    return result


def main() -> None:
    module = QuietModule(
        argument_spec={
            "path": {"type": "path", "default": "/etc/docker/daemon.json"},
            "settings": {"type": "dict", "default": {}},
            "absent": {"type": "list", "elements": "str", "default": []},
            "lists": {"type": "str", "choices": ["replace", "union"], "default": "replace"},
            "validate": {"type": "str", "default": "dockerd --validate --config-file=%s"},
            "backup": {"type": "bool", "default": False},
            "unit": {"type": "str", "default": "docker.service"},
        },
        supports_check_mode=True,
    )
    keep_secret(module, [module.params["settings"]])
    try:
        module.exit_json(**run(module))
    except ConfigError as error:
        module.fail_json(msg=f"{module.params['path']}: {error} The file is as it was.")
    except OSError as error:
        module.fail_json(msg=f"{module.params['path']}: {error}. The file is as it was; the task may need become.")


if __name__ == "__main__":
    main()
