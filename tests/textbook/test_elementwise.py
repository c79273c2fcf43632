from __future__ import annotations

import numpy as np
import pytest

from pellucid.textbook.activation import LEAKY_RELU, RELU, SIGMOID
from pellucid.textbook.arithmetic import ADD, MULTIPLY


def test_shapes_that_do_not_broadcast() -> None:
    with pytest.raises(ValueError, match=r"shapes \(2, 3\) and \(4,\) do not fit: a \+ b needs equal sizes, or 1"):
        ADD.forward(np.zeros((2, 3)), np.zeros(4))


def test_a_setting_or_an_array_too_many() -> None:
    with pytest.raises(ValueError, match="a setting of leaky_relu is 'alpha', which is none of slope"):
        LEAKY_RELU.forward(np.zeros(2), alpha=0.1)
    with pytest.raises(ValueError, match="a setting of relu is 'slope', which is none of"):
        RELU.forward(np.zeros(2), slope=0.1)
    with pytest.raises(ValueError, match=r"multiply takes 2 arrays \(a, b\), but was given 1"):
        MULTIPLY.forward(np.zeros(2))


def test_an_index_is_of_the_output() -> None:
    a, b = np.array([[1.0], [2.0]]), np.array([10.0, 20.0, 30.0])
    terms = MULTIPLY.terms((1, 2), a, b)
    assert [(t.source, t.index, t.value) for t in terms] == [("a", (1, 0), 2.0), ("b", (2,), 30.0)]
    with pytest.raises(ValueError, match=r"\[1, 3\] is out of range for the output of multiply of shape \(2, 3\)"):
        MULTIPLY.terms((1, 3), a, b)


def test_a_broken_slope_breaks_the_gradient() -> None:
    wrong = SIGMOID.with_slopes(lambda x: (np.ones_like(x),))
    _, kept = wrong.forward(np.zeros(1))
    assert wrong.backward(np.ones(1), kept)["x"].tolist() == [1.0]
