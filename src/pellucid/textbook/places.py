r"""Taking places along axes in any order, and as often as wanted: mirrored borders, repeats, shuffles, nearest pixels.

Along each axis a list says which place of x comes first, second, …:

$$y_{i_0 i_1 …} = x_{p^0(i_0)\,p^1(i_1)\,…},\qquad
\frac{\partial L}{\partial x_{j_0 j_1 …}} = \sum_{i:\;p^k(i_k) = j_k} \frac{\partial L}{\partial y_{i_0 i_1 …}}:$$

every output is one input number, and a number that was taken several times adds up its gradients. The lists make the
operation: (2, 1, 0) turns an axis round, (1, 0, 1, 2, 1) mirrors its ends, (0, 0, 0, 1, 2, 2, 2) repeats them, and
(0, 0, 1, 1) doubles every pixel. The channel shuffle of G groups takes channel (j mod G)·C/G + ⌊j/G⌋ as the j-th.

>>> x = np.array([[1.0, 2.0, 3.0]])
>>> y, kept = forward(x, (None, (1, 0, 1, 2, 1)))
>>> y.tolist(), backward(np.ones((1, 5)), kept)["x"].tolist()
([[2.0, 1.0, 2.0, 3.0, 2.0]], [[1.0, 3.0, 1.0]])

Source: Zhang et al. 2018 (channel shuffle).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from pellucid.textbook.operation import Argument, Attribute, Operation
from pellucid.textbook.terms import Array, Index, Terms, check_index, grid, plain, row, summed, unknown


class Kept(NamedTuple):
    """What the way back needs: the places of each axis, and the shape of x."""

    places: tuple[Array, ...]
    shape: tuple[int, ...]


def _lists(x: Array, places: Any) -> Kept:
    """A list for every axis; None stands for all places in order."""
    if len(places) != x.ndim:
        raise ValueError(f"places has {len(places)} lists, but x of shape {x.shape} has {x.ndim} axes")
    lists = []
    for axis, (wanted, size) in enumerate(zip(places, x.shape, strict=True)):
        one = np.arange(size) if wanted is None else np.asarray(wanted, dtype=np.int64)
        if one.ndim != 1 or (one.size and (one.min() < 0 or one.max() >= size)):
            raise ValueError(f"places {wanted} on axis {axis} are not all in x of shape {x.shape}: 0 ≤ place < size")
        lists.append(one)
    return Kept(tuple(lists), x.shape)


def forward(x: Array, places: Any) -> tuple[Array, Kept]:
    """The places asked for on every axis; keeps them."""
    kept = _lists(x, places)
    return np.asarray(x[np.ix_(*kept.places)] if x.ndim else x), kept


def backward(dy: Array, kept: Kept) -> dict[str, Array]:
    """Every number adds up the gradients of all the times it was taken."""
    dx = np.zeros(kept.shape, dtype=dy.dtype)
    np.add.at(dx, np.ix_(*kept.places) if kept.shape else (), dy)
    return {"x": dx}


def terms(index: Index, x: Array, places: Any) -> Terms:
    """The one number that was taken."""
    lists = _lists(x, places).places
    index = check_index(index, tuple(len(one) for one in lists), "the output of take")
    at = tuple(int(one[i]) for one, i in zip(lists, index, strict=True))
    return summed([plain("x", row(at), x)], "y[i] = x[p(i)], p the places taken on each axis")


def grad_terms(index: Index, wrt: str, dy: Array, x: Array, places: Any) -> Terms:
    """All outputs that are this number."""
    if wrt != "x":
        raise unknown(wrt, ["x"], "the argument of take whose gradient is asked for")
    index = check_index(index, x.shape, "x.grad")
    found = [np.flatnonzero(one == j) for one, j in zip(_lists(x, places).places, index, strict=True)]
    return summed([plain("y.grad", grid(*found), dy)], "x.grad[j] = Σ y.grad[i] over all i with p(i) = j")


OPERATIONS = (
    Operation(
        "take",
        "shape",
        "places along axes in any order, as often as wanted",
        (Argument("x", "*", "any array"),),
        forward,
        backward,
        terms,
        grad_terms,
        (Attribute("places", None, "for each axis a list of its places, or None for all of them in order"),),
    ),
)
