r"""Lengths: the Euclidean norm along axes, and a weight split into its length and its direction.

**Norm** y = √Σ x². Its slope is x/y, a vector of length 1: the direction itself. At x = 0 there is none; 0 is taken.

**Weight normalisation** w = g·v/‖v‖ gives every output of a layer a length g of its own, and v only its direction; the
norm runs over all axes but one. With n = ‖v‖, and Σ over the numbers v_m that share it,

$$\frac{\partial L}{\partial g} = \sum_m dw_m\frac{v_m}{n},\qquad
\frac{\partial L}{\partial v_m} = \frac{g}{n}\Bigl(dw_m - \frac{v_m}{n}\sum_j dw_j\frac{v_j}{n}\Bigr):$$

what reaches v stands at right angles to v, since its length has no say.

>>> norm_forward(np.array([3.0, 4.0]))[0].item()
5.0
>>> y, kept = weight_forward(np.array([[3.0, 4.0]]), np.array([[10.0]]))
>>> y.tolist(), weight_backward(np.array([[1.0, 0.0]]), kept)["v"].round(2).tolist()
([[6.0, 8.0]], [[1.28, -0.96]])

Source: Salimans & Kingma 2016 (weight normalisation).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pellucid.textbook.operation import PARAMETER, Argument, Attribute, Operation
from pellucid.textbook.terms import (
    Array,
    Group,
    Index,
    Terms,
    check_index,
    check_shape,
    gather,
    grid,
    plain,
    row,
    unknown,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

# --- the norm -----------------------------------------------------------------------------------------------------


class KeptNorm(NamedTuple):
    """What the way back needs: x, and its norm with all axes."""

    x: Array
    norm: Array


def _axes(x: Array, axes: Any) -> tuple[int, ...]:
    chosen = tuple(range(x.ndim)) if axes is None else tuple(sorted(int(axis) for axis in axes))
    if len(set(chosen)) != len(chosen) or not all(0 <= axis < x.ndim for axis in chosen):
        raise ValueError(f"axes are {axes}, but x of shape {x.shape} has axes 0 to {x.ndim - 1}, each once")
    return chosen


def norm_forward(x: Array, axes: Any = None, keep: bool = False) -> tuple[Array, KeptNorm]:
    """√Σ x² over the axes; keeps both."""
    chosen = _axes(x, axes)
    norm = np.sqrt((x**2).sum(axis=chosen, keepdims=True))
    return np.asarray(norm if keep else norm.squeeze(chosen)), KeptNorm(x, np.asarray(norm))


def norm_backward(dy: Array, kept: KeptNorm) -> dict[str, Array]:
    """Dy·x/‖x‖; 0 where the norm is 0."""
    x, norm = kept
    direction = np.divide(x, norm, out=np.zeros_like(x), where=norm > 0)
    return {"x": dy.reshape(norm.shape) * direction}


def norm_rule(groups: Mapping[str, Group], constants: Mapping[str, Any]) -> dict[str, float]:
    """√Σ x²."""
    squares = float((groups["x"].value ** 2).sum())
    return {"squares": squares, "y": math.sqrt(squares)}


def norm_terms(index: Index, x: Array, axes: Any = None, keep: bool = False) -> Terms:
    """The numbers of the set, with slope x/‖x‖."""
    chosen = _axes(x, axes)
    shape = tuple(1 if axis in chosen else size for axis, size in enumerate(x.shape) if keep or axis not in chosen)
    rest = iter(check_index(index, shape, "the output of euclidean_norm"))
    places = [next(rest) if keep or axis not in chosen else 0 for axis in range(x.ndim)]
    at = grid(*[range(size) if axis in chosen else places[axis] for axis, size in enumerate(x.shape)])
    value = gather(x, at)
    norm = float(np.sqrt((value**2).sum()))
    group = Group("x", at, value, value / norm if norm else np.zeros_like(value))
    return Terms((group,), "√Σ x² = √{squares}", norm, "formula", norm_rule)


def norm_grad_terms(index: Index, wrt: str, dy: Array, x: Array, axes: Any = None, keep: bool = False) -> Terms:
    """The one norm that this number went into, with slope x/‖x‖."""
    if wrt != "x":
        raise unknown(wrt, ["x"], "the argument of euclidean_norm whose gradient is asked for")
    index, chosen = check_index(index, x.shape, "x.grad"), _axes(x, axes)
    at = tuple(0 if axis in chosen else i for axis, i in enumerate(index) if keep or axis not in chosen)
    members = grid(*[range(size) if axis in chosen else index[axis] for axis, size in enumerate(x.shape)])
    norm = float(np.sqrt((gather(x, members) ** 2).sum()))
    group = plain("y.grad", row(at), dy, float(x[index]) / norm if norm else 0.0)
    return Terms((group,), "x.grad = y.grad·x/‖x‖", float(np.abs(group.contribution).sum()))


# --- weight normalisation -----------------------------------------------------------------------------------------


class KeptWeight(NamedTuple):
    """What the way back needs: v, g, ‖v‖ (in the shape of g), and the axes of each set."""

    v: Array
    g: Array
    norm: Array
    over: tuple[int, ...]


def _weight(v: Array, g: Array, axis: int) -> KeptWeight:
    if not 0 <= axis < v.ndim:
        raise ValueError(f"axis is {axis}, but v of shape {v.shape} has axes 0 to {v.ndim - 1}")
    over = tuple(a for a in range(v.ndim) if a != axis)
    check_shape(g, tuple(size if a == axis else 1 for a, size in enumerate(v.shape)), "g", f"v of shape {v.shape}")
    return KeptWeight(v, g, np.asarray(np.sqrt((v**2).sum(axis=over, keepdims=True))), over)


def weight_forward(v: Array, g: Array, axis: int = 0) -> tuple[Array, KeptWeight]:
    """The weight w = g·v/‖v‖; keeps all three."""
    kept = _weight(v, g, axis)
    return g * v / kept.norm, kept


def weight_backward(dy: Array, kept: KeptWeight) -> dict[str, Array]:
    """The two sums of the page."""
    v, g, norm, over = kept
    direction = v / norm
    along = (dy * direction).sum(axis=over, keepdims=True)
    return {"v": g / norm * (dy - direction * along), "g": along}


def weight_rule(groups: Mapping[str, Group], constants: Mapping[str, Any]) -> dict[str, float]:
    """g·v/√Σ v²."""
    v, g = groups["v"].value, float(groups["g"].value[0])
    own, norm = float(v[constants["own"]]), math.sqrt(float((v**2).sum()))
    return {"g": g, "v": own, "norm": norm, "y": g * own / norm}


def weight_terms(index: Index, v: Array, g: Array, axis: int = 0) -> Terms:
    """All numbers of the set, with slope g/n·(δ − v·v/n²), and its length g."""
    at, own, n, length = _set(index, v, g, axis, "the output of weight_norm")
    value = gather(v, at)
    direction = value / n
    gain = float(g[length])
    slope = gain / n * ((np.arange(len(value)) == own) - direction * direction[own])
    groups = (Group("v", at, value, slope), plain("g", row(length), g, float(direction[own])))
    scale = abs(gain * float(direction[own]))
    return Terms(groups, "{g}·{v}/{norm}", scale, "formula", weight_rule, {"own": own})


def weight_grad_terms(index: Index, wrt: str, dy: Array, v: Array, g: Array, axis: int = 0) -> Terms:
    """The gradients of the set: for g along v, for v at right angles to it."""
    shapes = {"v": v.shape, "g": g.shape}
    if wrt not in shapes:
        raise unknown(wrt, list(shapes), "the argument of weight_norm whose gradient is asked for")
    at, own, n, length = _set(check_index(index, shapes[wrt], f"{wrt}.grad"), v, g, axis, f"{wrt}.grad")
    direction = gather(v, at) / n
    if wrt == "g":
        group = plain("y.grad", at, dy, direction)
        return Terms((group,), "g.grad = Σ_m y.grad[m]·v[m]/‖v‖", float(np.abs(group.contribution).sum()))
    is_own = np.arange(len(at)) == own
    outer = float(g[length]) / n
    group = plain("y.grad", at, dy, outer * (is_own - direction * direction[own]))
    reach = abs(outer) * (is_own + np.abs(direction * direction[own]))
    template = "v.grad[m] = g/‖v‖·Σ_j y.grad[j]·(δ − v[j]·v[m]/‖v‖²)"
    return Terms((group,), template, float((np.abs(group.value) * reach).sum()))


def _set(index: Index, v: Array, g: Array, axis: int, what: str) -> tuple[Array, int, float, Index]:
    """The set that v[index] lies in: its indices, which one is meant, its norm, and where its g lies."""
    kept = _weight(v, g, axis)
    index = check_index(index, v.shape, what)
    at = grid(*[index[a] if a == axis else range(size) for a, size in enumerate(v.shape)])
    own = int(np.flatnonzero((at == np.array(index)).all(axis=1))[0])
    length = tuple(i if a == axis else 0 for a, i in enumerate(index))
    return at, own, math.sqrt(float((gather(kept.v, at) ** 2).sum())), length


OPERATIONS = (
    Operation(
        "euclidean_norm",
        "normalisation",
        "the length √Σ x² along some axes",
        (Argument("x", "*", "any array"),),
        norm_forward,
        norm_backward,
        norm_terms,
        norm_grad_terms,
        (
            Attribute("axes", None, "the axes, all unless given"),
            Attribute("keep", False, "whether the axes stay, with size 1"),
        ),
    ),
    Operation(
        "weight_norm",
        "normalisation",
        "a weight as a length and a direction",
        (
            Argument("v", "*", "the direction, of any length", PARAMETER),
            Argument("g", "*", "the length, with size 1 on all axes but one", PARAMETER),
        ),
        weight_forward,
        weight_backward,
        weight_terms,
        weight_grad_terms,
        (Attribute("axis", 0, "the axis whose places have lengths of their own"),),
    ),
)
