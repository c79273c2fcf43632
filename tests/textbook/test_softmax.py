from __future__ import annotations

import numpy as np
import pytest

from pellucid.textbook import softmax


def test_the_lectures_example() -> None:
    p, _ = softmax.forward(np.array([2.0, 1.0, 0.1]))
    np.testing.assert_allclose(p, [0.65900114, 0.24243297, 0.09856589], atol=5e-9)


def test_a_shift_changes_nothing_and_nothing_overflows() -> None:
    x = np.array([2.0, 1.0, 0.1])
    np.testing.assert_allclose(softmax.forward(x + 1e4)[0], softmax.forward(x)[0], rtol=1e-11)
    y, _ = softmax.log_forward(np.array([0.0, -2000.0]))
    assert y.tolist() == [0.0, -2000.0]


def test_refusals() -> None:
    with pytest.raises(ValueError, match=r"axis is 2, but x of shape \(2, 3\) has axes 0 to 1"):
        softmax.forward(np.zeros((2, 3)), axis=2)
    with pytest.raises(ValueError, match=r"\[0, 3\] is out of range for softmax of x of shape \(2, 3\)"):
        softmax.terms((0, 3), np.zeros((2, 3)))
