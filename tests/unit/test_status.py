# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The report on a fleet: what is wanted, what is wrong, the table, the JSON file and the page."""

import json
import re
from pathlib import Path

import pytest
from ansible_collections.iopaint.fleet.plugins.action import status_report
from ansible_collections.iopaint.fleet.plugins.plugin_utils import gateways, status

NOW = "2026-01-03T01:30:00Z"
GB = 10**9
TEMPLATE = Path(__file__).resolve().parents[2] / "roles" / "iopaint_status" / "templates" / "status.html.j2"


def instance(name="cpu", state="healthy", **more):
    return {
        "name": name,
        "variant": "cpu",
        "state": state,
        "problems": [],
        "notes": [],
        "release": {"id": "0001-v1"},
        "since": "2026-01-01T00:00:00Z",
        "proof": {"time": "2026-01-03T01:00:00Z", "latency_ms": 390.6},
        "devices": [],
        "url": "http://127.0.0.1:8080",
        "container": None,
        **more,
    }


def answer(*instances, **more):
    return {
        "state": "ok",
        "time": NOW,
        "engine": {"state": "running", "reason": None, "version": "28.5.2", "root": "/var/lib/docker"},
        "instances": list(instances),
        "gpu": {"gpus": [], "driver_version": None, "problem": "no_gpu", "advice": ""},
        "disks": [{"purpose": "engine", "path": "/var/lib/docker", "free": 40 * GB, "total": 100 * GB}],
        "models": {"files": [{"path": "torch/hub/checkpoints/big-lama.pt", "bytes": 7}], "repositories": [], "reason": None},
        "lock": None,
        "backup": None,
        **more,
    }


LOST = {"state": "unreachable", "reason": "ssh: connect to host lost port 22: Connection refused"}
STOPPED = {"state": "stopped", "reason": "Its service is stopped.", "version": None, "root": None}
LOCK = {"operator": "ann", "controller": "desk", "play": "upgrade", "time": "2026-01-03T01:00:00Z"}


def fleet(minimum=5 * GB, **hosts):
    return gateways.add(status.document(hosts, minimum, time=NOW), {})


def lines(document):
    """The cells of the table's lines, by column."""
    heading, *rest = status.table(document).splitlines()
    places = [heading.index(column) for column in re.split(" {2,}", heading)]
    ends = [*places[1:], None]
    return [dict(zip(status.COLUMNS, (line[a:b].strip() for a, b in zip(places, ends)))) for line in rest]


# ---- what is wanted --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "name", "expected"),
    [
        ({"name": "cpu"}, "cpu", True),
        ({"name": "cpu"}, "cpu-0", False),
        ({"name": "gpu", "variant": "gpu"}, "gpu-0", True),
        ({"name": "gpu", "variant": "gpu", "devices": ["auto"]}, "gpu-11", True),
        ({"name": "gpu", "variant": "gpu", "devices": ["auto"]}, "gpu-x", False),
        ({"name": "gpu", "variant": "gpu", "devices": ["0"]}, "gpu", True),
        ({"name": "gpu", "variant": "gpu", "devices": [0]}, "gpu-0", False),
    ],
)
def test_which_entry_asks_for_an_instance(entry, name, expected):
    assert status.stands_for(entry, name) is expected


def test_what_is_wanted_and_not_there_and_what_is_there_and_not_wanted():
    found = status.compared([instance("old")], [{"name": "new"}])
    assert [(one["name"], one["state"], one["listed"]) for one in found] == [
        ("old", "healthy", False),
        ("new", "not deployed", True),
    ]
    assert "iopaint.fleet.remove" in found[0]["notes"][0]
    assert status.compared([instance()], [{"name": "cpu"}])[0]["notes"] == []


# ---- the document and the table --------------------------------------------------------------------------------------


def test_a_line_has_all_that_is_known():
    (line,) = lines(fleet(one=answer(instance())))
    assert line == {
        "host": "one",
        "instance": "cpu",
        "variant": "cpu",
        "release": "0001-v1",
        "since": "2 d 1 h",
        "health": "healthy",
        "proof": "30 min",
        "latency": "391 ms",
        "gpu": "-",
        "driver": "-",
        "disk": "40.0 of 100.0 GB free",
        "backup": "-",
        "lock": "-",
        "note": "-",
    }


@pytest.mark.parametrize(
    ("ok", "models", "cell", "note"),
    [
        (True, "all", "1 h 30 min", "-"),
        (True, "own", "1 h 30 min, own models", "-"),
        (False, None, "failed, 1 h 30 min", "The last backup (2026-01-03T00:00:00Z) did not succeed: no room"),
    ],
)
def test_the_last_backup_is_shown(ok, models, cell, note):
    backup = {"time": "2026-01-03T00:00:00Z", "ok": ok, "reason": "no\nroom", "scheduled": True, "models": models}
    document = fleet(one=answer(instance(), backup=backup))
    (line,) = lines(document)
    assert (line["backup"], line["note"]) == (cell, note)
    assert f"<td>{cell}</td>" in status_report.page(document, TEMPLATE)


def test_an_interrupted_restore_is_named():
    (line,) = lines(fleet(one=answer(instance(), restore=True)))
    assert line["note"].startswith("A restore was interrupted here")


def test_the_worst_comes_first_whichever_host_it_is_on():
    document = fleet(
        a=answer(instance(), instance("second", "unhealthy", problems=["Its health check says: 500"])),
        b=answer(instance(notes=["It runs another image."])),
        c=answer(instance(state="unknown"), engine=STOPPED),
        lost=LOST,
        never=None,
    )
    found = [(line["host"], line["instance"], line["health"]) for line in lines(document)]
    assert found == [
        ("lost", "-", "unreachable"),
        ("never", "-", "failed"),
        ("a", "second", "unhealthy"),
        ("c", "cpu", "unknown"),
        ("b", "cpu", "healthy"),
        ("a", "cpu", "healthy"),
    ]
    counts = {"hosts": 5, "unseen": 2, "instances": 4, "serving": 2, "broken": 2}
    assert document["summary"] == {**counts, "gateways": 0, "gateways_serving": 0}
    assert status.summary(document) == "2 of 4 instances on 5 hosts serve; broken: 2, hosts that could not be looked at: 2."


def test_what_is_said_of_a_host_stands_in_its_first_line_only():
    first, second = lines(fleet(minimum=50 * GB, one=answer(instance(), instance("second"), lock=LOCK)))
    assert first["note"].startswith("Free are 40.0 GB at /var/lib/docker; iopaint_upgrade_min_free_gb asks for 50.")
    assert (first["lock"], second["lock"], second["note"]) == ("upgrade by ann", "upgrade by ann", "-")


def test_a_host_without_instances_has_a_line():
    (line,) = lines(fleet(one=answer()))
    assert (line["health"], line["note"]) == ("answers", "No instance is here, and none is wanted.")


def test_the_gpus_of_an_instance_are_named():
    cards = [{"index": n, "uuid": f"GPU-{n}", "name": "NVIDIA H200", "memory_total_mib": 1, "memory_used_mib": 1} for n in (0, 1)]
    gpu = {"gpus": cards, "driver_version": "580.95.05", "problem": "version_mismatch", "advice": "Reboot it."}
    found = lines(
        fleet(
            one=answer(
                *(
                    instance(f"g{n}", devices=d)
                    for n, d in enumerate(
                        (
                            ["nvidia.com/gpu=1"],
                            ["nvidia.com/gpu=0:1"],
                            ["nvidia.com/gpu=GPU-0"],
                            ["nvidia.com/gpu=all"],
                            ["nvidia.com/gpu=7"],
                        )
                    )
                ),
                gpu=gpu,
            )
        )
    )
    assert [line["gpu"] for line in found] == [
        "1 (NVIDIA H200)",
        "0:1 (NVIDIA H200)",
        "GPU-0 (NVIDIA H200)",
        "all (NVIDIA H200)",
        "7",
    ]
    assert {line["driver"] for line in found} == {"580.95.05"}
    assert found[0]["note"] == "Reboot it."


@pytest.mark.parametrize(
    ("then", "expected"),
    [
        ("2026-01-03T01:29:30Z", "30 s"),
        ("2026-01-03T01:31:00Z", "0 s"),  # a clock that was set back
        ("2026-01-03T00:00:00Z", "1 h 30 min"),
        ("2025-12-01T00:00:00Z", "33 d 1 h"),
        (None, None),
        ("yesterday", None),
    ],
)
def test_ages(then, expected):
    assert status.age(then, NOW) == expected


def test_what_is_wrong_is_said_for_those_who_watch():
    document = fleet(a=answer(instance(), lock=LOCK), b=answer(instance("x", "exited", problems=["It ended."])), lost=LOST)
    wrong = {host["host"]: status.wrong(host) for host in document["hosts"]}
    assert wrong == {"a": [], "b": ["x is exited. It ended."], "lost": [LOST["reason"]]}


def test_what_was_replaced_by_a_rename_is_not_broken_unless_it_is_wanted():
    document = fleet(a=answer(instance(), instance("old", "displaced", listed=False, notes=["It was stopped."])))
    assert (document["summary"]["instances"], document["summary"]["broken"]) == (1, 0)
    assert [row["instance"] for row in lines(document)] == ["old", "cpu"]
    document = fleet(a=answer(instance("old", "displaced", listed=True)))
    assert (document["summary"]["instances"], document["summary"]["broken"]) == (1, 1)


# ---- the files -------------------------------------------------------------------------------------------------------


@pytest.fixture
def report(monkeypatch):
    def call(hosts, check=False, **arguments):
        module = status_report.ActionModule.__new__(status_report.ActionModule)
        module._task = type("Task", (), {"args": arguments, "check_mode": check})()
        monkeypatch.setattr(status_report.ActionBase, "run", lambda self, tmp, task_vars: {})
        module.validate_argument_spec = lambda spec: (
            None,
            {
                "template": str(TEMPLATE),
                **{key: arguments.get(key, option["default"]) for key, option in spec.items() if key != "template"},
            },
        )
        hostvars = {name: {"iopaint_status": known} for name, known in hosts.items()}
        return module.run(task_vars={"ansible_play_hosts_all": list(hosts), "hostvars": hostvars})

    return call


def test_the_files_say_what_the_table_says(report, tmp_path):
    result = report({"one": answer(instance()), "lost": LOST}, dir=str(tmp_path / "reports"))
    assert result["written"] == [str(tmp_path / "reports" / name) for name in ("status.json", "status.html")]
    document = json.loads((tmp_path / "reports" / "status.json").read_text())
    assert (document["schema"], [host["host"] for host in document["hosts"]]) == (1, ["lost", "one"])
    assert document["hosts"][1]["instances"][0]["proof"]["latency_ms"] == 390.6
    assert [host["models"]["files"] for host in document["hosts"]] == [
        [],
        [{"path": "torch/hub/checkpoints/big-lama.pt", "bytes": 7}],
    ]
    assert (result["changed"], result["wrong"]) == (False, {"lost": [LOST["reason"]]})
    assert result["table"].endswith("1 of 1 instances on 2 hosts serve; broken: 0, hosts that could not be looked at: 1.")


def test_a_dry_run_and_an_empty_folder_write_nothing(report, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert report({"one": answer()}, check=True, dir="reports")["written"] == []
    assert report({"one": answer()})["written"] == []
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_can_t_be_written_is_named(report, tmp_path):
    (tmp_path / "file").touch()
    result = report({"one": answer()}, dir=str(tmp_path / "file" / "reports"), names={"dir": "iopaint_status_dir"})
    assert result["failed"] is True
    assert "(iopaint_status_dir) on the control node can't be written" in result["msg"]
    assert "one" in result["table"]


def test_the_page_is_whole_and_takes_nothing_from_elsewhere():
    nasty = '<script>alert("x")</script>'
    page = status_report.page(
        fleet(one=answer(instance(notes=[nasty])), lost={**LOST, "reason": nasty}, empty=answer(lock=LOCK)), TEMPLATE
    )
    assert nasty not in page
    assert page.count("&lt;script&gt;") == 3  # the instance's, and the host's in both tables
    assert not re.search(r"<script|<link|<img|https?://|@import|url\(", page)
    assert re.search(r'<html lang="en">', page)
    assert page.count("<table>") == page.count("</table>") == page.count("<caption>") == 2
    assert page.count("<tr") == page.count("</tr>")
    assert page.count("<td") == page.count("</td>")
    assert page.count("<th scope=") == page.count("<th ")
    order = re.findall(r'<th scope="row">(\w+)</th>', page)
    assert order == ["lost", "empty", "one"] * 2


def test_on_the_page_an_instance_is_not_marked_for_what_its_host_says():
    page = status_report.page(fleet(one=answer(instance(), lock=LOCK)), TEMPLATE)
    assert re.findall(r'<tr class="(\w+)">', page) == ["ok", "attention"]


def test_a_page_of_no_hosts_says_so():
    assert "The play had no hosts." in status_report.page(fleet(), TEMPLATE)


def contrast(one, two):
    """WCAG's contrast of two colours."""

    def luminance(colour):
        parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        parts = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), parts))

    high, low = sorted((luminance(one), luminance(two)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_every_text_can_be_read_in_light_and_dark():
    style = TEMPLATE.read_text()
    light, dark = (dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", part)) for part in style.split("prefers-color-scheme: dark"))
    for colours in (light, dark):
        for name in ("text", "quiet", *status.LEVELS):
            assert contrast(colours[name], colours["ground"]) >= 4.5, name
