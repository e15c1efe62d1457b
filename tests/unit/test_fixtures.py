# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The fixtures of the scenarios, as far as that goes without a download."""

import hashlib
import http.client
import importlib.util
import io
import json
import pickletools
import re
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest

FIXTURES = Path(__file__).resolve().parents[2] / "molecule" / "fixtures"


def load(name):
    spec = importlib.util.spec_from_file_location(name, FIXTURES / f"{name}.py")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module


def run(name, dest, **environment):
    result = subprocess.run(
        [sys.executable, FIXTURES / f"{name}.py", dest],
        check=True,
        capture_output=True,
        text=True,
        env=environment,
    )
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def packages():
    lock = json.loads((FIXTURES / "web_app" / "package-lock.json").read_text())
    assert lock["lockfileVersion"] == 3
    return lock["packages"]


def test_lock_names_no_registry(packages):
    assert not [name for name, package in packages.items() if "resolved" in package]
    assert not [name for name, package in packages.items() if name and "integrity" not in package]


def test_lock_has_every_optional_package(packages):
    """A lock file made against an incomplete registry lacks some, and `npm ci` refuses it."""
    optional = {name for package in packages.values() for name in package.get("optionalDependencies", {})}
    assert not [name for name in optional if f"node_modules/{name}" not in packages]


def test_lock_agrees_with_package_json(packages):
    wanted = json.loads((FIXTURES / "web_app" / "package.json").read_text())
    for name, version in {**wanted["dependencies"], **wanted["devDependencies"], **wanted["overrides"]}.items():
        assert re.fullmatch(r"\d+\.\d+\.\d+", version)
        assert packages[f"node_modules/{name}"]["version"] == version


def test_lama_twice(tmp_path):
    first = run("make_lama", tmp_path)
    content = (tmp_path / "big-lama.pt").read_bytes()
    assert first["changed"]
    assert first["size"] == len(content)
    assert first["md5"] == hashlib.md5(content, usedforsecurity=False).hexdigest()
    assert run("make_lama", tmp_path) == {**first, "changed": False}
    assert (tmp_path / "big-lama.pt").read_bytes() == content


def test_lama_archive(tmp_path):
    run("make_lama", tmp_path)
    with zipfile.ZipFile(tmp_path / "big-lama.pt") as archive:
        assert archive.testzip() is None
        members = {name.removeprefix("big-lama/"): archive.read(name) for name in archive.namelist()}
    assert set(members) == {"data.pkl", "code/__torch__.py", "constants.pkl", "version", "byteorder"}
    arguments = [argument for _code, argument, _position in pickletools.genops(members["data.pkl"])]
    assert [a for a in arguments if isinstance(a, str)] == ["__torch__ Lama", "training", "_is_full_backward_hook"]
    pickletools.dis(members["constants.pkl"], out=io.StringIO())  # raises where it is no complete pickle


@pytest.mark.parametrize("content", ["nothing", "another Python", "no folder"])
def test_no_wheelhouse_without_torch(tmp_path, content):
    links, dest = tmp_path / "links", tmp_path / "dest"
    if content != "no folder":
        links.mkdir()
    if content == "another Python":
        (links / "torch-2.13.0+cpu-cp312-cp312-manylinux_2_28_x86_64.whl").touch()
    dest.mkdir()
    (dest / "torch-2.1.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl").touch()  # of an earlier run
    report = run("make_wheelhouse", dest, PIP_FIND_LINKS=str(links))
    assert (report["torch"], report["changed"]) == (None, True)
    assert "PIP_FIND_LINKS" in report["message"]
    assert not list(dest.iterdir())
    assert not run("make_wheelhouse", dest, PIP_FIND_LINKS=str(links))["changed"]


def test_newest_torch_of_several_folders(tmp_path, monkeypatch):
    module = load("make_wheelhouse")
    for folder, version in {"a": "2.9.1", "b": "2.13.0"}.items():
        (tmp_path / folder).mkdir()
        name = f"torch-{version}+cpu-cp311-cp311-manylinux_2_28_{module.platform.machine()}.whl"
        (tmp_path / folder / name).touch()
    monkeypatch.setenv("PIP_FIND_LINKS", f"file://{tmp_path}/b https://wheels.invalid/ {tmp_path}/a")
    assert module.find_torch()[1][1] == "2.13.0"
    assert module.torchvision_for("2.13.0") == "0.28.0"


def test_wheel_is_the_same_every_time(tmp_path):
    module = load("make_wheelhouse")
    files = {"a.py": b"x = 1\n", "a-1+cpu.dist-info/WHEEL": b"Wheel-Version: 1.0\nGenerator: me\n"}
    module.write_wheel(tmp_path / "one.whl", files)
    module.write_wheel(tmp_path / "two.whl", dict(reversed(files.items())))
    assert (tmp_path / "one.whl").read_bytes() == (tmp_path / "two.whl").read_bytes()
    assert module.made_by(tmp_path / "one.whl") == "me"
    with zipfile.ZipFile(tmp_path / "one.whl") as wheel:
        record = wheel.read("a-1+cpu.dist-info/RECORD").decode()
    assert "a.py,sha256=nia_NpkRxFwkPGhBR7I_yeHc_PJX0pmhxjIBam_NM_Q,6\n" in record
    assert record.endswith("a-1+cpu.dist-info/RECORD,,\n")


def test_source_takes_no_build_output(tmp_path, monkeypatch):
    module = load("make_source")
    for name in ("index.html", "dist/index.html", "node_modules/react/index.js"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    before = module.digest()
    monkeypatch.setattr(module, "WEB_APP", tmp_path)
    assert module.web_app_files() == [tmp_path / "index.html"]
    assert module.digest() != before


# ---- hub_server ------------------------------------------------------------------------------------------------------

REPOSITORY = "tests/pipeline"
WEIGHTS = "unet/weights.safetensors"


@pytest.fixture
def hub(tmp_path):
    """A hub with two revisions of a repository, of which main is the first, and a function that asks it."""
    for revision, weights in (("v1", b"weights"), ("v2", b"others!")):
        folder = tmp_path / REPOSITORY / revision
        (folder / "unet").mkdir(parents=True)
        (folder / WEIGHTS).write_bytes(weights)
        (folder / "model_index.json").write_text("{}")
    (tmp_path / REPOSITORY / "main.txt").write_text("v1\n")
    server = load("hub_server").Hub().read(tmp_path).serve()
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()

    def ask(path, method="GET", body=None, **headers):
        connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=10)
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        try:
            return answer.status, answer.headers, answer.read()
        except http.client.IncompleteRead as error:
            return answer.status, answer.headers, error.partial
        finally:
            connection.close()

    yield ask
    server.shutdown()
    server.server_close()


def revision(hub, name):
    return json.loads(hub(f"/api/models/{REPOSITORY}/revision/{name}")[2])


def test_a_hub_s_revision_has_its_files_with_sizes_and_checksums(hub):
    one, two = revision(hub, "main"), revision(hub, "v2")
    assert one == revision(hub, "v1") == revision(hub, one["sha"])
    assert re.fullmatch("[0-9a-f]{40}", one["sha"])
    assert one["sha"] != two["sha"]
    files = {each["rfilename"]: each for each in one["siblings"]}
    assert files[WEIGHTS]["lfs"] == {"sha256": hashlib.sha256(b"weights").hexdigest(), "size": 7, "pointerSize": 130}
    assert files["model_index.json"]["blobId"] == "9e26dfeeb6e641a33dae4961196235bdb965b21b"  # git hash-object
    assert "lfs" not in files["model_index.json"]


def test_a_large_file_of_the_hub_lies_elsewhere_and_is_sent_in_parts(hub):
    status, headers, _body = hub(f"/{REPOSITORY}/resolve/v1/{WEIGHTS}", "HEAD")
    assert (status, headers["x-linked-size"]) == (302, "7")
    assert headers["x-linked-etag"] == f'"{hashlib.sha256(b"weights").hexdigest()}"'
    place = headers["location"].partition("/lfs/")[2]
    assert hub(f"/lfs/{place}")[2] == b"weights"
    status, headers, body = hub(f"/lfs/{place}", Range="bytes=3-")
    assert (status, headers["content-range"], body) == (206, "bytes 3-6/7", b"ghts")
    assert hub(f"/{REPOSITORY}/resolve/v1/model_index.json")[2] == b"{}"


def test_a_hub_does_wrong_what_it_is_told_to(hub):
    file = f"/lfs/{REPOSITORY}/{revision(hub, 'v1')['sha']}/{WEIGHTS}"

    def faults(**faults):
        assert hub("/faults", "PUT", json.dumps(faults))[0] == 200

    faults(failures=[429, 503])
    assert [hub(file)[0] for _ in range(3)] == [429, 503, 200]
    faults(tampered=[WEIGHTS])
    assert (len(hub(file)[2]), hub(file)[2] == b"weights") == (7, False)
    faults(cut={WEIGHTS: 3})
    assert [hub(file)[2] for _ in range(2)] == [b"wei", b"weights"]
    faults(gated=True)
    assert hub(f"/api/models/{REPOSITORY}")[1]["x-error-code"] == "GatedRepo"
    faults(token="hf_x")
    assert hub(f"/api/models/{REPOSITORY}")[0] == 401
    assert hub(f"/api/models/{REPOSITORY}", authorization="Bearer hf_x")[0] == 200
    asked = json.loads(hub("/asked")[2])
    assert [each["path"] for each in asked] == [f"/api/models/{REPOSITORY}"] * 2
    faults()
    assert hub("/api/models/tests/none")[1]["x-error-code"] == "RepoNotFound"
    assert hub(f"/api/models/{REPOSITORY}/revision/v9")[1]["x-error-code"] == "RevisionNotFound"
    assert hub(f"/{REPOSITORY}/resolve/v1/none.json")[1]["x-error-code"] == "EntryNotFound"
