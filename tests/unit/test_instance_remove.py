# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Instances go with all that is theirs; whatever else is on the host stays."""

import fcntl
import json
import os
import re

import pytest
from ansible_collections.iopaint.fleet.plugins.filter.removals import FilterModule
from ansible_collections.iopaint.fleet.plugins.modules import instance_remove
from conftest import ROOT

FILTERS = FilterModule().filters()
LABELS = {"io.iopaint.fleet.recipe": "abc"}


class Engine:
    """What the module asks of docker."""

    def __init__(self, top):
        self.top, self.images, self.containers, self.networks, self.answers, self.busy = top, {}, {}, {}, True, set()

    def have(self, *tags, labels=LABELS):
        document = {"Id": f"sha256:{len(self.images)}", "RepoTags": list(tags), "Config": {"Labels": labels}}
        self.images[document["Id"]] = document
        return document["Id"]

    def start(self, name, image, top=None, project="iopaint-{}"):
        project = project.format(name)
        labels = {
            "com.docker.compose.project": project,
            "com.docker.compose.service": "iopaint-cpu",
            "com.docker.compose.project.working_dir": f"{top or self.top}/{name}/current",
        }
        key = f"c{len(self.containers)}"
        self.containers[key] = {"Id": key, "Name": f"/{name}-{key}", "Image": image, "Config": {"Labels": labels}}
        self.networks[f"{project}_default"] = project

    def __call__(self, module):
        return self

    def image(self, name):
        return next((one for one in self.images.values() if name in (one["Id"], *one["RepoTags"])), None)

    def run(self, *args, check_rc=False):
        if not self.answers:
            return 1, "", "Cannot connect to the Docker daemon."
        return self.answer(*args)

    def answer(self, *args):  # noqa: PLR0911 - one for each command
        if args[0] == "info":
            return 0, "28.5.2\n", ""
        if args[0] == "ps":
            return 0, "\n".join(self.containers), ""
        if args[0] == "inspect":
            return 0, json.dumps([self.containers[key] for key in args[3:]]), ""
        if args[:2] == ("network", "ls"):
            project = args[3].rpartition("=")[2]
            return 0, "\n".join(name for name, owner in self.networks.items() if owner == project), ""
        if args[:2] == ("network", "rm"):
            if args[2] in self.busy:
                return 1, "", "network has active endpoints"
            del self.networks[args[2]]
            return 0, "", ""
        if args[0] == "images":
            return 0, self.list_images(args), ""
        if args[:2] == ("image", "rm"):
            image = self.image(args[2])
            image["RepoTags"] = [tag for tag in image["RepoTags"] if tag != args[2]]
            if not image["RepoTags"]:
                del self.images[image["Id"]]
            return 0, "", ""
        if args[0] == "stop":
            return 0, "", ""
        if args[0] == "rm":
            del self.containers[args[-1]]
            return 0, "", ""
        raise AssertionError(args)

    def list_images(self, args):
        if "--filter" in args:
            kind, _equals, value = args[-1].partition("=")
            found = [
                one["Id"]
                for one in self.images.values()
                if (kind == "label" and value in one["Config"]["Labels"])
                or (kind == "reference" and any(tag.startswith(f"{value}:") for tag in one["RepoTags"]))
            ]
            return "\n".join(found)
        return "\n".join(
            f"{one['Id']} {tag}" for one in self.images.values() for tag in one["RepoTags"] if tag.startswith(f"{args[-1]}:")
        )


@pytest.fixture
def host(tmp_path):
    """A host with two instances of one release each, and what lies next to them."""

    class Host:
        top = tmp_path / "iopaint" / "instances"
        build, data = tmp_path / "iopaint" / "image", tmp_path / "data"
        rotation, log = tmp_path / "rotation", tmp_path / "log" / "iopaint" / "audit.log"

        def __init__(self):
            self.docker = Engine(self.top)
            self.one = self.docker.have("iopaint:cpu-one-abc", "iopaint:cpu-latest")
            self.two = self.docker.have("iopaint:cpu-two-abc")
            self.instance("cpu", self.one)
            self.instance("batch", self.two)
            for path in (self.build / "docker", self.build / "git" / "iopaint", self.data / "models", self.log.parent):
                path.mkdir(parents=True)
            for name in ("photo.png", "models.json", "models.log"):
                (self.top / name).write_text("x")
            for path in (self.build / "docker" / "docker-bake.hcl", self.data / "models" / "lama.pt"):
                path.write_text("x")
            for name in ("cpu.log", "ca.pem", "base.tar", "bundle.tar"):
                (self.build / name).write_text("x")
            for path in (self.rotation, self.log, self.log.parent / "audit.log.2.gz"):
                path.write_text("")

        def instance(self, name, image):
            release = self.top / name / "releases" / "0001-a"
            release.mkdir(parents=True)
            tag = self.docker.images[image]["RepoTags"][0]
            record = {"id": "0001-a", "outcome": "current", "image": tag, "asked": tag, "image_id": image}
            (release / "release.json").write_text(json.dumps(record))
            os.symlink("releases/0001-a", self.top / name / "current")
            (self.top / name / "proof.png").write_text("x")
            (self.data / "outputs" / name).mkdir(parents=True)
            (self.data / "outputs" / name / "a.png").write_text("x")
            self.docker.start(name, image)

        def files(self):
            return sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if not path.is_dir())

        def audit(self):
            return [json.loads(line) for line in self.log.read_text().splitlines()]

    return Host()


@pytest.fixture
def remove(run_module, host, monkeypatch, engine):
    monkeypatch.setattr(instance_remove, "Docker", host.docker)

    def call(*names, **options):
        paths = {
            "dir": f"{host.top}/",
            "data_dir": host.data,
            "build_dir": host.build,
            "rotation": host.rotation,
            "audit": host.log,
        }
        arguments = {**{key: str(path) for key, path in paths.items()}, "instances": list(names), "owner": {"operator": "ann"}}
        return run_module(instance_remove, **{**arguments, **options})

    return call


def test_all_of_it_goes_and_data_and_log_stay(remove, host, tmp_path):
    result = remove(diff=True)
    assert (result["changed"], result["instances"], result["remaining"]) == (True, ["batch", "cpu"], [])
    assert (host.docker.containers, host.docker.networks, host.docker.images) == ({}, {}, {})
    kept = [
        "data/models/lama.pt",
        "data/outputs/batch/a.png",
        "data/outputs/cpu/a.png",
        "log/iopaint/audit.log",
        "log/iopaint/audit.log.2.gz",
    ]
    assert [path for path in host.files() if not path.startswith("stand-in/")] == kept
    assert not (tmp_path / "iopaint").exists()
    (line,) = host.audit()
    assert (line["action"], line["operator"], line["instances"]) == ("removed", "ann", ["batch", "cpu"])
    assert (line["containers"], line["images"], "data" in line) == (2, 3, False)
    assert result["data"] == [str(host.data / "models"), str(host.data / "outputs")]
    assert result["diff"]["before"].splitlines() == result["removed"]


def test_what_the_architecture_says_is_on_a_host_is_known():
    names = set(re.findall(r"`/opt/iopaint/instances/([\w.]+)", (ROOT / "docs" / "architecture.md").read_text()))
    assert {"models.json", ".gateway"} <= names
    assert {name for name in names if not instance_remove.OF_ALL.fullmatch(name)} == set()


def test_the_second_time_changes_nothing(remove, host):
    remove()
    again = remove()
    assert (again["changed"], again["removed"], len(host.audit())) == (False, [], 1)


def test_a_dry_run_lists_all_and_removes_nothing(remove, host):
    before = host.files()
    dry = remove(check=True)
    assert host.files() == before
    assert len(host.docker.containers) == 2
    really = remove()
    assert dry["removed"] == [line for line in really["removed"] if line in dry["removed"]]
    assert set(really["removed"]) - set(dry["removed"]) == {f"folder {host.top}", f"folder {host.top.parent}"}


def test_one_alone_leaves_the_other_as_it_is(remove, host):
    result = remove("batch")
    assert (result["instances"], result["remaining"]) == (["batch"], ["cpu"])
    assert [one["Image"] for one in host.docker.containers.values()] == [host.one]
    assert list(host.docker.images) == [host.one]
    assert list(host.docker.networks) == ["iopaint-cpu_default"]
    assert not (host.top / "batch").exists()
    assert all(
        path.exists() for path in (host.top / "cpu" / "current", host.build / "docker", host.rotation, host.top / "photo.png")
    )
    assert remove("batch")["changed"] is False


def test_an_image_that_another_instance_needs_stays(remove, host):
    host.instance("third", host.two)
    remove("batch")
    assert host.two in host.docker.images


def test_records_that_can_t_be_read_keep_every_image(remove, host):
    (host.top / "cpu" / "releases" / "0001-a" / "release.json").write_text("{")
    result = remove("batch")
    assert host.two in host.docker.images
    assert "No image was removed" in str(result["warnings"])


def test_what_is_somebody_else_s_stays(remove, host, tmp_path):
    docker = host.docker
    docker.start("cpu", docker.have("iopaint:cpu-used-abc"), top=tmp_path / "elsewhere")
    plain = docker.have("iopaint:their-own", labels={})
    docker.images[host.one]["RepoTags"].append("somebody/else:1")
    custom = docker.have("their/image:2", "iopaint-release:cpu-0001", labels={})
    base = docker.have("iopaint-base:bookworm", labels={})
    (host.top / "cpu" / "notes.txt").write_text("mine")
    (host.build / "worktrees").mkdir()
    (host.top / "their-folder").mkdir()
    (host.top / "their-folder" / "file").write_text("mine")
    result = remove()
    assert result["kept"] == ["iopaint:cpu-used-abc"]
    assert [one["RepoTags"] for one in docker.containers.values() for one in [docker.image(one["Image"])]] == [
        ["iopaint:cpu-used-abc"]
    ]
    assert docker.images[plain]["RepoTags"] == ["iopaint:their-own"]
    assert docker.images[host.one]["RepoTags"] == ["somebody/else:1"]
    assert docker.images[custom]["RepoTags"] == ["their/image:2"]
    assert base not in docker.images
    assert (host.top / "cpu" / "notes.txt").exists()
    assert (host.build / "worktrees").exists()
    assert (host.top / "their-folder" / "file").exists()
    assert "notes.txt" in str(result["warnings"])
    assert remove()["changed"] is False


def test_a_candidate_that_was_left_behind_goes_as_well(remove, host):
    host.docker.start("cpu", host.one, project="candidate-iopaint-{}")
    remove("cpu")
    assert list(host.docker.networks) == ["iopaint-batch_default"]
    assert [one["Image"] for one in host.docker.containers.values()] == [host.two]


def test_a_container_without_its_folder_goes_as_well(remove, host):
    host.docker.start("lost", host.one)
    assert "lost" in remove()["instances"]
    assert host.docker.containers == {}


def test_a_network_that_is_in_use_is_left_and_said(remove, host):
    host.docker.busy.add("iopaint-cpu_default")
    result = remove()
    assert "iopaint-cpu_default stays: network has active endpoints" in str(result["warnings"])
    assert "network iopaint-cpu_default" not in result["removed"]


def test_data_goes_where_it_is_asked_for(remove, host):
    result = remove("batch", data=True)
    assert not (host.data / "outputs" / "batch").exists()
    assert (host.data / "outputs" / "cpu" / "a.png").exists()
    assert (host.data / "models" / "lama.pt").exists()
    assert host.audit()[-1]["data"] == [str(host.data / "outputs" / "batch")]
    assert remove("batch", data=True)["changed"] is False
    (host.data / "theirs").write_text("mine")
    result = remove(data=True)
    assert os.listdir(host.data) == ["theirs"]
    assert result["data"] == []
    assert remove(data=True)["changed"] is False


def test_names_of_any_bytes_go_with_the_data_or_are_named(remove, host):
    """Not UTF-8, or with what a terminal would act on."""
    for folder in (host.data / "outputs" / "batch", host.top / "cpu"):
        for name in (b"caf\xe9", b"\x1b[2J"):
            with open(os.fsencode(folder) + b"/" + name, "wb"):
                pass
    result = remove(data=True)
    assert not (host.data / "outputs").exists()
    assert f"{host.top / 'cpu'} stays, as it holds what is not this collection's: \\x1b[2J, caf\\xe9" in str(
        result["warnings"]
    ).replace("\\\\", "\\")


def test_data_goes_later_as_well(remove, host):
    remove()
    assert remove(data=True)["changed"] is True
    assert not host.data.exists()


def test_what_a_restore_has_left_next_to_the_data_goes_with_it(remove, host):
    trees = ["outputs/.previous-batch", "outputs/.previous-cpu", ".previous-models"]
    left = [f"{tree}-20261124T031500Z" for tree in trees]
    for name in left:
        (host.data / name).mkdir()
    remove("batch", data=True)
    assert [(host.data / name).exists() for name in left] == [False, True, True]
    remove(data=True)
    assert not host.data.exists()


def test_what_a_link_names_stays(remove, host, tmp_path):
    (host.data / "models").rename(tmp_path / "disk")
    os.symlink(tmp_path / "disk", host.data / "models")
    result = remove(data=True)
    assert (tmp_path / "disk" / "lama.pt").exists()
    assert not os.path.lexists(host.data / "models")
    assert str(tmp_path / "disk") in str(result["warnings"])


def test_data_that_lies_deeper_than_python_recurses_goes(remove, host, nest):
    nest(host.data / "outputs/batch", 2500)
    assert remove("batch", data=True)["changed"] is True
    assert not (host.data / "outputs/batch").exists()


def test_a_mounted_disk_is_emptied_and_stays(remove, host, monkeypatch):
    models = str(host.data / "models")
    monkeypatch.setattr(os.path, "ismount", lambda path: str(path) == models)
    remove(data=True)
    assert os.listdir(models) == []
    assert remove(data=True)["changed"] is False


def test_the_log_goes_where_it_is_asked_for(remove, host):
    remove(log=True)
    assert not host.log.parent.exists()
    assert remove(log=True)["changed"] is False


def test_an_engine_that_does_not_answer_stops_it_before_anything_is_removed(remove, host):
    before, host.docker.answers = host.files(), False
    message = remove(failed=True)["msg"]
    assert "Start it (systemctl start docker), then run this again. Nothing was removed." in message
    assert host.files() == before


def test_a_build_that_runs_is_not_disturbed(remove, host):
    with (host.build / "cpu.log").open("a") as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        before = host.files()
        assert "An image is being built on this host" in remove(failed=True)["msg"]
        assert host.files() == before
        assert remove("batch")["instances"] == ["batch"]
    assert remove()["instances"] == ["cpu"]


def test_without_docker_the_files_go(remove, host, no_programs):
    result = remove()
    assert "There is no docker command on this host" in str(result["warnings"])
    assert not host.top.exists()
    assert len(host.docker.images) == 2


@pytest.mark.parametrize("name", ["../data", "", "a/b", "Cpu", "."])
def test_what_can_t_be_a_name_is_refused(remove, host, name):
    before = host.files()
    assert "can't be the name of an instance. Nothing was removed." in remove(name, failed=True, data=True)["msg"]
    assert host.files() == before


def test_a_removal_that_was_broken_off_goes_on(remove, host, monkeypatch):
    def broken(self, folder, known):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(instance_remove.Removal, "remove_known", broken)
        message = remove(failed=True)["msg"]
    assert "broken off: [Errno 28] No space left on device. Removed until then: container batch-c1" in message
    assert remove()["changed"] is True
    assert not host.top.exists()


# ---- what the operator is told ---------------------------------------------------------------------------------------


def test_the_summary(remove):
    lines = FILTERS["removal_summary"](remove("batch", check=True), True).splitlines()
    assert lines[0] == "Would be removed (batch): 1 container, 1 network, 1 image, 1 folder."
    assert lines[1] == "Still here: cpu."
    assert lines[2].startswith("Data stays: ")
    remove()
    assert FILTERS["removal_summary"](remove()).startswith("Nothing to remove.\nData stays: ")


def test_the_command_can_be_pasted():
    _said, command = FILTERS["removal_hint"](["batch", "old"], "gpu-01").splitlines()
    assert command == """ansible-playbook iopaint.fleet.remove -l gpu-01 -e '{"iopaint_remove_instances": ["batch", "old"]}'"""
