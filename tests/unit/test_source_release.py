# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A release as a source tree. The engine is a stand-in."""

import json
import stat
from pathlib import Path

import pytest
from ansible_collections.iopaint.fleet.plugins.module_utils.docker_cli import network_secret
from ansible_collections.iopaint.fleet.plugins.modules import source_release

ROOT = Path(__file__).resolve().parents[2]
RELEASE = {"iopaint/cli.py": 0o666}  # files with their modes
NETWORK = {"PYTHON_INDEX": "https://robot:hunter2@pypi.example.com/simple", "HTTPS_PROXY": "http://proxy:3128"}


@pytest.fixture
def run(run_module, engine, tmp_path):
    def run(**options):
        args = {"recipe": str(ROOT / "docker"), "dest": str(tmp_path / "tree"), "release": "1.6.0", "base": "debian"}
        args["network"] = NETWORK
        return run_module(source_release, **{**args, **options})

    return run


def test_a_release_is_fetched_with_what_the_network_asks_for(run, engine, tmp_path):
    engine.set(release=RELEASE)
    assert run(ca_bundle="/ca.pem", sha256="abc")["changed"] is True
    (call,) = engine.calls("buildx", "bake")
    wanted = {
        "BASE": "debian",
        "RELEASE": "1.6.0",
        "RELEASE_SHA256": "abc",
        "CA_BUNDLE": "/ca.pem",
        "NETWORK": network_secret(NETWORK),
    }
    assert {name: call["env"][name] for name in wanted} == wanted
    assert f"--set=release.output=type=local,dest={tmp_path}/tree.new/tree" in call["argv"]
    assert "hunter" not in " ".join(call["argv"])
    assert run()["changed"] is False
    assert len(engine.calls("buildx", "bake")) == 1


def test_modes_are_not_the_build_s(run, engine, tmp_path):
    """A base image may leave a program that makes everybody root."""
    engine.set(release={**RELEASE, "web_app/dist/run": 0o6777})
    (tmp_path / "tree.new" / "tree").mkdir(parents=True)
    (tmp_path / "tree.new" / "tree" / "left").touch()  # by a play that was interrupted
    run()
    modes = {str(path.relative_to(tmp_path)): oct(stat.S_IMODE(path.lstat().st_mode)) for path in tmp_path.glob("tree*/**/*")}
    assert modes == {
        "tree/iopaint": "0o755",
        "tree/iopaint/cli.py": "0o644",
        "tree/web_app": "0o755",
        "tree/web_app/dist": "0o755",
        "tree/web_app/dist/run": "0o755",
    }
    assert {path.name for path in tmp_path.glob("tree*")} == {"tree"}


def test_while_it_is_written_nobody_else_can_enter_the_folder(run, engine, tmp_path, monkeypatch):
    engine.set(release=RELEASE)
    seen = []
    normalize = source_release.normalize
    monkeypatch.setattr(
        source_release,
        "normalize",
        lambda tree: (seen.append(stat.S_IMODE((tmp_path / "tree.new").stat().st_mode)), normalize(tree)),
    )
    run()
    assert seen == [0o700]


def test_a_release_that_is_there_is_left(run, engine, tmp_path):
    (tmp_path / "tree/iopaint").mkdir(parents=True)
    (tmp_path / "tree/iopaint/cli.py").touch()
    assert run()["changed"] is False
    assert not engine.calls()


def test_what_a_killed_run_has_left_is_no_release(run, engine, tmp_path):
    engine.set(release=RELEASE)
    (tmp_path / "tree.new/tree/iopaint").mkdir(parents=True)
    (tmp_path / "tree.new/tree/iopaint/left.py").touch()
    assert run()["changed"] is True
    assert not (tmp_path / "tree/iopaint/left.py").exists()


def test_check_mode_fetches_nothing(run, engine):
    assert run(check=True)["changed"] is True
    assert not engine.calls("buildx")


def test_a_failure_is_told_without_a_password(run, engine):
    engine.set(
        build_error="".join(f"#1 line {n}\n" for n in range(30)) + "401 from https://robot:hunter2@pypi.example.com/simple\n"
    )
    answer = run(failed=True)
    assert "IOPaint 1.6.0 (release) could not be downloaded" in answer["msg"]
    assert "line 29" in answer["msg"]
    assert "line 5\n" not in answer["msg"]
    assert "hunter2" not in json.dumps(answer)
