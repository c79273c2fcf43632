"""The best way on from a weighted sum: convolutions and linear layers, all outputs at once.

Of y = Σ_d w_d·x_d + b the share of a term is |w_d·x_d| / (Σ|w·x| + |b|). With B_d the best strength from x_d down to
the input, the best from y is max_d |w_d|·|x_d|·B_d over that sum: a matrix product with a maximum in place of a sum.
Strengths are kept as logarithms, since those of a hundred layers underflow; within one sum they are taken relative to
its largest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pellucid.textbook import convolution
from pellucid.textbook.arrays import pad_planes, windows

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pellucid.explain.node import Array

#: Numbers in the largest temporary array (32 MB), and in one that is used again and again (it stays in the cache).
_ROOM = 4_000_000
_CACHED = 32_768


def log(array: Array) -> Array:
    """The logarithm, −∞ of 0."""
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(array))


def share_of(best: Array, total: Array) -> Array:
    """Log of best/total from log best and the total; −∞ where nothing contributes, or not a finite number."""
    with np.errstate(invalid="ignore"):
        found = best - log(total)
    return np.where((total > 0) & np.isfinite(total) & np.isfinite(best), found, -np.inf)


def sums(w_od: Array, b_o: Array | None, x_pd: Array, logs_pd: Array) -> Array:
    """Log of the best strength from each y_po = Σ_d w_od·x_pd + b_o; `logs_pd` is that from each x_pd."""
    size = np.abs(x_pd.astype(np.float64))
    ways = log(size) + logs_pd
    top_p = ways.max(axis=1, initial=-np.inf)
    top_p = np.where(np.isfinite(top_p), top_p, 0.0)
    q_pd = np.exp(ways - top_p[:, None])
    rows = max(1, _ROOM // max(w_od.shape[1], 1))
    found = np.empty((len(x_pd), len(w_od)))
    for start in range(0, len(w_od), rows):
        some = slice(start, start + rows)
        w = np.abs(w_od[some].astype(np.float64))
        total = size @ w.T
        if b_o is not None:
            total += np.abs(b_o[some].astype(np.float64))
        found[:, some] = share_of(log(_largest_products(w, q_pd)) + top_p[:, None], total)
    return found


def _largest_products(w_od: Array, q_pd: Array) -> Array:
    """The largest w_od·q_pd over d, (P, O); none of them is negative."""
    best = np.zeros((len(q_pd), len(w_od)))
    few = max(1, _CACHED // max(w_od.shape[1], 1))
    for start in range(0, len(q_pd), few):
        q = q_pd[start : start + few]
        # Behind a rectifier many channels are silent at all of these places.
        used = np.flatnonzero(q.any(axis=0))
        if not len(used):
            continue
        q, w = np.ascontiguousarray(q[:, used]), w_od[:, used]
        product = np.empty_like(q)
        for o in range(len(w)):
            np.multiply(q, w[o], out=product)
            product.max(axis=1, out=best[start : start + few, o])
    return best


def linear(arrays: Sequence[Array | None], logs: Sequence[Array | None], _: Mapping[str, Any], need: Array) -> Array:
    """Of a linear layer: only the outputs in `need`, −∞ elsewhere."""
    x, w, b = (*arrays, None)[:3]
    assert x is not None
    assert w is not None
    out = np.full(need.shape, -np.inf)
    if logs[0] is None or not need.any():
        return out
    wanted = need.reshape(-1, need.shape[-1])
    rows, units = np.flatnonzero(wanted.any(axis=1)), np.flatnonzero(wanted.any(axis=0))
    x_pd, logs_pd = x.reshape(-1, x.shape[-1])[rows], logs[0].reshape(-1, x.shape[-1])[rows]
    # Inputs that are 0 throughout (behind a rectifier, half of them) add nothing to any sum.
    on = np.flatnonzero(x_pd.any(axis=0))
    flat = out.reshape(wanted.shape)
    flat[np.ix_(rows, units)] = sums(w[np.ix_(units, on)], None if b is None else b[units], x_pd[:, on], logs_pd[:, on])
    return np.where(need, flat.reshape(need.shape), -np.inf)


def convolve(
    arrays: Sequence[Array | None], logs: Sequence[Array | None], settings: Mapping[str, Any], need: Array
) -> Array:
    """Of a convolution: only the outputs in `need`, −∞ elsewhere."""
    x, w, b = (*arrays, None)[:3]
    assert x is not None
    assert w is not None
    out = np.full(need.shape, -np.inf)
    if logs[0] is None or not need.any():
        return out
    place = convolution.geometry(**settings)
    kernel = (w.shape[2], w.shape[3])
    of_x = windows(pad_planes(x, place.pads), kernel, place.stride, place.dilation)
    of_logs = windows(pad_planes(logs[0], place.pads, -np.inf), kernel, place.stride, place.dilation)
    n_all, i_all, j_all = np.nonzero(need.any(axis=1))
    filters = np.flatnonzero(need.any(axis=(0, 2, 3)))
    room = max(1, _ROOM // (w[0].size if place.groups == 1 else w.size))
    for start in range(0, len(n_all), room):
        n, i, j = n_all[start : start + room], i_all[start : start + room], j_all[start : start + room]
        x_pckl, logs_pckl = of_x[n, :, i, j], of_logs[n, :, i, j]
        if place.groups == 1:
            bias = None if b is None else b[filters]
            w_od, flat = w[filters].reshape(len(filters), -1), (len(n), -1)
            found = sums(w_od, bias, x_pckl.reshape(flat), logs_pckl.reshape(flat))
            out[n[:, None], filters[None, :], i[:, None], j[:, None]] = found
        else:
            out[n, :, i, j] = _grouped(w, b, x_pckl, logs_pckl, place.groups)
    return np.where(need, out, -np.inf)


def _grouped(w: Array, b: Array | None, x_pckl: Array, logs_pckl: Array, groups: int) -> Array:
    """The same with channels in groups, (P, O): few terms a sum, so all products at once."""
    points = len(x_pckl)
    size = np.abs(x_pckl.astype(np.float64)).reshape(points, groups, 1, -1)
    ways = log(size) + logs_pckl.reshape(size.shape)
    w_god = np.abs(w.astype(np.float64)).reshape(groups, w.shape[0] // groups, -1)
    best = (log(w_god) + ways).max(axis=-1)
    total = (w_god * size).sum(axis=-1)
    if b is not None:
        total = total + np.abs(b.astype(np.float64)).reshape(groups, -1)
    return share_of(best, total).reshape(points, -1)


def convolve_turned(
    arrays: Sequence[Array | None], logs: Sequence[Array | None], settings: Mapping[str, Any], need: Array
) -> Array:
    """Of a true convolution, whose kernel is turned by 180°."""
    assert arrays[1] is not None
    return convolve((arrays[0], arrays[1][:, :, ::-1, ::-1], *arrays[2:]), logs, settings, need)


def convolve_channels(
    arrays: Sequence[Array | None], logs: Sequence[Array | None], settings: Mapping[str, Any], need: Array
) -> Array:
    """Of a depthwise convolution: as many groups as channels."""
    assert arrays[0] is not None
    return convolve(arrays, logs, {**settings, "groups": arrays[0].shape[1]}, need)
