"""The best way on from a normalisation over a set, where every number of the set is a term of every output.

With x̂ the standardised numbers, n of them, the term of x_m in y_j is γ_j·s·(δ − 1/n − x̂_j·x̂_m/n)·x_m. For m ≠ j its
size is |γ_j|·s/n times |x_m|·|1 + x̂_m·t| with t = x̂_j: a bent line in t. So the sum over m and the largest over m, for
all j at once, are found without looking at all n² pairs: the sum from sorted bends and running sums, the largest from
the upper envelope of 2n lines, to which few lines belong.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pellucid.explain.path_sums import log, share_of

if TYPE_CHECKING:
    from pellucid.explain.node import Array

#: Up to so large a set all pairs are looked at, which is quicker then.
_DENSE = 512


class Sets(NamedTuple):
    """R sets of n numbers, each (R, n): x, log of the best strength from each, |γ| (1 without), |β| (0 without)."""

    x: Array
    logs: Array
    gamma: Array
    beta: Array
    has_gamma: bool
    eps: float


def standardised(sets: Sets) -> Array:
    """Log of the best strength from each output, (R, n)."""
    return np.stack([_row(sets, r) for r in range(len(sets.x))]) if len(sets.x) else np.zeros(sets.x.shape)


def _row(sets: Sets, r: int) -> Array:
    """Of one set, (n,)."""
    x, logs = sets.x[r].astype(np.float64), sets.logs[r]
    n, finite = len(x), np.isfinite(logs)
    if not finite.any():
        return np.full(n, -np.inf)
    s = 1 / np.sqrt(x.var() + sets.eps)
    hat, size = (x - x.mean()) * s, np.abs(x)
    top = logs[finite].max()
    lead = size * np.exp(logs - top)
    own = np.abs(1 - 1 / n - hat**2 / n)
    if n <= _DENSE:
        slope = np.abs(1 + np.outer(hat, hat)) / n
        np.fill_diagonal(slope, own)
        total, best = slope @ size, (slope * lead).max(axis=1)
    else:
        total = _sum_of_bent(size, hat) / n - size * (1 + hat**2) / n + size * own
        best = np.maximum(_largest_of_bent(lead, hat) / n, lead * own)
    reach = sets.gamma[r] * s
    total = reach * total + sets.beta[r] + (sets.gamma[r] * np.abs(hat) if sets.has_gamma else 0.0)
    return share_of(log(reach * best) + top, total)


def _sum_of_bent(size: Array, hat: Array) -> Array:
    """Σ_m size_m·|1 + hat_m·t| at every t = hat_j: twice the sum where the inside is positive, less the plain sum."""
    plain = size.sum() + (size * hat).sum() * hat
    positive = np.full(hat.shape, size[hat == 0].sum())
    for sign in (1, -1):
        side = np.flatnonzero(sign * hat > 0)
        # 1 + hat·t > 0 where sign·t lies beyond the bend at −1/|hat|.
        bends = -1 / (sign * hat[side])
        order = np.argsort(bends)
        running = [np.concatenate([[0.0], np.cumsum(part[side][order])]) for part in (size, size * hat)]
        before = np.searchsorted(bends[order], sign * hat, side="left")
        positive += running[0][before] + running[1][before] * hat
    return np.asarray(2 * positive - plain)


def _largest_of_bent(lead: Array, hat: Array) -> Array:
    """At every t = hat_j the largest lead_m·|1 + hat_m·t| with m ≠ j: the upper envelope of lines ±lead·(1 + hat·t).

    The envelope is walked from the smallest t to the largest, from each line to the steeper one that crosses it first.
    """
    height, slope = np.concatenate([lead, -lead]), np.concatenate([lead * hat, -lead * hat])
    at, end = hat.min(), hat.max()
    here = height + slope * at
    line = int(np.lexsort((slope, here))[-1])
    lines, starts = [line], []
    while True:
        steeper = np.flatnonzero(slope > slope[line])
        if not len(steeper):
            break
        crossing = (height[line] - height[steeper]) / (slope[steeper] - slope[line])
        first = np.lexsort((-slope[steeper], crossing))[0]
        if crossing[first] >= end:
            break
        line = int(steeper[first])
        lines.append(line)
        starts.append(crossing[first])
    on = np.array(lines)[np.searchsorted(np.array(starts), hat, side="right")]
    best = height[on] + slope[on] * hat
    for j in np.flatnonzero(on % len(hat) == np.arange(len(hat))):
        # The line is the output's own number, whose slope is another: the best of the others.
        others = lead * np.abs(1 + hat * hat[j])
        others[j] = 0.0
        best[j] = others.max()
    return np.asarray(np.maximum(best, 0.0))
