#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_check
short_description: Prove that a container sees exactly the GPU it was given, and find running containers that lost theirs
version_added: 1.0.0
description:
  - Starts a container for each device, without network, and compares the GPUs that C(nvidia-smi) lists in it with the GPU of
    that name on the host, by UUID.
  - Asks the GPU containers that run already whether they still reach theirs. C(systemctl daemon-reload) takes it from
    containers of the legacy runtime, a driver update or a new MIG layout from all.
  - Needs no registry. The image is made of the host's own shell and C library, a few megabytes, unless O(image) names one.
options:
  devices:
    description:
      - CDI names of the devices to prove, as the filter P(iopaint.fleet.gpu_cdi_names#filter) gives them.
      - With O(mode=legacy) what follows the C(=) is handed to the NVIDIA runtime.
    type: list
    elements: str
    default: []
  mode:
    description: How containers get the GPU.
    type: str
    choices:
      cdi: The engine reads CDI specs.
      legacy: By the runtime C(nvidia), for engines before 26.1.
    default: cdi
  image:
    description: An image on the host that has C(/bin/sh) and the C library. Empty for one that is made of the host's files.
    type: str
    default: ""
  cdi_dirs:
    description: Directories of CDI spec files, in rising order of precedence, to explain why a device was not found.
    type: list
    elements: path
    default: [/etc/cdi, /var/run/cdi]
  timeout:
    description: How long, in seconds, each container may take.
    type: int
    default: 60
extends_documentation_fragment: iopaint.fleet.names
attributes:
  check_mode:
    support: partial
    description: Proves nothing new, as no container is started.
    details: The running containers are looked at.
author: iopaint.fleet contributors (@iopaint)
"""

EXAMPLES = r"""
- name: Containers see the GPUs they are given
  iopaint.fleet.gpu_check:
    devices: "{{ gpu | iopaint.fleet.gpu_cdi_names }}"
  register: check
"""

RETURN = r"""
proven:
  description: Devices whose container saw exactly their GPU.
  returned: success
  type: list
  elements: dict
  sample:
    - {device: nvidia.com/gpu=0, uuids: [GPU-5c1d4e6f-0a2b-4c3d-8e9f-102132435465], nodes: [/dev/nvidia0]}
lost:
  description: Running containers that no longer reach their GPU. Each is also a warning.
  returned: success
  type: list
  elements: dict
  sample:
    - {name: iopaint-gpu, id: 4c01db0b339c, devices: [nvidia.com/gpu=0], reason: "Failed to initialize NVML: Unknown Error"}
unchecked:
  description: Names of running GPU containers that have neither C(nvidia-smi) nor a shell to ask with.
  returned: success
  type: list
  elements: str
"""

import hashlib
import io
import os
import re
import tarfile

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.iopaint.fleet.plugins.module_utils import gpu
from ansible_collections.iopaint.fleet.plugins.module_utils.commands import run
from ansible_collections.iopaint.fleet.plugins.module_utils.docker_cli import NO_RIGHTS, Docker, parse_documents
from ansible_collections.iopaint.fleet.plugins.module_utils.names import named

REPOSITORY = "iopaint-fleet/gpu-check"
# What nvidia-smi and the driver's library are linked against and the shell is not.
LIBRARIES = ("libm.so.6", "libpthread.so.0", "libdl.so.2", "librt.so.1")
SCRIPT = 'for node in /dev/nvidia[0-9]*; do if [ -e "$node" ]; then echo "node $node"; fi; done; exec nvidia-smi -L'
# What a container without nvidia-smi can be asked: open its nodes, which the kernel refuses once the device is gone.
OPEN_NODES = "for node in /dev/nvidia[0-9]* /dev/nvidiactl; do if [ -e $node ]; then : < $node || exit 9; fi; done"


def shell_files(ldd: str) -> list:
    """Return the shell, the libraries that ldd lists for it, and those that nvidia-smi needs besides."""
    paths = re.findall(r"(/\S+) \(0x", ldd)
    libc = next((path for path in paths if os.path.basename(path).startswith("libc.so")), None)
    further = [os.path.join(os.path.dirname(libc), name) for name in LIBRARIES] if libc else []
    return ["/bin/sh", *paths, *(path for path in further if os.path.exists(path))]


def image_tar(paths: list) -> bytes:
    """Return a root file system of these files, the same bytes for the same files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for folder in ("dev", "etc", "proc", "run", "sys", "tmp", "usr/bin", "usr/lib", "var/run"):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        for path in sorted(set(paths)):
            with open(path, "rb") as file:
                content = file.read()
            entry = tarfile.TarInfo(path.lstrip("/"))
            entry.size, entry.mode = len(content), 0o755
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def listed(output: str) -> set:
    """Return the UUIDs of what a container may use, from `nvidia-smi -L`: the slices of a GPU that shows any, else the GPU."""
    found: set = set()
    gpu_uuid = None
    for line in output.splitlines():
        if match := re.match(r"GPU \d+:.*\(UUID: ([^)]+)\)", line):
            gpu_uuid = match[1]
            found.add(gpu_uuid)
        elif match := re.match(r"\s+MIG .*\(UUID: ([^)]+)\)", line):
            found.discard(gpu_uuid)
            found.add(match[1])
    return found


def expected(device: str, listing: str) -> set:
    """Return the UUIDs that a container with this CDI device has to see, by the host's `nvidia-smi -L`."""
    name = device.partition("=")[2]
    gpus = {match[1]: match[2] for match in re.finditer(r"^GPU (\d+):.*\(UUID: ([^)]+)\)", listing, re.MULTILINE)}
    if name == "all":
        return listed(listing)
    if ":" in name and not name.startswith("MIG-"):
        index, _separator, slice_index = name.partition(":")
        mig = gpu.parse_slices(listing).get((gpus.get(index), int(slice_index) if slice_index.isdigit() else -1))
        return {mig[1]} if mig else set()
    return {gpus.get(name, name)} if name in gpus or "-" in name else set()


def asks_for_gpu(container: dict) -> list:
    """Return the GPUs that a container was started with."""
    host = container["HostConfig"]
    devices: list = []
    for request in host.get("DeviceRequests") or []:
        kinds = [kind for group in request.get("Capabilities") or [] for kind in group]
        if request.get("Driver") in ("cdi", "nvidia") or "gpu" in kinds:
            devices += request.get("DeviceIDs") or ["all"]
    if host.get("Runtime") == "nvidia" and not devices:
        variables = dict(variable.partition("=")[::2] for variable in container["Config"].get("Env") or [])
        visible = variables.get("NVIDIA_VISIBLE_DEVICES", "void")
        devices = [] if visible in ("", "void", "none") else visible.split(",")
    return devices


class Check:
    """The engine and the host's GPUs."""

    def __init__(self, module: AnsibleModule):
        """Take the module that runs."""
        self.module, self.docker = module, Docker(module)
        self.timeout = [module.get_bin_path("timeout", required=True), str(module.params["timeout"])]

    def run(self, *arguments: str) -> tuple:
        """Run docker, for as long as it may take."""
        # The first one stops docker and with it the container, the second one ends even where that hangs.
        return run([*self.timeout, self.docker.path, *arguments], self.module.params["timeout"] + 10)

    def image(self) -> str:
        if wanted := self.module.params["image"]:
            if self.docker.image(wanted) is None:
                self.module.fail_json(
                    msg=f"The image {wanted} ({named(self.module, 'image')}) is not on this host: pull it first, or "
                    f"empty {named(self.module, 'image')} to use one that is made of the host's own files."
                )
            return wanted
        _rc, ldd, _err = self.module.run_command(["ldd", "/bin/sh"])
        content = image_tar(shell_files(ldd))
        name = f"{REPOSITORY}:{hashlib.sha256(content).hexdigest()[:16]}"
        if self.docker.image(name) is None:
            rc, _out, err = self.docker.run("import", "-", name, data=content, binary_data=True)
            if rc != 0:
                self.module.fail_json(
                    msg=f"The engine did not take the image for the GPU check: {err.strip()} "
                    "See `journalctl -u docker` on the host, then run the play again."
                )
            _rc, old, _err = self.docker.run("images", "--format", "{{.Repository}}:{{.Tag}}", REPOSITORY)
            for stale in set(old.split()) - {name}:
                self.docker.run("image", "rm", stale)
        return name

    def prove(self, device: str, image: str, listing: str) -> dict:
        name = device.partition("=")[2]
        if self.module.params["mode"] == "cdi":
            grant = ["--device", device]
        else:
            visible = ["-e", f"NVIDIA_VISIBLE_DEVICES={name}", "-e", "NVIDIA_DRIVER_CAPABILITIES=utility"]
            grant = ["--runtime", "nvidia", *visible]
        rc, out, err = self.run("run", "--rm", *NO_RIGHTS, *grant, image, "/bin/sh", "-c", SCRIPT)
        nodes, seen = re.findall(r"^node (\S+)$", out, re.MULTILINE), listed(out)
        if rc != 0 and not seen:
            said = f"{err.strip()} {re.sub('(?m)^node .*', '', out).strip()}".strip()
            if rc == 124:
                said = f"no answer within {self.module.params['timeout']} s (gpu_check timeout)"
            cdi = gpu.read_cdi(self.module.params["cdi_dirs"])
            self.module.fail_json(
                msg=f"A container that asks for {device} does not get it. {gpu.explain_start(said, cdi)}", rc=rc
            )
        wanted = expected(device, listing)
        if not wanted:
            self.module.fail_json(
                msg=f"A container gets {device}, and nvidia-smi on the host lists no such GPU: the spec is older than "
                "the driver or the MIG layout. Restart nvidia-cdi-refresh.service, or run the role nvidia_container_toolkit."
            )
        if seen != wanted:
            self.module.fail_json(
                msg=f"A container that asks for {device} has to see {', '.join(sorted(wanted)) or 'nothing'}, and sees "
                f"{', '.join(sorted(seen)) or 'nothing'}: the spec does not fit the host's GPUs. Restart "
                "nvidia-cdi-refresh.service, and look for other spec files in /etc/cdi and /var/run/cdi."
            )
        return {"device": device, "uuids": sorted(seen), "nodes": nodes}

    def running(self) -> list:
        ids = self.docker.run("ps", "-q")[1].split()
        rc, out = self.docker.run("inspect", *ids)[:2] if ids else (1, "")
        return parse_documents(self.module, out, "inspect") if rc == 0 else []  # a container may end between the two

    def ask(self, container: dict) -> str | None:
        """Return why the container lost its GPU; nothing where it has it, '?' where it can't be asked."""
        rc, out, err = self.run("exec", container["Id"], "nvidia-smi", "-L")
        if rc == 0 and listed(out):
            return None
        if rc in (126, 127):
            rc, out, err = self.run("exec", container["Id"], "sh", "-c", OPEN_NODES)
            if rc in (126, 127):
                return "?"
            return None if rc == 0 else " ".join((err or out).split())
        return " ".join((out + err).split()) or f"nvidia-smi ends with {rc}"

    def survey(self) -> dict:
        """Return the lost and unchecked among the running containers."""
        lost, unchecked = [], []
        for container in self.running():
            devices = asks_for_gpu(container)
            reason = self.ask(container) if devices else None
            name = container["Name"].lstrip("/")
            if reason == "?":
                unchecked.append(name)
            elif reason:
                lost.append({"name": name, "id": container["Id"][:12], "devices": devices, "reason": reason})
        return {"lost": lost, "unchecked": unchecked}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "devices": {"type": "list", "elements": "str", "default": []},
            "mode": {"type": "str", "choices": ["cdi", "legacy"], "default": "cdi"},
            "image": {"type": "str", "default": ""},
            "cdi_dirs": {"type": "list", "elements": "path", "default": ["/etc/cdi", "/var/run/cdi"]},
            "timeout": {"type": "int", "default": 60},
            "names": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    check = Check(module)
    check.docker.info("{{.ServerVersion}}")  # fails the module where no engine answers
    result = check.survey()
    for one in result["lost"]:
        module.warn(
            f"Container {one['name']} ({one['id']}) lost its GPU ({', '.join(one['devices'])}): {one['reason']}. "
            f"Recreate it, `docker restart {one['name']}` is enough where the device still exists."
        )
    proven = []
    devices = module.params["devices"]
    if devices and not module.check_mode:
        smi = module.get_bin_path("nvidia-smi")
        _rc, listing, _err = module.run_command([*check.timeout, smi, "-L"]) if smi else (1, "", "")
        image = check.image()
        proven = [check.prove(device, image, listing) for device in devices]
    module.exit_json(changed=False, proven=proven, **result)


if __name__ == "__main__":
    main()
