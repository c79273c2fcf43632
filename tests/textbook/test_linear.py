from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pellucid.textbook import OPTIMISERS, linear, loss
from pellucid.textbook.activation import SIGMOID

XOR_X = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
XOR_Y = np.array([0, 1, 1, 0])


def test_a_million_pixels_to_a_hundred_units() -> None:
    assert linear.parameters(1000 * 1000, 100) == (1000 * 1000 + 1) * 100 == 100_000_100


def test_xor_cannot_be_solved_by_one_layer() -> None:
    """y(0,0) + y(1,1) = y(0,1) + y(1,0) for every line, so the two classes never lie on two sides of it."""
    rng = np.random.default_rng(0)
    w, b = rng.uniform(-10, 10, (20_000, 2)), rng.uniform(-10, 10, 20_000)
    y, _ = linear.forward(XOR_X, w, b)
    np.testing.assert_allclose(y[0] + y[3], y[1] + y[2], atol=1e-12)
    right = (y > 0) == (XOR_Y == 1)[:, None]
    assert right.sum(axis=0).max() == 3


def test_xor_is_solved_by_two_layers() -> None:
    rng = np.random.default_rng(0)
    weights = {
        "w1": rng.standard_normal((4, 2)),
        "b1": np.zeros(4),
        "w2": rng.standard_normal((2, 4)),
        "b2": np.zeros(2),
    }
    adam = OPTIMISERS["adam"]
    states = {name: adam.start(w) for name, w in weights.items()}
    for step in range(1, 501):
        hidden, kept1 = linear.forward(XOR_X, weights["w1"], weights["b1"])
        active, kept2 = SIGMOID.forward(hidden)
        scores, kept3 = linear.forward(active, weights["w2"], weights["b2"])
        value, kept4 = loss.entropy_forward(scores, XOR_Y)
        last = linear.backward(loss.entropy_backward(np.array(1.0), kept4)["x"], kept3)
        first = linear.backward(SIGMOID.backward(last["x"], kept2)["x"], kept1)
        found = {"w1": first["w"], "b1": first["b"], "w2": last["w"], "b2": last["b"]}
        for name, gradient in found.items():
            weights[name], states[name] = adam.step(weights[name], gradient, states[name], step, lr=0.05)
    assert (scores.argmax(axis=1) == XOR_Y).all()
    assert value < 0.02


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ((np.zeros((2, 3)), np.zeros((4, 5))), r"x has shape \(2, 3\) and w \(4, 5\), but y = x·wᵀ needs"),
        (
            (np.zeros((2, 3)), np.zeros((4, 3)), np.zeros(3)),
            r"b has shape \(3,\), but one bias an output .* asks for \(4,\)",
        ),
    ],
)
def test_shapes_that_do_not_fit(arrays: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        linear.forward(*arrays)
