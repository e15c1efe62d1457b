# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""iopaint_models as files to be fetched."""

import re

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.iopaint.fleet.plugins.filter.model_files import FilterModule

model_files = FilterModule().filters()["model_files"]
OWN = {"name": "own", "url": "https://example.com/own.pt", "checksum": "sha256:00", "path": "stable_diffusion/own.pt"}


def refusal(*models):
    with pytest.raises(AnsibleFilterError) as error:
        model_files(list(models))
    return str(error.value)


@pytest.mark.parametrize("name", ["lama", "anime-lama", "mat", "fcf", "migan"])
def test_a_known_model_needs_its_name_alone(name):
    (file,) = model_files([{"name": name}])
    assert file["name"] == name
    assert file["url"].startswith("https://github.com/Sanster/models/releases/download/")
    assert re.fullmatch("md5:[0-9a-f]{32}", file["checksum"])
    assert file["path"] == "torch/hub/checkpoints/" + file["url"].rsplit("/", maxsplit=1)[1]


def test_known_models_are_files_of_their_own():
    files = model_files([{"name": name} for name in ("lama", "anime-lama", "mat", "fcf", "migan")])
    for key in ("url", "checksum", "path"):
        assert len({file[key] for file in files}) == 5


def test_the_user_s_mirror_and_sum_go_before_what_is_known():
    mine = {"name": "lama", "url": "file:///srv/big-lama.pt", "checksum": "sha256:00"}
    (file,) = model_files([mine])
    assert file == {**mine, "path": "torch/hub/checkpoints/big-lama.pt"}
    assert "path" not in mine


@pytest.mark.parametrize("key", ["url", "checksum", "path"])
def test_a_key_that_is_null_counts_as_left_out(key):
    assert model_files([{"name": "lama", key: None}]) == model_files([{"name": "lama"}])
    assert f"the model own needs {key} as well" in refusal({**OWN, key: None})


def test_another_model_is_taken_where_it_is_described_in_full():
    assert model_files([OWN]) == [OWN]
    assert model_files([]) == []


def test_another_model_is_refused_where_it_is_not():
    message = refusal({"name": "own", "url": "https://example.com/own.pt"})
    assert message == (
        "iopaint_models: the model own needs checksum, path as well; only anime-lama, fcf, lama, mat, migan and the weights of "
        "IOPaint's plugins are known by name."
    )


@pytest.mark.parametrize("model", ["lama", 7, None, {"url": "x"}, {"name": "lama", "md5": "x"}])
def test_what_is_no_model_is_refused_with_its_place(model):
    message = refusal({"name": "lama"}, model)
    assert message == "iopaint_models[1] must be a dictionary of name, url, checksum and path, or of hub and its keys."


def test_a_checksum_without_its_algorithm_is_refused():
    message = refusal({**OWN, "checksum": "e3aa4aaa"})
    assert message == "iopaint_models: checksum 'e3aa4aaa' of own needs its algorithm in front: sha256:…"


@pytest.mark.parametrize("path", ["/etc/passwd", "../own.pt", "a/../../own.pt", "a/.."])
def test_a_path_outside_the_model_folder_is_refused(path):
    assert refusal({**OWN, "path": path}) == f"iopaint_models: path {path!r} of own must lie below the model folder."


def test_a_path_with_dots_in_a_name_is_none_of_these():
    assert model_files([{**OWN, "path": "a/..own.pt"}])


@pytest.mark.parametrize("key", ["name", "path"])
def test_two_models_of_one_name_or_file_are_refused(key):
    other = {**OWN, "name": "b", "path": "b.pt", key: OWN[key]}
    message = refusal(OWN, other)
    assert message == f"iopaint_models: {key} {OWN[key]} is used by more than one model. Give each its own. Nothing was changed."
