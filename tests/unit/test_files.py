# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Root in folders that somebody else can write: no link is followed, whenever it is put there."""

import contextlib
import os
import stat
import time

import pytest
from ansible_collections.iopaint.fleet.plugins.module_utils import files
from ansible_collections.iopaint.fleet.plugins.modules import instance_files
from conftest import USER, as_root

SECONDS = 1.5  # of an attack: thousands of exchanges


@pytest.fixture
def victim(tmp_path):
    """A folder of root's with a file, outside of what the adversary may write."""
    folder = tmp_path / "victim"
    folder.mkdir()
    (folder / "big-lama.pt").write_text("not to be touched")
    return folder


@pytest.fixture
def models(tmp_path):
    """A folder of models that belongs to the containers' user, with folders below it."""
    (tmp_path / "models" / "torch" / "hub").mkdir(parents=True)
    for folder in (tmp_path / "models", tmp_path / "models" / "torch", tmp_path / "models" / "torch" / "hub"):
        os.chown(folder, USER, USER)
    return tmp_path / "models"


def untouched(victim):
    assert (victim.stat().st_uid, stat.S_IMODE(victim.stat().st_mode)) == (os.geteuid(), 0o755)
    (file,) = victim.iterdir()
    assert (file.read_text(), file.stat().st_uid, stat.S_IMODE(file.stat().st_mode)) == ("not to be touched", os.geteuid(), 0o644)


# ---- a path ----------------------------------------------------------------------------------------------------------


def opened(path, **options):
    with files.folder(path, **options) as found:
        return os.readlink(f"/proc/self/fd/{found}")


def test_folders_are_made_whatever_the_umask_is(tmp_path):
    before = os.umask(0o077)
    try:
        assert opened(tmp_path / "a" / "b", make=True) == f"{tmp_path}/a/b"
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o755


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"'{tmp_path}/a'"):
        opened(tmp_path / "a" / "b")


def test_links_that_root_made_are_followed(tmp_path):
    """A data folder on another disk."""
    (tmp_path / "disk" / "models").mkdir(parents=True)
    (tmp_path / "absolute").symlink_to(tmp_path / "disk")
    (tmp_path / "relative").symlink_to("disk/../absolute")
    assert opened(tmp_path / "absolute" / "models") == opened(tmp_path / "relative" / "models") == f"{tmp_path}/disk/models"
    assert opened(tmp_path / "relative" / "new", make=True) == f"{tmp_path}/disk/new"


def test_a_missing_folder_is_none_and_an_error_of_the_work_in_one_is_handed_on(tmp_path):
    with files.present(tmp_path / "none") as found:
        assert found is None
    with pytest.raises(FileNotFoundError, match="gone"), files.present(tmp_path):
        raise FileNotFoundError("gone")


def test_links_in_a_circle_are_an_error(tmp_path):
    (tmp_path / "one").symlink_to("other")
    (tmp_path / "other").symlink_to("one")
    with pytest.raises(OSError, match="Too many levels"):
        opened(tmp_path / "one")


@as_root
@pytest.mark.parametrize("place", ["models", "models/torch"])
def test_a_link_in_somebody_else_s_folder_is_not_followed(models, victim, place):
    """Nor one of somebody else's in a folder of root's; the error names it."""
    link = models.parent / place / "link"
    link.symlink_to(victim)
    with pytest.raises(OSError, match=f"a link that somebody other than root .*'{link}'"):
        opened(link / "deeper", make=True)
    other = models.parent / "link"
    other.symlink_to(victim)
    assert opened(other) == str(victim)
    os.lchown(other, USER, USER)
    with pytest.raises(OSError, match="so it is not followed; remove it"):
        opened(other)
    untouched(victim)


def test_a_link_in_a_folder_that_a_group_can_write_is_not_followed(tmp_path, victim):
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "link").symlink_to(victim)
    shared.chmod(0o775)
    with pytest.raises(OSError, match="so it is not followed"):
        opened(shared / "link")
    shared.chmod(0o1777)  # as /tmp: nobody else can replace it
    assert opened(shared / "link") == str(victim)


def test_nothing_above_an_open_folder_is_reached_from_it(models):
    with files.folder(models) as top:
        (models / "link").symlink_to("torch")
        for path in ("..", "torch/../..", "link", "link/hub"):
            with pytest.raises(OSError, match=r"not a path below|so it is not followed"), files.below(top, path):
                pass
        with files.below(top, "torch//./hub") as found:
            assert os.path.samestat(os.fstat(found), (models / "torch" / "hub").stat())


@pytest.mark.parametrize("kind", ["link", "fifo", "folder"])
def test_what_is_no_regular_file_is_not_read(tmp_path, victim, kind):
    place = tmp_path / "file"
    {"link": lambda: place.symlink_to(victim / "big-lama.pt"), "fifo": lambda: os.mkfifo(place), "folder": place.mkdir}[kind]()
    with files.folder(tmp_path) as folder, pytest.raises(OSError, match=r"Too many levels|not a regular file"):
        files.regular(folder, "file")


def test_a_file_that_is_not_finished_leaves_nothing(tmp_path):
    (tmp_path / "file").write_text("before")
    with files.folder(tmp_path) as folder, contextlib.suppress(ZeroDivisionError), files.replacing(folder, "file") as stream:
        stream.write(b"half")
        raise ZeroDivisionError
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("file", "before")]


def test_a_link_in_the_place_of_a_file_is_replaced(tmp_path, victim):
    (tmp_path / "file").symlink_to(victim / "big-lama.pt")
    with files.folder(tmp_path) as folder, files.replacing(folder, "file", 0o640) as stream:
        stream.write(b"new")
    assert not (tmp_path / "file").is_symlink()
    assert ((tmp_path / "file").read_text(), stat.S_IMODE((tmp_path / "file").stat().st_mode)) == ("new", 0o640)
    untouched(victim)


# ---- while somebody exchanges them -----------------------------------------------------------------------------------


@as_root
def test_folders_are_given_away_while_a_link_is_exchanged_for_one(adversary, models, victim):
    """As every deploy does it with the folders of models; each try ends, by an error or on the folder itself."""
    (models / "torch" / "link").symlink_to(victim)
    adversary(models, "exchange", "torch/hub", "torch/link")
    ends, end = {"given": 0, "refused": 0}, time.monotonic() + SECONDS
    while time.monotonic() < end:
        try:
            with files.folder(models / "torch" / "hub" / "checkpoints", make=True) as folder:
                os.fchown(folder, USER, USER)
            ends["given"] += 1
        except OSError:
            ends["refused"] += 1
    assert all(ends.values()), ends  # else there was no race
    untouched(victim)


@as_root
def test_instance_files_gives_away_no_folder_behind_a_link(run_module, adversary, models, victim):
    (models / "torch" / "link").symlink_to(victim)
    adversary(models, "exchange", "torch/hub", "torch/link")
    folders = [{"path": str(models / path), "owner": USER} for path in ("torch", "torch/hub", "torch/hub/checkpoints")]
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        with contextlib.suppress(AssertionError):  # a try that meets the link fails
            run_module(instance_files, folders=folders)
        untouched(victim)


@as_root
def test_instance_files_names_the_link(run_module, models, victim):
    (models / "torch" / "hub").rmdir()
    (models / "torch" / "hub").symlink_to(victim)
    wanted = [{"path": f"{models}/torch/hub", "owner": USER}]
    for check in (True, False):
        message = run_module(instance_files, failed=True, check=check, folders=wanted)["msg"]
        assert "a link that somebody other than root can have put there, so it is not followed; remove it: " in message
        assert f"'{models}/torch/hub'" in message
    untouched(victim)


@as_root
def test_a_new_file_s_owner_is_set_on_the_file_itself(adversary, models, victim):
    """Somebody replaces it by a link before it takes its place."""
    adversary(models, "hijack", "torch", str(victim / "big-lama.pt"))
    hijacked, end = 0, time.monotonic() + SECONDS
    while time.monotonic() < end:
        with contextlib.suppress(FileNotFoundError), files.folder(models / "torch") as folder:
            with files.replacing(folder, "new", 0o666, owner=USER) as stream:
                stream.write(b"x" * 100000)
            hijacked += (models / "torch" / "new").is_symlink()
    assert hijacked
    untouched(victim)
