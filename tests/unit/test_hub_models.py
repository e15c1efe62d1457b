# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Hub repositories of iopaint_models: the filter that completes them, and the module that has an image fetch them."""

import fcntl
import json
import os
import stat

import pytest
from ansible.errors import AnsibleActionFail, AnsibleFilterError
from ansible_collections.iopaint.fleet.plugins.action.hub_models import ActionModule
from ansible_collections.iopaint.fleet.plugins.filter.hub_models import FilterModule
from ansible_collections.iopaint.fleet.plugins.modules import hub_models
from ansible_collections.iopaint.fleet.plugins.plugin_utils.known_models import LISTED
from stand_in_host import JOB, on_host, seen

LIST = FilterModule().filters()["hub_models"]
IMAGE = "iopaint:cpu-latest"
COMMIT = "1" * 40


def test_a_repository_is_completed_and_files_are_left_out():
    assert LIST([{"name": "lama"}, {"hub": "owner/model", "variant": "fp16", "name": None}]) == [
        {"hub": "owner/model", "revision": "main", "files": [], "variant": "fp16"}
    ]


SD = "stable-diffusion-v1-5/stable-diffusion-inpainting"


def test_what_an_entry_leaves_out_is_taken_from_the_list_and_what_it_says_goes_first():
    (done,) = LIST([{"hub": SD}])
    assert (done["revision"], done["files"]) == (LISTED[SD]["revision"], [])
    assert LIST([{"hub": SD, "revision": "main"}])[0]["revision"] == "main"
    assert LIST([{"hub": SD, "revision": None}])[0]["revision"] == LISTED[SD]["revision"]
    (done,) = LIST([{"hub": "briaai/RMBG-2.0"}])
    assert (done["revision"], done["files"]) == (LISTED["briaai/RMBG-2.0"]["revision"], ["config.json", "model.safetensors"])
    assert LIST([{"hub": "briaai/RMBG-2.0", "files": ["*.onnx"]}])[0]["files"] == ["*.onnx"]
    assert "revision" not in LISTED["Sanster/AnyText"]
    assert LIST([{"hub": "Sanster/AnyText"}])[0]["revision"] == "main"


def test_a_repository_that_is_gone_names_its_replacement():
    assert LIST([{"hub": "runwayml/stable-diffusion-inpainting"}])[0]["replaced_by"] == SD
    assert "replaced_by" not in LIST([{"hub": SD}])[0]


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"hub": "model"}, "hub 'model' must be OWNER/NAME"),
        ({"hub": "../../etc"}, "hub '../../etc' must be OWNER/NAME"),
        ({"hub": "a/b", "url": "x", "name": "c"}, "name, url can't go with hub"),
        ({"hub": "a/b", "revision": 1.5}, "revision 1.5 must be one word in quotes"),
        ({"hub": "a/b", "revision": ""}, "revision is empty"),
        ({"hub": "a/b", "revision": "--check"}, "revision '--check' must be one word"),
        ({"hub": "a/b", "variant": "fp 16"}, "variant 'fp 16' must be one word"),
        ({"hub": "a/b", "files": ["--token-stdin"]}, "files has '--token-stdin'"),
    ],
)
def test_what_is_no_repository_is_refused_with_its_place(entry, words):
    with pytest.raises(AnsibleFilterError, match=r"^iopaint_models\[1\]: ") as error:
        LIST([{"name": "lama"}, entry])
    assert words in str(error.value)


def test_a_repository_that_is_there_twice_is_refused():
    with pytest.raises(AnsibleFilterError, match="a/b is there more than once"):
        LIST([{"hub": "a/b"}, {"hub": "a/b", "revision": "v2"}])


@pytest.fixture
def fetch(run_module, engine, tmp_path, monkeypatch):
    """Run the module on an engine that has the image."""
    engine.have(IMAGE)

    monkeypatch.setattr(hub_models, "MEMORY", str(tmp_path))

    def fetch(*repositories, answer=None, status=0, err="", **options):
        said = {
            "repository": "owner/model",
            "revision": COMMIT,
            "changed": True,
            "bytes": 7,
            "missing_bytes": 7,
            "files": {"a": 7},
        }
        engine.set(fetched=[status, json.dumps({**said, **(answer or {})}) if status == 0 else "", err])
        wanted = repositories or ({"hub": "owner/model"},)
        names = {"repositories": "iopaint_models", "endpoint": "iopaint_hub_endpoint", "token": "iopaint_hub_token"}
        names["models_dir"] = "iopaint_data_dir"
        return run_module(
            hub_models,
            failed=status != 0,
            **{
                "repositories": list(wanted),
                "image": IMAGE,
                "models_dir": str(tmp_path),
                "log": str(tmp_path / "models.log"),
                "names": names,
                **options,
            },
        )

    return fetch


def command(engine):
    (call,) = [call for call in engine.calls() if call["argv"][0] == "run"]
    return call


def test_a_repository_is_fetched_by_the_image_without_other_rights(fetch, engine, tmp_path):
    done = fetch({"hub": "owner/model", "revision": COMMIT, "variant": "fp16", "files": ["unet/*", "*.json"]})
    assert (done["changed"], done["repositories"][0]["revision"]) == (True, COMMIT)
    argv = command(engine)["argv"]
    assert {"--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--pull=never", "--user=10001:10001"} <= set(
        argv
    )
    assert argv[argv.index("--volume") + 1] == f"{tmp_path}:/app/models"
    asked = argv[argv.index(IMAGE) + 1 :]
    assert asked == (
        f"fetch-models owner/model --revision {COMMIT} --variant fp16 --progress --attended --files unet/* *.json".split()
    )


def test_models_of_another_host_and_the_host_s_authorities_are_read_only(fetch, engine, monkeypatch, tmp_path):
    (tmp_path / "authorities").write_text("certificates")
    monkeypatch.setattr(hub_models, "AUTHORITIES", str(tmp_path / "authorities"))
    fetch(mirror="/srv/models")
    call = command(engine)
    mounts = [word.removeprefix("--mount=") for word in call["argv"] if word.startswith("--mount=")]
    assert mounts == [
        "type=bind,readonly,source=/srv/models,target=/mirror",
        f"type=bind,readonly,source={tmp_path}/authorities,target={tmp_path}/authorities",
    ]
    assert call["argv"][call["argv"].index("--mirror") + 1] == "/mirror"
    assert call["env"]["REQUESTS_CA_BUNDLE"] == f"{tmp_path}/authorities"


def test_a_host_without_authorities_uses_those_of_the_image(fetch, engine, monkeypatch, tmp_path):
    monkeypatch.setattr(hub_models, "AUTHORITIES", str(tmp_path / "none"))
    fetch()
    call = command(engine)
    assert not [word for word in call["argv"] if word.startswith("--mount") or word == "--mirror"]
    assert "REQUESTS_CA_BUNDLE" not in call["argv"]


def test_a_token_and_an_address_are_in_no_process_list(fetch, engine):
    fetch(token="hf_secret", endpoint="https://u:pw@mirror.example.com", environment={"HTTPS_PROXY": "http://u:pw@proxy"})
    call = command(engine)
    assert not [word for word in call["argv"] if "hf_secret" in word or "pw" in word]
    assert call["env"]["HF_ENDPOINT"] == "https://u:pw@mirror.example.com"
    assert "--token-stdin" in call["argv"]


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (os.EX_NOINPUT, "Correct the entry in iopaint_models."),
        (os.EX_UNAVAILABLE, "See iopaint_hub_endpoint"),
        (os.EX_CANTCREAT, "Make room on the disk of iopaint_data_dir"),
        (os.EX_NOPERM, "Set iopaint_hub_token."),
        (os.EX_DATAERR, "A file is not what the hub says."),
        (125, ""),
    ],
)
def test_a_failure_is_told_with_its_remedy(fetch, status, words):
    message = fetch(status=status, err="fetch-models: owner/model: that is why.\n")["msg"]
    assert message.startswith("owner/model (iopaint_models) could not be fetched: owner/model: that is why.")
    assert words in message
    assert message.endswith("No instance was touched.")


def test_a_repository_that_the_hub_has_no_more_is_told_with_its_replacement(fetch):
    (gone,) = LIST([{"hub": "runwayml/stable-diffusion-inpainting"}])
    why = "fetch-models: runwayml/stable-diffusion-inpainting: the hub has no such repository.\n"
    message = fetch(gone, status=os.EX_NOINPUT, err=why)["msg"]
    assert "On the public hub stable-diffusion-v1-5/stable-diffusion-inpainting replaces it." in message
    assert "replaces it" not in fetch(gone, status=os.EX_UNAVAILABLE, err=why)["msg"]


def test_check_mode_downloads_nothing_and_passes_over_an_image_that_is_still_to_be_built(fetch, engine):
    assert fetch(check=True)["changed"] is True
    assert "--check" in command(engine)["argv"]
    assert fetch(check=True, image="iopaint:cpu-none")["skipped"] is True


EVENT = {"repository": "owner/model", "revision": COMMIT, "state": "begins", "files": 3, "bytes": 2_100_000_000}
EVENT.update(fetched=0, seconds=0.5)


def event(**keys):
    return json.dumps({**EVENT, **keys}) + "\n"


def test_how_far_it_is_goes_to_the_log_without_a_secret_and_the_rest_to_the_message(fetch, engine, tmp_path):
    (tmp_path / "models.log").write_text("of an earlier download\n")
    secrets = {
        "token": "hf_secret",
        "endpoint": "https://u:pw1@mirror.example.com",
        "environment": {"HTTPS_PROXY": "http://u:pw2@p"},
    }
    said = event() + "a warning\n" + event(state="waits", reason="https://u:pw1@mirror.example.com pw2 hf_secret: 503")
    done = fetch(err=said, **secrets)
    log = (tmp_path / "models.log").read_text()
    assert [json.loads(line)["state"] for line in log.splitlines()] == ["begins", "waits"]
    assert "mirror.example.com *** ***: 503" in log
    assert done["seconds"] >= 0
    message = fetch(err=said + "fetch-models: owner/model: no.\n", status=os.EX_UNAVAILABLE, **secrets)["msg"]
    assert "could not be fetched: owner/model: no. See iopaint_hub_endpoint" in message
    assert not [word for word in ("pw1", "pw2", "hf_secret") if word in log + message + json.dumps(done)]


def test_a_call_that_only_looks_downloads_nothing_and_hands_secrets_over_in_memory(fetch, engine, tmp_path):
    secrets = {
        "token": "hf_secret",
        "endpoint": "https://u:pw@mirror.example.com",
        "environment": {"HTTPS_PROXY": "http://u:pw@p"},
    }
    looked = fetch(fetch=False, **secrets)
    assert (looked["needed"], looked["changed"], looked["repositories"][0]["missing_bytes"]) == (True, False, 7)
    assert "--check" in command(engine)["argv"]
    assert not (tmp_path / "models.log").exists()
    path = tmp_path / "iopaint-hub-models.json"
    assert looked["handed_over"] == str(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert json.loads(path.read_text()) == secrets
    done = fetch(handed_over=str(path))
    call = engine.calls("run")[-1]
    assert "--token-stdin" in call["argv"]
    assert (call["env"]["HF_ENDPOINT"], call["env"]["HTTPS_PROXY"]) == (secrets["endpoint"], "http://u:pw@p")
    assert not path.exists()
    assert "hf_secret" not in json.dumps(done)
    assert "pw" not in json.dumps(done)
    assert f"{path} can't be used" in fetch(handed_over=str(path), status=1)["msg"]


def test_where_nothing_is_missing_nothing_is_handed_over(fetch, tmp_path):
    (tmp_path / "iopaint-hub-models.json").write_text("of a play that was killed")
    looked = fetch(fetch=False, answer={"changed": False, "missing_bytes": 0}, token="hf_secret")
    assert (looked["needed"], looked["repositories"][0]["revision"]) == (False, COMMIT)
    assert "handed_over" not in looked
    assert not (tmp_path / "iopaint-hub-models.json").exists()


def test_one_download_at_a_time_holds_the_log(fetch, engine, tmp_path, monkeypatch):
    locks = []
    monkeypatch.setattr(hub_models.fcntl, "flock", lambda stream, how: locks.append((stream.name, how)))
    fetch()
    assert locks == [(str(tmp_path / "models.log"), fcntl.LOCK_EX)]


# ---- what is seen of a download --------------------------------------------------------------------------------------

SECRETS = {"token": "hf_secret", "endpoint": "https://u:pw@mirror.example.com", "environment": {"HTTPS_PROXY": "http://u:pw@p"}}
Host = on_host(ActionModule, log="/i/models.log", repositories=[{"hub": "owner/model"}], **SECRETS)
NEEDED = {"needed": True, "handed_over": "/run/x.json", "repositories": [], "seconds": 0.0}
ONE = {"repository": "owner/model", "revision": COMMIT, "changed": True, "bytes": 2_100_000_000, "missing_bytes": 2_100_000_000}
THERE = {**ONE, "repository": "owner/other", "changed": False, "missing_bytes": 0}
FETCHED = {"changed": True, "repositories": [ONE, THERE], "seconds": 70.0, "ansible_job_id": "j1.2", "finished": True}
SUMMARY = "1 repository, 2.1 GB fetched in 70.0 s (30.0 MB/s)"


def lines(host):
    assert all(line.startswith("gpu-1 fetches models, ") for line in host.said)
    return [line.partition(" s: ")[2] for line in host.said]


def test_where_nothing_is_missing_one_call_is_all(monkeypatch):
    host = Host(monkeypatch, [{"changed": False, "needed": False, "repositories": [THERE]}])
    assert host.go(monkeypatch) == {"changed": False, "repositories": [THERE]}
    assert [(name, args["fetch"]) for name, args, _async in host.calls] == [("hub_models", False)]
    assert not host.said


def test_begin_and_end_of_each_repository_are_said_and_how_far_it_is_each_minute(monkeypatch):
    looks = [seen(event(state="ends"), 900, running=False), seen(event(fetched=600_000_000), 10)]
    looks += [seen(event(state="fetches", fetched=600_000_000 + at * 20_000_000, seconds=at), 10 + at) for at in range(2, 64, 2)]
    looks += [seen(event(state="checks", fetched=2_100_000_000, seconds=64.0), 80)] * 31
    looks += [seen(event(state="ends", fetched=2_100_000_000, seconds=130.5), 90)]
    host = Host(monkeypatch, [NEEDED, JOB, *looks, seen("", 90, finished=True), FETCHED, {}], timeout=600)
    result = host.go(monkeypatch)
    assert result == {key: FETCHED[key] for key in ("changed", "repositories", "seconds")}
    assert lines(host) == [
        "owner/model at 111111111111: 2.1 GB in 3 files, 600 MB of them there",
        "owner/model: 1.8 GB of 2.1 GB (86 %), 20.2 MB/s",
        "owner/model: comparing checksums of 2.1 GB",
        "owner/model took 130.5 s: 2.1 GB, 11.5 MB/s",
        SUMMARY,
    ]
    assert [call[2] for call in host.calls][1] == 600
    assert host._task.async_val == 0


def test_what_runs_in_the_background_has_no_secret_in_its_arguments(monkeypatch):
    host = Host(monkeypatch, [NEEDED, JOB, seen(finished=True), FETCHED, {}])
    host.go(monkeypatch)
    (begun,) = [args for _name, args, limit in host.calls if limit]
    assert begun == {"log": "/i/models.log", "repositories": [{"hub": "owner/model"}], "handed_over": "/run/x.json"}
    assert host.calls[0][1]["token"] == "hf_secret"


def test_with_many_hosts_only_what_takes_long_is_said(monkeypatch):
    text = (
        event()
        + event(state="ends", seconds=20.0)
        + event(repository="owner/large")
        + event(repository="owner/large", state="ends", seconds=70.5)
    )
    host = Host(monkeypatch, [NEEDED, JOB, seen(text, 900), seen("", 900, finished=True), FETCHED, {}], hosts=40)
    host.go(monkeypatch)
    assert lines(host) == ["owner/large took 70.5 s: 2.1 GB, 30.0 MB/s", SUMMARY]


def test_a_download_that_ends_before_its_log_is_looked_at_is_said_too(monkeypatch):
    """What the log has may be an earlier download's."""
    host = Host(monkeypatch, [NEEDED, JOB, seen(event(), 900, finished=True, running=False), FETCHED, {}])
    host.go(monkeypatch)
    assert lines(host) == [SUMMARY]


def test_a_hub_that_is_busy_and_one_that_says_nothing_are_named_each_minute(monkeypatch):
    busy = {"repository": "owner/model", "state": "waits", "wait": 60, "seconds": 1}
    first = json.dumps({**busy, "reason": "the hub answers 429: https://u:pw@mirror.example.com hf_secret"}) + "\n"
    later = event(state="fetches", fetched=1_000_000_000, seconds=61) + json.dumps({**busy, "reason": "it answers 503"}) + "\n"
    looks = [seen(first, 10), *[seen("", 10)] * 40, seen(event() + later, 20), *[seen("", 20)] * 61]
    host = Host(monkeypatch, [NEEDED, JOB, *looks, seen("", 20, finished=True), FETCHED, {}], hosts=1)
    host.go(monkeypatch)
    assert lines(host) == [
        "owner/model; the hub is asked again, as the hub answers 429: https://***@mirror.example.com ***",
        "owner/model at 111111111111: 2.1 GB in 3 files",
        "owner/model: 1.0 GB of 2.1 GB (48 %), 16.5 MB/s; the hub is asked again, as it answers 503",
        "owner/model: 1.0 GB of 2.1 GB (48 %), 0.0 MB/s",
        SUMMARY,
    ]


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        "null",
        '{"state": "begins", "bytes": {}}',
        '{"bytes": 1e999}',
        '{"bytes": ' + "9" * 400 + "}",
        '{"state": "ends"}',
        "{}",
    ],
)
def test_a_line_that_is_not_the_program_s_own_is_passed_over(monkeypatch, line):
    host = Host(monkeypatch, [NEEDED, JOB, seen(line + "\n", 9), *[seen("", 9)] * 31, seen("", 9, finished=True), FETCHED, {}])
    host.go(monkeypatch)
    assert lines(host)[-1] == SUMMARY
    assert len(lines(host)) <= 2


def test_escapes_do_not_reach_the_terminal(monkeypatch):
    host = Host(monkeypatch, [NEEDED, JOB, seen(event(repository="a\x1b[31m/b\n"), 9), seen("", 9, finished=True), FETCHED, {}])
    host.go(monkeypatch)
    assert all(line.isprintable() for line in host.said)


def test_a_download_that_can_not_be_started_is_said(monkeypatch):
    host = Host(monkeypatch, [NEEDED, {"failed": True, "msg": "no async_wrapper"}])
    with pytest.raises(AnsibleActionFail, match="could not be started in the background: no async_wrapper"):
        host.go(monkeypatch)
    assert host._task.async_val == 0


def test_a_log_that_can_not_be_read_is_said(monkeypatch):
    host = Host(monkeypatch, [NEEDED, JOB, {"failed": True, "msg": "Permission denied"}])
    with pytest.raises(AnsibleActionFail, match="can't be followed, its log was not read: Permission denied"):
        host.go(monkeypatch)


def test_a_download_whose_process_is_gone_is_given_up(monkeypatch):
    host = Host(monkeypatch, [NEEDED, JOB, seen(event(), 15), *[seen("", 15, running=False)] * 20])
    with pytest.raises(
        AnsibleActionFail, match=r"^The download of the models ended without a result: .* No instance was touched\."
    ):
        host.go(monkeypatch)
    assert host.now < 60


def test_a_download_that_fails_or_was_stopped_has_no_summary(monkeypatch):
    failed = {"failed": True, "msg": "owner/model could not be fetched"}
    host = Host(monkeypatch, [NEEDED, JOB, seen(finished=True), failed, {}])
    assert host.go(monkeypatch) == failed
    assert not host.said
    host = Host(monkeypatch, [NEEDED, JOB, seen(finished=True), {"failed": True, "msg": "Timeout exceeded"}, {}])
    assert host.go(monkeypatch)["msg"] == (
        "The download of the models was stopped after 43200 s (its timeout); its log is /i/models.log. "
        "No instance was touched. Run the play again: it goes on where the download ended."
    )


def test_a_dry_run_starts_nothing(monkeypatch):
    host = Host(monkeypatch, [{"changed": True, "repositories": [ONE]}], check=True)
    assert host.go(monkeypatch)["changed"]
    assert [args.get("fetch") for _name, args, _async in host.calls] == [None]
