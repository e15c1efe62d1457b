"""Restores: proven, whole or not at all, and never at the cost of what is newer."""

import json
import re
import textwrap
from pathlib import Path

import pytest
from conftest import DATA, FOLDER, HOSTILE, MODEL, NAME, NEST, OUTPUTS, REST, SSH, Killed, is_proven
from play import ROOT, deployed, play

CONTAINER = "iopaint-cpu-iopaint-cpu-1"
DISK = "/mnt/disk"
LEFT = f"ls -A {DATA} {DATA}/outputs | grep '^[.]' || true"


@pytest.mark.parametrize("way", [SSH, REST])
def test_a_host_whose_data_is_gone_has_it_again(host, way):
    """Without its key too, which the control node has."""
    assert play("playbooks/backup.yml", **way).rc == 0
    before = host.sums()
    host(f"docker stop {CONTAINER} && rm -rf {DATA} /etc/iopaint-backup /var/lib/iopaint-backup")
    run = play("playbooks/restore.yml", **way)
    assert is_proven(run)
    assert host.sums() == before
    assert host(f"find {DATA}/models {OUTPUTS} -not -uid 10001 -o -not -gid 10001") == ""
    assert host(f"stat -c %a {OUTPUTS}/1.png") == "600"
    assert host(f"readlink {DATA}/models/lama.pt") == "torch/hub/checkpoints/big-lama.pt"
    # what the container sees and writes to is the restored folder
    host(f"docker exec {CONTAINER} sh -c 'cat /app/outputs/1.png && echo x > /app/outputs/after.png'")
    assert host(f"cat {OUTPUTS}/after.png && rm {OUTPUTS}/after.png") == "x"
    assert host.audit()[-1]["action"] == "restored"
    assert host(LEFT) == ""
    print(f"a restore of 40 MB took {run.seconds:.1f} s")


def test_pictures_of_any_name_come_back(host):
    """What a backup leaves out is named, and hinders no restore."""
    for name, text in HOSTILE.items():
        host.shell.check_output("printf %s > %s", text, f"{OUTPUTS}/{name}")  # quoted by testinfra
    host.as_container(f'python3 -c "{NEST}"; mkfifo fifo; truncate -s 8T sparse.png; printf v > $(printf "bad\\377.png")')
    run = play("playbooks/backup.yml")
    assert run.rc == 2, run.output
    assert run.says("LEFT OUT. The rest is backed up"), run.output
    host(f"find {OUTPUTS} -mindepth 1 -delete")
    run = play("playbooks/restore.yml")
    assert is_proven(run)
    for name, text in HOSTILE.items():
        assert host.shell.check_output("cat %s", f"{OUTPUTS}/{name}") == text
    assert host(f"cd {OUTPUTS} && cat bad*.png && find deep | wc -l && ls fifo sparse.png 2>/dev/null || true") == "v99"
    host(f"find {OUTPUTS} -mindepth 1 -not -path '*/folder*' -not -name '[123].png' -delete")
    assert host(LEFT) == ""


@pytest.fixture
def disk(host):
    """The outputs are a link to another disk, a small one."""
    host(f"mkdir -p {DISK} && mount -t tmpfs -o size=60m disk {DISK}")
    host(f"docker stop {CONTAINER} && mv {OUTPUTS} {DISK}/pictures && ln -s {DISK}/pictures {OUTPUTS}")
    host(f"docker start {CONTAINER}")
    yield
    host(f"docker stop {CONTAINER} && rm {OUTPUTS} && mv {DISK}/pictures {OUTPUTS} && docker start {CONTAINER}")
    host(f"umount {DISK}")


def test_outputs_on_another_disk_are_exchanged_there(host, disk):
    assert host.backup()["ok"]
    before = host.sums(f"{DISK}/pictures")
    host(f"rm {OUTPUTS}/1.png; echo new > {OUTPUTS}/new.png")
    run = play("playbooks/restore.yml", iopaint_restore_delete=True)
    assert is_proven(run)
    assert host.sums(f"{DISK}/pictures") == before
    assert host(f"readlink {OUTPUTS}; docker exec {CONTAINER} cat /app/outputs/1.png") == f"{DISK}/pictures\npicture 1"
    assert host(f"cat {DISK}/.previous-pictures-*/new.png") == "new"
    host(f"rm -r {DISK}/.previous-*")


def test_a_disk_that_is_full_or_fills_up_is_named_and_nothing_is_restored(host, disk):
    host(f"head -c 20000000 /dev/urandom > {OUTPUTS}/large.png")
    assert host.backup()["ok"]
    host(f"rm {OUTPUTS}/large.png; fallocate -l 30M {DISK}/full")
    before = host.state()
    run = play("playbooks/restore.yml")
    assert run.rc == 2, run.output
    assert run.says(f"The restore takes 0.04 GB in {DISK}, and", "free there. Free some, then restore again."), run.output
    assert host.state() == before
    host(f"rm {DISK}/full")
    host.shell.check_output(
        "systemd-run --quiet --collect sh -c %s",
        f"until test -e {DISK}/.restore-pictures-*; do sleep 0.05; done; cat /dev/zero > {DISK}/full",
    )
    run = play("playbooks/restore.yml", iopaint_backup_restic_options=["--limit-download=4000"])
    assert run.rc == 2, run.output
    assert run.says("Nothing was restored", "There is no room left"), run.output
    assert host.state() == before
    assert host(f"ls -A {DISK}; {LEFT}") == "full\npictures"
    host(f"rm {DISK}/full")


def test_a_second_restore_changes_nothing(host):
    assert play("playbooks/backup.yml").rc == 0  # an earlier test's settings are in the host's configuration
    before = host.sums(), deployed(host.shell)
    run = play("playbooks/restore.yml")
    assert is_proven(run)
    assert run.changed(NAME) == 0, run.output
    assert (host.sums(), deployed(host.shell)) == before
    assert host(LEFT) == ""


def test_a_dry_run_compares_and_changes_nothing(host):
    host(f"rm {OUTPUTS}/1.png")
    before = host.state()
    run = play("playbooks/restore.yml", "--check", "--diff")
    assert run.rc == 0, run.output
    assert run.says("+outputs/cpu/1.png (new)"), run.output
    assert host.state() == before


def test_only_what_is_missing_or_damaged_is_put_back_and_what_is_newer_stays(host):
    """Models differ too, and the instance is started anew; what was replaced is kept beside."""
    host(f"echo damaged > {DATA}/{MODEL}; rm -rf {OUTPUTS}/folder")
    host.as_container("echo worked on > 2.png; echo new > new.png")
    before = deployed(host.shell)
    run = play("playbooks/restore.yml")
    assert is_proven(run)
    assert run.says("models: 1 changed", "1 newer and left"), run.output
    assert host(f"cat {OUTPUTS}/1.png {OUTPUTS}/2.png {OUTPUTS}/new.png") == "picture 1\nworked on\nnew"
    assert host(f"ls {OUTPUTS}/folder") == "ü [x].png"
    assert host(f"iopaint-restic dump {host.latest('models')} /{MODEL} | sha256sum").split()[0] == host.sums()[f"./{MODEL}"]
    (previous,) = re.findall(rf"{DATA}/\.previous-models-\w+", "".join(run.output.split()))
    assert host(f"cd {previous} && find . -type f -exec cat {{}} +") == "damaged"
    assert deployed(host.shell) != before
    run = play("playbooks/restore.yml", iopaint_restore_delete=True, iopaint_restore_keep_previous=False)
    assert is_proven(run)
    assert host(f"cat {OUTPUTS}/2.png") == "picture 2"
    assert not host.shell.file(f"{OUTPUTS}/new.png").exists
    host(f"rm -r {previous}")
    assert host(LEFT) == ""


def test_what_does_not_serve_is_put_back_with_what_was_saved_meanwhile(host):
    """The instance is killed as soon as it runs with the restored data, and somebody saves a picture."""
    host(f"echo the previous > {DATA}/{MODEL}; rm {OUTPUTS}/3.png")
    before = host.sums()
    host.shell.check_output(
        "systemd-run --quiet --collect sh -c %s",
        f"until test -e {DATA}/.restore-models-*/models -a -e {OUTPUTS}/3.png; do sleep 0.05; done;"
        f"echo saved > {OUTPUTS}/saved.png;"
        f"while test -e {DATA}/.restore-models-*/models; do docker kill {CONTAINER}; sleep 0.1; done",
    )
    run = play("playbooks/restore.yml", iopaint_start_timeout=10)
    assert run.rc == 2, run.output
    assert run.says("The previous data was put back (models, outputs/cpu), and the instances are proven with it."), run.output
    assert host(f"cat {OUTPUTS}/saved.png; rm {OUTPUTS}/saved.png") == "saved"
    assert host.sums() == before
    assert host(LEFT) == ""
    assert host.audit()[-1]["action"] == "restore put back"
    assert not host.shell.file("/run/iopaint/lock").exists


def test_the_control_node_is_lost_and_every_play_cleans_up(host, tmp_path):
    """The next play is a backup. What was exchanged stays, and what it replaced is kept."""
    host(f"echo damaged > {DATA}/{MODEL}; rm -f {OUTPUTS}/1.png")
    Killed("playbooks/restore.yml", "Start instances and wait until they are healthy")
    host.as_container("echo saved > saved.png")
    play("playbooks/status.yml", iopaint_status_dir=str(tmp_path))
    notes = json.loads((tmp_path / "status.json").read_text())["hosts"][0]["notes"]
    assert [note for note in notes if note.startswith("A restore was interrupted here")], notes
    run = play("playbooks/backup.yml", iopaint_backup_include=["models"])
    assert run.rc == 0, run.output
    assert run.says("A restore of models, outputs/cpu was interrupted on this host: restored: models, outputs/cpu"), run.output
    assert host(f"cat {DATA}/.previous-models-*/torch/hub/checkpoints/*; cat {OUTPUTS}/1.png") == "damaged\npicture 1"
    run = play("playbooks/restore.yml", iopaint_restore_keep_previous=False)
    assert is_proven(run)
    assert host(f"cat {OUTPUTS}/saved.png") == "saved"
    host(f"rm -r {DATA}/.previous-* {DATA}/outputs/.previous-* {OUTPUTS}/saved.png")
    assert host(LEFT) == ""


@pytest.mark.parametrize(
    "task",
    [
        "Restore the snapshots into them",
        "Stop each instance that uses the data",
        "Exchange the folders",
        "Keep the files that were replaced",
    ],
)
def test_a_play_that_is_killed_leaves_what_the_next_restore_makes_whole(host, task):
    """With a picture that somebody saves between the two. Of the first step a restic is left over, which must not disturb."""
    wanted = host.sums()
    host(f"echo damaged > {DATA}/{MODEL}; rm {OUTPUTS}/1.png")
    # so slow that the step is still going on when the play is killed
    slow = {"iopaint_backup_restic_options": ["--limit-download=4000"]} if task == "Restore the snapshots into them" else {}
    Killed("playbooks/restore.yml", task, **slow)
    host.as_container("echo saved > saved.png")
    run = play("playbooks/restore.yml", iopaint_restore_keep_previous=False)
    assert is_proven(run)
    assert host(f"cat {OUTPUTS}/saved.png") == "saved"
    host(f"rm -rf {OUTPUTS}/saved.png {DATA}/.previous-* {DATA}/outputs/.previous-*")
    assert host.sums() == wanted
    assert host(LEFT) == ""


def test_a_wrong_key_is_named_and_does_not_stop_scheduled_backups(host):
    before = host.state()
    run = play("playbooks/restore.yml", iopaint_backup_key="wrong")
    assert run.rc == 2, run.output
    assert run.says("The key is not that of the repository: set iopaint_backup_key", "The host keeps the key that it had."), (
        run.output
    )
    assert host.state() == before
    assert host.backup()["ok"]


def test_the_data_of_another_host(host):
    assert play("playbooks/backup.yml").rc == 0  # an earlier test's settings leave the outputs out
    host('sed -i \'s/"host": "[^"]*"/"host": "lost"/\' /etc/iopaint-backup/config.json')
    wanted = host.sums()
    assert host.backup()["ok"]
    host(f"rm -r {OUTPUTS}/folder")
    run = play("playbooks/restore.yml", iopaint_restore_host="lost", iopaint_backup_include=["outputs"])
    assert is_proven(run)
    assert host.sums() == wanted
    run = play("playbooks/restore.yml", iopaint_restore_host="ghost")
    assert run.rc == 2, run.output
    assert run.says(f"Hosts that have snapshots in the repository (iopaint_restore_host): {NAME}, lost"), run.output


def test_an_unknown_snapshot_is_answered_with_what_there_is(host):
    before = host.state()
    run = play("playbooks/restore.yml", iopaint_restore_snapshot="yesterday")
    assert run.rc == 2, run.output
    assert run.says("There is no backup yesterday (iopaint_restore_snapshot)", "outputs/cpu ("), run.output
    assert host.state() == before


def test_a_backup_of_an_earlier_release_is_added_and_restored(host):
    """By the commands of docs/backup.md, on what the form by rsync looked like."""
    block = next(
        text for text in (ROOT / "docs" / "backup.md").read_text().split("\n\n") if "manifest.json" in text and "cd /" in text
    )
    commands = textwrap.dedent(block).replace("gpu-01.example.com", NAME)
    folder = commands.split()[1]
    host(
        f"mkdir -p {folder} && cd {folder} && cp -a {DATA}/models {DATA}/outputs . && echo older > outputs/cpu/older.png;"
        "apt-get install -y --no-install-recommends jq >/dev/null;"
        "find * -type f -exec sha256sum {} + | jq -Rn "
        "'{entries: [inputs | capture(\"(?<sha256>\\\\w+)  (?<path>.*)\")]}' > ../manifest; mv ../manifest manifest.json"
    )
    host(commands)
    run = play("playbooks/restore.yml", iopaint_restore_snapshot=Path(folder).name)
    assert is_proven(run)
    assert host(f"cat {OUTPUTS}/older.png; rm {OUTPUTS}/older.png") == "older"
    host(f"echo damaged > {folder}/models/lama.pt")
    before = {snapshot["id"] for snapshot in host.snapshots()}
    assert "FAILED" in host.shell.run(commands).stdout
    assert {snapshot["id"] for snapshot in host.snapshots()} == before  # two are of one time, which come in any order
    host(f"rm -r {FOLDER}/{NAME}")


# Last, as it damages the repository.
def test_a_damaged_repository_is_named_and_refused(host):
    before = host.state()
    packs = host(f"find {FOLDER}/data -type f -size +1000k").split()
    assert packs
    for pack in packs:
        host(f"printf XXXX | dd of={pack} bs=1 seek=500000 conv=notrunc status=none")
    run = play("playbooks/restore.yml")
    assert run.rc == 2, run.output
    assert run.says("Nothing was restored", "/var/backups/iopaint"), run.output
    assert host.state() == before
    assert host.audit()[-1]["action"] == "restore refused"
    host('sed -i \'s/"check_parts": [0-9]*/"check_parts": 1/\' /etc/iopaint-backup/config.json')
    assert "restic check ended with status" in host.backup(right=1)["reason"]
