# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filter over what gpu_info returns: the CUDA build of torch that a host's driver and GPUs can run."""

from __future__ import annotations

from ansible_collections.iopaint.fleet.plugins.module_utils.gpu import version_key

# What the build for CUDA 13.0 asks for; the one for 12.6 runs on anything older that IOPaint is of use on.
DRIVER = "580"
CAPABILITY = "7.5"


def cuda_build(info):
    """Return C(version), 13.0 or 12.6, and C(reason), why."""
    driver = info["driver_version"]
    if not driver:
        return {"version": "13.0", "reason": "no driver answers on this host, so the newest is taken"}
    if version_key(driver) < version_key(DRIVER):
        return {"version": "12.6", "reason": f"the driver {driver} is older than {DRIVER}"}
    for gpu in info["gpus"]:
        capability = gpu["compute_capability"]
        if capability and version_key(capability) < version_key(CAPABILITY):
            return {
                "version": "12.6",
                "reason": f"{gpu['name']} has compute capability {capability}, CUDA 13 starts at {CAPABILITY}",
            }
    return {"version": "13.0", "reason": f"the driver is {driver}"}


class FilterModule:
    """The filter, by its name."""

    def filters(self):
        """Return each filter by its name."""
        return {"cuda_build": cuda_build}
