# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What counts as an IOPaint source tree, and what changes its digest."""

import os
import shutil

import pytest
from ansible_collections.iopaint.fleet.plugins.modules import source_info

FILES = ("iopaint/cli.py", "iopaint/model/lama.py", "web_app/package.json", "web_app/package-lock.json", "web_app/src/App.tsx")


@pytest.fixture
def tree(tmp_path):
    folder = tmp_path / "source"
    for name in FILES:
        write(folder, name, f"text of {name}\n")
    return folder


@pytest.fixture
def run(run_module, tree):
    return lambda path=tree, **options: run_module(source_info, path=str(path), **options)


def write(folder, name, text="new\n"):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)


def shipped(tree):
    """Make it a tree as a release ships it, with a front end that is built."""
    shutil.rmtree(tree / "web_app")
    write(tree, "web_app/dist/index.html")


@pytest.mark.parametrize("check", [False, True])
def test_a_working_tree_is_built(run, check):
    result = run(check=check)
    assert (result["changed"], result["frontend"], len(result["digest"])) == (False, "build", 64)


def test_a_release_ships_its_front_end(run, tree):
    shipped(tree)
    result = run()
    assert result["frontend"] == "shipped"
    write(tree, "web_app/dist/assets/index.js")
    assert run()["digest"] != result["digest"]


def test_the_same_files_elsewhere_have_the_same_digest(run, tree, tmp_path):
    other = tmp_path / "other"
    for name in reversed(FILES):
        write(other, name, (tree / name).read_text())
    assert run()["digest"] == run(other)["digest"]


def edit(tree):
    write(tree, "iopaint/cli.py", "edited\n")


def add(tree):
    write(tree, "web_app/src/new.tsx", "")


def remove(tree):
    (tree / "iopaint/model/lama.py").unlink()


def rename(tree):
    (tree / "iopaint/model/lama.py").rename(tree / "iopaint/model/lama2.py")


def make_executable(tree):
    (tree / "iopaint/cli.py").chmod(0o755)


def swap(tree):
    first, second = (tree / name for name in FILES[:2])
    texts = first.read_text(), second.read_text()
    first.write_text(texts[1])
    second.write_text(texts[0])


def link_file(tree):
    (tree / "iopaint/link.py").symlink_to("cli.py")


def link_folder(tree):
    (tree / "iopaint/plugins").symlink_to("model")


def link_nowhere(tree):
    (tree / "iopaint/gone").symlink_to("/nonexistent")


@pytest.mark.parametrize(
    "change", [edit, add, remove, rename, make_executable, swap, link_file, link_folder, link_nowhere], ids=lambda f: f.__name__
)
def test_a_change_changes_the_digest(run, tree, change):
    before = run()["digest"]
    change(tree)
    assert run()["digest"] != before


def test_a_name_that_is_not_utf_8_is_in_the_digest(run, tree):
    before = run()["digest"]
    os.symlink(b"\xff", os.fsencode(tree / "iopaint") + b"/caf\xe9.py")
    link = run()["digest"]
    os.unlink(os.fsencode(tree / "iopaint") + b"/caf\xe9.py")
    with open(os.fsencode(tree / "iopaint") + b"/caf\xe9.py", "wb"):
        pass
    assert len({before, link, run()["digest"]}) == 3


def test_a_link_that_turns_elsewhere_changes_the_digest(run, tree):
    link_folder(tree)
    before = run()["digest"]
    (tree / "iopaint/plugins").unlink()
    (tree / "iopaint/plugins").symlink_to("/nonexistent")
    assert run()["digest"] != before


@pytest.mark.parametrize(
    "name",
    ["web_app/node_modules/x.js", "web_app/dist/index.html", "iopaint/__pycache__/cli.pyc", "iopaint/.git/HEAD", "README.md"],
)
def test_what_no_image_holds_leaves_the_digest(run, tree, name):
    before = run()["digest"]
    write(tree, name)
    assert run()["digest"] == before


@pytest.mark.parametrize("name", ["iopaint/dist/a.py", "web_app/src/dist/a.ts", "requirements.txt", ".dockerignore"])
def test_whatever_decides_the_image_is_in_the_digest(run, tree, name):
    before = run()["digest"]
    write(tree, name)
    added = run()["digest"]
    write(tree, name, "edited\n")
    assert len({before, added, run()["digest"]}) == 3


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 1000000\n"


@pytest.mark.parametrize("name", ["iopaint/weights.bin", "web_app/src/photo.png"])
def test_a_pointer_of_git_lfs_is_refused(run, tree, name):
    write(tree, name, POINTER)
    message = run(failed=True)["msg"]
    assert f"in place of files: {name}. " in message
    assert "install git-lfs on the host" in message
    assert "run `git lfs pull` there" in message


@pytest.mark.parametrize("name", ["docs/photo.png", "web_app/node_modules/x/photo.png"])
def test_a_pointer_that_no_image_is_made_of_is_nobodys_concern(run, tree, name):
    write(tree, name, POINTER)
    write(tree, "iopaint/lfs.py", f"text = {POINTER!r}\n")
    assert run()["frontend"] == "build"


def test_many_pointers_are_counted(run, tree):
    for number in range(7):
        write(tree, f"iopaint/{number}.bin", POINTER)
    assert "iopaint/4.bin and 2 more. " in run(failed=True)["msg"]


@pytest.mark.parametrize(
    ("absent", "words"),
    [
        (["iopaint"], "it has no iopaint/cli.py. "),
        (["web_app"], "it has no web_app/package.json. "),
        (["web_app/package-lock.json"], "it has no web_app/package-lock.json (npm ci needs it). "),
        (["iopaint", "web_app"], "it has no iopaint/cli.py and no web_app/package.json. "),
    ],
)
def test_another_folder_is_refused_with_what_it_lacks(run, tree, absent, words):
    for name in absent:
        path = tree / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    message = run(failed=True)["msg"]
    assert message.startswith(f"{tree} is not an IOPaint source tree: ")
    assert words in message
    assert message.endswith("Check path. Nothing was built.")


def test_a_folder_that_is_not_there_is_refused(run, tmp_path):
    message = run(tmp_path / "nowhere", failed=True)["msg"]
    assert f"{tmp_path}/nowhere is not an IOPaint source tree" in message
