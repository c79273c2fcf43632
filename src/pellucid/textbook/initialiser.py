r"""Initialisers: weights to begin with, so that signals neither die out nor explode.

A unit adds up `fan_in` products. With independent inputs of variance 1 and weights of variance s², its output has
variance fan_in·s²; backwards a gradient adds up fan_out of them. **Xavier** takes the mean of both wishes,
s² = 2/(fan_in + fan_out); **He** knows that ReLU drops half the power, s² = 2/fan_in. A uniform distribution on (−a, a)
has variance a²/3, so a = s√3. **Orthogonal** matrices keep every length exactly.

For a kernel (O, C, K, L) fan_in = C·K·L and fan_out = O·K·L.

>>> fans((6, 3, 5, 5))
(75, 150)
>>> round(float(xavier(np.random.default_rng(0), (200, 300)).std() * np.sqrt(250)), 2)
1.0

Sources: LeCun et al. 1998; Glorot & Bengio 2010 (Xavier); He et al. 2015; Saxe et al. 2014 (orthogonal).
"""

from __future__ import annotations

import math

import numpy as np

from pellucid.textbook.terms import Array

Shape = tuple[int, ...]


def fans(shape: Shape) -> tuple[int, int]:
    """(fan_in, fan_out) of weights (O, D) or kernels (O, C, K, L)."""
    if len(shape) < 2:
        raise ValueError(f"shape is {shape}, but fan_in = C·K·L and fan_out = O·K·L need at least (O, C)")
    area = math.prod(shape[2:])
    return shape[1] * area, shape[0] * area


def uniform(rng: np.random.Generator, shape: Shape, low: float = -0.1, high: float = 0.1) -> Array:
    """Every number between low and high alike."""
    if not low < high:
        raise ValueError(f"low is {low} and high is {high}, but a range needs low < high")
    return rng.uniform(low, high, shape)


def truncated_normal(rng: np.random.Generator, shape: Shape, std: float = 1.0, limit: float = 2.0) -> Array:
    """Normal numbers, those beyond `limit` (in units of std) drawn again; std is that before cutting."""
    if not (std > 0 and limit > 0):
        raise ValueError(f"std is {std} and limit {limit}, but |x| ≤ limit·std needs both above 0")
    x = rng.standard_normal(shape)
    beyond = np.abs(x) > limit
    while beyond.any():
        x[beyond] = rng.standard_normal(int(beyond.sum()))
        beyond = np.abs(x) > limit
    return x * std


def xavier(rng: np.random.Generator, shape: Shape, *, normal: bool = False) -> Array:
    """Variance 2/(fan_in + fan_out), uniform or normal."""
    return _spread(rng, shape, math.sqrt(2 / sum(fans(shape))), normal)


def he(rng: np.random.Generator, shape: Shape, *, normal: bool = True) -> Array:
    """Variance 2/fan_in, normal or uniform."""
    return _spread(rng, shape, math.sqrt(2 / fans(shape)[0]), normal)


def orthogonal(rng: np.random.Generator, shape: Shape) -> Array:
    """A random orthogonal matrix (rows or columns, whichever are fewer, orthonormal); kernels as (O, C·K·L).

    Q of the QR decomposition of a normal matrix, its columns turned so that R's diagonal is positive: without that the
    directions would not be evenly spread.
    """
    fans(shape)
    high, wide = shape[0], math.prod(shape[1:])
    q, r = np.linalg.qr(rng.standard_normal((max(high, wide), min(high, wide))))
    q = q * np.where(np.diag(r) < 0, -1.0, 1.0)
    return np.asarray(q if high >= wide else q.T).reshape(shape)


def _spread(rng: np.random.Generator, shape: Shape, std: float, normal: bool) -> Array:
    return rng.standard_normal(shape) * std if normal else rng.uniform(-std * math.sqrt(3), std * math.sqrt(3), shape)
