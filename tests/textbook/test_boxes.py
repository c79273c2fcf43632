from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from pellucid.textbook import boxes
from pellucid.textbook.pooling import average_forward


def test_the_mean_over_neighbouring_channels_is_a_local_response_norms() -> None:
    """Krizhevsky's norm, made of these, beside torch's own."""
    x = np.random.default_rng(0).standard_normal((2, 7, 3, 4))
    size, alpha, beta, k = 5, 1e-2, 0.75, 2.0
    squares = np.pad(x**2, ((0, 0), (2, 2), (0, 0), (0, 0)))[:, None]
    mean, _ = boxes.forward(squares, (size, 1, 1), stride=1)
    ours = x / (k + alpha * mean[:, 0]) ** beta
    theirs = F.local_response_norm(torch.from_numpy(x), size, alpha, beta, k)
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-12)


def test_a_box_one_deep_is_a_window() -> None:
    x = np.random.default_rng(1).standard_normal((2, 3, 6, 5))
    every: list[dict[str, Any]] = [{}, {"padding": 1}, {"padding": 1, "ceil": True, "count_padding": False}]
    for settings in every:
        flat, _ = average_forward(x, (3, 2), stride=2, **settings)
        deep = {**settings, "padding": (0, 1, 1)} if "padding" in settings else settings
        boxed, _ = boxes.forward(x[:, :, None], (1, 3, 2), stride=(1, 2, 2), **deep)
        np.testing.assert_allclose(boxed[:, :, 0], flat, rtol=1e-12)


def test_refusals() -> None:
    with pytest.raises(ValueError, match=r"x has shape \(2, 3, 4\), but pooling over boxes takes \(N, C, D, H, W\)"):
        boxes.forward(np.zeros((2, 3, 4)), 2)
    x = np.zeros((1, 1, 3, 3, 3))
    with pytest.raises(ValueError, match="a kernel of 4 with padding 0 does not fit 3"):
        boxes.forward(x, 4)
    with pytest.raises(ValueError, match="a kernel of 2 with padding 2 does not fit 3: padding ≤ kernel/2"):
        boxes.forward(x, 2, padding=2)
    with pytest.raises(ValueError, match=r"kernel is \(2, 2\), but must be one or three whole numbers ≥ 1"):
        boxes.forward(x, (2, 2))
    with pytest.raises(ValueError, match="a pooling whose gradient is asked for is 'y'"):
        boxes.grad_terms((0, 0, 0, 0, 0), "y", x, x, 1)
