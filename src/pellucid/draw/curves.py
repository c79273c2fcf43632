"""The curves of a run: loss, accuracy and learning rate over its epochs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from pellucid.draw.canvas import BLUE, GREEN, GREY, INK, ORANGE, PALE, canvas
from pellucid.errors import UsageError

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

#: From this ratio of the largest to the smallest loss on, a linear axis shows one of them only.
_LOG_RATIO = 50

#: Up to this many epochs, each value is marked by a point.
_POINTS = 40


def curves(history: Sequence[Mapping[str, Any]], path: str | os.PathLike[str], best: int | None = None) -> None:
    """Draw a run's history, the rows of its metrics.jsonl, as one PNG: loss, accuracy and AUC, learning rate.

    A value that is absent, None or no finite number leaves a gap. The best epoch is marked: `best`, or else the one
    with the highest val_accuracy, among equals the lowest val_loss, then the earliest. Where an epoch stands twice, as
    after a resumed run, its last row counts.

    Raises UsageError where there is no row, and PellucidError when the file cannot be written.
    """
    rows = sorted({int(row["epoch"]): row for row in history}.items())
    if not rows:
        raise UsageError("curves: the history has no epoch: draw it after the first one")
    epochs = np.array([epoch for epoch, _ in rows])
    column = {key: _column([row for _, row in rows], key) for key in ("loss", "accuracy", "lr")}
    column |= {key: _column([row for _, row in rows], key) for key in ("val_loss", "val_accuracy", "val_auc")}
    if best is None:
        best = _best(epochs, column["val_accuracy"], column["val_loss"])
    with canvas(8, 8.4, path) as figure:
        top, middle, bottom = figure.subplots(
            3, 1, sharex=True, height_ratios=[3, 3, 1.1], gridspec_kw={"hspace": 0.24}
        )
        _lines(top, epochs, [("train", BLUE, "-", column["loss"]), ("val", ORANGE, "--", column["val_loss"])])
        _lines(
            middle,
            epochs,
            [
                ("train", BLUE, "-", column["accuracy"]),
                ("val", ORANGE, "--", column["val_accuracy"]),
                ("val AUC", GREEN, "-.", column["val_auc"]),
            ],
        )
        _lines(bottom, epochs, [("learning rate", GREY, "-", column["lr"])], legend=False)
        top.set_title("Loss")
        middle.set_title("Accuracy")
        bottom.set_title("Learning rate")
        bottom.set_xlabel("epoch")
        _scale(top, bottom, epochs, column)
        low, high = middle.get_ylim()
        middle.set_ylim(max(low, -0.02), min(high, 1.02))
        if best is not None and best in epochs:
            _mark(best, epochs, column, (top, middle, bottom))


def _column(rows: Sequence[Mapping[str, Any]], key: str) -> NDArray[np.float64]:
    values = [row.get(key) for row in rows]
    return np.array([v if isinstance(v, (int, float)) and math.isfinite(v) else math.nan for v in values], np.float64)


def _best(epochs: NDArray[Any], accuracy: NDArray[np.float64], loss: NDArray[np.float64]) -> int | None:
    ranked = [
        (-accuracy[i], loss[i] if math.isfinite(loss[i]) else math.inf, int(epoch))
        for i, epoch in enumerate(epochs)
        if math.isfinite(accuracy[i])
    ]
    return min(ranked)[2] if ranked else None


def _lines(
    axes: Axes,
    epochs: NDArray[Any],
    lines: Sequence[tuple[str, str, str, NDArray[np.float64]]],
    *,
    legend: bool = True,
) -> None:
    marker = "o" if len(epochs) <= _POINTS else None
    for label, colour, dashes, values in lines:
        if np.isfinite(values).any():
            axes.plot(epochs, values, dashes, color=colour, marker=marker, markersize=3.5, linewidth=1.6, label=label)
    if legend and axes.lines:
        # Beside the curves, where it never covers one.
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), handlelength=2.6)
    axes.grid(color=PALE, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _scale(top: Axes, bottom: Axes, epochs: NDArray[Any], column: Mapping[str, NDArray[np.float64]]) -> None:
    losses = np.concatenate([column["loss"], column["val_loss"]])
    losses = losses[np.isfinite(losses)]
    if losses.size and losses.min() > 0 and losses.max() / losses.min() > _LOG_RATIO:
        top.set_yscale("log")
        top.set_title("Loss (logarithmic)")
    bottom.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=12, min_n_ticks=1))
    # One epoch alone would get an axis from 0.95 to 1.05.
    margin = 0.5 if len(epochs) == 1 else 0.02 * (epochs[-1] - epochs[0])
    bottom.set_xlim(epochs[0] - margin, epochs[-1] + margin)
    rates = column["lr"][np.isfinite(column["lr"])]
    if rates.size and rates.min() >= 0:
        bottom.set_ylim(0, float(rates.max()) * 1.15 or 1)
    bottom.yaxis.set_major_locator(MaxNLocator(nbins=3))
    # Each tick in full; the common factor that would stand above the axis otherwise covers the title.
    bottom.yaxis.set_major_formatter("{x:g}")
    if top.get_yscale() == "linear":
        top.yaxis.set_major_formatter("{x:g}")


def _mark(best: int, epochs: NDArray[Any], column: Mapping[str, NDArray[np.float64]], axes: Sequence[Axes]) -> None:
    for one in axes:
        one.axvline(best, color=INK, linewidth=0.9, linestyle=(0, (1, 2)), zorder=1)
    place = int(np.flatnonzero(epochs == best)[0])
    said = [f"best: epoch {best}"]
    for axis, key, text in ((axes[0], "val_loss", "val loss {:.4g}"), (axes[1], "val_accuracy", "val accuracy {:.3f}")):
        value = column[key][place]
        if math.isfinite(value):
            axis.plot([best], [value], "o", markersize=9, markerfacecolor="none", markeredgecolor=INK)
            said.append(text.format(value))
    axes[0].set_title(", ".join(said), loc="right", fontsize=10, color=INK)
