#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: what a host says of its instances. Its part on the control node is plugins/action/instance_status.py."""

from __future__ import annotations

DOCUMENTATION = r"""
module: instance_status
short_description: Gather the state of a host's instances, engine, GPUs, disks and lock, in one round trip
version_added: 1.0.0
description:
  - Changes nothing, takes no lock, and does not wake an engine that systemd would start for whoever asks it.
  - A host that can't be reached or looked at does not fail the task; RV(state) reports it.
  - Waits for nothing longer than O(timeout), so a stuck engine or driver is reported and does not hold up the play.
options:
  dir:
    description: Folder on the host with a folder for each instance.
    type: path
    required: true
  data_dir:
    description: Folder on the host for models and outputs.
    type: path
    required: true
  lock:
    description: The file that is the host's lock.
    type: path
    default: /run/iopaint/lock
  backup:
    description: The file that keeps the result of the last backup.
    type: path
    default: /var/lib/iopaint-backup/last.json
  instances:
    description:
      - What the host is to run, C(name), C(variant) and C(devices) each.
      - An entry that does not run is reported, and so is an instance without an entry. The option stays on the control node.
    type: list
    elements: dict
    default: []
  timeout:
    description: How long, in seconds, each call of C(docker) and C(nvidia-smi) may take.
    type: int
    default: 20
attributes:
  check_mode:
    support: full
    description: Changes nothing, in check mode or not.
author: iopaint.fleet contributors (@iopaint)
"""

EXAMPLES = r"""
- name: Gather the state of the host
  iopaint.fleet.instance_status:
    dir: /opt/iopaint/instances
    data_dir: /var/lib/iopaint
    instances: "{{ iopaint_instances }}"
  register: status
"""

RETURN = r"""
state:
  description: V(ok), V(unreachable), or V(failed) where the host answers and can't be looked at.
  type: str
  returned: always
reason:
  description: Why it could not be reached or looked at.
  type: str
  returned: where it could not
time:
  description: The host's own time.
  type: str
  returned: with RV(state=ok)
instances:
  description:
    - One entry an instance that is on the host or in O(instances), with C(name), C(variant), C(state), C(problems), C(notes),
      C(release), C(since), C(proof), C(devices), C(url), C(container) and C(listed).
    - C(state) is V(healthy), V(starting), V(unhealthy), V(running) (without a health check), what the engine says of a container
      that does not run, V(missing) where there is none, V(displaced) where another instance took its port,
      V(unknown) without an engine, or V(not deployed).
  type: list
  elements: dict
  returned: with RV(state=ok)
engine:
  description: C(state) (V(running), V(stopped), V(not installed), V(not answering)), C(version), C(reason).
  type: dict
  returned: with RV(state=ok)
gpu:
  description: C(gpus), C(driver_version), C(problem) and C(advice), as iopaint.fleet.gpu_info has them.
  type: dict
  returned: with RV(state=ok)
disks:
  description: C(path), C(purpose), C(free) and C(total) bytes of the file systems of engine and data.
  type: list
  elements: dict
  returned: with RV(state=ok)
models:
  description:
    - Models on the host, C(files) and C(repositories), as M(iopaint.fleet.model_store) returns them.
    - C(reason) says why they could not be looked at.
  type: dict
  returned: with RV(state=ok)
lock:
  description: What the lock says; null where the host is not locked.
  type: dict
  returned: with RV(state=ok)
backup:
  description:
    - C(time), C(ok), C(reason) and C(scheduled) of the last backup; null where there was none.
    - C(models) is V(all), or V(own) where models were left out that can be fetched again, null where no models were backed up.
  type: dict
  returned: with RV(state=ok)
restore:
  description: Whether a restore was interrupted, or is at work.
  type: bool
  returned: with RV(state=ok)
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.iopaint.fleet.plugins.module_utils import (
    audit,
    containers,
    foreign,
    gpu,
    lock,
    model_store,
    releases,
)
from ansible_collections.iopaint.fleet.plugins.module_utils.commands import run
from ansible_collections.iopaint.fleet.plugins.module_utils.exchange import RECORD

ZERO_TIME = "0001-01-01"  # what the engine says of a container that was never started


class Look:
    """One look at the host."""

    def __init__(self, module):
        """Take the module that runs."""
        self.module, self.params = module, module.params
        self.timeout = module.params["timeout"]
        self.docker = module.get_bin_path("docker")

    def asked(self, *words):
        """Run docker; return (rc, stdout, stderr)."""
        return run([self.docker, *words], self.timeout)

    def engine(self):
        """Return what the engine says of itself."""
        if not self.docker:
            return {"state": "not installed", "reason": "There is no docker command on the host.", "version": None, "root": None}
        if self.sleeps():
            reason = "Its service is stopped; systemctl start docker starts it."
            return {"state": "stopped", "reason": reason, "version": None, "root": None}
        rc, out, err = self.asked("info", "--format", "{{json .}}")
        try:
            info = foreign.parse_json(out, dict) if rc == 0 else {}
        except foreign.ForeignError:
            info = {}
        if not info.get("ServerVersion"):  # older clients exit 0 without an engine
            reason = err.strip() or " ".join(info.get("ServerErrors") or []) or "It gave no answer."
            return {"state": "not answering", "reason": reason, "version": None, "root": None}
        return {"state": "running", "reason": None, "version": info["ServerVersion"], "root": info.get("DockerRootDir")}

    def sleeps(self):
        """Return whether asking the engine would start it: systemd listens in its place."""
        systemctl = self.module.get_bin_path("systemctl")
        if not systemctl:
            return False
        _rc, out, _err = run([systemctl, "is-active", "docker.service", "docker.socket"], self.timeout)
        return out.split() in (["inactive", "active"], ["failed", "active"])

    def containers(self):
        """Return the engine's documents of our containers, a list by instance; None where they can't be had."""
        rc, out, _err = self.asked("ps", "--all", "--quiet", "--no-trunc", "--filter", f"label={containers.PROJECT}")
        if rc != 0:
            return None
        if not out.split():
            return {}
        _rc, out, _err = self.asked("inspect", "--type", "container", *out.split())  # one that has gone by now is left out
        try:
            documents = foreign.parse_json(out, list)
        except foreign.ForeignError:
            return None
        found = {}
        for document in documents:
            name = containers.instance_of(document, self.params["dir"])
            if name:
                found.setdefault(name, []).append(document)
        return found

    def instances(self, engine):
        """Return an entry for each instance on the host."""
        held = self.containers() if engine["state"] == "running" else None
        names = dict.fromkeys([*containers.folders(self.params["dir"]), *sorted(held or {})])
        return [self.instance(name, None if held is None else held.get(name, [])) for name in names]

    def instance(self, name, held):
        """Return what is known of one instance; held: its containers, None where the engine can't be asked."""
        store = releases.Releases(self.params["dir"], name)
        displaced = store.displaced()
        record = store.records.get(store.linked) or store.proven() or displaced or {}
        candidates = [document for document in held or [] if containers.is_candidate(document, name)]
        container = next((document for document in held or [] if document not in candidates), None)
        state, problems = of_container(container) if container else (("unknown", []) if held is None else ("missing", []))
        if state == "missing" and displaced:
            state = "displaced"
        if state == "missing":
            problems = ["It has no container; deploying it again makes one."]
        return {
            "name": name,
            "variant": record.get("variant"),
            "state": state,
            "problems": problems,
            "notes": self.notes(store, record, container) + ["A candidate for a new release runs next to it."] * bool(candidates),
            "release": {key: record.get(key) for key in ("id", "image", "ref", "revision", "operator")} if record else None,
            "since": record.get("started") or record.get("time"),
            "proof": record.get("proof"),
            "devices": record.get("devices") or [],
            "url": record.get("url"),
            "container": about(container) if container else None,
        }

    def notes(self, store, record, container):
        """Return what is odd about an instance and does not keep it from serving."""
        found = [f"The record {store.path(damaged, releases.RECORD)} can't be read." for damaged in sorted(store.damaged)]
        prepared = store.prepared()
        if prepared and prepared.get("started"):
            found.append(f"The switch to {prepared['id']} was begun at {prepared['started']} and has not ended.")
        if container and record.get("image_id") and container.get("Image") != record["image_id"]:
            found.append(f"It runs another image than that of its release {record['id']}.")
        if store.displaced():
            taker = record["displaced_by"].partition("/")[0]
            found.append(f"It was stopped when {taker} took its port; a rollback right after that starts it again.")
        return found

    def gpus(self):
        """Return what the driver says of the GPUs; a host without any answers at once."""
        nvidia_smi = self.module.get_bin_path("nvidia-smi")
        rc, output, report = gpu.query(nvidia_smi, self.timeout) if nvidia_smi else (None, "", gpu.NO_REPORT)
        problem = gpu.diagnose(rc, output, report["gpus"], gpu.pci_devices("/sys"), gpu.kernel_module_version("/sys", "/proc"))
        keys = ("index", "uuid", "name", "memory_total_mib", "memory_used_mib")
        return {
            "gpus": [{key: one[key] for key in keys} for one in report["gpus"]],
            "driver_version": report["driver_version"],
            "problem": problem,
            "advice": gpu.ADVICE[problem],
        }

    def backup(self):
        """Return what is told of the last backup, None where there was none."""
        try:
            result = foreign.parse_json(foreign.read_text(self.params["backup"]), dict)
            told = {key: result[key] for key in ("time", "ok", "reason", "scheduled")}
            return {**told, "models": result.get("models")}  # backups of earlier releases don't say
        except FileNotFoundError:
            return None
        except (ValueError, KeyError):
            unknown = dict.fromkeys(("time", "scheduled", "models"))
            return {**unknown, "ok": False, "reason": f"{self.params['backup']} can't be read."}

    def models(self):
        """Return the models on the host, and why they could not be looked at."""
        try:
            return {**model_store.stored(os.path.join(self.params["data_dir"], "models")), "reason": None}
        except OSError as error:
            return {"files": [], "repositories": [], "reason": str(error)}

    def disks(self, engine):
        """Return room and size of the file systems that fill up."""
        found = []
        for purpose, path in (("engine", engine["root"]), ("data", self.params["data_dir"])):
            if path:
                stat = os.statvfs(existing(path))
                free, total = stat.f_bavail * stat.f_frsize, stat.f_blocks * stat.f_frsize
                found.append({"purpose": purpose, "path": path, "free": free, "total": total})
        return found


def about(document):
    """Return what is told of a container; document: the engine's of it."""
    started = document["State"].get("StartedAt", ZERO_TIME)
    return {
        "name": document["Name"].lstrip("/"),
        "image_id": document.get("Image"),
        "started": None if started.startswith(ZERO_TIME) else started,
        "restarts": document.get("RestartCount", 0),
    }


def existing(path):
    """Return a folder, or the one above it in which it would be made."""
    return path if os.path.isdir(path) or path == "/" else existing(os.path.dirname(path))


def of_container(document):
    """Return the state of an instance by its container, and what is wrong with it."""
    state = document["State"]
    status, health = state.get("Status", "unknown"), state.get("Health") or {}
    if status == "running":
        last = (health.get("Log") or [{}])[-1]
        said = (last.get("Output") or "").strip().splitlines()[-1:]
        wrong = [f"Its health check says: {said[0]}"] if health.get("Status") == "unhealthy" and said else []
        return health.get("Status") or "running", wrong
    memory = ", out of memory" if state.get("OOMKilled") else ""
    wrong = (
        [f"Its container ended with status {state.get('ExitCode')}{memory}."]
        if status in ("exited", "restarting", "dead")
        else []
    )
    return status, wrong + ([state["Error"]] if state.get("Error") else [])


def main():
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "dir": {"type": "path", "required": True},
            "data_dir": {"type": "path", "required": True},
            "lock": {"type": "path", "default": lock.PATH},
            "backup": {"type": "path", "default": "/var/lib/iopaint-backup/last.json"},
            "instances": {"type": "list", "elements": "dict", "default": []},
            "timeout": {"type": "int", "default": 20},
        },
        supports_check_mode=True,
    )
    look = Look(module)
    engine = look.engine()
    try:
        module.exit_json(
            changed=False,
            state="ok",
            time=audit.now(),
            engine=engine,
            instances=look.instances(engine),
            gpu=look.gpus(),
            disks=look.disks(engine),
            models=look.models(),
            lock=lock.read(module.params["lock"]),
            backup=look.backup(),
            restore=os.path.lexists(os.path.join(module.params["data_dir"], RECORD)),
        )
    except OSError as error:
        module.fail_json(msg=f"The host could not be looked at: {error}")


if __name__ == "__main__":
    main()
