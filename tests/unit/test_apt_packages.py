# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What apt says, in the words of a person; and the module, on a host that exists in memory only."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.iopaint.fleet.plugins.module_utils.apt_output import Trouble, advise, matches, removals, troubles
from ansible_collections.iopaint.fleet.plugins.modules import apt_packages

# As apt 3.0 and apt 2.6 wrote them, for one repository after the other.
SAMPLES = {
    path.stem: dict(re.findall(r"(?ms)^##### (\w+)\n(.*?)(?=^#####|\Z)", path.read_text()))
    for path in (Path(__file__).parent / "samples" / "apt").glob("*.txt")
}
NAMES = {name: f"var_{name}" for name in ("source", "proxy", "components", "fingerprints", "key")}

# --- Output of apt -----------------------------------------------------------------------------------------------


def test_there_are_samples_of_both():
    assert {suite: len(cases) for suite, cases in SAMPLES.items()} == {"trixie": 13, "bookworm": 13}


@pytest.mark.parametrize("suite", SAMPLES)
@pytest.mark.parametrize(
    ("case", "tree", "words"),
    [
        ("stranger", "stranger", ["is signed by the key", "not the one that var_fingerprints names"]),
        ("tampered", "tampered", ["changed after it was signed"]),
        ("swapped", "swapped", ["list of packages that is not the one"]),
        ("expired", "expired", ["out of date", "invalid since 327d"]),
        ("missing", "missing", ["nothing for this suite", "Correct var_source"]),
        ("refused", "linux", ["can't be reached", "8001", "var_source", "var_proxy"]),
        ("unresolved", "linux", ["can't be reached", "Could not resolve 'nowhere.invalid'"]),
        ("proxy", "linux", ["can't be reached", "127.0.0.1:9"]),
        ("suite", "linux", ["nothing for this suite"]),
        ("component", "linux", ["has no component nostable", "Correct var_components"]),
        ("tls", "linux", ["can't be reached"]),
    ],
)
def test_each_trouble_is_told_with_its_cure(suite, case, tree, words):
    found = troubles(SAMPLES[suite][case])
    uri, reason = found[0]
    assert f"/{tree}/debian" in uri
    assert {trouble.uri for trouble in found} == {uri}
    text = " ".join(advise(reason, NAMES))
    assert [word for word in words if word not in text] == [], text


@pytest.mark.parametrize("suite", SAMPLES)
def test_a_good_update_is_no_trouble(suite):
    assert troubles(SAMPLES[suite]["linux"]) == []


@pytest.mark.parametrize("suite", SAMPLES)
def test_conflicting_keys_are_told_of_the_source(suite):
    first, second = troubles(SAMPLES[suite]["conflict"])
    assert first.uri == "http://repo.test:8000/linux/debian/"
    assert first.reason.startswith("Conflicting values set for option Signed-By")
    assert second == Trouble("", "The list of sources could not be read.")


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("The following signatures were invalid: EXPKEYSIG 8D81803C0EBFCD88 Docker", "Remove var_key"),
        ("Certificate verification failed: The certificate is NOT trusted.", "does not trust"),
        ("401  Unauthorized [IP: 10.0.0.1 443]", "auth.conf.d"),
        ("File has unexpected size (10 != 20). Mirror sync in progress?", "in the middle of its update"),
        ("Something new.", "is refused by apt (Something new) Correct var_source."),
    ],
)
def test_other_reasons_are_told(reason, words):
    assert words in " ".join(advise(reason, NAMES))


@pytest.mark.parametrize(
    ("version", "wanted", "same"),
    [
        ("5:28.5.2-1~debian.13~trixie", "28.5.2", True),
        ("5:28.5.2-1~debian.13~trixie", "5:28.5.2-1~debian.13~trixie", True),
        ("5:28.5.2-1~debian.13~trixie", "28.5.2-1~debian.13~trixie", True),
        ("5:28.5.2-1~debian.13~trixie", "28.5", False),
        ("26.1.5+dfsg1-9+deb13u1+b1", "26.1.5", True),
        ("26.1.5+dfsg1-9+deb13u1+b1", "26.1.5+dfsg1", True),
        ("1.19.1-1", "1.19.1", True),
        ("1.7.27", "1.7.27", True),
        ("5:28.5.2-1~debian.13~trixie", "28.*", True),
        ("580.95.05-1", "58.*", False),
    ],
)
def test_versions_are_known_by_their_short_names(version, wanted, same):
    assert matches(version, wanted) is same


def test_removals_are_read_from_a_simulation():
    assert removals("Remv podman [4.3]\nInst docker-ce (1)\nPurg x [1]\nConf docker-ce\n") == ["podman", "x"]


# --- The module --------------------------------------------------------------------------------------------------

OLD, NEW = "5:26.1.4-1~debian.13~trixie", "5:26.1.5-1~debian.13~trixie"


class Host:
    """dpkg and apt as far as the module asks them."""

    def __init__(self):
        self.installed = {}  # name: [version, held]
        self.available = {"docker-ce": [NEW, OLD], "docker-ce-cli": [NEW, OLD], "iptables": ["1.8"]}
        self.known = dict(self.available)  # what `apt-get update` would show
        self.depends = {}  # a package goes when the one it depends on goes
        self.update_output = ""
        self.broken = {}  # what a step says as it fails
        self.calls = []

    def command(self, program, *arguments, data=None):
        self.calls.append(" ".join([program, *arguments]))
        return getattr(self, program.replace("-", "_"))(list(arguments), data)

    def did(self, text):
        return [call for call in self.calls if text in call]

    def dpkg_query(self, arguments, _):
        rows = [(name, *self.installed[name]) for name in arguments if name in self.installed]
        return 0, "".join(f"{name}\t{version}\t{'hi ' if held else 'ii '}\n" for name, version, held in rows), ""

    def dpkg(self, arguments, data):
        if arguments[0] == "--compare-versions":
            return int(not arguments[1] > arguments[3]), "", ""
        if arguments[0] == "--print-architecture":
            return 0, "amd64\n", ""
        for line in data.splitlines():
            name, selection = line.split()
            self.installed[name][1] = selection == "hold"
        return 0, "", ""

    def apt_cache(self, arguments, _):
        versions = self.available.get(arguments[1], [])
        if arguments[0] == "madison":
            return 0, "".join(f" {arguments[1]} | {version} | http://repo.test x\n" for version in versions), ""
        return 0, f"  Candidate: {versions[0] if versions else '(none)'}\n", ""

    def apt_get(self, arguments, _):
        for step, words in self.broken.items():
            if step in arguments:
                return 100, "", f"E: {words}\n"
        if "update" in arguments:
            self.available = dict(self.known)
            return 0, self.update_output, ""
        verb = next(word for word in ("install", "remove") if word in arguments)
        targets = arguments[arguments.index(verb) + 1 :]
        gone = [name.rstrip("-") for name in targets if verb == "remove" or name.endswith("-")]
        gone += [name for name, needed in self.depends.items() if needed in gone and name in self.installed]
        if "--simulate" in arguments:
            return 0, "".join(f"Remv {name} [1]\n" for name in gone), ""
        if "--download-only" in arguments:
            return 0, "", ""
        for name in gone:
            self.installed.pop(name, None)
        for target in [] if verb == "remove" else targets:
            name, _, version = target.partition("=")
            self.installed[name] = [version or self.available[name][0], False]
        return 0, "", ""


@pytest.fixture
def host(monkeypatch, tmp_path):
    host = Host()
    (tmp_path / "lists").mkdir()
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list.d/docker.sources").write_text("URIs: http://repo.test:8000/linux_x/debian\n")
    (tmp_path / "lists/repo.test:8000_linux%5fx_debian_dists_trixie_InRelease").write_text("")
    monkeypatch.setattr(apt_packages.Packages, "command", host.command)
    monkeypatch.setattr(apt_packages, "POLICY", str(tmp_path / "policy-rc.d"))
    host.root = tmp_path
    return host


@pytest.fixture
def run(host, capsys):
    def run_module(failed=False, check_mode=False, version="", **options):
        arguments = {
            "packages": {"docker-ce": version, "docker-ce-cli": version},
            "source": "docker",
            "root": str(host.root),
            "lists": str(host.root / "lists"),
            "variables": {"docker-ce": "docker_version", "source": "docker_url", "fingerprints": "docker_print"},
            "_ansible_check_mode": check_mode,
            "_ansible_diff": True,
            **options,
        }
        host.calls.clear()
        with patch_module_args(arguments), pytest.raises(SystemExit):
            apt_packages.main()
        result = json.loads(capsys.readouterr().out)
        assert result.get("failed", False) is failed, result
        return result

    return run_module


def test_missing_packages_are_installed_and_held_and_found_so_without_the_network(run, host):
    result = run(requires=["iptables"])
    assert result["versions"] == {"docker-ce": NEW, "docker-ce-cli": NEW}
    assert result["diff"]["after"] == f"docker-ce {NEW} held\ndocker-ce-cli {NEW} held\niptables 1.8\n"
    assert host.installed["iptables"] == ["1.8", False]
    assert run(requires=["iptables"])["changed"] is False
    assert host.did("apt") == []


def test_a_version_is_gone_to_up_and_down(run, host):
    for version, full in (("26.1.4", OLD), ("26.1.5", NEW), (OLD, OLD)):
        assert run(version=version)["versions"]["docker-ce"] == full
        assert not run(version=version)["changed"]
    assert not run(version="26.1.4", hold=True)["changed"]
    assert host.installed["docker-ce"] == [OLD, True]


def test_without_a_version_what_is_there_is_good_enough_and_latest_is_not(run, host):
    host.installed = {"docker-ce": [OLD, True], "docker-ce-cli": [OLD, True]}
    assert not run()["changed"]
    assert run(version="latest")["versions"]["docker-ce"] == NEW
    assert not run(version="latest")["changed"]
    assert host.did("apt-get") == [host.calls[1]]  # the lists only


def test_a_hold_is_taken_back(run, host):
    run()
    assert run(hold=False)["diff"]["after"] == f"docker-ce {NEW}\ndocker-ce-cli {NEW}\n"
    assert host.installed["docker-ce"] == [NEW, False]
    assert not run(hold=False)["changed"]


def test_conflicting_packages_go_after_the_download_and_before_the_installation(run, host):
    host.installed = {"docker.io": ["20.10", False]}
    result = run(absent=["docker.io", "podman-docker"])
    assert (result["removed"], "docker.io" in host.installed) == (["docker.io"], False)
    steps = [
        re.search(r"--simulate|--download-only|remove|install", call.replace("--no-install", ""))[0]
        for call in host.did("apt-get")
        if "update" not in call
    ]
    assert steps == ["--simulate", "--simulate", "--download-only", "remove", "install"]
    assert not host.did("purge")
    assert not run(absent=["docker.io", "podman-docker"])["changed"]


def test_nothing_else_is_removed(run, host):
    host.installed, host.depends = {"runc": ["1", False], "podman": ["4", False]}, {"podman": "runc"}
    message = run(failed=True, absent=["runc"])["msg"]
    assert message.startswith("podman would be removed with runc, as it depends on that.")
    assert message.endswith("No package was changed.")
    assert host.installed == {"runc": ["1", False], "podman": ["4", False]}


def test_an_unknown_version_is_told_with_those_there_are(run, host):
    message = run(failed=True, version="99.1")["msg"]
    assert message == "docker_version is '99.1', and the repositories have docker-ce in 26.1.5, 26.1.4. No package was changed."
    host.known = {}
    assert "no version at all" in run(failed=True, version="99.1")["msg"]


def test_a_failing_source_is_told_and_another_one_warned_of(run, host):
    own = SAMPLES["bookworm"]["stranger"].replace("/stranger/", "/linux_x/")
    host.update_output = own
    result = run(failed=True)
    assert re.match(
        r"The repository docker at http://repo.test:8000/linux_x/debian is signed by the key \w+, which", result["msg"]
    )
    assert "docker_print" in result["msg"]
    assert host.installed == {}
    host.update_output = own.replace("linux_x", "else")
    assert "repo.test:8000/else" in str(run()["warnings"])


def test_a_conflict_between_others_is_told_with_their_files(run, host):
    for name in ("a.list", "b.sources", "c.list"):
        text = "deb http://repo.test:8000/linux/debian x y" if name != "c.list" else ""
        (host.root / "sources.list.d" / name).write_text(text)
    host.update_output = SAMPLES["trixie"]["conflict"]
    folder = f"{host.root}/sources.list.d"
    assert f"Remove the entry from one of {folder}/a.list and {folder}/b.sources." in run(failed=True)["msg"]


def test_the_lists_are_read_again_after_a_failure_or_a_change_of_the_source(run, host):
    run()
    assert not run(update=False)["changed"]
    assert host.did("update") == []
    run(update=True)
    assert host.did("update")
    next((host.root / "lists").iterdir()).unlink()
    host.update_output = SAMPLES["trixie"]["missing"].replace("/missing/", "/linux_x/")
    assert "has nothing for this suite" in run(failed=True)["msg"]


def test_check_mode_tells_and_leaves(run, host):
    host.installed = {"docker.io": ["20.10", False]}
    for known in ({}, host.available):
        host.available = known
        result = run(check_mode=True, absent=["docker.io"], version="26.1.4")
        assert (result["changed"], result["removed"]) == (True, ["docker.io"])
        assert result["diff"]["after"] == "docker-ce 26.1.4 held\ndocker-ce-cli 26.1.4 held\n"
        assert not host.did("update")
        assert not host.did("--set-selections")
    assert host.installed == {"docker.io": ["20.10", False]}
    assert "'99'" in run(failed=True, check_mode=True, version="99")["msg"]


@pytest.mark.parametrize(
    ("step", "words", "untouched"),
    [
        ("--simulate", "apt finds no way to docker-ce docker-ce-cli docker.io-: it broke.", True),
        ("--download-only", "Packages can't be downloaded (apt-get install docker-ce docker-ce-cli docker.io-): it broke.", True),
        ("remove", "Packages can't be removed (apt-get remove docker.io): it broke.", False),
    ],
)
def test_a_step_that_fails_is_told(run, host, step, words, untouched):
    host.installed, host.broken = {"docker.io": ["20.10", False]}, {step: "it broke"}
    result = run(failed=True, absent=["docker.io"])
    assert result["msg"].startswith(words)
    assert ("No package was changed" in result["msg"]) is untouched
    assert result["changed"] is not untouched


def test_services_of_new_packages_wait_only_where_that_is_asked(run, host, monkeypatch):
    policy, seen = host.root / "policy-rc.d", []
    install = host.apt_get
    monkeypatch.setattr(host, "apt_get", lambda *args: (seen.append(policy.exists()), install(*args))[1])
    run(start_services=False, version="26.1.4")
    assert seen[-1] is True
    assert not policy.exists()
    run(start_services=False, version="26.1.5")  # an upgrade restarts what runs
    assert seen[-1] is False
    host.installed.clear()
    policy.write_text("the site's own")
    run(start_services=False)
    assert policy.read_text() == "the site's own"
    host.installed.clear()
    policy.unlink()
    run()
    assert seen[-1] is False
