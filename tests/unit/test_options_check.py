# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The options of instances against IOPaint: the real docker/image/entrypoint over a small tree, and a stand-in for the engine."""

import sys
from pathlib import Path

import pytest
from ansible_collections.iopaint.fleet.plugins.modules import options_check

ROOT = Path(__file__).resolve().parents[2]

ENTRYPOINT = ROOT / "docker" / "image" / "entrypoint"
IMAGE = "iopaint:cpu-latest"
TREE = {
    "cli.py": """
def start(
    port: int = Option(8080),
    model: str = Option("lama"),
    model_dir: Path = Option(None),
    low_mem: bool = Option(False),
    api_key: str = Option(None),
):
    raise RuntimeError
""",
    "schema.py": "",
    "const.py": 'AVAILABLE_MODELS = ["lama", "cv2"]\n',
    "model/__init__.py": "",
}


NAMES = {"instances": "iopaint_instances", "images": "iopaint_images"}


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    for name, text in TREE.items():
        (folder / "iopaint" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "iopaint" / name).write_text(text)
    return folder


@pytest.fixture
def models(tmp_path):
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


@pytest.fixture(params=["source", "image"])
def way(request):
    """Whom to ask: a source tree by the recipe's entrypoint, or an image."""
    return request.param


@pytest.fixture
def run(run_module, engine, source, models, way):
    engine.have(IMAGE)
    engine.set(entrypoint=str(ENTRYPOINT), source=str(source))
    place = {"entrypoint": str(ENTRYPOINT), "source": str(source)} if way == "source" else {}

    def run(*environments, **options):
        instances = [
            {"name": f"i{index}", "image": IMAGE, "port": 8080 + index, "environment": environment}
            for index, environment in enumerate(environments)
        ]
        return run_module(options_check, **{"instances": instances, "models": str(models), "names": NAMES, **place, **options})

    return run


@pytest.mark.parametrize("check", [False, True])
def test_known_options_pass(run, engine, check):
    result = run({"IOPAINT_MODEL": "lama", "IOPAINT_LOW_MEM": "true"}, {"IOPAINT_MODEL": "cv2"}, check=check)
    assert (result["changed"], result["problems"], "skipped" in result) == (False, [], False)


@pytest.mark.parametrize("way", ["image"], indirect=True)
def test_an_image_that_hangs_is_given_up_and_its_container_removed(run, engine, monkeypatch):
    monkeypatch.setattr(options_check, "TIMEOUT", 0.5)
    stand_in = (engine.bin / "docker").read_text()
    (engine.bin / "docker").write_text(
        f"#!{sys.executable} -IS\nimport sys, time\nif sys.argv[1] == 'run': time.sleep(60)\n{stand_in}"
    )
    message = run({"IOPAINT_MODEL": "lama"}, failed=True)["msg"]
    assert "did not answer within 0.5 s" in message
    (removal,) = engine.calls("rm", "--force")
    assert removal["argv"][2].startswith("iopaint-options-")


def test_no_instances_pass(run, engine):
    assert run()["problems"] == []


def test_all_that_is_wrong_is_said_at_once_with_what_is_accepted(run):
    wrong = {"IOPAINT_MODEL": "lamma", "IOPAINT_LOW_MEMM": "true", "IOPAINT_LOW_MEM": "maybe"}
    result = run({"IOPAINT_MODEL": "cv2"}, wrong, {"IOPAINT_MODEL": "nosuch"}, failed=True)
    assert result["msg"].startswith(
        "iopaint_instances asks for what this IOPaint does not know; nothing that runs was touched.\n"
    )
    assert result["msg"].splitlines()[1:] == result["problems"]
    for start, words in {
        "i1: IOPAINT_LOW_MEM='maybe' is wrong": "accepted: true, false",
        "i1: IOPAINT_LOW_MEMM is no option of this IOPaint": "(nearest: IOPAINT_LOW_MEM)",
        "i1: accepted variables: ": "IOPAINT_API_KEY",
        "i1: IOPAINT_MODEL='lamma' is no model of this IOPaint": "(nearest: lama), accepted: cv2, lama",
        "i2: IOPAINT_MODEL='nosuch' is no model of this IOPaint": "accepted: cv2, lama",
    }.items():
        assert [text for text in result["problems"] if text.startswith(start) and words in text], (start, result)
    assert not [text for text in result["problems"] if text.startswith("i0")]


def test_a_model_in_the_folder_of_models_passes(run, models):
    (models / "stable_diffusion" / "own.safetensors").mkdir(parents=True)
    assert run({"IOPAINT_MODEL": "own.safetensors"})["problems"] == []


def test_a_folder_of_models_that_is_not_there_yet_passes(run, models):
    models.rmdir()
    assert run({"IOPAINT_MODEL": "lama"})["problems"] == []
    assert not models.exists()


def test_values_need_not_be_text(run):
    assert run({"IOPAINT_PORT": 8081})["problems"] == []
    assert (
        "i0: IOPAINT_PORT='70000' is wrong, accepted: a whole number from 1 to 65535"
        in run({"IOPAINT_PORT": 70000}, failed=True)["problems"]
    )


def test_a_source_that_can_t_be_read_is_named(run, source):
    (source / "iopaint" / "cli.py").unlink()
    message = run({"IOPAINT_MODEL": "lama"}, failed=True)["msg"]
    assert message.startswith("The options of i0 (iopaint_instances) could not be checked: entrypoint: the application's source")
    assert f"{source}/iopaint/cli.py can't be read: " in message
    assert message.endswith("Nothing that runs was touched.")


@pytest.mark.parametrize("key", ["name", "environment"])
def test_an_instance_that_lacks_a_key_is_refused(run, key):
    instance = {"name": "a", "image": IMAGE, "environment": {}}
    message = run(instances=[instance, {**instance, key: None}], failed=True)["msg"]
    assert message == f"iopaint_instances[1] has no {key}; name them."


@pytest.mark.parametrize("way", ["image"], indirect=True)
class TestImage:
    def test_an_image_is_asked_without_network_and_with_its_models_read_only(self, run, engine, models):
        run({"IOPAINT_MODEL": "lama"})
        (call,) = engine.calls("run")
        words = " ".join(call["argv"])
        wanted = "--network=none --read-only --cap-drop=ALL --security-opt=no-new-privileges --user=10001:10001"
        assert wanted in words
        assert f"-v {models}:/app/models:ro" in words
        assert words.endswith(f"{IMAGE} check")

    def test_no_value_is_in_the_process_list(self, run, engine):
        assert run({"IOPAINT_API_KEY": "s3cr3t"})["problems"] == []
        (call,) = engine.calls("run")
        assert "s3cr3t" not in " ".join(call["argv"])
        assert call["env"]["IOPAINT_API_KEY"] == "s3cr3t"

    def test_no_answer_shows_a_secret(self, run):
        environment = {"IOPAINT_API_KEY": "s3cr3t", "HF_ENDPOINT": "http://ann:s3cr3t@hub.example.com"}
        for given in (environment, {**environment, "IOPAINT_MODEL": "nosuch"}):
            assert "s3cr3t" not in str(run(given, failed="IOPAINT_MODEL" in given))

    def test_an_image_that_is_not_there_is_named_with_what_to_do(self, run, engine):
        engine.set(images={})
        message = run({"IOPAINT_MODEL": "lama"}, failed=True)["msg"]
        assert message.startswith(f"The image {IMAGE} of the instance i0 is not on the host. ")
        assert "iopaint.fleet.build" in message
        assert "iopaint_images" in message

    def test_check_mode_skips_where_the_image_is_still_to_be_built(self, run, engine):
        engine.set(images={})
        result = run({"IOPAINT_MODEL": "nosuch"}, check=True)
        assert (result["skipped"], result["msg"]) == (True, f"{IMAGE} is still to be built.")

    def test_check_mode_finds_what_is_wrong_where_the_image_is_there(self, run):
        assert run({"IOPAINT_MODEL": "nosuch"}, check=True, failed=True)["problems"]

    def test_an_instance_without_an_image_is_refused(self, run):
        message = run(instances=[{"name": "a", "environment": {}}], failed=True)["msg"]
        assert "has no image; name them" in message

    @pytest.mark.parametrize("check", [False, True])
    def test_an_engine_that_is_down_is_no_missing_image(self, run, engine, check):
        engine.set(down=True)
        assert "The Docker engine does not answer: Cannot connect" in run({}, failed=True, check=check)["msg"]

    def test_a_container_that_can_t_run_is_said(self, run, engine):
        engine.set(run_error="docker: Error response from daemon: no space left on device.\n")
        message = run({}, failed=True)["msg"]
        assert "The options of i0 (iopaint_instances) could not be checked: docker: Error" in message
        assert "no space left on device" in message


@pytest.mark.parametrize("way", ["source"], indirect=True)
class TestSource:
    def test_no_engine_is_needed(self, run, engine):
        engine.set(down=True)
        assert run({"IOPAINT_MODEL": "lama"})["problems"] == []
        assert not engine.calls()


def test_entrypoint_and_source_go_together(run_module, source):
    args = {"instances": [], "models": "/nonexistent", "source": str(source)}
    assert "required together: entrypoint, source" in run_module(options_check, failed=True, **args)["msg"]
