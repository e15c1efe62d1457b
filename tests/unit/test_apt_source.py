# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Keys, source files, and the module that puts both in place."""

from __future__ import annotations

import base64
import json
import threading
from contextlib import suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.error import URLError

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.iopaint.fleet.plugins.module_utils import apt_sources, openpgp
from ansible_collections.iopaint.fleet.plugins.modules import apt_source
from hypothesis import given
from hypothesis import strategies as st

SAMPLES = Path(__file__).parent / "samples" / "openpgp"
ARMOURED = (SAMPLES / "packages.asc").read_bytes()
OTHER = (SAMPLES / "old.asc").read_bytes()
# as gpg tells them
FINGERPRINT = "459924BB2B9136B55A31C82E2187AAEC171DFB93"
OTHER_FINGERPRINT = "7AD474B7F30BD728F2273B1713200527776606AE"


def binary(armoured: bytes) -> bytes:
    lines = armoured.decode().split("\n\n", 1)[1].splitlines()
    return base64.b64decode("".join(line for line in lines if line[:1] not in "=-"))


# --- Keys --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [ARMOURED, binary(ARMOURED), ARMOURED.replace(b"\n", b"\r\n"), b"Key:\n" + ARMOURED])
def test_a_key_is_read_in_each_form(data):
    (key,) = openpgp.read_keys(data)
    assert key == (FINGERPRINT, binary(ARMOURED))


@pytest.mark.parametrize("data", [ARMOURED + OTHER, binary(ARMOURED) + binary(OTHER)])
def test_several_keys_are_told_apart(data):
    keys = openpgp.read_keys(data)
    assert [key.fingerprint for key in keys] == [FINGERPRINT, OTHER_FINGERPRINT]
    assert [key.data for key in keys] == [binary(ARMOURED), binary(OTHER)]


def test_long_packets_of_the_new_format_are_read():
    body = b"\x04" + b"k" * 300
    two = bytes([0xC6, 192 + ((len(body) - 192) >> 8), (len(body) - 192) & 0xFF]) + body
    five = b"\xc6\xff" + len(body).to_bytes(4, "big") + body
    old = b"\x99" + len(body).to_bytes(2, "big") + body
    assert len({openpgp.read_keys(form)[0].fingerprint for form in (two, five, old)}) == 1


def test_a_version_6_key_has_a_longer_fingerprint():
    # the sample key of RFC 9580, appendix A.3
    body = bytes.fromhex("0663877fe31b00000020f94da7bb48d60a61e567706a6587d0331999bb9d891a08242ead84543df895a3")
    fingerprint = "CB186C4F0609A697E4D52DFA6C722B0C1F1E27C18A56708F6525EC27BAD9ACC9"
    assert openpgp.read_keys(bytes([0xC6, len(body)]) + body)[0].fingerprint == fingerprint


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is empty"),
        (b"<!doctype html><title>Not found</title>", "begins with '<!doctype html>"),
        (ARMOURED.replace(b"mDME", b"mD!E"), "base64 is broken"),
        (binary(ARMOURED)[:-1], "is cut off"),
        (binary(ARMOURED)[:1], "is cut off"),
        (b"\xc6\xe1x", "packet in parts"),
        (b"\x9bx", "without a length"),
        (b"\xb4\x01x", "begins with a packet of kind 13"),
        (b"\xc6\x01\x03", "version 3 key"),
        (b"\xc6\x00", "version 0 key"),
        (binary(ARMOURED) + b"x", "no OpenPGP data at byte"),
    ],
)
def test_what_is_no_key_is_refused(data, words):
    with pytest.raises(openpgp.KeyFormatError, match=words):
        openpgp.read_keys(data)


@given(st.binary(max_size=40) | st.binary(max_size=20).map(lambda tail: binary(ARMOURED)[:60] + tail))
def test_any_bytes_are_a_key_or_refused(data):
    with suppress(openpgp.KeyFormatError):
        assert openpgp.read_keys(data)


def test_fingerprints_are_taken_as_people_write_them():
    written = ["4599 24BB 2B91 36B5 5A31  C82E 2187 AAEC 171D FB93", FINGERPRINT.lower(), f"0x{FINGERPRINT}"]
    assert {openpgp.plain_fingerprint(text) for text in written} == {FINGERPRINT}
    for short in ("171DFB93", "", "4599 24BB"):
        with pytest.raises(openpgp.KeyFormatError, match="40 hexadecimal digits"):
            openpgp.plain_fingerprint(short)


# --- Source files ------------------------------------------------------------------------------------------------

DOCKER = "https://download.docker.com/linux/debian"
WANTED = apt_sources.unwanted(
    [DOCKER], ["trixie"], ["https://download.docker.com/linux", "https://nvidia.test/deb/$(ARCH)"], "amd64"
)
SAME_ONLY = apt_sources.unwanted([DOCKER], ["trixie"], [], "amd64")


@pytest.mark.parametrize(
    "line",
    [
        f"deb {DOCKER} trixie stable",
        f"  deb [arch=amd64 signed-by=/etc/apt/keyrings/docker.gpg] {DOCKER}/ trixie stable # by hand",
        f"deb-src [ arch=$(ARCH) ] {DOCKER} trixie stable",
        "deb http://download.docker.com/linux/ubuntu noble stable",
        "deb [signed-by=/x] https://nvidia.test/deb/amd64 /",
        "deb https://nvidia.test/deb/$(ARCH)/ /",
    ],
)
def test_an_unwanted_line_goes(line):
    text = f"# mine\ndeb http://archive.example.org/debian trixie main\n{line}\n"
    cleaned = apt_sources.clean("x.list", text, WANTED, "amd64")
    assert cleaned == ("# mine\ndeb http://archive.example.org/debian trixie main\n", [line.strip()], False)
    assert apt_sources.clean("x.list", f"# note\n\n{line}", WANTED, "amd64").empty


@pytest.mark.parametrize(
    "line",
    [
        f"# deb {DOCKER} trixie stable",
        "deb https://download.docker.com.example.org/linux/debian trixie stable",
        "deb https://download.docker.com/linux-mirror trixie main",
        "deb https://nvidia.test/deb/arm64 /",
        "deb cdrom:[Debian GNU/Linux 13]/ trixie main",
        "nonsense",
    ],
)
def test_another_line_stays(line):
    assert apt_sources.clean("x.list", line, WANTED, "amd64") == (line, [], line.startswith("#"))


def test_without_replaces_only_the_very_source_goes():
    text = f"deb {DOCKER} bookworm stable\ndeb {DOCKER} trixie stable\n"
    assert apt_sources.clean("x.list", text, SAME_ONLY, "amd64").text == f"deb {DOCKER} bookworm stable\n"


BASE = "Types: deb\nURIs: http://archive.example.org/debian\nSuites: trixie\nComponents: main\nSigned-By:\n -----BEGIN\n .\n x\n"


@pytest.mark.parametrize(
    ("stanza", "left"),
    [
        (f"Types: deb\nURIs: {DOCKER}\nSuites: trixie\nComponents: stable\n", ""),
        (f"types: deb\nuris:\n {DOCKER}/\nSUITES: trixie\n# note\n", ""),
        (f"URIs: {DOCKER} http://a.test\nSuites: trixie\n", "URIs: http://a.test\nSuites: trixie\n"),
        (f"URIs: {DOCKER}\n http://a.test\nSuites: x trixie\n", None),
        (f"URIs: {DOCKER}\nSuites: x trixie\nComponents: y\n", "URIs: http://download.test\nSuites: x\nComponents: y\n"),
        (f"Enabled: no\nURIs: {DOCKER}\nSuites: trixie\n", f"Enabled: no\nURIs: {DOCKER}\nSuites: trixie\n"),
    ],
)
def test_a_stanza_loses_what_is_unwanted(stanza, left):
    text = f"{BASE}\n\n{stanza}\n{BASE}"
    if left is None:
        with pytest.raises(apt_sources.SourceError, match=r"x\.sources names .* Split the stanza"):
            apt_sources.clean("x.sources", text, SAME_ONLY, "amd64")
        return
    expected = left.replace("http://download.test", DOCKER)
    cleaned = apt_sources.clean("x.sources", text, SAME_ONLY, "amd64")
    assert cleaned.text == (f"{BASE}\n\n{expected}\n{BASE}" if left else f"{BASE}\n\n{BASE}")
    assert bool(cleaned.removed) is (expected != stanza)


@given(st.text(alphabet="ab:# \n\tURIs", max_size=60))
def test_what_is_not_unwanted_stays_letter_by_letter(text):
    for name in ("x.list", "x.sources"):
        assert apt_sources.clean(name, text, WANTED, "amd64")[:2] == (text, [])


def test_addresses_of_a_file_are_read():
    text = f"URIs: {DOCKER} https://nvidia.test/$(ARCH)\n\nTypes: deb\n"
    assert apt_sources.addresses(text, "amd64") == [f"{DOCKER}/", "https://nvidia.test/amd64/"]


# --- The module --------------------------------------------------------------------------------------------------


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "apt"
    (folder / "sources.list.d").mkdir(parents=True)
    return folder


@pytest.fixture
def site(tmp_path):
    """A web site with the key, and what it was asked for."""
    folder, requests = tmp_path / "site", []
    folder.mkdir()
    (folder / "gpg").write_bytes(ARMOURED)

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            requests.append(self.path)

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=folder)) as server:
        server.requests, server.folder, server.url = requests, folder, f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def run(root, site, capsys, monkeypatch):
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)

    def run_module(failed=False, check_mode=False, **options):
        arguments = {
            "name": "docker",
            "uris": [DOCKER],
            "suites": ["trixie"],
            "components": ["stable"],
            "key_url": f"{site.url}/gpg",
            "fingerprints": [FINGERPRINT],
            "root": str(root),
            "_ansible_check_mode": check_mode,
            "_ansible_diff": True,
            **options,
        }
        with patch_module_args(arguments), pytest.raises(SystemExit):
            apt_source.main()
        result = json.loads(capsys.readouterr().out)
        assert result.get("failed", False) is failed, result
        return result

    return run_module


def files(root):
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def test_source_and_keyring_are_there_and_the_key_is_fetched_once(run, root, site):
    first = run()
    assert (first["changed"], first["fetched"], first["keyring"]) == (True, True, f"{root}/keyrings/docker.gpg")
    assert (root / "keyrings/docker.gpg").read_bytes() == binary(ARMOURED)
    source = root / "sources.list.d/docker.sources"
    assert source.read_text().splitlines()[1:] == [
        "Types: deb",
        f"URIs: {DOCKER}",
        "Suites: trixie",
        "Components: stable",
        f"Signed-By: {root}/keyrings/docker.gpg",
    ]
    assert (source.stat().st_mode & 0o777, (root / "keyrings/docker.gpg").stat().st_mode & 0o777) == (0o644, 0o644)
    second = run()
    assert (second["changed"], second["fetched"], second["diff"]) == (False, False, [])
    assert site.requests == ["/gpg"]


def test_of_several_keys_only_the_wanted_one_is_trusted(run, root, site):
    (site.folder / "gpg").write_bytes(OTHER + ARMOURED)
    run()
    assert (root / "keyrings/docker.gpg").read_bytes() == binary(ARMOURED)


def test_a_keyring_with_another_key_is_replaced(run, root):
    (root / "keyrings").mkdir()
    (root / "keyrings/docker.gpg").write_bytes(binary(ARMOURED) + binary(OTHER))
    assert run()["diff"][0]["before"] == f"{FINGERPRINT}\n{OTHER_FINGERPRINT}\n"
    assert (root / "keyrings/docker.gpg").read_bytes() == binary(ARMOURED)


def test_a_given_key_needs_no_site(run, site):
    key = {"key": ARMOURED.decode(), "key_url": ""}
    assert run(**key)["changed"]
    assert not run(**key)["changed"]
    assert site.requests == []


def test_check_mode_tells_and_leaves(run, root):
    (root / "sources.list.d/old.list").write_text(f"deb {DOCKER} trixie stable\n")
    result = run(check_mode=True)
    assert (result["changed"], len(result["diff"]), len(result["removed"])) == (True, 3, 1)
    assert files(root) == ["sources.list.d/old.list"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"fingerprints": [OTHER_FINGERPRINT]}, f"has the fingerprint {FINGERPRINT}, and role_print wants {OTHER_FINGERPRINT}"),
        ({"fingerprints": ["171DFB93"]}, "role_print is '171DFB93', and a fingerprint has 40"),
        ({"fingerprints": []}, "role_print is empty"),
        ({"uris": []}, "uris is empty"),
        ({"key": "nonsense"}, "from key, is no OpenPGP public key: it begins with 'nonsense'"),
        ({"key_url": ""}, "Neither key nor key_url is given"),
        ({"key_url": "http://127.0.0.1:9/gpg"}, "127.0.0.1:9/gpg: [Errno 111] Connection refused. Name a mirror"),
        ({"key_url": "file:///nonexistent"}, "No such file or directory"),
        ({"key_url": "nonsense"}, "unknown url type"),
        ({"name": "../x"}, "name is '../x'"),
    ],
)
def test_what_is_wrong_is_told_before_anything_is_written(run, root, options, words):
    result = run(failed=True, variables={"fingerprints": "role_print"}, **options)
    assert words in result["msg"]
    assert result["msg"].endswith("Nothing was changed.")
    assert files(root) == []


def test_a_site_without_the_key_is_told(run, site):
    (site.folder / "gpg").unlink()
    assert f"can't be had from {site.url}/gpg: HTTP 404" in run(failed=True)["msg"]


def test_a_host_without_certificates_is_told_what_to_install(run, root, monkeypatch):
    def fetch(*_, **__):
        raise URLError("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed")

    monkeypatch.setattr(apt_source, "open_url", fetch)
    monkeypatch.setattr(apt_source, "CERTIFICATES", f"{root}/none")
    assert "Install ca-certificates" in run(failed=True)["msg"]
    result = run(check_mode=True)  # in which the task before this one has not installed them
    assert result["changed"]
    assert "not fetched, as ca-certificates is not installed yet" in str(result["warnings"])


def test_leftovers_go_and_a_copy_stays(run, root):
    folder = root / "sources.list.d"
    (root / "sources.list").write_text(f"deb {DOCKER} trixie stable\n")
    (folder / "docker.list").write_text(f"# by hand\ndeb [signed-by=/x] {DOCKER} trixie stable\n")
    (folder / "archive.sources").write_text(f"Types: deb\nURIs: {DOCKER}/\nSuites: bookworm\n\n{BASE}")
    (folder / "broken.list.save").write_text(f"deb {DOCKER} trixie stable\n")
    result = run(replaces=["https://download.docker.com/linux"])
    assert len(result["removed"]) == len(result["backup_files"]) == 3
    assert result["removed"][1] == f"{folder}/archive.sources: {DOCKER}/ bookworm"
    assert not (root / "sources.list").exists()
    assert (folder / "archive.sources").read_text() == BASE
    assert not (folder / "docker.list").exists()
    assert all(path.endswith("~") and Path(path).exists() for path in result["backup_files"])
    assert not run(replaces=["https://download.docker.com/linux"])["changed"]


def test_a_stanza_that_conflicts_in_part_is_left_to_its_owner(run, root):
    mixed = root / "sources.list.d/mixed.sources"
    mixed.write_text(f"Types: deb\nURIs: {DOCKER} http://a.test\nSuites: trixie x\n")
    assert "Split the stanza" in run(failed=True)["msg"]
    assert files(root) == ["sources.list.d/mixed.sources"]


def test_a_file_of_this_name_by_someone_else_is_kept_as_a_copy(run, root):
    (root / "sources.list.d/docker.sources").write_text("Types: deb\n")
    (backup,) = run()["backup_files"]
    assert Path(backup).read_text() == "Types: deb\n"
    assert run(components=["test"])["backup_files"] == []


def test_the_proxy_is_for_key_and_apt(run, root, site):
    options = {"proxy": site.url, "key_url": "http://keys.invalid/gpg", "uris": ["https://a.test/x", "http://a.test/y"]}
    assert "keys.invalid" in run(failed=True, **options)["msg"]  # this stand-in knows no such path
    assert set(site.requests) == {"http://keys.invalid/gpg"}
    run(key=ARMOURED.decode(), **options)
    assert (root / "apt.conf.d/90docker-proxy").read_text().splitlines() == [
        f'Acquire::http::Proxy::a.test "{site.url}";',
        f'Acquire::https::Proxy::a.test "{site.url}";',
    ]
    run()
    assert not (root / "apt.conf.d/90docker-proxy").exists()


def test_the_password_of_a_proxy_is_not_shown(run):
    result = run(key=ARMOURED.decode(), proxy="http://me:s3cr3t@proxy.test:3128")
    assert "s3cr3t" not in json.dumps(result)


def test_absent_takes_its_own_files_and_no_others(run, root):
    run(proxy="http://proxy.test", key=ARMOURED.decode())
    (root / "sources.list.d/other.list").write_text(f"deb {DOCKER} trixie stable\n")
    assert run(state="absent")["changed"]
    assert files(root) == ["sources.list.d/other.list"]
    assert not run(state="absent")["changed"]
