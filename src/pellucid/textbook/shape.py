r"""Moving numbers without changing them: flatten, pad, concatenate, stack, split; and adding up: sum and mean.

Flattening, padding, concatenating, stacking (side by side, along a new axis) and splitting copy: every output is one
input number (or the padding), so the slope is 1, and backward puts each gradient back where its number came from. An
inception block is branches concatenated along the channels. A sum over axes gives each of its numbers the whole
gradient; a mean of m numbers, 1/m of it.

>>> x = np.array([[[1.0, 2.0], [3.0, 4.0]]])
>>> flatten_forward(x)[0].tolist(), padding_forward(x, ((0, 0), (1, 0)))[0][0].tolist()
([[1.0, 2.0, 3.0, 4.0]], [[0.0, 1.0, 2.0], [0.0, 3.0, 4.0]])
>>> concatenate_forward(x, 10 * x, axis=2)[0][0].tolist()
[[1.0, 2.0, 10.0, 20.0], [3.0, 4.0, 30.0, 40.0]]

Source: Szegedy et al. 2015 (inception).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from pellucid.textbook.operation import Argument, Attribute, Operation
from pellucid.textbook.terms import Array, Index, Terms, check_index, grid, plain, row, summed, unknown

# --- flatten ------------------------------------------------------------------------------------------------------


def flatten_forward(x: Array, start: int = 1) -> tuple[Array, tuple[int, ...]]:
    """All axes from `start` on in one, last axis fastest; keeps the shape."""
    return x.reshape(_flat(x.shape, start)), x.shape


def flatten_backward(dy: Array, kept: tuple[int, ...]) -> dict[str, Array]:
    """The same numbers in the old shape."""
    return {"x": dy.reshape(kept)}


def flatten_terms(index: Index, x: Array, start: int = 1) -> Terms:
    """One number: position f of the row is Σ index · stride."""
    index = check_index(index, _flat(x.shape, start), "the output of flatten")
    inner = np.unravel_index(index[-1], x.shape[start:])
    return summed(
        [plain("x", row((*index[:-1], *(int(i) for i in inner))), x)], "y[n,f] = x[n,c,h,w], f = (c·H + h)·W + w"
    )


def flatten_grad_terms(index: Index, wrt: str, dy: Array, x: Array, start: int = 1) -> Terms:
    """The one output that is this number."""
    index = _own(index, wrt, x)
    at = int(np.ravel_multi_index(index[start:], x.shape[start:]))
    return summed(
        [plain("y.grad", row((*index[:start], at)), dy)], "x.grad[n,c,h,w] = y.grad[n,f], f = (c·H + h)·W + w"
    )


def _flat(shape: tuple[int, ...], start: int) -> tuple[int, ...]:
    if not 0 <= start < len(shape):
        raise ValueError(f"start is {start}, but x of shape {shape} has axes 0 to {len(shape) - 1}")
    return (*shape[:start], math.prod(shape[start:]))


# --- padding ------------------------------------------------------------------------------------------------------


class KeptPadding(NamedTuple):
    """What the way back needs: the widths, (before, after) for each axis, and the shape of x."""

    widths: tuple[tuple[int, int], ...]
    shape: tuple[int, ...]


def _widths(x: Array, widths: Any) -> KeptPadding:
    """Widths of the last axes, with (0, 0) for the others before them."""
    last = [(int(before), int(after)) for before, after in widths]
    if len(last) > x.ndim or any(min(pair) < 0 for pair in last):
        raise ValueError(
            f"widths are {widths}, but x of shape {x.shape} takes at most {x.ndim} pairs (before, after) ≥ 0"
        )
    return KeptPadding(((0, 0),) * (x.ndim - len(last)) + tuple(last), x.shape)


def padding_forward(x: Array, widths: Any, value: float = 0.0) -> tuple[Array, KeptPadding]:
    """A border of `value` around the last axes; keeps where x lies in it."""
    kept = _widths(x, widths)
    return np.pad(x, kept.widths, constant_values=value), kept


def padding_backward(dy: Array, kept: KeptPadding) -> dict[str, Array]:
    """The gradient of the border goes nowhere."""
    inside = tuple(slice(before, before + size) for (before, _), size in zip(kept.widths, kept.shape, strict=True))
    return {"x": dy[inside].copy()}


def padding_terms(index: Index, x: Array, widths: Any, value: float = 0.0) -> Terms:
    """One number of x, or, on the border, none: the value is a constant."""
    kept = _widths(x, widths)
    out = tuple(before + size + after for (before, after), size in zip(kept.widths, x.shape, strict=True))
    index = check_index(index, out, "the output of padding")
    at = tuple(i - before for i, (before, _) in zip(index, kept.widths, strict=True))
    if all(0 <= i < size for i, size in zip(at, x.shape, strict=True)):
        return summed([plain("x", row(at), x)], "y[i] = x[i − before]")
    return Terms((), "the padding, {y}", abs(value), "formula", padding_rule, {"value": value})


def padding_rule(_: Any, constants: Any) -> dict[str, float]:
    """The constant of the border."""
    return {"y": float(constants["value"])}


def padding_grad_terms(index: Index, wrt: str, dy: Array, x: Array, widths: Any, value: float = 0.0) -> Terms:
    """The one output that is this number."""
    del value
    index = _own(index, wrt, x)
    at = tuple(i + before for i, (before, _) in zip(index, _widths(x, widths).widths, strict=True))
    return summed([plain("y.grad", row(at), dy)], "x.grad[i] = y.grad[i + before]")


# --- concatenate and split ----------------------------------------------------------------------------------------


class KeptConcatenate(NamedTuple):
    """What the way back needs: the axis, and the size of each array on it."""

    axis: int
    sizes: tuple[int, ...]


def array_names(count: int) -> tuple[str, ...]:
    """The names x0, x1, … of the arrays of a concatenation."""
    return tuple(f"x{number}" for number in range(count))


def _ends(arrays: tuple[Array, ...], axis: int) -> list[int]:
    """Where each array begins on the axis, and, last, where all end."""
    first = arrays[0].shape if arrays else ()
    if not 0 <= axis < len(first):
        raise ValueError(f"axis is {axis}, but arrays of shape {first} have axes 0 to {len(first) - 1}")
    for array in arrays:
        if array.ndim != len(first) or any(
            a != b for k, (a, b) in enumerate(zip(array.shape, first, strict=True)) if k != axis
        ):
            raise ValueError(
                f"shapes {first} and {array.shape} do not fit: all axes but {axis} must be equal to concatenate"
            )
    return [0, *np.cumsum([array.shape[axis] for array in arrays]).tolist()]


def concatenate_forward(*arrays: Array, axis: int = 1) -> tuple[Array, KeptConcatenate]:
    """The arrays one behind the other on `axis`; keeps their sizes."""
    _ends(arrays, axis)
    return np.concatenate(arrays, axis=axis), KeptConcatenate(axis, tuple(array.shape[axis] for array in arrays))


def concatenate_backward(dy: Array, kept: KeptConcatenate) -> dict[str, Array]:
    """Each array takes its own part of the gradient."""
    parts = np.split(dy, np.cumsum(kept.sizes)[:-1], axis=kept.axis)
    return dict(zip(array_names(len(parts)), parts, strict=True))


def concatenate_terms(index: Index, *arrays: Array, axis: int = 1) -> Terms:
    """One number of one of the arrays."""
    ends = _ends(arrays, axis)
    shape = (*arrays[0].shape[:axis], ends[-1], *arrays[0].shape[axis + 1 :])
    index = check_index(index, shape, "the output of concatenate")
    which = int(np.searchsorted(ends, index[axis], side="right")) - 1
    at = (*index[:axis], index[axis] - ends[which], *index[axis + 1 :])
    return summed([plain(f"x{which}", row(at), arrays[which])], f"y[i] = x{which}[i − {ends[which]}]")


def concatenate_grad_terms(index: Index, wrt: str, dy: Array, *arrays: Array, axis: int = 1) -> Terms:
    """The one output that is this number."""
    names = array_names(len(arrays))
    if wrt not in names:
        raise unknown(wrt, list(names), "the argument of concatenate whose gradient is asked for")
    which = names.index(wrt)
    index = check_index(index, arrays[which].shape, f"{wrt}.grad")
    before = _ends(arrays, axis)[which]
    at = (*index[:axis], index[axis] + before, *index[axis + 1 :])
    return summed([plain("y.grad", row(at), dy)], f"{wrt}.grad[i] = y.grad[i + {before}]")


def split(x: Array, parts: int, axis: int = 1) -> list[Array]:
    """`parts` equal pieces along an axis; the way back is `concatenate_forward`.

    >>> [part.tolist() for part in split(np.array([[1.0, 2.0, 3.0, 4.0]]), 2)]
    [[[1.0, 2.0]], [[3.0, 4.0]]]
    """
    if not 0 <= axis < x.ndim or parts < 1 or x.shape[axis] % parts:
        size = x.shape[axis] if 0 <= axis < x.ndim else "no size"
        raise ValueError(
            f"x of shape {x.shape} does not split evenly into {parts} parts on axis {axis}: {size} / {parts}"
        )
    return np.split(x, parts, axis=axis)


# --- stack --------------------------------------------------------------------------------------------------------


def stack_forward(*arrays: Array, axis: int = 0) -> tuple[Array, int]:
    """The arrays side by side along a new axis; keeps which."""
    _stacked(arrays, axis)
    return np.stack(arrays, axis=axis), axis


def stack_backward(dy: Array, kept: int) -> dict[str, Array]:
    """Each array takes its own part of the gradient."""
    parts = [dy.take(place, axis=kept) for place in range(dy.shape[kept])]
    return dict(zip(array_names(len(parts)), parts, strict=True))


def stack_terms(index: Index, *arrays: Array, axis: int = 0) -> Terms:
    """One number of one of the arrays."""
    index = check_index(index, _stacked(arrays, axis), "the output of stack")
    which = index[axis]
    return summed(
        [plain(f"x{which}", row((*index[:axis], *index[axis + 1 :])), arrays[which])],
        f"y[i] = x{which}[i without i_{axis}]",
    )


def stack_grad_terms(index: Index, wrt: str, dy: Array, *arrays: Array, axis: int = 0) -> Terms:
    """The one output that is this number."""
    names = array_names(len(arrays))
    if wrt not in names:
        raise unknown(wrt, list(names), "the argument of stack whose gradient is asked for")
    _stacked(arrays, axis)
    which = names.index(wrt)
    index = check_index(index, arrays[which].shape, f"{wrt}.grad")
    at = row((*index[:axis], which, *index[axis:]))
    return summed([plain("y.grad", at, dy)], f"{wrt}.grad[i] = y.grad at {which} on axis {axis}")


def _stacked(arrays: tuple[Array, ...], axis: int) -> tuple[int, ...]:
    shapes = {array.shape for array in arrays}
    if len(shapes) != 1:
        raise ValueError(f"shapes {', '.join(map(str, sorted(shapes)))} do not fit: all must be equal to stack")
    (shape,) = shapes
    if not 0 <= axis <= len(shape):
        raise ValueError(f"axis is {axis}, but arrays of shape {shape} stack along 0 to {len(shape)}")
    return (*shape[:axis], len(arrays), *shape[axis:])


# --- sum and mean -------------------------------------------------------------------------------------------------


class KeptMean(NamedTuple):
    """What the way back needs: the shape of x, the axes, and how many numbers were averaged (1 for a sum)."""

    shape: tuple[int, ...]
    axes: tuple[int, ...]
    number: int

    def squeezed(self, keep: bool) -> tuple[int, ...]:
        """The shape of the output: the axes gone, or kept with size 1."""
        sizes = [1 if a in self.axes else size for a, size in enumerate(self.shape)]
        return tuple(size for a, size in enumerate(sizes) if keep or a not in self.axes)


def _reduced(x: Array, axes: Any, average: bool) -> KeptMean:
    chosen = tuple(range(x.ndim)) if axes is None else tuple(sorted(int(a) for a in axes))
    if len(set(chosen)) != len(chosen) or not all(0 <= a < x.ndim for a in chosen):
        raise ValueError(f"axes are {axes}, but x of shape {x.shape} has axes 0 to {x.ndim - 1}, each once")
    return KeptMean(x.shape, chosen, math.prod(x.shape[a] for a in chosen) if average else 1)


def mean_forward(x: Array, axes: Any = None, average: bool = True, keep: bool = True) -> tuple[Array, KeptMean]:
    """The mean (or, `average=False`, the sum) over the axes, kept as axes of size 1 unless `keep=False`."""
    kept = _reduced(x, axes, average)
    return np.asarray(x.sum(axis=kept.axes, keepdims=keep) / kept.number, dtype=x.dtype), kept


def mean_backward(dy: Array, kept: KeptMean) -> dict[str, Array]:
    """Every number gets dy/m."""
    share = dy.reshape(kept.squeezed(keep=True)) / kept.number
    return {"x": np.broadcast_to(share, kept.shape).copy()}


def mean_terms(index: Index, x: Array, axes: Any = None, average: bool = True, keep: bool = True) -> Terms:
    """The numbers averaged, each with coefficient 1/m."""
    kept = _reduced(x, axes, average)
    rest = iter(check_index(index, kept.squeezed(keep), "the output of mean"))
    at = [next(rest) if keep or a not in kept.axes else 0 for a in range(x.ndim)]
    members = grid(*[range(size) if a in kept.axes else at[a] for a, size in enumerate(x.shape)])
    return summed([plain("x", members, x, 1 / kept.number)], "y = Σ x/m" if average else "y = Σ x")


def mean_grad_terms(
    index: Index, wrt: str, dy: Array, x: Array, axes: Any = None, average: bool = True, keep: bool = True
) -> Terms:
    """The one output that this number went into."""
    index, kept = _own(index, wrt, x), _reduced(x, axes, average)
    at = tuple(0 if a in kept.axes else i for a, i in enumerate(index) if keep or a not in kept.axes)
    template = "x.grad = y.grad/m" if average else "x.grad = y.grad"
    return summed([plain("y.grad", row(at), dy, 1 / kept.number)], template)


def _own(index: Index, wrt: str, x: Array) -> Index:
    if wrt != "x":
        raise unknown(wrt, ["x"], "the argument whose gradient is asked for")
    return check_index(index, x.shape, "x.grad")


X = (Argument("x", "*", "any array"),)

OPERATIONS = (
    Operation(
        "flatten",
        "shape",
        "all axes from one on, in a row",
        X,
        flatten_forward,
        flatten_backward,
        flatten_terms,
        flatten_grad_terms,
        (Attribute("start", 1, "the first axis that is flattened"),),
    ),
    Operation(
        "padding",
        "shape",
        "a border of one value",
        X,
        padding_forward,
        padding_backward,
        padding_terms,
        padding_grad_terms,
        (
            Attribute("widths", None, "(before, after) of each of the last axes"),
            Attribute("value", 0.0, "of the border"),
        ),
    ),
    Operation(
        "concatenate",
        "shape",
        "arrays one behind the other (inception)",
        (Argument("x0", "*", "the first of any number of arrays, equal but for one axis"),),
        concatenate_forward,
        concatenate_backward,
        concatenate_terms,
        concatenate_grad_terms,
        (Attribute("axis", 1, "the axis along which they lie"),),
        names=array_names,
    ),
    Operation(
        "stack",
        "shape",
        "arrays side by side along a new axis",
        (Argument("x0", "*", "the first of any number of arrays of one shape"),),
        stack_forward,
        stack_backward,
        stack_terms,
        stack_grad_terms,
        (Attribute("axis", 0, "the new axis"),),
        names=array_names,
    ),
    Operation(
        "mean",
        "shape",
        "the mean, or the sum, over some axes",
        X,
        mean_forward,
        mean_backward,
        mean_terms,
        mean_grad_terms,
        (
            Attribute("axes", None, "the axes, all unless given"),
            Attribute("average", True, "False for the sum"),
            Attribute("keep", True, "whether the axes stay, with size 1"),
        ),
    ),
)
