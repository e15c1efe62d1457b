"""Backups while the instance serves and writes: whole, cheap, kept as long as asked, and none where something went wrong."""

import pytest
from conftest import DAEMON, FOLDER, MODEL, NAME, SSH
from play import deployed, play

# As IOPaint saves: a file is opened, written in pieces and closed. One stays open for as long as the backup may wait, and longer.
WRITER = """
import os, time
slow, number = open("/app/outputs/slow.png", "w"), 0
while not os.path.exists("/app/outputs/stop"):
    number += 1
    with open(f"/app/outputs/w-{number % 40}.png", "w") as stream:
        stream.write("half of %d," % number); stream.flush(); time.sleep(0.02); stream.write("other half of %d" % number)
    slow.write("more"); slow.flush()
"""


@pytest.fixture(scope="module")
def first(host):
    """A backup while a process of the container writes outputs."""
    host(f"docker exec -d iopaint-cpu-iopaint-cpu-1 /usr/bin/python3 -c '{WRITER}'")
    before = deployed(host.shell)
    run = play("playbooks/backup.yml", iopaint_backup_wait=3)
    written = host("ls /var/lib/iopaint/outputs/cpu")
    host("cd /var/lib/iopaint/outputs/cpu && touch stop && sleep 1 && rm stop slow.png")
    assert run.rc == 0, run.output
    assert "w-1.png" in written
    return run, before


def test_it_is_made_while_the_instance_serves_and_writes(host, first):
    run, before = first
    (name,) = host.backups()
    place = f"{FOLDER}/{NAME}/{name}"
    assert deployed(host.shell) == before
    made = host.manifest(name)
    files = {entry["path"]: entry for entry in made["entries"] if entry["type"] == "file"}
    assert {f"./{path}": entry["sha256"] for path, entry in files.items()} == {
        path: text for path, text in host.sums(place).items() if path != "./manifest.json"
    }
    assert files[MODEL]["size"] == 40_000_000
    assert files["outputs/cpu/1.png"]["mode"] == "0600"
    assert "outputs/cpu/folder/ü [x].png" in files
    # No half-written file is in it, and the one that never was complete is named.
    texts = host(f"cd {place}/outputs/cpu && for each in w-*.png; do cat $each; echo; done").splitlines()
    assert len(texts) > 5
    for text in texts:
        number = text.split(",")[0].removeprefix("half of ")
        assert text == f"half of {number},other half of {number}"
    assert "outputs/cpu/slow.png" in [entry["path"] for entry in made["left_out"]]
    assert "outputs/cpu/slow.png" not in files
    assert run.says("outputs/cpu/slow.png is not in the backup: still written to after 3 s"), run.output
    assert host(f"ls {place}").split() == ["manifest.json", "models", "outputs"]
    assert host.audit()[-1]["action"] == "backup"


def test_a_dry_run_changes_nothing(host, first):
    before = host.state(), host.backups()
    run = play("playbooks/backup.yml", "--check", "--diff", iopaint_backup_include=["models"])
    assert run.rc == 0, run.output
    assert run.says("1 files of 0.040 GB, 0.000 GB of it copied"), run.output
    assert (host.state(), host.backups()) == before


def test_the_second_is_cheap_and_the_third_takes_the_place_of_the_first(host, first):
    used = int(host(f"du -sk {FOLDER}").split()[0])
    second = play("playbooks/backup.yml")
    assert second.rc == 0, second.output
    assert int(host(f"du -sk {FOLDER}").split()[0]) - used < 2000  # of 40 MB
    names = host.backups()
    numbers = {host(f"stat -c %i {FOLDER}/{NAME}/{name}/{MODEL}") for name in names}
    assert (len(names), len(numbers)) == (2, 1)
    third = play("playbooks/backup.yml")
    assert third.rc == 0, third.output
    assert third.says(f"removed: {names[0]}"), third.output
    assert host.backups()[0] == names[1]
    assert len(host.backups()) == 2  # iopaint_backup_keep
    print(f"backups took {first[0].seconds:.1f}, {second.seconds:.1f} and {third.seconds:.1f} s")


def test_one_that_is_killed_on_its_way_is_no_backup_and_the_next_one_cleans_up(host):
    names = host.backups()
    host("head -c 30000000 /dev/urandom > /var/lib/iopaint/models/more.pt && chown 10001:10001 /var/lib/iopaint/models/more.pt")
    # Killed while rsync copies 30 MB at 2 MB a second; a process of the test host alone.
    host(
        "systemd-run --quiet --collect sh -c "
        f"'until ls {FOLDER}/{NAME}/*/models/.more.pt.*; do sleep 0.1; done; pkill -9 -f [A]nsiballZ_backup; pkill -9 rsync'"
    )
    run = play("playbooks/backup.yml", iopaint_backup_rsync_options=["--bwlimit=2m"])
    assert run.rc == 2, run.output
    (killed,) = set(host.backups()) - set(names)
    assert host(f"ls {FOLDER}/{NAME}/{killed}").split() == ["models", "outputs", "unfinished"]
    run = play("playbooks/backup.yml")
    assert run.rc == 0, run.output
    assert killed not in host.backups()
    assert len(host.backups()) == 2
    assert not host.shell.file("/run/iopaint/lock").exists


def test_a_disk_that_is_too_small_is_seen_first(host):
    host("mkdir -p /mnt/small && mount -t tmpfs -o size=60m small /mnt/small")
    run = play("playbooks/backup.yml", iopaint_backup_target="/mnt/small/iopaint", iopaint_backup_mounted=True)
    assert run.rc == 2, run.output
    assert run.says("The backup takes 0.09 GB in /mnt/small/iopaint (iopaint_backup_target), and 0.06 GB are free there."), (
        run.output
    )
    assert host("ls -A /mnt/small") == ""
    assert host.audit()[-1]["action"] == "backup failed"


@pytest.mark.parametrize(("way", "folder", "times"), [(SSH, "/srv/ssh/iopaint", 2), (DAEMON, "/srv/daemon/iopaint", 1)])
def test_to_another_host(host, store, way, folder, times):
    for _time in range(times):
        run = play("playbooks/backup.yml", **way)
        assert run.rc == 0, run.output
    names = store.backups(folder)
    assert len(names) == times
    assert len({store(f"stat -c %i {folder}/{NAME}/{name}/{MODEL}") for name in names}) == 1
    entries = store.manifest(names[-1], folder)["entries"]
    files = {f"./{entry['path']}": entry["sha256"] for entry in entries if entry["type"] == "file"}
    assert files == host.sums()
    assert files.items() <= store.sums(f"{folder}/{NAME}/{names[-1]}").items()


def test_a_host_that_does_not_let_in_is_named(host):
    run = play("playbooks/backup.yml", **{**DAEMON, "iopaint_backup_password": "wrong"})
    assert run.rc == 2, run.output
    assert run.says("could not be reached. iopaint_backup_password is the password", "auth failed on module backups"), run.output
