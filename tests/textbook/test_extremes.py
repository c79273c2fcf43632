from __future__ import annotations

import numpy as np
import pytest
import torch

from pellucid.textbook import extremes
from pellucid.textbook.adaptive_pooling import pyramid_forward


def test_equal_ones_share_or_the_first_takes_all() -> None:
    """As torch has it: amax shares, max along an axis does not."""
    x = np.array([[1.0, 5.0, 5.0], [0.0, 0.0, 0.0]])
    for shared in (True, False):
        t = torch.tensor(x).requires_grad_()
        y = t.amax(1) if shared else t.max(1).values
        y.sum().backward()  # type: ignore[no-untyped-call]
        _, kept = extremes.largest_forward(x, (1,), shared)
        assert t.grad is not None
        np.testing.assert_array_equal(extremes.largest_backward(np.ones(2), kept)["x"], t.grad.numpy())
        for index in np.ndindex(2, 3):
            terms = extremes.largest_grad_terms(index, "x", np.ones(2), x, (1,), shared)
            assert terms.recompute() == t.grad.numpy()[index]


def test_the_spatial_pyramids_maxima_are_the_adaptive_ones() -> None:
    x = np.random.default_rng(0).standard_normal((2, 3, 7, 5))
    parts = [extremes.adaptive_forward(x, level)[0].reshape(2, -1) for level in (1, 2, 4)]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), pyramid_forward(x, (1, 2, 4))[0])


def test_refusals() -> None:
    x = np.zeros((2, 0, 3))
    with pytest.raises(ValueError, match=r"axes are \(1,\), but x of shape \(2, 0, 3\) has axes 0 to 2"):
        extremes.largest_forward(x, (1,))
    with pytest.raises(ValueError, match=r"axes are \(0, 0\), but x of shape"):
        extremes.largest_forward(x, (0, 0))
    with pytest.raises(ValueError, match=r"x has shape \(2, 0, 3\), but adaptive pooling takes \(N, C, H, W\)"):
        extremes.adaptive_forward(x, 2)
    with pytest.raises(ValueError, match="the argument whose gradient is asked for is 'w', which is none of x"):
        extremes.largest_grad_terms((0,), "w", np.zeros(1), np.zeros(1))
