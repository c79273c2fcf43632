r"""Schedules: the learning rate as a function of the step.

- **step** η·fᵏ, k = ⌊epoch/every⌋: halved every few epochs;
- **exponential** η·γᵗ;
- **cosine** from η down to the floor along half a cosine, η_min + (η − η_min)·(1 + cos(πt/T))/2;
- **one cycle** from η/25 up to η in the first 30 % of the steps, then down to η/25/10000, both along half a cosine;
- **plateau** lowered by a factor when the loss has not improved for some epochs.

>>> [step(epoch, 0.1, every=2) for epoch in range(5)]
[0.1, 0.1, 0.05, 0.05, 0.025]
>>> [round(cosine(t, 1.0, total=4), 4) for t in range(5)]
[1.0, 0.8536, 0.5, 0.1464, 0.0]

Sources: Loshchilov & Hutter 2017 (cosine); Smith & Topin 2018 (one cycle).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace


def step(epoch: int, base: float, *, every: int, factor: float = 0.5) -> float:
    """The rate `base`, times `factor` after every `every` epochs."""
    if epoch < 0 or every < 1:
        raise ValueError(f"epoch is {epoch} and every is {every}, but η·f^⌊epoch/every⌋ needs epoch ≥ 0 and every ≥ 1")
    return base * float(factor ** (epoch // every))


def exponential(t: int, base: float, *, gamma: float) -> float:
    """The rate base·γᵗ."""
    if t < 0 or not 0 < gamma <= 1:
        raise ValueError(f"t is {t} and gamma {gamma}, but η·γᵗ needs t ≥ 0 and 0 < γ ≤ 1")
    return base * float(gamma**t)


def cosine(t: int, base: float, *, total: int, floor: float = 0.0) -> float:
    """Along half a cosine from `base` at 0 to `floor` at `total`."""
    _inside(t, total, total)
    return _half_cosine(base, floor, t / total)


def one_cycle(t: int, peak: float, *, total: int, rise: float = 0.3, start: float = 25.0, end: float = 1e4) -> float:
    """From peak/start up to peak over the share `rise` of the steps 0 … total − 1, then down to peak/start/end."""
    _inside(t, total, total - 1)
    top = rise * total - 1
    if not 0 < top < total - 1:
        raise ValueError(f"rise is {rise}, but the peak at step {rise}·{total} − 1 must lie between 0 and {total - 1}")
    if t <= top:
        return _half_cosine(peak / start, peak, t / top)
    return _half_cosine(peak, peak / start / end, (t - top) / (total - 1 - top))


@dataclass(frozen=True)
class Plateau:
    """What the plateau schedule remembers: the rate, the best loss, and for how many epochs it has not been beaten."""

    rate: float
    factor: float = 0.1
    patience: int = 10
    threshold: float = 1e-4
    best: float = math.inf
    waited: int = 0

    def after(self, loss: float) -> Plateau:
        """The schedule after an epoch with this loss: lowered when more than `patience` epochs brought nothing.

        A loss counts as better below best·(1 − threshold).
        """
        if loss < self.best * (1 - self.threshold):
            return replace(self, best=loss, waited=0)
        if self.waited + 1 > self.patience:
            return replace(self, rate=self.rate * self.factor, waited=0)
        return replace(self, waited=self.waited + 1)


def _half_cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * share))


def _inside(t: int, total: int, last: int) -> None:
    if total < 1 or not 0 <= t <= last:
        raise ValueError(f"t is {t}, but a schedule over {total} steps is defined for 0 ≤ t ≤ {last}")
