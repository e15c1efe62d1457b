# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Trees copied for real: the module against folders of this machine, the action by a local connection."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
from ansible.errors import AnsibleActionFail
from ansible_collections.iopaint.fleet.plugins.action.tree import INLINE, Source
from ansible_collections.iopaint.fleet.plugins.module_utils.tree import dumps, shown
from ansible_collections.iopaint.fleet.plugins.modules import tree

ROOT = Path(__file__).resolve().parents[2]
ODD = [b"with space", b"new\nline", b"-rf", b"not-utf8-\xff\xfe", "naïve".encode(), b"$(id)'\"", b"back\\slash"]


def manifest(source, exclude=(), follow=False):
    """Read a source as the action does; return it."""
    found = Source(os.fsencode(source), [os.fsencode(name) for name in exclude], follow)
    found.read()
    return found


def listing(folder):
    """Return what a folder holds: for each path its mode and its content, or the target of a link."""
    found = {}
    root = os.fsencode(folder)
    for above, folders, files in os.walk(root):
        for name in folders + files:
            path = os.path.join(above, name)
            mode, key = os.lstat(path).st_mode, os.path.relpath(path, root)
            if stat.S_ISLNK(mode):
                found[key] = os.readlink(path)
            else:
                found[key] = oct(mode & 0o7777), None if stat.S_ISDIR(mode) else Path(os.fsdecode(path)).read_bytes()
    return found


@pytest.fixture
def source(tmp_path):
    """A folder with files, an executable, a nested folder, an empty one and a link."""
    folder = tmp_path / "source"
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "empty").mkdir()
    (folder / "a").write_text("a\n")
    (folder / "run").write_text("#!/bin/sh\n")
    (folder / "run").chmod(0o700)
    (folder / "deep" / "er" / "b").write_bytes(b"b" * 100000)
    (folder / "link").symlink_to("deep/er/b")
    return folder


@pytest.fixture
def dest(tmp_path):
    return tmp_path / "parent" / "dest"


@pytest.fixture
def copy(run_module, source, dest, tmp_path):
    """Copies the source by the module alone, as the action does it; returns the result."""

    def run(archive=None, check=False, diff=False, failed=False, **options):
        found = manifest(source, **options)
        args = {"src": str(source), "dest": str(dest), "manifest": dumps(found.entries)}
        result = run_module(tree, check=check, diff=diff, failed=failed and archive is None, **args)
        if "needs" not in result:
            return result
        path = tmp_path / "archive.tar"
        with path.open("wb") as stream:
            found.pack(result["needs"], stream)
        if archive:
            archive(path)
        return run_module(tree, failed=failed, diff=diff, needs=result["needs"], archive=str(path), **args)

    return run


class Play:
    """Runs the action in a process of its own, over a local connection."""

    def __init__(self, folder, source, dest):
        self.folder, self.source, self.dest = folder, source, dest
        self.temporary = folder / "local-tmp"

    def __call__(self, *options, src=None, wrap=(), umask=0o022, **args):
        task = {"iopaint.fleet.tree": {"src": str(src or self.source), "dest": str(self.dest), **args}}
        results = self.run([task], *options, wrap=wrap, umask=umask)
        assert not list(self.temporary.glob("*/tree-*"))
        assert not list((self.folder / "remote-tmp").glob("ansible-tmp-*"))
        return results[0]["hosts"]["localhost"]

    def run(self, tasks, *options, wrap=(), umask=0o022):
        """Run tasks; return the result of each."""
        (self.folder / "play.yml").write_text(json.dumps([{"hosts": "all", "gather_facts": False, "tasks": tasks}]))
        environment = {
            **{name: value for name, value in os.environ.items() if name != "ANSIBLE_CALLBACKS_ENABLED"},  # they print
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "build" / "collections"),
            "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
            "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json",
            "ANSIBLE_LOCAL_TEMP": str(self.temporary),
            "ANSIBLE_REMOTE_TEMP": str(self.folder / "remote-tmp"),
            "ANSIBLE_PIPELINING": "true",
        }
        command = [*wrap, str(Path(sys.executable).parent / "ansible-playbook"), "-i", "localhost,", "-c", "local"]
        done = subprocess.run(
            [*command, str(self.folder / "play.yml"), *options],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            preexec_fn=lambda: os.umask(umask) and None,
        )
        assert done.stdout.startswith("{"), done.stdout + done.stderr
        return json.loads(done.stdout)["plays"][0]["tasks"]


@pytest.fixture
def play(tmp_path, source, dest):
    return Play(tmp_path, source, dest)


# The action


def test_a_fresh_host_gets_everything_and_the_second_run_nothing(play, source, dest):
    first = play("--diff")
    assert first["changed"]
    assert first["sent"] > 0
    assert sorted(first["added"]) == ["a", "deep/", "deep/er/", "deep/er/b", "empty/", "link", "run"]
    assert (first["updated"], first["removed"]) == ([], [])
    assert "+ deep/er/b\n" in first["diff"]["prepared"]
    assert listing(dest) == {
        b"a": ("0o644", b"a\n"),
        b"run": ("0o755", b"#!/bin/sh\n"),
        b"deep": ("0o755", None),
        b"deep/er": ("0o755", None),
        b"deep/er/b": ("0o644", b"b" * 100000),
        b"empty": ("0o755", None),
        b"link": b"deep/er/b",
    }
    second = play("--diff")
    assert not second["changed"]
    assert (second["added"], second["updated"], second["removed"], second["sent"]) == ([], [], [], 0)
    assert second["diff"]["prepared"] == ""


def test_what_differs_is_replaced_and_what_is_too_much_is_deleted(play, source, dest):
    play()
    (source / "a").write_text("A\n")
    (dest / "extra" / "deep").mkdir(parents=True)
    (dest / "extra" / "deep" / "file").touch()
    (dest / ".hidden").touch()
    result = play()
    assert result["changed"]
    assert (result["added"], result["updated"], result["removed"]) == ([], ["a"], [".hidden", "extra"])
    assert listing(dest)[b"a"][1] == b"A\n"
    assert listing(dest).keys() == listing(source).keys()


def test_the_umask_of_neither_side_counts(play, source, dest):
    for path in (source, source / "deep", source / "a"):
        path.chmod(stat.S_IMODE(path.stat().st_mode) & 0o700)
    play(umask=0o077)
    assert stat.S_IMODE(dest.stat().st_mode) == stat.S_IMODE(dest.parent.stat().st_mode) == 0o755
    assert {path: found[0] for path, found in listing(dest).items() if path != b"link"} == {
        b"a": "0o644",
        b"run": "0o755",
        b"deep": "0o755",
        b"deep/er": "0o755",
        b"deep/er/b": "0o644",
        b"empty": "0o755",
    }


def test_names_may_hold_anything(play, source, dest):
    for name in ODD:
        Path(os.fsdecode(os.fsencode(source) + b"/" + name)).write_bytes(name)
        os.symlink(name, os.fsencode(source) + b"/link " + name)
    result = play("--diff")
    assert listing(dest) == {**listing(source), b"run": ("0o755", b"#!/bin/sh\n")}
    assert {"new\\nline", "not-utf8-\\xff\\xfe", "naïve"} <= set(result["added"])
    assert not play()["changed"]


def test_check_mode_on_a_fresh_host_says_what_would_be_copied(play, dest):
    result = play("--check", "--diff")
    assert result["changed"]
    assert "deep/er/b" in result["added"]
    assert result["sent"] == 0
    assert not dest.parent.exists()


def test_check_mode_changes_nothing(play, source, dest):
    play()
    (source / "a").write_text("A\n")
    (dest / "extra").touch()
    before = listing(dest)
    result = play("--check")
    assert (result["changed"], result["updated"], result["removed"]) == (True, ["a"], ["extra"])
    assert listing(dest) == before


def test_what_is_excluded_is_not_copied_and_not_kept(play, source, dest):
    for path in (".git", "deep/.git", "node_modules", "deep/node_modules"):
        (source / path).mkdir()
        (source / path / "file").touch()
    play()
    assert (dest / "node_modules" / "file").exists()
    result = play(exclude=["/.git", "node_modules"])
    assert result["removed"] == [".git", "node_modules", "deep/node_modules"]
    assert (dest / "deep" / ".git" / "file").exists()


def test_links_are_followed_if_asked_for(play, source, dest, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "wheel").write_text("w")
    (source / "linked").symlink_to(tmp_path / "elsewhere")
    play(follow=True)
    assert not (dest / "linked").is_symlink()
    assert (dest / "linked" / "wheel").read_text() == "w"
    assert (dest / "link").stat().st_size == 100000
    assert not (dest / "link").is_symlink()


def test_a_loop_of_links_is_an_error(play, source, dest):
    (source / "deep" / "loop").symlink_to("..")
    result = play(follow=True)
    assert result["failed"]
    assert "deep/loop is a link to a folder that holds it. Nothing was changed" in result["msg"]
    assert not dest.exists()


def test_a_link_to_nothing_is_an_error_if_links_are_followed(play, source, dest):
    (source / "broken").symlink_to("nowhere")
    result = play(follow=True)
    assert "source/broken could not be read" in result["msg"]
    assert not play().get("failed")
    assert (dest / "broken").is_symlink()


def test_what_is_no_file_is_skipped_and_named(play, source, dest, monkeypatch):
    os.mkfifo(source / "fifo")
    monkeypatch.chdir(source)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        result = play()
    assert any("2 sockets, FIFOs or devices were not copied: fifo, socket" in text for text in result["warnings"])
    assert not (dest / "fifo").exists()


def test_an_unreadable_file_is_named_and_nothing_is_changed(play, source, dest):
    (source / "deep" / "secret").touch(mode=0)
    without = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.getuid() == 0 else []
    result = play(wrap=without)
    assert result["failed"]
    assert f"{source}/deep/secret could not be read" in result["msg"]
    assert "Permission denied. Nothing was changed on the host." in result["msg"]
    assert not dest.exists()


@pytest.mark.parametrize("src", ["no-folder", "source/a"])
def test_a_source_that_is_no_folder_is_named(play, tmp_path, src):
    assert src in play(src=tmp_path / src)["msg"]


@pytest.mark.parametrize("dest", ["/", "relative/path", "//"])
def test_a_destination_that_is_no_absolute_path_below_the_root_is_refused(play, dest):
    play.dest = dest
    assert "no absolute path of a folder below /. Nothing was changed." in play()["msg"]


def test_wheels_are_not_compressed_and_texts_are(play, source, dest):
    assert play()["sent"] < 10000  # of 100,000 equal bytes
    (source / "wheel").write_bytes(os.urandom(INLINE + 1))
    result = play()
    assert result["added"] == ["wheel"]
    assert INLINE < result["sent"] < INLINE + 20000
    assert (dest / "wheel").read_bytes() == (source / "wheel").read_bytes()


def test_three_thousand_files(play, source, dest):
    for number in range(3000):
        path = source / f"{number % 50:02}" / f"a-file-with-a-longer-name-{number:04}.js"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"{number}\n" * 50)
    assert len(play()["added"]) == 3057
    begun = time.monotonic()
    assert not play()["changed"]
    took = time.monotonic() - begun
    print(f"3,000 files, nothing to do: {took:.2f} s")
    assert took < 20
    assert listing(dest).keys() == listing(source).keys()


def test_a_bundle_is_fetched_once_and_replaces_the_previous_one_as_a_whole(play, tmp_path):
    """The tasks of role iopaint_bundle, which no scenario of `make test` runs."""
    there, here = tmp_path / "host" / "iopaint-bundle.tar.gz", tmp_path / "here" / "my bundle.tar.gz"
    for path in (there, here):
        path.parent.mkdir()
    variables = {
        "__iopaint_bundle_written": {"path": str(there)},
        "__iopaint_bundle_destination": str(here),
        "ansible_become": False,
    }
    tasks = str(ROOT / "roles" / "iopaint_bundle" / "tasks" / "fetch.yml")

    def changes():
        results = play.run([{"ansible.builtin.include_tasks": tasks, "vars": variables}])
        return [task["task"]["name"] for task in results if task["hosts"]["localhost"].get("changed")]

    for content in (b"first", b"second"):
        there.write_bytes(content)
        there.chmod(0o644)
        assert "Put the bundle in its place" in changes()
        assert here.read_bytes() == content
        assert stat.S_IMODE(there.stat().st_mode) == 0o600
        assert list(here.parent.iterdir()) == [here]
    assert changes() == []


# The host's side


@pytest.mark.parametrize("before", ["file", "folder", "link", "link to a folder", "fifo"])
@pytest.mark.parametrize("after", ["file", "folder", "link"])
def test_a_kind_is_replaced_by_another(copy, source, dest, tmp_path, before, after):
    def make(path, kind):
        if kind == "file":
            path.write_text("file")
        elif kind == "folder":
            path.mkdir()
            (path / "inside").write_text("inside")
        elif kind == "fifo":
            os.mkfifo(path)
        else:
            path.symlink_to(tmp_path if "folder" in kind else "nowhere")

    copy()
    make(dest / "x", before)
    make(source / "x", after)
    result = copy()
    assert result["changed"] == (before != after)
    assert listing(dest) == {**listing(source), b"run": ("0o755", b"#!/bin/sh\n")}
    assert not copy()["changed"]


def test_hostile_links_are_replaced_and_lead_nowhere(copy, dest, tmp_path):
    copy()
    victim = tmp_path / "victim"
    shutil.copytree(dest, victim, symlinks=True)
    (victim / "precious").write_text("precious")
    (victim / "a").write_text("not yours")
    (victim / "a").chmod(0o600)
    before = listing(victim)
    shutil.rmtree(dest / "deep")
    (dest / "deep").symlink_to(victim / "deep")
    (dest / "empty").rmdir()
    (dest / "empty").symlink_to(victim)
    (dest / "a").unlink()
    (dest / "a").symlink_to(victim / "a")
    (dest / "extra").symlink_to(victim)
    result = copy()
    assert (result["updated"], result["removed"]) == (["a", "deep/", "empty/"], ["extra"])
    assert listing(victim) == before
    assert not (dest / "deep").is_symlink()
    assert not (dest / "a").is_symlink()
    assert not copy()["changed"]


def test_the_mode_of_a_file_that_has_another_name_outside_stays(copy, source, dest, tmp_path):
    copy()
    (tmp_path / "outside").write_text("a\n")
    (tmp_path / "outside").chmod(0o600)
    (dest / "a").unlink()
    os.link(tmp_path / "outside", dest / "a")
    assert copy()["updated"] == ["a"]
    assert stat.S_IMODE((tmp_path / "outside").stat().st_mode) == 0o600
    assert listing(dest)[b"a"][0] == "0o644"


@pytest.mark.parametrize("kind", ["a link", "no folder"])
def test_a_destination_that_is_no_folder_itself_is_refused(copy, source, dest, tmp_path, kind):
    dest.parent.mkdir()
    if kind == "a link":
        dest.symlink_to(tmp_path)
    else:
        dest.touch()
    before = listing(tmp_path)
    assert f"{dest} is {kind}. Name the folder itself, or remove it. Nothing was changed." in copy(failed=True)["msg"]
    assert listing(tmp_path) == before


def test_modes_and_owners_are_mended_without_sending_anything(copy, dest):
    copy()
    for path, mode in (("a", 0o4666), ("deep", 0o2777), (".", 0o777)):
        (dest / path).chmod(mode)
    expected = {"./", "a", "deep/"}
    if os.getuid() == 0:
        os.chown(dest / "run", 12345, 12345)
        os.lchown(dest / "link", 12345, 12345)
        expected |= {"run", "link"}
    result = copy()
    assert set(result["updated"]) == expected
    assert result["sent"] == 0
    assert [stat.S_IMODE((dest / path).stat().st_mode) for path in ("a", "deep", ".")] == [0o644, 0o755, 0o755]
    assert (dest / "run").stat().st_uid == os.lstat(dest / "link").st_uid == os.geteuid()
    assert not copy()["changed"]


def truncated(path):
    os.truncate(path, path.stat().st_size // 2)


def empty(path):
    os.truncate(path, 0)


def changed(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def rewritten(change):
    """Return a function that rebuilds the archive with other members."""

    def rewrite(path):
        with tarfile.open(path) as tar:
            members = {member.name: tar.extractfile(member).read() for member in tar}
        change(members)
        with tarfile.open(path, "w") as tar:
            for name, content in members.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))

    return rewrite


def plain(damage):
    """Return a function that damages the archive after it was unpacked by gzip."""

    def run(path):
        if path.read_bytes()[:2] == b"\x1f\x8b":
            path.write_bytes(gzip.decompress(path.read_bytes()))
        damage(path)

    return run


@pytest.mark.parametrize(
    "damage",
    [
        truncated,
        empty,
        changed,
        plain(truncated),
        plain(changed),
        rewritten(lambda members: members.popitem()),
        rewritten(lambda members: members.update({name: b"x" + content[1:] for name, content in members.items()})),
        rewritten(lambda members: members.update({"../../outside": b"x"})),
    ],
)
def test_a_torn_archive_changes_nothing(copy, source, dest, damage):
    copy()
    (source / "a").write_text("A\n")
    (source / "deep" / "er" / "b").write_bytes(b"c" * 100000)
    (source / "new").write_text("new\n")
    before = listing(dest)
    result = copy(archive=damage, failed=True)
    assert "Run the play again." in result["msg"]
    assert "changed." in result["msg"]
    assert listing(dest) == before
    assert copy()["changed"]
    assert not copy()["changed"]


def test_what_a_killed_play_left_is_cleared_away(copy, dest):
    copy()
    (dest / ".iopaint-tree-0123").mkdir(mode=0o700)
    (dest / ".iopaint-tree-0123" / "4").touch()
    assert copy()["removed"] == [".iopaint-tree-0123"]


def test_a_full_disk_leaves_everything_as_it_was(copy, source, dest, monkeypatch):
    copy()
    (source / "a").write_text("A\n")
    before = listing(dest)

    def full(self, fd, mode):
        raise OSError(28, "No space left on device", b"a")

    with monkeypatch.context() as patch:
        patch.setattr(tree.Tree, "set_attributes", full)
        result = copy(failed=True, archive=lambda path: None)
    why = "No space left on device (a). Remove the cause and run the play again."
    assert result["msg"] == f"{dest} could not be made equal to its source: {why}"
    assert listing(dest) == before
    assert copy()["changed"]


def test_a_file_that_something_else_writes_meanwhile_is_an_error(copy, source, dest, monkeypatch):
    change = tree.Tree.change

    def disturbed(self, stage, plan):
        change(self, stage, plan)
        (dest / "run").write_text("mine")

    with monkeypatch.context() as patch:
        patch.setattr(tree.Tree, "change", disturbed)
        result = copy(failed=True, archive=lambda path: None)
    assert "run was changed by something else meanwhile" in result["msg"]
    assert copy()["updated"] == ["run"]


# The control node's side


@pytest.mark.parametrize("change", ["grown", "shrunk", "rewritten", "gone"])
def test_a_file_that_changes_before_it_is_packed_is_an_error_or_consistent(source, change):
    found = manifest(source)
    number = next(str(number) for number, entry in enumerate(found.entries) if entry.path == b"a")
    if change == "gone":
        (source / "a").unlink()
    else:
        (source / "a").write_text({"grown": "a\nmore\n", "shrunk": "a", "rewritten": "b\n"}[change])
    out = io.BytesIO()
    if change == "grown":
        found.pack([number], out)
        out.seek(0)
        with tarfile.open(fileobj=out) as tar:
            assert tar.extractfile(number).read() == b"a\n"
        return
    gone = (FileNotFoundError, "No such file")
    error, text = gone if change == "gone" else (AnsibleActionFail, "source/a changed while it was copied. Nothing")
    with pytest.raises(error, match=text):
        found.pack([number], out)


def test_names_are_shown_on_one_line():
    assert shown(b"a b") == "a b"
    assert shown("ü".encode()) == "ü"
    assert shown(b"a\nb\x1b[1m\xff") == "a\\nb\\x1b[1m\\xff"
