r"""The largest number along axes, and of bins to a given size.

As in max pooling only the winner moves the output. **Largest** y = max over some axes of x: of several equal ones the
first in reading order takes the whole gradient, or, with `shared`, each of m takes 1/m of it (both are derivatives of a
maximum where it has none; engines have both). **Adaptive maximum**: of the bins of `adaptive_pooling`, pixels ⌊i·H/I⌋
up to ⌈(i + 1)·H/I⌉; a pixel where bins overlap adds up what it won.

>>> x = np.array([[1.0, 5.0, 5.0]])
>>> y, kept = largest_forward(x, (1,), shared=True)
>>> y.tolist(), largest_backward(np.ones(1), kept)["x"].tolist()
([5.0], [[0.0, 0.5, 0.5]])
>>> adaptive_forward(np.arange(9.0).reshape(1, 1, 3, 3), 2)[0][0, 0].tolist()
[[4.0, 5.0], [7.0, 8.0]]

Axes: the adaptive one x N C H W, y N C I J.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from pellucid.textbook.adaptive_pooling import bins
from pellucid.textbook.arrays import pair
from pellucid.textbook.operation import Argument, Attribute, Operation
from pellucid.textbook.terms import Array, Group, Index, Terms, check_index, gather, grid, plain, row, summed, unknown

# --- largest ------------------------------------------------------------------------------------------------------


class KeptLargest(NamedTuple):
    """What the way back needs: each number's share of the output's gradient, and the output's shape with all axes."""

    shares: Array
    full: tuple[int, ...]


def _axes(x: Array, axes: Any) -> tuple[int, ...]:
    chosen = tuple(range(x.ndim)) if axes is None else tuple(sorted(int(axis) for axis in axes))
    empty = any(x.shape[axis] == 0 for axis in chosen if 0 <= axis < x.ndim)
    if len(set(chosen)) != len(chosen) or not all(0 <= axis < x.ndim for axis in chosen) or empty:
        raise ValueError(
            f"axes are {axes}, but x of shape {x.shape} has axes 0 to {x.ndim - 1}, each once, and none may be empty"
        )
    return chosen


def _shares(values: Array, shared: bool) -> Array:
    """Of numbers (…, M) that compete along the last axis: what part of the gradient each takes."""
    won = values == values.max(axis=-1, keepdims=True)
    if shared:
        return np.asarray(won / won.sum(axis=-1, keepdims=True))
    return np.asarray(np.arange(values.shape[-1]) == values.argmax(axis=-1)[..., None], dtype=np.float64)


def largest_forward(x: Array, axes: Any = None, shared: bool = False, keep: bool = False) -> tuple[Array, KeptLargest]:
    """The largest along the axes; keeps who won."""
    chosen = _axes(x, axes)
    rest = [axis for axis in range(x.ndim) if axis not in chosen]
    order = (*rest, *chosen)
    flat = x.transpose(order).reshape(*(x.shape[axis] for axis in rest), -1)
    shares = _shares(flat, shared).reshape([x.shape[axis] for axis in order]).transpose(np.argsort(order))
    full = tuple(1 if axis in chosen else size for axis, size in enumerate(x.shape))
    return np.asarray(x.max(axis=chosen, keepdims=keep)), KeptLargest(shares, full)


def largest_backward(dy: Array, kept: KeptLargest) -> dict[str, Array]:
    """The gradient goes to the winner, or is shared by all of them."""
    return {"x": dy.reshape(kept.full) * kept.shares.astype(dy.dtype)}


def largest_terms(index: Index, x: Array, axes: Any = None, shared: bool = False, keep: bool = False) -> Terms:
    """The numbers that compete; the winner has coefficient 1."""
    chosen = _axes(x, axes)
    shape = tuple(1 if axis in chosen else size for axis, size in enumerate(x.shape) if keep or axis not in chosen)
    rest = iter(check_index(index, shape, "the output of largest"))
    places = [next(rest) if keep or axis not in chosen else 0 for axis in range(x.ndim)]
    at = grid(*[range(size) if axis in chosen else places[axis] for axis, size in enumerate(x.shape)])
    return _competing(at, x, "y = max x", shared)


def largest_grad_terms(
    index: Index, wrt: str, dy: Array, x: Array, axes: Any = None, shared: bool = False, keep: bool = False
) -> Terms:
    """The output it competed for; coefficient 1 (or its share) where it won."""
    index, chosen = _own(index, wrt, x), _axes(x, axes)
    at = tuple(0 if axis in chosen else i for axis, i in enumerate(index) if keep or axis not in chosen)
    rivals = grid(*[range(size) if axis in chosen else index[axis] for axis, size in enumerate(x.shape)])
    share = _shares(gather(x, rivals), shared)[(rivals == np.array(index, dtype=np.int64)).all(axis=1)]
    return summed([plain("y.grad", row(at), dy, share)], "x.grad = y.grad where x won")


def _competing(at: Array, x: Array, template: str, shared: bool) -> Terms:
    value = gather(x, at)
    group = Group("x", at, value, _shares(value, shared))
    return Terms((group,), template, float(np.abs(value).max()), "max")


# --- adaptive -----------------------------------------------------------------------------------------------------


class KeptAdaptive(NamedTuple):
    """What the way back needs: which pixel h·W + w won each output, (N, C, I, J), and the shape of x."""

    winner: Array
    shape: tuple[int, ...]


def _edges(x_nchw: Array, size: Any) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    if x_nchw.ndim != 4:
        raise ValueError(f"x has shape {x_nchw.shape}, but adaptive pooling takes (N, C, H, W)")
    high, wide = pair(size, "size", 1)
    return bins(x_nchw.shape[2], high), bins(x_nchw.shape[3], wide)


def adaptive_forward(x_nchw: Array, size: Any) -> tuple[Array, KeptAdaptive]:
    """The largest of each bin, (N, C, H, W) -> (N, C, I, J); keeps who won."""
    rows, columns = _edges(x_nchw, size)
    n, c, high, wide = x_nchw.shape
    pixels = np.arange(high * wide).reshape(high, wide)
    winner = np.empty((n, c, len(rows), len(columns)), dtype=np.int64)
    for i, tall in enumerate(rows):
        for j, broad in enumerate(columns):
            cell = x_nchw[:, :, slice(*tall), slice(*broad)].reshape(n, c, -1)
            winner[:, :, i, j] = pixels[slice(*tall), slice(*broad)].ravel()[cell.argmax(axis=-1)]
    flat = np.take_along_axis(x_nchw.reshape(n, c, -1), winner.reshape(n, c, -1), axis=-1)
    return flat.reshape(winner.shape), KeptAdaptive(winner, x_nchw.shape)


def adaptive_backward(dy: Array, kept: KeptAdaptive) -> dict[str, Array]:
    """Each output's gradient is added to its winner."""
    n, c, high, wide = kept.shape
    dx = np.zeros((n, c, high * wide), dtype=dy.dtype)
    where = (np.arange(n)[:, None, None], np.arange(c)[None, :, None], kept.winner.reshape(n, c, -1))
    np.add.at(dx, where, dy.reshape(n, c, -1))
    return {"x": dx.reshape(kept.shape)}


def adaptive_terms(index: Index, x_nchw: Array, size: Any) -> Terms:
    """The bin's numbers; the winner has coefficient 1."""
    rows, columns = _edges(x_nchw, size)
    shape = (*x_nchw.shape[:2], len(rows), len(columns))
    n, c, i, j = check_index(index, shape, "the output of adaptive_max_pool")
    return _competing(
        grid(n, c, range(*rows[i]), range(*columns[j])), x_nchw, "y[n,c,i,j] = max of x over bin i, j", False
    )


def adaptive_grad_terms(index: Index, wrt: str, dy: Array, x_nchw: Array, size: Any) -> Terms:
    """The outputs whose bins hold this number; coefficient 1 where it won."""
    n, c, h, w = _own(index, wrt, x_nchw)
    rows, columns = _edges(x_nchw, size)
    over = [[i for i, (start, end) in enumerate(rows) if start <= h < end]]
    over.append([j for j, (start, end) in enumerate(columns) if start <= w < end])
    at = grid(n, c, *over)
    winner = adaptive_forward(x_nchw, size)[1].winner[tuple(at.T)]
    won = winner == h * x_nchw.shape[3] + w
    return summed([plain("y.grad", at, dy, won)], "x.grad = Σ y.grad over the bins that this number won")


def _own(index: Index, wrt: str, x: Array) -> Index:
    if wrt != "x":
        raise unknown(wrt, ["x"], "the argument whose gradient is asked for")
    return check_index(index, x.shape, "x.grad")


OPERATIONS = (
    Operation(
        "largest",
        "pooling",
        "the largest number along some axes",
        (Argument("x", "*", "any array"),),
        largest_forward,
        largest_backward,
        largest_terms,
        largest_grad_terms,
        (
            Attribute("axes", None, "the axes, all unless given"),
            Attribute("shared", False, "whether equal ones share the gradient; else the first takes it"),
            Attribute("keep", False, "whether the axes stay, with size 1"),
        ),
    ),
    Operation(
        "adaptive_max_pool",
        "pooling",
        "maxima over bins, to a given size",
        (Argument("x", "nchw", "the feature maps"),),
        adaptive_forward,
        adaptive_backward,
        adaptive_terms,
        adaptive_grad_terms,
        (Attribute("size", None, "of the output; a number or (height, width)"),),
    ),
)
