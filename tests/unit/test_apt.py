# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Versions of packages, and what apt's output means and which advice it gets."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from ansible_collections.iopaint.fleet.plugins.filter.apt import FilterModule

FILTERS = FilterModule().filters()
apt_missing, apt_targets, apt_troubles = (FILTERS[name] for name in ("apt_missing", "apt_targets", "apt_troubles"))

# As apt 3.0 and apt 2.6 wrote them, for one repository after the other.
SAMPLES = {
    path.stem: dict(re.findall(r"(?ms)^##### (\w+)\n(.*?)(?=^#####|\Z)", path.read_text()))
    for path in (Path(__file__).parent / "samples" / "apt").glob("*.txt")
}
NAMES = {name: f"var_{name}" for name in ("uris", "proxy", "components", "fingerprints", "key")}

# --- Output of apt-get update ------------------------------------------------------------------------------------


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
        ("missing", "missing", ["nothing for this suite", "Correct var_uris"]),
        ("refused", "linux", ["can't be reached", "8001", "var_uris", "var_proxy"]),
        ("unresolved", "linux", ["can't be reached", "Could not resolve 'nowhere.invalid'"]),
        ("proxy", "linux", ["can't be reached", "127.0.0.1:9"]),
        ("suite", "linux", ["nothing for this suite"]),
        ("component", "linux", ["has no component nostable", "Correct var_components"]),
        ("tls", "linux", ["can't be reached"]),
    ],
)
def test_each_trouble_is_explained(suite, case, tree, words):
    found = apt_troubles(SAMPLES[suite][case], NAMES)
    assert f"/{tree}/debian" in found[0]["uri"]
    assert len({trouble["uri"] for trouble in found}) == 1
    assert [word for word in words if word not in found[0]["advice"]] == [], found[0]


@pytest.mark.parametrize("suite", SAMPLES)
def test_a_good_update_is_no_trouble(suite):
    assert apt_troubles(SAMPLES[suite]["linux"], NAMES) == []


@pytest.mark.parametrize("suite", SAMPLES)
def test_contradicting_keys_come_with_their_repository(suite):
    first, second = apt_troubles(SAMPLES[suite]["conflict"], NAMES)
    assert first["uri"] == "http://repo.test:8000/linux/debian/"
    assert first["reason"].startswith("Conflicting values set for option Signed-By")
    assert (second["uri"], second["reason"]) == ("", "The list of sources could not be read")


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("The following signatures were invalid: EXPKEYSIG 8D81803C0EBFCD88 Docker", "Remove var_key"),
        ("Certificate verification failed: The certificate is NOT trusted.", "does not trust"),
        ("401  Unauthorized [IP: 10.0.0.1 443]", "auth.conf.d"),
        ("File has unexpected size (10 != 20). Mirror sync in progress?", "in the middle of its update"),
        ("Something new.", "is refused by apt (Something new). Correct var_uris."),
    ],
)
def test_other_reasons_are_explained(reason, words):
    (trouble,) = apt_troubles(f"Err:1 http://repo.test x InRelease\n  {reason}\n", NAMES)
    assert words in trouble["advice"]


# --- Versions ----------------------------------------------------------------------------------------------------


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
        ("1.7", 1.7, True),  # YAML reads it as a number
        ("5:28.5.2-1~debian.13~trixie", "28.*", True),
        ("580.95.05-1", "58.*", False),
        ("1", "", True),
        ("1", None, True),
        ("1", "latest", True),
    ],
)
def test_versions_have_short_names(version, wanted, same):
    assert apt_missing({"x": wanted}, {"x": version}) == ([] if same else ["x"])
    madison = f" x | {version} | http://repo.test x\n"
    exact = "" if wanted in {"", None, "latest"} else f"={version}"
    assert apt_targets(madison, ["x"], {"x": wanted})["targets"] == ([f"x{exact}"] if same else [])


def test_a_package_that_is_not_installed_is_missing():
    assert apt_missing({"x": "", "y": "latest", "z": "1"}, {}) == ["x", "y", "z"]


def test_the_newest_version_that_fits_is_taken_and_the_others_are_listed():
    rows = [("ce", "5:26.1.5-1~x"), ("ce", "5:26.1.4-1~x"), ("ce", "5:26.1.4-1~x"), ("cli", "5:25.0.0-1~x")]
    madison = "".join(f"{name:>10} | {version} | http://repo.test x\n" for name, version in rows) + "N: Unable to locate x\n"
    assert apt_targets(madison, ["ce", "cli", "git"], {"ce": "26.*", "cli": "26.*"}) == {
        "targets": ["ce=5:26.1.5-1~x", "git"],
        "missing": ["cli"],
        "versions": {"ce": ["26.1.5", "26.1.4"], "cli": ["25.0.0"]},
    }


def test_no_more_than_fifteen_versions_are_listed():
    madison = "".join(f" x | 1.{number} | http://repo.test x\n" for number in range(20))
    assert apt_targets(madison, ["x"], {"x": "2"})["versions"]["x"][14:] == ["1.14"]
