"""The role docker on a fresh host and on one with an older set-up, and every way in which its sources fail."""

from __future__ import annotations

import json
import re
from contextlib import contextmanager

import pytest
from conftest import FRESH, GROUPS, HOSTS, SITE_HOST

SITE = f"http://{SITE_HOST}:8000"
SUFFIXES = {
    "trixie": "debian.13~trixie",
    "bookworm": "debian.12~bookworm",
    "jammy": "ubuntu.22.04~jammy",
    "noble": "ubuntu.24.04~noble",
    "resolute": "ubuntu.26.04~resolute",
}
SUITES = {name: suffix for suite, suffix in SUFFIXES.items() for name in GROUPS.get(suite, [])}


def packages(host):
    """The names, versions and holds of Docker's packages."""
    rows = host.check_output(
        "dpkg-query -W -f '${db:Status-Abbrev} ${Package} ${Version}\\n' | grep -E 'docker|containerd|runc' || true"
    )
    return {name: (version, state[0] == "h") for state, name, version in map(str.split, rows.splitlines()) if state[1] == "i"}


def info(host):
    return json.loads(host.check_output("docker info --format '{{json .}}'"))


def started(host):
    """When the container that was there before every change was started."""
    return host.check_output("docker inspect -f '{{.State.StartedAt}} {{.State.Running}}' survivor")


@pytest.fixture(scope="module", autouse=True)
def survivor(on):
    """A container on each host, that nothing here should stop."""
    for name in HOSTS:
        host = on(name)
        files = "/usr/bin/sleep /lib64/ld-linux-x86-64.so.2 /lib/x86_64-linux-gnu/libc.so.6"
        host.run_expect([0], f"docker image inspect kept || tar --dereference -c {files} | docker import - kept")
        host.run_expect([0], "docker inspect survivor || docker run -d --name survivor kept sleep infinity")


# --- What the scenario's converge has done -----------------------------------------------------------------------


@pytest.mark.parametrize("name", HOSTS)
def test_packages_have_the_wanted_versions_and_are_held(on, name):
    found = packages(on(name))
    suffix = f"1~{SUITES[name]}"
    assert found == {
        "docker-ce": (f"5:26.1.5-{suffix}", True),
        "docker-ce-cli": (f"5:26.1.5-{suffix}", True),
        "containerd.io": (f"1.7.24-{suffix}", True),
        "docker-buildx-plugin": (f"0.13.1-{suffix}", True),
        "docker-compose-plugin": (f"2.26.1-{suffix}", True),
    }
    assert "docker" not in on(name).check_output("apt-get --simulate upgrade | grep Inst || true")


@pytest.mark.parametrize("name", HOSTS)
def test_the_engine_has_its_settings(on, name):
    host = on(name)
    settings = json.loads(host.file("/etc/docker/daemon.json").content_string)
    assert settings["log-opts"] == {"max-size": "10m", "max-file": "5"}
    found = info(host)
    assert found["LiveRestoreEnabled"]
    assert found["DefaultAddressPools"] == [{"Base": "10.213.0.0/16", "Size": 24}]
    assert found["HttpsProxy"] == f"http://{SITE_HOST}:3128"
    assert found["RegistryConfig"]["Mirrors"] == [f"https://{SITE_HOST}:5000/"]
    if name == FRESH:  # another one may have its bridge from before
        assert host.check_output("docker network inspect bridge -f '{{(index .IPAM.Config 0).Subnet}}'").startswith("10.213.")
    assert host.service("docker").is_enabled
    assert "docker" in host.user("backup").groups


@pytest.mark.parametrize("name", HOSTS)
def test_a_registry_of_ones_own_is_trusted(on, name):
    host, image = on(name), f"{SITE_HOST}:5000/{name}:1"
    host.run_expect([0], f"docker tag kept {image} && docker push {image} && docker image rm {image} && docker pull {image}")


def test_the_engine_pulls_through_its_proxy(on):
    host, proxy = on(FRESH), on(SITE_HOST)
    assert "no tunnels here" in host.run("docker pull elsewhere.test/image:1").stderr
    assert '"CONNECT elsewhere.test:443 HTTP/1.1" 403' in proxy.check_output("journalctl --unit proxy --output cat")


def test_an_idle_run_needs_few_round_trips(round_trips):
    # Each user costs one module execution more, a registry's certificate three, a data root one. A shipped key saves three.
    found = round_trips(docker_users=[], docker_registry_cas={}, docker_data_root="")
    assert set(found) == set(HOSTS)
    for host, (modules, trips) in found.items():
        assert modules <= 16, host
        assert trips <= 17, host


def test_check_mode_finds_nothing_to_do(play):
    outcome = play("--check", "--diff").good()
    assert {name: outcome.changed(name) for name in HOSTS} == {name: [] for name in HOSTS}


# --- Sources that fail: each with its own sentence, and packages as they were --------------------------------------

DOCKERS_OWN = "9DC858229FC7DD38854AE2D88D81803C0EBFCD88"
NOBODYS = "0" * 40
KEYS = "/var/cache/iopaint-fleet/apt-keys"
SOURCE = "/etc/apt/sources.list.d/docker.sources"
DISTRIBUTION = {"docker_package_source": "distribution", "docker_version": "", "docker_package_versions": {}}


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"docker_upstream_url": f"{SITE}/stranger"}, ["is signed by the key", "docker_upstream_fingerprints names"]),
        ({"docker_upstream_url": f"{SITE}/tampered"}, ["index that was changed after it was signed"]),
        ({"docker_upstream_url": f"{SITE}/swapped"}, ["list of packages that is not the one"]),
        ({"docker_upstream_url": f"{SITE}/expired"}, ["out of date", "docker_upstream_url"]),
        ({"docker_upstream_url": f"{SITE}/nowhere"}, ["nothing for this suite (404", "docker_upstream_url"]),
        ({"docker_upstream_url": f"http://{SITE_HOST}:8001/linux"}, ["can't be reached", "docker_apt_proxy"]),
        ({"docker_upstream_channel": "nightly"}, ["has no component nightly", "docker_upstream_channel"]),
        # Docker's own key comes with the role
        ({"docker_upstream_fingerprints": [DOCKERS_OWN]}, ["is signed by the key", "docker_upstream_fingerprints names"]),
        ({"docker_upstream_fingerprints": [NOBODYS]}, ["has the fingerprint", f"docker_upstream_fingerprints wants {NOBODYS}"]),
        (
            {"docker_upstream_fingerprints": [NOBODYS], "docker_upstream_url": f"http://{SITE_HOST}:8001/linux"},
            [f"could not be downloaded from http://{SITE_HOST}:8001/linux/", "Connection refused", "docker_upstream_key"],
        ),
        ({"docker_upstream_fingerprints": ["0EBFCD88"]}, ['docker_upstream_fingerprints has "0EBFCD88"', "40 or 64"]),
        (
            {"docker_upstream_url": f"{SITE}/linux\nTrusted: yes\n#"},
            ["docker_upstream_url is", "Trusted: yes", "not a URL", "Nothing was changed"],
        ),
        ({"docker_version": "99.1"}, ["docker_version is '99.1'", "in 26.1.5, 26.1.4"]),
        (
            {"docker_package_versions": {"docker-scan": "1"}},
            ["docker_package_versions names docker-scan", "docker-compose-plugin"],
        ),
        (
            {"docker_data_root": "/srv/docker"},
            ["docker_data_root is /srv/docker", "images, containers in /var/lib/docker", "rsync"],
        ),
        (
            {"docker_daemon_settings": {"userns-remap": "default"}},
            ["userns-remap=default no longer sees its present images, containers in /var/lib/docker", "Nothing was changed"],
        ),
    ],
    ids=lambda value: None if isinstance(value, list) else "-".join(map(str, value.values())).replace(SITE, "")[:40],
)
def test_what_fails_is_told(play, on, variables, words):
    # what apt says differs between the releases, the rest does not
    names = HOSTS if "docker_upstream_url" in variables else [FRESH]
    before = {name: packages(on(name)) for name in names}
    outcome = play("--limit", ",".join(names), **variables)
    for name in names:
        message = outcome.message(name)
        assert [word for word in words if word not in message.replace("volumes, ", "")] == [], message
        assert packages(on(name)) == before[name]


@pytest.mark.parametrize(("site", "words"), [("smuggled", "holds a secret key"), ("pair", "holds the keys")])
def test_a_key_with_another_key_behind_it_is_refused(play, on, site, words):
    """apt would trust the other key too, a secret one included."""
    host = on(FRESH)
    before = host.file(SOURCE).content_string
    host.run_expect([0], f"rm -f {KEYS}/docker-*.key")
    message = play("--limit", FRESH, docker_upstream_url=f"{SITE}/{site}").message(FRESH)
    assert words in message
    assert "The repository was not added" in message
    assert host.file(SOURCE).content_string == before
    assert host.run(f"ls {KEYS}/docker-*.key").rc != 0


def test_a_given_key_needs_no_download(play, on):
    host = on(FRESH)
    key = on(SITE_HOST).check_output("cat /srv/apt/linux/*/gpg")
    host.run_expect([0], f"rm -f {KEYS}/docker-*.key")
    assert play("--limit", FRESH, docker_upstream_key=key).good().changed(FRESH) == ["Write the given key"]
    assert play("--limit", FRESH).good().changed(FRESH) == []


@pytest.mark.parametrize("name", HOSTS)
def test_the_key_is_part_of_the_source_and_readable(on, name):
    source = on(name).file(SOURCE)
    assert source.mode == 0o644
    assert "Signed-By:\n    -----BEGIN PGP PUBLIC KEY BLOCK-----\n" in source.content_string


def test_a_source_of_this_name_by_someone_else_is_kept_as_a_copy(play, on):
    host = on(FRESH)
    ours = host.file(SOURCE).content_string
    fields = {line.split(": ")[0]: line for line in ours.splitlines() if ": " in line}
    theirs = [fields[name] for name in ("Types", "URIs", "Suites", "Components")] + ["Signed-By: /other.gpg"]
    quoted = " ".join(f"'{line}'" for line in theirs)
    host.run_expect([0], f"printf '%s\\n' {quoted} >{SOURCE}")
    play("--limit", FRESH).good()
    assert host.file(SOURCE).content_string == ours
    assert "/other.gpg" in host.check_output(f"cat {SOURCE}.*~")


def test_a_failure_is_told_again_and_the_right_site_heals_it(play, on):
    before = on(FRESH).file(SOURCE).content_string
    for _ in range(2):
        message = play("--limit", FRESH, docker_upstream_url=f"{SITE}/tampered").message(FRESH)
        assert "changed after it was signed" in message
        assert "The previous source was restored." in message
        assert on(FRESH).file(SOURCE).content_string == before
    play().good()


def test_apt_goes_through_a_proxy(play, on):
    proxied = {"docker_upstream_url": "http://sealed.test/linux", "docker_apt_proxy": f"http://{SITE_HOST}:3128"}
    host = on(FRESH)
    host.run_expect([0], f"rm -f {KEYS}/docker-*.key")
    play("--limit", FRESH, **proxied).good()
    journal = on(SITE_HOST).check_output("journalctl --unit proxy --output cat")
    assert "/gpg HTTP" in journal
    assert re.search(r"GET http://sealed.test/linux/\w+/dists/\w+/InRelease", journal)
    assert host.file("/etc/apt/apt.conf.d/90docker-proxy").mode == 0o600
    play("--limit", FRESH).good()
    assert not host.file("/etc/apt/apt.conf.d/90docker-proxy").exists


# --- Changes of the engine ---------------------------------------------------------------------------------------


def test_versions_go_down_and_up_and_containers_keep_running(play, on):
    before = {name: started(on(name)) for name in HOSTS}
    for version in ("26.1.4", "26.1.5"):
        play(docker_version=version).good()
        for name in HOSTS:
            host = on(name)
            assert packages(host)["docker-ce"] == (f"5:{version}-1~{SUITES[name]}", True)
            assert info(host)["ServerVersion"].startswith(version)
            assert started(host) == before[name]


def test_latest_upgrades(play, on):
    host = on(FRESH)
    play("--limit", FRESH, docker_version="26.1.4").good()
    play("--limit", FRESH, docker_version="latest").good()
    assert packages(host)["docker-ce"] == (f"5:26.1.5-1~{SUITES[FRESH]}", True)
    assert play("--limit", FRESH, docker_version="latest").good().changed(FRESH) == []


def test_check_mode_shows_a_change_and_does_not_make_it(play, on):
    before = packages(on(FRESH))
    outcome = play("--limit", FRESH, "--check", docker_version="26.1.4").good()
    assert outcome.changed(FRESH) == ["Report the packages to the calling role"]
    shown = outcome.said(FRESH, "Show what would change")
    assert [line.split()[:2] for line in shown] == [["Inst", "docker-ce-cli"], ["Inst", "docker-ce"]]
    assert packages(on(FRESH)) == before


def test_settings_that_the_engine_cannot_start_with_are_reverted(play, on):
    host = on(FRESH)
    before, running = host.file("/etc/docker/daemon.json").content_string, started(host)
    message = play("--limit", FRESH, docker_daemon_settings={"features": {"cdi": True}, "storage-driver": "papyrus"}).message(
        FRESH
    )
    for words in (
        "(storage-driver)",
        "daemon.json is as it was before",
        "the engine runs again",
        "driver not supported: papyrus",
    ):
        assert words in message, message
    assert host.file("/etc/docker/daemon.json").content_string == before
    assert (info(host)["Driver"], started(host)) == ("overlay2", running)


def test_settings_that_the_engine_refuses_change_nothing(play, on):
    host = on(FRESH)
    before = host.file("/etc/docker/daemon.json").content_string
    message = play("--limit", FRESH, docker_daemon_settings={"mtu": "wide"}).message(FRESH)
    assert message.startswith("/etc/docker/daemon.json: ")
    assert message.endswith("The file is as it was.")
    assert host.file("/etc/docker/daemon.json").content_string == before


def test_a_hold_is_released_and_set_again(play, on):
    play("--limit", FRESH, docker_hold=False).good()
    assert not packages(on(FRESH))["docker-ce"][1]
    play("--limit", FRESH).good()
    assert packages(on(FRESH))["docker-ce"][1]


# --- Changes that are refused: packages as they were ---------------------------------------------------------------


@contextmanager
def files(host, **contents):
    """Files in sources.list.d, for a while."""
    paths = [f"/etc/apt/sources.list.d/{name}.list" for name in contents]
    for path, content in zip(paths, contents.values(), strict=True):
        host.run_expect([0], f"echo '{content}' >{path}")
    try:
        yield paths
    finally:
        host.run_expect([0], f"rm -f {' '.join(paths)}")


@contextmanager
def moved(host, path, put=None):
    """A file of the site, away or replaced by another one for a while."""
    host.run_expect([0], f"mv {path} /tmp/moved && {f'cp {put} {path}' if put else 'true'}")
    try:
        yield
    finally:
        host.run_expect([0], f"mv /tmp/moved {path}")


def refused(play, host, *words, **variables):
    before = packages(host)
    message = play("--limit", FRESH, **variables).message(FRESH)
    assert [word for word in (*words, "No package was changed.") if word not in message] == [], message
    assert packages(host) == before


def test_a_package_that_nobody_named_is_not_removed(play, on):
    host = on(FRESH)
    control = "Package: site-tool\\nVersion: 1\\nArchitecture: all\\nMaintainer: x\\nDepends: docker-ce\\nDescription: x\\n"
    host.run_expect([0], f"mkdir -p /tmp/tool/DEBIAN && printf '{control}' >/tmp/tool/DEBIAN/control")
    host.run_expect([0], "dpkg-deb --build /tmp/tool && dpkg --install /tmp/tool.deb")
    try:
        refused(play, host, "site-tool would be removed with docker-", "Remove or replace it yourself", **DISTRIBUTION)
    finally:
        host.run_expect([0], "dpkg --remove site-tool")
    play("--limit", FRESH).good()


def test_a_repository_that_worked_before_is_told_and_kept(play, on):
    host = on(FRESH)
    index = f"{host.system_info.distribution}/dists/{host.system_info.codename}/InRelease"
    with moved(on(SITE_HOST), f"/srv/apt/linux/{index}", put=f"/srv/apt/tampered/{index}"):
        refused(play, host, "The repository docker at ", "changed after it was signed", docker_version="26.1.4")
    assert host.file(SOURCE).exists


def test_packages_are_downloaded_before_any_is_touched(play, on):
    host, suite = on(FRESH), SUITES[FRESH]
    (path,) = on(SITE_HOST).check_output(f"ls /srv/apt/linux/*/dists/*/pool/docker-ce_26.1.4-1~{suite}_*.deb").split()
    host.run_expect([0], "apt-get clean")
    with moved(on(SITE_HOST), path):
        refused(play, host, "docker-ce=5:26.1.4-1", "can't be downloaded: ", "404", docker_version="26.1.4")


def test_entries_that_contradict_each_other_are_named(play, on):
    host, entry = on(FRESH), "deb [signed-by={}] http://127.0.0.1:9/other stable main"
    with files(host, one=entry.format("/one.gpg"), two=entry.format("/two.gpg")) as paths:
        refused(play, host, "apt can't work: Conflicting values", " and ".join(paths), docker_version="26.1.4")


def test_another_repository_that_fails_is_warned_of(play, on):
    with files(on(FRESH), other="deb [trusted=yes] http://127.0.0.1:9/other stable main"):
        outcome = play("--limit", FRESH, docker_version="latest").good()
    (warning,) = outcome.said(FRESH, "Warn about repositories that can't be refreshed")
    assert warning.startswith("http://127.0.0.1:9/other: Could not connect to 127.0.0.1:9")


# --- The distribution's packages ---------------------------------------------------------------------------------


def test_the_distributions_packages_take_over_with_images_and_volumes(play, on):
    host = on(FRESH)
    host.run_expect([0], "docker volume create kept && echo precious >/var/lib/docker/volumes/kept/_data/file")
    play("--limit", FRESH, **DISTRIBUTION).good()
    found = set(packages(host))
    assert {"docker.io", "docker-buildx", "containerd", "runc"} < found
    assert found & {"docker-compose", "docker-compose-v2"}
    assert not found & {"docker-ce", "docker-ce-cli", "containerd.io", "docker-buildx-plugin", "docker-compose-plugin"}
    assert host.check_output("docker image ls -q kept") != ""
    assert host.file("/var/lib/docker/volumes/kept/_data/file").content_string == "precious\n"
    assert not host.file("/etc/apt/sources.list.d/docker.sources").exists
    assert play("--limit", FRESH, **DISTRIBUTION).good().changed(FRESH) == []
