r"""The product of two matrices, or of two stacks of them.

$$y_{…ij} = \sum_k a_{…ik}\,b_{…kj},\qquad
\frac{\partial L}{\partial a_{…ik}} = \sum_j \frac{\partial L}{\partial y_{…ij}}\,b_{…kj},\qquad
\frac{\partial L}{\partial b_{…kj}} = \sum_i a_{…ik}\,\frac{\partial L}{\partial y_{…ij}}:$$

dA = dY·Bᵀ and dB = Aᵀ·dY. The axes in front broadcast; a matrix that served several products adds up its gradients.

>>> y, kept = forward(np.array([[1.0, 2.0]]), np.array([[3.0], [4.0]]))
>>> y.tolist(), {name: d.tolist() for name, d in backward(np.ones((1, 1)), kept).items()}
([[11.0]], {'a': [[3.0, 4.0]], 'b': [[1.0], [2.0]]})

Axes: a … I K, b … K J, y … I J.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pellucid.textbook.arrays import unbroadcast
from pellucid.textbook.operation import Argument, Operation
from pellucid.textbook.terms import Array, Index, Terms, check_index, grid, products, summed, unknown


class Kept(NamedTuple):
    """What the way back needs: both arrays."""

    a: Array
    b: Array


def forward(a: Array, b: Array) -> tuple[Array, Kept]:
    """A·B over the last two axes, those in front broadcast; keeps both."""
    _shape(a, b)
    return a @ b, Kept(a, b)


def backward(dy: Array, kept: Kept) -> dict[str, Array]:
    """DY·Bᵀ and Aᵀ·dY, added up where a matrix served several products."""
    a, b = kept
    return {
        "a": unbroadcast(dy @ b.swapaxes(-1, -2), a.shape),
        "b": unbroadcast(a.swapaxes(-1, -2) @ dy, b.shape),
    }


def terms(index: Index, a: Array, b: Array) -> Terms:
    """K products: row i of A with column j of B."""
    shape = _shape(a, b)
    *front, i, j = check_index(index, shape, "the output of matmul")
    k = np.arange(a.shape[-1])
    at_a, at_b = grid(*_own(front, a), i, k), grid(*_own(front, b), k, j)
    return summed([products("a", at_a, a, "b", at_b, b)], "y[…,i,j] = Σ_k a[…,i,k]·b[…,k,j]")


def grad_terms(index: Index, wrt: str, dy: Array, a: Array, b: Array) -> Terms:
    """The row (for A) or column (for B) of the gradient, times the other's, over all products it served."""
    if wrt not in {"a", "b"}:
        raise unknown(wrt, ["a", "b"], "the argument of matmul whose gradient is asked for")
    shape, mine, other = _shape(a, b), *((a, b) if wrt == "a" else (b, a))
    *front, first, second = check_index(index, mine.shape, f"{wrt}.grad")
    lead = shape[:-2]
    places = [range(size) for size in lead]
    for axis, at in enumerate(front, start=len(lead) - len(front)):
        if mine.shape[axis - len(lead) - 2] != 1:
            places[axis] = range(at, at + 1)
    if wrt == "a":
        at_dy = grid(*places, first, range(shape[-1]))
        inner = np.stack([np.full(len(at_dy), second), at_dy[:, -1]], axis=1)
    else:
        at_dy = grid(*places, range(shape[-2]), second)
        inner = np.stack([at_dy[:, -2], np.full(len(at_dy), first)], axis=1)
    outer = at_dy[:, len(lead) - (other.ndim - 2) : len(lead)] * (np.array(other.shape[:-2]) != 1)
    at_other = np.concatenate([outer, inner], axis=1)
    template = (
        "a.grad[…,i,k] = Σ_j y.grad[…,i,j]·b[…,k,j]" if wrt == "a" else "b.grad[…,k,j] = Σ_i a[…,i,k]·y.grad[…,i,j]"
    )
    return summed([products("y.grad", at_dy, dy, "b" if wrt == "a" else "a", at_other, other)], template)


def _own(front: list[int], array: Array) -> list[int]:
    """The indices of the axes in front that this array has, 0 where it was broadcast."""
    sizes = array.shape[:-2]
    tail = front[len(front) - len(sizes) :]
    return [0 if size == 1 else at for at, size in zip(tail, sizes, strict=True)]


def _shape(a: Array, b: Array) -> tuple[int, ...]:
    """The shape of the product, or a ValueError that names both."""
    try:
        if a.ndim < 2 or b.ndim < 2 or a.shape[-1] != b.shape[-2]:
            raise ValueError("sizes")  # noqa: TRY301  one message for both
        return (*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1])
    except ValueError as error:
        raise ValueError(
            f"shapes {a.shape} and {b.shape} do not fit: a·b needs (…, I, K) and (…, K, J), equal or 1 in front"
        ) from error


OPERATIONS = (
    Operation(
        "matmul",
        "linear",
        "the product of two matrices, or of two stacks of them",
        (Argument("a", "…ik", "the rows"), Argument("b", "…kj", "the columns")),
        forward,
        backward,
        terms,
        grad_terms,
    ),
)
