#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: cdi_spec
short_description: Write the CDI spec of the NVIDIA GPUs for the driver and MIG layout, and refuse duplicates
version_added: 1.0.0
description:
  - Generates the spec anew with C(nvidia-ctk) on every run and compares it with the one that is there, so a driver that was
    updated, a MIG layout that changed and a GPU that went away are all noticed.
  - Writes it by the toolkit's own refresh unit where the toolkit has one, which also does so at boot and after a driver
    update, and into C(/etc/cdi) where it has none or the unit declines.
  - Finds devices that other spec files declare too, before anything is written.
  - Reads what C(nvidia-ctk cdi list) prints, as that exits with success with no device and with a broken spec.
  - Never makes systemd reload its units, which would take the GPU from containers of the legacy runtime.
options:
  cdi_dirs:
    description: Directories of CDI spec files, in rising order of precedence, as the engine has them configured.
    type: list
    elements: path
    default: [/etc/cdi, /var/run/cdi]
  unit:
    description: Name of the refresh units, C(.service) and C(.path).
    type: str
    default: nvidia-cdi-refresh
  environment_file:
    description: What the refresh unit reads its options from; they count for the comparison too.
    type: path
    default: /etc/nvidia-container-toolkit/nvidia-cdi-refresh.env
  persistent:
    description: The file to write where there is no refresh unit, or it declines. It has to outlive a reboot.
    type: path
    default: /etc/cdi/nvidia.yaml
  duplicates:
    description: What becomes of other spec files that declare the same devices.
    type: str
    choices:
      refuse: The module fails and names them.
      set_aside: They get the suffix C(.set-aside), by which the engine passes over them.
    default: refuse
extends_documentation_fragment: iopaint.fleet.names
attributes:
  check_mode:
    support: full
    description: Compares and finds duplicates, writes nothing. Without the toolkit it foretells a change.
  diff_mode:
    support: full
    description: Shows the spec before and after.
author: iopaint.fleet contributors (@iopaint)
"""

EXAMPLES = r"""
- name: Write the CDI spec for driver and MIG layout
  iopaint.fleet.cdi_spec:
  register: cdi
"""

RETURN = r"""
path:
  description: The spec file. Null in check mode on a host without the toolkit.
  returned: success
  type: str
  sample: /var/run/cdi/nvidia.yaml
devices:
  description: Qualified names of the devices that spec files declare after the run.
  returned: success
  type: list
  elements: str
  sample: ["nvidia.com/gpu=0", "nvidia.com/gpu=all"]
set_aside:
  description: Other spec files that were renamed, by their new names.
  returned: success
  type: list
  elements: str
  sample: [/etc/cdi/nvidia.yaml.set-aside]
written_by:
  description: V(unit) where the refresh unit writes the spec, V(module) where this module did.
  returned: success
  type: str
  sample: unit
"""

import os
import re

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.iopaint.fleet.plugins.module_utils import foreign, gpu
from ansible_collections.iopaint.fleet.plugins.module_utils.files import make_folder
from ansible_collections.iopaint.fleet.plugins.module_utils.names import named

OUTPUT = "NVIDIA_CTK_CDI_OUTPUT_FILE_PATH"
MARK = "# Written by iopaint.fleet.cdi_spec.\n"  # tells a file of this module from one of the administrator's


def read(path: str) -> str:
    try:
        return foreign.read_file(path).decode(errors="replace")
    except (OSError, foreign.ForeignError):
        return ""


def same(one: str, other: str) -> bool:
    """Return whether two specs say the same: the order in which the driver lists files and GPUs does not matter."""
    return sorted(one.replace(MARK, "").split("\n")) == sorted(other.replace(MARK, "").split("\n"))


def environment(path: str) -> dict:
    """Return the assignments in an environment file of systemd."""
    pairs = re.findall(r"^\s*([A-Za-z_]\w*)=(.*?)\s*$", read(path), re.MULTILINE)
    return {name: value.strip("\"'") for name, value in pairs}


class Spec:
    """The host's spec, its generator and its refresh unit."""

    def __init__(self, module: AnsibleModule):
        """Take the module that runs, and look at the units."""
        self.module = module
        self.ctk = module.get_bin_path("nvidia-ctk")
        self.persistent = module.params["persistent"]
        self.systemctl = module.get_bin_path("systemctl")
        self.service, self.path_unit = (f"{module.params['unit']}.{suffix}" for suffix in ("service", "path"))
        self.environment = environment(module.params["environment_file"])
        self.units = self._units()
        self.output = self.environment.get(OUTPUT, "/var/run/cdi/nvidia.yaml") if self.has_unit() else self.persistent

    def _units(self) -> dict:
        if not self.systemctl:
            return {}
        command = [self.systemctl, "show", "-p", "Id,LoadState,UnitFileState,ActiveState", self.service, self.path_unit]
        _rc, out, _err = self.module.run_command(command)
        blocks = (dict(line.split("=", 1) for line in block.splitlines() if "=" in line) for block in out.split("\n\n"))
        return {block["Id"]: block for block in blocks if "Id" in block}

    def has_unit(self) -> bool:
        return self.units.get(self.service, {}).get("LoadState") == "loaded"

    def disabled(self) -> list:
        """Return the units that would not act at the next boot or driver update."""
        loaded = [name for name, unit in self.units.items() if unit.get("LoadState") == "loaded"]
        return [name for name in loaded if self.units[name]["UnitFileState"] == "disabled"]

    def idle_path(self) -> bool:
        unit = self.units.get(self.path_unit, {})
        return unit.get("LoadState") == "loaded" and unit.get("ActiveState") not in ("active", "activating")

    def generate(self) -> str:
        target = os.path.join(self.module.tmpdir, "nvidia.yaml")
        rc, out, err = self.module.run_command(
            [self.ctk, "cdi", "generate", f"--output={target}"], environ_update=self.environment
        )
        text = read(target)
        if rc != 0 or not text:
            self.module.fail_json(
                msg="nvidia-ctk generated no CDI spec, so the driver does not answer it: run the role nvidia_driver on this "
                f"host, which names the reason. nvidia-ctk says: {' '.join((err or out).split())[-600:]} Nothing was changed."
            )
        return text

    def names(self) -> list:
        """Return the qualified names of what was generated."""
        try:
            kind, names = gpu.read_spec(os.path.join(self.module.tmpdir, "nvidia.yaml"))
        except ValueError as error:
            self.module.fail_json(msg=f"nvidia-ctk generated a CDI spec that can't be read: {error}. Nothing was changed.")
        return [f"{kind}={name}" for name in names]

    def system(self, *arguments: str) -> None:
        rc, _out, err = self.module.run_command([self.systemctl, *arguments])
        if rc != 0:
            self.module.fail_json(
                msg=f"systemctl {' '.join(arguments)} failed: {err.strip()} See `journalctl -u {self.service}`."
            )

    def write(self, text: str) -> str:
        """Let the unit write the spec, or write it here; gives unit or module."""
        if self.has_unit():
            self.system("restart", self.service)
            if same(read(self.output), text):
                return "unit"
            self.module.warn(
                f"{self.service} did not write the spec (its condition may ask for a kernel module that modules.dep does not "
                f"list), so it is in {self.persistent} and has to be written anew, by this module, after each driver update."
            )
            if os.path.exists(self.output):
                os.unlink(self.output)
            self.output = self.persistent
        make_folder(os.path.dirname(self.output))
        candidate = os.path.join(self.module.tmpdir, "candidate")
        with open(candidate, "w", encoding="utf-8") as file:
            file.write(MARK + text)
        os.chmod(candidate, 0o644)
        self.module.atomic_move(candidate, self.output)
        return "module"

    def check_list(self, wanted: list) -> None:
        """Fail where the toolkit's own reading of the spec directories lacks a device."""
        directories = [f"--spec-dir={directory}" for directory in self.module.params["cdi_dirs"]]
        _rc, out, err = self.module.run_command([self.ctk, "cdi", "list", *directories])
        lacking = sorted(set(wanted) - set(out.split()))
        if lacking:
            self.module.fail_json(
                msg=f"{self.output} declares {', '.join(lacking)}, and `nvidia-ctk cdi list` does not show it, so no engine will "
                f"find it either. Run `systemctl restart nvidia-cdi-refresh.service` and see its journal. The command says: "
                f"{' '.join((err or out).split())}"
            )


def other_files(directories: list, own: str, wanted: list) -> dict:
    """Return spec file -> devices of ours that it declares too."""
    found: dict = {}
    for directory in directories:
        for path in gpu.spec_files(directory, []):
            if os.path.realpath(path) == os.path.realpath(own):
                continue
            try:
                kind, names = gpu.read_spec(path)
            except (OSError, ValueError):
                continue
            shared = sorted({f"{kind}={name}" for name in names} & set(wanted))
            if shared:
                found[path] = shared
    return found


def run(module: AnsibleModule) -> dict:
    directories = module.params["cdi_dirs"]
    spec = Spec(module)
    if not spec.ctk:
        if module.check_mode:
            return {"changed": True, "path": None, "devices": [], "set_aside": [], "written_by": "unit"}
        module.fail_json(
            msg="The NVIDIA Container Toolkit is not installed, there is no nvidia-ctk: run the role nvidia_container_toolkit."
        )
    text, written_by = spec.generate(), "unit" if spec.has_unit() else "module"
    wanted = spec.names()
    if written_by == "unit" and not os.path.exists(spec.output) and same(read(spec.persistent), text):
        spec.output, written_by = spec.persistent, "module"  # the unit declined, on an earlier run
    before = read(spec.output)

    others = other_files(directories, spec.output, wanted)
    own = [path for path in others if read(path).startswith(MARK)]  # of the time before the unit did it
    duplicates = {path: devices for path, devices in others.items() if path not in own}
    if duplicates and module.params["duplicates"] == "refuse":
        listing = "; ".join(f"{path} declares {', '.join(devices)}" for path, devices in duplicates.items())
        module.fail_json(
            msg=f"Devices of {spec.output} are in other spec files too: {listing}. Containers get a wrong one or none: "
            f"remove what nobody writes any more, or set {named(module, 'duplicates')} to set_aside. No spec changed."
        )
    stale, disabled, idle = not same(before, text), spec.disabled(), spec.idle_path()
    result = {"changed": bool(stale or disabled or idle or others), "set_aside": [f"{path}.set-aside" for path in duplicates]}
    if stale:
        result["diff"] = {"before_header": spec.output, "after_header": spec.output, "before": before, "after": text}
    if not module.check_mode:
        for path in duplicates:
            os.rename(path, f"{path}.set-aside")
        for path in own:
            os.unlink(path)
        if disabled:
            spec.system("enable", "--no-reload", *disabled)
        if idle:
            spec.system("start", spec.path_unit)
        if stale:
            written_by = spec.write(text)
        spec.check_list(wanted)
    found = gpu.read_cdi(directories)
    for error in found["cdi_errors"]:
        module.warn(f"{error['file']} is no spec that an engine can read: {error['error']}.")
    return {**result, "path": spec.output, "devices": found["cdi_devices"], "written_by": written_by}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "cdi_dirs": {"type": "list", "elements": "path", "default": ["/etc/cdi", "/var/run/cdi"]},
            "unit": {"type": "str", "default": "nvidia-cdi-refresh"},
            "environment_file": {"type": "path", "default": "/etc/nvidia-container-toolkit/nvidia-cdi-refresh.env"},
            "persistent": {"type": "path", "default": "/etc/cdi/nvidia.yaml"},
            "duplicates": {"type": "str", "choices": ["refuse", "set_aside"], "default": "refuse"},
            "names": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    module.exit_json(**run(module))


if __name__ == "__main__":
    main()
