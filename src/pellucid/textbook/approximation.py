r"""One hidden layer is enough in principle: a sum of sigmoids comes as near to a curve as one likes.

y(x) = Σ_k v_k·σ(s·(x − c_k)) + b, with `units` hidden sigmoids. Two of them, one after the other with opposite signs,
make a bump; enough bumps side by side make any curve (Cybenko 1989). Here the steps stand side by side (centres c_k
evenly spaced, slope s in proportion to their number), and the output layer is fitted by least squares, so that what is
seen is what a layer of this size *can* do, not how well a training run went.

>>> x = np.linspace(-1, 1, 101)
>>> y = np.sin(np.pi * x)
>>> [round(float(np.abs(predict(fit(x, y, units), x) - y).max()), 3) for units in (4, 16, 64)]
[0.105, 0.002, 0.0]

Sources: Cybenko 1989; Hornik, Stinchcombe & White 1989.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pellucid.textbook import linear
from pellucid.textbook.activation import SIGMOID
from pellucid.textbook.terms import Array


class Hidden(NamedTuple):
    """A network of one hidden layer: w (units, 1), b (units,), and the output's v (1, units), c (1,)."""

    w: Array
    b: Array
    v: Array
    c: Array


def fit(x: Array, y: Array, units: int) -> Hidden:
    """The best output layer (least squares) on `units` sigmoids spread over x: (M,), (M,)."""
    if units < 1 or x.shape != y.shape or x.ndim != 1:
        raise ValueError(
            f"x has shape {x.shape}, y {y.shape} and units is {units}, but a fit takes (M,), (M,) and units ≥ 1"
        )
    low, high = float(x.min()), float(x.max())
    centres = np.linspace(low, high, units)
    slope = 2 * units / (high - low)
    w, b = np.full((units, 1), slope), -slope * centres
    hidden, _ = SIGMOID.forward(linear.forward(x[:, None], w, b)[0])
    design = np.concatenate([hidden, np.ones((len(x), 1))], axis=1)
    best = np.linalg.lstsq(design, y, rcond=1e-10)[0]
    return Hidden(w, b, best[None, :-1], best[-1:])


def predict(network: Hidden, x: Array) -> Array:
    """The network's outputs (M,) for inputs (M,)."""
    hidden, _ = SIGMOID.forward(linear.forward(x[:, None], network.w, network.b)[0])
    return linear.forward(hidden, network.v, network.c)[0][:, 0]
