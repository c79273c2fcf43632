r"""The linear layer: every output is a weighted sum of all inputs, plus a bias.

$$y_{no} = \sum_d x_{nd}\,w_{od} + b_o$$

Each input and each weight meets exactly once in each output, so the slopes are the other factor:

$$\frac{\partial L}{\partial x_{nd}} = \sum_o \frac{\partial L}{\partial y_{no}} w_{od},\qquad
\frac{\partial L}{\partial w_{od}} = \sum_n \frac{\partial L}{\partial y_{no}} x_{nd},\qquad
\frac{\partial L}{\partial b_o} = \sum_n \frac{\partial L}{\partial y_{no}}.$$

Axes: N batch, D inputs, O outputs; x may have more axes before D, each treated like N. With weights and biases a layer
from 1000·1000 pixels to 100 units has (1000·1000 + 1)·100 = 100,000,100 parameters: why images are convolved instead.

>>> import numpy as np
>>> y, kept = forward(np.array([[1.0, 2.0]]), np.array([[3.0, 4.0], [0.5, -1.0]]), np.array([10.0, 0.0]))
>>> y.tolist()
[[21.0, -1.5]]
>>> {name: d.tolist() for name, d in backward(np.array([[1.0, 2.0]]), kept).items()}
{'x': [[4.0, 2.0]], 'w': [[1.0, 2.0], [2.0, 4.0]], 'b': [1.0, 2.0]}

Source: Rosenblatt 1958 (the perceptron); Rumelhart, Hinton & Williams 1986 (its gradient).
"""

from __future__ import annotations

from typing import NamedTuple

from pellucid.textbook.operation import PARAMETER, Argument, Operation, given
from pellucid.textbook.terms import (
    Array,
    Index,
    Terms,
    check_index,
    check_shape,
    grid,
    plain,
    products,
    row,
    summed,
    unknown,
)


class Kept(NamedTuple):
    """What the way back needs."""

    x: Array
    w_od: Array
    has_bias: bool


def parameters(inputs: int, outputs: int) -> int:
    """(inputs + 1)·outputs: a weight for every pair, and a bias for every output.

    >>> parameters(1000 * 1000, 100)
    100000100
    """
    return (inputs + 1) * outputs


def forward(x: Array, w_od: Array, b_o: Array | None = None) -> tuple[Array, Kept]:
    """Y = x·wᵀ + b: (…, D), (O, D), (O,) -> (…, O); keeps x and w."""
    _check(x, w_od, b_o)
    y = x @ w_od.T
    return (y if b_o is None else y + b_o), Kept(x, w_od, b_o is not None)


def backward(dy: Array, kept: Kept) -> dict[str, Array]:
    """Dx = dy·w, dw = dyᵀ·x, db = Σ_n dy."""
    x, w_od, has_bias = kept
    dy_no, x_nd = dy.reshape(-1, w_od.shape[0]), x.reshape(-1, w_od.shape[1])
    return given(x=dy @ w_od, w=dy_no.T @ x_nd, b=dy_no.sum(axis=0) if has_bias else None)


def terms(index: Index, x: Array, w_od: Array, b_o: Array | None = None) -> Terms:
    """D products x[n,d]·w[o,d], and the bias."""
    _check(x, w_od, b_o)
    index = check_index(index, (*x.shape[:-1], w_od.shape[0]), "the output of linear")
    *lead, o = index
    d = range(x.shape[-1])
    groups = [products("x", grid(*lead, d), x, "w", grid(o, d), w_od)]
    if b_o is not None:
        groups.append(plain("b", row((o,)), b_o))
    return summed(groups, "y[n,o] = Σ_d x[n,d]·w[o,d] + b[o]")


def grad_terms(index: Index, wrt: str, dy: Array, x: Array, w_od: Array, b_o: Array | None = None) -> Terms:
    """For x: O products with weights; for w: one product with an input for each image; for b: one gradient an image."""
    _check(x, w_od, b_o)
    shapes = {"x": x.shape, "w": w_od.shape} | ({} if b_o is None else {"b": b_o.shape})
    if wrt not in shapes:
        raise unknown(wrt, list(shapes), "the argument of linear whose gradient is asked for")
    index = check_index(index, shapes[wrt], f"{wrt}.grad")
    if wrt == "x":
        *lead, d = index
        every = range(w_od.shape[0])
        group = products("y.grad", grid(*lead, every), dy, "w", grid(every, d), w_od)
        return summed([group], "x.grad[n,d] = Σ_o y.grad[n,o]·w[o,d]")
    everywhere = [range(size) for size in x.shape[:-1]]
    if wrt == "w":
        o, d = index
        group = products("y.grad", grid(*everywhere, o), dy, "x", grid(*everywhere, d), x)
        return summed([group], "w.grad[o,d] = Σ_n y.grad[n,o]·x[n,d]")
    return summed([plain("y.grad", grid(*everywhere, index[0]), dy)], "b.grad[o] = Σ_n y.grad[n,o]")


def _check(x: Array, w_od: Array, b_o: Array | None) -> None:
    if x.ndim < 1 or w_od.ndim != 2 or x.shape[-1] != w_od.shape[1]:
        raise ValueError(f"x has shape {x.shape} and w {w_od.shape}, but y = x·wᵀ needs x (…, D) and w (O, D)")
    if b_o is not None:
        check_shape(b_o, (w_od.shape[0],), "b", f"one bias an output of w {w_od.shape}")


OPERATIONS = (
    Operation(
        "linear",
        "linear",
        "a weighted sum of all inputs, plus a bias",
        (
            Argument("x", "…d", "the inputs"),
            Argument("w", "od", "the weights", PARAMETER),
            Argument("b", "o", "the biases", PARAMETER, optional=True),
        ),
        forward,
        backward,
        terms,
        grad_terms,
    ),
)
