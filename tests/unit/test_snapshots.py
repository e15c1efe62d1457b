# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filters: which snapshots a restore takes, and what an operator is told."""

import json

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.iopaint.fleet.plugins.filter import snapshots

BOTH = ["models", "outputs"]


def snapshot(identity, tree, hour, host="one", tags=("iopaint",)):
    run = f"20260103T{hour:02}0000Z"
    time = f"2026-01-03T{hour:02}:00:01.5Z"
    return {"id": identity, "hostname": host, "time": time, "tags": [*tags, tree, run]}


KNOWN = [
    snapshot("aaaa1111", "models", 1),
    snapshot("bbbb1111", "outputs/cpu", 1),
    snapshot("cccc1111", "outputs/gpu", 1),
    snapshot("bbbb2222", "outputs/cpu", 2),
    snapshot("dddd1111", "models", 3, host="two"),
    {"id": "eeee", "hostname": "one", "time": "2026-01-03T09:00:00Z", "tags": ["iopaint", "by hand"]},
]


def chosen(wanted="latest", include=BOTH, instances=(), host="one"):
    return {entry["tree"]: entry["id"] for entry in snapshots.restore_choice(KNOWN, host, wanted, include, list(instances))}


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({}, {"models": "aaaa1111", "outputs/cpu": "bbbb2222", "outputs/gpu": "cccc1111"}),
        ({"include": ["models"]}, {"models": "aaaa1111"}),
        ({"include": ["outputs"], "instances": ["cpu"]}, {"outputs/cpu": "bbbb2222"}),
        ({"wanted": "20260103T010000Z"}, {"models": "aaaa1111", "outputs/cpu": "bbbb1111", "outputs/gpu": "cccc1111"}),
        ({"wanted": "bbbb1111"}, {"outputs/cpu": "bbbb1111"}),
        ({"wanted": "bbbb1"}, {"outputs/cpu": "bbbb1111"}),
        ({"host": "two", "include": ["models"]}, {"models": "dddd1111"}),
    ],
)
def test_the_newest_of_each_tree_that_is_asked_for(options, found):
    assert chosen(**options) == found


def test_when_a_snapshot_was_made():
    (entry,) = snapshots.restore_choice(KNOWN, "two", "latest", ["models"], [])
    assert entry == {"tree": "models", "id": "dddd1111", "run": "20260103T030000Z", "time_ns": 1767409201500000000, "own": False}


def test_the_newest_models_are_taken_whether_some_are_left_out_or_not():
    """A run by its name, and the newest one, whichever kind it is."""
    own = snapshot("ffff1111", "models", 4, tags=("iopaint", "own"))
    known = [*KNOWN, own, snapshot("ffff2222", "models", 5, host="two", tags=("own", "iopaint"))]
    found = {
        wanted: [(entry["id"], entry["own"]) for entry in snapshots.restore_choice(known, "one", wanted, ["models"], [])]
        for wanted in ("latest", "20260103T010000Z", "20260103T040000Z", "ffff1")
    }
    mine, whole = [("ffff1111", True)], [("aaaa1111", False)]
    assert found == {"latest": mine, "20260103T010000Z": whole, "20260103T040000Z": mine, "ffff1": mine}
    with pytest.raises(AnsibleFilterError, match=r"20260103T040000Z: own models \(ffff1111\)"):
        snapshots.restore_choice(known, "one", "yesterday", ["models"], [])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"wanted": "yesterday"},
            "no backup yesterday (iopaint_restore_snapshot) of one. There:\n  20260103T020000Z: outputs/cpu (",
        ),
        ({"instances": ["none"]}, "There is no snapshot of outputs/none of one. There:"),
        ({"wanted": "20260103T020000Z"}, "There is no snapshot of models of one."),
        ({"host": "lost"}, "Hosts that have snapshots in the repository (iopaint_restore_host): one, two."),
    ],
)
def test_what_there_is_not_is_answered_with_what_there_is(options, sentence):
    with pytest.raises(AnsibleFilterError) as raised:
        chosen(**options)
    assert sentence in str(raised.value)


RESULT = {
    "run": "20260103T010000Z",
    "reason": "",
    "snapshots": {"models": "aaaa11112222", "outputs/cpu": None},
    "files": 3,
    "bytes": 4 * 10**9,
    "added": 10**9,
    "forgotten": 2,
    "models": "all",
    "fetchable": [],
    "unrecorded": False,
    "busy": [],
    "left_out": [],
}


def report(rc=0, **more):
    return snapshots.backup_report({"rc": rc, "stdout": f"noise\n{json.dumps({**RESULT, **more})}\n"}, "/backups")


def test_the_report_of_a_backup():
    assert report() == (
        "/backups: 20260103T010000Z; models (aaaa1111), outputs/cpu; 3 files of 4.000 GB, 1.000 GB of it new; "
        "snapshots removed: 2"
    )
    entry = [{"path": "outputs/cpu/x", "reason": "why"}]
    assert report(rc=3, left_out=entry).endswith("\nLEFT OUT. The rest is backed up:\n  outputs/cpu/x: why")
    assert report(busy=entry).endswith("\nBeing written, and left out:\n  outputs/cpu/x: why")
    left = [{"name": "lama", "bytes": 10**9}, {"hub": "a/b", "revision": "1" * 40, "bytes": 10**9}]
    left += [{"hub": "c/d", "revision": None, "bytes": 0}]
    assert report(models="own", fetchable=left) == (
        "/backups: 20260103T010000Z; own models (aaaa1111), outputs/cpu; 3 files of 4.000 GB, 1.000 GB of it new; "
        "snapshots removed: 2\nNot backed up, as they can be fetched again, 2.000 GB:\n  lama\n  a/b 111111111111\n"
        "  c/d incomplete"
    )
    assert report(models="own", fetchable=left[:1] * 30).endswith("\n  10 more")
    assert report(unrecorded=True).endswith("as no deploy has recorded which it fetches. Run iopaint.fleet.deploy first.")
    assert report(rc=1, snapshots={}, reason="Fatal: wrong password or no key").startswith(
        "No backup was made. The key is not that of the repository: set iopaint_backup_key"
    )
    assert report(rc=1, reason="restic check: broken").startswith("Not everything was done. restic check: broken")
    assert (
        snapshots.backup_report({"rc": 1, "stdout": "", "stderr": "Traceback\x1b[31m"}, "x") == "iopaint-backup failed: Traceback"
    )


def test_why_a_command_failed():
    items = [{"failed": False, "stderr": "fine"}, {"failed": True, "stderr": "open sftp:ssh://a:b@host: no space left on device"}]
    reason = snapshots.restic_reason({"results": items})
    assert reason == (
        "There is no room left: free some, or keep fewer snapshots (iopaint_backup_keep_daily). "
        "open sftp:ssh://***@host: no space left on device"
    )
    assert snapshots.restic_reason({"msg": "other"}) == "other"
