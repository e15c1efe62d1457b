# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What others wrote is read within limits, and is refused by a sentence: no input makes a parser raise anything else.

Each parser of the collection gets any bytes or text, and its own kind of document with parts exchanged for anything.
"""

import contextlib
import copy
import gzip
import io
import json
import os
import tarfile
import time
from pathlib import Path

import pytest
import yaml
from ansible.errors import AnsibleFilterError
from ansible_collections.iopaint.fleet.plugins.filter import instances, model_files
from ansible_collections.iopaint.fleet.plugins.filter.apt import apt_troubles
from ansible_collections.iopaint.fleet.plugins.module_utils import (
    build_log,
    bundle,
    daemon_json,
    foreign,
    gpu,
    images,
    inpaint,
    lock,
    network,
    registry,
    releases,
    text,
)
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20)
ANY_JSON = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3), max_leaves=6
)
DEEP = "[" * 100_000


def places(document, path=()):
    """Yield the path of each value in a document."""
    yield path
    for key, value in (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    ):
        yield from places(value, (*path, key))


@st.composite
def altered(draw, document):
    """A document of which one or two values are exchanged for anything, or left out."""
    document = copy.deepcopy(document)
    for _time in range(draw(st.integers(1, 2))):
        path = draw(st.sampled_from([path for path in places(document) if path] or [()]))
        if not path:
            return draw(ANY_JSON)
        above = document
        for key in path[:-1]:
            above = above[key]
        if draw(st.booleans()):
            above[path[-1]] = draw(ANY_JSON)
        else:
            del above[path[-1]]
    return document


def texts(*documents):
    """Any text, lines made of a format's own words, and documents that were altered."""
    found = st.text() | st.sampled_from(["", DEEP, DEEP.replace("[", '{"a":'), "\ufeff{}", "NaN", '"\\ud800"', "9" * 5000])
    for document in documents:
        found |= altered(document).map(json.dumps)
    return found


# ---- the limits themselves -------------------------------------------------------------------------------------------


@given(st.binary() | texts({"a": [1, {"b": None}]}).map(lambda value: value.encode("utf-8", "surrogatepass")))
def test_json_of_others_is_a_document_that_can_be_written_again_or_a_sentence(content):
    with contextlib.suppress(foreign.ForeignError):
        json.dumps(foreign.parse_json(foreign.decode(content)), ensure_ascii=False).encode()


@pytest.mark.parametrize(
    ("content", "kind", "words"),
    [
        (DEEP, object, "nested too deeply"),
        ("[" * 101 + "]" * 101, object, "nested too deeply"),
        ('{"a":' * 101 + "1" + "}" * 101, object, "nested too deeply"),
        ("NaN", object, "it is not JSON (NaN is no number of JSON)"),
        ("9" * 5000, object, "it is not JSON"),
        ('{"a": "\\ud800"}', object, "unpaired surrogate"),
        ("[]", dict, "its JSON is a list"),
        ("7", dict, "its JSON is a number"),
        ("null", list, "its JSON is null"),
    ],
)
def test_json_that_nobody_can_use_is_named(content, kind, words):
    with pytest.raises(foreign.ForeignError) as error:
        foreign.parse_json(content, kind)
    assert words in str(error.value)


def test_json_as_deep_as_is_allowed_is_read():
    assert foreign.parse_json("[" * 100 + "]" * 100)
    assert foreign.parse_json("[" + "[]," * 5000 + "[]]")
    assert foreign.parse_json('"' + "[" * 5000 + '"')


def test_a_file_is_read_up_to_its_limit(tmp_path):
    (tmp_path / "a").write_bytes(b"12345")
    assert foreign.read_file(tmp_path / "a", 5) == b"12345"
    with pytest.raises(foreign.ForeignError, match="it has more than 4 bytes"):
        foreign.read_file(tmp_path / "a", 4)


@pytest.mark.parametrize("place", ["fifo", "folder", "/dev/zero", "/dev/tty"])
def test_what_is_no_regular_file_is_refused_at_once(tmp_path, place):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    with pytest.raises((foreign.ForeignError, OSError)):
        foreign.read_file(tmp_path / place)


def test_a_stream_is_read_up_to_its_limit():
    assert foreign.read_stream(io.BytesIO(b"x" * 200_000), 200_000) == b"x" * 200_000
    with pytest.raises(foreign.ForeignError, match="it has more than 199999 bytes"):
        foreign.read_stream(io.BytesIO(b"x" * 200_000), 199_999)


def test_a_deadline_ends_what_would_wait_for_ever():
    reader, writer = os.pipe()
    start = time.monotonic()
    with pytest.raises(TimeoutError, match=r"not done within 0.2 s"), foreign.deadline(0.2):
        os.read(reader, 1)
    assert time.monotonic() - start < 20
    os.close(reader)
    os.close(writer)


def test_a_deadline_outlasts_a_library_that_swallows_it(monkeypatch):
    monkeypatch.setattr(foreign, "AGAIN", 0.2)
    swallowed = []

    def library():
        try:
            time.sleep(30)
        except TimeoutError:
            swallowed.append(1)
        time.sleep(30)

    with pytest.raises(TimeoutError), foreign.deadline(0.1):
        library()
    assert swallowed


def test_a_deadline_that_is_kept_leaves_nothing_behind():
    with foreign.deadline(0.1):
        pass
    time.sleep(0.2)


# ---- the parsers -----------------------------------------------------------------------------------------------------

HOLDER = {"token": "t", "operator": "ann", "controller": "desk", "pid": 7, "play": "upgrade", "time": "2026-01-01T00:00:00Z"}
IMAGE = {"variant": "cpu", "image": "iopaint:cpu-1", "id": "sha256:1", "size": 1, "tags": ["iopaint:cpu-1"]}
MODEL = {"name": "lama", "path": "torch/lama.pt", "checksum": "sha256:00"}
MANIFEST = {"schema": bundle.SCHEMA, "images": [IMAGE], "models": [MODEL]}
SAVED = [{"Config": "a.json", "RepoTags": ["iopaint:cpu-1"], "Layers": ["b/layer.tar"]}]
SPEC = {"cdiVersion": "0.6.0", "kind": gpu.CDI_KIND, "devices": [{"name": "0", "containerEdits": {}}, {"name": "all"}]}
RECORD = {
    "schema": 1,
    "id": "0001-cpu",
    "outcome": "current",
    "image": "iopaint:cpu-1",
    "image_id": "sha256:1",
    "asked": None,
    "environment": {"A": "b"},
    "devices": [],
    "replaces": None,
    "started": "2026-01-01T00:00:00Z",
}


@given(st.binary() | texts(HOLDER).map(lambda value: value.encode("utf-8", "surrogatepass")))
def test_a_lock_names_its_holder_in_plain_text(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("lock") / "lock"
    path.write_bytes(content)
    holder = lock.read(str(path))
    assert holder["token"]
    assert all(isinstance(value, int) or value.isprintable() for value in holder.values())


@given(st.binary() | texts(MANIFEST).map(lambda value: value.encode("utf-8", "surrogatepass")))
def test_a_manifest_is_whole_or_refused(content):
    try:
        manifest = bundle.manifest_in(bundle.MANIFEST, content)
    except bundle.BundleError:
        return
    for image in manifest["images"]:
        assert (isinstance(image["image"], str), isinstance(image["size"], int), isinstance(image["tags"], list)) == (True,) * 3
    for model in manifest["models"]:
        Path("/models", model["path"])


@given(st.binary() | texts(SAVED).map(lambda value: value.encode("utf-8", "surrogatepass")))
def test_the_list_of_a_bundle_s_images_is_whole_or_refused(tmp_path_factory, content):
    try:
        saved = bundle.checked_list(bundle.parsed(bundle.SAVED, content))
        path = archive(tmp_path_factory.mktemp("bundle"), {bundle.SAVED: content})
        bundle.copy_images(path, find, bundle.Verified({}, saved, {}), {"iopaint:cpu-1"}, io.BytesIO())
    except bundle.BundleError:
        return


def find(program):
    return f"/usr/bin/{program}" if os.path.exists(f"/usr/bin/{program}") else f"/bin/{program}"


def archive(folder, members):
    path = folder / "bundle.tar.gz"
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return str(path)


@given(st.integers(0, 2000), st.binary(min_size=1, max_size=8))
def test_an_archive_with_any_damage_is_a_bundle_or_refused(tmp_path_factory, place, damage):
    """Behind the compression, whose own sum would find it: tar's headers are what an attacker writes."""
    path = archive(tmp_path_factory.mktemp("bundle"), {bundle.MANIFEST: json.dumps(MANIFEST).encode(), bundle.SUMS: b""})
    content = bytearray(gzip.decompress(Path(path).read_bytes()))
    content[place : place + len(damage)] = damage
    Path(path).write_bytes(gzip.compress(content, 1))
    for read in (bundle.manifest_of, bundle.verify):
        with contextlib.suppress(bundle.BundleError):
            read(path, find)


WORDS = [
    "kind: nvidia.com/gpu",
    "devices:",
    "- name: a",
    "  name: b",
    "- ",
    "  - x",
    "#",
    "name: '",
    "a: &x",
    "b: *x",
    "<<: *x",
    "\t",
]


@pytest.mark.parametrize("suffix", [".json", ".yaml"])
@pytest.mark.parametrize("parser", ["yaml", "outline"])
@given(
    content=st.binary()
    | texts(SPEC).map(lambda value: value.encode("utf-8", "surrogatepass"))
    | st.lists(st.sampled_from(WORDS)).map(lambda lines: "\n".join(lines).encode())
    | altered(SPEC).map(lambda document: yaml.safe_dump(document).encode())
)
def test_a_cdi_specification_is_read_or_named(tmp_path_factory, suffix, parser, content):
    folder = tmp_path_factory.mktemp("cdi")
    (folder / f"a{suffix}").write_bytes(content)
    with pytest.MonkeyPatch.context() as patch:
        if parser == "outline":
            patch.setattr(gpu, "yaml", None)
        found = gpu.read_cdi([str(folder)])
    assert all(isinstance(name, str) for name in found["cdi_devices"])
    assert len(found["cdi_errors"]) <= 1
    gpu.explain_start(f"unresolvable CDI devices {' '.join(found['cdi_devices'])}", found)


@pytest.mark.parametrize(
    "content",
    [
        DEEP,
        "a: &a [x, x]\nb: &b [*a, *a]\nkind: nvidia.com/gpu\ndevices: [{name: *b}]\n",
        "kind: nvidia.com/gpu\ndevices: [{name: [1]}]\n",
        "kind: nvidia.com/gpu\ndevices: [{name: {a: b}}]\n",
    ],
    ids=["deep", "aliases", "a list", "an object"],
)
def test_yaml_that_nests_or_grows_is_named(tmp_path, content):
    (tmp_path / "a.yaml").write_text(content)
    (error,) = gpu.read_cdi([str(tmp_path)])["cdi_errors"]
    assert "not a CDI spec" in error["error"]


def test_a_fifo_among_the_specifications_is_named_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.json")
    assert gpu.read_cdi([str(tmp_path)])["cdi_errors"] == [{"file": f"{tmp_path}/a.json", "error": "it is not a regular file"}]


REPORTS = [path.read_text() for path in sorted(Path(__file__).parent.rglob("*.xml"))] or [
    "<nvidia_smi_log><gpu/></nvidia_smi_log>"
]


@given(st.text() | st.sampled_from(REPORTS), st.text(max_size=9), st.integers(0, 20_000))
def test_what_nvidia_smi_prints_is_read_or_named(report, insert, place):
    place %= len(report) + 1
    try:
        found = gpu.parse_report(report[:place] + insert + report[place:])
    except ValueError:
        found = gpu.NO_REPORT
    gpu.complete(found["gpus"], gpu.parse_compute_caps(report), gpu.parse_slices(insert))
    gpu.diagnose(0, report, found["gpus"], [])


@given(
    texts({"log-driver": "json-file", "runtimes": {"nvidia": {"path": "x", "args": []}}, "hosts": ["fd://"]}),
    altered({"a": {"b": [1]}}),
)
def test_daemon_json_is_merged_or_refused(content, settings):
    try:
        after = daemon_json.document(daemon_json.merge(content, settings if isinstance(settings, dict) else {}))
        daemon_json.check(after, [daemon_json.Flag("default-runtime", "x", "unit")])
        daemon_json.actions(daemon_json.document(content), after)
    except daemon_json.ConfigError:
        pass


@given(
    st.text()
    | st.lists(
        st.sampled_from(["ExecStart=dockerd -H $A", "ExecStart=", "Environment=A='", "EnvironmentFile=-/x", "\\", "# /a.conf"])
    ).map("\n".join),
    st.text(),
)
def test_a_unit_of_the_engine_is_read(listing, environment):
    daemon_json.parse_flags(daemon_json.command_line(listing, lambda _path: environment))


@given(st.binary() | texts(RECORD).map(lambda value: value.encode("utf-8", "surrogatepass")))
def test_a_record_of_a_release_is_sound_or_damaged(tmp_path_factory, content):
    top = tmp_path_factory.mktemp("instances")
    folder = top / "cpu" / "releases" / "0001-cpu"
    folder.mkdir(parents=True)
    (folder / releases.RECORD).write_bytes(content)
    (folder / ".env").write_bytes(b"CPU_IMAGE='x'\nPROJECT='p'\nCPU_PORT='1'\n")
    (folder / "options.env").write_bytes(b"")
    (folder / "compose.yaml").write_bytes(b"")
    store = releases.Releases(str(top), "cpu")
    for record in store.records.values():
        store.to_run(record)
        store.save(record)
    images.repositories(store.records.values())
    assert store.proven() in (None, *store.records.values())
    store.targets()
    for damaged in list(store.damaged):
        assert store.rebuild(damaged, lambda _name: None, None)["outcome"] in releases.OUTCOMES


PROOF = {"model": "lama", "latency_ms": 9000, "seconds_per_step": 2.5, "pixels": {"total": 174592}}


@given(altered(PROOF), altered(PROOF))
def test_proofs_in_records_are_compared_or_not(proof, before):
    if isinstance(proof, dict) and isinstance(before, dict):  # else the record is damaged
        assert " times as long as " in (releases.slowdown(proof, before) or " times as long as ")


@given(st.text(alphabet='iopaint_gpu_memory_bytes{kind="peak"} 0123456789.e+\n'), st.sampled_from(["", '{gpu="0",kind="peak"} ']))
def test_measures_of_an_instance_are_read(content, labels):
    peak = inpaint.peak_memory(f"iopaint_gpu_memory_bytes{labels}{content}".encode())
    assert peak is None or peak >= 0


@given(st.binary(), st.binary())
def test_files_of_a_damaged_release_are_read_or_recorded_as_failed(tmp_path_factory, settings, options):
    top = tmp_path_factory.mktemp("instances")
    folder = top / "cpu" / "releases" / "0001-cpu"
    folder.mkdir(parents=True)
    (folder / releases.RECORD).write_bytes(b"")
    (folder / ".env").write_bytes(settings)
    (folder / "options.env").write_bytes(options)
    store = releases.Releases(str(top), "cpu")
    assert store.rebuild("0001-cpu", lambda _name: None, None)["outcome"] in releases.OUTCOMES


@given(
    st.binary()
    | texts({"name": "lama", "detail": [{"loc": ["body"], "msg": "x"}]}).map(lambda value: value.encode("utf-8", "surrogatepass"))
)
def test_answers_of_an_instance_are_read_or_named(content):
    shown = inpaint.server_text(content)
    assert shown.isprintable()
    assert len(shown) <= 301
    with contextlib.suppress(inpaint.CheckError):
        assert inpaint.read_model(content)[0].isprintable()
    assert inpaint.peak_memory(content) is None
    with pytest.raises(inpaint.CheckError):
        inpaint.read_answer(content, "application/json", Image.new("RGB", (96, 64)))


@given(st.integers(0, 5000), st.binary(min_size=1, max_size=8), st.sampled_from(["PNG", "JPEG"]))
def test_a_damaged_picture_is_read_or_named(place, damage, kind):
    sent, data = Image.effect_noise((64, 48), 60).convert("RGB"), io.BytesIO()
    sent.save(data, kind)
    content = bytearray(data.getvalue())
    content[place : place + len(damage)] = damage
    with contextlib.suppress(inpaint.CheckError):
        assert inpaint.read_answer(bytes(content), "image/png", sent).size == (64, 48)


LINES = [
    "#1 [a 1/2] RUN x",
    "#1 0.1.2 Fetched 1.2.3 kB in 1s",
    "#1 DONE 1..2s",
    "#1 DONE .s",
    "#9 CACHED",
    "#1 ERROR: x",
    "#1 1.0 Downloading x (1.1.1MiB)",
]


@given(st.text() | st.lists(st.sampled_from(LINES)).map(lambda lines: "\n".join([*lines, ""])))
def test_the_output_of_a_build_is_read(output):
    log = build_log.BuildLog(output)
    assert log.summary()["steps"] == len(log.named("done", "cached"))
    assert all(step.title for step in log.named("done", "cached", "failed", "running"))
    assert all(character in "\t\n" or character.isprintable() for character in text.plain(output))


@given(
    st.text() | st.lists(st.sampled_from(["E: x", "Err:1 http://a b", "  x", "W: GPG error: ", "Remv x", "Inst"])).map("\n".join)
)
def test_the_output_of_apt_and_docker_is_read(output):
    apt_troubles(output, dict.fromkeys(("uris", "components", "fingerprints", "proxy"), "a_variable"))
    registry.explain(output, "registry.example.com/iopaint", "/var/lib/docker", {})
    registry.is_unknown(output)
    network.masked(output, [output])


# ---- what an operator writes -----------------------------------------------------------------------------------------

ENTRY = {
    "name": "cpu",
    "variant": "cpu",
    "port": 8080,
    "options": {"low_mem": True},
    "model_urls": {"LAMA_MODEL_URL": "http://x"},
}
DEFAULTS = {"bind_address": "127.0.0.1", "model": "lama", "variant": "cpu", "hub_endpoint": "", "memory": ""}


@given(st.dictionaries(st.text(max_size=9), st.text()))
def test_an_env_file_has_a_line_for_each_value_or_is_refused(values):
    try:
        written = instances.to_dotenv(values)
    except AnsibleFilterError:
        return
    assert len(written.splitlines()) == max(1, len(values))
    assert releases.from_dotenv(written) == values


@given(altered([MODEL | {"url": "http://example.com/x"}]))
def test_models_are_completed_or_refused(models):
    if isinstance(models, list):
        try:
            found = model_files.model_files(models)
        except AnsibleFilterError:
            return
        assert all(str(value).isprintable() for model in found for value in model.values())


@given(altered([ENTRY]))
def test_instances_are_completed_or_refused(wanted):
    if isinstance(wanted, list):
        with contextlib.suppress(AnsibleFilterError):
            for instance in instances.instances(wanted, DEFAULTS):
                instances.to_dotenv(instance["environment"])
