from __future__ import annotations

import numpy as np
import pytest

from pellucid.textbook import activation

X = np.linspace(-12, 12, 100_001)


def test_the_sigmoids_slope_is_at_most_a_quarter() -> None:
    (slope,) = activation.sigmoid_slopes(X)
    assert slope is not None
    assert slope.max() == 0.25
    assert X[slope.argmax()] == 0


def test_two_sigmoids_let_at_most_a_sixteenth_through() -> None:
    first, kept1 = activation.SIGMOID.forward(X)
    _, kept2 = activation.SIGMOID.forward(first - 0.5)
    through = activation.SIGMOID.backward(activation.SIGMOID.backward(np.ones_like(X), kept2)["x"], kept1)["x"]
    assert through.max() == 1 / 16


def test_nothing_overflows() -> None:
    """Warnings are errors here: e^1000 would be one."""
    far = np.array([-1000.0, 1000.0])
    assert activation.sigmoid(far).tolist() == [0.0, 1.0]
    assert activation.softplus(far).tolist() == [0.0, 1000.0]
    assert activation.elu(far).tolist() == [-1.0, 1000.0]
    assert activation.silu(far).tolist() == [0.0, 1000.0]


def test_tanh_is_a_sigmoid_stretched() -> None:
    np.testing.assert_allclose(np.tanh(X), 2 * activation.sigmoid(2 * X) - 1, atol=1e-15)


def test_slopes_keep_their_digits_in_the_tails() -> None:
    """σ(40) is 1 in float64; σ' there is e⁻⁴⁰ all the same."""
    (slope,) = activation.sigmoid_slopes(np.array([40.0]))
    assert slope is not None
    np.testing.assert_allclose(slope, np.exp(-40), rtol=1e-12)


def test_refusals() -> None:
    with pytest.raises(ValueError, match="low is 1 and high is -1, but min"):
        activation.HARD_TANH.forward(X, low=1, high=-1)
    with pytest.raises(ValueError, match="approximate is 'fast', but GELU knows 'none'"):
        activation.GELU.forward(X, approximate="fast")
