# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filters: the record of what a deploy fetches, and what a restore fetches of the models that a backup left out."""

import json

from ansible_collections.iopaint.fleet.plugins.filter.left_models import FilterModule
from ansible_collections.iopaint.fleet.plugins.plugin_utils.known_models import ERASE, REPLACED

RECORD, TO_FETCH = (FilterModule().filters()[name] for name in ("models_record", "models_to_fetch"))
ONE, TWO, THREE = ("1" * 40, "2" * 40, "3" * 40)
OURS = {
    "name": "ours",
    "url": "https://ann:secret@host/ours",
    "checksum": "sha256:12",
    "path": "stable_diffusion/ours.safetensors",
}


def held(*pairs):
    return {"environment": {"IOPAINT_FLEET_REVISIONS": ",".join(pairs)}}


def test_the_record_names_what_is_declared_without_addresses():
    gone = sorted(REPLACED)[0]
    record = json.loads(RECORD([{"name": "lama"}, OURS, {"hub": "a/b"}, {"hub": gone}]))
    lama = {"name": "lama", "path": ERASE["lama"].path, "checksum": ERASE["lama"].checksum}
    assert record["files"] == [lama, {key: OURS[key] for key in ("name", "path", "checksum")}]
    assert record["repositories"] == ["a/b", gone]
    assert record["gone"] == sorted(set(REPLACED) - {gone})
    assert "secret" not in RECORD([OURS])


def test_declared_models_are_fetched_as_they_are_declared():
    missing = [{"name": "lama", "path": ERASE["lama"].path, "checksum": "md5:0"}, {"hub": "a/b", "revision": ONE}]
    found = TO_FETCH(missing, [{"name": "lama"}, OURS, {"hub": "a/b", "variant": "fp16"}, {"hub": "c/d"}], [])
    assert [entry["checksum"] for entry in found["files"]] == [ERASE["lama"].checksum]
    assert found["repositories"] == [{"hub": "a/b", "revision": ONE, "files": [], "variant": "fp16"}]
    assert (found["names"], found["undeclared"]) == (["lama", "a/b"], [])


def test_the_commit_is_what_releases_are_held_to_or_what_is_declared_or_that_of_the_backup():
    def commits(revision, before, *instances):
        found = TO_FETCH([{"hub": "a/b", "revision": before}], [{"hub": "a/b", "revision": revision}], instances)
        return [entry["revision"] for entry in found["repositories"]]

    assert commits("main", ONE, held(f"a/b={TWO}", f"c/d={ONE}"), held(f"a/b={THREE}"), {"environment": None}) == [TWO, THREE]
    assert commits(TWO, ONE, held(f"c/d={ONE}")) == [TWO]
    assert commits("main", ONE) == [ONE]
    assert commits("main", "") == ["main"]


def test_others_are_named_by_the_entry_that_they_need():
    missing = [{"hub": "a/b", "revision": ONE}, {"name": "ours", "path": "x/ours.pt", "checksum": "sha256:12"}]
    assert TO_FETCH(missing, [], []) == {
        "files": [],
        "repositories": [],
        "names": [],
        "undeclared": [
            f"{{hub: a/b, revision: {ONE}}}",
            '{name: "ours", url: …, checksum: "sha256:12", path: "x/ours.pt"}',
        ],
    }
