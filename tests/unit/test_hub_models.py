# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Hub repositories of iopaint_models: the filter that completes them, and the module that has an image fetch them."""

import json
import os

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.iopaint.fleet.plugins.filter.hub_models import FilterModule
from ansible_collections.iopaint.fleet.plugins.modules import hub_models

LIST = FilterModule().filters()["hub_models"]
IMAGE = "iopaint:cpu-latest"
COMMIT = "1" * 40


def test_a_repository_is_completed_and_files_are_left_out():
    assert LIST([{"name": "lama"}, {"hub": "owner/model", "variant": "fp16", "name": None}]) == [
        {"hub": "owner/model", "revision": "main", "files": [], "variant": "fp16"}
    ]


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"hub": "model"}, "hub 'model' must be OWNER/NAME"),
        ({"hub": "../../etc"}, "hub '../../etc' must be OWNER/NAME"),
        ({"hub": "a/b", "url": "x", "name": "c"}, "name, url can't go with hub"),
        ({"hub": "a/b", "revision": 1.5}, "revision 1.5 must be one word in quotes"),
        ({"hub": "a/b", "revision": ""}, "revision is empty"),
        ({"hub": "a/b", "revision": "--check"}, "revision '--check' must be one word"),
        ({"hub": "a/b", "variant": "fp 16"}, "variant 'fp 16' must be one word"),
        ({"hub": "a/b", "files": ["--token-stdin"]}, "files has '--token-stdin'"),
    ],
)
def test_what_is_no_repository_is_refused_with_its_place(entry, words):
    with pytest.raises(AnsibleFilterError, match=r"^iopaint_models\[1\]: ") as error:
        LIST([{"name": "lama"}, entry])
    assert words in str(error.value)


def test_a_repository_that_is_there_twice_is_refused():
    with pytest.raises(AnsibleFilterError, match="a/b is there more than once"):
        LIST([{"hub": "a/b"}, {"hub": "a/b", "revision": "v2"}])


@pytest.fixture
def fetch(run_module, engine, tmp_path):
    """Run the module on an engine that has the image."""
    engine.have(IMAGE)

    def fetch(*repositories, answer=None, status=0, err="", **options):
        said = {
            "repository": "owner/model",
            "revision": COMMIT,
            "changed": True,
            "bytes": 7,
            "missing_bytes": 7,
            "files": {"a": 7},
        }
        engine.set(fetched=[status, json.dumps({**said, **(answer or {})}) if status == 0 else "", err])
        wanted = repositories or ({"hub": "owner/model"},)
        names = {"repositories": "iopaint_models", "endpoint": "iopaint_hub_endpoint", "token": "iopaint_hub_token"}
        names["models_dir"] = "iopaint_data_dir"
        return run_module(
            hub_models,
            failed=status != 0,
            **{"repositories": list(wanted), "image": IMAGE, "models_dir": str(tmp_path), "names": names, **options},
        )

    return fetch


def command(engine):
    (call,) = [call for call in engine.calls() if call["argv"][0] == "run"]
    return call


def test_a_repository_is_fetched_by_the_image_without_other_rights(fetch, engine, tmp_path):
    done = fetch({"hub": "owner/model", "revision": COMMIT, "variant": "fp16", "files": ["unet/*", "*.json"]})
    assert (done["changed"], done["repositories"][0]["revision"]) == (True, COMMIT)
    argv = command(engine)["argv"]
    assert {"--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--pull=never", "--user=10001:10001"} <= set(
        argv
    )
    assert argv[argv.index("--volume") + 1] == f"{tmp_path}:/app/models"
    asked = argv[argv.index(IMAGE) + 1 :]
    assert asked == f"fetch-models owner/model --revision {COMMIT} --variant fp16 --files unet/* *.json".split()


def test_models_of_another_host_and_the_host_s_authorities_are_read_only(fetch, engine, monkeypatch, tmp_path):
    (tmp_path / "authorities").write_text("certificates")
    monkeypatch.setattr(hub_models, "AUTHORITIES", str(tmp_path / "authorities"))
    fetch(mirror="/srv/models")
    call = command(engine)
    mounts = [word.removeprefix("--mount=") for word in call["argv"] if word.startswith("--mount=")]
    assert mounts == [
        "type=bind,readonly,source=/srv/models,target=/mirror",
        f"type=bind,readonly,source={tmp_path}/authorities,target={tmp_path}/authorities",
    ]
    assert call["argv"][-2:] == ["--mirror", "/mirror"]
    assert call["env"]["REQUESTS_CA_BUNDLE"] == f"{tmp_path}/authorities"


def test_a_host_without_authorities_uses_those_of_the_image(fetch, engine, monkeypatch, tmp_path):
    monkeypatch.setattr(hub_models, "AUTHORITIES", str(tmp_path / "none"))
    fetch()
    call = command(engine)
    assert not [word for word in call["argv"] if word.startswith("--mount") or word == "--mirror"]
    assert "REQUESTS_CA_BUNDLE" not in call["argv"]


def test_a_token_and_an_address_are_in_no_process_list(fetch, engine):
    fetch(token="hf_secret", endpoint="https://u:pw@mirror.example.com", environment={"HTTPS_PROXY": "http://u:pw@proxy"})
    call = command(engine)
    assert not [word for word in call["argv"] if "hf_secret" in word or "pw" in word]
    assert call["env"]["HF_ENDPOINT"] == "https://u:pw@mirror.example.com"
    assert "--token-stdin" in call["argv"]


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (os.EX_NOINPUT, "Correct the entry in iopaint_models."),
        (os.EX_UNAVAILABLE, "See iopaint_hub_endpoint"),
        (os.EX_CANTCREAT, "Make room on the disk of iopaint_data_dir"),
        (os.EX_NOPERM, "Set iopaint_hub_token."),
        (os.EX_DATAERR, "A file is not what the hub says."),
        (125, ""),
    ],
)
def test_a_failure_is_told_with_its_remedy(fetch, status, words):
    message = fetch(status=status, err="fetch-models: owner/model: that is why.\n")["msg"]
    assert message.startswith("owner/model (iopaint_models) could not be fetched: owner/model: that is why.")
    assert words in message
    assert message.endswith("No instance was touched.")


def test_a_repository_that_the_hub_has_no_more_is_told_with_its_replacement(fetch):
    gone = {"hub": "runwayml/stable-diffusion-inpainting"}
    why = "fetch-models: runwayml/stable-diffusion-inpainting: the hub has no such repository.\n"
    message = fetch(gone, status=os.EX_NOINPUT, err=why)["msg"]
    assert "On the public hub stable-diffusion-v1-5/stable-diffusion-inpainting replaces it." in message
    assert "replaces it" not in fetch(gone, status=os.EX_UNAVAILABLE, err=why)["msg"]


def test_check_mode_downloads_nothing_and_passes_over_an_image_that_is_still_to_be_built(fetch, engine):
    assert fetch(check=True)["changed"] is True
    assert "--check" in command(engine)["argv"]
    assert fetch(check=True, image="iopaint:cpu-none")["skipped"] is True
