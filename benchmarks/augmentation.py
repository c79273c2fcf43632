"""What each change to the training pictures costs, in milliseconds a batch and as a share of a training step.

A batch of 128 pictures of 32×32×3, one thread, processor time (so that what else runs on the machine counts little);
the changes and the steps take turns, and the medians over the rounds are written down. Then what rounding mixtures to
grey levels does to a network: by how much logits and gradient differ from those of mixtures that are not rounded.

    PELLUCID_DATA=... OMP_NUM_THREADS=1 python benchmarks/augmentation.py        writes results/augmentation.json
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from pellucid import nets
from pellucid.data.augment import ORDER, Draws, gather
from pellucid.data.cores import usable_cores
from pellucid.data.load import load
from pellucid.data.mix import Mixed, gather_mixed, mixes, plan, targets
from pellucid.data.preprocess import Preprocess
from pellucid.data.source import open_source
from pellucid.training.machine import processor

HERE = Path(__file__).parent
BATCH, SIDE, CLASSES, ROUNDS = 128, 32, 5, 31
NETS = ("quick", "cifar-cnn")
NOTHING: tuple[str, ...] = ()


def photographs() -> tuple[torch.Tensor, torch.Tensor, Preprocess]:
    source = open_source(str(Path(os.environ["PELLUCID_DATA"]) / "flower-photos-small"))
    preprocess = Preprocess((SIDE, SIDE), "crop", 3, (0.0,) * 3, (1.0,) * 3)
    loaded = load(source.splits["train"], preprocess)
    return torch.from_numpy(loaded.pixels), torch.from_numpy(loaded.labels), preprocess.with_statistics(loaded.pixels)


def drawing(
    pixels_nhwc: torch.Tensor, labels_n: torch.Tensor, index_n: np.ndarray[Any, Any], changes: tuple[str, ...]
) -> Callable[[], object]:
    if mixes(changes):
        return lambda: gather_mixed(pixels_nhwc, labels_n, index_n, changes, 0, 0)
    return lambda: gather(pixels_nhwc, index_n, changes, 0, 0)


def step(net: str, x_nhwc: torch.Tensor, labels_n: torch.Tensor, preprocess: Preprocess) -> Callable[[], object]:
    model = nets.build(net, CLASSES, (3, SIDE, SIDE), seed=0).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, nesterov=True)

    def take() -> None:
        loss = functional.cross_entropy(model(preprocess.normalise(x_nhwc)), labels_n)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return take


def times(works: dict[str, Callable[[], object]]) -> dict[str, float]:
    """The median milliseconds of each, taking turns."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    for number in range(ROUNDS + 2):
        for name, work in works.items():
            start = time.process_time()
            work()
            if number >= 2:  # the first rounds fill caches
                taken[name].append(time.process_time() - start)
    return {name: statistics.median(t) * 1000 for name, t in taken.items()}


def rounding(pixels_nhwc: torch.Tensor, labels_n: torch.Tensor, preprocess: Preprocess) -> dict[str, float]:
    """Mixup in whole grey levels against mixup in float32, as `quick` with its first weights sees them."""
    index_n = np.random.default_rng(1).permutation(len(labels_n))[:BATCH]
    x_nhwc, target = gather_mixed(pixels_nhwc, labels_n, index_n, ("mixup",), 0, 0)
    planned = plan(Draws(0, 0, index_n), len(labels_n), (SIDE, SIDE), ("mixup",))
    share = target.share_n.view(-1, 1, 1, 1)
    exact_nhwc = share * pixels_nhwc[index_n] + (1 - share) * pixels_nhwc[planned.partner_n]
    model = nets.build("quick", CLASSES, (3, SIDE, SIDE), seed=0)
    logits, gradients = zip(*(passed(model, preprocess, x, target) for x in (x_nhwc, exact_nhwc)), strict=True)
    # The measure of it: how far the gradient of one batch is from that of the next.
    another = gather_mixed(pixels_nhwc, labels_n, (index_n + BATCH) % len(labels_n), ("mixup",), 0, 0)
    _, next_gradient = passed(model, preprocess, *another)
    levels = float((x_nhwc - exact_nhwc).square().mean().sqrt())
    return {
        "rms_grey_levels": round(levels, 3),
        "share_of_the_pictures_deviation": round(levels / float(pixels_nhwc.float().std()), 5),
        "relative_change_of_logits": round(float((logits[0] - logits[1]).norm() / logits[1].norm()), 5),
        "relative_change_of_gradient": round(float((gradients[0] - gradients[1]).norm() / gradients[1].norm()), 5),
        "from_batch_to_batch": round(float((next_gradient - gradients[1]).norm() / gradients[1].norm()), 5),
    }


def passed(
    model: nn.Module, preprocess: Preprocess, x_nhwc: torch.Tensor, target: Mixed
) -> tuple[torch.Tensor, torch.Tensor]:
    model.zero_grad()
    logits_nk = model(preprocess.normalise(x_nhwc))
    functional.cross_entropy(logits_nk, targets(target, CLASSES)).backward()  # type: ignore[no-untyped-call]
    return logits_nk.detach(), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def main() -> None:
    torch.set_num_threads(1)
    pixels_nhwc, labels_n, preprocess = photographs()
    index_n = np.random.default_rng(0).permutation(len(labels_n))[:BATCH]
    sets: dict[str, tuple[str, ...]] = {
        "nothing": NOTHING,
        "flip shift": ("flip", "shift"),
        **{name: (name,) for name in ORDER},
        "crop flip colour": ("crop", "flip", "colour"),
        "flip crop mixup cutmix": ("flip", "crop", "mixup", "cutmix"),
        "all": ORDER,
    }
    works = {name: drawing(pixels_nhwc, labels_n, index_n, changes) for name, changes in sets.items()}
    x_nhwc, batch_labels_n = pixels_nhwc[index_n], labels_n[index_n]
    steps = {f"step of {net}": step(net, x_nhwc, batch_labels_n, preprocess) for net in NETS}
    load_before = os.getloadavg()[0]
    found = times({**works, **steps})
    result = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"processor": processor(), "cores": usable_cores(), "load_before": round(load_before, 1)},
        "torch": torch.__version__,
        "numpy": np.__version__,
        "batch": [BATCH, SIDE, SIDE, 3],
        "threads": 1,
        "rounds": ROUNDS,
        "clock": "processor time",
        "step_ms": {net: round(found[f"step of {net}"], 2) for net in NETS},
        "changes": {
            name: {
                "ms": round(found[name], 3),
                **{f"share_of_{net}": round(found[name] / found[f"step of {net}"], 4) for net in NETS},
            }
            for name in sets
        },
        "rounding_of_mixup": rounding(pixels_nhwc, labels_n, preprocess),
    }
    (HERE / "results").mkdir(exist_ok=True)
    (HERE / "results" / "augmentation.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
