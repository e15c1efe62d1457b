# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the image's user can't use is found, and handed over without following a link. Needs root, as the managed host has it."""

import os
import stat

import pytest
from ansible_collections.iopaint.fleet.plugins.modules import data_access

USER = 10001
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root acts as another user")


@pytest.fixture
def top(tmp_path):
    """Models and pictures as older images left them, next to what a newer one wrote."""
    os.chmod(tmp_path, 0o700)  # as below a data folder that nobody else may enter
    for name, mode in {
        "models/weights.pt": 0o600,
        "models/readable.pt": 0o644,
        "outputs/old.png": 0o644,
        "outputs/in/a.png": 0o644,
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
        path.chmod(mode)
    mine = tmp_path / "outputs" / "mine.png"
    mine.write_text("mine")
    os.chown(mine, USER, USER)
    return tmp_path


@pytest.fixture
def run(run_module, top):
    def run(**options):
        folders = [{"path": str(top / "models"), "access": "read"}, {"path": str(top / "outputs"), "access": "write"}]
        return run_module(data_access, **{"folders": folders, "user": USER, **options})

    return run


def found(result):
    return {os.path.basename(each["path"]): [text.partition(" ")[0] for text in each["examples"]] for each in result["found"]}


def test_what_is_in_the_way_is_named_with_owner_and_mode(run, top):
    result = run()
    assert result["changed"] is False
    assert found(result) == {"models": ["weights.pt"], "outputs": ["in", "old.png", "in/a.png"]}
    assert "old.png (0:0 0644)" in result["found"][1]["examples"]


def test_a_name_of_any_bytes_is_shown_and_handed_over(run, top):
    """Not UTF-8, or with what a terminal would act on: a user of the instance chooses it."""
    names = [b"caf\xe9.png", b"\x1b[2J\nx.png"]
    for name in names:
        with open(os.fsencode(top / "outputs") + b"/" + name, "wb"):
            pass
    examples = run()["found"][1]["examples"]
    assert [text.partition(" (")[0] for text in examples if ".png" in text][:2] == ["\\x1b[2J\\nx.png", "caf\\xe9.png"]
    assert all(text.isprintable() for text in examples)
    run(adopt=True)
    assert {os.stat(os.fsencode(top / "outputs") + b"/" + name).st_uid for name in names} == {USER}


@pytest.mark.parametrize("check", [True, False])
def test_it_is_handed_over_where_that_is_asked_for(run, top, check):
    before = (top / "outputs/old.png").stat()
    result = run(adopt=True, check=check)
    assert result["changed"] is True
    assert found(result)["models"] == ["readable.pt", "weights.pt"]  # all that can't be written
    after = (top / "outputs/old.png").stat()
    assert (after.st_uid == USER) is not check
    assert (before.st_mode == after.st_mode, before.st_mtime) == (True, after.st_mtime)
    if not check:
        assert run()["found"] == []
        assert run(adopt=True)["changed"] is False
        assert (top / "models/weights.pt").stat().st_gid == USER


def test_a_mode_that_locks_out_the_owner_is_mended(run, top):
    for name, mode in {"outputs/none.png": 0, "outputs/shut": 0o500}.items():
        path = top / name
        path.mkdir() if name.endswith("shut") else path.touch()
        os.chown(path, USER, USER)
        path.chmod(mode)
    run(adopt=True)
    assert stat.S_IMODE((top / "outputs/none.png").stat().st_mode) == 0o600
    assert stat.S_IMODE((top / "outputs/shut").stat().st_mode) == 0o700


def test_links_and_what_is_no_file_are_left_alone(run, top):
    outside = top / "outside"
    outside.mkdir()
    (outside / "secret").write_text("root's")
    (top / "outputs/link").symlink_to(outside)
    (top / "outputs/file").symlink_to(outside / "secret")
    os.mkfifo(top / "outputs/pipe")
    run(adopt=True)
    assert {path.stat().st_uid for path in (outside, outside / "secret")} == {0}
    assert (top / "outputs/pipe").stat().st_uid == 0


def test_a_data_folder_that_is_a_link_is_looked_through(run, top):
    (top / "outputs").rename(top / "disk")
    (top / "outputs").symlink_to(top / "disk")
    assert "old.png" in found(run())["outputs"]


def test_names_that_are_no_text_and_deep_folders(run, top, nest):
    (top / "outputs" / os.fsdecode(b"\xff.png")).touch()
    nest(top / "outputs", 600)
    result = run()
    assert result["found"][1]["count"] > data_access.DEEPEST
    assert run(adopt=True)["changed"] is True


def test_folders_that_are_not_there_hold_nothing(run, top):
    (top / "outputs").rename(top / "away")
    assert list(found(run())) == ["models"]


def test_identity_is_root_s_again_afterwards(run):
    before = (os.geteuid(), os.getegid(), os.getgroups())
    run()
    assert (os.geteuid(), os.getegid(), os.getgroups()) == before


def test_what_is_no_data_is_left_alone(run, top):
    """The root of a file system has lost+found; a play that was killed leaves its temporary file."""
    for name in ("outputs/.iopaint-1", "outputs/.ansible_tmpabc", "models/lost+found/x"):
        (top / name).parent.mkdir(exist_ok=True)
        (top / name).touch()
        (top / name).chmod(0)
    (top / "models/lost+found").chmod(0o700)
    assert found(run()) == {"models": ["weights.pt"], "outputs": ["in", "old.png", "in/a.png"]}
    run(adopt=True)
    assert {(top / name).stat().st_uid for name in ("outputs/.iopaint-1", "models/lost+found/x")} == {0}


def test_a_file_with_a_second_name_is_found_and_left_alone(run, top):
    (top / "elsewhere.pt").write_text("another application's")
    (top / "elsewhere.pt").chmod(0o600)
    os.link(top / "elsewhere.pt", top / "models/shared.pt")
    assert "shared.pt" in found(run())["models"]
    assert "shared.pt" not in found(run(adopt=True))["models"]
    assert (top / "elsewhere.pt").stat().st_uid == 0


def test_an_adopted_file_keeps_no_set_user_id(run, top):
    (top / "outputs/odd").touch()
    (top / "outputs/odd").chmod(0o4755)
    run(adopt=True)
    assert stat.S_IMODE((top / "outputs/odd").stat().st_mode) == 0o755


def test_a_folder_that_the_deploy_hands_over_hides_nothing_and_blames_nothing(run, top):
    (top / "models").chmod(0o700)
    assert found(run())["models"] == ["weights.pt"]
