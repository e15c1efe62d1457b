# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The list of known models, and scripts/models, which takes it anew from a hub and makes the tables of docs/models.md from it."""

import importlib.util
import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from ansible_collections.iopaint.fleet.plugins.filter.hub_models import hub_models
from ansible_collections.iopaint.fleet.plugins.plugin_utils.known_models import LISTED, REPLACED

ROOT = Path(__file__).resolve().parents[2]
LIST, PAGE = "plugins/plugin_utils/models.json", "docs/models.md"
SCRIPT = ROOT / "scripts" / "models"
# DIFFUSION_MODELS of IOPaint 1.6.0 (iopaint/const.py), and the erase models of its menu that need weights.
MENU = {
    "runwayml/stable-diffusion-inpainting",
    "Uminosachi/realisticVisionV51_v51VAE-inpainting",
    "redstonehero/dreamshaper-inpainting",
    "Sanster/anything-4.0-inpainting",
    "diffusers/stable-diffusion-xl-1.0-inpainting-0.1",
    "Fantasy-Studio/Paint-by-Example",
    "RunDiffusion/Juggernaut-XI-v11",
    "SG161222/RealVisXL_V5.0",
    "eienmojiki/Anything-XL",
    "Sanster/PowerPaint-V1-stable-diffusion-inpainting",
    "Sanster/AnyText",
    *("lama", "mat", "fcf", "migan"),
}
KEYS = {"kind", "url", "checksum", "file", "revision", "files", "megabytes", "gpu_memory", "licence", "good_for", "replaced_by"}


# ---- the list --------------------------------------------------------------------------------------------------------


def test_the_list_has_what_the_menu_offers():
    assert set(LISTED) >= MENU
    assert set(REPLACED.values()) <= set(LISTED)
    assert not set(REPLACED) & set(REPLACED.values())


@pytest.mark.parametrize("name", LISTED)
def test_an_entry_says_what_it_must_and_nothing_else(name):
    entry = LISTED[name]
    assert set(entry) <= KEYS
    assert entry["kind"] in ("erase", "diffusion", "addition", "plugin")
    if "url" in entry:
        assert "revision" not in entry
        assert "checksum" in entry
    elif "replaced_by" in entry:
        assert set(entry) == {"kind", "replaced_by"}
    else:
        assert hub_models([{"hub": name}])
        assert re.fullmatch("[0-9a-f]{40}", entry.get("revision", "0" * 40))
    if entry["kind"] != "plugin" and "replaced_by" not in entry:
        assert entry["good_for"]
    sizes = entry.get("megabytes", 1)
    assert all(isinstance(size, int) and size > 0 for size in (sizes.values() if isinstance(sizes, dict) else [sizes]))


def test_no_two_repositories_have_one_commit():
    commits = [entry["revision"] for entry in LISTED.values() if "revision" in entry]
    assert len(set(commits)) == len(commits)


def test_the_page_and_the_collection_say_what_the_list_says():
    done = subprocess.run([sys.executable, SCRIPT, "--check"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    text = (ROOT / PAGE).read_text(encoding="utf-8")
    assert set(re.findall(r"hub: ([\w.-]+/[\w.-]+)", text)) <= set(LISTED)


# ---- taken anew ------------------------------------------------------------------------------------------------------

FILES = {
    "model_index.json": b"{}",
    "unet/config.json": b"{}",
    "unet/model.safetensors": b"u" * 3_000_000,
    "unet/model.fp16.safetensors": b"h" * 1_500_000,
    "unet/model.bin": b"p" * 9_000_000,
    "all.ckpt": b"c" * 9_000_000,
}
MODELS = {
    "lama": {"kind": "erase", "url": "https://example.com/lama.pt", "checksum": "md5:0", "megabytes": 206, "good_for": "objects"},
    "owner/pipeline": {"kind": "diffusion", "gpu_memory": {"half": 3.0, "full": 5.3, "half_offloaded": 2.0}, "good_for": "texts"},
    "owner/part": {"kind": "addition", "revision": "1" * 40, "files": ["part.bin"], "licence": "MIT", "good_for": "parts"},
    "owner/gone": {"kind": "diffusion", "replaced_by": "owner/pipeline"},
}


@pytest.fixture(scope="module")
def fixture():
    """Return the module of the hub's stand-in."""
    spec = importlib.util.spec_from_file_location("hub_server", ROOT / "molecule" / "fixtures" / "hub_server.py")
    module = sys.modules["hub_server"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def hub(fixture):
    """Return a hub that has the repositories, with its address."""
    hub = fixture.Hub()
    hub.add("owner/pipeline", "main", FILES)
    hub.add("owner/part", "main", {"part.bin": b"x" * 2_000_001, "other.bin": b"y" * 5_000_000})
    server = hub.serve()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    yield hub
    server.shutdown()
    server.server_close()


@pytest.fixture
def models(tmp_path):
    """Run the script over a list and a page of the test; it returns exit status and output."""
    for path in (LIST, PAGE):
        (tmp_path / path).parent.mkdir(parents=True)
    write(tmp_path, MODELS)
    marks = "".join(f"<!-- scripts/models: {name} -->\nold\n<!-- end -->\n" for name in ("models", "additions", "replaced"))
    (tmp_path / PAGE).write_text(f"# Models\n\n{marks}\nthe rest\n")

    def run(*arguments, **environment):
        kept = {name: value for name, value in os.environ.items() if "PROXY" not in name.upper() and not name.startswith("HF_")}
        return subprocess.run(
            [sys.executable, SCRIPT, "--root", tmp_path, *arguments],
            env={**kept, **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    run.listed = lambda: json.loads((tmp_path / LIST).read_text())["models"]
    run.page = (tmp_path / PAGE).read_text
    return run


def write(folder, models):
    (folder / LIST).write_text(json.dumps({"iopaint": "1.6.0", "models": models}, indent=2) + "\n")


def test_commits_and_sizes_are_taken_from_the_hub_and_the_rest_stays(models, hub):
    done = models("--refresh", HF_ENDPOINT=f"{hub.address}/")
    assert (done.returncode, done.stderr) == (0, "")
    listed = models.listed()
    commit = hub.names["owner/pipeline", "main"]
    assert listed["owner/pipeline"] == {
        "kind": "diffusion",
        "revision": commit,
        "megabytes": {"": 4, "fp16": 2},
        "gpu_memory": MODELS["owner/pipeline"]["gpu_memory"],
        "good_for": "texts",
    }
    assert listed["owner/part"] == {**MODELS["owner/part"], "revision": hub.names["owner/part", "main"], "megabytes": 3}
    assert (listed["lama"], listed["owner/gone"]) == (MODELS["lama"], MODELS["owner/gone"])
    assert list(listed) == list(MODELS)
    assert f"owner/pipeline: revision unknown -> {commit}" in done.stdout
    assert (
        f"| `owner/pipeline` | `{commit[:12]}` | 4 MB (full)<br>2 MB (fp16) | 3.0 GB | 2.0 GB | see its authors | texts |"
        in models.page()
    )
    assert {each["path"] for each in hub.asked} == {f"/api/models/owner/{name}/revision/main" for name in ("pipeline", "part")}
    again = models("--refresh", HF_ENDPOINT=hub.address)
    assert (again.returncode, again.stdout) == (0, "")


def test_only_what_is_named_is_asked_for(models, hub):
    assert models("--refresh", "owner/part", HF_ENDPOINT=hub.address).returncode == 0
    assert "revision" not in models.listed()["owner/pipeline"]
    assert len(hub.asked) == 1
    for name in ("lama", "owner/gone", "owner/none"):
        done = models("--refresh", name, HF_ENDPOINT=hub.address)
        assert f"models: {name}: no repository of {LIST}" in done.stderr
        assert done.returncode == 1


def test_what_the_hub_refuses_keeps_its_entry_and_is_named(models, hub, fixture):
    del hub.names["owner/part", "main"]
    hub.files["owner/pipeline", hub.names["owner/pipeline", "main"]] = {"README.md": b"no weights"}
    done = models("--refresh", HF_ENDPOINT=hub.address)
    assert done.returncode == 1
    assert "owner/part: the hub doesn't have it, or not for everybody (404)" in done.stderr
    assert "owner/pipeline: the repository has no weights that diffusers loads" in done.stderr
    assert models.listed() == MODELS
    hub.faults = fixture.Faults(gated=True)
    assert (
        "owner/pipeline: the hub doesn't have it, or not for everybody (403)"
        in models("--refresh", HF_ENDPOINT=hub.address).stderr
    )


def test_a_token_opens_what_is_private_and_is_not_shown(models, hub, fixture):
    hub.faults = fixture.Faults(token="hf_secret")
    assert models("--refresh", HF_ENDPOINT=hub.address).returncode == 1
    done = models("--refresh", HF_ENDPOINT=hub.address, HF_TOKEN="hf_secret")
    assert done.returncode == 0
    assert "hf_secret" not in done.stdout + done.stderr


def test_a_busy_hub_is_asked_again(models, hub, fixture):
    hub.faults = fixture.Faults(failures=[429, 503])
    assert models("--refresh", "owner/part", HF_ENDPOINT=hub.address).returncode == 0


def test_a_proxy_is_asked(models, hub):
    done = models("--refresh", "owner/part", HF_ENDPOINT="http://hub.example.com", HTTP_PROXY=hub.address, http_proxy=hub.address)
    assert done.returncode == 1  # this one is no proxy
    assert hub.asked[0]["path"] == "http://hub.example.com/api/models/owner/part/revision/main"


def test_an_answer_that_is_no_hub_s_is_named(models, raw_server):
    bodies = {b"<html>": "not JSON", b"[]": "lacks its commit", b'{"sha": "x", "siblings": []}': "names no commit, but 'x'"}
    for body, words in bodies.items():
        address = raw_server(b"HTTP/1.0 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
        assert words in models("--refresh", "owner/part", HF_ENDPOINT=address).stderr
    assert models.listed() == MODELS


def test_the_tables_are_made_from_the_list(models, tmp_path):
    assert f"{PAGE}: not as the list says; run scripts/models" in models("--check").stderr
    assert "old" in models.page()
    assert models().returncode == 0
    text = models.page()
    assert "| `lama` | | 206 MB | | | see its authors | objects |\n" in text
    assert f"| `owner/part` | `{'1' * 12}` | | MIT | parts |\n" in text
    assert "| `owner/gone` | `owner/pipeline` |\n" in text
    assert "old" not in text
    assert text.endswith("\nthe rest\n")
    assert models("--check").returncode == 0
    (tmp_path / PAGE).write_text("# Models\n")
    assert "needs the line <!-- scripts/models: models --> once" in models().stderr


def test_options_that_do_not_go_together_are_refused(models):
    for arguments in (["--check", "--refresh"], ["owner/part"], ["--check", "owner/part"]):
        done = models(*arguments)
        assert done.returncode == 2
        assert "names go with --refresh" in done.stderr
