# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""daemon.json edited by key: text in, text out, and the module around it."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.iopaint.fleet.plugins.module_utils.daemon_json import (
    ConfigError,
    Flag,
    actions,
    check,
    command_line,
    document,
    find,
    merge,
    parse,
    parse_flags,
)
from ansible_collections.iopaint.fleet.plugins.modules import daemon_json
from hypothesis import given, reject
from hypothesis import strategies as st

# --- Properties --------------------------------------------------------------------------------------------------

# A few keys, so that documents and settings meet; dots and accents, as they are hard.
keys = st.sampled_from(["a", "b", "c", "a.b", "é", 'q"uote', ""]) | st.text(max_size=3)
space = st.sampled_from(["", "", " ", "\n", "\n  ", "\t", "\r\n"])
number_texts = st.from_regex(r"-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?", fullmatch=True)
string_texts = st.builds(json.dumps, st.text(max_size=8), ensure_ascii=st.booleans())
scalar_texts = st.sampled_from(["true", "false", "null"]) | number_texts | string_texts


@st.composite
def object_texts(draw, values):
    members = draw(st.dictionaries(keys, values, max_size=4))
    gap = draw(space)
    inner = ",".join(
        f"{draw(space)}{json.dumps(key, ensure_ascii=draw(st.booleans()))}{gap}:{gap}{value}{gap}"
        for key, value in members.items()
    )
    return f"{{{inner or gap}}}"


@st.composite
def array_texts(draw, values):
    gap = draw(space)
    return f"[{gap}{f',{gap}'.join(draw(st.lists(values, max_size=3)))}{gap}]"


value_texts = st.recursive(scalar_texts, lambda inner: object_texts(inner) | array_texts(inner), max_leaves=12)
file_texts = st.builds("{}{}{}".format, space, object_texts(value_texts), space)

plain_values = (
    st.booleans() | st.integers() | st.integers(10**30, 10**40) | st.floats(allow_nan=False, allow_infinity=False)
) | st.text(max_size=5)
setting_values = st.recursive(
    plain_values, lambda inner: st.lists(inner | st.none(), max_size=3) | st.dictionaries(keys, inner, max_size=3)
)
all_settings = st.dictionaries(keys, setting_values, max_size=4)
list_rules = st.sampled_from(["replace", "union"])


def unique(pairs):
    assert len(dict(pairs)) == len(pairs), "duplicate keys"
    return dict(pairs)


def spelt(text):
    """A second opinion on what a text means: the standard library's, with each number as it is spelt."""
    tagged = {"parse_int": lambda s: ("int", s), "parse_float": lambda s: ("float", s)}
    return json.loads(text, object_pairs_hook=unique, **tagged)


def merged(text, settings, **options):
    try:
        return merge(text, settings, **options)
    except ConfigError:
        return reject()  # a dictionary wanted where a scalar is, or the like


def assert_kept(before, after, wanted):
    """What is not asked for is in its place with its spelling."""
    assert [key for key in after if key in before] == list(before)
    for key, value in before.items():
        if key not in wanted:
            assert after[key] == value
        elif isinstance(value, dict):
            assert_kept(value, after[key], wanted[key])


def assert_contains(have, wanted, lists):
    if isinstance(wanted, dict):
        for key, value in wanted.items():
            assert_contains(have[key], value, lists)
    elif isinstance(wanted, list) and lists == "union":
        assert all(any(equal(item, other) for other in have) for item in wanted)
    else:
        assert equal(have, wanted)


def equal(have, wanted):
    if isinstance(wanted, bool) or isinstance(have, bool):
        return have is wanted
    if isinstance(wanted, dict):
        return isinstance(have, dict) and have.keys() == wanted.keys() and all(equal(have[k], wanted[k]) for k in have)
    if isinstance(wanted, list):
        return isinstance(have, list) and len(have) == len(wanted) and all(map(equal, have, wanted))
    return type(have) is type(wanted) and have == wanted


@given(file_texts)
def test_a_text_is_read_as_the_standard_library_reads_it(text):
    def tag(value):
        if isinstance(value, dict):
            return {key: tag(child) for key, child in value.items()}
        if isinstance(value, list):
            return [tag(child) for child in value]
        return ("int" if value.literal.lstrip("-").isdigit() else "float", value.literal) if number(value) else value

    def number(value):
        return isinstance(value, tuple)

    assert tag(document(text)) == spelt(text)


@given(file_texts, st.data())
def test_a_broken_text_is_refused_just_when_the_standard_library_refuses_it(text, data):
    at = data.draw(st.integers(0, len(text)))
    until = data.draw(st.integers(at, min(len(text), at + 2)))
    text = text[:at] + data.draw(st.sampled_from(["", *'{}[]",:/#-+01eE. \n\\\x01', "null", "NaN"])) + text[until:]
    try:
        sound = isinstance(json.loads(text, object_pairs_hook=unique, parse_constant=lambda name: 1 / 0), dict)
    except (ValueError, AssertionError, ZeroDivisionError):
        sound = False
    if sound:
        parse(text)
    else:
        with pytest.raises(ConfigError, match=r"(?s)^line \d+, column \d+: .*\.$"):
            parse(text)


@given(file_texts, all_settings, list_rules)
def test_settings_arrive_and_all_else_is_kept(text, settings, lists):
    after = merged(text, settings, lists=lists)
    assert_contains(json.loads(after), settings, lists)
    assert_kept(spelt(text), spelt(after), settings)


@given(file_texts | st.just(" \n"), all_settings, st.lists(keys, max_size=2), list_rules)
def test_a_second_run_changes_nothing(text, settings, absent, lists):
    once = merged(text, settings, absent=absent, lists=lists)
    assert merge(once, settings, absent, lists) == once
    assert not any(find(document(once), dotted) for dotted in absent)
    assert actions(document(once), document(once)) == {}


@given(file_texts, st.text(min_size=1).filter(lambda key: "." not in key), setting_values)
def test_taking_out_what_was_put_in_gives_the_same_text_back(text, key, value):
    if key in document(text) or not document(text):
        reject()
    assert merge(merge(text, {key: value}), {}, [key]) == text


@given(file_texts, all_settings)
def test_only_what_changed_asks_for_an_action(text, settings):
    before, after = document(text), document(merged(text, settings))
    changed = actions(before, after)
    assert changed.keys() == {key for key in after if key not in before or before[key] != after[key]}
    assert changed.keys() <= settings.keys()


# --- Editing -----------------------------------------------------------------------------------------------------


def test_only_the_lines_concerned_change():
    before = """{
    "log-opts": { "max-size": "10m" },
    "dns": ["10.0.0.1",   "10.0.0.2"],

    "default-ulimits": {
        "nofile": {"Name": "nofile", "Soft": 1024, "Hard": 9007199254740993, "x": 1.50}
    },
    "data-root": "/srv/d\\u00f6cker"
}"""
    settings = {"log-opts": {"max-file": "3"}, "dns": ["10.0.0.3"], "runtimes": {"crun": {"path": "/usr/bin/crun"}}}
    assert merge(before, settings) == (
        before.replace('"10m" }', '"10m", "max-file": "3" }')
        .replace('["10.0.0.1",   "10.0.0.2"]', '["10.0.0.3"]')
        .replace(
            'cker"\n}',
            'cker",\n    "runtimes": {\n        "crun": {\n            "path": "/usr/bin/crun"\n        }\n    }\n}',
        )
    )


@pytest.mark.parametrize("empty", ["", " \n\t\n", "{}\n"])
def test_an_empty_file_is_filled(empty):
    assert merge(empty, {"debug": True, "dns": []}) == '{\n  "debug": true,\n  "dns": []\n}\n'


@pytest.mark.parametrize("empty", ["", " \n"])
def test_an_empty_file_stays_so_when_nothing_is_wanted(empty):
    assert merge(empty, {}, ["debug"]) == empty


@pytest.mark.parametrize(
    ("before", "settings", "after"),
    [
        ('{"a":1}', {"b": {"c": [2]}}, '{"a":1, "b": {"c": [2]}}'),
        ('{\n\t"a": {}\n}', {"a": {"b": 1}}, '{\n\t"a": {\n\t\t"b": 1\n\t}\n}'),
        ('{"runtimes": null}', {"runtimes": {"x": {"path": "y"}}}, '{"runtimes": {"x": {"path": "y"}}}'),
        ('{"a": 1.0}', {"a": 1}, '{"a": 1}'),
        ('{"a": 1}', {"a": True}, '{"a": true}'),
        ('{"a": "1"}', {"a": 1}, '{"a": 1}'),
        ('{"a": 1.50}', {"a": 1.5}, '{"a": 1.50}'),
        ('{"a": 1E2}', {"a": 100.0}, '{"a": 1E2}'),
        ('{"a": "\\u00e9"}', {"a": "é"}, '{"a": "\\u00e9"}'),
        ('{"a": {"b": 1}}', {"a": {}}, '{"a": {"b": 1}}'),
    ],
)
def test_a_value_is_written_only_where_the_meaning_differs(before, settings, after):
    assert merge(before, settings) == after


def test_united_lists_keep_their_items_and_grow_in_their_layout():
    before = '{\n  "dns": [\n    "10.0.0.1",\n    "10.0.0.2"\n  ]\n}\n'
    after = merge(before, {"dns": ["10.0.0.2", "10.0.0.3", "10.0.0.3"]}, lists="union")
    assert after == before.replace('.2"', '.2",\n    "10.0.0.3"')


@pytest.mark.parametrize(
    ("absent", "after"),
    [
        (["a"], '{"b": {"c": 2, "d.e": 3}, "io.x": 4}'),
        (["b"], '{"a": 1, "io.x": 4}'),
        (["b.c"], '{"a": 1, "b": {"d.e": 3}, "io.x": 4}'),
        (["b.d.e", "io.x"], '{"a": 1, "b": {"c": 2}}'),
        (["b.c", "b.d.e"], '{"a": 1, "b": {}, "io.x": 4}'),
        (["a.b", "b.c.d", "nowhere"], '{"a": 1, "b": {"c": 2, "d.e": 3}, "io.x": 4}'),
    ],
)
def test_what_is_to_be_absent_is_taken_out(absent, after):
    assert merge('{"a": 1, "b": {"c": 2, "d.e": 3}, "io.x": 4}', {}, absent) == after


# --- Refusals ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line", "column", "problem"),
    [
        ('\ufeff{"debug": true}', 1, 1, "byte order mark"),
        ('{\n  "debug": true // on\n}', 2, 17, "a comment"),
        ('{\n  # on\n  "debug": true}', 2, 3, "a comment"),
        ('{"debug": /* on */ true}', 1, 11, "a comment"),
        ('{"debug": true}\n}', 2, 1, "the end of the file should be"),
        ('{"debug": true}\n{"debug": true}', 2, 1, "the end of the file should be"),
        ("null\n", 1, 1, "a plain value where the object"),
        ("\n [1]", 2, 2, "a list where the object"),
        ('"debug"', 1, 1, "a plain value where the object"),
        ("debug: true", 1, 1, "a value should be"),
        ('{\n  "debug": true,\n  "x": {"debug": 1,\n    "debug": 2}\n}', 4, 5, '"debug" is there twice'),
        ('{\n  "debug": true,\n}', 3, 1, "a comma too many"),
        ('{"dns": ["a",]}', 1, 14, "a comma too many"),
        ('{"debug": true "ipv6": true}', 1, 16, "a comma or }"),
        ("{'debug': true}", 1, 2, "a key in double quotes"),
        ('{"debug" true}', 1, 10, "a colon"),
        ('{"debug": True}', 1, 11, "a value should be"),
        ('{"mtu": NaN}', 1, 9, "a value should be"),
        ('{"mtu": 01}', 1, 10, "a comma or }"),
        ('{\n  "data-root": "/srv\n}', 2, 21, "Invalid control character"),
        ('{"data-root": "C:\\d"}', 1, 18, "Invalid \\escape"),
        ('{"debug": true', 1, 15, "the file ends"),
        ('{"a": ' + "[" * 200, 1, 106, "nested more than 100 deep"),
    ],
)
def test_a_file_that_is_not_sound_is_refused_with_its_place(text, line, column, problem):
    with pytest.raises(ConfigError) as error:
        merge(text, {"debug": True})
    assert str(error.value).startswith(f"line {line}, column {column}: ")
    assert problem in str(error.value)


@pytest.mark.parametrize(
    ("wanted", "problem"),
    [
        ({"debug": {"x": 1}}, 'line 2, column 12: "debug" is a plain value here and an object in settings'),
        ({"log-opts": "x"}, 'line 3, column 15: "log-opts" is an object here and a plain value in settings'),
        ({"log-opts": {"max-size": ["x"]}}, 'line 3, column 28: "max-size" is a plain value here and a list'),
        ({"dns": "10.0.0.1"}, 'line 4, column 10: "dns" is a list here and a plain value in settings'),
    ],
)
def test_a_value_of_another_kind_is_refused_with_its_place(wanted, problem):
    with pytest.raises(ConfigError, match=problem):
        merge('{\n  "debug": true,\n  "log-opts": {"max-size": "1m"},\n  "dns": []\n}', wanted)


@pytest.mark.parametrize(
    ("settings", "absent", "problem"),
    [
        ({"log-opts": {"max-size": None}}, [], r"settings\.log-opts\.max-size is null"),
        ({"dns": [float("nan")]}, [], r"settings\.dns\[0\] is nan"),
        ({"runtimes": {"x": {}}}, ["runtimes"], '"runtimes" is both in settings and in absent'),
        ({"runtimes": {"x": {}}}, ["runtimes.x"], '"runtimes.x" is both in settings and in absent'),
    ],
)
def test_a_request_that_cannot_be_met_is_refused(settings, absent, problem):
    with pytest.raises(ConfigError, match=problem):
        merge("", settings, absent)


# --- What the engine makes of it ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ({}, {"debug": True, "mtu": 1}, {"debug": "reload", "mtu": "restart"}),
        ({"runtimes": {"a": {}, "b": {}}}, {"runtimes": {"a": {}}}, {"runtimes": "reload"}),
        ({"features": {}}, {"features": {"cdi": True}}, {"features": "restart"}),
        ({"debug": True, "labels": []}, {"debug": True}, {"labels": "restart"}),
        ({"max-concurrent-downloads": 9}, {}, {"max-concurrent-downloads": "reload"}),
        ({"debug": True}, {"debug": True}, {}),
    ],
)
def test_each_key_asks_for_its_action(before, after, expected):
    assert actions(document(json.dumps(before)), document(json.dumps(after))) == expected


@pytest.mark.parametrize("runtime", ["runc", "io.containerd.runc.v2", "nvidia", "crun", ""])
def test_a_default_runtime_that_is_known_passes(runtime):
    check({"default-runtime": runtime, "runtimes": {"nvidia": {}}}, [Flag("add-runtime", "crun=/usr/bin/crun", "unit")])


@pytest.mark.parametrize("runtimes", [{}, {"runtimes": None}, {"runtimes": {"crun": {}}}, {"runtimes": []}])
def test_a_default_runtime_that_nobody_defines_is_refused(runtimes):
    with pytest.raises(ConfigError, match='"default-runtime" is "nvidia", which "runtimes" does not define'):
        check({"default-runtime": "nvidia", **runtimes})


def test_the_built_in_runtime_is_not_to_be_redefined():
    with pytest.raises(ConfigError, match='an entry "runc"'):
        check({"runtimes": {"runc": {"path": "/usr/bin/runc"}}})


UNIT = """\
# /lib/systemd/system/docker.service
[Service]
# ExecStart=/usr/bin/dockerd --icc=false
EnvironmentFile=-/etc/default/docker
ExecStart=/usr/bin/dockerd -H fd:// --containerd=/run/containerd/containerd.sock \\
# a note between the lines
    $DOCKER_OPTS
ExecReload=/bin/kill -s HUP $MAINPID

# /etc/systemd/system/docker.service.d/proxy.conf
[Service]
Environment="PROXY=http://proxy:3128" DOCKER_OPTS=--mtu=9000
"""
OVERRIDE = """
# /etc/systemd/system/docker.service.d/override.conf
[Service]
ExecStart=
ExecStart=-/usr/bin/env X=1 /usr/bin/dockerd --http-proxy "${PROXY}" -Dl warn --add-runtime crun=/usr/bin/crun
"""


def flags_of(listing, files=()):
    return parse_flags(command_line(listing, lambda path: dict(files).get(path, "")))


def test_flags_are_found_in_the_unit_and_its_environment():
    service = "/lib/systemd/system/docker.service"
    assert flags_of(UNIT) == [
        Flag("host", "fd://", service),
        Flag("containerd", "/run/containerd/containerd.sock", service),
        Flag("mtu", "9000", "/etc/systemd/system/docker.service.d/proxy.conf"),
    ]
    options = '# DOCKER_OPTS="--ipv6"\nDOCKER_OPTS="--dns 10.0.0.1 --log-driver=journald"\n'
    assert flags_of(UNIT, {"/etc/default/docker": options}.items())[2:] == [
        Flag("dns", "10.0.0.1", "/etc/default/docker"),
        Flag("log-driver", "journald", "/etc/default/docker"),
    ]


def test_a_drop_in_takes_the_place_of_the_unit():
    drop_in = "/etc/systemd/system/docker.service.d/override.conf"
    assert flags_of(UNIT + OVERRIDE) == [
        Flag("http-proxy", "http://proxy:3128", drop_in),
        Flag("debug", "", drop_in),
        Flag("log-level", "warn", drop_in),
        Flag("add-runtime", "crun=/usr/bin/crun", drop_in),
    ]


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ("-H fd://", {"hosts": []}),
        ("-Hfd://", {"hosts": []}),
        ("-DHfd://", {"hosts": []}),
        ("--host=fd://", {"hosts": None}),
        ("--data-root /srv", {"data-root": "/srv"}),
        ("-D", {"debug": False}),
        ("--label a=b", {"labels": []}),
        ("--insecure-registry r:5000", {"insecure-registries": []}),
        ("--default-address-pool x", {"default-address-pools": []}),
        ("--host-gateway-ip 10.0.0.1", {"host-gateway-ip": "10.0.0.2"}),
        ("--host-gateway-ip 10.0.0.1", {"host-gateway-ips": ["10.0.0.2"]}),
        ("--http-proxy http://p", {"proxies": {"http-proxy": "http://q"}}),
        ("--log-opt max-size=1m", {"log-opts": {}}),
    ],
)
def test_an_option_in_both_places_is_refused(arguments, options):
    flags = flags_of(f"# /etc/systemd/system/docker.service\nExecStart=/usr/bin/dockerd {arguments}\n")
    with pytest.raises(ConfigError, match=r'^"[a-z-]+" is also given as --[a-z-]+ in /etc/systemd/system/docker\.service'):
        check(options, flags)


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ("--add-runtime x=/x", {"runtimes": {"y": {}}}),
        ("--log-driver journald", {"log-opts": {"log-driver": "x"}}),
        ("", {"hosts": []}),
    ],
)
def test_an_option_in_one_place_passes(arguments, options):
    check(options, flags_of(f"# /etc/systemd/system/docker.service\nExecStart=/usr/bin/dockerd {arguments}\n"))


# --- The module --------------------------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path):
    return tmp_path / "etc" / "daemon.json"


@pytest.fixture
def tool(tmp_path, monkeypatch):
    """Put a shell script on the PATH under a tool's name."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    def make(name, script):
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)

    make("systemctl", "exit 1")  # no such unit
    make("dockerd", 'test -s "${2#--config-file=}"')
    return make


@pytest.fixture
def run(path, tool, capsys):
    def run_module(check_mode=False, diff=False, **args):
        args = {"path": str(path), "_ansible_check_mode": check_mode, "_ansible_diff": diff, **args}
        with patch_module_args(args), pytest.raises(SystemExit):
            daemon_json.main()
        return json.loads(capsys.readouterr().out)

    return run_module


def write(path, text, mode=0o644):
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path.stat()


def unchanged(path, before):
    """Nobody wrote the file, and nothing was left next to it."""
    now = path.stat()
    return (now.st_ino, now.st_mtime_ns) == (before.st_ino, before.st_mtime_ns) and os.listdir(path.parent) == [path.name]


def test_a_missing_file_is_made_and_found_as_wanted_afterwards(run, path):
    first = run(settings={"debug": True, "data-root": "/srv/docker"})
    assert first["changed"]
    assert (first["action"], first["changed_keys"]) == ("restart", {"debug": "reload", "data-root": "restart"})
    assert json.loads(path.read_text()) == {"debug": True, "data-root": "/srv/docker"}

    before = path.stat()
    second = run(settings={"debug": True, "data-root": "/srv/docker"}, backup=True)
    assert (second["changed"], second["action"], second["changed_keys"]) == (False, "none", {})
    assert "backup_file" not in second
    assert unchanged(path, before)


def test_a_missing_file_stays_missing_when_nothing_is_wanted(run, path):
    assert not run(absent=["debug"])["changed"]
    assert not path.parent.exists()


@pytest.mark.parametrize("text", ['{"debug": true} # on', "", "[]"])
def test_refusals_name_the_file_and_leave_it(run, path, text):
    before = write(path, text)
    failure = run(settings={"debug": False, "default-runtime": "nvidia"})
    assert failure["failed"]
    assert failure["msg"].startswith(f"{path}: ")
    assert failure["msg"].endswith(". The file is as it was.")
    assert unchanged(path, before)


def test_bytes_that_are_not_utf8_are_refused_with_their_place(run, path):
    write(path, "")
    path.write_bytes('{\n  "data-root": "/ö'.encode() + b"\xff")
    assert run(settings={"debug": True})["msg"].startswith(f"{path}: line 2, column 19: byte 0xff is not UTF-8.")


def test_a_file_that_cannot_be_read_is_told_plainly(run, path):
    path.mkdir(parents=True)
    assert f"{path}: it is not a regular file" in run(settings={"debug": True})["msg"]


def test_owner_group_and_mode_are_kept(run, path):
    write(path, "{}", mode=0o640)
    owner = (1234, 5678) if os.geteuid() == 0 else (os.geteuid(), os.getegid())
    os.chown(path, *owner)
    assert run(settings={"debug": True})["changed"]
    now = path.stat()
    assert (now.st_uid, now.st_gid, stat.S_IMODE(now.st_mode)) == (*owner, 0o640)


def test_a_link_is_kept_and_its_target_replaced(run, path, tmp_path):
    target = tmp_path / "real.json"
    write(target, '{"debug": false}')
    path.parent.mkdir()
    path.symlink_to("../real.json")
    assert run(settings={"debug": True})["changed"]
    assert os.readlink(path) == "../real.json"
    assert target.read_text() == '{"debug": true}'


def test_the_new_file_takes_the_place_at_once(run, path):
    before = write(path, '{"debug": false}')
    with path.open() as held:
        assert run(settings={"debug": True})["changed"]
        assert held.read() == '{"debug": false}'  # who reads the old file reads it to its end
    assert path.stat().st_ino != before.st_ino


PROXIES = {"proxies": {"http-proxy": "http://ann:s3cr3t@proxy:3128"}}
TOKEN = {"log-opts": {"splunk-token": "s3cr3t"}}


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("before", [None, "{}"])
def test_a_file_with_a_password_and_its_copy_are_root_s_alone(run, path, before):
    if before:
        write(path, before, mode=0o644)
    result = run(settings=PROXIES, backup=True)
    assert mode(path) == 0o600
    assert "backup_file" not in result or mode(Path(result["backup_file"])) == 0o600
    assert run(settings=PROXIES)["changed"] is False


@pytest.mark.parametrize("settings", [PROXIES, TOKEN])
def test_no_answer_shows_a_secret_and_the_file_is_root_s_alone(run, path, tool, settings):
    """Neither what was asked, nor the difference, nor what the engine says of it."""
    write(path, json.dumps({"debug": False}), mode=0o644)
    answers = [run(settings=settings, diff=True, backup=True), run(absent=[*settings], diff=True, check_mode=True)]
    assert json.loads(path.read_text())[next(iter(settings))] == next(iter(settings.values()))
    assert mode(path) == 0o600
    tool("dockerd", f"echo 'invalid: {json.dumps(settings)}' >&2; exit 1")
    answers.append(run(settings={**settings, "mtu": 1400}))
    assert "invalid" in answers[-1]["msg"]
    assert "s3cr3t" not in json.dumps(answers)


def test_a_password_that_others_could_read_is_hidden_and_that_is_a_change(run, path):
    write(path, json.dumps(PROXIES), mode=0o644)
    copy = path.with_name("daemon.json.1.2026-01-01@00:00:00~")
    write(copy, json.dumps(PROXIES), mode=0o644)
    assert run(settings=PROXIES, check_mode=True)["changed"] is True
    assert (mode(path), mode(copy)) == (0o644, 0o644)
    assert run(settings=PROXIES)["changed"] is True
    assert (mode(path), mode(copy)) == (0o600, 0o600)
    assert run(settings=PROXIES)["changed"] is False


def test_the_copy_of_a_file_that_had_a_password_is_root_s_alone(run, path):
    write(path, json.dumps(PROXIES), mode=0o644)
    assert mode(Path(run(absent=["proxies"], backup=True)["backup_file"])) == 0o600


def test_a_file_without_a_password_keeps_its_mode(run, path):
    write(path, '{"debug": false}', mode=0o644)
    run(settings={"debug": True, "proxies": {"http-proxy": "http://proxy:3128"}})
    assert mode(path) == 0o644


def test_a_backup_is_kept_when_something_changes(run, path):
    write(path, '{"debug": false}', mode=0o600)
    backup = Path(run(settings={"debug": True}, backup=True)["backup_file"])
    assert backup.parent == path.parent
    assert backup.read_text() == '{"debug": false}'
    assert stat.S_IMODE(backup.stat().st_mode) == 0o600


def test_check_mode_tells_and_leaves(run, path):
    before = write(path, '{"debug": false}')
    result = run(settings={"debug": True}, check_mode=True, backup=True)
    assert (result["changed"], result["action"]) == (True, "reload")
    assert unchanged(path, before)


def test_check_mode_needs_neither_the_folder_nor_the_engine(run, path, tool):
    (path.parent.parent / "bin" / "dockerd").unlink()
    result = run(settings={"debug": True}, check_mode=True, validate="no-such-engine %s")
    assert result["changed"]
    assert not path.parent.exists()


def test_check_mode_lets_the_engine_judge(run, path, tool):
    tool("dockerd", "echo no >&2; exit 1")
    assert "dockerd refuses the new content: no." in run(settings={"debug": True}, check_mode=True)["msg"]
    assert not path.parent.exists()


def test_the_difference_is_shown_whole(run, path):
    write(path, '{"debug": false}')
    assert run(settings={"debug": True}, diff=True)["diff"] == {
        "before_header": str(path),
        "after_header": str(path),
        "before": '{"debug": false}',
        "after": '{"debug": true}',
    }


def test_the_new_content_is_judged_beside_the_file_before_it_is_put_there(run, path, tool):
    write(path, "{}")
    tool("dockerd", 'ls -A "$(dirname "$0")/../etc" > "$0.saw"; cat "${2#--config-file=}" >> "$0.saw"')
    assert run(settings={"debug": True})["changed"]
    saw = (path.parent.parent / "bin" / "dockerd.saw").read_text()
    assert saw.startswith(".daemon.json.")
    assert saw.endswith('{\n  "debug": true\n}')


def test_the_engines_refusal_is_passed_on_and_the_file_left(run, path, tool):
    before = write(path, "{}")
    tool("dockerd", 'echo "unable to configure with ${2#--config-file=}: it is wrong" >&2; exit 1')
    message = run(settings={"debug": True}, backup=True)["msg"]
    assert f"{path}: dockerd refuses the new content: unable to configure with {path}: it is wrong." in message
    assert unchanged(path, before)


def test_the_engine_finds_its_helpers_in_the_system_folders(run, tool):
    tool("dockerd", 'case "$PATH" in */usr/sbin*) ;; *) exit 1 ;; esac')
    assert "/usr/sbin" not in os.environ["PATH"]
    assert run(settings={"debug": True})["changed"]


def test_an_engine_too_old_to_judge_is_named_as_such(run, tool):
    tool("dockerd", 'echo "Status: unknown flag: --validate" >&2; exit 125')
    assert "Engines before 23.0 cannot judge a file" in run(settings={"debug": True})["msg"]


def test_an_engine_that_is_not_there_is_an_error_unless_asked_to_do_without(run, path):
    assert "no-such-engine, which validate asks" in run(settings={"debug": True}, validate="no-such-engine %s")["msg"]
    assert not path.exists()
    assert run(settings={"debug": True}, validate="")["changed"]
    assert "validate has no %s" in run(settings={"debug": False}, validate="true")["msg"]


def test_a_flag_of_the_unit_is_found_before_it_keeps_the_engine_from_starting(run, path, tool):
    before = write(path, "{}")
    tool("systemctl", f"test \"$*\" = 'cat --no-pager -- docker.service' && cat <<'END'\n{UNIT}{OVERRIDE}END")
    message = run(settings={"log-level": "info"})["msg"]
    assert '"log-level" is also given as --log-level in /etc/systemd/system/docker.service.d/override.conf' in message
    assert unchanged(path, before)
    assert run(settings={"hosts": ["fd://"]})["changed"], "the drop-in took -H away"
    assert run(settings={"log-level": "info"}, unit="")["changed"]


def test_a_unit_that_reads_another_file_is_no_hindrance(run, tool):
    tool("systemctl", "echo 'ExecStart=/usr/bin/dockerd -H fd:// --config-file /etc/other.json'")
    result = run(settings={"hosts": ["fd://"]})
    assert result["changed"]
    assert "docker.service reads /etc/other.json" in str(result["warnings"])


def test_ansible_runs_it(path):
    pytest.importorskip("ansible")
    write(path, '{\n  "mtu": 1450,\n  "big": 123456789012345678901234567890\n}\n')
    arguments = {"path": str(path), "settings": {"debug": True, "mtu": 1500}, "validate": "", "unit": ""}
    environment = {
        **os.environ,
        "ANSIBLE_COLLECTIONS_PATH": str(Path(__file__).parents[2] / "build" / "collections"),
        "ANSIBLE_LOAD_CALLBACK_PLUGINS": "1",
        "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.minimal",
        "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
    }
    command = [Path(sys.executable).parent / "ansible", "localhost", "-m", "iopaint.fleet.daemon_json"]
    for outcome in ("CHANGED", "SUCCESS"):
        done = subprocess.run(
            [*command, "-a", json.dumps(arguments)], env=environment, capture_output=True, text=True, check=True
        )
        assert f"localhost | {outcome} =>" in done.stdout
    assert path.read_text() == '{\n  "mtu": 1500,\n  "big": 123456789012345678901234567890,\n  "debug": true\n}\n'


# --- With the real engine ----------------------------------------------------------------------------------------


@pytest.fixture
def dockerd(tmp_path):
    program = shutil.which("dockerd", path=f"{os.environ['PATH']}:/usr/local/sbin:/usr/sbin:/sbin")
    if not program:
        pytest.skip("dockerd is not installed")
    probe = tmp_path / "probe.json"
    probe.write_text("{}")
    done = subprocess.run([program, "--validate", f"--config-file={probe}"], capture_output=True, text=True, check=False)
    if "unknown flag: --validate" in done.stderr:
        pytest.skip("this dockerd is older than 23.0 and has no --validate")
    return program


def test_dockerd_accepts_what_is_sound_and_its_words_are_passed_on(dockerd, run, path):
    validate = f"{dockerd} --validate --config-file=%s"
    write(path, '{"runtimes": null}')
    settings = {"runtimes": {"crun": {"path": "/usr/bin/crun"}}, "features": {"cdi": True}, "mtu": 1500}
    assert run(settings=settings, validate=validate)["changed"]

    before = path.stat()
    message = run(settings={"log-opts": {"max-file": 3}}, validate=validate)["msg"]
    assert f"{path}: json: cannot unmarshal number" in message
    assert unchanged(path, before)


def test_dockerd_finds_the_conflicts_that_we_find(dockerd, tmp_path):
    options = {
        "hosts": ["unix:///x"],
        "debug": True,
        "dns": ["10.0.0.1"],
        "dns-opts": ["ndots:1"],
        "labels": ["a=b"],
        "log-opts": {"max-size": "1m"},
        "default-ulimits": {},
        "default-address-pools": [{"base": "10.10.0.0/16", "size": 24}],
        "insecure-registries": ["r:5000"],
        "registry-mirrors": ["https://r"],
        "storage-opts": ["a=b"],
        "exec-opts": ["native.cgroupdriver=cgroupfs"],
        "node-generic-resources": ["gpu=1"],
        "proxies": {"http-proxy": "http://p"},
        "cdi-spec-dirs": ["/etc/cdi"],
        "authorization-plugins": ["a"],
        "default-network-opts": {"bridge": {"a": "b"}},
        "runtimes": {"crun": {"path": "/usr/bin/crun"}},
        "mtu": 1500,
    }
    arguments = (
        "-DHunix:///y --dns=10.0.0.2 --dns-opt ndots:2 --label c=d --log-opt max-size=2m --default-ulimit nofile=1 "
        "--default-address-pool base=10.11.0.0/16,size=24 --insecure-registry s:5000 --registry-mirror=https://s "
        "--storage-opt c=d --exec-opt native.cgroupdriver=systemd --node-generic-resource gpu=2 --http-proxy http://q "
        "--cdi-spec-dir /run/cdi --authorization-plugin b --default-network-opt bridge=c=d --add-runtime x=/x --icc"
    )
    config = tmp_path / "daemon.json"
    config.write_text(json.dumps(options))
    command = [dockerd, "--validate", f"--config-file={config}", *arguments.split()]
    words = subprocess.run(command, capture_output=True, text=True, check=False).stderr
    with pytest.raises(ConfigError) as error:
        check(options, flags_of(f"# /lib/systemd/system/docker.service\nExecStart={dockerd} {arguments}\n"))
    ours = {part.split('"')[1] for part in str(error.value).split(";")}
    assert ours == options.keys() - {"proxies", "runtimes", "mtu"} | {"http-proxy"}
    assert "specified both as a flag and in the configuration file" in words
    assert all(f"{key}: (from flag" in words for key in ours)
    assert words.count("(from flag") == len(ours)
