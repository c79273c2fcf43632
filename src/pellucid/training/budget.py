"""So many seconds to train in: the epochs that fit into them, and how large `quick` had best be to use them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from torch import nn

from pellucid.bundle.recogniser import infer
from pellucid.data.batches import Batches
from pellucid.data.images import picked
from pellucid.data.load import Shown
from pellucid.errors import UsageError
from pellucid.recipe import Engine, Recipe, settle
from pellucid.training.losses import Loss
from pellucid.training.machine import computing
from pellucid.training.probe import Measured, choose, step_milliseconds

#: What `quick` may become, the cheapest first, and the epochs of `LOOKED_AT` pictures below which a cheaper one is
#: better: on CIFAR-10, 30 seconds of two cores are five epochs of 32 channels (0.825 of val), three of 48 (0.819), not
#: quite two of 64 (0.800).
NETS = {
    "quick(16)": 1.0,
    "quick(24)": 1.0,
    "quick(32)": 1.0,
    "quick(48)": 4.0,
    "quick(64)": 8.0,
    "quick(96)": 16.0,
    "quick(128)": 24.0,
}
#: The same for small images, every pixel of which is worth looking at: in a minute 32 channels at every pixel come to
#: 0.839 in two epochs, 64 at every second to 0.835 in three; in two minutes 0.877 in four, and 0.870 in seven.
SMALL_IMAGE_NETS = {
    "quick(16)": 1.0,
    "quick(24)": 1.0,
    "quick(32)": 1.0,
    "quick(32, stride=1, middle=128)": 3.0,
    "quick(48, stride=1, middle=192)": 8.0,
    "quick(64, stride=1, middle=256)": 12.0,
    "quick(96, stride=1, middle=384)": 16.0,
    "quick(128, stride=1, middle=512)": 24.0,
}
LARGEST_SMALL_IMAGE = 48
LOOKED_AT = 45_000
#: A step of a run takes longer than the quickest of a few: by so much.
SLOWER = 1.05
#: Pictures of val that are recognised to see how long all take.
EVALUATED = 256
#: Epochs beyond which nothing is gained.
MOST = 1000


@dataclass(frozen=True)
class Fitted:
    """What fits into the time."""

    recipe: Recipe
    """With its network and its epochs; its budget is used up."""
    model: nn.Module
    measured: Measured


def fit_budget(
    recipe: Recipe,
    build: Callable[[str], nn.Module],
    batches: Batches,
    val: Shown,
    loss: Loss,
    *,
    again: bool = False,
) -> Fitted:
    """The recipe with as many epochs as its budget has room for, by timing some steps; and `quick` as large as is best.

    `build` makes the network of a name, ready for its first step; one with options, or of one's own, stays what it is.
    The engine is measured on the first, or remembered (`again`: measured anyway), before the time begins to count.
    Raises UsageError where not even one epoch fits.
    """
    seconds = recipe.optimisation.budget
    assert seconds is not None
    found: Fitted | None = None
    measured: Measured | None = None
    took = math.inf
    for net, wanted in _candidates(recipe, len(batches.labels_n), min(batches.preprocess.size)):
        model = build(net)
        candidate = settle(recipe, net=net, budget=None)
        measured = measured or choose(model.to(batches.device), batches, candidate, loss, again=again)
        an_epoch = _epoch_seconds(model, candidate, batches, val, loss, measured.engine)
        took = min(took, an_epoch)
        epochs = min(MOST, math.floor(seconds / an_epoch))
        if epochs < (1 if found is None else max(1.0, wanted)):
            break
        found = Fitted(settle(candidate, epochs=epochs), model, measured)
    if found is None:
        raise UsageError(
            f"--budget {seconds:g}: an epoch of the {len(batches.labels_n):,} pictures takes {took:.1f} seconds on "
            f"this machine, and one at least is needed; give --budget {math.ceil(took)}, or train on fewer with "
            f"--sample {_share(seconds / took)}"
        )
    return found


def _candidates(recipe: Recipe, pictures: int, side: int) -> Iterator[tuple[str, float]]:
    """Networks from the cheapest on, and the epochs that make each worth while."""
    if recipe.net != "quick" or recipe.weights is not None:
        yield recipe.net, 1.0
        return
    for net, epochs in (SMALL_IMAGE_NETS if side <= LARGEST_SMALL_IMAGE else NETS).items():
        # Few pictures want more epochs of each, and many are learnt from in fewer; neither in proportion.
        yield net, epochs * math.sqrt(LOOKED_AT / pictures)


def _epoch_seconds(model: nn.Module, recipe: Recipe, batches: Batches, val: Shown, loss: Loss, engine: Engine) -> float:
    """Seconds that an epoch takes, the evaluation behind it included."""
    steps = len(batches) * step_milliseconds(model, batches, recipe, loss, engine) / 1e3
    count = min(EVALUATED, len(val.labels))
    pixels_nhwc = picked(val.pixels, np.arange(count))
    with computing(engine):
        took = math.inf
        for _ in range(2):  # the first time is also that of making ready
            begun = time.perf_counter()
            infer(model, batches.preprocess, pixels_nhwc)
            took = min(took, time.perf_counter() - begun)
    return SLOWER * (steps + took * len(val.labels) / count)


def _share(value: float) -> float:
    """A share rounded down to two digits."""
    digits = 1 - math.floor(math.log10(value))
    return math.floor(value * 10.0**digits) / 10.0**digits
