r"""Averages over boxes: windows along three axes, as a local response norm takes them over neighbouring channels.

A box is a window of D, H and W at once, so its mean is three averages, one behind the other. With A_td = 1/(how many
places of window t count) on the places that window t covers, 0 elsewhere, and B and C alike for the other two axes,

$$y_{nctij} = \sum_{d,h,w} A_{td}\,B_{ih}\,C_{jw}\,x_{ncdhw},\qquad
\frac{\partial L}{\partial x_{ncdhw}} = \sum_{t,i,j} A_{td}\,B_{ih}\,C_{jw}\,\frac{\partial L}{\partial y_{nctij}}:$$

the same three matrices transposed. A window's places on the padding count (as zeros) unless `count_padding=False`; what
hangs over the edge with `ceil` never counts.

**Local response normalisation** y = x/(k + α·m)^β takes for m the mean of the squares of x over a few neighbouring
channels: the channels laid along D, a kernel of (channels, 1, 1), the ends padded.

>>> x = np.arange(4.0).reshape(1, 1, 4, 1, 1)
>>> forward(x, (3, 1, 1), stride=1)[0].ravel().tolist()
[1.0, 2.0]

Axes: x N C D H W, y N C T I J. Source: Krizhevsky et al. 2012 (local response normalisation).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from pellucid.textbook.operation import Argument, Attribute, Operation
from pellucid.textbook.pooling import CEIL, COUNTS
from pellucid.textbook.terms import Array, Index, Terms, check_index, grid, plain, summed, unknown


class Kept(NamedTuple):
    """What the way back needs: the three matrices (T, D), (I, H) and (J, W)."""

    matrices: tuple[Array, Array, Array]


def shares(size: int, kernel: int, stride: int, padding: int, ceil: bool, count_padding: bool) -> Array:
    """The weights of every window along one axis, (windows, size).

    >>> shares(4, 2, 2, 0, False, True).tolist()
    [[0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.5, 0.5]]
    """
    if padding > kernel // 2 or size + 2 * padding < kernel:
        raise ValueError(
            f"a kernel of {kernel} with padding {padding} does not fit {size}: padding ≤ kernel/2, "
            f"kernel ≤ size + 2·padding"
        )
    room = size + 2 * padding - kernel
    count = (-(-room // stride) if ceil else room // stride) + 1
    # A window that begins beyond the numbers and their left padding would see nothing.
    count -= ceil and (count - 1) * stride >= size + padding
    a = np.zeros((count, size))
    for t in range(count):
        start, end = t * stride - padding, t * stride - padding + kernel
        inside = slice(max(start, 0), min(end, size))
        counted = min(end, size + padding) - start if count_padding else inside.stop - inside.start
        a[t, inside] = 1 / counted
    return a


def matrices(
    x: Array, kernel: Any, stride: Any = None, padding: Any = 0, ceil: bool = False, count_padding: bool = True
) -> tuple[Array, Array, Array]:
    """A, B and C of the page."""
    if x.ndim != 5:
        raise ValueError(f"x has shape {x.shape}, but pooling over boxes takes (N, C, D, H, W)")
    sizes = _three(kernel, "kernel", 1)
    steps = sizes if stride is None else _three(stride, "stride", 1)
    pads = _three(padding, "padding", 0)
    a, b, c = (
        shares(x.shape[2 + axis], sizes[axis], steps[axis], pads[axis], ceil, count_padding) for axis in range(3)
    )
    return a, b, c


def forward(x_ncdhw: Array, kernel: Any, **settings: Any) -> tuple[Array, Kept]:
    """The mean of each box, (N, C, D, H, W) -> (N, C, T, I, J); keeps the matrices."""
    kept = Kept(matrices(x_ncdhw, kernel, **settings))
    a, b, c = (matrix.astype(x_ncdhw.dtype) for matrix in kept.matrices)
    return np.einsum("ncdhw,td,ih,jw->nctij", x_ncdhw, a, b, c, optimize=True), kept


def backward(dy_nctij: Array, kept: Kept) -> dict[str, Array]:
    """The matrices transposed."""
    a, b, c = (matrix.astype(dy_nctij.dtype) for matrix in kept.matrices)
    return {"x": np.einsum("nctij,td,ih,jw->ncdhw", dy_nctij, a, b, c, optimize=True)}


def terms(index: Index, x: Array, kernel: Any, **settings: Any) -> Terms:
    """The box's numbers, each with coefficient A·B·C, one over the number counted."""
    three = matrices(x, kernel, **settings)
    shape = (*x.shape[:2], *(len(matrix) for matrix in three))
    n, channel, *places = check_index(index, shape, "the output of average_pool_3d")
    rows = [matrix[place] for matrix, place in zip(three, places, strict=True)]
    at = grid(n, channel, *[np.flatnonzero(weights) for weights in rows])
    template = "y[n,c,t,i,j] = Σ_d,h,w A[t,d]·B[i,h]·C[j,w]·x[n,c,d,h,w]"
    return summed([plain("x", at, x, _product(rows, at))], template)


def grad_terms(index: Index, wrt: str, dy: Array, x: Array, kernel: Any, **settings: Any) -> Terms:
    """The boxes that this number lies in, each with coefficient A·B·C."""
    if wrt != "x":
        raise unknown(wrt, ["x"], "the argument of a pooling whose gradient is asked for")
    n, channel, *places = check_index(index, x.shape, "x.grad")
    columns = [matrix[:, place] for matrix, place in zip(matrices(x, kernel, **settings), places, strict=True)]
    at = grid(n, channel, *[np.flatnonzero(weights) for weights in columns])
    template = "x.grad[n,c,d,h,w] = Σ_t,i,j A[t,d]·B[i,h]·C[j,w]·y.grad[n,c,t,i,j]"
    return summed([plain("y.grad", at, dy, _product(columns, at))], template)


def _product(weights: list[Array], at: Array) -> Array:
    """The product of the three weights at each place, (M,)."""
    d, h, w = (axis[at[:, 2 + number]] for number, axis in enumerate(weights))
    return np.asarray(d * h * w)


def _three(value: Any, name: str, smallest: int) -> tuple[int, int, int]:
    numbers = (value,) * 3 if isinstance(value, int | np.integer) else tuple(value)
    if len(numbers) != 3 or any(int(v) < smallest for v in numbers):
        raise ValueError(f"{name} is {value!r}, but must be one or three whole numbers ≥ {smallest}")
    return int(numbers[0]), int(numbers[1]), int(numbers[2])


OPERATIONS = (
    Operation(
        "average_pool_3d",
        "pooling",
        "the mean of each box of neighbouring maps, rows and columns",
        (Argument("x", "ncdhw", "maps in a row (channels along D, for a local response norm)"),),
        forward,
        backward,
        terms,
        grad_terms,
        (
            Attribute("kernel", None, "size of the box; a number or (depth, height, width)"),
            Attribute("stride", None, "from one box to the next; the kernel's size unless given"),
            Attribute("padding", 0, "zeros around, at most half the kernel"),
            CEIL,
            COUNTS,
        ),
    ),
)
