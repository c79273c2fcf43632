"""The confusion matrix: which class was taken for which."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.font_manager import FontProperties

from pellucid.draw.canvas import PALE, canvas
from pellucid.draw.text import cells, readable
from pellucid.errors import UsageError

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike, NDArray

_RIGHT = LinearSegmentedColormap.from_list("right", ["#FFFFFF", "#C6DDEF", "#5AA2CF", "#0072B2", "#003F63"])
_WRONG = LinearSegmentedColormap.from_list("wrong", ["#FFFFFF", "#FBDDC8", "#F0975A", "#D55E00", "#7A3600"])

#: The root of the share: a mistake of 1 % is then still seen, and 90 % still told from 100 %.
_NORM = PowerNorm(0.5, vmin=0, vmax=1)

#: Up to this many classes each cell says count and share, and up to that many the count.
_SHARES, _COUNTS = 12, 25

#: Sides, in inches, of a cell that says both, and of one that says the count.
_WIDE, _NARROW = 0.68, 0.42

#: Inches around the matrix for names, title and legend; the picture is cropped to what is used of it.
MARGIN = 2.0

#: Above this many classes, only some rows and columns are named.
_NAMED = 120


def confusion(matrix: ArrayLike, classes: Sequence[str], path: str | os.PathLike[str]) -> str | None:
    """Draw a confusion matrix (classes, classes), a row for each true class, as PNG; returns a note for the user.

    A cell's colour is its share of the row, blue for right and orange for wrong; few enough classes leave room for the
    counts. The note, or None, is about names that no installed font can show.

    Raises UsageError for a matrix that does not fit the classes, and PellucidError when the file cannot be written.
    """
    counts = np.asarray(matrix)
    n = len(classes)
    if counts.shape != (n, n) or n == 0 or counts.dtype.kind not in "iu" or counts.min() < 0:
        raise UsageError(
            f"confusion matrix of shape {counts.shape} and type {counts.dtype}: expected counts ({n}, {n}), a row "
            "and a column for each class"
        )
    support = counts.sum(axis=1)
    shares = counts / np.maximum(support, 1)[:, None]
    names = readable(classes, width=28 if n <= _SHARES else 20)
    side = max(2.4, _WIDE * n) if n <= _SHARES else min(_NARROW * n, 12.0)
    size = min(10.0, 0.8 * 72 * side / min(n, _NAMED))
    colours = _colours(shares, support)
    whole = side + 2 * MARGIN
    with canvas(whole, whole, path) as figure:
        axes = figure.add_axes((MARGIN / whole, MARGIN / whole, side / whole, side / whole))
        axes.imshow(colours, interpolation="nearest")
        _name(axes, names.labels, support, FontProperties(family=names.family, size=size), side / n)
        _separate(axes, n)
        if n <= _COUNTS:
            _number(axes, counts, shares, colours)
        total, right = int(counts.sum()), int(np.trace(counts))
        share = f" ({100 * right / total:.1f} %)" if total else ""
        axes.set_title(f"Confusion: {right:,} of {total:,} right{share}", loc="left", pad=10)
        _legend(figure, side)
    return names.note


def _colours(shares: NDArray[np.float64], support: NDArray[Any]) -> NDArray[np.float64]:
    diagonal = np.eye(len(shares), dtype=bool)[:, :, None]
    colours: NDArray[np.float64] = np.where(diagonal, _RIGHT(_NORM(shares)), _WRONG(_NORM(shares)))
    colours[support == 0] = (0.93, 0.93, 0.93, 1)
    return colours


def _name(axes: Axes, labels: Sequence[str], support: NDArray[Any], font: FontProperties, cell: float) -> None:
    """Name rows and columns, the columns slanted or upright where a cell of `cell` inches is narrower than a name."""
    places = range(0, len(labels), -(-len(labels) // _NAMED))
    columns = [labels[place] for place in places]
    widest = max(map(cells, columns)) * 0.62 * font.get_size_in_points() / 72
    if widest < 0.95 * cell:
        axes.set_xticks(places, columns, fontproperties=font)
    elif cell > 0.3:
        axes.set_xticks(places, columns, fontproperties=font, rotation=40, ha="right", rotation_mode="anchor")
    else:
        axes.set_xticks(places, columns, fontproperties=font, rotation=90)
    axes.set_yticks(places, [f"{labels[place]}  ({support[place]:,})" for place in places], fontproperties=font)
    axes.tick_params(length=0)
    axes.set_xlabel("predicted class", labelpad=8)
    axes.set_ylabel("true class (images)", labelpad=8)


def _separate(axes: Axes, n: int) -> None:
    axes.spines[:].set_color(PALE)
    if n <= _COUNTS:
        for edge in np.arange(0.5, n - 1):
            axes.axhline(edge, color=PALE, linewidth=0.6)
            axes.axvline(edge, color=PALE, linewidth=0.6)


def _number(axes: Axes, counts: NDArray[Any], shares: NDArray[np.float64], colours: NDArray[np.float64]) -> None:
    """The count in each cell that has one, and below it its share of the row, from 1 % on and where there is room."""
    wide = len(counts) <= _SHARES
    texts = {(row, column): _brief(int(counts[row, column])) for row, column in zip(*np.nonzero(counts), strict=True)}
    longest = max(map(len, texts.values()), default=1)
    # A digit is 0.64 of the font's size wide.
    size = min(9.0 if wide else 7.5, 0.92 * 72 * (_WIDE if wide else _NARROW) / (0.64 * longest))
    for (row, column), text in texts.items():
        share = shares[row, column]
        lines = f"{text}\n{100 * share:.0f} %" if wide and share >= 0.01 else text
        # The luminance at which black and white stand out alike is 0.18 (WCAG's formula, with 2.2 for its exponent).
        bright = colours[row, column, :3] ** 2.2 @ (0.2126, 0.7152, 0.0722) > 0.18
        colour = "black" if bright else "white"
        axes.text(column, row, lines, ha="center", va="center", color=colour, size=size, linespacing=1.25)


def _brief(count: int) -> str:
    """The count in at most five letters."""
    if count < 10_000:
        return f"{count:,}"
    return f"{count / 1e3:.0f}k" if count < 999_500 else f"{count / 1e6:.3g}M"


def _legend(figure: Figure, side: float) -> None:
    whole = side + 2 * MARGIN
    height = min(side, 4) / whole
    for place, (scale, title) in enumerate(((_RIGHT, "right"), (_WRONG, "wrong"))):
        left = (MARGIN + side + 0.25 + 0.32 * place) / whole
        axes = figure.add_axes((left, (MARGIN + side) / whole - height, 0.14 / whole, height))
        bar = figure.colorbar(ScalarMappable(_NORM, scale), cax=axes)
        bar.outline.set_visible(False)
        bar.set_ticks([0, 0.01, 0.1, 0.25, 0.5, 1], labels=["0", "1", "10", "25", "50", "100 %"] if place else [""] * 6)
        axes.tick_params(length=2 if place else 0, labelsize=8)
        axes.set_title(title, fontsize=8, loc="left", rotation=40, pad=5)
