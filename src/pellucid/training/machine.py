"""What this machine offers a training run: device, cores, arithmetic."""

from __future__ import annotations

import os
import platform
import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from pellucid.data.cores import usable_cores
from pellucid.errors import UsageError
from pellucid.recipe import Engine
from pellucid.training.processes import local_rank, local_size, several, size

#: How torch says that an operation is not deterministic, and how it says so of CUDA's library for matrices.
_NONE = re.compile(r"(?P<name>\S+) does not have a deterministic implementation|Deterministic behavior was enabled")

#: What has CUDA's library for matrices compute alike each time; read when it is first used.
_CUBLAS = "CUBLAS_WORKSPACE_CONFIG"


def pick_device(name: str) -> torch.device:
    """The device a recipe names; `auto` is CUDA where there is one, else the processor.

    Of several processes on a machine each has a GPU of its own. Raises UsageError for a device this machine or this
    build of torch does not have.
    """
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        name = "cuda" if available["cuda"] else "cpu"
    if not available[name]:
        here = ", ".join(device for device, there in available.items() if there)
        raise UsageError(f"--device {name}: torch {torch.__version__} finds none on this machine; it has: {here}")
    if several():
        return _own(name)
    return torch.device(name)


def _own(name: str) -> torch.device:
    """This process's device, among several processes."""
    if name == "mps":
        raise UsageError(f"--device mps: takes one process, and there are {size()}; leave torchrun away")
    if name == "cpu":
        return torch.device("cpu")
    there = torch.cuda.device_count()
    if local_size() > there:
        raise UsageError(
            f"--device cuda: {local_size()} processes on this machine want a GPU each, and it has {there}; start "
            f"torchrun with --nproc-per-node {there}, or train with --device cpu"
        )
    torch.cuda.set_device(local_rank())
    return torch.device("cuda", local_rank())


def own_cores() -> int:
    """The cores that each of the processes on this machine may use."""
    return max(1, usable_cores() // local_size())


def processor() -> str:
    """The processor's name, as exactly as the system tells it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def bfloat16_works(device: torch.device) -> bool:
    """Whether a bfloat16 convolution, forwards and backwards, is right on this machine.

    Releases of torch have had it wrong, or sixteen times slower, on some processors; the slowness is the probe's to
    find, the error is found here: against float32, within 2 % of the largest value (bfloat16 keeps 8 bits).
    """
    if device.type == "cpu" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, 16, 12, 12, generator=generator).to(device).to(memory_format=torch.channels_last)
    w = (torch.randn(32, 16, 3, 3, generator=generator) / 12).to(device)
    answers = []
    for dtype in (torch.float32, torch.bfloat16):
        x_leaf, w_leaf = x.clone().requires_grad_(), w.clone().requires_grad_()
        with torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
            y = torch.nn.functional.conv2d(x_leaf, w_leaf, padding=1)
        y.float().square().sum().backward()  # type: ignore[no-untyped-call]
        assert x_leaf.grad is not None
        assert w_leaf.grad is not None
        answers.append([y.detach().float(), x_leaf.grad, w_leaf.grad])
    return all(
        bool(torch.isfinite(low).all()) and bool((high - low).abs().max() <= 0.02 * high.abs().max())
        for high, low in zip(*answers, strict=True)
    )


@contextmanager
def computing(engine: Engine) -> Iterator[set[str]]:
    """Compute as a training run does: the engine's threads, no denormals, deterministic kernels where torch has them.

    Gives the names of the operations that have none, as they are met; `unsteady` makes sentences of them. Everything,
    torch's random state included, is afterwards as it was. A denormal operand slows a convolution tens of times, and
    training lets weights decay into them.
    """
    with threads(engine.threads), torch.random.fork_rng(), _deterministic(engine.device) as met:
        torch.set_flush_denormal(True)
        try:
            yield met
        finally:
            torch.set_flush_denormal(False)


def unsteady(names: Iterable[str]) -> tuple[str, ...]:
    """What a reader of a run should know of operations that are not deterministic, a sentence each."""
    return tuple(
        f"torch has no deterministic {name} here, so that another run of this recipe may differ in its last digits"
        for name in sorted(names)
    )


@contextmanager
def _deterministic(device: str) -> Iterator[set[str]]:
    """Have torch choose deterministic kernels, and gather the names of what has none in place of its warnings."""
    met: set[str] = set()
    mode = torch.get_deterministic_debug_mode()
    # Set through the name of the module, whose attribute it is by a property that type checkers do not see.
    memory: Any = torch.utils.deterministic
    fills = memory.fill_uninitialized_memory
    given = os.environ.get(_CUBLAS)
    with warnings.catch_warnings():
        shown = warnings.showwarning

        def told(message: Warning | str, *rest: Any, **named: Any) -> None:
            found = _NONE.match(str(message))
            if found is None:
                shown(message, *rest, **named)
            else:
                met.add(found["name"] or "CuBLAS")

        # Before a filter that makes errors of warnings, and each time: an operation may first be met in a later epoch.
        warnings.filterwarnings("always", message=_NONE.pattern)
        warnings.showwarning = told
        if device == "cuda" and given is None:
            os.environ[_CUBLAS] = ":4096:8"
        # As `use_deterministic_algorithms` does, without having torch import its compiler for seconds.
        torch.set_deterministic_debug_mode("warn")
        # Filling what a kernel is about to write anyway costs time, and hides nothing here.
        memory.fill_uninitialized_memory = False
        try:
            yield met
        finally:
            memory.fill_uninitialized_memory = fills
            torch.set_deterministic_debug_mode(mode)
            if device == "cuda" and given is None:
                os.environ.pop(_CUBLAS, None)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Compute with `count` threads inside, and with as many as before outside."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
