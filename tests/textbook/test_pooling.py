from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from pellucid.textbook import pooling


def test_of_equal_numbers_the_first_wins() -> None:
    """In reading order, as torch has it: whole numbers tie often."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 3, (2, 2, 8, 8)).astype(float)
    y, kept = pooling.max_forward(x, 3, stride=2, padding=1)
    dy = rng.standard_normal(y.shape)
    t = torch.from_numpy(x).requires_grad_()
    torch.nn.functional.max_pool2d(t, 3, 2, 1).backward(torch.from_numpy(dy))  # type: ignore[no-untyped-call]
    assert t.grad is not None
    np.testing.assert_allclose(pooling.max_backward(dy, kept)["x"], t.grad.numpy(), rtol=1e-14)
    for index in np.ndindex(x.shape):
        terms = pooling.max_grad_terms(index, "x", dy, x, 3, stride=2, padding=1)
        assert abs(terms.recompute() - float(t.grad[index])) < 1e-12


def test_soft_pooling_lies_between_the_average_and_the_maximum() -> None:
    x = np.random.default_rng(0).standard_normal((2, 3, 6, 6))
    soft, _ = pooling.soft_forward(x, 2)
    assert (soft >= pooling.average_forward(x, 2)[0]).all()
    assert (soft <= pooling.max_forward(x, 2)[0]).all()
    sharp, _ = pooling.soft_forward(x * 1000, 2)
    np.testing.assert_allclose(sharp / 1000, pooling.max_forward(x, 2)[0], atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "settings", "message"),
    [
        ((1, 1, 4, 4), {"kernel": 5}, r"a kernel of 5 \(dilation 1, so 5 wide\) does not fit the padded height 4"),
        ((1, 1, 4, 4), {"kernel": 2, "padding": 2}, r"padding \(2, 2\) is more than half the kernel 2"),
        ((4, 4), {"kernel": 2}, r"x has shape \(4, 4\), but pooling takes \(N, C, H, W\)"),
    ],
)
def test_windows_that_do_not_fit(shape: Any, settings: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pooling.max_forward(np.zeros(shape), **settings)
