# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A new data root that would leave data behind."""

from __future__ import annotations

import json
import os

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.iopaint.fleet.plugins.modules import data_root_check


@pytest.fixture
def run(tmp_path, capsys):
    def run_module(failed=False, path="new", **options):
        options = {**options, "config": str(tmp_path / "daemon.json"), "default": str(tmp_path / "old")}
        if path:
            options["path"] = str(tmp_path / path)
        with patch_module_args({**options, "names": {"path": "docker_data_root"}}), pytest.raises(SystemExit):
            data_root_check.main()
        result = json.loads(capsys.readouterr().out)
        assert result.get("failed", False) is failed, result
        return result

    return run_module


def engine_was_here(root):
    """What dockerd makes on its first start."""
    for folder in ("containers", "image/overlay2/imagedb/content/sha256", "volumes"):
        (root / folder).mkdir(parents=True)
    (root / "volumes/metadata.db").write_text("")


def test_a_host_without_an_engine_passes(run):
    assert not run()["changed"]


def test_an_engine_without_data_passes(run, tmp_path):
    engine_was_here(tmp_path / "old")
    run()


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("containers/c0ffee", "containers"),
        ("image/overlay2/imagedb/content/sha256/c0ffee", "images"),
        ("volumes/kept/_data", "volumes"),
    ],
)
def test_data_is_not_left_behind(run, tmp_path, path, name):
    engine_was_here(tmp_path / "old")
    (tmp_path / "old" / path).mkdir(parents=True)
    message = run(failed=True)["msg"]
    assert message.startswith(f"docker_data_root is {tmp_path}/new, and the engine has {name} in {tmp_path}/old that")
    run(path="old")
    (tmp_path / "daemon.json").write_text(json.dumps({"data-root": str(tmp_path / "new")}))
    run()  # it is there already
    assert str(tmp_path / "new") == run(path="elsewhere")["present"]


def test_data_that_was_moved_passes(run, tmp_path):
    engine_was_here(tmp_path / "old")
    (tmp_path / "old/containers/c0ffee").mkdir()
    engine_was_here(tmp_path / "new")
    run()


def test_mapping_users_hides_no_data(run, tmp_path):
    engine_was_here(tmp_path / "old")
    run(path=None, userns_remap="default")
    (tmp_path / "old/containers/c0ffee").mkdir()
    run(path=None, userns_remap="")
    message = run(failed=True, path=None, userns_remap="default")["msg"]
    assert message.startswith("An engine that maps users by userns-remap=default no longer sees its present containers in")
    assert f"{tmp_path}/old" in message


def test_mapping_no_users_hides_no_data_either(run, tmp_path):
    engine_was_here(tmp_path / "old")
    engine_was_here(tmp_path / "old/100000.100000")
    (tmp_path / "old/containers/c0ffee").mkdir()
    (tmp_path / "daemon.json").write_text(json.dumps({"userns-remap": "dockremap:dockremap"}))
    run(path=None, userns_remap="")  # nothing is in the folder that the engine uses
    (tmp_path / "old/100000.100000/volumes/kept/_data").mkdir(parents=True)
    message = run(failed=True, path=None, userns_remap="")["msg"]
    assert message.startswith("An engine that no longer maps users (userns-remap) no longer sees its present volumes")
    run(path=None, userns_remap="default")  # another word for the same user
    run(path=None)


def test_a_file_that_cannot_be_read_is_for_the_task_that_edits_it(run, tmp_path):
    (tmp_path / "daemon.json").write_text("{")
    assert run()["present"] == str(tmp_path / "old")


@pytest.mark.parametrize(
    "content", ["[" * 5000, '{"data-root": 5}', '{"data-root": "a\\u0000b"}', '{"data-root": ["x"]}', "\ufeff"]
)
def test_a_configuration_that_names_no_folder_is_left_to_the_task_that_edits_it(run, tmp_path, content):
    (tmp_path / "daemon.json").write_text(content)
    assert run()["present"] == str(tmp_path / "old")


def test_a_fifo_in_place_of_the_configuration_is_not_waited_for(run, tmp_path):
    os.mkfifo(tmp_path / "daemon.json")
    assert run()["present"] == str(tmp_path / "old")
