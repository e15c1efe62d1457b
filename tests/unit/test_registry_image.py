# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Images between an engine and a registry. Both are a stand-in that keeps what they hold in a file."""

import json

import pytest
from ansible_collections.iopaint.fleet.plugins.modules import registry_image

REPOSITORY = "registry.example.com:5000/team/iopaint"
NAME = "iopaint:cpu-61a759fb3f33-9d2f0c11aa42"
TAGS = [NAME, "iopaint:cpu-main", "iopaint:cpu-latest"]
DIGEST = "sha256:" + "7" * 64
OTHER = "sha256:" + "8" * 64
# names: image by name or digest reference. registry: digest by reference, and the image of each digest.
DOCKER = r"""
import json, sys
path, argv = STATE, sys.argv[1:]
state = json.load(open(path))
names, registry = state["names"], state["registry"]
state["calls"].append(argv)
def end(status=0, out="", err=""):
    json.dump(state, open(path, "w"))
    print(out, end="")
    print(err, end="", file=sys.stderr)
    raise SystemExit(status)
if argv[:2] == ["image", "inspect"]:
    if argv[2] not in names:
        end(1, "[]\n", "Error: No such image: %s\n" % argv[2])
    found = names[argv[2]]
    digests = [name for name, image in names.items() if "@" in name and image == found]
    end(0, json.dumps([{"Id": found, "Size": 1000, "RepoDigests": digests}]))
if argv[0] == "info":
    end(0, "/data\n")
if argv[0] == "tag":
    names[argv[2]] = argv[1]
    end()
if argv[:2] == ["image", "rm"]:
    del names[argv[2]]
    repository = argv[2].rpartition(":")[0]
    if not [name for name in names if name.startswith(repository + ":")]:  # as the engine does with the last tag
        for name in [name for name in names if name.startswith(repository + "@")]:
            del names[name]
    end()
if state["error"] and argv[0] in ("pull", "push"):
    end(1, "", state["error"])
if argv[0] == "pull":
    name = argv[-1]
    digest = name.partition("@")[2] or registry["tags"].get(name)
    if digest not in registry["images"]:
        end(1, "", "Error response from daemon: manifest for %s not found: manifest unknown: manifest unknown\n" % name)
    names[name] = registry["images"][digest]
    names[name.partition("@")[0].rpartition(":")[0] + "@" + digest if "@" not in name else name] = names[name]
    end(0, name + "\n")
if argv[0] == "push":
    known = DIGEST in registry["images"]
    registry["images"][DIGEST] = names[argv[1]]
    registry["tags"][argv[1]] = DIGEST
    names[argv[1].rpartition(":")[0] + "@" + DIGEST] = names[argv[1]]
    layer = "Layer already exists" if known else "Pushed"
    end(0, "8eebc4143550: %s\ncpu: digest: %s size: 1158\n" % (layer, DIGEST))
end(64, "", "the stand-in knows no docker %s\n" % " ".join(argv))
"""


@pytest.fixture
def docker(engine, tmp_path):
    """The stand-in; call it with what it is to hold, ask it for what it holds."""
    state = tmp_path / "registry-state"
    engine.program("docker", DOCKER, STATE=state, DIGEST=DIGEST)

    def docker(**values):
        known = (
            json.loads(state.read_text())
            if state.exists()
            else {"names": {}, "registry": {"tags": {}, "images": {}}, "error": ""}
        )
        known.setdefault("calls", [])
        state.write_text(json.dumps({**known, **values}))
        return {**known, **values}

    docker()
    return docker


@pytest.fixture
def run(run_module, docker):
    def run(state, failed=False, check=False, images=None, **options):
        images = images or [{"image": NAME, "tags": TAGS}]
        return run_module(
            registry_image, failed=failed, check=check, state=state, repository=REPOSITORY, images=images, **options
        )

    return run


def asked(docker):
    """What was asked of the network."""
    return [call for call in docker()["calls"] if call[0] in ("pull", "push")]


def test_an_image_is_pulled_by_digest_and_has_the_names_that_a_built_one_has(run, docker):
    docker(registry={"tags": {}, "images": {DIGEST: "sha256:1"}})
    result = run("pulled", images=[{"image": NAME, "tags": TAGS, "digest": DIGEST}])
    assert (result["changed"], result["missing"]) == (True, [])
    assert (result["images"][0]["how"], result["images"][0]["id"]) == ("pulled", "sha256:1")
    assert docker()["names"] == dict.fromkeys([*TAGS, f"{REPOSITORY}@{DIGEST}"], "sha256:1")
    assert asked(docker) == [["pull", "--quiet", f"{REPOSITORY}@{DIGEST}"]]


def test_what_is_there_is_not_asked_for(run, docker):
    docker(names={**dict.fromkeys(TAGS, "sha256:1"), f"{REPOSITORY}@{DIGEST}": "sha256:1"}, error="down")
    for state in ("here", "pulled", "pushed"):
        result = run(state)
        assert (result["changed"], result["missing"], result["images"][0]["how"]) == (False, [], "here")
        assert result["images"][0]["digest"] == DIGEST
    assert not asked(docker)


def test_here_names_what_is_missing_and_asks_nobody(run, docker):
    result = run("here")
    assert (result["changed"], result["missing"], result["images"][0]["how"]) == (False, [NAME], "missing")
    assert not asked(docker)


def test_tags_that_point_elsewhere_are_moved(run, docker):
    docker(names={NAME: "sha256:1", TAGS[2]: "sha256:2"})
    assert run("here", check=True)["changed"] is True
    assert docker()["names"][TAGS[2]] == "sha256:2"
    assert run("here")["changed"] is True
    assert docker()["names"] == dict.fromkeys(TAGS, "sha256:1")


def test_a_pushed_image_is_known_by_its_digest_and_by_no_tag_of_the_registry(run, docker):
    docker(names=dict.fromkeys(TAGS, "sha256:1"))
    result = run("pushed", images=[{"image": NAME, "tags": TAGS, "aliases": ["cpu-latest"]}])
    assert (result["changed"], result["images"][0]["how"], result["images"][0]["digest"]) == (True, "pushed", DIGEST)
    assert docker()["registry"]["tags"] == dict.fromkeys([f"{REPOSITORY}:{NAME[8:]}", f"{REPOSITORY}:cpu-latest"], DIGEST)
    assert docker()["names"] == dict.fromkeys([*TAGS, f"{REPOSITORY}@{DIGEST}"], "sha256:1")
    assert run("pushed")["changed"] is False


def test_a_registry_that_lost_the_image_gets_it_again(run, docker):
    docker(names={**dict.fromkeys(TAGS, "sha256:1"), f"{REPOSITORY}@{DIGEST}": "sha256:1"})
    assert run("pushed", again=True)["changed"] is True
    assert docker()["registry"]["images"] == {DIGEST: "sha256:1"}
    again = run("pushed", again=True)
    assert (again["changed"], again["images"][0]["how"]) == (False, "pushed")


def test_a_builder_takes_what_the_registry_has_by_tag(run, docker):
    docker(registry={"tags": {f"{REPOSITORY}:{NAME[8:]}": OTHER}, "images": {OTHER: "sha256:3"}})
    result = run("pulled", optional=True)
    assert (result["changed"], result["missing"], result["images"][0]["digest"]) == (True, [], OTHER)
    assert docker()["names"] == dict.fromkeys([*TAGS, f"{REPOSITORY}@{OTHER}"], "sha256:3")


def test_what_the_registry_does_not_have_is_missing_where_it_may_be(run, docker):
    result = run("pulled", optional=True)
    assert (result["changed"], result["missing"]) == (False, [NAME])
    message = run("pulled", failed=True)["msg"]
    assert f"The image {REPOSITORY}:{NAME[8:]} could not be pulled: manifest for" in message
    assert "iopaint.fleet.build" in message
    assert message.endswith("Nothing that runs was touched.")


@pytest.mark.parametrize("state", ["pulled", "pushed"])
def test_a_registry_that_is_down_changes_nothing(run, docker, state):
    names = {"iopaint:cpu-other": "sha256:2", **({NAME: "sha256:1"} if state == "pushed" else {})}
    docker(names=names, error="Error response from daemon: dial tcp 10.0.0.2:5000: connect: connection refused\n")
    message = run(state, failed=True, optional=True)["msg"]
    assert (
        "connection refused. See that the registry runs and that the host reaches registry.example.com:5000 (repository)"
        in message
    )
    assert docker()["names"] == names


@pytest.mark.parametrize(("state", "names"), [("pulled", {}), ("pushed", {NAME: "sha256:1", **dict.fromkeys(TAGS, "sha256:1")})])
def test_check_mode_asks_nobody_and_tags_nothing(run, docker, state, names):
    docker(names=names)
    assert run(state, check=True)["changed"] is True
    assert docker()["names"] == names
    assert not asked(docker)
