r"""Softmax: scores to probabilities; and its logarithm.

$$p_i = \frac{e^{x_i}}{\sum_m e^{x_m}},\qquad \log p_i = x_i - \log\sum_m e^{x_m},$$

over one axis. The largest score is taken off all first: it cancels, and no exponential overflows.

**Backward.** ∂p_j/∂x_i = p_j(δ_ij − p_i) (differentiate e^{x_j}/Σ; the second term is the sum's share), so

$$\frac{\partial L}{\partial x_i}
= p_i\Bigl(\frac{\partial L}{\partial p_i} - \sum_j \frac{\partial L}{\partial p_j}p_j\Bigr),
\qquad\text{and of the logarithm, with } \frac{\partial \log p_j}{\partial x_i} = \delta_{ij} - p_i,\qquad
\frac{\partial L}{\partial x_i} = dy_i - p_i\sum_j dy_j.$$

>>> forward(np.array([[2.0, 1.0, 0.1]]))[0].round(8).tolist()
[[0.65900114, 0.24243297, 0.09856589]]

Source: Bridle 1990.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pellucid.textbook.operation import Argument, Attribute, Operation
from pellucid.textbook.terms import Array, Group, Index, Terms, check_index, gather, grid, plain, summed, unknown

if TYPE_CHECKING:
    from collections.abc import Mapping


class Kept(NamedTuple):
    """What the way back needs: the probabilities, and their axis."""

    p: Array
    axis: int


def forward(x: Array, axis: int = -1) -> tuple[Array, Kept]:
    """The probabilities along `axis`; keeps them."""
    _checked(x, axis)
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    p = e / e.sum(axis=axis, keepdims=True)
    return p, Kept(p, axis)


def backward(dy: Array, kept: Kept) -> dict[str, Array]:
    """Dx = p·(dy − Σ dy·p)."""
    p, axis = kept
    return {"x": p * (dy - (dy * p).sum(axis=axis, keepdims=True))}


def log_forward(x: Array, axis: int = -1) -> tuple[Array, Kept]:
    """Log p = x − log Σ eˣ along `axis`; keeps p."""
    _checked(x, axis)
    shifted = x - x.max(axis=axis, keepdims=True)
    y = shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True))
    return y, Kept(np.exp(y), axis)


def log_backward(dy: Array, kept: Kept) -> dict[str, Array]:
    """Dx = dy − p·Σ dy."""
    p, axis = kept
    return {"x": dy - p * dy.sum(axis=axis, keepdims=True)}


def rule(groups: Mapping[str, Group], constants: Mapping[str, Any]) -> dict[str, float]:
    """e^{x_i}/Σ e^{x_m}."""
    x = groups["x"].value
    e = np.exp(x - x.max())
    own = constants["own"]
    return {"x": float(x[own]), "largest": float(x.max()), "total": float(e.sum()), "y": float(e[own] / e.sum())}


def log_rule(groups: Mapping[str, Group], constants: Mapping[str, Any]) -> dict[str, float]:
    """x_i − log Σ e^{x_m}."""
    x = groups["x"].value
    total = float(np.exp(x - x.max()).sum())
    own = float(x[constants["own"]])
    return {"x": own, "largest": float(x.max()), "total": total, "y": own - float(x.max()) - float(np.log(total))}


def terms(index: Index, x: Array, axis: int = -1) -> Terms:
    """Every score of the row, with slope p_i(δ − p_m)."""
    at, value, p, own = _line(index, x, axis, "softmax")
    is_own = np.arange(len(p)) == own
    # e^(x − max) carries the rounding of its exponent.
    scale = float(p[own] * (1 + value.max() - value[own] + (p * (value.max() - value)).sum()))
    group = Group("x", at, value, p[own] * (is_own - p))
    return Terms((group,), "e^({x} − {largest})/{total}", scale, "formula", rule, {"own": own})


def log_terms(index: Index, x: Array, axis: int = -1) -> Terms:
    """Every score of the row, with slope δ − p_m."""
    at, value, p, own = _line(index, x, axis, "log_softmax")
    is_own = np.arange(len(p)) == own
    scale = float(abs(value[own]) + abs(value.max()) + np.log(np.exp(value - value.max()).sum()))
    group = Group("x", at, value, is_own - p)
    return Terms((group,), "{x} − {largest} − log({total})", scale, "formula", log_rule, {"own": own})


def grad_terms(index: Index, wrt: str, dy: Array, x: Array, axis: int = -1) -> Terms:
    """Every gradient of the row, with slope p_j(δ − p_i)."""
    at, _, p, own = _line(index, x, axis, "softmax", wrt)
    is_own = np.arange(len(p)) == own
    group = plain("y.grad", at, dy, p * (is_own - p[own]))
    scale = float((np.abs(group.value) * p * (is_own + p[own])).sum())
    return summed([group], "x.grad[i] = Σ_j y.grad[j]·p[j]·(δ − p[i])", scale)


def log_grad_terms(index: Index, wrt: str, dy: Array, x: Array, axis: int = -1) -> Terms:
    """Every gradient of the row, with slope δ − p_i."""
    at, _, p, own = _line(index, x, axis, "log_softmax", wrt)
    is_own = np.arange(len(p)) == own
    group = plain("y.grad", at, dy, is_own - p[own])
    # The p is that of a rounded logarithm: its own rounding grows with |log p|.
    share = p[own] * (1 - np.log(p[own])) if p[own] else 0.0
    scale = float((np.abs(group.value) * (is_own + share)).sum())
    return summed([group], "x.grad[i] = Σ_j y.grad[j]·(δ − p[i])", scale)


def _line(index: Index, x: Array, axis: int, name: str, wrt: str = "x") -> tuple[Array, Array, Array, int]:
    """The row that x[index] stands in: indices, values, probabilities, and which one is meant."""
    if wrt != "x":
        raise unknown(wrt, ["x"], f"the argument of {name} whose gradient is asked for")
    axis = _checked(x, axis)
    index = check_index(index, x.shape, f"{name} of x")
    at = grid(*[range(size) if a == axis else index[a] for a, size in enumerate(x.shape)])
    value = gather(x, at)
    e = np.exp(value - value.max())
    return at, value, e / e.sum(), index[axis]


def _checked(x: Array, axis: int) -> int:
    if not -x.ndim <= axis < x.ndim:
        raise ValueError(f"axis is {axis}, but x of shape {x.shape} has axes 0 to {x.ndim - 1}")
    return axis % x.ndim


X = (Argument("x", "*", "the scores (logits)"),)
AXIS = (Attribute("axis", -1, "the axis whose numbers share one sum"),)

OPERATIONS = (
    Operation("softmax", "softmax_loss", "scores to probabilities", X, forward, backward, terms, grad_terms, AXIS),
    Operation(
        "log_softmax",
        "softmax_loss",
        "the logarithm of softmax",
        X,
        log_forward,
        log_backward,
        log_terms,
        log_grad_terms,
        AXIS,
    ),
)
