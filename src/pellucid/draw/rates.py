"""The picture of a sweep over learning rates: why the rate suggested is the one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pellucid.draw.canvas import BLUE, GREY, ORANGE, PALE, canvas
from pellucid.errors import UsageError

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence


def sweep(
    rates: Sequence[float],
    losses: Sequence[float],
    smoothed: Sequence[float],
    suggestion: float,
    path: str | os.PathLike[str],
) -> None:
    """Draw the loss of each step, and smoothed, against the learning rate, which is logarithmic, as PNG.

    The lowest smoothed loss and the rate suggested are marked. What explodes runs out of the picture at the top.

    Raises UsageError where the three differ in length or are empty, and PellucidError when the file cannot be written.
    """
    if not rates or not len(rates) == len(losses) == len(smoothed):
        raise UsageError(f"{len(rates)} rates, {len(losses)} losses, {len(smoothed)} smoothed: expected as many")
    best = int(np.argmin(smoothed))
    low, start, least = smoothed[best], max(smoothed[: best + 1]), min(losses[: best + 1])
    room = 0.15 * (start - low) or 0.1 * abs(low) or 1.0
    with canvas(7.2, 3.6, path) as figure:
        axes = figure.subplots()
        axes.plot(rates, losses, color=GREY, linewidth=0.8, label="each step")
        axes.plot(rates, smoothed, color=BLUE, linewidth=1.8, label="smoothed")
        axes.plot([rates[best]], [low], "o", color=BLUE, label=f"lowest, at {rates[best]:.2g}")
        axes.axvline(suggestion, color=ORANGE, linestyle="--", linewidth=1.4, label=f"suggested, {suggestion:g}")
        axes.set_xscale("log")
        axes.set_ylim(min(low, least) - room, start + 3 * room)
        axes.set(xlabel="learning rate", ylabel="loss")
        axes.set_title("Loss while the learning rate rises")
        axes.grid(color=PALE, linewidth=0.7)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
