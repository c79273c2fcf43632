"""The terms of a number laid out as they lie in their array: small grids of value × coefficient, one a channel.

What a convolution or a pool does to one number is seen best as the patch under its window beside the kernel. A
gradient of such an operation is the same the other way round: a patch of the gradients above.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pellucid.explain.address import spelled
from pellucid.explain.node import Array

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pellucid.explain.explanation import Explanation
    from pellucid.explain.shares import Part

#: A larger grid is no longer read by anybody.
MOST_CELLS = 121


@dataclass(frozen=True, eq=False)
class Patch:
    """The terms of a number in one channel of one image of an array (N, C, H, W), as a grid.

    `rows` and `columns` are the positions in the array (apart by the dilation, where there is one); `value`,
    `coefficient` and `contribution` are (rows, columns). Where the window reaches beyond the border there are no terms
    and no rows. `factor` says which kernel of which array of weights ("conv1.weight[3,0]"), "" where the coefficients
    are no weights.
    """

    array: str
    image: int
    channel: int
    rows: tuple[int, ...]
    columns: tuple[int, ...]
    value: Array
    coefficient: Array
    contribution: Array
    factor: str

    @property
    def total(self) -> float:
        """What this patch puts into the number."""
        return float(self.contribution.sum())

    @property
    def weight(self) -> float:
        """Σ|contributions|: how much goes on here, whether or not it cancels."""
        return float(np.abs(self.contribution).sum())

    @property
    def title(self) -> str:
        """Where it was cut from, such as "input[0,2,11..13,5..7]"."""
        spans = [f"{at[0]}..{at[-1]}" if len(at) > 1 else f"{at[0]}" for at in (self.rows, self.columns)]
        return f"{self.array}[{self.image},{self.channel},{','.join(spans)}]"


def patches(explanation: Explanation) -> tuple[Patch, ...]:
    """The patches of an explanation, those first where most goes on.

    Empty where the terms do not lie in windows of more than one number (fully connected layers, normalisations, sums of
    two maps), where a window is larger than anybody reads, and where terms combine by a formula.
    """
    if explanation.combine not in {"sum", "max"}:
        return ()
    found = [patch for part in explanation.parts for patch in _of(part)]
    return tuple(sorted(found, key=lambda patch: -patch.weight))


def others(explanation: Explanation, shown: Sequence[Patch]) -> float:
    """What the terms outside these patches add to the number, all together."""
    whole = float(sum(part.contribution.sum() for part in explanation.parts))
    return whole - sum(patch.total for patch in shown)


def _of(part: Part) -> list[Patch]:
    if part.index.ndim != 2 or part.index.shape[1] != 4 or len(part) < 2:
        return []
    made = []
    for image, channel in np.unique(part.index[:, :2], axis=0).tolist():
        mine = np.flatnonzero((part.index[:, 0] == image) & (part.index[:, 1] == channel))
        rows, row = np.unique(part.index[mine, 2], return_inverse=True)
        columns, column = np.unique(part.index[mine, 3], return_inverse=True)
        if not 1 < len(rows) * len(columns) <= MOST_CELLS or len(mine) != len(rows) * len(columns):
            return []
        place = row * len(columns) + column
        if len(np.unique(place)) != len(mine):
            # One number is read twice (two taps of a kernel on a repeated border): no grid shows that.
            return []
        order = mine[np.argsort(place)]
        shape = (len(rows), len(columns))
        made.append(
            Patch(
                part.array,
                image,
                channel,
                tuple(rows.tolist()),
                tuple(columns.tolist()),
                part.value[order].reshape(shape),
                part.coefficient[order].reshape(shape),
                part.contribution[order].reshape(shape),
                _kernel(part, mine),
            )
        )
    return made


def _kernel(part: Part, mine: Array) -> str:
    """The address of the weights beside these terms: as many leading indices as they have in common."""
    if not part.factor:
        return ""
    index = part.factor_index[mine]
    common = list(itertools.takewhile(lambda axis: (index[:, axis] == index[0, axis]).all(), range(index.shape[1])))
    return spelled(part.factor, index[0, common].tolist())
