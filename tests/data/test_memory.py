from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from pellucid.data.memory import out_of_memory

#: Convolutions and matrix products, forwards and backwards, under less and less memory: what torch then raises.
REAL = """
import resource, sys
import torch
from torch import nn
from pellucid.data.memory import out_of_memory

torch.set_num_threads(1)
net = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.Flatten())
net(torch.randn(2, 3, 32, 32)).sum().backward()
size = next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmSize"))
ran_out = 0
for room in (24, 12, 6, 3, 1):
    resource.setrlimit(resource.RLIMIT_AS, (size + room * 1_000_000, resource.RLIM_INFINITY))
    for pictures in (256, 64, 16):
        try:
            net(torch.randn(pictures, 3, 32, 32)).sum().backward()
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            ran_out += 1
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(ran_out)
"""


def test_what_torch_raises_when_memory_runs_out_is_known() -> None:
    if sys.platform != "linux":
        pytest.skip("memory is bounded by Linux's means")
    done = subprocess.run([sys.executable, "-c", REAL], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 5


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("MPS backend out of memory (MPS allocated: 17.00 GB)"),
    ],
)
def test_other_devices_say_it_in_their_own_way(error: BaseException) -> None:
    assert out_of_memory(error)


@pytest.mark.parametrize(
    "error", [RuntimeError("shape '[3]' is invalid for input of size 4"), ValueError("not enough memory")]
)
def test_other_errors_are_not_taken_for_it(error: BaseException) -> None:
    assert not out_of_memory(error)
