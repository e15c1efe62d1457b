# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is read from a build's log, and what is said of it while it runs."""

import fcntl
import json

import pytest
from ansible.errors import AnsibleActionFail
from ansible_collections.iopaint.fleet.plugins.action import image_build
from ansible_collections.iopaint.fleet.plugins.filter.build_table import build_table
from ansible_collections.iopaint.fleet.plugins.module_utils.build_log import BuildLog, downloaded
from ansible_collections.iopaint.fleet.plugins.modules import job_log
from stand_in_host import JOB, on_host, seen

LOG = """#0 building with "default" instance using docker driver

#1 [internal] load build definition from Dockerfile
#1 DONE 0.1s

#6 [python-base 1/2] FROM docker.io/library/debian:bookworm-slim
#6 CACHED

#10 [python-base 2/2] RUN apt-install python3
#10 6.004 Fetched 7588 kB in 0s (103 MB/s)
#10 ...

#19 [packages 1/1] RUN with-network install-pins
#19 3.950 Downloading opencv-python-headless (47.7MiB)
#19 19.46  Downloaded opencv-python-headless

#10 [python-base 2/2] RUN apt-install python3
#10 DONE 18.6s

#19 [packages 1/1] RUN with-network install-pins
#19 23.96 Prepared 99 packages in 20.48s
#19 DONE 61.0s

#35 exporting to image
#35 exporting layers 5.3s done
#35 DONE 5.3s
"""


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("Fetched 7588 kB in 0s (103 MB/s)", 7_588_000),
        ("Fetched 35.1 MB in 3s (11 MB/s)", 35_100_000),
        ("Fetched 1,048 B in 1s (1 B/s)", 1048),
        ("Downloading opencv-python-headless (47.7MiB)", int(47.7 * 1024**2)),
        ("Downloading torch (780.4MB)", 780_400_000),
        (" Downloaded torch", 0),
        ("Downloading model weights", 0),
    ],
)
def test_downloads_are_counted(text, size):
    assert downloaded(text) == size


@pytest.mark.parametrize("piece", [1, 7, 100, len(LOG)])
def test_steps_are_read_whatever_the_pieces_are(piece):
    log = BuildLog()
    ended = [step for start in range(0, len(LOG), piece) for step in log.feed(LOG[start : start + piece])]
    assert [(step.name, step.state, step.seconds) for step in ended] == [
        ("python-base 1/2", "cached", 0.0),
        ("python-base 2/2", "done", 18.6),
        ("packages 1/1", "done", 61.0),
        ("exporting to image", "done", 5.3),
    ]
    assert ended[1].title == "python-base 2/2 (7.6 MB downloaded)"
    assert log.summary() == {"steps": 4, "cached": 1, "downloaded": 7_588_000 + int(47.7 * 1024**2)}


def test_a_step_that_fails_is_one_that_ended():
    (step,) = BuildLog().feed(
        '#3 [fit 2/2] RUN fit\n#3 0.2 no\n#3 ERROR: process "/bin/sh -c fit" did not complete: exit code: 1\n'
    )
    assert (step.state, step.seconds, step.last) == ("failed", 0.2, "no")


def test_the_log_is_read_on_from_where_it_was(run_module, tmp_path):
    log, job = tmp_path / "cpu.log", tmp_path / "job"

    def look(offset=0):
        seen = run_module(job_log, log=str(log), job=str(job), offset=offset)
        return seen["text"], seen["offset"], seen["finished"], seen["running"]

    assert look() == ("", 0, False, False)
    log.write_text("#1 one\n#2 tw")
    with log.open("a") as build:
        fcntl.flock(build, fcntl.LOCK_EX)
        assert look() == ("#1 one\n", 7, False, True)
        build.write("o\n")
    job.write_text(json.dumps({"started": True, "finished": False}))
    assert look(7) == ("#2 two\n", 14, False, False)
    job.write_text(json.dumps({"changed": True}))
    assert look(14) == ("", 14, True, False)
    job.write_text('{"half')
    assert look(14)[2] is False


Host = on_host(image_build.ActionModule, variant="cpu", log="/b/cpu.log")
SUM = {"steps": 4, "cached": 1, "downloaded": 57_600_000}
BUILT = {"changed": True, "image": "iopaint:cpu-1-2", "built": True, **SUM, "ansible_job_id": "j1.2", "finished": True}


def test_where_nothing_is_to_be_built_one_call_is_all(monkeypatch):
    host = Host(monkeypatch, [{"changed": False, "image": "iopaint:cpu-1-2"}])
    assert host.go(monkeypatch) == {"changed": False, "image": "iopaint:cpu-1-2"}
    assert [call[0] for call in host.calls] == ["image_build"]
    assert not host.said


def test_each_step_is_said_when_it_ends_and_the_result_is_the_module_s(monkeypatch):
    half = LOG.index("#19 [packages 1/1] RUN with-network install-pins\n#19 23.96")
    looks = [seen(LOG, 900, running=False), seen(LOG[:half], half), seen(LOG[half:], len(LOG), finished=True, running=False)]
    host = Host(monkeypatch, [{"needed": True}, JOB, *looks, BUILT, {}], timeout=600)
    assert host.go(monkeypatch) == {"changed": True, "image": "iopaint:cpu-1-2", "built": True, **SUM}
    assert host.said == [
        "gpu-1 builds cpu,    4 s: python-base 2/2 (7.6 MB downloaded) took 18.6 s",
        "gpu-1 builds cpu,    6 s: packages 1/1 (50.0 MB downloaded) took 61.0 s",
        "gpu-1 builds cpu,    6 s: exporting to image took 5.3 s",
        "gpu-1 builds cpu,    6 s: 4 steps, 1 of them cached, 57.6 MB downloaded",
    ]
    assert [call[2] for call in host.calls][1] == 600
    assert host._task.async_val == 0
    assert [call[1].get("offset") for call in host.calls if call[0] == "job_log"] == [0, 0, half]


def test_with_many_hosts_only_what_takes_long_is_said(monkeypatch):
    host = Host(monkeypatch, [{"needed": True}, JOB, seen(LOG, 900, finished=True), BUILT, {}], hosts=40)
    host.go(monkeypatch)
    assert [line.partition(": ")[2].split(" (")[0] for line in host.said] == [
        "packages 1/1",
        "4 steps, 1 of them cached, 57.6 MB downloaded",
    ]


def test_a_step_that_goes_on_is_named_once_a_minute(monkeypatch):
    begun = seen("#19 [torch 1/1] RUN x\n#19 3.9 Downloading torch (780.4MB)\n", 60)
    host = Host(monkeypatch, [{"needed": True}, JOB, begun, *[seen("", 60)] * 60, seen("", 60, finished=True), BUILT, {}])
    host.go(monkeypatch)
    assert [line.partition(": ")[2] for line in host.said[:-1]] == [
        "torch 1/1 (780.4 MB downloaded) goes on: Downloading torch (780.4MB)"
    ] * 2


def test_a_build_that_ends_before_its_log_is_looked_at_is_said_too(monkeypatch):
    """What the log has may be an earlier build's."""
    host = Host(monkeypatch, [{"needed": True}, JOB, seen(LOG, 900, finished=True, running=False), BUILT, {}])
    host.go(monkeypatch)
    assert host.said == ["gpu-1 builds cpu,    2 s: 4 steps, 1 of them cached, 57.6 MB downloaded"]


def test_a_build_whose_process_is_gone_is_given_up(monkeypatch):
    host = Host(monkeypatch, [{"needed": True}, JOB, seen("#1 [a 1/1] RUN\n", 15), *[seen("", 15, running=False)] * 20])
    with pytest.raises(AnsibleActionFail, match=r"its process is gone from the host .* The log /b/cpu.log"):
        host.go(monkeypatch)
    assert host.now < 60


def test_a_build_that_was_stopped_names_its_limit(monkeypatch):
    stopped = {"failed": True, "msg": "Timeout exceeded"}
    host = Host(monkeypatch, [{"needed": True}, JOB, seen(finished=True), stopped, {}], timeout=60)
    assert host.go(monkeypatch)["msg"].startswith("The build was stopped after 60 s")


def test_a_dry_run_starts_nothing(monkeypatch):
    host = Host(monkeypatch, [{"changed": True, "built": True}], check=True)
    assert host.go(monkeypatch)["built"]
    assert len(host.calls) == 1


def test_the_table_says_what_was_built_and_what_was_there():
    tags = ["iopaint:cpu-1-2", "iopaint:cpu-main", "iopaint:cpu-latest"]
    made = {"image": tags[0], "tags": tags, "id": "sha256:0123456789abcdef", "size": 1_188_000_000, "built": True}
    there = {**made, "tags": [tag.replace("cpu", "gpu") for tag in tags], "built": False, "seconds": 0.0}
    dry = {"image": tags[0], "tags": tags, "built": True, "seconds": 0.0}
    table = build_table(
        {"cpu": {**made, "seconds": 61.2, "steps": 30, "cached": 4, "downloaded": 2_500_000}, "gpu": there, "x": dry}
    )
    rows = [line.split("  ") for line in table.splitlines()]
    rows = [[cell.strip() for cell in row if cell] for row in rows]
    assert rows[1] == ["cpu", tags[1], tags[0], "sha256:0123456789ab", "1.19 GB", "61.2 s", "4 of 30 steps", "2.5 MB"]
    assert rows[2][-3:] == ["was there", "-", "-"]
    assert rows[3][3:6] == ["-", "-", "would be built"]
