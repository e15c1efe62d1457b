# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Where the base image comes from: the host, a registry or packages. The engine and mmdebstrap are stand-ins."""

import io
import json
import subprocess
import tarfile

import pytest
from ansible_collections.iopaint.fleet.plugins.modules import image_base

NAME, MADE = "debian:bookworm-slim", "iopaint-base:bookworm"
MMDEBSTRAP = """
import io, json, os, sys, tarfile
source = sys.stdin.read() if sys.argv[-1] == "-" else ""
proxies = {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy") and value}
conf = next((word.partition("=")[2] for word in sys.argv if word.startswith("--aptopt=/")), None)
seen = {"argv": sys.argv[1:], "source": source, "proxies": proxies, "settings": conf and open(conf).read()}
json.dump(seen, open(LOG, "w"))
if FAILS:
    sys.exit("E: " + "x" * 1000 + source + "cannot reach the mirror")
archive = next(word for word in sys.argv if word.endswith(".tar"))
with tarfile.open(archive, "w") as tar:
    member = tarfile.TarInfo("./var/lib/dpkg/status")
    member.size = len(STATUS)
    tar.addfile(member, io.BytesIO(STATUS.encode()))
"""


@pytest.fixture
def run(run_module):
    return lambda **options: run_module(image_base, name=NAME, **options)


@pytest.fixture
def mmdebstrap(engine, tmp_path):
    """Puts the stand-in on PATH and gives the file that takes its arguments."""

    def install(fails="", status="libc6 1"):
        engine.program("mmdebstrap", MMDEBSTRAP, LOG=tmp_path / "mmdebstrap.json", FAILS=fails, STATUS=status)
        return tmp_path / "mmdebstrap.json"

    return install


@pytest.mark.parametrize(
    ("source", "image", "check"),
    [("auto", NAME, False), ("auto", MADE, False), ("auto", MADE, True), ("pull", NAME, False), ("bootstrap", MADE, True)],
)
def test_an_image_of_the_host_is_taken(run, engine, source, image, check):
    engine.have(image)
    result = run(source=source, check=check)
    assert (result["changed"], result["how"], result["image"], result["id"]) == (False, "host", image, f"sha256:{image}")
    assert not engine.calls("pull") + engine.calls("import")


def test_the_wanted_image_goes_before_a_made_one(run, engine):
    engine.have(MADE, NAME)
    assert run()["image"] == NAME


@pytest.mark.parametrize("source", ["auto", "pull"])
def test_an_image_is_pulled(run, engine, source):
    engine.set(registry=[NAME])
    result = run(source=source)
    assert (result["changed"], result["how"], result["image"]) == (True, "pulled", NAME)
    assert result["id"] == engine.ids[NAME]
    assert run(source=source)["changed"] is False


def built_from(engine, **bases):
    """Let the engine hold images of ours, by name with base and time."""
    for name, (base, created) in bases.items():
        labels = json.dumps({"io.iopaint.fleet.recipe": "0", **({"io.iopaint.fleet.base": base} if base else {})})
        engine.have(name)
        images = engine.state["images"]
        images[name].update(Labels=labels, Created=created)
        engine.set(images=images)


@pytest.mark.parametrize("check", [False, True])
@pytest.mark.parametrize(("source", "base"), [("auto", NAME), ("auto", MADE), ("pull", NAME), ("bootstrap", MADE)])
def test_a_pruned_base_counts_by_the_newest_image_that_was_built_from_it(run, engine, source, base, check):
    engine.set(registry=[NAME])
    built_from(
        engine,
        new=(f"{base}@sha256:2", "2026-02-01T00:00:00Z"),
        old=(f"{base}@sha256:1", "2026-01-01T00:00:00Z"),
        other=("debian:trixie-slim@sha256:3", "2026-03-01T00:00:00Z"),
        older=("", "2026-04-01T00:00:00Z"),
    )
    result = run(source=source, recorded=True, check=check)
    assert (result["changed"], result["how"], result["image"], result["id"]) == (False, "recorded", base, "sha256:2")
    assert not engine.calls("pull")


def test_the_newest_image_is_the_one_that_was_built_last(run, engine):
    """The time of an image is its source's, which two images of one source share."""
    images = {"old": ("9", "2026-01-01T00:00:00Z"), "new": ("1", "2026-01-02T00:00:00Z"), "older": ("5", "2025-12-31T00:00:00Z")}
    built_from(engine, **{name: (f"{NAME}@sha256:{base}", "2025-01-01T00:00:00Z") for name, (base, _built) in images.items()})
    held = engine.state["images"]
    for name, (_base, built) in images.items():
        labels = {**json.loads(held[name]["Labels"]), "org.opencontainers.image.created": built}
        held[name]["Labels"] = json.dumps(labels)
    engine.set(images=held)
    assert run(recorded=True)["id"] == "sha256:1"


def test_a_base_that_is_there_goes_before_a_recorded_one(run, engine):
    built_from(engine, new=(f"{NAME}@sha256:2", "2026-02-01T00:00:00Z"))
    engine.have(NAME)
    result = run(recorded=True)
    assert (result["how"], result["id"]) == ("host", f"sha256:{NAME}")


def test_a_build_takes_no_recorded_base(run, engine):
    built_from(engine, new=(f"{NAME}@sha256:2", "2026-02-01T00:00:00Z"))
    engine.set(registry=[NAME])
    assert run()["how"] == "pulled"


def test_nothing_recorded_is_pulled(run, engine):
    built_from(engine, new=("debian:trixie-slim@sha256:2", "2026-02-01T00:00:00Z"))
    engine.set(registry=[NAME])
    assert run(recorded=True)["how"] == "pulled"


def test_what_can_t_be_pulled_is_made_from_packages(run, engine, mmdebstrap):
    log = mmdebstrap()
    result = run()
    assert (result["changed"], result["how"], result["image"]) == (True, "bootstrapped", MADE)
    assert result["id"] == engine.ids[MADE]
    assert "manifest unknown" in result["reason"]
    assert '"bookworm"' in log.read_text()
    again = run()
    assert (again["changed"], again["how"], again["id"]) == (False, "host", result["id"])


def test_a_bootstrap_pulls_nothing_and_uses_suite_and_mirror(run, engine, mmdebstrap):
    engine.set(registry=[NAME])
    log = mmdebstrap()
    result = run(source="bootstrap", suite="trixie", mirror="http://mirror.example.com/debian")
    assert (result["image"], result["reason"]) == ("iopaint-base:trixie", "")
    called = json.loads(log.read_text())
    assert called["source"] == "deb http://mirror.example.com/debian trixie main\n"
    assert {"trixie", "--dpkgopt=force-unsafe-io"} <= set(called["argv"])
    assert not engine.calls("pull")


@pytest.mark.parametrize("source", ["auto", "pull"])
def test_a_refresh_pulls_a_tag_again(run, engine, source):
    engine.set(registry=[NAME])
    first = run(source=source)
    again = run(source=source, refresh=True)
    assert (again["changed"], again["how"], again["id"]) == (False, "host", first["id"])
    engine.set(edition="-2")
    assert run(source=source)["id"] == first["id"]
    newer = run(source=source, refresh=True)
    assert (newer["changed"], newer["how"], newer["image"]) == (True, "pulled", NAME)
    assert newer["id"] == engine.ids[NAME] != first["id"]


def test_a_refresh_makes_an_image_of_packages_again_and_keeps_it_if_they_are_the_same(run, engine, mmdebstrap):
    mmdebstrap()
    engine.set(registry=[NAME])
    first = run(source="bootstrap")
    again = run(refresh=True)
    assert (again["changed"], again["how"], again["image"], again["id"]) == (False, "host", MADE, first["id"])
    mmdebstrap(status="libc6 2")
    newer = run(refresh=True)
    assert (newer["changed"], newer["how"]) == (True, "bootstrapped")
    assert newer["id"] == engine.ids[MADE] != first["id"]
    assert not engine.calls("pull")


def test_a_refresh_asks_for_the_tool_that_makes_an_image(run, engine):
    engine.have(MADE)
    assert run(refresh=True)["how"] == "missing"


def test_a_refresh_leaves_an_image_that_is_named_by_its_digest(run_module, engine):
    name = f"{NAME}@sha256:{'0' * 64}"
    engine.have(name)
    result = run_module(image_base, name=name, refresh=True)
    assert (result["changed"], result["how"], result["image"]) == (False, "host", name)
    assert not engine.calls("pull")


def test_a_refresh_without_a_registry_keeps_the_image_and_says_why(run, engine):
    engine.have(NAME)
    result = run(refresh=True)
    assert (result["changed"], result["how"], result["image"], result["id"]) == (False, "host", NAME, f"sha256:{NAME}")
    assert "manifest unknown" in result["reason"]
    assert "could not be pulled: " in run(refresh=True, source="pull", failed=True)["msg"]


def test_a_refresh_takes_no_recorded_base(run, engine):
    built_from(engine, new=(f"{NAME}@sha256:2", "2026-02-01T00:00:00Z"))
    engine.set(registry=[NAME])
    assert run(recorded=True, refresh=True)["how"] == "pulled"


def test_check_mode_refreshes_nothing(run, engine):
    engine.have(NAME)
    engine.set(registry=[NAME])
    assert run(refresh=True, check=True)["how"] == "host"
    assert not engine.calls("pull")


@pytest.mark.parametrize("source", ["auto", "bootstrap"])
def test_without_the_tool_the_role_is_asked_to_install_it(run, engine, source):
    result = run(source=source)
    assert (result["changed"], result["how"], result["image"]) == (False, "missing", MADE)
    assert "id" not in result
    assert not engine.ids


@pytest.mark.parametrize(
    ("source", "image", "how"),
    [("auto", NAME, "pulled"), ("pull", NAME, "pulled"), ("bootstrap", MADE, "bootstrapped")],
)
def test_check_mode_says_what_would_come(run, engine, mmdebstrap, source, image, how):
    mmdebstrap()
    engine.set(registry=[NAME])
    result = run(source=source, check=True)
    assert (result["changed"], result["image"], result["how"]) == (True, image, how)
    assert not engine.ids


def test_a_pull_that_fails_names_image_variable_and_reason(run, engine, mmdebstrap):
    mmdebstrap()
    message = run(source="pull", failed=True)["msg"]
    for words in (NAME, "(name)", "manifest unknown", "set source to auto or bootstrap"):
        assert words in message
    assert not engine.calls("import")


def test_a_bootstrap_that_fails_names_suite_mirror_and_reason(run, engine, mmdebstrap):
    mmdebstrap(fails="yes")
    message = run(source="bootstrap", suite="nosuch", mirror="http://mirror.example.com", failed=True)["msg"]
    for words in ("(suite=nosuch", "mirror=http://mirror.example.com"):
        assert words in message
    assert "cannot reach the mirror Name a mirror that the host reaches" in message
    assert len(message) < 1300
    assert not engine.ids
    assert "mirror=default" in run(source="bootstrap", failed=True)["msg"]


def test_an_import_that_fails_says_why(run, engine, mmdebstrap):
    mmdebstrap()
    engine.set(import_error="no space left on device\n")
    message = run(source="bootstrap", failed=True)["msg"]
    assert "docker import of the bootstrapped base image failed: no space left on device" in message


def test_nothing_of_a_bootstrap_is_left_behind(run, engine, mmdebstrap, tmp_path):
    mmdebstrap()
    run(source="bootstrap")
    assert not list(tmp_path.rglob("rootfs.tar"))


def test_an_unknown_source_is_refused_with_the_known_ones(run, engine):
    message = run(source="registry", failed=True)["msg"]
    assert "value of source must be one of: auto, pull, bootstrap, got: registry" in message


SECRET_MIRROR, SECRET_PROXY = "http://robot:hunter2@mirror.example.com/debian", "http://robot:hunter3@proxy.example.com:3128"


def test_passwords_of_mirror_and_proxy_are_in_no_argument(run, mmdebstrap):
    log = mmdebstrap()
    run(
        source="bootstrap",
        mirror=SECRET_MIRROR,
        proxies={"http_proxy": SECRET_PROXY, "https_proxy": "", "no_proxy": ".example.org"},
    )
    called = json.loads(log.read_text())
    assert called["source"] == f"deb {SECRET_MIRROR} bookworm main\n"
    assert called["proxies"] == {"http_proxy": SECRET_PROXY, "no_proxy": ".example.org"}
    assert not [word for word in called["argv"] if "hunter" in word]


def test_no_password_is_in_an_answer(run, mmdebstrap):
    mmdebstrap(fails="yes")
    for answer in (
        run(source="bootstrap", mirror=SECRET_MIRROR, proxies={"http_proxy": SECRET_PROXY}, failed=True),
        run(source="bootstrap", mirror=SECRET_MIRROR, proxies={"http_proxy": SECRET_PROXY}, check=True),
    ):
        assert "hunter" not in json.dumps(answer)
        assert "mirror.example.com" in json.dumps(answer)


def test_the_bootstrap_trusts_the_ca_bundle_and_forgets_it(run, mmdebstrap):
    log = mmdebstrap()
    run(source="bootstrap", ca_bundle="/opt/ca.pem")
    argv = json.loads(log.read_text())["argv"]
    assert '--aptopt=Acquire::https::CAInfo "/opt/ca.pem"' in argv
    assert [word for word in argv if word.startswith("--customize-hook=") and "/CAInfo|Proxy/d" in word]


def saved(path, names, compress=None, **lists):
    """Write an archive of one image with these names, as docker save does; lists: further ones, by name without .json."""
    lists = {"manifest.json": [{"Config": "c.json", "RepoTags": names, "Layers": []}], **lists}
    with tarfile.open(fileobj=(buffer := io.BytesIO()), mode="w:xz" if compress == "xz" else "w") as tar:
        for name, value in lists.items():
            data = value if isinstance(value, bytes) else json.dumps(value).encode()
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    data = buffer.getvalue()
    if compress == "zstd":
        data = subprocess.run(["/usr/bin/zstd", "-qc"], input=data, capture_output=True, check=True).stdout
    path.write_bytes(data)
    return str(path)


@pytest.fixture
def archive(tmp_path):
    return saved(tmp_path / "base.tar", [NAME])


def test_an_archive_is_loaded_once_and_nothing_pulled(run, engine, archive):
    engine.set(registry=[NAME])
    result = run(archive=archive)
    assert (result["changed"], result["how"], result["image"], result["id"]) == (True, "loaded", NAME, engine.ids[NAME])
    again = run(archive=archive)
    assert (again["changed"], again["how"]) == (False, "host")
    assert not engine.calls("pull")


def test_a_refresh_loads_an_archive_again(run, engine, archive):
    run(archive=archive)
    again = run(archive=archive, refresh=True)
    assert (again["changed"], again["how"]) == (False, "host")
    engine.have(NAME)
    newer = run(archive=archive, refresh=True)
    assert (newer["changed"], newer["how"], newer["id"]) == (True, "loaded", f"sha256:loaded-{NAME}")
    assert run(archive=archive + "-no", refresh=True)["how"] == "unloaded"


def test_the_digest_of_a_name_does_not_count_for_an_archive(run_module, engine, archive):
    result = run_module(image_base, name=f"{NAME}@sha256:{'0' * 64}", archive=archive)
    assert (result["how"], result["image"]) == ("loaded", NAME)
    assert list(engine.ids) == [NAME]


def test_an_archive_that_is_still_elsewhere_is_asked_for(run, engine, archive):
    assert run(archive=archive + "-no", check=True)["how"] == "loaded"
    result = run(archive=archive + "-no")
    assert (result["changed"], result["how"], result["image"]) == (False, "unloaded", NAME)
    assert not engine.ids


def test_an_archive_of_another_image_is_named(run, engine, tmp_path):
    message = run(archive=saved(tmp_path / "other.tar", ["alpine:3"]), failed=True)["msg"]
    assert f"The base image {NAME} (name) can't be loaded from the archive (archive)" in message
    assert "it holds alpine:3. Name the image that the archive holds" in message
    assert not engine.calls("load")


@pytest.mark.parametrize(
    ("names", "lists"),
    [
        ([NAME, "postgres:16"], {}),
        ([NAME, "docker.io/library/postgres:16"], {}),
        ([NAME], {"repositories": {"debian": {"bookworm-slim": "1"}, "postgres": {"16": "2"}}}),
        ([NAME], {"index.json": {"manifests": [{"annotations": {"io.containerd.image.name": "docker.io/library/postgres:16"}}]}}),
        ([NAME], {"./index.json": {"manifests": [{"annotations": {"io.containerd.image.name": "postgres:16"}}, {}]}}),
    ],
)
def test_an_archive_replaces_no_other_image_of_the_host(run, engine, tmp_path, names, lists):
    engine.have("postgres:16")
    message = run(archive=saved(tmp_path / "base.tar", names, **lists), failed=True)["msg"]
    assert f"Besides the base image {NAME} (name), the archive (archive) holds postgres:16" in message
    assert "Nothing was loaded." in message
    assert engine.ids == {"postgres:16": "sha256:postgres:16"}


@pytest.mark.parametrize("compress", ["xz", "zstd"])
def test_the_names_of_a_compressed_archive_are_read(run, engine, tmp_path, compress):
    path = saved(tmp_path / "base.tar", [NAME, "postgres:16"], compress)
    if compress == "zstd":
        assert "it is compressed with zstd, which is not on the host" in run(archive=path, failed=True)["msg"]
        (engine.bin / "zstd").symlink_to("/usr/bin/zstd")
    assert "holds postgres:16" in run(archive=path, failed=True)["msg"]


@pytest.mark.parametrize(
    "lists", [{"manifest.json": b"{"}, {"manifest.json": [1]}, {"index.json": [1]}, {"repositories": {"a": 1}}]
)
def test_an_archive_that_can_t_be_read_is_said(run, engine, tmp_path, lists):
    message = run(archive=saved(tmp_path / "base.tar", [NAME], **lists), failed=True)["msg"]
    assert "can't be loaded from the archive (archive): it can't be read" in message
    assert not engine.calls("load")


APT_CONFIG = r"""
print('Acquire::http::Proxy http://robot:hunter2@proxy.example.com:3128')
print('Acquire::https::Proxy::deb.example.com DIRECT')
print('Acquire::http::Timeout 30')
"""


def test_a_bootstrap_asks_as_the_host_s_apt_does_and_not_by_the_environment(run, engine, mmdebstrap, monkeypatch):
    log = mmdebstrap()
    engine.program("apt-config", APT_CONFIG)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    assert run(source="bootstrap")["how"] == "bootstrapped"
    seen = json.loads(log.read_text())
    assert seen["proxies"] == {}
    assert "hunter2" not in " ".join(seen["argv"])
    assert seen["settings"] == (
        'Acquire::http::Proxy "http://robot:hunter2@proxy.example.com:3128";\nAcquire::https::Proxy::deb.example.com "DIRECT";\n'
    )


def test_proxies_that_are_asked_for_take_the_place_of_the_host_s(run, engine, mmdebstrap):
    log = mmdebstrap()
    engine.program("apt-config", APT_CONFIG)
    run(source="bootstrap", proxies={"http_proxy": "http://asked:3128"})
    seen = json.loads(log.read_text())
    assert seen["proxies"] == {"http_proxy": "http://asked:3128"}
    assert seen["settings"] is None
