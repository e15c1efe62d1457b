#!/usr/bin/env python3
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Measure what a fleet costs its control node: status, an idle deploy and an idle upgrade over ssh, by hosts and forks.

    fleet.py [--cores shared own] [--hosts 1 5 10 20] [--forks 5 20] [--runs 1] [--out build/bench-fleet.jsonl]

cores shared: the hosts are systemd containers on this machine with an engine and an instance of the stand-in each
(molecule/fleet/stand-in), so they share its cores with the control node: wall time has their work in it.

cores own: stand-ins for hosts that have cores of their own. One of those containers is recorded while the play runs on it
(record_ssh.py); then each host is an ssh server that gives the same answers, each as late as the container gave it
alone on the machine, without doing the work (paced_host.sh). The control node does all of its own: Ansible, ssh, the modules
built and sent.

The CPU time of the control node and that of the hosts (of their cgroups, their engines' idling included) are printed apart,
with tasks, module executions and round trips per host. DOCKER_HOST names the engine around the hosts.
"""

import argparse
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import yaml

import docker

ROOT = Path(__file__).resolve().parents[2]
BENCH = ROOT / "tests" / "bench"
WORK = ROOT / "build" / "bench-fleet"
PREFIX = "iopaint-bench-fleet"
IMAGE = "iopaint-bench-fleet-host"
PLAYS = {"status": "playbooks/status.yml", "idle deploy": "deploy.yml", "idle upgrade": "playbooks/upgrade.yml"}
VARIABLES = {
    "ansible_user": "root",
    "ansible_ssh_private_key_file": str(WORK / "key"),
    "ansible_ssh_common_args": "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR",
    "docker_package_source": "distribution",
    "iopaint_instances": [{"name": "cpu", "variant": "cpu", "port": 8080, "model": "cv2"}],
    "iopaint_models": [],
    "iopaint_images": {"cpu": "iopaint:cpu-v1-standin"},
    "iopaint_memory": "256m",
    "iopaint_upgrade_min_free_gb": 1,
    "iopaint_upgrade_batches": ["100%"],
    "iopaint_status_dir": str(WORK / "status"),
}
# What the roles would install at first: what is measured is the runs after that.
HOST = f"""FROM iopaint-fleet-host:trixie
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends openssh-server docker.io docker-cli docker-buildx \\
    docker-compose python3-pil logrotate iptables && systemctl disable docker containerd \\
    && rm -rf /var/lib/docker /var/lib/containerd
COPY key.pub /root/.ssh/authorized_keys
LABEL bench={PREFIX}
"""


def run(*command, **options):
    """Run a command, show its output where it fails, give its standard output."""
    done = subprocess.run(command, check=False, capture_output=True, text=True, **options)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
    return done.stdout


def platform():
    """Return the options of docker run that make a container a systemd host, as the scenarios have them."""
    host = yaml.safe_load((ROOT / "molecule/hosts/vars/container.yml").read_text())["test_host"]
    options = ["--tty", "--cgroupns", host["cgroupns_mode"], "--stop-signal", host["stop_signal"]]
    options += [word for name in host["capabilities"] for word in ("--cap-add", name)]
    options += [word for text in host["security_opts"] for word in ("--security-opt", text)]
    options += [word for path in host["tmpfs"] for word in ("--tmpfs", path)]
    return options + [word for path in host["volumes"] for word in ("--volume", path)]


def start(count):
    """Start the hosts; return their addresses by name."""
    WORK.mkdir(parents=True, exist_ok=True)
    if not (WORK / "key").exists():
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(WORK / "key"))
    (WORK / "Dockerfile").write_text(HOST)
    run("docker", "build", "--quiet", "--tag", IMAGE, str(WORK))
    run(str(ROOT / "molecule/fleet/stand-in/make"))
    names = [f"{PREFIX}-{number:02d}" for number in range(1, count + 1)]
    for name in names:
        run("docker", "run", "--detach", "--name", name, "--hostname", name, *platform(), IMAGE)
    for name in names:
        wait(name)
    return by_name(names)


def by_name(names):
    """Return the addresses of these containers."""
    form = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
    return {name: run("docker", "inspect", "--format", form, name).strip() for name in names}


def wait(name, seconds=120):
    """Wait for a host's ssh server: twenty that start at once take their time."""
    end = time.monotonic() + seconds
    asked = ["docker", "exec", name, "systemctl", "is-active", "--quiet", "ssh"]
    while subprocess.run(asked, check=False, capture_output=True).returncode:
        if time.monotonic() > end:
            raise SystemExit(f"{name} has no ssh server after {seconds} s:\n" + run("docker", "logs", "--tail", "20", name))
        time.sleep(0.5)


def inventory(addresses, count, **variables):
    """Write the inventory of the first hosts; return its path."""
    hosts = {name: {"ansible_host": address} for name, address in list(addresses.items())[:count]}
    path = WORK / f"{count}.yml"
    path.write_text(yaml.safe_dump({"cpu_hosts": {"hosts": hosts, "vars": VARIABLES | variables}}))
    return path


def empty(name):
    """Return a folder of WORK with no file in it; the folder itself stays, as hosts have it mounted."""
    folder = WORK / name
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():
        path.unlink()
    return folder


def record(addresses, playbook):
    """Run a playbook on the first host; keep each of its exchanges."""
    folder = empty("recording")
    hosts = inventory(addresses, 1, ansible_ssh_executable=str(BENCH / "record_ssh.py"))
    play(playbook, hosts, 1, BENCH_RECORDING=str(folder))


def serve(count):
    """Start the stand-ins that answer from the recording; return their addresses by name."""
    for name in ("recording", "counts"):
        empty(name)
    mounts = (f"{BENCH}:/bench:ro", f"{WORK}/recording:/recording:ro", f"{WORK}/counts:/counts")
    volumes = [word for mount in mounts for word in ("--volume", mount)]
    begin = "mkdir -p /run/sshd && exec /usr/sbin/sshd -D -e -o UsePAM=no -o ForceCommand=/bench/paced_host.sh"
    names = [f"{PREFIX}-paced-{number:02d}" for number in range(1, count + 1)]
    for name in names:
        run("docker", "run", "--detach", "--init", "--name", name, "--hostname", name, *volumes, IMAGE, "sh", "-c", begin)
    return by_name(names)


def hosts_cpu(engine, names):
    """CPU seconds that these hosts have used since they started."""
    read = (engine.stats(name, stream=False, one_shot=True)["cpu_stats"]["cpu_usage"]["total_usage"] for name in names)
    return sum(read) / 1e9


def play(playbook, hosts, forks, **environment):
    """Run a playbook; return wall seconds, CPU seconds of the control node, tasks, and executions and round trips per host."""
    command = ["ansible-playbook", "-i", str(hosts), "--forks", str(forks), str(ROOT / playbook)]
    settings = {
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_CALLBACK_PLUGINS": str(ROOT / "tests/callback"),
        "ANSIBLE_CALLBACKS_ENABLED": "round_trips",
        "ANSIBLE_FORCE_COLOR": "0",
    }
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    output = run(*command, cwd=ROOT, env={**os.environ, **settings, **environment}, stdin=subprocess.DEVNULL)
    wall, after = time.monotonic() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    counts = [
        tuple(map(int, found))
        for found in re.findall(r"^\S+ +: module executions (\d+) +round trips (\d+)", output, re.MULTILINE)
    ]
    tasks = len(re.findall(r"^TASK \[", output, re.MULTILINE))
    executions, trips = (statistics.mean(values) for values in zip(*counts)) if counts else (0, 0)
    return {"wall_s": wall, "control_cpu_s": cpu, "tasks": tasks, "modules_per_host": executions, "round_trips_per_host": trips}


def measure(cores, addresses, options, recorded=None):
    """Yield all rows: play, hosts, forks and the medians of what was measured.

    recorded: with cores "own", the host whose answers the stand-ins at these addresses give.
    """
    engine = docker.APIClient(base_url=os.environ.get("DOCKER_HOST"), version="auto")
    for name, playbook in PLAYS.items():
        if recorded:
            record(recorded, playbook)
        for forks in options.forks:
            for count in options.hosts:
                hosts = inventory(addresses, count)
                names = list(addresses)[:count]
                seen = []
                for _run in range(options.runs):
                    empty("counts")
                    before = hosts_cpu(engine, names)
                    seen.append(play(playbook, hosts, forks))
                    seen[-1]["hosts_cpu_s"] = hosts_cpu(engine, names) - before
                row = {key: round(statistics.median(each[key] for each in seen), 2) for key in seen[0]}
                yield {"play": name, "cores": cores, "hosts": count, "forks": forks, **row}
                text = f"bench-fleet: {name}, {count} hosts, {cores} cores, {forks} forks: {row['wall_s']:.1f} s"
                print(text, file=sys.stderr)


COLUMNS = (
    "play",
    "cores",
    "forks",
    "hosts",
    "wall s",
    "by 1 host",
    "control CPU s",
    "by 1 host",
    "hosts' CPU s",
    "tasks",
    "modules a host",
    "trips a host",
)


def table(rows):
    """Return the rows as Markdown, the two times each with their ratio to the fewest hosts with the same cores and forks."""
    lines = [" | ".join(COLUMNS), " | ".join(["---"] * 2 + ["---:"] * (len(COLUMNS) - 2))]
    for row in rows:
        same = [each for each in rows if all(each[key] == row[key] for key in ("play", "cores", "forks"))]
        one = min(same, key=lambda each: each["hosts"])
        times = [text for key in ("wall_s", "control_cpu_s") for text in (f"{row[key]:.1f}", f"{row[key] / one[key]:.1f}")]
        counts = [f"{row[key]:.0f}" for key in ("tasks", "modules_per_host", "round_trips_per_host")]
        cells = [row["play"], row["cores"], str(row["forks"]), str(row["hosts"]), *times, f"{row['hosts_cpu_s']:.1f}", *counts]
        lines.append(" | ".join(cells))
    return "\n".join(f"| {line} |" for line in lines)


def stop(but=()):
    """Remove the hosts and their volumes, but for these names, and the image that no host needs."""
    form = ("--format", "{{.Names}}")
    found = [name for name in run("docker", "ps", "--all", *form, "--filter", f"label=bench={PREFIX}").split() if name not in but]
    if found:
        run("docker", "rm", "--force", "--volumes", *found)
    if not but:
        subprocess.run(["docker", "rmi", IMAGE], check=False, capture_output=True)


def main():
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cores", choices=["shared", "own"], nargs="+", default=["shared", "own"])
    parser.add_argument("--hosts", type=int, nargs="+", default=[1, 5, 10, 20])
    parser.add_argument("--forks", type=int, nargs="+", default=[5, 20])
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "bench-fleet.jsonl")
    options = parser.parse_args()
    rows = []
    stop()
    try:
        addresses = start(max(options.hosts) if "shared" in options.cores else 1)
        print(f"bench-fleet: {len(addresses)} hosts are started; Docker and an instance are set up on each", file=sys.stderr)
        everything = inventory(addresses, len(addresses))
        play("playbooks/provision.yml", everything, 20)
        for name in addresses:
            run(str(ROOT / "molecule/fleet/stand-in/load"), name, "v1")
        play("playbooks/upgrade.yml", everything, 20)
        if "shared" in options.cores:
            rows += measure("shared", addresses, options)
        if "own" in options.cores:
            stop(but=list(addresses)[:1])
            rows += measure("own", serve(max(options.hosts)), options, recorded=addresses)
    finally:
        stop()
    options.out.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options.out.with_suffix(".md").write_text(table(rows) + "\n")
    print(table(rows))


if __name__ == "__main__":
    main()
