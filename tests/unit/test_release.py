# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Releases of instances: prepared, switched, kept, reverted, rolled back, pruned, rebuilt; killed after any step."""

import json
import os
import stat

import pytest
from ansible_collections.iopaint.fleet.plugins.module_utils.docker_cli import Docker
from ansible_collections.iopaint.fleet.plugins.modules import release

ANN = {"operator": "ann", "controller": "desk"}
SECRET = "hf_s3cr3t"
PORTS = {"cpu": 8080, "b": 8081}


class Engine:
    """What the module asks of docker."""

    def __init__(self):
        self.images, self.running, self.events, self.calls, self.used = {}, {}, [], [], set()
        self.containers = {}  # their compose projects
        self.packages = {}  # of images, by ID
        self.unhealthy = set()  # compose projects
        self.top, self.ports, self.stopped = None, {}, set()  # of instances: address and port; those whose container is stopped

    def have(self, name, recipe="abc", ref="v1"):
        """Hold an image, newer than those before it."""
        labels = {"org.opencontainers.image.version": ref, "org.opencontainers.image.revision": f"commit-{ref}"}
        labels.update({"io.iopaint.fleet.recipe": recipe} if recipe else {})
        document = {"Id": f"sha256:{name}", "RepoTags": [name], "RepoDigests": [], "Config": {"Labels": labels}}
        document["Created"] = f"2026-01-01T00:00:{len(self.images):02d}Z"
        self.images[name] = document
        return document

    def __call__(self, module):
        return self

    def document(self, name):
        """What the engine says of an instance's container."""
        labels = {
            "com.docker.compose.project": f"iopaint-{name}",
            "com.docker.compose.service": "iopaint-cpu",
            "com.docker.compose.project.working_dir": f"{self.top}/{name}/current",
        }
        address, port = self.ports[name]
        ports = {"8080/tcp": [{"HostIp": address, "HostPort": str(port)}]}
        return {"Id": name, "Config": {"Labels": labels}, "NetworkSettings": {"Ports": ports}}

    def start(self, item):
        """Start what compose would of an entry; fail where its port is another one's."""
        address, port = item["settings"]["BIND_ADDRESS"], int(item["settings"]["CPU_PORT"])
        assert (address, port) not in [self.ports[name] for name in self.ports if name not in {*self.stopped, item["name"]}]
        self.ports[item["name"]] = (address, port)
        self.stopped.discard(item["name"])

    def image(self, name):
        return next((image for key, image in self.images.items() if name in (key, image["Id"])), None)

    def info(self, field):
        return "/"

    room = Docker.room

    def run(self, *args, **kwargs):  # noqa: PLR0911, PLR0912 - one for each command
        self.calls.append(args)
        if args[0] == "tag":
            (image,) = [image for image in self.images.values() if image["Id"] == args[1]]
            image["RepoTags"].append(args[2])
            self.images[args[2]] = image
            return 0, "", ""
        if args[0] == "images":
            wanted = "Config" if "label" in args[-1] else "held"
            found = [i for i in self.images.values() if wanted == "held" or "io.iopaint.fleet.recipe" in i["Config"]["Labels"]]
            found = [i for i in found if wanted != "held" or any(t.startswith("iopaint-release:") for t in i["RepoTags"])]
            return 0, "".join(f"{image['Id']}\n" for image in found), ""
        if args[:2] == ("image", "rm"):
            if args[2] in self.used:
                return 1, "", "Error response from daemon: conflict: container 0123 is using its referenced image"
            image = self.image(args[2])
            if args[2] == image["Id"]:  # its digests go with it
                self.images = {name: each for name, each in self.images.items() if each is not image}
                return 0, "", ""
            image["RepoTags"].remove(args[2])
            held = image["RepoDigests"] and not image["RepoTags"]
            del self.images[args[2]]
            if held:
                self.images[image["RepoDigests"][0]] = image
            return 0, "", ""
        if args[:2] == ("ps", "--quiet"):
            return 0, "".join(f"{name}\n" for name in self.ports if name not in self.stopped or "--all" in args), ""
        if args[:2] == ("inspect", "--type"):
            return 0, json.dumps([self.document(name) for name in args[3:]]), ""
        if args[0] == "stop":
            self.stopped |= set(args[1:])
            return 0, "", ""
        if args[0] == "rm" and args[-1] in self.ports:
            del self.ports[args[-1]]
            return 0, "", ""
        if args[:2] == ("ps", "--all"):
            return 0, "".join(f"{name} {project}\n" for name, project in self.containers.items()), ""
        if args[0] in ("rm", "network"):
            self.containers.pop(args[-1], None)
            return 0, "", ""
        if "health=unhealthy" in args:
            return 0, "".join(f"{project}\n" for project in self.unhealthy), ""
        if args[0] == "ps":
            project = args[-1].rpartition("=")[2]
            return 0, f"{project}\n" if project in self.running else "", ""
        if args[0] == "inspect":
            return 0, self.running[args[-1]] + "\n", ""
        if args[0] == "events":
            return 0, "".join(json.dumps(event) + "\n" for event in self.events), ""
        if args[:2] == ("builder", "prune"):
            return 0, "", ""
        raise AssertionError(args)


@pytest.fixture
def docker(monkeypatch):
    engine = Engine()
    monkeypatch.setattr(release, "Docker", engine)
    monkeypatch.setattr(release, "debian_packages", lambda _docker, image_id: engine.packages.get(image_id, {}))
    for version in range(1, 8):
        engine.have(f"iopaint:cpu-v{version}-abc", ref=f"v{version}")
    return engine


@pytest.fixture
def top(tmp_path, docker):
    (tmp_path / "instances").mkdir()
    (tmp_path / "instances" / "photo.png").write_text("a file next to the instances")
    docker.top = tmp_path / "instances"
    return tmp_path / "instances"


def wanted(version=1, name="cpu", image=None, memory="6g", port=None):
    files = [
        {"name": "compose.yaml", "content": "services: {}\n", "mode": "0644"},
        {
            "name": ".env",
            "content": f"PROJECT='iopaint-{name}'\nCPU_PORT='{port or PORTS.get(name, 8085)}'\n"
            f"BIND_ADDRESS='0.0.0.0'\nMEMORY='{memory}'\n",
            "mode": "0644",
        },
        {"name": "options.env", "content": f"IOPAINT_MODEL='cv2'\nIOPAINT_HF_TOKEN='{SECRET}'\n", "mode": "0600", "secret": True},
    ]
    return {
        "name": name,
        "variant": "cpu",
        "image": image or f"iopaint:cpu-v{version}-abc",
        "image_variable": "CPU_IMAGE",
        "environment": {"IOPAINT_MODEL": "cv2", "IOPAINT_HF_TOKEN": SECRET},
        "project": f"iopaint-{name}",
        "url": "http://127.0.0.1:8080",
        "devices": [],
        "cpu_allowed": False,
        "files": files,
    }


@pytest.fixture
def step(run_module, docker, top, tmp_path):
    def call(state, instances, **options):
        arguments = {"dir": str(top), "owner": ANN, "audit": str(tmp_path / "audit.log"), **options}
        return run_module(release, state=state, instances=instances, **arguments)

    return call


PROOF = {"model": "cv2", "latency_ms": 12.5, "seconds_per_step": None, "pixels": {"masked": 9}}


@pytest.fixture
def deploy(step, docker):
    """A whole deploy, as the role does it; fails=True breaks off at its proof."""

    def call(*instances, fails=False, proof=PROOF, **options):
        default = [] if "to" in options else [wanted()]
        kept = []
        for group in step("prepared", list(instances) or default, **options)["groups"]:
            done, other = group["instances"], {"displaced": group["displaced"]}
            step("switched", done, **other)
            if fails:
                reverted = step("reverted", done, reason="it did not start", **other)["instances"]
                for item in reverted:
                    docker.start(item)
                kept += reverted
                continue
            for item in done:
                docker.start(item)
            proofs = {item["name"]: proof for item in done}
            kept += step("kept", done, proofs=proofs, keep=options.get("keep", 3), **other)["instances"]
        return kept

    return call


@pytest.fixture
def state(top):
    """Outcome by release, and what the link names."""

    def read(name="cpu"):
        folder = top / name
        records = {each.name: json.loads((each / "release.json").read_text()) for each in sorted((folder / "releases").iterdir())}
        return {key: record["outcome"] for key, record in records.items()}, os.readlink(folder / "current").rpartition("/")[2]

    return read


@pytest.fixture
def record(top):
    return lambda release_id, name="cpu": json.loads((top / name / "releases" / release_id / "release.json").read_text())


@pytest.fixture
def actions(tmp_path):
    return lambda: [json.loads(line)["action"] for line in (tmp_path / "audit.log").read_text().splitlines()]


ONE, TWO, THREE = (f"000{number}-cpu-v{number}-abc" for number in (1, 2, 3))


def test_a_first_release_has_its_files_and_its_record(deploy, record, top, state, actions):
    (done,) = deploy()
    assert state() == ({ONE: "current"}, ONE)
    folder = top / "cpu" / "current"
    assert sorted(os.listdir(folder)) == [".env", "compose.yaml", "options.env", "release.json"]
    assert (folder / ".env").read_text().startswith("CPU_IMAGE='iopaint:cpu-v1-abc'\nPROJECT='iopaint-cpu'\n")
    assert stat.S_IMODE((folder / "options.env").stat().st_mode) == 0o600
    written = record(ONE)
    assert (written["schema"], written["operator"], written["controller"]) == (1, "ann", "desk")
    assert (written["ref"], written["revision"], written["image_id"]) == ("v1", "commit-v1", "sha256:iopaint:cpu-v1-abc")
    assert written["environment"] == {"IOPAINT_MODEL": "cv2", "IOPAINT_HF_TOKEN": "***"}
    assert written["proof"].pop("time").endswith("Z")
    assert written["proof"] == {"model": "cv2", "latency_ms": 12.5, "pixels": {"masked": 9}}
    assert (done["before"], done["without_service_s"]) == (None, None)
    assert actions() == ["prepared", "switched", "kept"]


def test_instances_that_are_not_wanted_any_more_are_named(deploy, step):
    deploy(wanted(), wanted(name="old"))
    assert step("prepared", [wanted()])["unmanaged"] == ["old"]
    assert step("prepared", [wanted(), wanted(name="old")])["unmanaged"] == []
    assert step("prepared", [], to="0001-cpu-v1-abc")["unmanaged"] == []


def test_a_secret_is_in_no_result_record_or_log(step, top, tmp_path):
    result = step("prepared", [wanted()], diff=True)
    assert SECRET not in json.dumps(result)
    assert SECRET not in (top / "cpu" / "releases" / ONE / "release.json").read_text()
    assert SECRET not in (tmp_path / "audit.log").read_text()


def test_the_same_inputs_make_no_new_release(deploy, step, state, docker, actions):
    deploy()
    before = actions()
    docker.calls.clear()
    again = step("prepared", [wanted()])
    assert (again["changed"], again["instances"][0]["new"]) == (False, False)
    assert step("switched", again["instances"])["changed"] is False
    assert step("kept", again["instances"], proofs={"cpu": {"model": "cv2"}})["changed"] is False
    asked = {call[0] for call in docker.calls}
    assert (state(), actions(), asked) == (({ONE: "current"}, ONE), before, {"inspect", "ps"})


@pytest.mark.parametrize("change", ["image", "setting", "file edited by hand", "same name, other image"])
def test_other_inputs_make_a_new_release(deploy, state, top, docker, change):
    deploy()
    again = wanted(2 if change == "image" else 1, memory="8g" if change == "setting" else "6g")
    if change == "file edited by hand":
        (top / "cpu" / "current" / "compose.yaml").write_text("services: {other: {}}\n")
    if change == "same name, other image":
        docker.images["iopaint:cpu-v1-abc"] = {**docker.images["iopaint:cpu-v1-abc"], "Id": "sha256:another"}
    (done,) = deploy(again)
    outcomes, linked = state()
    assert list(outcomes.values()) == ["previous", "current"]
    assert (linked, done["before"]) == (done["id"], ONE)


def test_a_release_says_what_changed_in_the_packages_of_its_image(deploy, step, docker, record, tmp_path):
    docker.packages = {
        "sha256:iopaint:cpu-v1-abc": {"libc6": "2.36-9", "libssl3": "3.0.15-1", "perl": "5.36"},
        "sha256:iopaint:cpu-v2-abc": {"libc6": "2.36-9", "libssl3": "3.0.16-1", "perl": "5.36"},
    }
    deploy(wanted(1))
    assert record("0001-cpu-v1-abc")["packages"] == []
    changed = ["libssl3 3.0.15-1 → 3.0.16-1"]
    assert step("prepared", [wanted(2)])["instances"][0]["packages"] == changed
    deploy(wanted(2))
    assert record("0002-cpu-v2-abc")["packages"] == changed
    lines = [json.loads(line) for line in (tmp_path / "audit.log").read_text().splitlines()]
    assert [line.get("packages") for line in lines if line["action"] == "prepared"] == [None, changed]
    back = step("prepared", [], to="previous")["instances"][0]
    assert (back["id"], back["packages"]) == ("0001-cpu-v1-abc", [])


def test_an_image_without_a_list_of_packages_has_no_changes(deploy, docker, record):
    docker.packages = {"sha256:iopaint:cpu-v1-abc": {"libc6": "2.36-9"}}
    deploy(wanted(1))
    deploy(wanted(2))
    assert record("0002-cpu-v2-abc")["packages"] == []


def test_the_counter_goes_on_whatever_the_clock_says(deploy, state, monkeypatch):
    deploy()
    monkeypatch.setattr(
        release.audit.time, "gmtime", lambda seconds=None: release.time.struct_time((1999, 1, 1, 0, 0, 0, 0, 1, 0))
    )
    deploy(wanted(2))
    assert state() == ({ONE: "previous", TWO: "current"}, TWO)


def test_check_mode_says_what_would_change_and_writes_nothing(step, deploy, top):
    result = step("prepared", [wanted()], check=True, diff=True)
    assert result["changed"] is True
    assert not (top / "cpu").exists()
    deploy()
    (shown,) = step("prepared", [wanted(memory="8g")], check=True, diff=True)["diff"]
    assert (shown["before_header"], "MEMORY='6g'" in shown["before"], "MEMORY='8g'" in shown["after"]) == (
        f"cpu/{ONE}/.env",
        True,
        True,
    )
    (shown,) = step("prepared", [wanted(2)], check=True, diff=True)["diff"]
    assert (shown["before"], shown["after"]) == ("iopaint:cpu-v1-abc\n", "iopaint:cpu-v2-abc\n")
    assert step("prepared", [wanted()], check=True)["changed"] is False
    assert len(os.listdir(top / "cpu" / "releases")) == 1


def test_an_image_that_is_not_there_is_said_before_anything_is_written(run_module, docker, top):
    message = run_module(release, failed=True, state="prepared", dir=str(top), instances=[wanted(9)])["msg"]
    assert "The image iopaint:cpu-v9-abc of the instance cpu is not on the host" in message
    assert not (top / "cpu").exists()


def test_an_instance_whose_container_is_unhealthy_is_marked(deploy, step, docker):
    deploy()
    docker.unhealthy = {"iopaint-cpu", "somebody-else"}
    (item,) = step("prepared", [wanted()])["instances"]
    assert (item["new"], item["unhealthy"]) == (False, True)
    docker.unhealthy = set()
    (item,) = step("prepared", [wanted(memory="7g")])["instances"]
    assert (item["new"], item["unhealthy"]) == (True, False)


def test_an_entry_has_the_settings_of_its_release_and_the_compose_files_that_are_there(deploy, step, top):
    deploy()
    (item,) = step("prepared", [wanted()])["instances"]
    assert item["settings"] == {
        "CPU_IMAGE": "iopaint:cpu-v1-abc",
        "PROJECT": "iopaint-cpu",
        "CPU_PORT": "8080",
        "BIND_ADDRESS": "0.0.0.0",
        "MEMORY": "6g",
    }
    assert item["files"] == ["compose.yaml"]
    (top / "cpu" / "releases" / ONE / "devices.yaml").write_text("services: {}\n")
    (top / "cpu" / "releases" / ONE / "unprivileged.yaml").write_text("services: {}\n")
    (item,) = step("prepared", [], to=ONE)["instances"]
    assert item["files"] == ["compose.yaml", "unprivileged.yaml", "devices.yaml"]


def diffusion(seconds, total=174592, **more):
    """Return the proof of a diffusion of 4 steps."""
    return {"model": "a/b", "latency_ms": seconds * 4000, "seconds_per_step": seconds, "pixels": {"total": total}, **more}


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (
            diffusion(1.5),
            diffusion(4.6),
            "cpu: a/b took 4.6 s for each step, 3.1 times as long as a/b in the release before (1.5 s",
        ),
        (diffusion(1.5), diffusion(4.4), None),
        (diffusion(0.1), diffusion(0.9), None),  # not to be noticed
        (diffusion(1.5), diffusion(40, total=1000), None),  # another picture
        (PROOF, diffusion(40, total=None), None),  # another kind of model
        ({**PROOF, "latency_ms": 700}, {**PROOF, "latency_ms": 2100.5}, "cv2 took 2.1 s, 3.0 times as long as cv2"),
        ({**PROOF, "latency_ms": "700"}, {**PROOF, "latency_ms": 9000}, None),  # a record that somebody edited
        (None, diffusion(40), None),
    ],
)
def test_a_release_that_is_three_times_as_slow_as_the_one_before_says_so(deploy, step, docker, before, after, words):
    deploy(proof=before)
    done = step("switched", step("prepared", [wanted(2)])["instances"])["instances"]
    docker.start(done[0])
    warnings = [str(each) for each in step("kept", done, proofs={"cpu": after}).get("warnings", [])]
    if words is None:
        assert warnings == []
    else:
        (warning,) = warnings
        assert words in warning
        assert f"{ONE} is the release before; iopaint.fleet.rollback makes it current again." in warning


# ---- reverted --------------------------------------------------------------------------------------------------------


def test_a_release_that_fails_is_reverted_to_the_previous_one(deploy, state, record, actions):
    deploy()
    (previous,) = deploy(wanted(2), fails=True)
    assert (previous["id"], previous["failed"], previous["new"]) == (ONE, TWO, False)
    assert state() == ({ONE: "current", TWO: "failed"}, ONE)
    assert record(TWO)["reason"] == "it did not start"
    assert actions()[-1] == "failed"


def test_the_previous_release_is_proven_again_and_that_is_in_the_audit_log(deploy, step, record, actions):
    deploy()
    previous = deploy(wanted(2), fails=True)
    result = step("kept", previous, proofs={"cpu": {"model": "cv2", "latency_ms": 7.0, "pixels": {}}})
    assert (result["changed"], record(ONE)["proof"]["latency_ms"]) == (False, 7.0)
    assert actions()[-2:] == ["failed", "reverted"]


def test_a_first_release_that_fails_has_nothing_to_revert_to(deploy, state):
    assert deploy(fails=True) == []
    assert state()[0] == {ONE: "failed"}


def test_a_release_that_failed_is_tried_again_under_a_new_name(deploy, state):
    deploy()
    deploy(wanted(2), fails=True)
    deploy(wanted(2))
    assert state() == ({ONE: "previous", TWO: "failed", "0003-cpu-v2-abc": "current"}, "0003-cpu-v2-abc")


def test_an_instance_that_serves_as_before_is_not_reverted(deploy, step):
    deploy(wanted(), wanted(name="b"))
    groups = step("prepared", [wanted(), wanted(2, name="b")])["groups"]
    assert len(groups) == 2
    for group in groups:
        step("switched", group["instances"])
        reverted = [item["name"] for item in step("reverted", group["instances"], reason="no")["instances"]]
        assert reverted == (["b"] if group["instances"][0]["name"] == "b" else [])


def test_a_failure_before_the_switch_starts_nothing(deploy, step, state, docker):
    """What ran still runs, and what an operator has stopped stays stopped."""
    deploy()
    docker.stopped = {"cpu"}
    done = step("prepared", [wanted(2)])["instances"]
    result = step("reverted", done, reason="its candidate broke")
    assert (result["instances"], result["begun"], result["changed"]) == ([], False, False)
    assert state() == ({ONE: "current", TWO: "failed"}, ONE)
    assert docker.stopped == {"cpu"}


# ---- ports that change hands -----------------------------------------------------------------------------------------


def test_a_renamed_instance_takes_the_port_and_the_other_one_stays_stopped(deploy, step, state, docker, record, top, actions):
    deploy(wanted(port=8080))
    (group,) = step("prepared", [wanted(name="main", port=8080)])["groups"]
    assert [(each["name"], each["id"], each["by"]) for each in group["displaced"]] == [("cpu", ONE, "main")]
    (kept,) = deploy(wanted(name="main", port=8080))
    assert kept["displaced"] == ["cpu"]
    assert docker.ports == {"main": ("0.0.0.0", 8080)}
    assert (record(ONE)["outcome"], record(ONE)["displaced_by"]) == ("previous", f"main/{ONE}")
    assert not os.path.lexists(top / "cpu" / "current")
    assert (top / "cpu" / "releases" / ONE / "compose.yaml").exists()
    assert "displaced" in actions()
    assert step("prepared", [wanted(name="main", port=8080)])["groups"][0]["displaced"] == []


def test_a_rename_that_fails_starts_the_displaced_instance(deploy, docker, state, step):
    deploy(wanted(port=8080))
    (reverted,) = deploy(wanted(name="main", port=8080), fails=True)
    assert (reverted["name"], reverted["id"], reverted["failed"]) == ("cpu", ONE, f"main/{ONE}")
    assert state() == ({ONE: "current"}, ONE)
    assert docker.stopped == set()


@pytest.mark.parametrize("fails", [True, False])
def test_a_rename_that_was_killed_is_gone_on_with_and_can_still_be_reverted(deploy, step, state, docker, fails):
    deploy(wanted(port=8080))
    (group,) = step("prepared", [wanted(name="main", port=8080)])["groups"]
    step("switched", group["instances"], displaced=group["displaced"])
    assert docker.stopped == {"cpu"}  # and the play is killed
    done = deploy(wanted(name="main", port=8080), fails=fails)
    assert [item["name"] for item in done] == (["cpu"] if fails else ["main"])
    assert state("cpu")[0] == {ONE: "current" if fails else "previous"} if fails else done[0]["displaced"] == ["cpu"]


def test_a_rename_that_was_killed_is_taken_back_by_the_play_before_it(deploy, step, state, docker):
    deploy(wanted(port=8080))
    (group,) = step("prepared", [wanted(name="main", port=8080)])["groups"]
    step("switched", group["instances"], displaced=group["displaced"])
    docker.start(group["instances"][0])
    (kept,) = deploy(wanted(port=8080))
    assert (kept["id"], kept["displaced"]) == (ONE, ["main"])
    assert list(docker.ports) == ["cpu"]


def test_two_instances_exchange_their_ports_together(deploy, step, state, docker):
    deploy(wanted(name="a", port=8080), wanted(name="b", port=8081))
    swapped = [wanted(name="a", port=8081), wanted(name="b", port=8080)]
    (group,) = step("prepared", swapped)["groups"]
    assert ([item["name"] for item in group["instances"]], group["displaced"]) == (["a", "b"], [])
    reverted = deploy(*swapped, fails=True)
    assert sorted(item["name"] for item in reverted) == ["a", "b"]
    assert {name: port for name, (_address, port) in docker.ports.items()} == {"a": 8080, "b": 8081}
    deploy(*swapped)
    assert {name: port for name, (_address, port) in docker.ports.items()} == {"a": 8081, "b": 8080}
    deploy(to="previous")
    assert {name: port for name, (_address, port) in docker.ports.items()} == {"a": 8080, "b": 8081}


def test_instances_on_ports_of_their_own_are_groups_of_their_own(deploy, step):
    deploy(wanted(name="a", port=8080), wanted(name="b", port=8081))
    groups = step("prepared", [wanted(2, name="a", port=8080), wanted(2, name="b", port=8081)])["groups"]
    assert [[item["name"] for item in group["instances"]] for group in groups] == [["a"], ["b"]]


def test_check_mode_names_what_would_be_displaced(deploy, step, docker):
    deploy(wanted(port=8080))
    (group,) = step("prepared", [wanted(name="main", port=8080)], check=True)["groups"]
    assert [each["name"] for each in group["displaced"]] == ["cpu"]
    assert docker.stopped == set()


def test_a_rollback_right_after_a_rename_starts_the_instance_again(deploy, docker, state, record):
    deploy(wanted(port=8080))
    deploy(wanted(name="main", port=8080))
    (kept,) = deploy(to="previous")
    assert (kept["name"], kept["displaced"]) == ("cpu", ["main"])
    assert (record(ONE).get("displaced_by"), record(ONE, "main")["displaced_by"]) == (None, f"cpu/{ONE}")
    assert list(docker.ports) == ["cpu"]


@pytest.mark.parametrize("to", ["previous", ONE])
def test_a_later_rollback_leaves_it_where_it_is(deploy, docker, to):
    deploy(wanted(port=8080))
    deploy(wanted(name="main", port=8080))
    deploy(wanted(2, name="main", port=8080))
    (kept,) = deploy(to=to)
    assert (kept["name"], kept["id"]) == ("main", ONE)
    assert list(docker.ports) == ["main"]


def test_releases_that_want_one_port_are_no_target(deploy, step, run_module, docker, top):
    deploy(wanted(name="a", port=8080))
    deploy(wanted(name="a", port=8081), wanted(name="b", port=8080))
    deploy(wanted(name="a", port=8081), wanted(2, name="b", port=8080))
    message = run_module(release, failed=True, state="prepared", dir=str(top), instances=[], to="previous")["msg"]
    assert message.startswith("The releases that a and b would roll back to both publish port 8080.")
    assert message.endswith("Nothing was changed.")


# ---- killed in between -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("killed_after", ["prepared", "switched"])
def test_the_same_play_goes_on(deploy, step, state, killed_after):
    deploy()
    done = step("prepared", [wanted(2)])["instances"]
    if killed_after == "switched":
        step("switched", done)
    (done,) = deploy(wanted(2))
    assert done["before"] == ONE
    assert state() == ({ONE: "previous", TWO: "current"}, TWO)


@pytest.mark.parametrize("killed_after", ["prepared", "switched"])
def test_another_play_takes_its_place_and_can_still_be_reverted(deploy, step, state, killed_after):
    deploy()
    done = step("prepared", [wanted(2)])["instances"]
    if killed_after == "switched":
        step("switched", done)
    (previous,) = deploy(wanted(3), fails=True)
    assert previous["id"] == ONE
    assert state() == ({ONE: "current", TWO: "superseded", THREE: "failed"}, ONE)


def test_a_switch_that_was_begun_is_taken_back_by_the_previous_play(deploy, step, state):
    deploy()
    step("switched", step("prepared", [wanted(2)])["instances"])
    (done,) = deploy(wanted(1))
    assert (done["id"], done["new"]) == (ONE, True)
    assert state() == ({ONE: "current", TWO: "superseded"}, ONE)


def test_killed_between_the_two_writes_of_kept(deploy, top, record, step, state):
    deploy()
    deploy(wanted(2))
    both = {**record(ONE), "outcome": "current"}
    (top / "cpu" / "releases" / ONE / "release.json").write_text(json.dumps(both))
    again = step("prepared", [wanted(2)])["instances"]
    assert again[0]["new"] is False
    step("kept", again)
    assert state() == ({ONE: "previous", TWO: "current"}, TWO)


def test_killed_after_the_failure_was_recorded_and_before_the_link_was_reverted(deploy, top, state):
    deploy()
    deploy(wanted(2), fails=True)
    (top / "cpu" / "current").unlink()
    os.symlink(f"releases/{TWO}", top / "cpu" / "current")
    (done,) = deploy(wanted(1))
    assert (done["id"], done["new"]) == (ONE, True)
    assert state()[1] == ONE


def test_what_a_killed_play_left_of_a_folder_is_cleared(deploy, top, state):
    deploy()
    (top / "cpu" / "releases" / ".new-abc").mkdir()
    deploy(wanted(2))
    assert sorted(os.listdir(top / "cpu" / "releases")) == [ONE, TWO]


# ---- rollback --------------------------------------------------------------------------------------------------------


def test_the_previous_release_and_a_named_one_are_rolled_back_to(deploy, state, record):
    for version in (1, 2, 3):
        deploy(wanted(version))
    (done,) = deploy({"name": "cpu"}, to="previous")
    assert (done["id"], done["before"]) == (TWO, THREE)
    assert state() == ({ONE: "previous", TWO: "current", THREE: "previous"}, TWO)
    deploy({"name": "cpu"}, to=THREE)
    assert state()[1] == THREE
    deploy({"name": "cpu"}, to=ONE)
    assert (state()[1], record(ONE)["rolled_back_from"]) == (ONE, THREE)


def test_a_release_that_was_rolled_back_from_is_not_rolled_back_to_later(deploy, state):
    """3 took the place of 1 again, as 2 had been rolled back from: nobody wants 2."""
    deploy(wanted(1))
    deploy(wanted(2))
    deploy({"name": "cpu"}, to="previous")
    deploy(wanted(3))
    (done,) = deploy({"name": "cpu"}, to="previous")
    assert (done["id"], done["before"], state()[1]) == (ONE, THREE, ONE)


def test_one_rollback_after_another_goes_on_to_older_releases(deploy, state):
    for version in (1, 2, 3):
        deploy(wanted(version))
    for expected in (TWO, ONE):
        deploy({"name": "cpu"}, to="previous")
        assert state()[1] == expected


def test_without_names_every_instance_that_has_releases_is_rolled_back(deploy, state):
    for version in (1, 2):
        deploy(wanted(version), wanted(version, name="b"))
    done = deploy(to="previous")
    assert [item["name"] for item in done] == ["b", "cpu"]
    assert [state(name)[1] for name in ("b", "cpu")] == [ONE, ONE]


def test_a_rollback_to_what_serves_changes_nothing(deploy, step):
    deploy()
    deploy(wanted(2))
    assert step("prepared", [{"name": "cpu"}], to=TWO)["changed"] is False


def test_a_rollback_that_fails_is_reverted(deploy, state):
    deploy()
    deploy(wanted(2))
    (previous,) = deploy({"name": "cpu"}, to="previous", fails=True)
    assert previous["id"] == TWO
    assert state() == ({ONE: "failed", TWO: "current"}, TWO)


def test_a_rollback_that_was_killed_goes_on(deploy, step, state):
    deploy()
    deploy(wanted(2))
    step("switched", step("prepared", [{"name": "cpu"}], to="previous")["instances"])
    deploy({"name": "cpu"}, to="previous")
    assert state() == ({ONE: "current", TWO: "previous"}, ONE)


def test_previous_of_an_upgrade_that_was_killed_is_what_was_proven_last(deploy, step, state):
    deploy()
    step("switched", step("prepared", [wanted(2)])["instances"])
    deploy({"name": "cpu"}, to="previous")
    assert state() == ({ONE: "current", TWO: "superseded"}, ONE)


@pytest.mark.parametrize("to", ["0009-none", "previous"])
def test_an_unknown_release_is_answered_with_what_there_is(deploy, run_module, docker, top, to):
    deploy()
    deploy(wanted(2), fails=True)
    message = run_module(release, failed=True, state="prepared", dir=str(top), instances=[{"name": "cpu"}], to=to)["msg"]
    assert f"to is '{to}'" in message
    assert f"cpu: {TWO} (failed, " in message
    assert f"cpu: {ONE} (current, " in message


def test_a_release_whose_image_was_removed_by_hand_is_no_target(deploy, run_module, docker, top, state):
    deploy()
    deploy(wanted(2))
    del docker.images["iopaint:cpu-v1-abc"]
    message = run_module(release, failed=True, state="prepared", dir=str(top), instances=[{"name": "cpu"}], to=ONE)["msg"]
    assert f"{ONE} (previous" in message
    assert "its image or its files are gone from this host" in message
    assert state() == ({ONE: "previous", TWO: "current"}, TWO)


# ---- images ----------------------------------------------------------------------------------------------------------


def test_the_last_releases_keep_their_images_and_others_go(deploy, docker, record, top):
    docker.have("somebody:else", recipe=None)
    docker.have("mine/iopaint:kept")  # ours, under a name of the user's own
    docker.have("iopaint:cpu-latest")
    for version in (1, 2, 3, 5):
        deploy(wanted(version), keep=2)
    ours = sorted(name for name in docker.images if name.startswith("iopaint:cpu-v"))
    assert ours == [f"iopaint:cpu-v{version}-abc" for version in (3, 5, 6, 7)]  # 6 and 7 were made ahead
    assert {"somebody:else", "mine/iopaint:kept", "iopaint:cpu-latest"} <= set(docker.images)
    assert os.listdir(top / "cpu" / "releases" / ONE) == ["release.json"]
    assert record(ONE)["outcome"] == "previous"


def test_an_image_that_was_pulled_goes_with_its_digest(deploy, step, docker):
    docker.images["iopaint:cpu-v1-abc"]["RepoDigests"] = ["registry:5000/iopaint@sha256:1"]
    deploy(wanted(1))
    result = step("kept", step("prepared", [wanted(2)])["instances"], keep=1)
    assert result["pruned"] == ["iopaint:cpu-v1-abc", "sha256:iopaint:cpu-v1-abc"]
    assert not [image for image in docker.images.values() if image["Id"] == "sha256:iopaint:cpu-v1-abc"]


def test_images_of_another_instance_stay(deploy, docker):
    deploy(wanted(name="b"))
    for version in (2, 3, 4):
        deploy(wanted(version), keep=1)
    assert "iopaint:cpu-v1-abc" in docker.images


def test_an_image_that_a_container_uses_stays_without_a_word(deploy, step, docker):
    docker.used.add("iopaint:cpu-v2-abc")
    done = step("prepared", [wanted(3)])["instances"]
    result = step("kept", done)
    assert result["pruned"] == ["iopaint:cpu-v1-abc"]
    assert "warnings" not in result


def test_no_image_goes_while_a_record_can_t_be_read(deploy, docker, top):
    deploy(wanted(name="b"))
    (top / "b" / "releases" / ONE / "release.json").write_text("{")
    deploy(wanted(3), keep=1)
    assert "iopaint:cpu-v2-abc" in docker.images


def test_the_build_cache_has_its_limit(step, docker):
    step("kept", step("prepared", [wanted()])["instances"], build_cache=20_000_000_000)
    assert ("builder", "prune", "--force", "--keep-storage", "20000000000") in docker.calls


def test_a_name_that_may_move_is_held(deploy, docker, record, top):
    """Else a rollback would start what the name means by then."""
    docker.have("registry/iopaint:edge", recipe=None)
    deploy(wanted(image="registry/iopaint:edge"))
    held = "iopaint-release:cpu-0001-edge"
    assert record("0001-edge")["image"] == held
    assert (top / "cpu" / "current" / ".env").read_text().startswith(f"CPU_IMAGE='{held}'\n")
    assert docker.images[held]["Id"] == "sha256:registry/iopaint:edge"


# ---- how long nothing served -----------------------------------------------------------------------------------------


def test_the_time_without_service_is_from_the_end_of_the_old_to_the_health_of_the_new(deploy, step, docker, monkeypatch):
    deploy()
    monkeypatch.setattr(release, "uptime", lambda: 100.0)
    done = step("prepared", [wanted(2)])["instances"]
    step("switched", done)
    monkeypatch.setattr(release, "uptime", lambda: 110.0)
    for action, second in (("kill", 1.0), ("die", 1.2), ("health_status: healthy", 4.5)):
        docker.events.append({"Action": action, "timeNano": int(second * 1e9)})
    (done,) = step("kept", done)["instances"]
    assert (done["duration_s"], done["without_service_s"]) == (10.0, 3.5)


def test_without_events_it_is_the_whole_switch(deploy, step, monkeypatch):
    deploy()
    monkeypatch.setattr(release, "uptime", lambda: 100.0)
    done = step("prepared", [wanted(2)])["instances"]
    step("switched", done)
    monkeypatch.setattr(release, "uptime", lambda: 110.0)
    assert step("kept", done)["instances"][0]["without_service_s"] == 10.0


# ---- damaged records -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", ['{"schema": 1, "id": "00', "", "[]", None])
def test_a_damaged_record_is_named_and_rebuilt_from_what_runs(deploy, step, docker, top, record, state, content):
    deploy()
    path = top / "cpu" / "releases" / ONE / "release.json"
    path.unlink()
    if content is not None:
        path.write_text(content)
    docker.running["iopaint-cpu"] = "sha256:iopaint:cpu-v1-abc"
    result = step("prepared", [wanted()])
    assert result["rebuilt"] == [f"cpu/{ONE}"]
    assert any(str(path) in str(warning) for warning in result["warnings"])
    assert result["instances"][0]["new"] is False
    assert state() == ({ONE: "current"}, ONE)
    rebuilt = record(ONE)
    assert (rebuilt["ref"], rebuilt["image"], rebuilt["url"]) == ("v1", "iopaint:cpu-v1-abc", "http://127.0.0.1:8080")
    assert rebuilt["environment"] == {"IOPAINT_MODEL": "cv2", "IOPAINT_HF_TOKEN": "***"}
    assert step("prepared", [wanted()])["changed"] is False


def test_rebuilt_records_can_be_rolled_back_to(deploy, docker, top, state):
    deploy()
    deploy(wanted(2))
    for name in (ONE, TWO):
        (top / "cpu" / "releases" / name / "release.json").write_text("{")
    docker.running["iopaint-cpu"] = "sha256:iopaint:cpu-v2-abc"
    (done,) = deploy({"name": "cpu"}, to="previous")
    assert done["id"] == ONE
    assert state() == ({ONE: "current", TWO: "previous"}, ONE)


def test_a_record_of_before_the_first_release_says_former(deploy, top, state):
    deploy()
    deploy(wanted(2))
    path = top / "cpu" / "releases" / ONE / "release.json"
    path.write_text(path.read_text().replace('"outcome": "previous"', '"outcome": "former"'))
    deploy({"name": "cpu"}, to="previous")
    assert state() == ({ONE: "current", TWO: "previous"}, ONE)


def test_a_release_without_record_and_files_has_failed(deploy, step, top, state):
    deploy()
    (top / "cpu" / "releases" / "0002-x").mkdir()
    step("prepared", [wanted()])
    assert state() == ({ONE: "current", "0002-x": "failed"}, ONE)


def test_listing_changes_nothing(deploy, step, top):
    deploy()
    (top / "cpu" / "releases" / ONE / "release.json").write_text("{")
    (listed,) = step("listed", [wanted()])["instances"]
    assert (listed["current"], listed["damaged"], listed["image_there"]) == (ONE, [ONE], True)
    assert (top / "cpu" / "releases" / ONE / "release.json").read_text() == "{"


def test_all_instances_of_a_host_are_listed_with_what_serves(deploy, step, top):
    deploy()
    (done,) = deploy(wanted(2))
    (top / "never-proven" / "releases").mkdir(parents=True)
    cpu, never = step("listed", [])["instances"]
    assert (cpu["name"], cpu["serving"]["id"], never["serving"]) == ("cpu", done["id"], None)
    assert cpu["serving"]["new"] is False
    assert cpu["serving"]["settings"] == done["settings"]


def test_the_audit_log_has_a_line_for_each_action(deploy, tmp_path):
    deploy()
    lines = [json.loads(line) for line in (tmp_path / "audit.log").read_text().splitlines()]
    assert {(line["operator"], line["controller"], line["instance"], line["release"]) for line in lines} == {
        ("ann", "desk", "cpu", ONE)
    }
    assert stat.S_IMODE((tmp_path / "audit.log").stat().st_mode) == 0o640


def test_a_release_has_what_its_candidate_takes(step, top):
    result = step("prepared", [{**wanted(), "memory": "6g"}])
    (prepared,) = result["instances"]
    assert prepared["folder"] == str(top / "cpu" / "releases" / prepared["id"])
    assert prepared["memory"] == "6g"
    assert 1e6 < result["memory_available"] < 1e14


@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_candidate_that_was_killed_goes_with_the_next_play(deploy, step, docker, version):
    """Whether the next play wants the previous release, the same one or another."""
    deploy()
    step("prepared", [wanted(2)])
    docker.containers = {"12": "candidate-iopaint-cpu", "34": "iopaint-cpu", "56": "iopaint-cpu-candidate"}
    step("prepared", [wanted(version)])
    assert docker.containers == {"34": "iopaint-cpu", "56": "iopaint-cpu-candidate"}
    assert ("network", "rm", "candidate-iopaint-cpu_default") in docker.calls


def test_a_candidate_whose_play_was_killed_after_the_proof_goes_with_the_next_play(deploy, step, docker):
    """The release is current by then, and the candidate of it still served."""
    deploy()
    docker.containers = {"12": "candidate-iopaint-cpu", "34": "iopaint-cpu"}
    step("prepared", [wanted()])
    assert docker.containers == {"34": "iopaint-cpu"}
