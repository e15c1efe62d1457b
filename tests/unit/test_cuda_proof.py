"""The proof of role iopaint that torch computes on the GPU. torch is a stand-in, with the errors of torch 2.11 on an H100."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

VARIABLES = Path(__file__).resolve().parents[2] / "roles/iopaint/vars/main.yml"
TORCH = """
def ones(*size, device):
    {}
class cuda:
    get_device_name = staticmethod(lambda: "NVIDIA H100 80GB HBM3")
"""
WORKS = """
    class Tensor:
        sum = item = lambda self: self
    assert device == "cuda"
    return Tensor()
"""
FULL = (
    "CUDA error: out of memory\\nSearch for `cudaErrorMemoryAllocation' in https://docs.nvidia.com/ for more information.\\n"
    "For debugging consider passing CUDA_LAUNCH_BLOCKING=1\\n"
    "Compile with `TORCH_USE_CUDA_DSA` to enable device-side assertions.\\n\\n"
)


@pytest.fixture
def prove(tmp_path):
    """Run the proof with a torch whose function ones has this body."""

    def run(body):
        (tmp_path / "torch.py").write_text(TORCH.format(body))
        proof = yaml.safe_load(VARIABLES.read_text())["__iopaint_cuda_proof"]
        return subprocess.run(
            [sys.executable, "-c", proof], env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=False
        )

    return run


def test_the_name_of_the_gpu_that_computed(prove):
    done = prove(WORKS)
    assert (done.returncode, done.stdout, done.stderr) == (0, "NVIDIA H100 80GB HBM3\n", "")


@pytest.mark.parametrize(
    ("raised", "reason"),
    [
        ("RuntimeError('No CUDA GPUs are available')", "No CUDA GPUs are available"),
        (f'RuntimeError("{FULL}")', "CUDA error: out of memory"),
        ("AssertionError()", "AssertionError()"),
    ],
)
def test_torch_says_why_in_one_line(prove, raised, reason):
    done = prove(f"raise {raised}")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"{reason}\n")
