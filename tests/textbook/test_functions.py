from __future__ import annotations

import numpy as np
import torch

from pellucid.textbook import OPERATIONS
from pellucid.textbook.functions import ABSOLUTE, CLAMP, MAXIMUM, MISH, SELU, WHERE


def test_at_the_kinks_the_slopes_are_the_engines() -> None:
    x = np.array([-1.0, 0.0, 1.0])
    for ours, theirs in (
        (ABSOLUTE.backward(np.ones(3), ABSOLUTE.forward(x)[1])["x"], torch.abs),
        (
            CLAMP.backward(np.ones(3), CLAMP.forward(x, low=-1.0, high=0.0)[1])["x"],
            lambda t: t.clamp(-1.0, 0.0),
        ),
        (MAXIMUM.backward(np.ones(3), MAXIMUM.forward(x, np.zeros(3))[1])["a"], lambda t: t.maximum(torch.zeros(3))),
    ):
        t = torch.tensor(x).requires_grad_()
        theirs(t).sum().backward()
        assert t.grad is not None
        np.testing.assert_array_equal(ours, t.grad.numpy())


def test_selu_keeps_mean_and_variance() -> None:
    """Of a standard normal variable, by the integral over its density (Klambauer et al. 2017)."""
    x = np.linspace(-12, 12, 200_001)
    density = np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi) * (x[1] - x[0])
    y, _ = SELU.forward(x)
    assert abs((y * density).sum()) < 1e-6
    assert abs((y**2 * density).sum() - 1) < 1e-6


def test_nothing_overflows() -> None:
    x = np.array([-1000.0, 1000.0])
    with np.errstate(all="raise", under="ignore"):
        assert MISH.forward(x)[0].tolist() == [0.0, 1000.0]
        assert OPERATIONS["log_sigmoid"].forward(x)[0].tolist() == [-1000.0, 0.0]
        assert OPERATIONS["softsign"].forward(x)[0].round(3).tolist() == [-0.999, 0.999]


def test_a_condition_is_any_number_that_is_not_0() -> None:
    y, kept = WHERE.forward(np.array([0.0, 2.0, -1.0]), np.ones(3), np.zeros(1))
    assert y.tolist() == [0.0, 1.0, 1.0]
    gradients = WHERE.backward(np.ones(3), kept)
    assert {name: d.tolist() for name, d in gradients.items()} == {"a": [0, 1, 1], "b": [1]}


def test_a_missing_limit_is_said() -> None:
    terms = CLAMP.terms((0,), np.array([5.0]), high=2.0)
    assert terms.recompute() == 2.0
    assert terms.numbers() == "min(max(5, low), high) = 2"
    assert terms.steps()["low"] is None
