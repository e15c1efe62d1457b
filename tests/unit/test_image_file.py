# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A file out of an image that may be anybody's: nothing of it is run, and it decides nothing but the file's content."""

import io
import stat
import tarfile

import pytest
from ansible_collections.iopaint.fleet.plugins.modules import image_file

PHOTO = b"photo" * 1000


def archive(content=PHOTO, **attributes):
    """What the engine sends for a file."""
    member = tarfile.TarInfo("photo.png")
    member.size = len(content)
    for name, value in attributes.items():
        setattr(member, name, value)
    with tarfile.open(fileobj=(buffer := io.BytesIO()), mode="w") as tar:
        tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture
def run(run_module, engine, tmp_path):
    engine.set(copied=archive(), created=[])
    args = {"image": "evil:latest", "path": "/photo.png", "dest": str(tmp_path / "instances" / "photo.png")}
    return lambda **options: run_module(image_file, **{**args, **options})


def test_the_file_is_copied_once_out_of_a_container_that_is_never_started(run, engine, tmp_path):
    result = run()
    assert (result["changed"], result["size"]) == (True, len(PHOTO))
    assert (tmp_path / "instances" / "photo.png").read_bytes() == PHOTO
    assert [call["argv"][0] for call in engine.calls()] == ["create", "cp", "rm"]
    (create,) = engine.calls("create")
    assert create["argv"][1:-2] == [
        "--pull=never",
        "--network=none",
        "--read-only",
        "--cap-drop=ALL",
        "--security-opt=no-new-privileges",
    ]
    assert engine.calls("rm")[0]["argv"] == ["rm", "--force", "--volumes", "c1"]
    assert run()["changed"] is False
    assert len(engine.calls()) == 3


def test_check_mode_needs_no_image(run, engine, tmp_path):
    engine.set(create_error="Error response from daemon: No such image\n")
    assert run(check=True)["changed"] is True
    assert not engine.calls()
    assert not (tmp_path / "instances").exists()


def test_mode_and_owner_are_not_the_image_s(run, engine, tmp_path):
    """As root's docker cp would leave a program that makes everybody root."""
    engine.set(copied=archive(mode=0o6777, uid=10001, gid=10001))
    run()
    status = (tmp_path / "instances" / "photo.png").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid) == (0o644, tmp_path.stat().st_uid)


@pytest.mark.parametrize(
    ("copied", "why"),
    [
        (archive(b"", type=tarfile.SYMTYPE, linkname="/etc/shadow"), "it is no regular file there"),
        (archive(b"", type=tarfile.LNKTYPE, linkname="/etc/shadow"), "it is no regular file there"),
        (archive(b"", type=tarfile.DIRTYPE), "it is no regular file there"),
        (archive(b"", type=tarfile.CHRTYPE, devmajor=1, devminor=5), "it is no regular file there"),
        (archive(b"", type=tarfile.FIFOTYPE), "it is no regular file there"),
        (archive(b"x" * 20000), "it has 20000 bytes, and 10000 at most are copied"),
        (archive()[:2000], "it is not there"),
        (b"", "it is not there"),
        (b"no archive" * 1000, "it is not there"),
    ],
)
def test_anything_else_is_refused_and_nothing_is_left(run, engine, tmp_path, copied, why):
    engine.set(copied=copied)
    message = run(failed=True, max_size=10000)["msg"]
    assert message.startswith(
        f"/photo.png of the image evil:latest could not be copied to {tmp_path}/instances/photo.png: {why}. "
    )
    assert not list((tmp_path / "instances").iterdir())
    assert engine.state["created"] == []


def test_the_name_in_the_archive_does_not_count(run, engine, tmp_path):
    engine.set(copied=archive(name="../../../../etc/cron.d/evil"))
    run()
    assert (tmp_path / "instances" / "photo.png").read_bytes() == PHOTO


def test_an_image_that_is_not_there_is_said(run, engine):
    engine.set(create_error="Error response from daemon: No such image: evil:latest\n")
    assert "The image evil:latest can't be read: Error response" in run(failed=True)["msg"]
