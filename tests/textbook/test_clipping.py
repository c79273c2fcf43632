from __future__ import annotations

import numpy as np
import pytest
import torch

from pellucid.textbook import clipping


@pytest.mark.parametrize("limit", [0.5, 100.0])
def test_by_norm_is_torchs(limit: float) -> None:
    rng = np.random.default_rng(0)
    gradients = [rng.standard_normal(shape) for shape in ((3, 4), (5,), (2, 2, 2))]
    parameters = [torch.nn.Parameter(torch.zeros(g.shape, dtype=torch.float64)) for g in gradients]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = torch.from_numpy(gradient.copy())
    norm = torch.nn.utils.clip_grad_norm_(parameters, limit)
    clipped, ours = clipping.clip_all(gradients, limit)
    assert abs(ours - float(norm)) < 1e-12
    for parameter, gradient in zip(parameters, clipped, strict=True):
        assert parameter.grad is not None
        np.testing.assert_allclose(gradient, parameter.grad.numpy(), rtol=1e-12)


def test_by_value_is_torchs() -> None:
    gradient = np.random.default_rng(0).standard_normal((4, 5)) * 3
    parameter = torch.nn.Parameter(torch.zeros(4, 5, dtype=torch.float64))
    parameter.grad = torch.from_numpy(gradient.copy())
    torch.nn.utils.clip_grad_value_([parameter], 1.5)
    np.testing.assert_array_equal(clipping.BY_VALUE.forward(gradient, limit=1.5)[0], parameter.grad.numpy())


def test_the_direction_stays() -> None:
    x = np.array([3.0, -4.0])
    y, _ = clipping.norm_forward(x, 1.0, 0.0)
    np.testing.assert_allclose(y / np.linalg.norm(y), x / np.linalg.norm(x))
    assert abs(np.linalg.norm(y) - 1) < 1e-12
    by_value, _ = clipping.BY_VALUE.forward(x, limit=1.0)
    assert by_value.tolist() == [1.0, -1.0], "by value it does not"


def test_a_limit_of_nothing() -> None:
    for call in (clipping.norm_forward, lambda x, limit: clipping.BY_VALUE.forward(x, limit=limit)):
        with pytest.raises(ValueError, match="limit is 0"):
            call(np.ones(2), 0)
