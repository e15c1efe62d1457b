#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: the models on a host, and what the releases of its instances load."""

from __future__ import annotations

DOCUMENTATION = r"""
module: model_store
short_description: List or remove the models on a host
version_added: 1.0.0
description:
  - Containers can write the folder of models. So no link in it is followed, and nothing outside of it is looked at or removed.
options:
  state:
    description:
      - V(listed) returns what is there.
      - V(absent) removes O(files) and O(repositories).
    type: str
    choices: [listed, absent]
    default: listed
  models_dir:
    description: Folder of the models on the host.
    type: path
    required: true
  dir:
    description: Folder on the host with a folder for each instance.
    type: path
    required: true
  files:
    description: Paths of the files to remove, relative to O(models_dir).
    type: list
    elements: str
    default: []
  repositories:
    description:
      - Revisions of repositories to remove, each with C(hub) and C(revision). Other keys are ignored.
      - Without a revision it is a repository of which nothing is complete.
    type: list
    elements: dict
    default: []
extends_documentation_fragment: [iopaint.fleet.names, iopaint.fleet.audit]
attributes:
  check_mode:
    support: full
    description: Reports what would be removed.
author: iopaint.fleet contributors (@iopaint)
"""

EXAMPLES = r"""
- name: List the models of the host
  iopaint.fleet.model_store:
    models_dir: /var/lib/iopaint/models
    dir: /opt/iopaint/instances
  register: store
"""

RETURN = r"""
files:
  description: Files with weights, each with C(path) below O(models_dir) and C(bytes).
  type: list
  elements: dict
  returned: with O(state=listed)
repositories:
  description:
    - Repositories of a hub by revision, each with C(hub), C(revision), C(current) (whether IOPaint loads it) and C(bytes).
    - A repository of which nothing is complete has C(revision) null.
  type: list
  elements: dict
  returned: with O(state=listed)
releases:
  description:
    - Releases that serve, or that a rollback can go to, each with C(instance), C(id), C(current) and C(environment), its options
      as the release's record has them.
  type: list
  elements: dict
  returned: with O(state=listed)
removed:
  description: What was removed, or would be in check mode, one line each.
  type: list
  elements: str
  returned: with O(state=absent)
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.iopaint.fleet.plugins.module_utils import audit, containers, model_store, releases
from ansible_collections.iopaint.fleet.plugins.module_utils.names import named


def in_use(top):
    """Return the releases whose models must stay; raise ValueError where a record can't be read."""
    found = []
    for name in containers.folders(top):
        store = releases.Releases(top, name)
        if store.damaged:
            raise ValueError(
                f"the record {store.path(sorted(store.damaged)[0], releases.RECORD)} can't be read, so what instance {name} "
                "loads is not known. Deploy the instance again, or remove it"
            )
        current = [record for record in (store.records.get(store.linked), store.proven(), store.prepared()) if record]
        current = list({record["id"]: record for record in current}.values())
        others = [record for record in [*store.targets(), store.displaced()] if record and record not in current]
        for record in [*current, *others]:
            about = {key: record.get(key) for key in ("id", "environment")}
            found.append({"instance": name, **about, "environment": about["environment"] or {}, "current": record in current})
    return found


def removed(module):
    """Remove what is asked for; return one line for each."""
    params, lines = module.params, []
    for path in params["files"]:
        if module.check_mode or model_store.remove_file(params["models_dir"], path):
            lines.append(path)
    by_hub = {}
    for each in params["repositories"]:
        by_hub.setdefault(each["hub"], []).append(each.get("revision"))
    for hub, commits in by_hub.items():
        if module.check_mode or model_store.remove_repository(params["models_dir"], hub, commits):
            lines += [f"{hub} {commit or 'incomplete'}" for commit in commits]
    if lines and not module.check_mode:
        audit.append(params["audit"], "models removed", params["owner"], models=lines)
    return lines


def main():
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["listed", "absent"], "default": "listed"},
            "models_dir": {"type": "path", "required": True},
            "dir": {"type": "path", "required": True},
            "files": {"type": "list", "elements": "str", "default": []},
            "repositories": {"type": "list", "elements": "dict", "default": []},
            "audit": {"type": "path", "default": audit.LOG},
            "owner": {"type": "dict", "default": {}},
            "names": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    params = module.params
    try:
        if params["state"] == "listed":
            found = model_store.stored(params["models_dir"])
            module.exit_json(changed=False, **found, releases=in_use(params["dir"]))
        lines = removed(module)
    except (OSError, ValueError) as error:
        what = "listed" if params["state"] == "listed" else "removed"
        module.fail_json(
            msg=f"The models in {params['models_dir']} ({named(module, 'models_dir')}) could not be {what}: {error}. "
            "No instance was touched."
        )
    module.exit_json(changed=bool(lines), removed=lines)


if __name__ == "__main__":
    main()
