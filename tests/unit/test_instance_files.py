# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The files of instances: what is written, what a diff shows of it, and what stays as it is."""

import json
import os
import stat
from importlib import import_module

import pytest
from ansible_collections.iopaint.fleet.plugins.modules import instance_files

SECRET = "IOPAINT_API_KEY='s3cr3t'\n"


@pytest.fixture
def folders(tmp_path):
    """Two instances, with a file that is secret."""
    return [
        {
            "path": str(tmp_path / "instances" / name),
            "files": [
                {"name": ".env", "content": f"PROJECT='iopaint-{name}'\n"},
                {"name": "options.env", "content": SECRET, "mode": "0600", "secret": True},
            ],
        }
        for name in ("cpu", "höhe")
    ]


@pytest.fixture
def run(run_module, folders):
    return lambda **options: run_module(instance_files, **{"folders": folders, **options})


def everything(folders):
    return [path for folder in folders for path in (folder["path"], *paths([folder]))]


def paths(folders):
    return [f"{folder['path']}/{file['name']}" for folder in folders for file in folder["files"]]


def mode(path):
    return stat.S_IMODE(os.stat(path).st_mode)


def read(path):
    with open(path, encoding="utf-8", newline="") as stream:
        return stream.read()


def test_no_umask_changes_a_mode(run, folders, tmp_path):
    """Hosts with UMASK 077 are common; what lies below has to be found by users other than root."""
    before = os.umask(0o077)
    try:
        run()
    finally:
        os.umask(before)
    assert [oct(mode(path)) for path in (tmp_path / "instances", folders[0]["path"], *paths(folders[:1]))] == [
        "0o755",
        "0o755",
        "0o644",
        "0o600",
    ]


def test_a_file_in_the_place_of_a_folder_is_an_error(run, folders, tmp_path):
    (tmp_path / "instances").write_text("no folder")
    assert "could not be made or filled" in run(failed=True)["msg"]


def test_all_files_of_all_instances_are_written(run, folders):
    result = run()
    assert (result["changed"], result["written"]) == (True, everything(folders))
    assert [read(path) for path in paths(folders)] == [file["content"] for folder in folders for file in folder["files"]]
    assert [mode(path) for path in paths(folders)] == [0o644, 0o600] * 2
    assert sorted(os.listdir(folders[0]["path"])) == [".env", "options.env"]
    assert "diff" not in result


def test_a_second_run_changes_nothing(run, folders):
    run()
    before = [os.stat(path).st_ino for path in paths(folders)]
    result = run(diff=True)
    assert (result["changed"], result["written"], result["diff"]) == (False, [], [])
    assert [os.stat(path).st_ino for path in paths(folders)] == before


@pytest.mark.parametrize("content", ["", "no line end", "a\r\nb\rc\n", "ä €\n"])
def test_any_text_is_written_to_the_byte_and_settles(run, folders, content):
    folders[0]["files"][0]["content"] = content
    run()
    with open(paths(folders)[0], "rb") as stream:
        assert stream.read() == content.encode()
    assert run()["changed"] is False


def test_only_what_differs_is_written(run, folders):
    run()
    folders[1]["files"][0]["content"] = "MEMORY='8g'\n"
    assert run()["written"] == [paths(folders)[2]]
    assert read(paths(folders)[2]) == "MEMORY='8g'\n"


def test_a_folder_without_files_is_made_and_its_content_stays(run, tmp_path):
    wanted = [{"path": str(tmp_path / "data" / "models" / "hub")}, {"path": str(tmp_path / "empty")}]
    made = [folder["path"] for folder in wanted]
    assert run(folders=wanted, check=True)["written"] == made
    assert not (tmp_path / "data").exists()
    assert run(folders=wanted)["written"] == made
    assert mode(made[0]) == 0o755
    (tmp_path / "data" / "models" / "hub" / "lama.pt").write_text("weights")
    assert run(folders=wanted, diff=True)["changed"] is False
    assert os.listdir(made[0]) == ["lama.pt"]


def test_a_folder_gets_its_mode_and_its_parents_do_not(run, tmp_path):
    wanted = [{"path": str(tmp_path / "outputs" / "cpu"), "mode": "0750"}]
    assert run(folders=wanted)["changed"] is True
    assert [mode(path) for path in (wanted[0]["path"], tmp_path / "outputs")] == [0o750, 0o755]
    assert run(folders=wanted)["changed"] is False
    os.chmod(wanted[0]["path"], 0o700)
    assert run(folders=wanted, check=True)["written"] == [wanted[0]["path"]]
    assert mode(wanted[0]["path"]) == 0o700
    assert run(folders=wanted)["changed"] is True
    assert mode(wanted[0]["path"]) == 0o750


@pytest.mark.skipif(os.getuid() != 0, reason="root alone gives a folder away")
def test_a_folder_of_somebody_else_is_given_to_its_owner(run, tmp_path):
    folder, new = tmp_path / "models", tmp_path / "data" / "outputs"
    folder.mkdir()
    wanted = [{"path": str(path), "owner": 1000} for path in (folder, new)]
    assert run(folders=wanted, check=True)["written"] == [str(folder), str(new)]
    assert folder.stat().st_uid == 0
    assert run(folders=wanted)["changed"] is True
    assert [(path.stat().st_uid, path.stat().st_gid) for path in (folder, new, new.parent)] == [(1000, 1000)] * 2 + [(0, 0)]
    assert run(folders=wanted)["changed"] is False


def test_a_mode_that_differs_is_set_and_shown(run, folders):
    run()
    path = paths(folders)[1]
    os.chmod(path, 0o644)
    result = run(diff=True)
    assert (result["written"], mode(path)) == ([path], 0o600)
    assert (result["diff"][0]["before"], result["diff"][0]["after"]) == ("mode 0644\n", "mode 0600\n")


def test_other_files_stay(run, folders):
    run()
    proof = f"{folders[0]['path']}/proof.png"
    with open(proof, "w") as stream:
        stream.write("picture")
    folders[0]["files"].pop()
    run()
    assert read(proof) == "picture"
    assert read(f"{folders[0]['path']}/options.env") == SECRET


def test_check_mode_writes_nothing_and_says_what_would_be(run, folders, tmp_path):
    result = run(check=True, diff=True)
    assert (result["changed"], result["written"]) == (True, everything(folders))
    assert [shown["after_header"] for shown in result["diff"]] == paths(folders)
    assert not (tmp_path / "instances").exists()
    run()
    assert run(check=True)["changed"] is False


def test_a_diff_shows_before_and_after(run, folders):
    run()
    folders[0]["files"][0]["content"] = "PROJECT='other'\n"
    (shown,) = run(diff=True, check=True)["diff"]
    path = paths(folders)[0]
    assert shown == {
        "before_header": path,
        "after_header": path,
        "before": "PROJECT='iopaint-cpu'\n",
        "after": "PROJECT='other'\n",
    }


def test_a_secret_is_in_no_diff_and_no_result(run, folders):
    first = run(diff=True)
    assert (first["diff"][1]["before"], first["diff"][1]["after"]) == ("", "(secret)\n")
    folders[0]["files"][1]["content"] = "IOPAINT_API_KEY='an0ther'\n"
    second = run(diff=True)
    assert second["diff"][0]["before"] != second["diff"][0]["after"]
    for result in (first, second):
        assert result["invocation"]["module_args"]["folders"][0]["files"][0]["content"] == "PROJECT='iopaint-cpu'\n"
        assert "s3cr3t" not in json.dumps(result)
        assert "an0ther" not in json.dumps(result)


def test_a_secret_is_in_no_log_of_the_host(run, monkeypatch):
    logged = []
    monkeypatch.setattr("syslog.syslog", lambda *words: logged.append(words))
    basic = import_module("ansible.module_utils.basic")
    monkeypatch.setattr(basic.AnsibleModule, "_log_to_syslog", lambda self, text: logged.append(text))
    monkeypatch.setattr(basic, "has_journal", False)
    run()
    assert "s3cr3t" not in str(logged)


def test_a_file_where_the_folder_should_be_is_said(run, folders, tmp_path):
    (tmp_path / "instances").write_text("a file")
    message = run(failed=True)["msg"]
    assert message.startswith(f"The folder {folders[0]['path']} could not be made or filled: ")
    assert "or choose another folder (folders)." in message


def test_a_folder_where_a_file_should_be_is_said_with_what_was_written(run, folders):
    """As docker leaves one where a bind mount names a file that is not there."""
    path = paths(folders)[1]
    os.makedirs(path)
    result = run(failed=True)
    assert f"Is a directory: '{path}'" in result["msg"]
    assert result["written"] == paths(folders)[:1]  # its folder was there
    assert sorted(os.listdir(folders[0]["path"])) == [".env", "options.env"]


def test_a_write_that_fails_leaves_the_file_and_no_rest(run, folders, monkeypatch):
    run()
    folders[0]["files"][0]["content"] = "new\n"

    def no_space(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    assert "No space left on device" in run(failed=True)["msg"]
    assert read(paths(folders)[0]) == "PROJECT='iopaint-cpu'\n"
    assert sorted(os.listdir(folders[0]["path"])) == [".env", "options.env"]


@pytest.mark.parametrize("odd", ["384", "u=rw", "0999", ""])
def test_a_mode_that_is_not_octal_is_refused_before_anything_is_written(run, folders, tmp_path, odd):
    folders[1]["files"][0]["mode"] = odd
    message = run(failed=True)["msg"]
    assert f"mode {odd} must be octal, in quotes, as '0644'. Nothing was written." in message
    assert not (tmp_path / "instances").exists()
