from __future__ import annotations

import numpy as np
import pytest

from pellucid.textbook import prelu
from pellucid.textbook.activation import LEAKY_RELU


def test_with_one_slope_it_is_the_leaky_rectifier() -> None:
    x = np.random.default_rng(0).standard_normal((2, 3, 4))
    np.testing.assert_array_equal(prelu.forward(x, np.array(0.2))[0], LEAKY_RELU.forward(x, slope=0.2)[0])


def test_a_slope_hears_from_its_own_channel_only() -> None:
    x, dy = -np.ones((2, 3, 2)), np.arange(12.0).reshape(2, 3, 2)
    terms = prelu.grad_terms((1,), "a", dy, x, np.full(3, 0.1))
    assert [t.index for t in terms] == [(0, 1, 0), (0, 1, 1), (1, 1, 0), (1, 1, 1)]
    assert terms.recompute() == -(2 + 3 + 8 + 9)


def test_refusals() -> None:
    x = np.zeros((2, 3))
    with pytest.raises(
        ValueError, match=r"a has shape \(2,\), but x of shape \(2, 3\) takes one slope, or one a channel"
    ):
        prelu.forward(x, np.zeros(2))
    with pytest.raises(ValueError, match="prelu whose gradient is asked for is 'slope', which is none of x, a"):
        prelu.grad_terms((0, 0), "slope", x, x, np.zeros(3))
