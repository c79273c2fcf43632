r"""PReLU: a leaky rectifier whose slope is learnt, one for all numbers or one for each channel.

$$y = \begin{cases}x & x > 0\\ a\,x & x \le 0\end{cases},\qquad
\frac{\partial L}{\partial x} = \frac{\partial L}{\partial y}\cdot\begin{cases}1\\ a\end{cases},\qquad
\frac{\partial L}{\partial a_c} = \sum_{x \text{ of channel } c} \frac{\partial L}{\partial y}\,\min(x, 0):$$

a has a gradient from every negative number of its channel.

>>> y, kept = forward(np.array([[-2.0, 3.0], [-1.0, -4.0]]), np.array([0.5, 0.25]))
>>> y.tolist(), backward(np.ones((2, 2)), kept)["a"].tolist()
([[-1.0, 3.0], [-0.5, -1.0]], [-3.0, -4.0])

Axes: x N C …, a C or 1. Source: He et al. 2015.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pellucid.textbook.operation import PARAMETER, Argument, Operation
from pellucid.textbook.terms import Array, Group, Index, Terms, check_index, gather, grid, plain, row, summed, unknown

if TYPE_CHECKING:
    from collections.abc import Mapping


class Kept(NamedTuple):
    """What the way back needs: x, a in a shape that broadcasts with it, the axes that share a slope, a's own shape."""

    x: Array
    a_wide: Array
    shared: tuple[int, ...]
    shape: tuple[int, ...]


def _wide(x: Array, a: Array) -> Kept:
    """The slopes along the channels' axis."""
    if a.size == 1:
        return Kept(x, a.reshape((1,) * x.ndim), tuple(range(x.ndim)), a.shape)
    if x.ndim < 2 or a.shape != (x.shape[1],):
        raise ValueError(f"a has shape {a.shape}, but x of shape {x.shape} takes one slope, or one a channel (N, C, …)")
    others = tuple(axis for axis in range(x.ndim) if axis != 1)
    return Kept(x, a.reshape([-1 if axis == 1 else 1 for axis in range(x.ndim)]), others, a.shape)


def forward(x: Array, a: Array) -> tuple[Array, Kept]:
    """The number itself above 0, a times it below; keeps both."""
    kept = _wide(x, a)
    return np.where(x > 0, x, kept.a_wide * x), kept


def backward(dy: Array, kept: Kept) -> dict[str, Array]:
    """Of x through its piece; of a from every negative number of its channel."""
    x, a_wide, shared, shape = kept
    da = np.asarray((dy * np.minimum(x, 0)).sum(axis=shared))
    return {"x": dy * np.where(x > 0, np.ones_like(a_wide), a_wide), "a": da.reshape(shape)}


def rule(groups: Mapping[str, Group], constants: Mapping[str, Any]) -> dict[str, float]:
    """The value x, or a·x."""
    x, a = float(groups["x"].value[0]), float(groups["a"].value[0])
    return {"x": x, "a": a, "y": x if x > 0 else a * x}


def terms(index: Index, x: Array, a: Array) -> Terms:
    """The one number and its slope."""
    index = check_index(index, x.shape, "the output of prelu")
    _wide(x, a)
    value, at = float(x[index]), _own_slope(index, a)
    slope = float(a[at])
    groups = (plain("x", row(index), x, 1.0 if value > 0 else slope), plain("a", row(at), a, min(value, 0.0)))
    scale = abs(value if value > 0 else slope * value)
    return Terms(groups, "{x} if {x} > 0, else {a}·{x}", scale, "formula", rule)


def grad_terms(index: Index, wrt: str, dy: Array, x: Array, a: Array) -> Terms:
    """Of x its own output's gradient; of a those of all numbers that share it."""
    shapes = {"x": x.shape, "a": a.shape}
    if wrt not in shapes:
        raise unknown(wrt, list(shapes), "the argument of prelu whose gradient is asked for")
    index = check_index(index, shapes[wrt], f"{wrt}.grad")
    _wide(x, a)
    if wrt == "x":
        slope = 1.0 if x[index] > 0 else float(a[_own_slope(index, a)])
        return summed([plain("y.grad", row(index), dy, slope)], "x.grad = y.grad, times a where x ≤ 0")
    spread = [range(size) for size in x.shape]
    if a.size > 1:
        spread[1] = range(index[0], index[0] + 1)
    at = grid(*spread)
    return summed([plain("y.grad", at, dy, np.minimum(gather(x, at), 0))], "a.grad = Σ y.grad·min(x, 0)")


def _own_slope(index: Index, a: Array) -> Index:
    """Which slope a number has."""
    return (0,) * a.ndim if a.size == 1 else (index[1],)


OPERATIONS = (
    Operation(
        "prelu",
        "activation",
        "a leaky rectifier with learnt slopes",
        (Argument("x", "nc…", "any array"), Argument("a", "c", "the slopes below 0, one or one a channel", PARAMETER)),
        forward,
        backward,
        terms,
        grad_terms,
    ),
)
