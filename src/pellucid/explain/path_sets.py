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

#: Up to so large a set all pairs are looked at, which is quicker then: this many pairs at a time.
_DENSE, _ROOM = 512, 1_000_000


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
    rows, n = sets.x.shape
    some = max(1, _ROOM // n**2) if n <= _DENSE else 1
    found = np.empty((rows, n))
    for start in range(0, rows, some):
        x, logs, gamma, beta = (part[start : start + some] for part in sets[:4])
        found[start : start + some] = _some(sets._replace(x=x, logs=logs, gamma=gamma, beta=beta))
    return found


def _some(sets: Sets) -> Array:
    """Of a few sets at once, (R, n)."""
    x, n = sets.x.astype(np.float64), sets.x.shape[1]
    s_r1 = 1 / np.sqrt(x.var(axis=1, keepdims=True) + sets.eps)
    hat, size = (x - x.mean(axis=1, keepdims=True)) * s_r1, np.abs(x)
    top_r1 = sets.logs.max(axis=1, keepdims=True)
    top_r1 = np.where(np.isfinite(top_r1), top_r1, 0.0)
    lead = size * np.exp(sets.logs - top_r1)
    own = np.abs(1 - 1 / n - hat**2 / n)
    if n <= _DENSE:
        slope_rjm = np.abs(1 + hat[:, :, None] * hat[:, None, :]) / n
        slope_rjm[:, np.arange(n), np.arange(n)] = own
        total = (slope_rjm @ size[:, :, None])[:, :, 0]
        slope_rjm *= lead[:, None, :]
        best = slope_rjm.max(axis=2)
    else:
        bent = np.stack([_sum_of_bent(*row) for row in zip(size, hat, strict=True)])
        total = bent / n - size * (1 + hat**2) / n + size * own
        largest = np.stack([_largest_of_bent(*row) for row in zip(lead, hat, strict=True)])
        best = np.maximum(largest / n, lead * own)
    reach = sets.gamma * s_r1
    total = reach * total + sets.beta + (sets.gamma * np.abs(hat) if sets.has_gamma else 0.0)
    return share_of(log(reach * best) + top_r1, total)


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
