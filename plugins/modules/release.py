#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: the releases of a host's instances, from prepared to kept or put back."""

from __future__ import annotations

DOCUMENTATION = r"""
module: release
short_description: Keeps the releases of instances - prepares, switches, keeps, puts back, lists
version_added: 0.1.0
description:
  - Deploy, upgrade and rollback make a release current in the same steps. V(prepared) writes its folder beside the one that
    serves, V(switched) lets the link C(current) name it, compose then starts what the link names, and once that is proven
    V(kept) records it, or V(back) records why not and lets the link name the former one again.
  - A play that is killed after any of these steps is gone on with by the same play, run again.
  - A record that can't be read is named in a warning and rebuilt from the release's files and from what runs.
options:
  state:
    description: The step.
    type: str
    choices: [prepared, switched, kept, back, listed]
    required: true
  dir:
    description: Folder on the host with a folder for each instance.
    type: path
    required: true
  instances:
    description:
      - "V(prepared): what is wanted, as the filter C(instance_releases) gives it; with O(to) only C(name) each, or nothing
        for all that have releases."
      - "V(switched), V(kept), V(back): what V(prepared) returned."
      - "V(listed): the instances, C(name) each."
    type: list
    elements: dict
    required: true
  to:
    description: "V(prepared): go back to a release that is there, V(former) or the ID of one, in place of making a new one."
    type: str
  owner:
    description: Who does it, as the module iopaint.fleet.lock returned it.
    type: dict
    default: {}
  proofs:
    description: "V(kept): results of iopaint.fleet.inpaint_check by instance."
    type: dict
    default: {}
  reason:
    description: "V(back): why the release failed."
    type: str
    default: ""
  keep:
    description: How many releases of an instance keep their image, the current one included.
    type: int
    default: 3
  build_cache:
    description: Bytes that the engine's build cache may hold when a new release has been kept; a negative number is no limit.
    type: int
    default: -1
  audit:
    description: The audit log on the host.
    type: path
    default: /var/log/iopaint/audit.log
attributes:
  check_mode:
    support: full
    description: Says what would be prepared. The other steps do nothing.
  diff_mode:
    support: full
    description: Shows the files of the current release beside those of the new one, without options.
requirements: [docker]
author: iopaint.fleet contributors (@iopaint)
"""

EXAMPLES = r"""
- name: The release of each instance is prepared
  iopaint.fleet.release:
    state: prepared
    dir: /opt/iopaint/instances
    instances: "{{ wanted }}"
    owner: "{{ lock.owner }}"
  register: prepared

- name: It becomes the current one
  iopaint.fleet.release:
    state: switched
    dir: /opt/iopaint/instances
    instances: "{{ prepared.instances }}"
    owner: "{{ lock.owner }}"
"""

RETURN = r"""
instances:
  description:
    - One entry an instance. C(name), release C(id), C(new) (whether it is still to be switched to and proven), C(before) (the
      ID of the release that it takes the place of) and what is needed to run and prove it (C(path), C(folder), C(files),
      C(settings) (the variables of the compose file), C(variant), C(project), C(url), C(image), C(devices), C(cpu_allowed),
      C(memory)).
    - After V(prepared) also C(unhealthy), whether the engine calls the container of the instance unhealthy.
    - After V(kept) also C(without_service_s) and C(duration_s) of new ones; after V(back) only those that are to be put back.
    - With V(listed) C(releases), the records, oldest first, C(current) (what the link names), C(proven) (what served last),
      C(damaged) (records that can't be read) and C(image_there).
  type: list
  elements: dict
  returned: success
unlisted:
  description: Instances that have releases on the host and are not among O(instances).
  type: list
  elements: str
  returned: with O(state=prepared)
memory_available:
  description: Bytes of memory that can be had without swapping.
  type: int
  returned: with O(state=prepared)
rebuilt:
  description: Records that could not be read and were rebuilt.
  type: list
  elements: str
  returned: always
free:
  description: Bytes that are free where the engine keeps its data.
  type: int
  returned: with O(state=listed)
pruned:
  description: Names of images that were removed.
  type: list
  elements: str
  returned: with O(state=kept)
"""

import json
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.iopaint.fleet.plugins.module_utils import audit, containers, releases
from ansible_collections.iopaint.fleet.plugins.module_utils.docker_cli import Docker
from ansible_collections.iopaint.fleet.plugins.module_utils.images import (
    HELD,
    LABEL,
    OURS,
    find,
    labelled,
    repositories,
    repository,
)

PROOF = ("model", "latency_ms", "pixels")


def uptime():
    """Return seconds since the host's boot, which no change of its clock touches."""
    return round(time.clock_gettime(time.CLOCK_BOOTTIME), 3)


def memory_available():
    """Return the bytes of memory that can be had without swapping, as the kernel estimates."""
    with open("/proc/meminfo", encoding="ascii") as stream:
        (line,) = [line for line in stream if line.startswith("MemAvailable:")]
    return int(line.split()[1]) * 1024


class Steps:
    """The steps over all instances of a host."""

    def __init__(self, module):
        """Read the records, and rebuild those that can't be read."""
        self.module, self.params = module, module.params
        self.docker, self.owner = Docker(module), module.params["owner"]
        self.rebuilt, self.diff = [], []
        names = [item["name"] for item in self.params["instances"]]
        if not names and self.params["to"]:
            names = containers.folders(self.params["dir"])
        self.stores = {name: self.store(name) for name in names}

    def store(self, name):
        """Return the releases of an instance, every record readable."""
        store = releases.Releases(self.params["dir"], name)
        for release_id, why in sorted(store.damaged.items()):
            self.module.warn(f"The record {store.path(release_id, releases.RECORD)} could not be read ({why}).")
            if self.module.check_mode or self.params["state"] == "listed":
                continue
            record = store.rebuild(release_id, self.docker.image, self.running(f"iopaint-{name}"))
            self.module.warn(f"It was rebuilt from the release's files and from what runs: {record['outcome']}.")
            self.rebuilt.append(f"{name}/{release_id}")
            self.log("record rebuilt", name, record, reason=why)
        return store

    def running(self, project):
        """Return the ID of the image that a compose project runs, None where it runs none."""
        rc, out, _err = self.docker.run("ps", "-q", "--filter", f"label={containers.PROJECT}={project}")
        if rc != 0 or not out.split():
            return None
        rc, out, _err = self.docker.run("inspect", "--format", "{{.Image}}", out.split()[0])
        return out.strip() if rc == 0 else None

    def log(self, action, name, record, must=True, **facts):
        """Add a line to the audit log. must: whether a log that can't be written is an error, or a warning."""
        facts = {"instance": name, "release": record["id"], "image": record.get("image"), **facts}
        try:
            audit.append(self.params["audit"], action, self.owner, **facts)
        except OSError as error:
            if must:
                raise
            self.module.warn(f"The audit log {self.params['audit']} (iopaint_audit_log) could not be written: {error}")

    # --- prepared ----------------------------------------------------------------------------------------------------

    def end_trials(self):
        """Remove what a play that was killed has left of a release that it tried beside the one that serves."""
        row = f'{{{{.ID}}}} {{{{.Label "{containers.PROJECT}"}}}}'
        _rc, out, _err = self.docker.run("ps", "--all", "--filter", f"label={containers.PROJECT}", "--format", row)
        trials = {containers.projects(name)[1] for name in self.stores}
        left = [words.split(maxsplit=1) for words in out.splitlines() if words.partition(" ")[2] in trials]
        if not self.module.check_mode:
            for container, project in left:
                self.docker.run("rm", "--force", container)
                self.docker.run("network", "rm", f"{project}_default")

    def prepared(self):
        """Return the release of each instance that is to be current, made where it is not there yet."""
        begun = any(store.prepared() for store in self.stores.values())
        if self.params["to"]:
            done = self.found()
        else:
            images = {item["name"]: self.image(item) for item in self.params["instances"]}
            done = [self.prepare(self.stores[item["name"]], item, images[item["name"]]) for item in self.params["instances"]]
        if begun:
            self.end_trials()
        return self.judged(done)

    def judged(self, done):
        """Return the entries with `unhealthy` set where the engine says so of the instance's container."""
        unhealthy = containers.unhealthy_projects(self.docker)
        return [{**item, "unhealthy": item["project"] in unhealthy} for item in done]

    def image(self, item):
        """Return the engine's document of the image that an instance wants; it has to be there before anything is written."""
        image = self.docker.image(item["image"])
        if image is None and not self.module.check_mode:
            self.module.fail_json(
                msg=f"The image {item['image']} of the instance {item['name']} is not on the host. Build it first "
                "(iopaint.fleet.build), or name another one in iopaint_images. Nothing that runs was touched."
            )
        return image or {}

    def prepare(self, store, item, image):
        """See that one instance has a release of what is wanted."""
        files = {file["name"]: file["content"] for file in item["files"]}
        wanted = releases.fingerprint(files, image.get("Id"))
        proven, prepared = store.proven(), store.prepared()
        if proven and store.made_of(proven, wanted):
            new = store.linked != proven["id"]
            if not self.module.check_mode:
                self.supersede(store, None)
                if new:  # a switch away from it was begun, and is taken back
                    self.log("prepared", store.name, proven, outcome="taken up again")
            return store.to_run({**proven, "replaces": None}, new)
        if prepared and store.made_of(prepared, wanted):
            return store.to_run(prepared, True)
        before = proven["id"] if proven else (prepared or {}).get("replaces")
        record = self.new_record(store, item, image, before)
        self.show(store, record, files, before)
        if not self.module.check_mode:
            self.supersede(store, None)
            name, content, mode = ".env", releases.pin(files[".env"], item["image_variable"], record["image"]), 0o644
            rest = [(f["name"], f["content"], int(f["mode"], 8)) for f in item["files"] if f["name"] != ".env"]
            store.add(record, [(name, content, mode), *rest])
            self.log("prepared", store.name, record, ref=record["ref"], reason=before and f"to take the place of {before}")
        return store.to_run(record, True)

    def supersede(self, store, but):
        """Say of other prepared releases that they won't become current."""
        for record in list(store.records.values()):
            if record["outcome"] == releases.PREPARED and record["id"] != but:
                store.end(record, releases.SUPERSEDED, record.get("reason") or "another release was wanted before it was proven")

    def new_record(self, store, item, image, before):
        """Return the record of a new release, its image under a name that does not move."""
        release_id = store.next_id(item["image"])
        name = item["image"]
        recipe = ((image.get("Config") or {}).get("Labels") or {}).get(LABEL) or ""
        moves = "@sha256:" not in name and (not recipe or recipe[:12] not in name)
        if moves and image:
            name = f"{HELD}:{store.name}-{release_id}"
            if not self.module.check_mode:
                self.docker.run("tag", image["Id"], name, check_rc=True)
        return {
            "schema": releases.SCHEMA,
            "id": release_id,
            "time": audit.now(),
            "operator": self.owner.get("operator"),
            "controller": self.owner.get("controller"),
            **releases.described(name, image),
            **({"ref": item["ref"]} if item.get("ref") else {}),
            "asked": item["image"],
            "variant": item["variant"],
            "environment": releases.masked(item["environment"]),
            "project": item["project"],
            "url": item["url"],
            "devices": item.get("devices") or [],
            "cpu_allowed": bool(item.get("cpu_allowed")),
            "outcome": releases.PREPARED,
            "replaces": before,
            "memory": item.get("memory"),
            "started": None,
            "duration_s": None,
            "reason": None,
            "proof": None,
        }

    def show(self, store, record, files, before):
        """Add to the diff what the new release changes."""
        former = store.records.get(before)
        old = {**store.files(before), "image": former["image"] + "\n"} if former else {}
        for name, content in sorted({**files, "image": record["image"] + "\n"}.items()):
            texts = [old.get(name, ""), content]
            if texts[0] == texts[1]:
                continue
            if name == "options.env":
                texts = ["(secret)\n" if texts[0] else "", "(secret, another)\n" if texts[0] else "(secret)\n"]
            headers = [f"{store.name}/{release}/{name}" for release in (before or "none", record["id"])]
            self.diff.append(dict(zip(("before_header", "after_header", "before", "after"), [*headers, *texts])))

    def found(self):
        """Return the release of each instance that a rollback goes to."""
        to, chosen = self.params["to"], []
        for store in self.stores.values():
            prepared, proven = store.prepared(), store.proven()
            records = [record for record in store.candidates() if self.docker.image(record["image_id"] or record["image"])]
            if to == "former" and prepared and prepared.get("rolled_back_from"):  # a rollback that was killed goes on
                chosen.append((store, prepared))
            elif to == "former" and proven and store.linked not in (None, proven["id"]):  # a switch was begun and not proven
                chosen.append((store, proven))
            elif to == "former":
                older = [r for r in records if not proven or releases.number(r["id"]) < releases.number(proven["id"])]
                chosen += [(store, record) for record in older[:1]]
            else:
                same = [proven] if proven and proven["id"] == to else []
                begun = [prepared] if prepared and prepared["id"] == to else []
                chosen += [(store, record) for record in [*same, *begun, *[r for r in records if r["id"] == to]][:1]]
        if not chosen:
            self.module.fail_json(msg=self.no_release(to))
        return [self.go_back(store, record) for store, record in chosen]

    def no_release(self, to):
        """Say that there is nothing to go back to, and list what there is."""
        lines = []
        for name, store in self.stores.items():
            for record in reversed(list(store.records.values())):
                there = store.complete(record) and self.docker.image(record["image_id"] or record["image"])
                use = "" if there else ", its image or its files are gone from this host"
                lines.append(f"  {name}: {record['id']} ({record['outcome']}, {record['time']}, {record.get('image')}{use})")
        what = "no former release" if to == "former" else f"no release {to} that can be gone back to"
        return (
            f"This host has {what} (iopaint_rollback_to is '{to}'). Choose one that was current once and has its image:\n"
            + ("\n".join(lines) or "  there is none at all")
            + "\nNothing was changed."
        )

    def go_back(self, store, record):
        """Take an earlier release up again; one that serves already needs nothing."""
        proven = store.proven()
        if proven and record["id"] == proven["id"]:
            if not self.module.check_mode:
                self.supersede(store, None)
            return store.to_run({**record, "replaces": None}, store.linked != record["id"])
        if record["outcome"] != releases.PREPARED and not self.module.check_mode:
            self.supersede(store, None)
            before = proven["id"] if proven else None
            record.update(replaces=before, rolled_back_from=before, started=None, duration_s=None, reason=None)
            store.end(record, releases.PREPARED)
            self.log("rollback prepared", store.name, record, reason=before and f"to take the place of {before}")
        return store.to_run({**record, "replaces": record.get("replaces") or (proven or {}).get("id")}, True)

    # --- switched, kept, back ----------------------------------------------------------------------------------------

    def switched(self):
        """Let the link of each instance name its release."""
        for item in self.params["instances"]:
            store = self.stores[item["name"]]
            record = store.records[item["id"]]
            if not item["new"] or (store.linked == item["id"] and record.get("started")):
                continue
            if record["outcome"] == releases.PREPARED:
                record.update(started=audit.now(), started_uptime=uptime())
                store.save(record)
            store.point(item["id"])
            self.log("switched", item["name"], record)
        return self.params["instances"]

    def kept(self):
        """Record that the releases were proven; the images of those that are not kept go."""
        done = []
        for item in self.params["instances"]:
            store = self.stores[item["name"]]
            record = store.records[item["id"]]
            proof = self.params["proofs"].get(item["name"])
            if proof:
                record["proof"] = {"time": audit.now(), **{key: proof.get(key) for key in PROOF}}
            facts = {}
            if record["outcome"] == releases.PREPARED:
                facts = self.times(item, record)
                record.update(facts)
            before = record["outcome"]
            store.end(record, releases.CURRENT, record.get("reason"))
            for other in list(store.records.values()):
                if other["outcome"] == releases.CURRENT and other["id"] != record["id"]:
                    store.end(other, releases.FORMER)
            if before != releases.CURRENT:
                self.log("kept", item["name"], record, must=False, outcome=releases.CURRENT, proof=record["proof"], **facts)
            if item.get("failed"):
                self.log("put back", item["name"], record, must=False, reason=f"{item['failed']} failed", proof=record["proof"])
            done.append({**item, **facts})
        return done

    def times(self, item, record):
        """Return how long the switch took in all, and for how long of that nothing served."""
        took = uptime() - (record.get("started_uptime") or 0)
        if not record.get("started_uptime") or took < 0:  # the host was started anew in between
            return {"duration_s": None, "without_service_s": None}
        gap = self.gap(item["project"], time.time() - took - 1)
        without = gap if gap is not None and 0 <= gap <= took else took
        return {"duration_s": round(took, 1), "without_service_s": round(without, 1) if record.get("replaces") else None}

    def gap(self, project, since):
        """Return the seconds from the end of the former container to the health of the new one, by the engine's events."""
        command = ["events", "--since", f"{since:.3f}", "--until", f"{time.time():.3f}", "--format", "{{json .}}"]
        filters = [
            "type=container",
            f"label={containers.PROJECT}={project}",
            "event=die",
            "event=kill",
            "event=health_status",
        ]
        rc, out, _err = self.docker.run(*command, *(word for each in filters for word in ("--filter", each)))
        if rc != 0:
            return None
        events = [json.loads(line) for line in out.splitlines() if line.strip()]
        ended = [event["timeNano"] for event in events if event["Action"] in ("kill", "die")]
        healthy = [event["timeNano"] for event in events if event["Action"] == "health_status: healthy"]
        return (healthy[-1] - ended[0]) / 1e9 if ended and healthy else None

    def back(self):
        """Record that the new releases failed, and let each link name the former one; return the former ones."""
        former = []
        for item in self.params["instances"]:
            store = self.stores[item["name"]]
            record = store.records[item["id"]]
            if not item["new"] or record["outcome"] != releases.PREPARED:
                continue
            took = round(max(0.0, uptime() - record["started_uptime"]), 1) if record.get("started_uptime") else None
            record["duration_s"] = took
            store.end(record, releases.FAILED, self.params["reason"])
            replaced = store.records.get(record.get("replaces"))
            back = f"back to {replaced['id']}" if replaced else "there is no former release"
            if replaced:
                store.point(replaced["id"])
                former.append({**store.to_run(replaced, False), "failed": item["id"]})
            facts = {"outcome": releases.FAILED, "reason": self.params["reason"], "then": back, "duration_s": took}
            self.log("failed", item["name"], record, must=False, **facts)
        return former

    # --- prune -------------------------------------------------------------------------------------------------------

    def prune(self):
        """Remove our images that no release needs any more, and build cache over its limit; return the images' names."""
        stores = [releases.Releases(self.params["dir"], name) for name in containers.folders(self.params["dir"])]
        if any(store.damaged for store in stores):  # what they need is not known
            self.module.warn("No image was removed, as there are records of releases that can't be read.")
            return []
        kept, past, ours = set(), set(), set(OURS)
        for store in stores:
            proven = store.proven()
            ranked = ([proven] if proven else []) + store.candidates()
            needed = ranked[: max(1, self.params["keep"])]
            needed += [record for record in store.records.values() if record["outcome"] == releases.PREPARED]
            kept |= {record.get("image_id") for record in needed}
            past |= {record.get("image_id") for record in store.records.values()}
            ours |= repositories(store.records.values())
            for record in store.records.values():
                if record not in needed and record["outcome"] != releases.PREPARED and store.complete(record):
                    store.strip(record)
        images = find(self.docker)
        newest = max((image["Created"] for image in images if image["Id"] in kept), default="")
        # One that no release has had yet and that is newer than those in use was made ahead, for the next.
        old = [image for image in images if image["Id"] not in kept and (image["Id"] in past or image["Created"] < newest)]
        removed = [name for image in old for name in self.remove(image, ours)]
        self.prune_cache()
        return removed

    def remove(self, image, ours):
        """Remove an image unless it is the latest of its variant, or has a name that is somebody else's."""
        tags = image.get("RepoTags") or []
        foreign = [tag for tag in tags if repository(tag) not in ours]
        if foreign or any(tag.endswith("-latest") for tag in tags):
            return []
        held = [tag for tag in tags if repository(tag) == HELD]
        names = tags if labelled(image) else held  # an image of the user's own keeps the name that he gave
        if labelled(image) and (not tags or image.get("RepoDigests")):
            names = [*names, image["Id"]]  # the digest that it was pulled by would hold it
        removed = []
        for name in names:
            rc, _out, err = self.docker.run("image", "rm", name)
            if rc == 0:
                removed.append(name)
                continue
            if "is using" not in err and "in use" not in err:  # what a container was made from stays
                self.module.warn(f"The image {name} could not be removed: {err.strip()}")
            break
        return removed

    def prune_cache(self):
        """Let the engine drop the least recently used build cache over the limit."""
        limit = self.params["build_cache"]
        if limit < 0:
            return
        rc, _out, err = self.docker.run("builder", "prune", "--force", "--keep-storage", str(limit))
        if rc != 0:
            self.module.warn(f"The build cache could not be pruned: {err.strip()}")

    # --- listed ------------------------------------------------------------------------------------------------------

    def listed(self):
        """Return the records of each instance, and whether the image that it wants is there."""
        return [self.state_of(self.stores[item["name"]], item) for item in self.params["instances"]]

    def state_of(self, store, item):
        """Return what is known of one instance."""
        proven = store.proven()
        return {
            "name": store.name,
            "current": store.linked,
            "proven": proven["id"] if proven else None,
            "releases": list(store.records.values()),
            "damaged": sorted(store.damaged),
            "image": item.get("image"),
            "image_there": bool(item.get("image") and self.docker.image(item["image"])),
        }


def main():
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["prepared", "switched", "kept", "back", "listed"], "required": True},
            "dir": {"type": "path", "required": True},
            "instances": {"type": "list", "elements": "dict", "required": True},
            "to": {"type": "str"},
            "owner": {"type": "dict", "default": {}},
            "proofs": {"type": "dict", "default": {}},
            "reason": {"type": "str", "default": ""},
            "keep": {"type": "int", "default": 3},
            "build_cache": {"type": "int", "default": -1},
            "audit": {"type": "path", "default": audit.LOG},
        },
        supports_check_mode=True,
        no_log=True,  # no options in the host's log: they may be secret
    )
    state = module.params["state"]
    for item in module.params["instances"]:
        secrets = [str(value) for name, value in (item.get("environment") or {}).items() if releases.SECRET.search(name)]
        contents = [file["content"] for file in item.get("files", []) if isinstance(file, dict) and file.get("secret")]
        module.no_log_values.update(value for value in [*secrets, *contents] if value and value != "***")
    steps = Steps(module)
    result = {"changed": False}
    try:
        if module.check_mode and state in ("switched", "kept", "back"):
            module.exit_json(instances=module.params["instances"], rebuilt=[], **result)
        result["instances"] = getattr(steps, state)()
        if state == "prepared":
            result["memory_available"] = memory_available()
        if state in ("prepared", "switched"):
            result["changed"] = any(item["new"] for item in result["instances"])
        if state == "prepared":
            result["unlisted"] = [name for name in containers.folders(module.params["dir"]) if name not in steps.stores]
        if state == "listed":
            _root, result["free"] = steps.docker.room()
        if state == "back":
            result["changed"] = bool(result["instances"])
        if state == "kept":
            new = [item for item in result["instances"] if item["new"]]
            result["pruned"] = steps.prune() if new else []
            result["changed"] = bool(new)
    except OSError as error:
        module.fail_json(msg=f"The releases in {module.params['dir']} (iopaint_dir) could not be read or written: {error}")
    result["changed"] = result["changed"] or bool(steps.rebuilt)
    module.exit_json(rebuilt=steps.rebuilt, **({"diff": steps.diff} if module._diff else {}), **result)


if __name__ == "__main__":
    main()
