from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from pellucid.training.rmsprop import KerasRMSprop


def test_it_is_the_formula_step_by_step() -> None:
    generator = np.random.default_rng(0)
    # Gradients from far below ε to far above it.
    g = generator.normal(size=(6, 4)) * np.array([1e-6, 1e-4, 1e-2, 1.0])
    w, s = generator.normal(size=4), np.zeros(4)
    parameter = nn.Parameter(torch.tensor(w))
    optimizer = KerasRMSprop([parameter], lr=0.01, rho=0.9, epsilon=1e-7, weight_decay=0.1)
    for step in range(6):
        parameter.grad = torch.tensor(g[step])
        optimizer.step()
        slope = g[step] + 0.1 * w
        s = 0.9 * s + 0.1 * slope**2
        w = w - 0.01 * slope / np.sqrt(s + 1e-7)
        assert parameter.detach().numpy() == pytest.approx(w, rel=1e-12)


def test_a_gradient_near_nothing_moves_a_weight_by_next_to_nothing() -> None:
    ours, theirs = (nn.Parameter(torch.zeros(1, dtype=torch.float64)) for _ in range(2))
    for parameter, optimizer in (
        (ours, KerasRMSprop([ours], lr=0.001)),
        (theirs, torch.optim.RMSprop([theirs], lr=0.001, alpha=0.9, eps=1e-7)),
    ):
        parameter.grad = torch.full((1,), 1e-6, dtype=torch.float64)
        optimizer.step()
    assert ours.item() == pytest.approx(-0.001 * 1e-6 / np.sqrt(1e-13 + 1e-7), rel=1e-9)
    # With ε beside the root, a millionth counts as much as a million.
    assert theirs.item() == pytest.approx(-0.001 * 1e-6 / (np.sqrt(1e-13) + 1e-7), rel=1e-9)
    assert abs(theirs.item()) > 500 * abs(ours.item())


def test_a_parameter_without_a_gradient_stays() -> None:
    still = nn.Parameter(torch.ones(2))
    KerasRMSprop([still], lr=0.1).step()
    assert still.tolist() == [1, 1]
