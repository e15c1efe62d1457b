# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Debian's packages taken anew: what is compared, what is recorded, what is said. The engine is a stand-in."""

import io
import json
import tarfile
from pathlib import Path

import pytest
from ansible_collections.iopaint.fleet.plugins.filter.package_list import package_list
from ansible_collections.iopaint.fleet.plugins.module_utils.docker_cli import network_secret
from ansible_collections.iopaint.fleet.plugins.module_utils.image_files import parse_packages
from ansible_collections.iopaint.fleet.plugins.modules import image_refresh

ROOT = Path(__file__).resolve().parents[2]
OLD, NEW = "libc6=2.36-9+deb12u9\nlibssl3=3.0.15-1~deb12u1\n", "libc6=2.36-9+deb12u9\nlibssl3=3.0.16-1~deb12u1\n"
CHANGED = ["libssl3 3.0.15-1~deb12u1 → 3.0.16-1~deb12u1"]
NETWORK = {"DEBIAN_MIRROR": "http://robot:hunter2@mirror.example.com/debian"}


@pytest.fixture
def run(run_module, engine, tmp_path):
    def run(**options):
        args = {"recipe": str(ROOT / "docker"), "path": str(tmp_path / "refreshed.json"), "base": "debian", "base_id": "sha256:1"}
        return run_module(image_refresh, **{**args, "network": NETWORK, **options})

    return run


@pytest.fixture
def recorded(tmp_path):
    return lambda: json.loads((tmp_path / "refreshed.json").read_text())


@pytest.fixture
def clock(monkeypatch):
    """Let each refresh have a time of its own."""
    times = iter(range(1, 10))
    monkeypatch.setattr(image_refresh.audit, "now", lambda: f"2026-01-0{next(times)}T00:00:00Z")


def built(engine, packages, base="debian@sha256:1"):
    """Let the host have images of ours, the newest with this list of packages."""
    for number, name in enumerate(("older", "newest")):
        engine.have(name)
        labels = json.dumps({"io.iopaint.fleet.recipe": "0", "io.iopaint.fleet.base": base})
        images = engine.state["images"]
        images[name].update(Labels=labels, Created=f"2026-01-0{number + 1}T00:00:00Z")
        engine.set(images=images)
    with tarfile.open(fileobj=(buffer := io.BytesIO()), mode="w") as tar:
        member = tarfile.TarInfo("debian-packages.txt")
        member.size = len(packages)
        tar.addfile(member, io.BytesIO(packages.encode()))
    engine.set(copied=buffer.getvalue(), created=[])


def test_newer_packages_are_recorded_and_named(run, engine, recorded, clock):
    built(engine, OLD)
    engine.set(packages=NEW)
    result = run(ca_bundle="/ca.pem")
    assert (result["changed"], result["packages"], result["time"]) == (True, CHANGED, "2026-01-01T00:00:00Z")
    assert recorded() == {"time": "2026-01-01T00:00:00Z", "packages": parse_packages(NEW)}
    assert engine.calls("create")[0]["argv"][-2] == "sha256:newest"
    assert engine.state["created"] == []


def test_the_layer_is_made_anew_with_what_the_network_asks_for(run, engine, clock):
    engine.set(packages=NEW)
    run(ca_bundle="/ca.pem")
    (call,) = engine.calls("buildx", "bake")
    wanted = {
        "BASE": "debian",
        "REFRESHED": "2026-01-01T00:00:00Z",
        "CA_BUNDLE": "/ca.pem",
        "NETWORK": network_secret(NETWORK),
    }
    assert {name: call["env"][name] for name in wanted} == wanted
    assert call["argv"][-1] == "debian-packages"
    assert "hunter" not in " ".join(call["argv"])


def test_a_second_refresh_changes_nothing_until_there_is_something_newer(run, engine, recorded, clock):
    engine.set(packages=OLD)
    first = run()
    assert (first["changed"], first["packages"]) == (True, [])  # nothing to compare with
    again = run()
    assert (again["changed"], again["packages"], again["time"]) == (False, [], "2026-01-01T00:00:00Z")
    assert recorded()["time"] == "2026-01-01T00:00:00Z"
    engine.set(packages=NEW)
    newer = run()
    assert (newer["changed"], newer["packages"], newer["time"]) == (True, CHANGED, "2026-01-03T00:00:00Z")
    assert recorded() == {"time": "2026-01-03T00:00:00Z", "packages": parse_packages(NEW)}
    assert not engine.calls("create")


def test_an_image_with_the_newest_packages_needs_no_refresh(run, engine, tmp_path):
    built(engine, NEW)
    engine.set(packages=NEW)
    result = run()
    assert (result["changed"], result["packages"], result["time"]) == (False, [], "")
    assert not (tmp_path / "refreshed.json").exists()


def test_with_another_base_the_packages_are_recorded_even_if_they_are_the_same(run, engine, recorded):
    """The image is built anew then, and without a record its packages would not be upgraded."""
    built(engine, NEW, base="debian@sha256:0")
    engine.set(packages=NEW)
    result = run()
    assert (result["changed"], result["packages"]) == (True, [])
    assert recorded()["packages"] == parse_packages(NEW)


def test_a_failure_is_told_without_a_password_and_records_nothing(run, engine, tmp_path):
    engine.set(build_error="".join(f"#1 line {n}\n" for n in range(30)) + "E: 401 from http://robot:hunter2@mirror.example.com\n")
    answer = run(failed=True)
    assert "Debian's packages could not be taken anew (network). No image was built" in answer["msg"]
    assert "line 29" in answer["msg"]
    assert "hunter2" not in json.dumps(answer)
    assert not (tmp_path / "refreshed.json").exists()


@pytest.mark.parametrize(
    ("packages", "why"), [(None, "can't be read from the build: [Errno 2]"), ("none\n", "debian has no Debian packages")]
)
def test_a_base_without_a_list_is_said(run, engine, tmp_path, packages, why):
    engine.set(**({} if packages is None else {"packages": packages}))
    assert why in run(failed=True)["msg"]
    assert not (tmp_path / "refreshed.json").exists()


def test_only_packages_are_read_from_a_list():
    text = "libc6=2.36\nlibstdc++6=12.2.0-14\n\x1b[31mevil=1\nlibssl3\nname=a b\n"
    assert parse_packages(text) == {"libc6": "2.36", "libstdc++6": "12.2.0-14"}


def test_a_long_list_is_cut():
    assert package_list(CHANGED) == f"1 changed, {CHANGED[0]}"
    assert package_list([f"p{n} 1 → 2" for n in range(12)]).startswith("12 changed, p0 1 → 2, ")
    assert package_list([f"p{n} 1 → 2" for n in range(12)]).endswith(", p9 1 → 2 and 2 more")
