# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""When an image is built, how it is named, and what is said when it can't be. The engine is a stand-in."""

import json
import os
import re
import shutil
import zipfile
from pathlib import Path

import pytest
from ansible_collections.iopaint.fleet.plugins.modules import image_build

ROOT = Path(__file__).resolve().parents[2]
REVISION = "61a759fb3f332bacdce8b2813f4837495c9b86e0"


@pytest.fixture
def recipe(tmp_path):
    folder = tmp_path / "recipe"
    for name in ("Dockerfile", "entrypoint", "constraints/cpu.txt", "docker-bake.hcl", "compose.yaml"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"the text of {name}\n")
    return folder


@pytest.fixture
def run(run_module, engine, recipe, tmp_path):
    def run(**options):
        args = {
            "recipe": str(recipe),
            "source": str(tmp_path / "source"),
            "variant": "cpu",
            "ref": "main",
            "revision": REVISION,
            "base": "debian:bookworm-slim",
            "base_id": "sha256:0123",
            "log": str(tmp_path / "cpu.log"),
        }
        return run_module(image_build, **{**args, **options})

    return run


def test_an_image_is_built_and_named_by_what_is_in_it(run, engine, tmp_path):
    result = run()
    assert (result["changed"], result["built"], result["size"]) == (True, True, 4000)
    assert re.fullmatch(r"iopaint:cpu-61a759fb3f33-[0-9a-f]{12}", result["image"])
    assert result["recipe_digest"].startswith(result["image"].rsplit("-", maxsplit=1)[1])
    assert result["tags"] == [result["image"], "iopaint:cpu-main", "iopaint:cpu-latest"]
    assert engine.ids == dict.fromkeys(result["tags"], result["id"])
    assert (tmp_path / "cpu.log").read_text() == "#1 building\n#2 done\n"


def test_a_second_run_builds_and_tags_nothing(run, engine):
    first = run()
    again = run()
    assert (again["changed"], again["built"], again["seconds"]) == (False, False, 0)
    assert (again["image"], again["id"], again["tags"]) == (first["image"], first["id"], first["tags"])
    assert len(engine.calls("buildx")) == 1
    assert len(engine.calls("tag")) == 2


def test_the_build_gets_what_it_is_made_of(run, engine, recipe, tmp_path):
    result = run(variables={"FRONTEND": "build", "JOBS": 4}, ca_bundle="/ca.pem", wheelhouse="/wheels", ref="v1.6")
    (call,) = engine.calls("buildx", "bake")
    env = call["env"]
    assert call["cwd"] == str(recipe)
    assert "--load" in call["argv"]
    assert f"cpu.context={recipe}" in call["argv"]
    assert env["WHEELHOUSE"] == "/wheels"
    wanted = {"SOURCE": str(tmp_path / "source"), "BASE": "debian:bookworm-slim", "REVISION": REVISION, "VERSION": "v1.6"}
    wanted.update(
        BASE_ID="sha256:0123",
        CA_BUNDLE="/ca.pem",
        FRONTEND="build",
        JOBS="4",
        TAGS=result["image"],
        RECIPE=result["recipe_digest"],
    )
    assert {name: env[name] for name in wanted} == wanted
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", env["CREATED"])
    assert "--builder default" in " ".join(call["argv"])


def test_the_packages_of_a_refresh_are_part_of_the_name_and_its_time_reaches_the_build(run, engine, tmp_path):
    plain = run(refreshed=str(tmp_path / "refreshed.json"))["image"]
    assert engine.calls("buildx")[-1]["env"]["REFRESHED"] == ""
    assert run(check=True)["image"] == plain
    names = []
    for time, version in (("2026-01-01T00:00:00Z", "1"), ("2026-01-02T00:00:00Z", "2"), ("2026-01-03T00:00:00Z", "2")):
        (tmp_path / "refreshed.json").write_text(json.dumps({"time": time, "packages": {"libc6": version}}))
        names.append(run(refreshed=str(tmp_path / "refreshed.json"))["image"])
        assert engine.calls("buildx")[-1]["env"]["REFRESHED"] == min(time, "2026-01-02T00:00:00Z")
    assert names[0] != plain
    assert names[0] != names[1] == names[2]


@pytest.mark.parametrize("text", ["{", "[]", '{"packages": {}}', '{"time": "now"}'])
def test_a_damaged_record_of_a_refresh_is_named(run, engine, tmp_path, text):
    (tmp_path / "refreshed.json").write_text(text)
    message = run(refreshed=str(tmp_path / "refreshed.json"), failed=True)["msg"]
    assert f"The record of the last refresh, {tmp_path}/refreshed.json, can't be used: it" in message
    assert not engine.calls("buildx")


def test_the_host_s_environment_does_not_reach_the_build(run, engine, recipe, monkeypatch):
    shutil.copy(ROOT / "docker" / "docker-bake.hcl", recipe)
    named = re.findall(r'^variable "(\w+)"', (recipe / "docker-bake.hcl").read_text(), re.MULTILINE)
    assert len(named) > 15
    for name in named:
        monkeypatch.setenv(name, "of the host")
    run(network={"HTTPS_PROXY": "http://asked:3128"})
    env = engine.calls("buildx", "bake")[0]["env"]
    assert {name for name in named if env[name] == "of the host"} == {"CACHE_FROM", "CACHE_TO"}  # a task sets these two
    assert (env["NETWORK"], env["CUDA"]) == ("HTTPS_PROXY=http://asked:3128", "13.0")


def test_escapes_of_a_build_do_not_reach_the_terminal(run, engine):
    engine.set(build_error="\x1b[31mred\x1b[0m \x1b]0;title\x07and a bell\x07\n")
    message = run(failed=True)["msg"]
    assert message.endswith("red and a bell")


def test_without_a_wheelhouse_none_is_named(run, engine):
    run()
    assert not [word for word in engine.calls("buildx")[0]["argv"] if ".contexts." in word]


def test_another_input_makes_another_image(run):
    inputs = [
        {},
        {"revision": "0" * 40},
        {"base_id": "sha256:4567"},
        {"variant": "gpu"},
        {"variables": {"FRONTEND": "shipped"}},
    ]
    assert len({run(check=True, **options)["image"] for options in inputs}) == len(inputs)


def wheel(folder, record, name="torch-2.0-cp311-none-linux_x86_64.whl"):
    """Write a wheel with this RECORD."""
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / name, "w") as archive:
        archive.writestr("torch-2.0.dist-info/RECORD", record)


def test_other_wheels_make_another_image(run, tmp_path):
    """They are not compared with the pins' hashes, as they may be the operator's own builds."""
    names = []
    for record in ("torch/a.so,sha256=1,2\n", "torch/a.so,sha256=2,2\n"):
        wheel(tmp_path / "wheels", record)
        names.append(run(check=True, wheelhouse=str(tmp_path / "wheels"))["image"])
    wheel(tmp_path / "wheels", "", name="vision-1.whl")
    names.append(run(check=True, wheelhouse=str(tmp_path / "wheels"))["image"])
    (tmp_path / "wheels/vision-1.whl").write_text("no archive")
    names.append(run(check=True, wheelhouse=str(tmp_path / "wheels"))["image"])
    names.append(run(check=True)["image"])
    assert len(set(names)) == 5


def test_the_same_wheels_elsewhere_make_the_same_image(run, tmp_path):
    names = set()
    for folder in ("first", "sec[o]nd"):
        wheel(tmp_path / folder, "torch/a.so,sha256=1,2\n")
        names.add(run(check=True, wheelhouse=str(tmp_path / folder))["image"])
    (tmp_path / "first/README").touch()
    names.add(run(check=True, wheelhouse=str(tmp_path / "first"))["image"])
    assert len(names) == 1
    assert names != {run(check=True)["image"]}


def test_what_is_not_in_an_image_makes_no_other(run):
    inputs = [
        {},
        {"ref": "other"},
        {"source": "/elsewhere"},
        {"base": "mirror/debian"},
        {"ca_bundle": "/ca"},
        {"wheelhouse": "/w"},
    ]
    assert len({run(check=True, **options)["image"] for options in inputs}) == 1


def test_an_edit_of_the_recipe_makes_another_image(run, recipe):
    images = [run(check=True)["image"]]
    for name in ("Dockerfile", "entrypoint", "constraints/cpu.txt"):
        (recipe / name).write_text("edited\n")
        images.append(run(check=True)["image"])
    (recipe / "entrypoint").rename(recipe / "start")
    images.append(run(check=True)["image"])
    assert len(set(images)) == 5


def test_files_that_no_image_holds_make_no_other(run, recipe):
    before = run(check=True)["image"]
    for name in ("docker-bake.hcl", "compose.yaml", "Dockerfile.dockerignore"):
        (recipe / name).write_text("edited\n")
    assert run(check=True)["image"] == before


@pytest.mark.parametrize(("ref", "tag"), [("feature/new brush", "feature-new-brush"), ("v1.6.0", "v1.6.0"), ("-a-", "a")])
def test_a_ref_becomes_a_tag(run, ref, tag):
    assert run(check=True, ref=ref)["tags"][1] == f"iopaint:cpu-{tag}"


def test_a_long_ref_is_cut(run):
    assert run(check=True, ref="x" * 99)["tags"][1] == "iopaint:cpu-" + "x" * 60


def test_check_mode_builds_and_tags_nothing(run, engine, tmp_path):
    result = run(check=True)
    assert (result["changed"], result["built"]) == (True, True)
    assert not engine.ids
    assert not (tmp_path / "cpu.log").exists()


def test_tags_that_point_elsewhere_are_moved(run, engine):
    result = run()
    engine.have("iopaint:cpu-latest")
    elsewhere = engine.ids
    assert run(check=True)["changed"] is True
    assert engine.ids == elsewhere
    moved = run()
    assert (moved["changed"], moved["built"]) == (True, False)
    assert engine.ids["iopaint:cpu-latest"] == result["id"]


def test_a_new_ref_of_the_same_revision_is_only_a_tag(run, engine):
    first = run()
    second = run(ref="v2")
    assert (second["changed"], second["built"], second["id"]) == (True, False, first["id"])
    assert engine.ids["iopaint:cpu-v2"] == first["id"]


def test_a_failed_build_shows_the_end_of_its_log_and_moves_no_tag(run, engine, tmp_path):
    engine.have("iopaint:cpu-latest")
    engine.set(build_error="".join(f"#7 line {number}\n\n" for number in range(100)) + "ERROR: exit code 1\n")
    message = run(failed=True)["msg"]
    assert re.search(r"The build of iopaint:cpu-61a759fb3f33-[0-9a-f]{12} failed; nothing that runs was touched", message)
    assert f"The full log is on the host in {tmp_path}/cpu.log" in message
    assert message.endswith("#7 line 99\nERROR: exit code 1")
    assert "#7 line 75\n" not in message
    assert "#7 line 0\n" in (tmp_path / "cpu.log").read_text()
    assert engine.ids == {"iopaint:cpu-latest": "sha256:iopaint:cpu-latest"}


@pytest.mark.parametrize("check", [False, True])
def test_too_little_disk_is_said_before_a_build(run, engine, check):
    free = os.statvfs(engine.root).f_bavail * os.statvfs(engine.root).f_frsize
    message = run(min_free=free + 10**12, failed=True, check=check)["msg"]
    wanted = re.search(r"(\d+\.\d) GB are free at (\S+), min_free asks for (\d+\.\d)\. ", message)
    assert wanted[2] == str(engine.root)
    assert float(wanted[3]) > float(wanted[1])
    assert "docker system df" in message
    assert not engine.calls("buildx")


def test_an_image_that_is_there_needs_no_disk(run):
    run()
    assert run(min_free=10**18)["changed"] is False


def test_an_engine_that_is_down_is_said(run, engine):
    engine.set(down=True)
    assert "The Docker engine does not answer: Cannot connect" in run(failed=True)["msg"]


NETWORK = {
    "PYTHON_INDEX": "https://robot:hunter2@pypi.example.com/simple",
    "HTTPS_PROXY": "http://robot:hunter3@proxy:3128",
    "NO_PROXY": "localhost",
}


def test_where_downloads_come_from_reaches_the_build_and_makes_no_other_image(run, engine):
    first = run(check=True)["image"]
    assert run(network=NETWORK)["image"] == first
    given = engine.calls("buildx")[0]["env"]["NETWORK"]
    assert dict(line.split("=", 1) for line in given.splitlines()) == NETWORK
    assert not [word for call in engine.calls() for word in call["argv"] if "hunter" in word]


def test_no_password_is_in_log_or_answer(run, engine, tmp_path):
    engine.set(build_error="ERROR: 401 from https://robot:hunter2@pypi.example.com/simple by hunter3\n")
    answer = run(network=NETWORK, failed=True)
    for text in (json.dumps(answer), (tmp_path / "cpu.log").read_text()):
        assert "hunter" not in text
        assert "401 from https://" in text
        assert "pypi.example.com/simple" in text


def test_attestations_need_an_image_store_that_keeps_them(run, engine):
    result = run(failed=True, attestations=["sbom", "provenance"])
    assert "attestations is sbom, provenance" in result["msg"]
    assert "containerd-snapshotter" in result["msg"]
    assert not engine.calls("buildx")


def test_attestations_are_asked_for_and_make_another_image(run, engine):
    plain = run()["image"]
    engine.set(store='[["driver-type","io.containerd.snapshotter.v1"]]')
    assert run(attestations=["provenance", "sbom"], sbom_generator="scanner:1")["image"] != plain
    call = engine.calls("buildx", "bake")[-1]["argv"]
    assert [word for word in call if word.startswith(("--provenance", "--sbom"))] == [
        "--provenance=mode=max",
        "--sbom=generator=scanner:1",
    ]
    run(attestations=["sbom"], ref="by-default")
    assert "--sbom=true" in engine.calls("buildx", "bake")[-1]["argv"]


def test_a_missing_image_is_named_and_not_built(run, engine):
    result = run(build=False)
    assert (result["needed"], result["changed"], result["built"]) == (True, False, False)
    assert not engine.calls("buildx")
    assert not engine.ids
    assert "needed" not in run()
    assert "needed" not in run(build=False)
