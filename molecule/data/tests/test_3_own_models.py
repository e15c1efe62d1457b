"""Backups without the models that can be fetched again, in a repository of their own, and restores that fetch these."""

import json

import pytest
from conftest import DATA, MODEL, NAME, is_proven
from play import play

CONTAINER = "iopaint-cpu-iopaint-cpu-1"
SOURCE, DECLARED, LORA = "/srv/declared.pt", f"{DATA}/models/torch/declared.pt", f"{DATA}/models/lora/ours [1].safetensors"
REPOSITORY = {"iopaint_backup_repository": "/var/backups/own"}


@pytest.fixture(scope="module")
def fetched(host):
    """Variables of a host with a model that a deploy fetches, and others that only the host has."""
    host(f"head -c 3000000 /dev/urandom > {SOURCE}; mkdir -p {DATA}/models/lora && echo ours > '{LORA}'")
    host(f"chown -R 10001:10001 {DATA}/models/lora")
    checksum = f"sha256:{host(f'sha256sum {SOURCE}').split()[0]}"
    model = {"name": "declared", "url": f"file://{SOURCE}", "checksum": checksum, "path": "torch/declared.pt"}
    run = play("molecule/models/deploy.yml", iopaint_models=[model])
    assert run.rc == 0, run.output
    return {**REPOSITORY, "iopaint_models": [model], "iopaint_backup_models": "own"}


def listed(host):
    return host("iopaint-restic ls latest --tag models").splitlines()


def test_what_a_deploy_fetches_is_left_out_and_the_rest_is_backed_up(host, fetched, tmp_path):
    before = host.state()
    run = play("playbooks/backup.yml", **fetched)
    assert run.rc == 0, run.output
    assert run.says("own models (", "Not backed up, as they can be fetched again, 0.003 GB: declared"), run.output
    assert host.state() == before
    assert {f"/{MODEL}", "/models/lora/ours [1].safetensors", "/left-out.json"} <= {*listed(host)}
    assert "/models/torch/declared.pt" not in listed(host)
    run = play("playbooks/status.yml", iopaint_status_dir=str(tmp_path))
    assert run.rc == 0, run.output
    assert json.loads((tmp_path / "status.json").read_text())["hosts"][0]["backup"]["models"] == "own"


def test_the_timer_does_the_same_and_a_file_that_was_changed_is_kept(host, fetched):
    assert [entry["name"] for entry in host.backup()["fetchable"]] == ["declared"]
    host(f"cp -a {DECLARED} /root/declared.pt && printf x | dd of={DECLARED} bs=1 conv=notrunc status=none")
    assert host.backup()["fetchable"] == []
    assert "/models/torch/declared.pt" in listed(host)
    host(f"cp -a /root/declared.pt {DECLARED}")
    assert host.backup()["ok"]


def test_a_restore_neither_removes_nor_exchanges_what_was_fetched(host, fetched):
    before = host.state()
    run = play("playbooks/restore.yml", **fetched, iopaint_restore_delete=True)
    assert is_proven(run)
    assert run.changed(NAME) == 0, run.output
    assert host.state() == before


def test_what_is_missing_is_fetched_before_anything_is_stopped(host, fetched):
    before = host.sums()
    host(f"rm -r {DATA}/models/*")
    host(f"mv {SOURCE} {SOURCE}.away")
    stands = host.state()
    run = play("playbooks/restore.yml", **fetched)
    assert run.rc == 2, run.output
    assert run.says("Nothing was restored from /var/backups/own", "The model declared of iopaint_models"), run.output
    host(f"rm -rf {DATA}/models/torch")  # the empty folders of the download
    assert host.state()[0] == stands[0]
    host(f"mv {SOURCE}.away {SOURCE}")
    run = play("playbooks/restore.yml", **fetched)
    assert is_proven(run)
    assert run.output.index("Put model weights in their place") < run.output.index("Stop each instance that uses the data")
    assert host.sums() == before


def test_what_nothing_fetches_is_named_with_the_entry_that_it_needs(host, fetched):
    host(f"rm {DECLARED}")
    run = play("playbooks/restore.yml", **{**fetched, "iopaint_models": []})
    assert is_proven(run)
    assert run.says("neither on the host nor in iopaint_models", '{name: "declared", url: …, checksum: "sha256:'), run.output
    assert not host.shell.file(DECLARED).exists
    assert is_proven(play("playbooks/restore.yml", **fetched))
    assert host.shell.file(DECLARED).exists


def test_both_kinds_are_kept_and_restored_whatever_the_variable_says(host, fetched):
    wanted = host.sums()
    own = host.backup()["run"]
    run = play("playbooks/backup.yml", **{**fetched, "iopaint_backup_models": "all"})
    assert run.rc == 0, run.output
    assert "/models/torch/declared.pt" in listed(host)
    host.backup()
    kinds = ["own" in snapshot["tags"] for snapshot in host.snapshots() if "models" in snapshot["tags"]]
    assert set(kinds) == {True, False}
    host(f"docker stop {CONTAINER} && rm -r {DATA}/models")
    assert is_proven(play("playbooks/restore.yml", **fetched))  # the newest one has all
    assert host.sums() == wanted
    host(f"rm '{LORA}'")
    models = {**fetched, "iopaint_backup_models": "all", "iopaint_backup_include": ["models"]}
    run = play("playbooks/restore.yml", **models, iopaint_restore_snapshot=own)
    assert is_proven(run)
    assert run.says("own models: 1 new"), run.output
    assert host.sums() == wanted


def test_a_host_without_a_record_is_backed_up_as_a_whole(host, fetched):
    host("mv /opt/iopaint/instances/models.json /root/")
    run = play("playbooks/backup.yml", **fetched)
    assert run.rc == 0, run.output
    assert run.says("All models are backed up, as no deploy has recorded which it fetches."), run.output
    assert "/models/torch/declared.pt" in listed(host)
    host("mv /root/models.json /opt/iopaint/instances/")
