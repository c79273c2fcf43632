r"""Exponentially weighted averages: a mean that forgets.

$$a_t = \beta\,a_{t-1} + (1-\beta)\,x_t,\quad a_0 = 0 \;\Rightarrow\; a_t = (1-\beta)\sum_{k<t}\beta^k x_{t-k}.$$

The weights sum to 1 − βᵗ, not to 1: the average starts too small. Divided by that it is right from the first step
(bias correction). It looks back over about 1/(1 − β) numbers, where βᵏ has fallen to 1/e.

>>> exponential_average(np.array([10.0, 10.0, 10.0]), 0.9, correct=False).round(4).tolist()
[1.0, 1.9, 2.71]
>>> exponential_average(np.array([10.0, 10.0, 10.0]), 0.9).round(4).tolist()
[10.0, 10.0, 10.0]

Source: Kingma & Ba 2015, section 3.
"""

from __future__ import annotations

import numpy as np

from pellucid.textbook.terms import Array


def exponential_average(x: Array, beta: float, *, correct: bool = True) -> Array:
    """The average after each number along the first axis; `correct` takes the start at 0 out."""
    if not 0 <= beta < 1:
        raise ValueError(f"beta is {beta}, but β·a + (1 − β)·x needs 0 ≤ β < 1")
    out = np.empty(x.shape, dtype=np.result_type(x, np.float32))
    average = np.zeros(x.shape[1:], dtype=out.dtype)
    for t, now in enumerate(x, start=1):
        average = beta * average + (1 - beta) * now
        out[t - 1] = average / (1 - beta**t) if correct else average
    return out
