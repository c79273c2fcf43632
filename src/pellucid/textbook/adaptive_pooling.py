r"""Pooling to a given size: adaptive, global, and the spatial pyramid.

To make I numbers of H, bin i takes the pixels from ⌊i·H/I⌋ up to (not with) ⌈(i + 1)·H/I⌉: equal bins where I divides
H, overlapping ones elsewhere. With A_ih = 1/(size of bin i) on its pixels and 0 elsewhere, the adaptive average is

$$y_{ncij} = \sum_{h,w} A_{ih}\,B_{jw}\,x_{nchw},\qquad
\frac{\partial L}{\partial x_{nchw}} = \sum_{i,j} A_{ih}\,B_{jw}\,\frac{\partial L}{\partial y_{ncij}},$$

the same two matrices transposed. **Global average** is the case I = J = 1. The **spatial pyramid** (He et al. 2015)
takes the maximum of each bin at several sizes (1×1, 2×2, 4×4) and lays them in one row of C·(1 + 4 + 16) numbers,
whatever the image's size; each gradient goes back to its bin's winner.

>>> x = np.arange(9.0).reshape(1, 1, 3, 3)
>>> adaptive_average_forward(x, 2)[0][0, 0].tolist(), global_forward(x)[0].item()
([[2.0, 3.0], [5.0, 6.0]], 4.0)
>>> pyramid_forward(x, (1, 2))[0].tolist()
[[8.0, 4.0, 5.0, 7.0, 8.0]]

Axes: x N C H W, y N C I J; the pyramid N F, its features level by level, channel by channel, row by row. Sources: Lin
et al. 2014 (global average); He et al. 2015 (spatial pyramid).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from pellucid.textbook.arrays import contract, pair
from pellucid.textbook.operation import Argument, Attribute, Operation
from pellucid.textbook.terms import Array, Group, Index, Terms, check_index, gather, grid, plain, summed, unknown


def bins(size: int, count: int) -> list[tuple[int, int]]:
    """Where each of `count` bins begins and ends on `size` pixels.

    >>> bins(7, 3)
    [(0, 3), (2, 5), (4, 7)]
    """
    return [(i * size // count, -(-(i + 1) * size // count)) for i in range(count)]


def shares(size: int, count: int) -> Array:
    """A of the page, (count, size): each row the weights of one bin."""
    a = np.zeros((count, size))
    for i, (start, end) in enumerate(bins(size, count)):
        a[i, start:end] = 1 / (end - start)
    return a


# --- average ------------------------------------------------------------------------------------------------------


class KeptAverage(NamedTuple):
    """What the way back needs: the two matrices."""

    a_ih: Array
    b_jw: Array


def _matrices(x_nchw: Array, size: Any) -> KeptAverage:
    if x_nchw.ndim != 4:
        raise ValueError(f"x has shape {x_nchw.shape}, but adaptive pooling takes (N, C, H, W)")
    high, wide = pair(size, "size", 1)
    return KeptAverage(shares(x_nchw.shape[2], high), shares(x_nchw.shape[3], wide))


def adaptive_average_forward(x_nchw: Array, size: Any) -> tuple[Array, KeptAverage]:
    """Y = A·x·Bᵀ in every channel: (N, C, H, W) -> (N, C, I, J); keeps A and B."""
    kept = _matrices(x_nchw, size)
    a, b = kept.a_ih.astype(x_nchw.dtype), kept.b_jw.astype(x_nchw.dtype)
    return contract("ncih,jh->ncij", contract("nchw,ih->nciw", x_nchw, a), b), kept


def adaptive_average_backward(dy: Array, kept: KeptAverage) -> dict[str, Array]:
    """Dx = Aᵀ·dy·B."""
    a, b = kept.a_ih.astype(dy.dtype), kept.b_jw.astype(dy.dtype)
    return {"x": contract("nchj,jw->nchw", contract("ncij,ih->nchj", dy, a), b)}


def adaptive_average_terms(index: Index, x_nchw: Array, size: Any) -> Terms:
    """The bin's numbers, each with coefficient A·B, one over the bin's size."""
    a, b = _matrices(x_nchw, size)
    n, c, i, j = check_index(index, (*x_nchw.shape[:2], len(a), len(b)), "the output of adaptive_average_pool")
    at = grid(n, c, np.flatnonzero(a[i]), np.flatnonzero(b[j]))
    return summed(
        [plain("x", at, x_nchw, a[i, at[:, 2]] * b[j, at[:, 3]])], "y[n,c,i,j] = Σ_h,w A[i,h]·B[j,w]·x[n,c,h,w]"
    )


def adaptive_average_grad_terms(index: Index, wrt: str, dy: Array, x_nchw: Array, size: Any) -> Terms:
    """The bins that this number lies in, each with coefficient A·B."""
    n, c, h, w = _checked(index, wrt, x_nchw)
    a, b = _matrices(x_nchw, size)
    at = grid(n, c, np.flatnonzero(a[:, h]), np.flatnonzero(b[:, w]))
    return summed(
        [plain("y.grad", at, dy, a[at[:, 2], h] * b[at[:, 3], w])],
        "x.grad[n,c,h,w] = Σ_i,j A[i,h]·B[j,w]·y.grad[n,c,i,j]",
    )


def global_forward(x_nchw: Array) -> tuple[Array, tuple[int, ...]]:
    """The mean of each feature map, (N, C, H, W) -> (N, C, 1, 1); keeps the shape."""
    if x_nchw.ndim != 4:
        raise ValueError(f"x has shape {x_nchw.shape}, but global pooling takes (N, C, H, W)")
    return x_nchw.mean(axis=(2, 3), keepdims=True), x_nchw.shape


def global_backward(dy: Array, kept: tuple[int, ...]) -> dict[str, Array]:
    """Every pixel gets dy/(H·W)."""
    share = dy / (kept[2] * kept[3])
    return {"x": np.broadcast_to(share, kept).copy()}


def global_terms(index: Index, x_nchw: Array) -> Terms:
    """All H·W numbers of the feature map, each with coefficient 1/(H·W)."""
    return adaptive_average_terms(index, x_nchw, 1)


def global_grad_terms(index: Index, wrt: str, dy: Array, x_nchw: Array) -> Terms:
    """The one output of the feature map."""
    return adaptive_average_grad_terms(index, wrt, dy, x_nchw, 1)


# --- spatial pyramid ----------------------------------------------------------------------------------------------


class KeptPyramid(NamedTuple):
    """What the way back needs: which pixel h·W + w won each feature, (N, F), its channel (F,), and the shape of x."""

    winner: Array
    channel: Array
    shape: tuple[int, ...]


def _cells(x_nchw: Array, levels: Any) -> list[tuple[int, slice, slice]]:
    """One (channel, rows, columns) for each feature, in order."""
    channels, high, wide = x_nchw.shape[1:]
    return [
        (c, slice(*rows), slice(*columns))
        for level in levels
        for c in range(channels)
        for rows in bins(high, level)
        for columns in bins(wide, level)
    ]


def pyramid_forward(x_nchw: Array, levels: Any = (1, 2, 4)) -> tuple[Array, KeptPyramid]:
    """The maximum of each bin of each level, (N, C, H, W) -> (N, C·Σ level²); keeps the winners."""
    if x_nchw.ndim != 4 or not levels or min(levels) < 1:
        raise ValueError(
            f"x has shape {x_nchw.shape} and levels are {levels}, but it takes (N, C, H, W) and levels ≥ 1"
        )
    n, channels, high, wide = x_nchw.shape
    places = np.arange(high * wide).reshape(high, wide)
    features, winners = [], []
    for level in levels:
        for rows in bins(high, level):
            for columns in bins(wide, level):
                cell = x_nchw[:, :, slice(*rows), slice(*columns)].reshape(n, channels, -1)
                best = cell.argmax(axis=-1)
                features.append(np.take_along_axis(cell, best[..., None], axis=-1)[..., 0])
                winners.append(places[slice(*rows), slice(*columns)].ravel()[best])

    def in_order(parts: list[Array]) -> Array:
        start, blocks = 0, []
        for level in levels:
            blocks.append(np.stack(parts[start : start + level**2], axis=2).reshape(n, -1))
            start += level**2
        return np.concatenate(blocks, axis=1)

    channel = np.concatenate([np.repeat(np.arange(channels), level**2) for level in levels])
    return in_order(features), KeptPyramid(in_order(winners), channel, x_nchw.shape)


def pyramid_backward(dy: Array, kept: KeptPyramid) -> dict[str, Array]:
    """Each feature's gradient is added to its winner."""
    n, c, high, wide = kept.shape
    dx = np.zeros((n, c, high * wide), dtype=dy.dtype)
    np.add.at(dx, (np.arange(n)[:, None], kept.channel[None, :], kept.winner), dy)
    return {"x": dx.reshape(kept.shape)}


def pyramid_terms(index: Index, x_nchw: Array, levels: Any = (1, 2, 4)) -> Terms:
    """The bin's numbers; the winner has coefficient 1."""
    cells = _cells(x_nchw, levels)
    n, f = check_index(index, (x_nchw.shape[0], len(cells)), "the output of spatial_pyramid_pool")
    c, rows, columns = cells[f]
    at = grid(n, c, range(rows.start, rows.stop), range(columns.start, columns.stop))
    value = gather(x_nchw, at)
    group = Group("x", at, value, (np.arange(len(value)) == value.argmax()).astype(np.float64))
    return Terms((group,), "y[n,f] = max of x[n,c] over bin f", float(np.abs(value).max()), "max")


def pyramid_grad_terms(index: Index, wrt: str, dy: Array, x_nchw: Array, levels: Any = (1, 2, 4)) -> Terms:
    """The features whose bin holds this number; coefficient 1 where it won."""
    n, c, h, w = _checked(index, wrt, x_nchw)
    _, kept = pyramid_forward(x_nchw, levels)
    holds = [
        f
        for f, (channel, rows, columns) in enumerate(_cells(x_nchw, levels))
        if channel == c and rows.start <= h < rows.stop and columns.start <= w < columns.stop
    ]
    won = kept.winner[n, holds] == h * x_nchw.shape[3] + w
    return summed([plain("y.grad", grid(n, holds), dy, won)], "x.grad = Σ y.grad over the bins that this number won")


def _checked(index: Index, wrt: str, x_nchw: Array) -> Index:
    if wrt != "x":
        raise unknown(wrt, ["x"], "the argument of a pooling whose gradient is asked for")
    return check_index(index, x_nchw.shape, "x.grad")


IMAGE = (Argument("x", "nchw", "the feature maps"),)

OPERATIONS = (
    Operation(
        "adaptive_average_pool",
        "pooling",
        "means over bins, to a given size",
        IMAGE,
        adaptive_average_forward,
        adaptive_average_backward,
        adaptive_average_terms,
        adaptive_average_grad_terms,
        (Attribute("size", None, "of the output; a number or (height, width)"),),
    ),
    Operation(
        "global_average_pool",
        "pooling",
        "the mean of each feature map",
        IMAGE,
        global_forward,
        global_backward,
        global_terms,
        global_grad_terms,
    ),
    Operation(
        "spatial_pyramid_pool",
        "pooling",
        "maxima over bins of several sizes, in one row",
        IMAGE,
        pyramid_forward,
        pyramid_backward,
        pyramid_terms,
        pyramid_grad_terms,
        (Attribute("levels", (1, 2, 4), "bins a side, level by level"),),
    ),
)
