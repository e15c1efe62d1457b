"""Which CUDA build a host gets."""

import pytest
from ansible_collections.iopaint.fleet.plugins.filter.cuda_build import cuda_build


@pytest.mark.parametrize(
    ("driver", "capabilities", "version", "reason"),
    [
        ("580.95.05", ["9.0"], "13.0", "580.95.05"),
        ("1000.1", ["9.0"], "13.0", "1000.1"),
        ("575.64", ["9.0"], "12.6", "older than 580"),
        ("580.95.05", ["7.5", "6.1"], "12.6", "compute capability 6.1"),
        ("580.95.05", ["10.0"], "13.0", "580.95.05"),
        ("580.95.05", [None], "13.0", "580.95.05"),
        (None, [], "13.0", "no driver"),
    ],
)
def test_build(driver, capabilities, version, reason):
    gpus = [{"name": "GPU", "compute_capability": capability} for capability in capabilities]
    build = cuda_build({"driver_version": driver, "gpus": gpus})
    assert build["version"] == version
    assert reason in build["reason"]
