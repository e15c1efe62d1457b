#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: the releases of a host's instances, from prepared to kept or reverted."""

from __future__ import annotations

DOCUMENTATION = r"""
module: release
short_description: Prepare, switch, record, revert and list releases of instances
version_added: 1.0.0
description:
  - Deploy, upgrade and rollback make a release current in the same steps. V(prepared) writes the folder of a new release.
    V(switched) points the link C(current) to it, and compose starts what the link names. V(kept) records that the release
    was proven. V(reverted) records why it failed, and points the link to the previous release.
  - An instance that takes the port of another one is switched together with it. The other instance is stopped first, and
    started again if the switch fails. If the switch succeeds, an instance without a release in it is displaced. It stays
    stopped and its container is removed. Its files and data stay.
  - Running the same play again resumes after an interrupted step.
  - A record that can't be read is named in a warning and rebuilt from the release's files and from what runs.
options:
  state:
    description: The step.
    type: str
    choices: [prepared, switched, kept, reverted, listed]
    required: true
  dir:
    description: Folder on the host with a folder for each instance.
    type: path
    required: true
  instances:
    description:
      - "V(prepared): the wanted releases, as the filter C(instance_releases) returns them. With O(to) only C(name) each, or
        nothing for all instances that have releases."
      - "V(switched), V(kept), V(reverted): what V(prepared) returned."
      - "V(listed): the instances, C(name) each, or nothing for all instances that have releases."
    type: list
    elements: dict
    required: true
  to:
    description: "V(prepared): roll back to a release on the host instead of making one; V(previous) or the ID of a release."
    type: str
  proofs:
    description:
      - "V(kept): results of iopaint.fleet.inpaint_check by instance. A new release whose proof took three times as long as the
        proof of the release before is named in a warning."
    type: dict
    default: {}
  displaced:
    description:
      - "V(switched), V(kept), V(reverted): the instances that are stopped for this group, as V(prepared) returned them in
        RV(groups)."
    type: list
    elements: dict
    default: []
  reason:
    description: "V(reverted): why the release failed."
    type: str
    default: ""
  keep:
    description: How many releases of an instance keep their image, including the current one.
    type: int
    default: 3
  build_cache:
    description: Bytes that the engine's build cache may hold once a new release is current; a negative number is no limit.
    type: int
    default: -1
extends_documentation_fragment: [iopaint.fleet.names, iopaint.fleet.audit]
attributes:
  check_mode:
    support: full
    description: Reports what would be prepared. The other steps do nothing.
  diff_mode:
    support: full
    description: Shows the differences between the files of the current release and the new one, without options.
requirements: [docker]
author: iopaint.fleet contributors (@iopaint)
"""

EXAMPLES = r"""
- name: Prepare the release of each instance
  iopaint.fleet.release:
    state: prepared
    dir: /opt/iopaint/instances
    instances: "{{ wanted }}"
    owner: "{{ lock.owner }}"
  register: prepared

- name: Switch to the releases of the first group
  iopaint.fleet.release:
    state: switched
    dir: /opt/iopaint/instances
    instances: "{{ prepared.groups[0].instances }}"
    displaced: "{{ prepared.groups[0].displaced }}"
    owner: "{{ lock.owner }}"
"""

RETURN = r"""
instances:
  description:
    - One entry for each instance. C(name), release C(id), C(new) (whether it is still to be switched to and proven),
      C(before) (the ID of the release that it replaces) and what is needed to run and prove it (C(path), C(folder),
      C(files), C(settings) (the variables of the compose file), C(variant), C(project), C(url), C(image), C(devices),
      C(cpu_allowed), C(memory)).
    - C(packages), what it changed in the Debian packages of the image, as sentences such as V(libssl3 3.0.15-1 → 3.0.16-1);
      empty after a rollback.
    - After V(prepared) also C(unhealthy), whether the engine calls the container of the instance unhealthy.
    - After V(kept) also C(without_service_s) and C(duration_s) of new releases, and C(displaced), the names of the instances
      whose port it has taken.
    - After V(reverted) only the instances that are to be started again.
    - With V(listed) C(releases), the records, oldest first, C(current) (the release that the link names), C(proven) (the
      release that served last), C(damaged) (records that can't be read) and C(image_there).
  type: list
  elements: dict
  returned: success
unmanaged:
  description: Instances that have releases on the host and are not among O(instances).
  type: list
  elements: str
  returned: with O(state=prepared)
groups:
  description:
    - The instances in groups that are switched together, each with C(instances) and C(displaced).
    - C(displaced) has the instances of the host that hold a port of the group and have no release in this switch. C(by) names
      the instance that takes the port.
    - A group is one instance, unless instances exchange ports.
  type: list
  elements: dict
  returned: with O(state=prepared)
begun:
  description: Whether the switch had begun. Otherwise nothing that runs was touched, and nothing is to be started again.
  type: bool
  returned: with O(state=reverted)
memory_available:
  description: Bytes of memory that are available without swapping.
  type: int
  returned: with O(state=prepared)
rebuilt:
  description: Records that could not be read and were rebuilt.
  type: list
  elements: str
  returned: always
free:
  description: Bytes that are free on the file system of the engine's data.
  type: int
  returned: with O(state=listed)
pruned:
  description: Names of images that were removed.
  type: list
  elements: str
  returned: with O(state=kept)
"""

import time

from ansible_collections.iopaint.fleet.plugins.module_utils import audit, containers, foreign, network, releases
from ansible_collections.iopaint.fleet.plugins.module_utils.docker_cli import Docker
from ansible_collections.iopaint.fleet.plugins.module_utils.image_files import debian_packages
from ansible_collections.iopaint.fleet.plugins.module_utils.images import (
    HELD,
    LABEL,
    OURS,
    built_at,
    find,
    labelled,
    repositories,
    repository,
)
from ansible_collections.iopaint.fleet.plugins.module_utils.names import named
from ansible_collections.iopaint.fleet.plugins.module_utils.quiet import QuietModule
from ansible_collections.iopaint.fleet.plugins.module_utils.text import version_changes

PROOF = ("model", "latency_ms", "seconds_per_step", "gpu_memory_bytes", "pixels")


def uptime():
    """Return seconds since the host's boot, which no change of its clock touches."""
    return round(time.clock_gettime(time.CLOCK_BOOTTIME), 3)


def memory_available():
    """Return the bytes of memory that are available without swapping, as the kernel estimates."""
    with open("/proc/meminfo", encoding="ascii") as stream:
        (line,) = [line for line in stream if line.startswith("MemAvailable:")]
    return int(line.split()[1]) * 1024


class Steps:
    """The steps over all instances of a host."""

    def __init__(self, module):
        """Read the records, and rebuild those that can't be read."""
        self.module, self.params = module, module.params
        self.docker, self.owner = Docker(module), module.params["owner"]
        self.rebuilt, self.diff, self.stopped, self.begun = [], [], False, False
        self.read = {}  # Debian packages of images, by ID
        names = [item["name"] for item in [*self.params["instances"], *self.params["displaced"]]]
        if not names and (self.params["to"] or self.params["state"] == "listed"):
            names = containers.folders(self.params["dir"])
        self.unmanaged = [name for name in containers.folders(self.params["dir"]) if name not in names]
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
            self.module.warn(
                f"The audit log {self.params['audit']} ({named(self.module, 'audit')}) could not be written: {error}"
            )

    # --- prepared ----------------------------------------------------------------------------------------------------

    def remove_candidates(self):
        """Remove the candidates that a killed play left behind."""
        row = f'{{{{.ID}}}} {{{{.Label "{containers.PROJECT}"}}}}'
        _rc, out, _err = self.docker.run("ps", "--all", "--filter", f"label={containers.PROJECT}", "--format", row)
        candidates = {containers.candidate_project(name) for name in self.stores}
        left = [words.split(maxsplit=1) for words in out.splitlines() if words.partition(" ")[2] in candidates]
        if not self.module.check_mode:
            for container, project in left:
                self.docker.run("rm", "--force", container)
                self.docker.run("network", "rm", f"{project}_default")

    def held(self, *options):
        """Return the engine's documents of the running containers of each instance, without candidates; with --all of all."""
        found = {}
        for document in containers.documents(self.docker, *options):
            name = containers.instance_of(document, self.params["dir"])
            if name and not containers.is_candidate(document, name):
                found.setdefault(name, []).append(document)
        return found

    def groups(self, items):
        """Return the entries in groups that are switched together, each with the instances of the host that it displaces.

        Instances that take each other's ports are in one group.
        """
        ports = {name: [pair for each in found for pair in containers.published(each)] for name, found in self.held().items()}
        takes = {item["name"]: self.takes(item, ports) for item in items}
        groups = []
        for item in items:
            names = {item["name"], *takes[item["name"]]}
            joined = [group for group in groups if names & group]
            groups = [group for group in groups if group not in joined] + [names.union(*joined)]
        found = []
        for item in items:  # in the order of the instances
            group = next(names for names in groups if item["name"] in names)
            if any(item in each["instances"] for each in found):
                continue
            members = [each for each in items if each["name"] in group]
            others = sorted(group - {each["name"] for each in members})
            takers = {name: next(each["name"] for each in members if name in takes[each["name"]]) for name in others}
            found.append({"instances": members, "displaced": [self.displaced(name, taker) for name, taker in takers.items()]})
        return found

    def takes(self, item, ports):
        """Return the names of other instances that hold the port of this one, or that a killed play stopped for it."""
        wanted = releases.wanted_port(item["settings"])
        holders = {name for name, pairs in ports.items() if wanted and any(network.overlap(wanted, pair) for pair in pairs)}
        stopped = (self.stores[item["name"]].records.get(item["id"]) or {}).get("stopped") or []
        return (holders | {name for name in stopped if name in containers.folders(self.params["dir"])}) - {item["name"]}

    def displaced(self, name, taker):
        """Return what is needed to stop an instance for another one, and to start it again."""
        store = self.stores[name] if name in self.stores else self.stores.setdefault(name, self.store(name))
        proven = store.proven()
        return {**(store.to_run(proven) if proven else {"name": name, "id": None}), "by": taker}

    def prepared(self):
        """Return the release of each instance that is to be current; make those that are missing."""
        if self.params["to"]:
            done = self.rollback_targets()
        else:
            images = {item["name"]: self.image(item) for item in self.params["instances"]}
            done = [self.prepare(self.stores[item["name"]], item, images[item["name"]]) for item in self.params["instances"]]
        self.remove_candidates()
        return self.with_health(done)

    def with_health(self, done):
        """Return the entries with `unhealthy`, whether the engine calls the instance's container unhealthy."""
        unhealthy = containers.unhealthy_projects(self.docker)
        return [{**item, "unhealthy": item["project"] in unhealthy} for item in done]

    def image(self, item):
        """Return the engine's document of the image that an instance wants; fail the module where it is missing."""
        image = self.docker.image(item["image"])
        if image is None and not self.module.check_mode:
            self.module.fail_json(
                msg=f"The image {item['image']} of the instance {item['name']} is not on the host. Build it first "
                f"(iopaint.fleet.build), or name another one in {named(self.module, 'instances[].image')}. "
                "Nothing that runs was touched."
            )
        return image or {}

    def prepare(self, store, item, image):
        """Return the entry of the release that an instance wants; make the release unless there is one of the same content."""
        files = {file["name"]: file["content"] for file in item["files"]}
        wanted = releases.fingerprint(files, image.get("Id"))
        proven, prepared = store.proven(), store.prepared()
        if proven and store.made_of(proven, wanted):
            new = store.linked != proven["id"]
            if not self.module.check_mode:
                self.supersede(store)
                if new:  # a switch to another release had begun
                    self.log("prepared", store.name, proven, outcome="taken up again")
            return store.to_run({**proven, "rolled_back_from": None}, new)
        if prepared and store.made_of(prepared, wanted):
            return store.to_run(prepared, True)
        before = proven["id"] if proven else releases.takes_place_of(prepared or {})
        record = self.new_record(store, item, image, before)
        self.show(store, record, files, before)
        content = releases.pin(files[".env"], item["image_variable"], record["image"])
        if not self.module.check_mode:
            self.supersede(store)
            name, mode = ".env", 0o644
            rest = [(f["name"], f["content"], int(f["mode"], 8)) for f in item["files"] if f["name"] != ".env"]
            store.add(record, [(name, content, mode), *rest])
            why = {"reason": before and f"to take the place of {before}", "packages": record["packages"] or None}
            self.log("prepared", store.name, record, ref=record["ref"], **why)
        return {**store.to_run(record, True), "settings": releases.from_dotenv(content)}

    def supersede(self, store):
        """Record that the prepared releases of an instance won't become current."""
        for record in list(store.records.values()):
            if record["outcome"] == releases.PREPARED:
                store.end(record, releases.SUPERSEDED, record.get("reason") or "another release was wanted before it was proven")

    def new_record(self, store, item, image, before):
        """Return the record of a new release; tag its image with a fixed name where its own name may move."""
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
            "packages": self.package_changes(store.records.get(before), image),
            "asked": item["image"],
            "variant": item["variant"],
            "environment": releases.without_secrets(item["environment"]),
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

    def package_changes(self, previous, image):
        """Return what the image changes in the Debian packages of a previous release; nothing where that is not known."""
        ids = [(previous or {}).get("image_id"), image.get("Id")]
        if self.module.check_mode or not all(ids) or ids[0] == ids[1] or not labelled(image):
            return []
        before, after = (self.packages(each) for each in ids)
        return version_changes(before, after) if before and after else []

    def packages(self, image_id):
        """Return the Debian packages of an image, versions by name; each image is read once."""
        if image_id not in self.read:
            self.read[image_id] = debian_packages(self.docker, image_id)
        return self.read[image_id]

    def show(self, store, record, files, before):
        """Add to the diff what the new release changes."""
        previous = store.records.get(before)
        old = {**store.files(before), "image": previous["image"] + "\n"} if previous else {}
        for name, content in sorted({**files, "image": record["image"] + "\n"}.items()):
            texts = [old.get(name, ""), content]
            if texts[0] == texts[1]:
                continue
            if name == "options.env":
                texts = ["(secret)\n" if texts[0] else "", "(secret, another)\n" if texts[0] else "(secret)\n"]
            headers = [f"{store.name}/{release}/{name}" for release in (before or "none", record["id"])]
            self.diff.append(dict(zip(("before_header", "after_header", "before", "after"), [*headers, *texts])))

    def rollback_targets(self):
        """Return the entry of the release that each instance is rolled back to."""
        to, chosen = self.params["to"], []
        for store in self.stores.values():
            displaced = store.displaced()
            if displaced and to == "previous":
                chosen += [(store, displaced)] if self.can_return(store, displaced) else []
                continue
            prepared, proven = store.prepared(), store.proven()
            records = [record for record in store.targets() if self.docker.image(record["image_id"] or record["image"])]
            if to == "previous" and prepared and prepared.get("rolled_back_from"):  # resume a killed rollback
                chosen.append((store, prepared))
            elif to == "previous" and proven and store.linked not in (None, proven["id"]):  # a switch had begun
                chosen.append((store, proven))
            elif to == "previous":
                chosen += [(store, record) for record in store.earlier(records)[:1]]
            else:
                same = [proven] if proven and proven["id"] == to else []
                begun = [prepared] if prepared and prepared["id"] == to else []
                chosen += [(store, record) for record in [*same, *begun, *[r for r in records if r["id"] == to]][:1]]
        if not chosen:
            self.module.fail_json(msg=self.no_release(to))
        return [self.roll_back(store, record) for store, record in self.compatible(chosen)]

    def can_return(self, store, record):
        """Return whether the release that displaced an instance is still current, and the displaced one can run."""
        taker, _slash, release_id = record["displaced_by"].partition("/")
        current = self.stores[taker].proven() if taker in self.stores else None
        there = store.complete(record) and self.docker.image(record["image_id"] or record["image"])
        return bool(there and current and current["id"] == release_id)

    def compatible(self, chosen):
        """Return the pairs of store and record that can serve together; fail the module where two want one port."""
        found = []
        for store, record in sorted(chosen, key=lambda pair: bool(pair[0].displaced())):
            wanted = releases.wanted_port(store.to_run(record)["settings"])
            rivals = [other for other, _record, port in found if wanted and port and network.overlap(wanted, port)]
            if rivals and store.displaced():  # another instance has its port now
                continue
            if rivals:
                self.module.fail_json(
                    msg=f"The releases that {rivals[0].name} and {store.name} would roll back to both publish port {wanted[1]}. "
                    f"Name the release of one of them with {named(self.module, 'to')}. Nothing was changed."
                )
            found.append((store, record, wanted))
        return [(store, record) for store, record, _port in found]

    def no_release(self, to):
        """Return the error that there is no release to roll back to; it lists the releases of the host."""
        lines = []
        for name, store in self.stores.items():
            for record in reversed(list(store.records.values())):
                there = store.complete(record) and self.docker.image(record["image_id"] or record["image"])
                use = "" if there else ", its image or its files are gone from this host"
                lines.append(f"  {name}: {record['id']} ({record['outcome']}, {record['time']}, {record.get('image')}{use})")
        what = "no previous release" if to == "previous" else f"no release {to} to roll back to"
        return (
            f"This host has {what} ({named(self.module, 'to')} is '{to}'). "
            "Choose a release that was current once and has its image:\n"
            + ("\n".join(lines) or "  none")
            + "\nNothing was changed."
        )

    def roll_back(self, store, record):
        """Prepare an earlier release again, unless it serves already; return its entry."""
        proven = store.proven()
        if proven and record["id"] == proven["id"]:
            if not self.module.check_mode:
                self.supersede(store)
            return store.to_run({**record, "rolled_back_from": None}, store.linked != record["id"])
        if record["outcome"] != releases.PREPARED and not self.module.check_mode:
            self.supersede(store)
            before = proven["id"] if proven else None
            record.update(rolled_back_from=before, started=None, duration_s=None, reason=None)
            store.end(record, releases.PREPARED)
            self.log("rollback prepared", store.name, record, reason=before and f"to take the place of {before}")
        return store.to_run({**record, "rolled_back_from": (proven or {}).get("id") or releases.takes_place_of(record)}, True)

    # --- switched, kept, reverted ------------------------------------------------------------------------------------

    def switched(self):
        """Stop the instances that change ports, and point the link of each instance to its release."""
        items, names, switching = self.params["instances"], self.grouped(), []
        for item in items:
            store = self.stores[item["name"]]
            record = store.records[item["id"]]
            if names:  # so that the same play can resume if this one is killed
                record["stopped"] = [name for name in names if name != item["name"]]
                store.save(record)
            if not item["new"] or (store.linked == item["id"] and record.get("started")):
                continue
            if record["outcome"] == releases.PREPARED:
                record.update(started=audit.now(), started_uptime=uptime())
                store.save(record)
            switching.append((store, record))
        self.stop(names)
        for store, record in switching:
            store.point(record["id"])
            self.log("switched", store.name, record)
        return items

    def grouped(self):
        """Return the names of the instances to stop before the first is started; none where the group is one instance."""
        names = [item["name"] for item in [*self.params["instances"], *self.params["displaced"]]]
        return names if len(names) > 1 else []

    def stop(self, names):
        """Stop the containers of instances; each has its own grace period."""
        found = [document["Id"] for name, held in self.held().items() if name in names for document in held]
        if found:
            self.docker.run("stop", *found, check_rc=True)
            self.stopped = True

    def kept(self):
        """Record that the releases were proven, and the instances that they displaced."""
        done = []
        for item in self.params["instances"]:
            store = self.stores[item["name"]]
            record = store.records[item["id"]]
            proof = self.params["proofs"].get(item["name"])
            if proof:
                record["proof"] = {"time": audit.now(), **{key: proof[key] for key in PROOF if proof.get(key) is not None}}
            facts = {}
            if record["outcome"] == releases.PREPARED:
                self.compare(store, record)
                facts = self.times(item, record)
                record.update(facts)
            before = record["outcome"]
            record.pop("displaced_by", None)
            store.end(record, releases.CURRENT, record.get("reason"))
            for other in list(store.records.values()):
                if other["outcome"] == releases.CURRENT and other["id"] != record["id"]:
                    store.end(other, releases.PREVIOUS)
            if before != releases.CURRENT:
                self.log("kept", item["name"], record, must=False, outcome=releases.CURRENT, proof=record["proof"], **facts)
            if item.get("failed"):
                self.log("reverted", item["name"], record, must=False, reason=f"{item['failed']} failed", proof=record["proof"])
            displaced = [entry["name"] for entry in self.params["displaced"] if entry["by"] == item["name"]]
            for name in displaced:
                self.retire(name, f"{item['name']}/{item['id']}")
            if record.pop("stopped", None):
                store.save(record)
            done.append({**item, **facts, "displaced": displaced})
        return done

    def compare(self, store, record):
        """Warn if the proof of a new release took much longer than the proof of the release that it replaces."""
        before = store.records.get(releases.takes_place_of(record)) or {}
        slower = releases.slowdown(record["proof"], before.get("proof"))
        if slower:
            self.module.warn(
                f"{store.name}: {slower}. If you did not expect that, see whether the host is busy, and whether a GPU instance "
                f"computes on its GPU. {before['id']} is the release before; iopaint.fleet.rollback makes it current again."
            )

    def retire(self, name, taker):
        """Record that an instance was displaced, and remove its container; files and data stay."""
        store = self.stores[name]
        self.supersede(store)
        for record in list(store.records.values()):
            if record["outcome"] == releases.CURRENT:
                record["displaced_by"] = taker
                store.end(record, releases.PREVIOUS)
                self.log("displaced", name, record, must=False, reason=f"{taker} has taken its port")
        store.unlink()
        for document in self.held("--all").get(name, []):
            self.docker.run("rm", "--force", document["Id"], check_rc=True)

    def times(self, item, record):
        """Return the seconds that the switch took, and those of them in which nothing served."""
        took = uptime() - (record.get("started_uptime") or 0)
        if not record.get("started_uptime") or took < 0:  # the host was rebooted in between
            return {"duration_s": None, "without_service_s": None}
        gap = self.gap(item["project"], time.time() - took - 1)
        without = gap if gap is not None and 0 <= gap <= took else took
        return {"duration_s": round(took, 1), "without_service_s": round(without, 1) if releases.takes_place_of(record) else None}

    def gap(self, project, since):
        """Return the seconds from the end of the previous container to the health of the new one, by the engine's events."""
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
        try:
            events = [foreign.parse_json(line, dict) for line in out.splitlines() if line.strip()]
        except foreign.ForeignError:
            return None
        events = [event for event in events if isinstance(event.get("timeNano"), int)]
        ended = [event["timeNano"] for event in events if event.get("Action") in ("kill", "die")]
        healthy = [event["timeNano"] for event in events if event.get("Action") == "health_status: healthy"]
        return (healthy[-1] - ended[0]) / 1e9 if ended and healthy else None

    def reverted(self):
        """Record that the new releases failed, and point the links to the previous ones; return the entries to start again."""
        previous, names = [], self.grouped()
        pairs = [(item, self.stores[item["name"]].records[item["id"]]) for item in self.params["instances"]]
        self.begun = any(record.get("started") or record.get("stopped") for _item, record in pairs)
        if self.begun:
            self.stop(names)
        for item, record in pairs:
            store = self.stores[item["name"]]
            if not item["new"] or record["outcome"] != releases.PREPARED:
                previous += [store.to_run(record)] if names else []
                continue
            took = round(max(0.0, uptime() - record["started_uptime"]), 1) if record.get("started_uptime") else None
            record["duration_s"] = took
            store.end(record, releases.FAILED, self.params["reason"])
            replaced = store.records.get(releases.takes_place_of(record))
            then = f"reverted to {replaced['id']}" if replaced else "there is no previous release"
            if not self.begun:
                then = "before the switch, so nothing that runs was touched"
            elif replaced:
                store.point(replaced["id"])
                previous.append({**store.to_run(replaced, False), "failed": item["id"]})
            facts = {"outcome": releases.FAILED, "reason": self.params["reason"], "then": then, "duration_s": took}
            self.log("failed", item["name"], record, must=False, **facts)
        failed = {item["name"]: item["id"] for item in self.params["instances"]}
        previous += [
            {**entry, "failed": f"{entry['by']}/{failed[entry['by']]}"} for entry in self.params["displaced"] if entry["id"]
        ]
        return previous if self.begun else []

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
            ranked = ([proven] if proven else []) + store.targets()
            needed = ranked[: max(1, self.params["keep"])]
            needed += [record for record in store.records.values() if record["outcome"] == releases.PREPARED]
            kept |= {record.get("image_id") for record in needed}
            past |= {record.get("image_id") for record in store.records.values()}
            ours |= repositories(store.records.values())
            for record in store.records.values():
                if record not in needed and record["outcome"] != releases.PREPARED and store.complete(record):
                    store.strip(record)
        images = find(self.docker)
        newest = max((built_at(image) for image in images if image["Id"] in kept), default="")
        # An image that no release has used and that is newer than those in use was built ahead, for the next release.
        old = [image for image in images if image["Id"] not in kept and (image["Id"] in past or built_at(image) < newest)]
        removed = [name for image in old for name in self.remove(image, ours)]
        self.prune_cache()
        return removed

    def remove(self, image, ours):
        """Remove an image unless it is the latest of its variant or has a name that is not ours; return the removed names."""
        tags = image.get("RepoTags") or []
        foreign = [tag for tag in tags if repository(tag) not in ours]
        if foreign or any(tag.endswith("-latest") for tag in tags):
            return []
        held = [tag for tag in tags if repository(tag) == HELD]
        names = tags if labelled(image) else held  # an image of the user's own keeps its name
        if labelled(image) and (not tags or image.get("RepoDigests")):
            names = [*names, image["Id"]]  # else the digest that it was pulled by would keep it
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
        """Remove the least recently used build cache over the limit."""
        limit = self.params["build_cache"]
        if limit < 0:
            return
        rc, _out, err = self.docker.run("builder", "prune", "--force", "--keep-storage", str(limit))
        if rc != 0:
            self.module.warn(f"The build cache could not be pruned: {err.strip()}")

    # --- listed ------------------------------------------------------------------------------------------------------

    def listed(self):
        """Return the records of each instance, and whether the wanted image is on the host."""
        wanted = {item["name"]: item for item in self.params["instances"]}
        return [self.state_of(store, wanted.get(name, {})) for name, store in self.stores.items()]

    def state_of(self, store, item):
        """Return what is known of one instance."""
        proven = store.proven()
        return {
            "name": store.name,
            "current": store.linked,
            "proven": proven["id"] if proven else None,
            "serving": store.to_run(proven) if proven else None,
            "releases": list(store.records.values()),
            "damaged": sorted(store.damaged),
            "image": item.get("image"),
            "image_there": bool(item.get("image") and self.docker.image(item["image"])),
        }


def main():
    """Run the module."""
    module = QuietModule(
        argument_spec={
            "state": {"type": "str", "choices": ["prepared", "switched", "kept", "reverted", "listed"], "required": True},
            "dir": {"type": "path", "required": True},
            "instances": {"type": "list", "elements": "dict", "required": True},
            "to": {"type": "str"},
            "owner": {"type": "dict", "default": {}},
            "proofs": {"type": "dict", "default": {}},
            "displaced": {"type": "list", "elements": "dict", "default": []},
            "reason": {"type": "str", "default": ""},
            "keep": {"type": "int", "default": 3},
            "build_cache": {"type": "int", "default": -1},
            "audit": {"type": "path", "default": audit.LOG},
            "names": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    state = module.params["state"]
    for item in module.params["instances"]:
        environment = {name: str(value) for name, value in (item.get("environment") or {}).items() if value != "***"}
        network.keep_secret(module, [environment])
        contents = [file["content"] for file in item.get("files", []) if isinstance(file, dict) and file.get("secret")]
        module.no_log_values.update(filter(None, contents))
    steps = Steps(module)
    result = {"changed": False}
    try:
        if module.check_mode and state in ("switched", "kept", "reverted"):
            module.exit_json(instances=module.params["instances"], rebuilt=[], **result)
        result["instances"] = getattr(steps, state)()
        if state == "prepared":
            result["memory_available"] = memory_available()
            result["groups"] = steps.groups(result["instances"])
        if state in ("prepared", "switched"):
            result["changed"] = any(item["new"] for item in result["instances"]) or steps.stopped
        if state == "prepared":
            result["unmanaged"] = steps.unmanaged
        if state == "listed":
            _root, result["free"] = steps.docker.room()
        if state == "reverted":
            result.update(changed=bool(result["instances"]), begun=steps.begun)
        if state == "kept":
            new = [item for item in result["instances"] if item["new"]]
            result["pruned"] = steps.prune() if new else []
            result["changed"] = bool(new or module.params["displaced"])
    except OSError as error:
        module.fail_json(
            msg=f"The releases in {module.params['dir']} ({named(module, 'dir')}) could not be read or written: {error}"
        )
    result["changed"] = result["changed"] or bool(steps.rebuilt)
    module.exit_json(rebuilt=steps.rebuilt, **({"diff": steps.diff} if module._diff else {}), **result)


if __name__ == "__main__":
    main()
