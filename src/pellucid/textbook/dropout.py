r"""Dropout: a unit is silent with probability p while training, so that no unit can rely on one other.

With a mask m of independent numbers, 0 with probability p and 1 otherwise:

- **inverted** (what engines do): training y = x·m/(1 − p), test y = x;
- **scale at test** (Srivastava et al. 2014, and the lectures): training y = x·m, test y = x·(1 − p).

Since E[m] = 1 − p, training and test agree in expectation in each form: E[x·m/(1 − p)] = x, and E[x·m] = x·(1 − p). The
second is the first times 1 − p everywhere, which the next layer's weights can take up. The gradient goes through where
the number went: dx = dy·m/(1 − p), or dy·m.

>>> x, mask = np.array([2.0, 4.0, 6.0]), np.array([1.0, 0.0, 1.0])
>>> DROPOUT.forward(x, mask, p=0.5)[0].tolist(), DROPOUT.forward(x, mask, p=0.5, training=False)[0].tolist()
([4.0, 0.0, 12.0], [2.0, 4.0, 6.0])
>>> LECTURE.forward(x, mask, p=0.5)[0].tolist(), LECTURE.forward(x, mask, p=0.5, training=False)[0].tolist()
([2.0, 0.0, 6.0], [1.0, 2.0, 3.0])

Source: Srivastava et al. 2014, "Dropout: a simple way to prevent neural networks from overfitting".
"""

from __future__ import annotations

import numpy as np

from pellucid.textbook.elementwise import Elementwise
from pellucid.textbook.operation import CONSTANT, Argument, Attribute
from pellucid.textbook.terms import Array

X_MASK = (Argument("x", "*", "any array"), Argument("mask", "*", "0 where dropped, else 1", CONSTANT))
ATTRIBUTES = (Attribute("p", 0.5, "probability of silence, 0 ≤ p < 1"), Attribute("training", True, "whether it drops"))


def draw_mask(rng: np.random.Generator, shape: tuple[int, ...], p: float) -> Array:
    """A mask: 0 with probability p, else 1, float64."""
    return np.asarray(rng.random(shape) >= _checked(p), dtype=np.float64)


def inverted(x: Array, mask: Array, p: float = 0.5, training: bool = True) -> Array:
    """Training: x·m/(1 − p); test: x."""
    keep = 1 - _checked(p)
    return np.asarray(x * (mask / keep)) if training else x


def inverted_slopes(x: Array, mask: Array, p: float = 0.5, training: bool = True) -> tuple[Array | None, ...]:
    """Training: m/(1 − p); test: 1."""
    slope = mask / (1 - p)
    return (slope if training else np.ones_like(x)), None


def scaled_at_test(x: Array, mask: Array, p: float = 0.5, training: bool = True) -> Array:
    """Training: x·m; test: x·(1 − p)."""
    keep = 1 - _checked(p)
    return np.asarray(x * mask if training else x * keep)


def scaled_at_test_slopes(x: Array, mask: Array, p: float = 0.5, training: bool = True) -> tuple[Array | None, ...]:
    """Training: m; test: 1 − p."""
    keep = 1 - p
    return (mask if training else np.full_like(x, keep)), None


def _checked(p: float) -> float:
    if not 0 <= p < 1:
        raise ValueError(f"p is {p}, but m/(1 − p) needs 0 ≤ p < 1")
    return p


DROPOUT = Elementwise("dropout", inverted, inverted_slopes, "{x}·{mask}/(1 − {p})", X_MASK, ATTRIBUTES)
LECTURE = Elementwise("dropout_scaled_at_test", scaled_at_test, scaled_at_test_slopes, "{x}·{mask}", X_MASK, ATTRIBUTES)

OPERATIONS = (
    DROPOUT.operation("dropout", "inverted dropout: training divides by 1 − p"),
    LECTURE.operation("dropout", "dropout as in the lectures: the test multiplies by 1 − p"),
)
