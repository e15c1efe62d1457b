"""Backups while the instance serves and writes: whole, cheap, kept as long as asked, and honest where something went wrong."""

import json
import time

import pytest
from conftest import FOLDER, HOSTILE, KEY, MODEL, NAME, NEST, OUTPUTS, REST, SSH
from play import deployed, play

# As IOPaint saves: a file is opened, written in pieces and closed. One stays open for as long as the backup may wait, and longer.
WRITER = """
import os, time
slow, number = open("/app/outputs/slow [1].png", "w"), 0
while not os.path.exists("/app/outputs/stop"):
    number += 1
    with open("/app/outputs/w-%d.png" % number, "w") as stream:
        stream.write("half of %d," % number); stream.flush(); time.sleep(0.02); stream.write("other half of %d" % number)
    slow.write("more"); slow.flush()
"""
# Exchanges a folder for a link to /etc as fast as the kernel does it, as the containers' user.
EXCHANGER = """
import ctypes, os, time
os.chdir("/var/lib/iopaint/outputs/cpu"); os.setuid(10001)
library, end = ctypes.CDLL(None), time.time() + 300
while time.time() < end and not os.path.exists("stop"):
    library.renameat2(-100, b"real", -100, b"link", 2)
"""


@pytest.fixture(scope="module")
def first(host):
    """A backup while a process of the container writes outputs."""
    host(f"docker exec -d iopaint-cpu-iopaint-cpu-1 /usr/bin/python3 -c '{WRITER}'")
    before = deployed(host.shell)
    run = play("playbooks/backup.yml", iopaint_backup_wait=3)
    written = host(f"ls {OUTPUTS}")
    host(f"cd {OUTPUTS} && touch stop && sleep 1 && rm stop slow*")
    assert run.rc == 0, run.output
    assert "w-1.png" in written
    return run, before


def test_it_is_made_while_the_instance_serves_and_writes(host, first):
    run, before = first
    assert deployed(host.shell) == before
    assert host.audit()[-1]["action"] == "backup"
    made = host.unpacked()
    now = host.sums()
    assert made.items() <= now.items()  # no half-written file is in it
    assert len([path for path in made if "/w-" in path]) > 5
    assert {f"./{MODEL}", "./outputs/cpu/1.png", "./outputs/cpu/folder/ü [x].png"} <= made.keys()
    assert run.says("outputs/cpu/slow [1].png: it was still written to after 3 s (iopaint_backup_wait)"), run.output
    host(f"rm {OUTPUTS}/w-*")


def test_the_key_is_handed_to_the_control_node_and_shown_nowhere(host, first):
    run, _before = first
    key = KEY.read_text().strip()
    assert run.says("KEEP THIS FILE", "WITHOUT IT NO BACKUP CAN BE READ"), run.output
    assert key not in run.output
    assert len(key) == 43
    assert KEY.stat().st_mode & 0o777 == 0o600
    assert host("stat -c '%a %U:%G' /etc/iopaint-backup /etc/iopaint-backup/key /etc/iopaint-backup/environment").split("\n") == [
        "750 root:iopaint-backup",
        "640 root:iopaint-backup",
        "600 root:root",
    ]
    with_key = host(f"grep -rlF {key} /etc /run /var/log /var/lib/iopaint-backup /usr/local /opt || true").split()
    assert with_key == ["/etc/iopaint-backup/key"]


def test_nobody_else_reads_the_repository_and_restic_is_not_root(host, first):
    assert host(f"stat -c '%a %U' {FOLDER}") == "700 iopaint-backup"
    assert host(f"find {FOLDER} -not -user iopaint-backup") == ""
    assert host(f"find {FOLDER} -type f -perm /077") == ""


def test_a_dry_run_changes_nothing(host, first):
    before = host.state(), host.snapshots()
    run = play("playbooks/backup.yml", "--check", "--diff")
    assert run.rc == 0, run.output
    assert run.says("0.000 GB of it new"), run.output
    assert (host.state(), host.snapshots()) == before


def test_later_ones_are_cheap_and_old_ones_go(host, first):
    host(f"head -c 1000000 /dev/urandom > {OUTPUTS}/more.png")
    used = int(host(f"du -sk {FOLDER}").split()[0])
    results = [host.backup() for _time in range(2)]
    assert int(host(f"du -sk {FOLDER}").split()[0]) - used < 2000  # of 40 MB
    assert 1_000_000 < results[0]["added"] < 1_100_000
    assert results[1]["forgotten"] > 0
    # The last of the day is left, and for newer versions of restic the oldest of all.
    assert 1 <= len([snapshot for snapshot in host.snapshots() if "models" in snapshot["tags"]]) <= 2
    assert {snapshot["hostname"] for snapshot in host.snapshots()} == {NAME}
    assert results[1]["share"] == results[0]["share"] + 1  # of the data that is read


def test_a_file_of_any_name_is_backed_up_and_what_cannot_be_is_named(host, first):
    for name, text in HOSTILE.items():
        host.shell.check_output("printf %s > %s", text, f"{OUTPUTS}/{name}")  # quoted by testinfra
    host.as_container(f'python3 -c "{NEST}"; mkfifo fifo; truncate -s 8T sparse.png; ln -s /etc/shadow link; mkdir shut')
    host.as_container("echo shut > shut/x; chmod 0 shut/x; chmod 0 shut; touch $(printf 'bad\\377.png')")
    run = play("playbooks/backup.yml")
    assert run.rc == 2, run.output
    assert run.says(
        "LEFT OUT. The rest is backed up",
        "outputs/cpu/fifo: it is neither file, folder nor link",
        "outputs/cpu/sparse.png: it is a sparse file of 8796093022208 bytes",
        "it lies below 100 folders",
    ), run.output
    assert not host.shell.file("/run/iopaint/lock").exists
    snapshot = host.latest()
    for name, text in HOSTILE.items():
        assert host.shell.check_output("iopaint-restic dump %s %s", snapshot, f"/outputs/cpu/{name}") == text
    assert host(f"iopaint-restic dump {snapshot} /outputs/cpu/shut/x") == "shut"
    listed = host(f"iopaint-restic ls {snapshot} | cat -v")
    assert "/outputs/cpu/link" in listed
    assert "/outputs/cpu/badM-^?.png" in listed
    assert "fifo" not in listed
    assert "sparse" not in listed
    assert host.audit()[-1]["action"] == "backup failed"
    host(f"cd {OUTPUTS} && rm -rf deep fifo sparse.png link shut bad*")
    assert host.backup()["ok"]


def test_a_link_exchanged_for_a_folder_is_not_followed(host):
    host.as_container("mkdir real; echo mine > real/shadow; ln -s /etc link")
    host.shell.check_output("systemd-run --quiet --collect python3 -c %s", EXCHANGER)
    for _time in range(3):
        host.shell.run("iopaint-backup")
        snapshot = host.latest()
        for name in ("real", "link"):
            dumped = host.shell.run(f"iopaint-restic dump {snapshot} /outputs/cpu/{name}/shadow")
            assert dumped.stdout in ("", "mine\n")
    host(f"cd {OUTPUTS} && touch stop && sleep 1 && rm -rf stop real link")
    assert host.backup()["ok"]


def test_data_behind_a_link_to_another_disk_is_backed_up(host):
    host("mkdir -p /mnt/disk && mount -t tmpfs disk /mnt/disk && cp -a /var/lib/iopaint/outputs/cpu /mnt/disk/pictures")
    host(f"mv {OUTPUTS} /root/cpu && ln -s /mnt/disk/pictures {OUTPUTS} && echo behind > {OUTPUTS}/behind.png")
    assert host.backup()["counts"]["outputs/cpu"] > 3
    assert host(f"iopaint-restic dump {host.latest()} /outputs/cpu/behind.png") == "behind"
    host("umount /mnt/disk")
    result = host.backup(right=3)
    assert "outputs/cpu: it is no folder of an instance, or a link to nothing" in result["reason"]
    assert list(result["snapshots"]) == ["models"]
    host(f"rm {OUTPUTS} && mv /root/cpu {OUTPUTS}")
    assert host.backup()["ok"]


def test_what_the_container_could_exchange_is_refused(host):
    host.as_container("mkdir inside")
    host(f"ln -s cpu/inside {OUTPUTS}-2")
    result = host.backup(right=1)
    assert f"{OUTPUTS}/inside lies in {OUTPUTS}, which belongs to the containers' user" in result["reason"]
    assert sorted(result["snapshots"]) == ["models", "outputs/cpu"]
    host(f"rm {OUTPUTS}-2 && rmdir {OUTPUTS}/inside")


@pytest.mark.parametrize("victim", ["iopaint-backup", "restic"])
def test_a_killed_one_leaves_nothing_that_stops_the_next(host, victim):
    host(f"head -c 30000000 /dev/urandom > {OUTPUTS}/large.png")
    host("sed -i 's/^  restic /  restic --limit-upload=3000 /' /usr/local/sbin/iopaint-restic")
    host("systemd-run --quiet --collect --unit=victim iopaint-backup")
    host("until pgrep -f '[r]estic.* backup .*outputs/cpu'; do sleep 0.1; done; sleep 1")
    pattern = {"iopaint-backup": "[i]opaint-backup --inside", "restic": "^[r]estic .*outputs/cpu"}[victim]
    host(f"kill -9 $(pgrep -f -- '{pattern}')")
    host("sed -i 's/--limit-upload=3000 //' /usr/local/sbin/iopaint-restic")
    host("until test $(systemctl show --property=ActiveState --value victim) = inactive; do sleep 0.2; done")  # restic ends too
    assert host.backup()["ok"]
    assert host("grep -c iopaint-backup /proc/mounts || true") == "0"
    assert host("iopaint-restic list locks") == ""
    host(f"rm {OUTPUTS}/large.png")


def test_a_second_one_at_the_same_time_is_refused(host):
    holder = "flock /run/iopaint-backup/lock"
    assert "An earlier backup of this host is still at work" in host.backup(holder, right=1)["reason"]


def test_a_full_disk_is_named_and_hurts_nobody(host):
    host("mkdir -p /mnt/small && mount -t tmpfs -o size=20m small /mnt/small")
    before = host.state()
    run = play("playbooks/backup.yml", iopaint_backup_repository="/mnt/small/iopaint", iopaint_backup_mount="/mnt/small")
    assert run.rc == 2, run.output
    assert run.says("There is no room left", "no space left on device"), run.output
    assert host.state() == before
    host("umount /mnt/small")
    run = play("playbooks/backup.yml", iopaint_backup_repository="/mnt/small/iopaint", iopaint_backup_mount="/mnt/small")
    assert run.rc == 2, run.output
    assert run.says("Nothing is mounted at /mnt/small (iopaint_backup_mount)"), run.output
    assert host("ls -A /mnt/small") == ""


def test_a_wrong_key_is_named_and_the_right_one_is_not_lost(host):
    run = play("playbooks/backup.yml", iopaint_backup_repository=FOLDER, iopaint_backup_key="wrong")
    assert run.rc == 2, run.output
    assert run.says("The key is not that of the repository: set iopaint_backup_key"), run.output
    assert KEY.read_text() in host("cat /etc/iopaint-backup/key*") + "\n"
    run = play("playbooks/backup.yml")
    assert run.rc == 0, run.output
    assert not run.says("KEEP THIS FILE"), run.output


@pytest.mark.parametrize("way", [SSH, REST])
def test_a_backup_to_another_host(host, way):
    run = play("playbooks/backup.yml", **way)
    assert run.rc == 0, run.output
    assert "a pass'word" not in run.output
    assert host.unpacked() == host.sums()
    assert host.backup()["ok"]


def test_a_lost_connection_is_named(host, store):
    """The server ends in the middle of a backup, and begins again before restic gives up; then it stays away."""
    host(f"head -c 30000000 /dev/urandom > {OUTPUTS}/large.png")
    host("sed -i 's/^  restic /  restic --limit-upload=5000 /' /usr/local/sbin/iopaint-restic")
    host("systemd-run --quiet --collect --unit=lost iopaint-backup")
    host("until pgrep -f '[r]estic.* backup .*outputs/cpu'; do sleep 0.1; done; sleep 1")
    store("systemctl kill -s KILL rest; sleep 3; systemctl restart rest")
    host(
        "while systemctl --quiet is-active lost; do sleep 0.5; done;"
        "sed -i 's/--limit-upload=5000 //' /usr/local/sbin/iopaint-restic"
    )
    assert json.loads(host("cat /var/lib/iopaint-backup/last.json"))["ok"]
    host(f"rm {OUTPUTS}/large.png")


def test_the_timer_backs_up_and_its_result_is_in_the_status(host, tmp_path):
    run = play("playbooks/backup.yml", iopaint_backup_schedule="*-*-* 03:00:00")
    assert run.rc == 0, run.output
    assert host("systemctl is-active iopaint-backup.timer; systemctl is-enabled iopaint-backup.timer") == "active\nenabled"
    # a play holds the lock
    host("mkdir -p /run/iopaint && echo '{}' > /run/iopaint/lock && systemctl start --no-block iopaint-backup && sleep 5")
    assert host("pgrep -x restic || true") == ""
    host("rm /run/iopaint/lock; while systemctl is-active iopaint-backup | grep -q activating; do sleep 0.5; done")
    last = json.loads(host("cat /var/lib/iopaint-backup/last.json"))
    assert (last["ok"], last["scheduled"]) == (True, True)
    run = play("playbooks/status.yml", iopaint_status_dir=str(tmp_path))
    assert run.rc == 0, run.output
    backup = json.loads((tmp_path / "status.json").read_text())["hosts"][0]["backup"]
    assert backup == {key: last[key] for key in ("time", "ok", "reason", "scheduled", "models")}
    run = play("playbooks/backup.yml")
    assert run.rc == 0, run.output
    assert host("ls /etc/systemd/system/iopaint-backup.* 2>/dev/null || true") == ""


def test_a_hundred_thousand_pictures(host):
    host.as_container("mkdir many; cd many; python3 -c \"[open('%d.png' % n, 'w').write(str(n)) for n in range(100000)]\"")
    start = time.monotonic()
    result = host.backup()
    first_s, start = time.monotonic() - start, time.monotonic()
    host.backup()
    print(f"100,000 pictures took {first_s:.0f} s, and {time.monotonic() - start:.0f} s again")
    assert result["counts"]["outputs/cpu"] > 100_000
    host(f"rm -rf {OUTPUTS}/many")
