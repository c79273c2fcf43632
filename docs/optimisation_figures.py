"""Draw the figures of docs/optimisation.md: `python docs/optimisation_figures.py`, in seconds."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import matplotlib as mpl

from pellucid import draw
from pellucid.recipe import Schedule
from pellucid.training import find_rate
from pellucid.training.optimise import learning_rate

mpl.use("Agg")
from matplotlib import pyplot as plt

IMAGES = Path(__file__).parent / "images"
STEPS = 400


def schedules(path: Path) -> None:
    """Each schedule over a run, its highest rate 1. Plateau, which goes by what is measured, is left out."""
    names = [name for name in get_args(Schedule) if name != "plateau"]
    figure, all_axes = plt.subplots(1, len(names), figsize=(9, 1.5), sharey=True, layout="constrained")
    for name, axes in zip(names, all_axes, strict=True):
        axes.plot([learning_rate(name, 1.0, step, STEPS) for step in range(STEPS)], color="#5e81ac")
        axes.set_title(name, fontsize=9)
        axes.set(xticks=[], ylim=(0, 1.05))
    all_axes[0].set_ylabel("rate")
    figure.savefig(path, dpi=100)
    plt.close(figure)


def found(path: Path) -> None:
    """A sweep with LeNet-5 on digits."""
    sweep = find_rate("digits", net="lenet5", epochs=10, precision="float32", layout="nchw", threads=1)
    print(f"suggested {sweep.suggestion:g}, lowest at {sweep.lowest:.2g}")
    draw.sweep(sweep.rates, sweep.losses, sweep.smoothed, sweep.suggestion, path)


def main() -> None:
    """Draw both."""
    IMAGES.mkdir(exist_ok=True)
    schedules(IMAGES / "schedules.png")
    found(IMAGES / "lr.png")


if __name__ == "__main__":
    main()
