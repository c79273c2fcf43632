from __future__ import annotations

import numpy as np

from pellucid.textbook.arithmetic import ADD, DIVIDE, MULTIPLY, POWER, SUBTRACT


def test_a_residual_connection_hands_the_gradient_on() -> None:
    x = np.random.default_rng(0).standard_normal((2, 3))
    dy = np.ones((2, 3))
    gradients = ADD.backward(dy, ADD.forward(x, 0.001 * x)[1])
    assert all((d == dy).all() for d in gradients.values())


def test_x_times_x_is_x_squared_its_gradients_adding_up() -> None:
    x = np.array([3.0])
    twice = MULTIPLY.backward(np.ones(1), MULTIPLY.forward(x, x)[1])
    once = POWER.backward(np.ones(1), POWER.forward(x, exponent=2.0)[1])
    assert twice["a"] + twice["b"] == once["x"] == 6.0


def test_subtracting_and_dividing_undo() -> None:
    a, b = np.array([2.0, 5.0]), np.array([4.0, 0.5])
    assert SUBTRACT.forward(ADD.forward(a, b)[0], b)[0].tolist() == a.tolist()
    assert DIVIDE.forward(MULTIPLY.forward(a, b)[0], b)[0].tolist() == a.tolist()
