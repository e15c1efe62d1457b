#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_info
short_description: Gather facts about a host's NVIDIA GPUs, their driver and their CDI devices
version_added: 1.0.0
author: iopaint.fleet contributors (@iopaint)
description:
  - Tells which NVIDIA GPUs a host has, what runs on them, and by which CDI names containers can ask for them.
  - When the GPUs can't be used, tells why in RV(problem) and what to do about it in RV(advice), from a card
    without a driver to a driver that was updated under its loaded kernel module.
  - The source is C(nvidia-smi -q -x), which is only run where it is installed. Hosts without a GPU answer at once.
options:
  nvidia_smi:
    description:
      - Path of C(nvidia-smi). By default it is looked for on the C(PATH).
      - A path where nothing is counts as not installed.
    type: path
  cdi_dirs:
    description:
      - Directories of CDI spec files, in rising order of precedence, as the container engine has them configured.
    type: list
    elements: path
    default: [/etc/cdi, /var/run/cdi]
  sysfs:
    description: Root of sysfs. Differs where the host's is mounted into a container, and in tests.
    type: path
    default: /sys
  procfs:
    description: Root of procfs. Differs where the host's is mounted into a container, and in tests.
    type: path
    default: /proc
  root:
    description: Root of the other files that are looked at. Differs where the host's is mounted into a container, and in tests.
    type: path
    default: /
  timeout:
    description:
      - How long, in seconds, each call of C(nvidia-smi) may take. There are up to three.
      - Without the persistence daemon every call initializes the GPUs, which takes seconds on hosts with many.
    type: int
    default: 30
attributes:
  check_mode:
    support: full
    description: Changes nothing, in check mode or not.
  diff_mode:
    support: none
    description: There is never a difference to show.
notes:
  - The module succeeds when the GPUs have a problem. Fail on RV(problem) where a GPU is required.
  - CDI specs in YAML are read with PyYAML where the host has it, and otherwise in the form that C(nvidia-ctk) writes.
  - GPUs that are not on the PCI bus, as those of Jetson boards, are not found.
"""

EXAMPLES = r"""
- name: Look at the GPUs
  iopaint.fleet.gpu_info:
  register: gpu

- name: Require a working GPU with 16 GiB
  ansible.builtin.assert:
    that: gpu.gpus | map(attribute='memory_total_mib') | select('number') | select('ge', 16384) | list | length > 0
    fail_msg: "{{ gpu.advice }} {{ gpu.driver_error or '' }}"

- name: Require the CDI device that an instance asks for, declared without ambiguity
  ansible.builtin.assert:
    that:
      - "'nvidia.com/gpu=0' in gpu.cdi_devices"
      - gpu.cdi_conflicts | rejectattr('winner') | list | length == 0

- name: Hand out GPUs to the hosts that have one on the bus, driver or not
  ansible.builtin.group_by:
    key: "{{ 'gpu_hosts' if gpu.pci_devices else 'cpu_hosts' }}"
"""

RETURN = r"""
gpus:
  description: The GPUs that the driver answers for. Values that nvidia-smi does not know are null.
  returned: always
  type: list
  elements: dict
  sample:
    - index: 0
      uuid: GPU-5c1d4e6f-0a2b-4c3d-8e9f-102132435465
      name: NVIDIA A100-SXM4-80GB
      architecture: Ampere
      compute_capability: "8.0"
      pci_bus_id: "0000:07:00.0"
      memory_total_mib: 81920
      memory_used_mib: 87
      memory_free_mib: 80962
      mig_enabled: true
      mig_devices:
        - index: 0
          uuid: MIG-0f1e2d3c-4b5a-5968-8776-655443322110
          profile: 3g.40gb
          gpu_instance_id: 2
          compute_instance_id: 0
          memory_total_mib: 40448
          memory_used_mib: 37
      processes:
        - pid: 41235
          name: python3
          type: C
          used_memory_mib: 1290
          gpu_instance_id: 2
          compute_instance_id: 0
  contains:
    index:
      description: Number of the GPU as nvidia-smi counts, which is also its default CDI name.
      type: int
      sample: 0
    uuid:
      description: UUID of the GPU, the same for the life of the card.
      type: str
      sample: GPU-5c1d4e6f-0a2b-4c3d-8e9f-102132435465
    name:
      description: Product name.
      type: str
      sample: NVIDIA A100-SXM4-80GB
    architecture:
      description: Architecture. Null with drivers as old as 470, which do not tell.
      type: str
      sample: Ampere
    compute_capability:
      description:
        - Compute capability, as a string of major and minor number.
        - Null when the driver is too old to tell and the architecture has more than one.
      type: str
      sample: "8.0"
    pci_bus_id:
      description: Address on the PCI bus, in the form of RV(pci_devices[].address).
      type: str
      sample: "0000:07:00.0"
    memory_total_mib:
      description: Memory of the whole GPU in MiB.
      type: int
      sample: 81920
    memory_used_mib:
      description: Memory in use in MiB.
      type: int
      sample: 87
    memory_free_mib:
      description: Memory free in MiB. Less than total minus used, as the driver reserves some.
      type: int
      sample: 80962
    mig_enabled:
      description: Whether the GPU is in MIG mode now. It is then used by slices, and not as a whole.
      type: bool
      sample: true
    mig_devices:
      description: The MIG slices, each a compute instance.
      type: list
      elements: dict
      contains:
        index:
          description: Number of the slice on its GPU. C(nvidia.com/gpu=<gpu index>:<index>) is its default CDI name.
          type: int
          sample: 0
        uuid:
          description: UUID of the slice, from C(nvidia-smi -L).
          type: str
          sample: MIG-0f1e2d3c-4b5a-5968-8776-655443322110
        profile:
          description: Profile that the slice was made with, from C(nvidia-smi -L).
          type: str
          sample: 3g.40gb
        gpu_instance_id:
          description: ID of the GPU instance.
          type: int
          sample: 2
        compute_instance_id:
          description: ID of the compute instance within the GPU instance.
          type: int
          sample: 0
        memory_total_mib:
          description: Memory of the slice in MiB.
          type: int
          sample: 40448
        memory_used_mib:
          description: Memory in use in MiB.
          type: int
          sample: 37
    processes:
      description: The processes on the GPU.
      type: list
      elements: dict
      contains:
        pid:
          description: Process ID.
          type: int
          sample: 41235
        name:
          description: Name as nvidia-smi shows it. May hold arguments.
          type: str
          sample: python3
        type:
          description: V(C) for compute, V(G) for graphics, V(C+G) for both.
          type: str
          sample: C
        used_memory_mib:
          description: Memory that the process uses on the GPU in MiB.
          type: int
          sample: 1290
        gpu_instance_id:
          description: ID of the GPU instance the process runs on. Null without MIG.
          type: int
          sample: 2
        compute_instance_id:
          description: ID of the compute instance the process runs on. Null without MIG.
          type: int
          sample: 0
driver_version:
  description: Version of the driver. Null while nvidia-smi fails.
  returned: always
  type: str
  sample: 580.95.05
cuda_version:
  description: Highest CUDA version that the driver supports. Says nothing of a toolkit.
  returned: always
  type: str
  sample: "13.0"
kernel_module_version:
  description:
    - Version of the loaded nvidia kernel module. Null when none is loaded.
    - Known while nvidia-smi fails, and then telling, as after an update without a reboot.
  returned: always
  type: str
  sample: 580.95.05
library_versions:
  description:
    - Versions of the driver's libraries that are installed. They have to be one, that of RV(kernel_module_version).
  returned: always
  type: list
  elements: str
  sample: [580.95.05]
kernel:
  description: Release of the running kernel.
  returned: always
  type: str
  sample: 6.12.48+deb13-amd64
kernel_headers:
  description: Whether the running kernel's headers are there, which a module is built against.
  returned: always
  type: bool
kernel_module_installed:
  description: Whether an nvidia module is installed for the running kernel, loaded or not.
  returned: always
  type: bool
nouveau_loaded:
  description: Whether the nouveau driver is loaded. The nvidia module can't take a GPU that it holds.
  returned: always
  type: bool
secure_boot:
  description: Whether Secure Boot is on, so that only signed modules load. Null on hosts that did not boot by EFI.
  returned: always
  type: bool
reboot_required:
  description: Whether the distribution says that a reboot is due.
  returned: always
  type: bool
pci_devices:
  description: NVIDIA display and 3D controllers on the PCI bus, whether or not they have a driver.
  returned: always
  type: list
  elements: dict
  sample:
    - address: "0000:07:00.0"
      device_id: "0x20b2"
      driver: nvidia
  contains:
    address:
      description: Address on the bus.
      type: str
      sample: "0000:07:00.0"
    device_id:
      description: PCI device ID.
      type: str
      sample: "0x20b2"
    driver:
      description: Driver bound to the device, for instance V(nvidia), V(nouveau), V(vfio-pci), or V(none).
      type: str
      sample: nvidia
cdi_devices:
  description: Qualified names of the devices of kind C(nvidia.com/gpu) that spec files declare.
  returned: always
  type: list
  elements: str
  sample: ["nvidia.com/gpu=0", "nvidia.com/gpu=all"]
cdi_conflicts:
  description: Devices that more than one spec file declares.
  returned: always
  type: list
  elements: dict
  sample:
    - device: nvidia.com/gpu=0
      files: [/etc/cdi/nvidia.yaml, /var/run/cdi/nvidia.yaml]
      winner: /var/run/cdi/nvidia.yaml
  contains:
    device:
      description: Qualified name of the device.
      type: str
      sample: nvidia.com/gpu=0
    files:
      description: The spec files that declare it.
      type: list
      elements: str
      sample: [/etc/cdi/nvidia.yaml, /var/run/cdi/nvidia.yaml]
    winner:
      description:
        - The file that counts, from the directory of the highest precedence. A stale one there hides a good one.
        - Null when one directory declares the device twice. The engine then resolves it for no container.
      type: str
      sample: /var/run/cdi/nvidia.yaml
cdi_errors:
  description:
    - Spec files, of any kind, that could not be read or declare no device.
    - An engine checks more, and may refuse others.
  returned: always
  type: list
  elements: dict
  sample:
    - file: /etc/cdi/nvidia.yaml
      error: Permission denied
  contains:
    file:
      description: The spec file, or the directory when that could not be read.
      type: str
      sample: /etc/cdi/nvidia.yaml
    error:
      description: What is wrong with it.
      type: str
      sample: Permission denied
engine:
  description: What of the Docker Engine decides how containers get a GPU. Null where no engine answers.
  returned: always
  type: dict
  sample:
    version: 28.5.2
    cdi_dirs: [/etc/cdi, /var/run/cdi]
    runtimes: [io.containerd.runc.v2, runc]
    default_runtime: runc
    live_restore: true
    running: 2
  contains:
    version:
      description: Version of the engine.
      type: str
      sample: 28.5.2
    cdi_dirs:
      description: Where the engine reads CDI specs. Empty while its CDI support is off.
      type: list
      elements: str
    runtimes:
      description: Names of the runtimes that it has.
      type: list
      elements: str
    default_runtime:
      description: The runtime of containers that ask for none.
      type: str
      sample: runc
    live_restore:
      description: Whether running containers survive a restart of the engine.
      type: bool
    running:
      description: How many containers run.
      type: int
problem:
  description:
    - What keeps GPUs from being used.
    - V(none), there are GPUs and they answer.
    - V(no_gpu), there is no GPU for this host. Those handed to virtual machines don't count.
    - V(driver_not_installed), a GPU is on the bus, and C(nvidia-smi) or its library is missing.
    - V(driver_not_loaded), the driver is installed and its kernel module is not loaded.
    - V(driver_unreachable), the kernel module is loaded, and its device nodes C(/dev/nvidia*) are missing or closed to the user
      that asked. Root makes missing ones by running C(nvidia-smi).
    - V(version_mismatch), the loaded kernel module has another version than the installed driver.
    - V(gpu_lost), a GPU stopped answering or can't be brought up. Others may still be in RV(gpus).
    - V(unknown), nvidia-smi failed in another way, or did not answer in time.
  returned: always
  type: str
  sample: none
advice:
  description: What to do about the problem, in one sentence.
  returned: always
  type: str
  sample: Nothing to do.
driver_error:
  description: What nvidia-smi said when it failed. Null without a failure.
  returned: always
  type: str
  sample: "Failed to initialize NVML: Driver/library version mismatch"
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.iopaint.fleet.plugins.module_utils import foreign, gpu
from ansible_collections.iopaint.fleet.plugins.module_utils.commands import run


def engine(module: AnsibleModule, timeout: int) -> dict | None:
    docker = module.get_bin_path("docker")
    rc, stdout, _err = run([docker, "info", "--format", "{{json .}}"], timeout) if docker else (1, "", "")
    try:
        info = foreign.parse_json(stdout, dict) if rc == 0 else {}
    except foreign.ForeignError:
        info = {}
    return gpu.engine_state(info) if info.get("ServerVersion") else None


def find(module: AnsibleModule) -> str | None:
    path = module.params["nvidia_smi"]
    if path is None:
        return module.get_bin_path("nvidia-smi")
    return path if os.access(path, os.X_OK) and os.path.isfile(path) else None


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "nvidia_smi": {"type": "path"},
            "cdi_dirs": {"type": "list", "elements": "path", "default": ["/etc/cdi", "/var/run/cdi"]},
            "sysfs": {"type": "path", "default": "/sys"},
            "procfs": {"type": "path", "default": "/proc"},
            "root": {"type": "path", "default": "/"},
            "timeout": {"type": "int", "default": 30},
        },
        supports_check_mode=True,
    )
    if module.params["timeout"] < 1:
        module.fail_json(msg=f"timeout is {module.params['timeout']}, and has to be 1 second or more")

    nvidia_smi = find(module)
    rc, output, report = gpu.query(nvidia_smi, module.params["timeout"]) if nvidia_smi else (None, "", gpu.NO_REPORT)
    pci_devices = gpu.pci_devices(module.params["sysfs"])
    kernel_module = gpu.kernel_module_version(module.params["sysfs"], module.params["procfs"])
    problem = gpu.diagnose(rc, output, report["gpus"], pci_devices, kernel_module)
    if problem == "driver_not_installed" and not nvidia_smi:
        output = f"there is no executable {module.params['nvidia_smi'] or 'nvidia-smi on the PATH'}"
    module.exit_json(
        changed=False,
        **report,
        kernel_module_version=kernel_module,
        **gpu.host_state(module.params["sysfs"], module.params["procfs"], module.params["root"]),
        pci_devices=pci_devices,
        **gpu.read_cdi(module.params["cdi_dirs"]),
        engine=engine(module, module.params["timeout"]),
        problem=problem,
        advice=gpu.ADVICE[problem],
        driver_error=None if problem == "none" else gpu.error_text(output) or None,
    )


if __name__ == "__main__":
    main()
