"""A learning rate found by trying: a short run whose rate rises from far too small to far too large (Smith 2017).

While the rate is too small the loss hardly moves; then it falls; near the edge of stability it stops falling, and
beyond it explodes. Smith raised the rate in a line over some epochs; here it rises by equal factors over a hundred
steps, as became usual, on a copy of the network with the run's own pictures, batches, optimiser and loss.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass

from pellucid.errors import PellucidError
from pellucid.recipe import LEARNING_RATES, settle
from pellucid.training.loop import Training

#: Steps of the sweep, and the first and the last rate as multiples of the optimiser's usual one.
STEPS, FROM, TO = 100, 1e-4, 1e3

#: How much of the average so far a step keeps when the losses are smoothed.
SMOOTHING = 0.9

#: The sweep ends when the smoothed loss is so many times its lowest.
EXPLODED = 4.0

#: The rate suggested is this share of the one at which the smoothed loss was lowest. There the next steps already
#: make it worse; a tenth keeps clear of that edge, and still lies where the loss falls fast.
SHARE = 0.1


@dataclass(frozen=True)
class Sweep:
    """Rates tried, one a step, and what became of the loss."""

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    """Of each step's batch, before the step."""
    smoothed: tuple[float, ...]
    lowest: float
    """The rate at which the smoothed loss was lowest."""
    suggestion: float
    """A tenth of that, to two digits."""


def sweep(training: Training) -> Sweep:
    """Try rates on a copy of a network about to be trained; the run's own state and randomness stay as they are.

    The caller sees to threads and to torch's generators (`machine.computing`). Raises PellucidError when the loss falls
    at no rate.
    """
    first = training.recipe.optimisation.stages[0].optimizer
    usual = LEARNING_RATES[first]
    # With a constant schedule, a rate of 1 and this one optimiser, the twin's rate is what `lowered` says.
    recipe = settle(training.recipe, optimizer=first, schedule="constant", lr=1.0, ema=None)
    twin = Training(copy.deepcopy(training.model), training.batches, recipe, training.loss, training.teacher)
    rates: list[float] = []
    losses: list[float] = []
    twin.lowered = usual * FROM
    while True:
        for pictures in twin.run_epoch():
            rates.append(twin.lowered)
            losses.append(float(twin.loss_sum) / pictures)
            if len(losses) == STEPS or exploded(losses):
                return suggest(rates, losses)
            twin.loss_sum.zero_()
            twin.lowered = usual * FROM * (TO / FROM) ** (len(losses) / (STEPS - 1))


def smoothed(losses: Sequence[float]) -> list[float]:
    """Running averages of the losses, the bias of the start taken out.

    >>> smoothed([3.0, 3.0, 3.0])
    [3.0, 3.0, 3.0]
    """
    sums, answer = 0.0, []
    for i, loss in enumerate(losses, 1):
        sums = SMOOTHING * sums + (1 - SMOOTHING) * loss
        answer.append(round(sums / (1 - SMOOTHING**i), 12))
    return answer


def exploded(losses: Sequence[float]) -> bool:
    """Whether there is no point in going on."""
    if not math.isfinite(losses[-1]):
        return True
    average = smoothed(losses)
    return average[-1] > EXPLODED * min(average)


def suggest(rates: Sequence[float], losses: Sequence[float]) -> Sweep:
    """The sweep's answer: a tenth of the rate at which the smoothed loss was lowest.

    Raises PellucidError when it was lowest at the start: then the loss fell at no rate.
    """
    finite = next((i for i, loss in enumerate(losses) if not math.isfinite(loss)), len(losses))
    average = smoothed(losses[:finite])
    best = min(range(finite), key=lambda i: average[i], default=0)
    if best == 0:
        raise PellucidError(
            f"--lr find: the loss falls at no rate from {rates[0]:g} to {rates[-1]:g}; give --lr, and look whether the "
            "labels are right"
        )
    return Sweep(
        tuple(rates[:finite]), tuple(losses[:finite]), tuple(average), rates[best], float(f"{SHARE * rates[best]:.2g}")
    )
