r"""Clipping a gradient that has grown too long: by value, or by norm.

**By value**: every number held between −c and c; the direction changes. Slope 1 up to the limits, 0 beyond.

**By norm**: with r = ‖x‖ over all numbers together, y = x·min(1, c/(r + ε)): the direction stays. Where it is active,
∂r/∂x_m = x_m/r gives

$$\frac{\partial y_j}{\partial x_m} = \frac{c}{r+\epsilon}\Bigl(\delta_{jm} - \frac{x_j x_m}{r\,(r+\epsilon)}\Bigr),
\qquad
\frac{\partial L}{\partial x_m} = \frac{c}{r+\epsilon}\Bigl(dy_m - \frac{x_m}{r\,(r+\epsilon)}\sum_j dy_j x_j\Bigr).$$

>>> norm_forward(np.array([3.0, 4.0]), limit=1.0, eps=0.0)[0].round(6).tolist()
[0.6, 0.8]
>>> BY_VALUE.forward(np.array([3.0, -0.5]), limit=1.0)[0].tolist()
[1.0, -0.5]

Source: Pascanu, Mikolov & Bengio 2013.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pellucid.textbook.elementwise import Elementwise, X
from pellucid.textbook.operation import Attribute, Operation
from pellucid.textbook.terms import Array, Group, Index, Terms, check_index, gather, grid, plain, row, summed, unknown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def by_value(x: Array, limit: float = 1.0) -> Array:
    """The value x, held between −limit and limit."""
    return np.asarray(np.clip(x, -_checked(limit), limit))


def by_value_slopes(x: Array, limit: float = 1.0) -> tuple[Array | None, ...]:
    """Slope 1 up to the limits, 0 beyond."""
    return (np.where((x >= -limit) & (x <= limit), 1.0, 0.0),)


class Kept(NamedTuple):
    """What the way back needs: x, its norm r, and the limit and ε."""

    x: Array
    norm: float
    limit: float
    eps: float


def factor(norm: float, limit: float, eps: float = 1e-6) -> float:
    """min(1, c/(r + ε))."""
    return min(1.0, limit / (norm + eps))


def clip_all(gradients: Sequence[Array], limit: float, eps: float = 1e-6) -> tuple[list[Array], float]:
    """All gradients of a network clipped by the norm of all together; and that norm before clipping."""
    norm = math.sqrt(sum(float((gradient.astype(np.float64) ** 2).sum()) for gradient in gradients))
    by = factor(norm, _checked(limit), eps)
    return [(gradient * by).astype(gradient.dtype) for gradient in gradients], norm


def norm_forward(x: Array, limit: float = 1.0, eps: float = 1e-6) -> tuple[Array, Kept]:
    """x·min(1, c/(‖x‖ + ε)); keeps x and its norm."""
    (y,), norm = clip_all([x], limit, eps)
    return y, Kept(x, norm, limit, eps)


def norm_backward(dy: Array, kept: Kept) -> dict[str, Array]:
    """Dx = dy below the limit; above it the page's formula."""
    x, norm, limit, eps = kept
    if factor(norm, limit, eps) == 1.0:
        return {"x": dy.copy()}
    along = (dy * x).sum() / (norm * (norm + eps))
    return {"x": np.asarray(limit / (norm + eps) * (dy - x * along), dtype=x.dtype)}


def norm_rule(groups: Mapping[str, Group], constants: Mapping[str, Any]) -> dict[str, float]:
    """x·min(1, c/(‖x‖ + ε)) for the number meant."""
    value = groups["x"].value
    norm = float(np.sqrt((value**2).sum()))
    own = float(value[constants["own"]])
    by = factor(norm, constants["limit"], constants["eps"])
    return {"x": own, "norm": norm, "limit": constants["limit"], "factor": by, "y": own * by}


def norm_terms(index: Index, x: Array, limit: float = 1.0, eps: float = 1e-6) -> Terms:
    """All numbers: each has a share in the norm."""
    index = check_index(index, x.shape, "the output of clip_by_norm")
    at = grid(*map(range, x.shape))
    value = gather(x, at)
    own = int(np.ravel_multi_index(index, x.shape)) if index else 0
    is_own = np.arange(len(value)) == own
    group = Group("x", at, value, _slopes(value, own, is_own, limit, eps))
    constants = {"limit": limit, "eps": eps, "own": own}
    scale = abs(float(value[own])) * factor(float(np.sqrt((value**2).sum())), limit, eps)
    return Terms((group,), "{x}·min(1, {limit}/({norm} + ε)) = {x}·{factor}", scale, "formula", norm_rule, constants)


def norm_grad_terms(index: Index, wrt: str, dy: Array, x: Array, limit: float = 1.0, eps: float = 1e-6) -> Terms:
    """Every gradient, where the limit is active; else its own alone."""
    if wrt != "x":
        raise unknown(wrt, ["x"], "the argument of clip_by_norm whose gradient is asked for")
    index = check_index(index, x.shape, "x.grad")
    value = x.astype(np.float64).ravel()
    if factor(float(np.sqrt((value**2).sum())), limit, eps) == 1.0:
        return summed([plain("y.grad", row(index), dy)], "x.grad = y.grad")
    own = int(np.ravel_multi_index(index, x.shape)) if index else 0
    is_own = np.arange(len(value)) == own
    group = plain("y.grad", grid(*map(range, x.shape)), dy, _slopes(value, own, is_own, limit, eps))
    return summed([group], "x.grad[m] = Σ_j y.grad[j]·c/(r + ε)·(δ − x[j]·x[m]/(r(r + ε)))")


def _slopes(value: Array, own: int, is_own: Array, limit: float, eps: float) -> Array:
    """∂y_own/∂x_m (the matrix is symmetric)."""
    norm = float(np.sqrt((value**2).sum()))
    if factor(norm, limit, eps) == 1.0:
        return is_own.astype(np.float64)
    return np.asarray(limit / (norm + eps) * (is_own - value * value[own] / (norm * (norm + eps))))


def _checked(limit: float) -> float:
    if not limit > 0:
        raise ValueError(f"limit is {limit}, but min(1, c/‖x‖) and the range from −c to c need c > 0")
    return limit


LIMIT = Attribute("limit", 1.0, "c, in the units of the gradient")
BY_VALUE = Elementwise(
    "clip_by_value", by_value, by_value_slopes, "min(max({x}, −{limit}), {limit})", attributes=(LIMIT,)
)

OPERATIONS = (
    BY_VALUE.operation("clipping", "every number held between −c and c"),
    Operation(
        "clip_by_norm",
        "clipping",
        "all numbers shortened together to length c",
        X,
        norm_forward,
        norm_backward,
        norm_terms,
        norm_grad_terms,
        (LIMIT, Attribute("eps", 1e-6, "added to the norm")),
    ),
)
