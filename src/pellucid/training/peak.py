"""How much arithmetic a step is, and how much of it this machine could do: the two sides of "share of peak"."""

from __future__ import annotations

import copy
import time

import torch
from torch.utils.flop_counter import FlopCounterMode

from pellucid.data.mix import Mixed, Target, targets
from pellucid.training.loop import DTYPES, Forward, Training

#: Side of the matrices: large enough to keep every core at its limit, small enough to take no time.
SIDE = {"cpu": 2048, "cuda": 8192}

#: Seconds of repetitions of which the quickest counts.
SECONDS = 0.5


def step_flop(training: Training, x_nhwc: torch.Tensor, target: Target) -> int:
    """Floating-point operations of a step's convolutions and matrix products, forwards and backwards.

    A multiplication and an addition are two. What is done element by element is not counted, as is usual.
    """
    model = copy.deepcopy(training.model).train()
    forward = Forward(model, training.batches.preprocess, training.recipe.engine)
    with torch.random.fork_rng(devices=[]), FlopCounterMode(display=False) as counter:
        logits_nk, auxiliary = forward(x_nhwc)
        labels = targets(target, logits_nk.shape[1], logits_nk.dtype) if isinstance(target, Mixed) else target
        loss = torch.stack([training.loss(logits, labels) for logits in (logits_nk, *auxiliary)]).sum()
        loss.backward()  # type: ignore[no-untyped-call]
    return int(counter.get_total_flops())


def matrix_rate(precision: str, device: torch.device) -> float:
    """Floating-point operations a second of the quickest of some large matrix products, on the threads as they are."""
    dtype = torch.bfloat16 if precision == "bfloat16" else DTYPES[precision]
    side = SIDE.get(device.type, SIDE["cpu"])
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    least, begun = float("inf"), time.perf_counter()
    with torch.no_grad():
        a @ b  # the first one chooses its kernel
        while time.perf_counter() - begun < SECONDS:
            started = _now(device)
            a @ b
            least = min(least, _now(device) - started)
    return 2 * side**3 / least


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
