r"""The same numbers in another place: reshape, permute, slice, select, expand.

None of them computes. Every output is one input number, so the slope is 1, and backward is the move undone:

- **reshape** lays the numbers in another shape, in reading order (last axis fastest); back: the old shape.
- **permute** makes axis p_k of x axis k of y; back: the inverse permutation. Splitting the channels into G groups,
  exchanging the two axes and joining them again is the channel shuffle (Zhang et al. 2018).
- **slice** takes start, start + step, … below stop of one axis, **select** one place of it, the axis gone; back: each
  gradient to its place, and 0 to what was not taken.
- **expand** repeats a number along axes of size 1 (or new ones in front): broadcasting, written out. One number is then
  many outputs, and its gradient the sum of theirs.

>>> x = np.arange(6.0).reshape(2, 3)
>>> reshape_forward(x, (3, 2))[0].tolist(), permute_forward(x, (1, 0))[0].tolist()
([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]], [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]])
>>> slice_forward(x, 1, 0, 3, 2)[0].tolist(), select_forward(x, 1, 2)[0].tolist()
([[0.0, 2.0], [3.0, 5.0]], [2.0, 5.0])
>>> expand_backward(np.ones((4, 2, 3)), (1, 3))["x"].tolist()
[[8.0, 8.0, 8.0]]

Source: Zhang et al. 2018 (channel shuffle).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from pellucid.textbook.arrays import unbroadcast
from pellucid.textbook.operation import Argument, Attribute, Operation
from pellucid.textbook.terms import Array, Index, Terms, check_index, grid, plain, row, summed, unknown

# --- identity -----------------------------------------------------------------------------------------------------


def identity_forward(x: Array) -> tuple[Array, None]:
    """The numbers themselves."""
    return x, None


def identity_backward(dy: Array, kept: None) -> dict[str, Array]:
    """The gradient itself."""
    del kept
    return {"x": dy}


def identity_terms(index: Index, x: Array) -> Terms:
    """One number, unchanged."""
    return _one("x", check_index(index, x.shape, "the output of identity"), x, "y[i] = x[i]")


def identity_grad_terms(index: Index, wrt: str, dy: Array, x: Array) -> Terms:
    """The one output that is this number."""
    return _one("y.grad", _own(index, wrt, x), dy, "x.grad[i] = y.grad[i]")


# --- reshape ------------------------------------------------------------------------------------------------------


def reshape_forward(x: Array, shape: Any) -> tuple[Array, tuple[int, ...]]:
    """The numbers in another shape, in reading order; keeps the old shape."""
    return x.reshape(_fitting(x, shape)), x.shape


def reshape_backward(dy: Array, kept: tuple[int, ...]) -> dict[str, Array]:
    """The gradients in the old shape."""
    return {"x": dy.reshape(kept)}


def reshape_terms(index: Index, x: Array, shape: Any) -> Terms:
    """One number: the one at the same place in reading order."""
    new = _fitting(x, shape)
    index = check_index(index, new, "the output of reshape")
    return _one("x", _same_place(index, new, x.shape), x, "y[i] = x[j], i and j at one place in reading order")


def reshape_grad_terms(index: Index, wrt: str, dy: Array, x: Array, shape: Any) -> Terms:
    """The one output that is this number."""
    at = _same_place(_own(index, wrt, x), x.shape, _fitting(x, shape))
    return _one("y.grad", at, dy, "x.grad[j] = y.grad[i], i and j at one place in reading order")


def _fitting(x: Array, shape: Any) -> tuple[int, ...]:
    new = tuple(int(size) for size in shape)
    if min(new, default=0) < 0 or math.prod(new) != x.size:
        raise ValueError(f"x of shape {x.shape} has {x.size} numbers, which do not make the shape {new}")
    return new


def _same_place(index: Index, shape: tuple[int, ...], other: tuple[int, ...]) -> Index:
    flat = int(np.ravel_multi_index(index, shape)) if shape else 0
    return tuple(int(i) for i in np.unravel_index(flat, other)) if other else ()


# --- permute ------------------------------------------------------------------------------------------------------


def permute_forward(x: Array, axes: Any) -> tuple[Array, tuple[int, ...]]:
    """Axis `axes[k]` of x as axis k; keeps the order."""
    order = _order(x, axes)
    return x.transpose(order), order


def permute_backward(dy: Array, kept: tuple[int, ...]) -> dict[str, Array]:
    """The inverse order."""
    return {"x": dy.transpose(np.argsort(kept))}


def permute_terms(index: Index, x: Array, axes: Any) -> Terms:
    """One number, its indices in the old order."""
    order = _order(x, axes)
    index = check_index(index, tuple(x.shape[axis] for axis in order), "the output of permute")
    return _one(
        "x", tuple(index[order.index(axis)] for axis in range(x.ndim)), x, f"y[i] = x[j], i = j in order {list(order)}"
    )


def permute_grad_terms(index: Index, wrt: str, dy: Array, x: Array, axes: Any) -> Terms:
    """The one output that is this number."""
    index, order = _own(index, wrt, x), _order(x, axes)
    return _one(
        "y.grad", tuple(index[axis] for axis in order), dy, f"x.grad[j] = y.grad[i], i = j in order {list(order)}"
    )


def _order(x: Array, axes: Any) -> tuple[int, ...]:
    order = tuple(int(axis) for axis in axes)
    if sorted(order) != list(range(x.ndim)):
        raise ValueError(f"axes are {list(order)}, but x of shape {x.shape} has axes 0 to {x.ndim - 1}, each once")
    return order


# --- slice and select ---------------------------------------------------------------------------------------------


class KeptPart(NamedTuple):
    """What the way back needs: which part was taken, and of what shape."""

    where: tuple[Any, ...]
    shape: tuple[int, ...]


def slice_forward(x: Array, axis: int, start: int, stop: int, step: int = 1) -> tuple[Array, KeptPart]:
    """The places start, start + step, … below stop of one axis; keeps where they lay."""
    kept = _part(x, axis, _stretch(x, axis, start, stop, step))
    return x[kept.where], kept


def part_backward(dy: Array, kept: KeptPart) -> dict[str, Array]:
    """Each gradient to its place; what was not taken gets 0."""
    dx = np.zeros(kept.shape, dtype=dy.dtype)
    dx[kept.where] = dy
    return {"x": dx}


def slice_terms(index: Index, x: Array, axis: int, start: int, stop: int, step: int = 1) -> Terms:
    """The one number that was taken."""
    taken = range(*_stretch(x, axis, start, stop, step).indices(x.shape[axis]))
    index = check_index(index, (*x.shape[:axis], len(taken), *x.shape[axis + 1 :]), "the output of slice")
    at = (*index[:axis], taken[index[axis]], *index[axis + 1 :])
    return _one("x", at, x, f"y[i] = x[{start} + {step}·i] on axis {axis}")


def slice_grad_terms(
    index: Index, wrt: str, dy: Array, x: Array, axis: int, start: int, stop: int, step: int = 1
) -> Terms:
    """The output that is this number, or none."""
    index = _own(index, wrt, x)
    taken = range(*_stretch(x, axis, start, stop, step).indices(x.shape[axis]))
    if index[axis] not in taken:
        return summed([], "x.grad[j] = 0: not taken")
    at = (*index[:axis], taken.index(index[axis]), *index[axis + 1 :])
    return _one("y.grad", at, dy, f"x.grad[{start} + {step}·i] = y.grad[i] on axis {axis}")


def select_forward(x: Array, axis: int, index: int) -> tuple[Array, KeptPart]:
    """One place of an axis, the axis gone; keeps where it lay."""
    kept = _part(x, axis, _place(x, axis, index))
    return np.asarray(x[kept.where]), kept


def select_terms(at: Index, x: Array, axis: int, index: int) -> Terms:
    """The one number that was taken."""
    place = _place(x, axis, index)
    at = check_index(at, (*x.shape[:axis], *x.shape[axis + 1 :]), "the output of select")
    return _one("x", (*at[:axis], place, *at[axis:]), x, f"y[i] = x[i] at {place} on axis {axis}")


def select_grad_terms(at: Index, wrt: str, dy: Array, x: Array, axis: int, index: int) -> Terms:
    """The output that is this number, or none."""
    at, place = _own(at, wrt, x), _place(x, axis, index)
    if at[axis] != place:
        return summed([], "x.grad[j] = 0: not taken")
    return _one("y.grad", (*at[:axis], *at[axis + 1 :]), dy, f"x.grad[i] = y.grad[i] at {place} on axis {axis}")


def _part(x: Array, axis: int, which: slice | int) -> KeptPart:
    return KeptPart((*(slice(None),) * axis, which), x.shape)


def _stretch(x: Array, axis: int, start: int, stop: int, step: int) -> slice:
    size = x.shape[axis] if 0 <= axis < x.ndim else -1
    if not (0 <= start <= stop <= size and step >= 1):
        raise ValueError(
            f"start {start}, stop {stop} and step {step} on axis {axis} do not fit x of shape {x.shape}: "
            f"0 ≤ start ≤ stop ≤ size, step ≥ 1"
        )
    return slice(start, stop, step)


def _place(x: Array, axis: int, index: int) -> int:
    if not (0 <= axis < x.ndim and 0 <= index < x.shape[axis]):
        raise ValueError(f"index {index} on axis {axis} is not in x of shape {x.shape}: 0 ≤ index < size")
    return int(index)


# --- expand -------------------------------------------------------------------------------------------------------


def expand_forward(x: Array, shape: Any) -> tuple[Array, tuple[int, ...]]:
    """The numbers repeated to `shape`; keeps the old shape."""
    return np.broadcast_to(x, _wider(x, shape)), x.shape


def expand_backward(dy: Array, kept: tuple[int, ...]) -> dict[str, Array]:
    """Every number adds up the gradients of all it was repeated to."""
    return {"x": unbroadcast(dy, kept)}


def expand_terms(index: Index, x: Array, shape: Any) -> Terms:
    """The one number that was repeated here."""
    index = check_index(index, _wider(x, shape), "the output of expand")
    tail = index[len(index) - x.ndim :]
    at = tuple(0 if size == 1 else i for i, size in zip(tail, x.shape, strict=True))
    return _one("x", at, x, "y[i] = x[j], j_k = i_k, or 0 where x has size 1")


def expand_grad_terms(index: Index, wrt: str, dy: Array, x: Array, shape: Any) -> Terms:
    """All outputs that this number was repeated to."""
    index, wide = _own(index, wrt, x), _wider(x, shape)
    lead = len(wide) - x.ndim
    axes = [range(size) for size in wide[:lead]]
    for at, here, there in zip(index, x.shape, wide[lead:], strict=True):
        axes.append(range(there) if here == 1 else range(at, at + 1))
    return summed([plain("y.grad", grid(*axes), dy)], "x.grad[j] = Σ y.grad[i] over all i that x[j] went to")


def _wider(x: Array, shape: Any) -> tuple[int, ...]:
    wide = tuple(int(size) for size in shape)
    tail = wide[len(wide) - x.ndim :] if len(wide) >= x.ndim else ()
    if len(tail) != x.ndim or any(here not in {1, there} for here, there in zip(x.shape, tail, strict=True)):
        raise ValueError(f"x of shape {x.shape} does not expand to {wide}: sizes, from the last, must be equal, or 1")
    return wide


# --- shared -------------------------------------------------------------------------------------------------------


def _one(source: str, at: Index, array: Array, template: str) -> Terms:
    """One number of one array, with slope 1."""
    return summed([plain(source, row(at), array)], template)


def _own(index: Index, wrt: str, x: Array) -> Index:
    if wrt != "x":
        raise unknown(wrt, ["x"], "the argument whose gradient is asked for")
    return check_index(index, x.shape, "x.grad")


X = (Argument("x", "*", "any array"),)
AXIS = Attribute("axis", None, "the axis, from 0")
SHAPE = Attribute("shape", None, "of the output")

OPERATIONS = (
    Operation(
        "identity",
        "shape",
        "the same numbers: a copy, another layout, a dropout at rest",
        X,
        identity_forward,
        identity_backward,
        identity_terms,
        identity_grad_terms,
    ),
    Operation(
        "reshape",
        "shape",
        "the same numbers in another shape",
        X,
        reshape_forward,
        reshape_backward,
        reshape_terms,
        reshape_grad_terms,
        (SHAPE,),
    ),
    Operation(
        "permute",
        "shape",
        "the axes in another order",
        X,
        permute_forward,
        permute_backward,
        permute_terms,
        permute_grad_terms,
        (Attribute("axes", None, "which axis of x comes first, second, …"),),
    ),
    Operation(
        "slice",
        "shape",
        "a stretch of one axis",
        X,
        slice_forward,
        part_backward,
        slice_terms,
        slice_grad_terms,
        (
            AXIS,
            Attribute("start", None, "the first place"),
            Attribute("stop", None, "the first place that is no longer taken"),
            Attribute("step", 1, "from one place to the next"),
        ),
    ),
    Operation(
        "select",
        "shape",
        "one place of one axis",
        X,
        select_forward,
        part_backward,
        select_terms,
        select_grad_terms,
        (AXIS, Attribute("index", None, "the place")),
    ),
    Operation(
        "expand",
        "shape",
        "numbers repeated along axes of size 1",
        X,
        expand_forward,
        expand_backward,
        expand_terms,
        expand_grad_terms,
        (SHAPE,),
    ),
)
