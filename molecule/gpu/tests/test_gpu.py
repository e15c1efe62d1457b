"""A host with two made-up GPUs: each container gets its own, and each fault ends with a sentence of its own."""

import json
import os
import re
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest
from ansible.utils.collection_loader._collection_finder import _AnsibleCollectionFinder

SCENARIO = Path(__file__).resolve().parents[1]
ROOT = SCENARIO.parents[1]
_AnsibleCollectionFinder(paths=[str(ROOT / "build" / "collections")])._install()

from ansible_collections.iopaint.fleet.plugins.module_utils.gpu import explain_start

SAMPLES = ROOT / "tests/unit/samples/nvidia-smi"
STATE = "/usr/share/nvidia-stand-in"
SPEC = "/var/run/cdi/nvidia.yaml"
GPU = ("GPU-11111111-2222-4333-8444-555555555555", "GPU-66666666-7777-4888-9999-aaaaaaaaaaaa")
MIG = ("MIG-0f1e2d3c-4b5a-5968-8776-655443322110", "MIG-1a2b3c4d-5e6f-5a7b-8c9d-0e1f2a3b4c5d")
MIG_LIST = f"""\
GPU 0: NVIDIA A100-SXM4-80GB (UUID: GPU-5c1d4e6f-0a2b-4c3d-8e9f-102132435465)
  MIG 3g.40gb     Device  0: (UUID: {MIG[0]})
  MIG 2g.20gb     Device  1: (UUID: {MIG[1]})
  MIG 1g.10gb     Device  2: (UUID: MIG-99887766-5544-3322-1100-ffeeddccbbaa)
"""
MISMATCH = "18\nFailed to initialize NVML: Driver/library version mismatch\nNVML library version: 580.95\n"


def ansible(command, **environment):
    inventory = ["--inventory", os.environ["MOLECULE_INVENTORY_FILE"]]
    plain = {
        "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json",
        "ANSIBLE_CALLBACK_PLUGINS": str(ROOT / "tests/callback"),
        "ANSIBLE_CALLBACKS_ENABLED": "round_trips",
        "ANSIBLE_PIPELINING": "true",
    }
    return subprocess.run(
        [*command, *inventory], env={**os.environ, **plain, **environment}, capture_output=True, text=True, check=False
    )


class Run:
    """What became of a play: whether it failed and changed something, the message of the failure, and each task's result."""

    def __init__(self, done):
        start = done.stdout.find("{")
        assert start >= 0, done.stdout + done.stderr
        self.report, end = json.JSONDecoder().raw_decode(done.stdout[start:])
        self.rest = done.stdout[start + end :]
        self.tasks = {
            task["task"]["name"].rpartition(" : ")[2]: next(iter(task["hosts"].values()))
            for play in self.report["plays"]
            for task in play["tasks"]
        }
        failed = [task["msg"] for task in self.tasks.values() if task.get("failed")]
        self.failed, self.message = done.returncode != 0, failed[-1] if failed else ""
        self.changed = next(iter(self.report["stats"].values()))["changed"]

    @property
    def result(self):
        assert not self.failed, self.message
        return self.tasks["Report the GPUs to other roles"]["ansible_facts"]["nvidia_container_toolkit_result"]


def play(roles, **variables):
    extra = json.dumps({"role": roles, **variables})
    return Run(ansible(["ansible-playbook", SCENARIO / "role.yml", "-e", extra]))


def toolkit(**variables):
    return play("nvidia_container_toolkit", **variables)


def module(name, **arguments):
    """Success and result of one module on the host."""
    command = ["ansible", "gpu_hosts", "-m", f"iopaint.fleet.{name}", *(["-a", json.dumps(arguments)] if arguments else [])]
    run = Run(ansible(command, ANSIBLE_LOAD_CALLBACK_PLUGINS="true"))
    return not run.failed, next(iter(run.tasks.values()))


def explain(text):
    return explain_start(text, {"cdi_devices": [], "cdi_conflicts": [], "cdi_errors": []})


def write(host, path, text):
    done = host.run("printf %%s %s > %s", text, path)
    assert done.rc == 0, done.stderr


@contextmanager
def stand_in(host, **files):
    """Other GPUs, or other trouble with them, for a while."""
    host.check_output(f"cp -a {STATE} /tmp/stand-in")
    for name, text in files.items():
        write(host, f"{STATE}/{name.replace('_', '.')}", text)
    try:
        yield
    finally:
        host.check_output(f"rm -rf {STATE}/failure && cp -a /tmp/stand-in/. {STATE}/ && rm -r /tmp/stand-in")


@pytest.fixture(scope="module")
def image(host):
    """The image that gpu_check made of the host's files."""
    return host.check_output("docker images --format '{{.Repository}}:{{.Tag}}' iopaint-fleet/gpu-check")


# ---- as it should be -------------------------------------------------------------------------------------------------


def test_packages_are_of_one_version_and_held(host):
    names = "nvidia-container-toolkit nvidia-container-toolkit-base libnvidia-container-tools libnvidia-container1"
    versions = host.check_output("dpkg-query -W -f '${Version}\n' " + names)
    assert versions.split() == ["1.20.0-1"] * 4
    driver = host.check_output("dpkg-query -W -f '${Version}' nvidia-driver-cuda")
    assert driver == "580.95.05-1"  # the repository has 590, which nvidia-driver-pinning-580 rules out
    assert {*names.split(), "nvidia-driver-cuda", "nvidia-kernel-open-dkms"} <= set(
        host.check_output("apt-mark showhold").split()
    )


def test_the_refresh_unit_wrote_the_spec(host):
    assert "kind: nvidia.com/gpu" in host.file(SPEC).content_string
    assert not host.file("/etc/cdi/nvidia.yaml").exists
    for unit in ("nvidia-cdi-refresh.service", "nvidia-cdi-refresh.path"):
        assert host.service(unit).is_enabled
        assert host.service(unit).is_running


def test_daemon_json_has_cdi_and_keeps_the_rest(host):
    settings = json.loads(host.file("/etc/docker/daemon.json").content_string)
    assert settings["features"] == {"cdi": True}
    assert settings["live-restore"] is True


@pytest.mark.usefixtures("host")  # in its place among the others
def test_an_idle_run_changes_nothing_and_is_cheap():
    run = play("docker,nvidia_container_toolkit")
    assert run.changed == 0
    proven = [(one["device"], one["uuids"], one["nodes"]) for one in run.result["proven"]]
    assert proven == [(f"nvidia.com/gpu={index}", [GPU[index]], [f"/dev/nvidia{index}"]) for index in (0, 1)]
    executions, trips = re.search(r"module executions (\d+)\s+round trips (\d+)", run.rest).groups()
    print(f"module executions {executions}, round trips {trips}")
    assert int(executions) <= 24
    assert int(trips) <= 25


def test_compose_gives_each_instance_its_device(host, image):
    script = "for node in /dev/nvidia[0-9]*; do echo $$node $$NVIDIA_VISIBLE_DEVICES; done; nvidia-smi -L"
    services = {
        f"gpu{index}": {
            "image": image,
            "command": ["/bin/sh", "-c", script],
            "network_mode": "none",
            "deploy": {
                "resources": {
                    "reservations": {
                        "devices": [{"driver": "cdi", "device_ids": [f"nvidia.com/gpu={index}"], "capabilities": ["gpu"]}]
                    }
                }
            },
        }
        for index in (0, 1)
    }
    write(host, "/tmp/compose.json", json.dumps({"name": "exactly", "services": services}))
    host.check_output("docker compose -f /tmp/compose.json up --no-color --quiet-pull 2>&1")
    for index in (0, 1):
        log = host.check_output(f"docker logs exactly-gpu{index}-1")
        assert log.splitlines()[0] == f"/dev/nvidia{index} void"
        assert re.findall("UUID: ([^)]+)", log) == [GPU[index]]
    host.check_output("docker compose -f /tmp/compose.json down")


# ---- driver ----------------------------------------------------------------------------------------------------------


def driver(**variables):
    run = play("nvidia_driver", nvidia_driver_install=False, **variables)
    assert run.failed
    assert run.changed == 0
    return run.message


def test_gpu_missing(host):
    host.check_output("umount /sys/bus/pci/devices")
    try:
        with stand_in(host, failure="6\nNo devices were found"):
            assert driver().startswith(
                "No NVIDIA GPU is on the PCI bus: move the host to cpu_hosts, or check that the card is seated"
            )
    finally:
        host.check_output("mount --bind /srv/pci /sys/bus/pci/devices")


def test_driver_too_old(host):
    with stand_in(host, report_xml=(SAMPLES / "t4-515.xml").read_text()):
        assert driver().startswith(
            "The driver is 515.105.01 and the images need 525.60.13 or newer (nvidia_driver_minimum_version)"
        )


def test_kernel_module_and_library_of_two_versions(host):
    with stand_in(host, failure=MISMATCH):
        message = driver()
        assert "The loaded kernel module is 580.95.05 and the installed libraries are 580.95.05" in message
        assert "Drain the host and reboot it" in message
        assert "nvidia-smi says: Failed to initialize NVML: Driver/library version mismatch" in message


def test_a_reboot_that_is_due_is_said(host):
    host.check_output("touch /run/reboot-required")
    try:
        run = play("nvidia_driver", nvidia_driver_install=False)
        assert not run.failed
        (warning,) = run.tasks["Warn about likely problems"]["msg"]
        assert warning.startswith("A reboot is due (/run/reboot-required): drain the host and reboot it")
    finally:
        host.check_output("rm /run/reboot-required")


# ---- toolkit ---------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("host")
def test_versions_with_known_holes_are_refused():
    run = toolkit(nvidia_container_toolkit_version="1.19.0")
    assert run.failed
    assert run.changed == 0
    assert run.message.startswith(
        "nvidia_container_toolkit_version is 1.19.0, and versions below 1.19.1 let a container break out"
    )


@pytest.mark.usefixtures("host")
def test_a_version_that_nobody_has_is_named():
    run = toolkit(nvidia_container_toolkit_version="1.99.0")
    assert run.failed
    assert "nvidia_container_toolkit_version is '1.99.0'" in run.message
    assert "1.20.0, 1.19.1" in run.message


def test_downgrade_and_a_new_mig_layout(host):
    old = "/etc/apt/sources.list.d/nvidia-docker.list"
    write(host, old, "deb https://nvidia.github.io/libnvidia-container/stable/deb/$(ARCH) /\n")
    run = toolkit(nvidia_container_toolkit_version="1.19.1")
    assert host.file(old).content_string.startswith("# disabled by iopaint.fleet: deb https://nvidia.github.io/")
    assert host.check_output("nvidia-ctk --version").endswith("1.19.1")
    assert "cdiVersion: 0.5.0" in host.file(SPEC).content_string
    assert [one["uuids"] for one in run.result["proven"]] == [[GPU[0]], [GPU[1]]]

    report = (SAMPLES / "a100-mig-535.xml").read_text().replace("535.161.07", "580.95.05")
    with stand_in(host, report_xml=report, list=MIG_LIST):
        run = toolkit()
        assert "cdiVersion: 0.7.0" in host.file(SPEC).content_string
        proven = [(one["device"], one["uuids"]) for one in run.result["proven"]]
        assert proven[:2] == [("nvidia.com/gpu=0:0", [MIG[0]]), ("nvidia.com/gpu=0:1", [MIG[1]])]
        # what the previous layout had is gone
        assert run.result["devices"] == ["nvidia.com/gpu=0:0", "nvidia.com/gpu=0:1", "nvidia.com/gpu=0:2"]
        assert 'name: "1"' not in host.file(SPEC).content_string
    host.check_output("systemctl restart nvidia-cdi-refresh")


def test_spec_twice_cdi_off_and_the_way_back(host):
    """Three faults, and one run of the role that puts them right."""
    host.check_output(f"mkdir -p /etc/cdi && cp {SPEC} /etc/cdi/old.yaml")
    run = toolkit()
    assert run.failed
    assert run.changed == 0
    assert "/etc/cdi/old.yaml declares nvidia.com/gpu=0, nvidia.com/gpu=1" in run.message
    assert "set nvidia_container_toolkit_cdi_duplicates to set_aside" in run.message
    assert host.file("/etc/cdi/old.yaml").exists

    host.check_output(f"cp {SPEC} /var/run/cdi/copy.yaml")
    good, result = module("gpu_check", devices=["nvidia.com/gpu=0"])
    assert not good
    assert (
        "nvidia.com/gpu=0 is declared by /etc/cdi/old.yaml and by /var/run/cdi/copy.yaml and by /var/run/cdi/nvidia.yaml"
        in result["msg"]
    )

    good, _ = module("daemon_json", absent=["features.cdi"])
    assert good
    host.check_output("systemctl reset-failed docker && systemctl restart docker")
    good, result = module("gpu_check", devices=["nvidia.com/gpu=0"])
    assert not good
    assert "CDI is off in the engine: set features.cdi to true in /etc/docker/daemon.json" in result["msg"]

    run = toolkit(nvidia_container_toolkit_cdi_duplicates="set_aside")
    assert [one["uuids"] for one in run.result["proven"]] == [[GPU[0]], [GPU[1]]]
    assert host.file("/etc/cdi/old.yaml.set-aside").exists
    assert host.file("/var/run/cdi/copy.yaml.set-aside").exists
    assert toolkit().changed == 0


@pytest.mark.usefixtures("host")
def test_unknown_device():
    good, result = module("gpu_check", devices=["nvidia.com/gpu=7"])
    assert not good
    assert result["msg"] == (
        "A container that asks for nvidia.com/gpu=7 does not get it. No CDI spec declares nvidia.com/gpu=7: ask for one of those "
        "that are declared (nvidia.com/gpu=0, nvidia.com/gpu=1, nvidia.com/gpu=all)."
    )


def test_stale_node_then_toolkit_missing(host):
    # the engine remembers a node until the file is written again
    host.check_output(f"mv /dev/nvidia1 /dev/away && sed -i 's/gpu/gpu/' {SPEC}")
    try:
        good, result = module("gpu_check", devices=["nvidia.com/gpu=1"])
        assert not good
        assert "The CDI spec names /dev/nvidia1, which is not on this host, so it is older than the driver" in result["msg"]
    finally:
        host.check_output("mv /dev/away /dev/nvidia1")

    host.check_output("mv /usr/bin/nvidia-ctk /usr/bin/away")
    try:
        good, result = module("cdi_spec")
        assert not good
        assert result["msg"] == (
            "The NVIDIA Container Toolkit is not installed, there is no nvidia-ctk: run the role nvidia_container_toolkit."
        )
    finally:
        host.check_output("mv /usr/bin/away /usr/bin/nvidia-ctk")


def test_a_container_that_lost_its_gpu_is_named(host, image):
    for name, index in (("gpu-keeps", 0), ("gpu-loses", 1)):
        host.check_output(f"docker run -d -i --network none --name {name} --device nvidia.com/gpu={index} {image} /bin/sh")
    try:
        pid = host.check_output("docker inspect -f '{{.State.Pid}}' gpu-loses")
        host.check_output(f"rm /proc/{pid}/root/dev/nvidia1")
        good, result = module("gpu_check")
        assert good
        assert [(one["name"], one["devices"], one["reason"]) for one in result["lost"]] == [
            ("gpu-loses", ["nvidia.com/gpu=1"], "Failed to initialize NVML: Unknown Error")
        ]
        assert "Container gpu-loses" in result["warnings"][0]
    finally:
        host.check_output("docker rm -f gpu-keeps gpu-loses")


def test_legacy_mode_for_older_engines(host, image):
    refused = host.run(f"docker run --rm --runtime nvidia {image} /bin/sh")
    assert explain(refused.stderr).startswith("The engine knows no runtime nvidia: run the role nvidia_container_toolkit")
    refused = host.run(f"docker run --rm --gpus all {image} /bin/sh")
    assert explain(refused.stderr).startswith("The NVIDIA Container Toolkit is not installed")

    run = toolkit(nvidia_container_toolkit_mode="legacy")
    assert [(one["device"], one["nodes"]) for one in run.result["proven"]] == [
        ("nvidia.com/gpu=0", ["/dev/nvidia0"]),
        ("nvidia.com/gpu=1", ["/dev/nvidia1"]),
    ]
    settings = json.loads(host.file("/etc/docker/daemon.json").content_string)
    assert settings["runtimes"] == {"nvidia": {"path": "/usr/bin/nvidia-container-runtime", "args": []}}
    assert settings["features"] == {"cdi": True}
    assert toolkit(nvidia_container_toolkit_mode="legacy").changed == 0
    assert module("daemon_json", absent=["runtimes.nvidia"])[0]
    host.check_output("systemctl restart docker")  # a reload keeps a runtime that is no longer named
