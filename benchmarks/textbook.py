"""How slow may the textbook be and still be used: LeNet-5 forward and backward beside torch, and one answer of `terms`.

Both on one thread, the same weights and the same batch of 64 images, taking turns in one process; the ratio is that of
the medians.

    OMP_NUM_THREADS=1 python benchmarks/textbook.py        writes results/textbook.json
"""

from __future__ import annotations

import json
import platform
import statistics
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from pellucid.textbook import OPERATIONS, lenet5

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path(__file__).parent
BATCH, ROUNDS = 64, 25


def network(weights: dict[str, Any]) -> nn.Module:
    convolutions = [
        part
        for i, o, name in ((1, 6, "conv1"), (6, 16, "conv2"), (16, 120, "conv3"))
        for part in (nn.Conv2d(i, o, 5), nn.Tanh(), *([nn.AvgPool2d(2)] if name != "conv3" else []))
    ]
    net = nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(120, 84), nn.Tanh(), nn.Linear(84, 10))
    for parameter, value in zip(net.parameters(), weights.values(), strict=True):
        parameter.data = torch.from_numpy(value.copy())
    return net


def seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def compare(kind: str) -> dict[str, float]:
    rng = np.random.default_rng(0)
    weights = {name: w.astype(kind) for name, w in lenet5.start(rng).items()}
    x, labels = rng.standard_normal((BATCH, 1, 32, 32)).astype(kind), rng.integers(0, 10, BATCH)
    net, x_torch, labels_torch = network(weights), torch.from_numpy(x), torch.from_numpy(labels)

    def engine() -> None:
        net.zero_grad()
        loss: Any = nn.functional.cross_entropy(net(x_torch), labels_torch)
        loss.backward()

    arms = {"textbook": lambda: lenet5.loss_and_gradients(weights, x, labels), "torch": engine}
    times: dict[str, list[float]] = {name: [] for name in arms}
    for number in range(ROUNDS + 2):
        for name, work in arms.items():
            taken = seconds(work)
            if number >= 2:  # the first rounds fill caches
                times[name].append(taken)
    medians = {f"{name}_ms": round(statistics.median(t) * 1000, 3) for name, t in times.items()}
    return {**medians, "ratio": round(medians["textbook_ms"] / medians["torch_ms"], 2)}


def answer() -> float:
    """Milliseconds for the terms of one number of a 3×3×512 convolution, recomputed (median)."""
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((1, 512, 7, 7)).astype("f4"), rng.standard_normal((512, 512, 3, 3)).astype("f4")
    terms = OPERATIONS["convolution"].terms
    taken = [seconds(lambda: terms((0, 100, 3, 3), x, w, padding=1).recompute()) for _ in range(ROUNDS)]
    return round(statistics.median(taken) * 1000, 3)


def main() -> None:
    torch.set_num_threads(1)
    result = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": platform.processor() or platform.machine(),
        "numpy": np.__version__,
        "torch": torch.__version__,
        "batch": BATCH,
        "rounds": ROUNDS,
        "threads": 1,
        "lenet5_forward_backward": {kind: compare(kind) for kind in ("float32", "float64")},
        "terms_of_3x3x512_ms": answer(),
    }
    (HERE / "results" / "textbook.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
