"""Restores: proven, whole or not at all, and never at the cost of what is newer."""

import re

import pytest
from conftest import DAEMON, FOLDER, MODEL, NAME, SSH, Killed
from play import deployed, play

OUTPUTS = "/var/lib/iopaint/outputs/cpu"


def is_proven(run):
    """The play ended with a real inpainting."""
    assert run.rc == 0, run.output
    assert run.says("http://127.0.0.1:8080 inpaints with cv2", "pixels under the mask changed, 0 elsewhere"), run.output
    return True


@pytest.mark.parametrize("way", [SSH, DAEMON])
def test_a_host_whose_data_is_gone_has_it_again(host, way):
    before = host.sums()
    host("docker stop iopaint-cpu-iopaint-cpu-1 && rm -rf /var/lib/iopaint")
    run = play("playbooks/restore.yml", **way)
    assert is_proven(run)
    assert host.sums() == before
    assert host("find /var/lib/iopaint/models /var/lib/iopaint/outputs/cpu -not -uid 10001 -o -not -gid 10001") == ""
    assert host(f"stat -c %a {OUTPUTS}/1.png") == "600"
    assert host("readlink /var/lib/iopaint/models/lama.pt") == "torch/hub/checkpoints/big-lama.pt"
    # what the container sees and writes to is the restored folder
    host("docker exec iopaint-cpu-iopaint-cpu-1 sh -c 'cat /app/outputs/1.png && echo x > /app/outputs/after.png'")
    assert host(f"cat {OUTPUTS}/after.png && rm {OUTPUTS}/after.png") == "x"
    assert host.audit()[-1]["action"] == "restored"
    print(f"a restore of 70 MB took {run.seconds:.1f} s")


def test_the_same_again_changes_nothing(host):
    before = host.state()
    run = play("playbooks/restore.yml", **SSH)
    assert is_proven(run)
    assert run.changed(NAME) == 0, run.output
    assert host.state() == before
    assert host.audit()[-1]["action"] == "restored"


def test_a_dry_run_compares_and_changes_nothing(host):
    host(f"rm {OUTPUTS}/1.png")
    before = host.state()
    run = play("playbooks/restore.yml", "--check", "--diff")
    assert run.rc == 0, run.output
    assert run.says("+outputs/cpu/1.png (new)"), run.output
    assert host.state() == before


def test_only_what_is_missing_or_damaged_is_put_back_and_what_is_newer_stays(host):
    """Models differ too, and the instance is started anew; what was replaced is kept beside."""
    host(
        f"echo damaged > /var/lib/iopaint/{MODEL}; echo worked on > {OUTPUTS}/2.png; echo new > {OUTPUTS}/new.png;"
        f"rm -rf {OUTPUTS}/folder; chown -R 10001:10001 {OUTPUTS}"
    )
    before = deployed(host.shell)
    run = play("playbooks/restore.yml")
    assert is_proven(run)
    assert run.says("models: 1 changed", "1 newer and left"), run.output
    assert host(f"cat {OUTPUTS}/1.png {OUTPUTS}/2.png {OUTPUTS}/new.png") == "picture 1\nworked on\nnew"
    assert host(f"ls {OUTPUTS}/folder") == "ü [x].png"
    assert host.sums()[f"./{MODEL}"] == host.sums(f"{FOLDER}/{NAME}/{host.backups()[-1]}")[f"./{MODEL}"]
    (former,) = re.findall(r"/var/lib/iopaint/\.former-models-\w+", "".join(run.output.split()))
    assert host(f"cd {former} && find . -type f") == "./torch/hub/checkpoints/big-lama.pt"
    assert host(f"cat {former}/torch/hub/checkpoints/big-lama.pt") == "damaged"
    assert deployed(host.shell) != before
    run = play("playbooks/restore.yml", iopaint_restore_delete=True, iopaint_restore_keep_former=False)
    assert is_proven(run)
    assert host(f"cat {OUTPUTS}/2.png") == "picture 2"
    assert not host.shell.file(f"{OUTPUTS}/new.png").exists
    assert host("ls -A /var/lib/iopaint /var/lib/iopaint/outputs | grep '^[.]' || true") == ""


def test_what_is_not_good_after_the_exchange_is_put_back(host):
    """Somebody damages the restored model as soon as it is in place."""
    host(f"echo the former > /var/lib/iopaint/{MODEL}")
    before = host.sums()
    host(
        "systemd-run --quiet --collect sh -c "
        f"'until ls -d /var/lib/iopaint/.former-models-*; do sleep 0.05; done; truncate -s 1 /var/lib/iopaint/{MODEL}'"
    )
    run = play("playbooks/restore.yml", iopaint_backup_include=["models"])
    assert run.rc == 2, run.output
    assert run.says(
        f"What was restored is not what the manifest says: {MODEL} has 1 bytes and had 40000000",
        "The former data was put back (models), and the instances are proven with it.",
    ), run.output
    assert host.sums() == before
    assert host("ls -A /var/lib/iopaint | grep '^[.]' || true") == ""
    assert host.audit()[-1]["action"] == "restore put back"
    assert not host.shell.file("/run/iopaint/lock").exists


def test_the_control_node_is_lost_and_the_same_command_again_converges(host):
    host(f"echo damaged > /var/lib/iopaint/{MODEL}; rm -f {OUTPUTS}/1.png")
    Killed("playbooks/restore.yml", "Start instances and wait until they are healthy")
    run = play("playbooks/restore.yml", iopaint_restore_keep_former=False)
    assert is_proven(run)
    assert run.says("The lock was held by restore of", "It was taken over"), run.output
    wanted = host.sums(f"{FOLDER}/{NAME}/{host.backups()[-1]}")
    del wanted["./manifest.json"]
    assert host.sums() == wanted
    assert host("ls -A /var/lib/iopaint /var/lib/iopaint/outputs | grep '^[.]' || true") == ""


def test_an_unknown_backup_is_answered_with_what_there_is(host):
    run = play("playbooks/restore.yml", iopaint_restore_from="yesterday")
    assert run.rc == 2, run.output
    assert run.says("There is no backup yesterday (iopaint_restore_from)", f"{host.backups()[-1]}: models, outputs/cpu"), (
        run.output
    )


# Last, as they damage the backups.
@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (f"printf X | dd of={MODEL} bs=1 seek=20000000 conv=notrunc status=none", f"{MODEL} has another content"),
        ("rm manifest.json", "is damaged: it has no manifest.json"),
    ],
)
def test_a_damaged_backup_is_named_and_refused(host, damage, sentence):
    name = host.backups()[-1]
    before = host.state()
    host(f"cd {FOLDER}/{NAME}/{name} && time=$(stat -c @%.9Y {MODEL}) && {damage} && touch -d $time {MODEL}")
    run = play("playbooks/restore.yml", iopaint_restore_from=name)
    assert run.rc == 2, run.output
    assert run.says("Nothing was restored.", f"{FOLDER}/{NAME}/{name}", sentence), run.output
    assert host.state() == before
    assert host.audit()[-1]["action"] == "restore refused"
