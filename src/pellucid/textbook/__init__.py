"""The textbook: every operation of a convolutional or recurrent network by hand, in NumPy alone.

`OPERATIONS` holds them by name: each with its forward pass, its backward pass derived by hand, and its `terms`: which
numbers one number is made of. See `operation.Operation` for how they are called, and `terms.Terms` for what they
answer. `OPTIMISERS` holds the update rules; schedules, initialisers, averages and sizes are modules of their own.

>>> import numpy as np
>>> from pellucid import textbook
>>> softmax = textbook.OPERATIONS["softmax"]
>>> softmax.forward(np.array([2.0, 1.0, 0.1]))[0].round(8).tolist()
[0.65900114, 0.24243297, 0.09856589]
>>> softmax.terms((0,), np.array([2.0, 1.0, 0.1])).numbers()
'e^(2 − 2)/1.51745 = 0.659001'
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pellucid.textbook import (
    activation,
    adaptive_pooling,
    arithmetic,
    boxes,
    cells,
    clipping,
    convolution,
    dropout,
    extremes,
    functions,
    linear,
    loss,
    matrix,
    normalisation,
    norms,
    penalty,
    places,
    pooling,
    prelu,
    rearrange,
    recurrent,
    shape,
    softmax,
    transposed,
    variants,
)
from pellucid.textbook.operation import Argument, Attribute, Operation
from pellucid.textbook.optimiser import OPTIMISERS
from pellucid.textbook.terms import Factor, Group, Term, Terms
from pellucid.textbook.update import Optimiser

if TYPE_CHECKING:
    from collections.abc import Mapping

_PAGES = (
    linear,
    matrix,
    convolution,
    variants,
    transposed,
    pooling,
    adaptive_pooling,
    boxes,
    extremes,
    shape,
    rearrange,
    places,
    arithmetic,
    functions,
    normalisation,
    norms,
    dropout,
    activation,
    prelu,
    softmax,
    loss,
    penalty,
    cells,
    recurrent,
    clipping,
)

#: Every operation by name.
OPERATIONS: Mapping[str, Operation] = {operation.name: operation for page in _PAGES for operation in page.OPERATIONS}

__all__ = [
    "OPERATIONS",
    "OPTIMISERS",
    "Argument",
    "Attribute",
    "Factor",
    "Group",
    "Operation",
    "Optimiser",
    "Term",
    "Terms",
]
