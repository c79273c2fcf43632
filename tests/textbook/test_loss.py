from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pellucid.textbook import loss
from pellucid.textbook.activation import sigmoid


def test_the_lectures_example() -> None:
    p = np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]])
    found = [float(loss.probability_forward(p[n : n + 1], np.array([0]))[0]) for n in (0, 1)]
    np.testing.assert_allclose(found, [0.3567, 2.3026], atol=5e-5)
    from_scores = [float(loss.entropy_forward(np.log(p[n : n + 1]), np.array([0]))[0]) for n in (0, 1)]
    np.testing.assert_allclose(from_scores, found, rtol=1e-12)


def test_squared_error_is_flat_where_it_is_wrong_and_sure() -> None:
    """One unit at x = −10 against target 1: the surfaces' slopes by differences, and as the page has them."""
    b = np.array([-10.0 - 1e-4, -10.0 + 1e-4])
    squared, entropy = loss.surface(np.zeros(1), b, np.array([0.0]), np.array([1.0]))
    slopes = [float((s[0, 1] - s[0, 0]) / 2e-4) for s in (squared, entropy)]
    p = float(sigmoid(np.array(-10.0)))
    np.testing.assert_allclose(slopes, [2 * (p - 1) * p * (1 - p), p - 1], rtol=1e-6)
    assert abs(slopes[0]) < 1e-4
    assert abs(slopes[1]) > 0.99


def test_cross_entropy_alone_is_convex() -> None:
    rng = np.random.default_rng(0)
    x, target = rng.standard_normal(8), rng.integers(0, 2, 8).astype(float)
    line = np.linspace(-8, 8, 201)
    squared, entropy = loss.surface(line, np.zeros(1), x, target)
    bend = [np.diff(s[:, 0], 2).min() for s in (squared, entropy)]
    assert bend[1] > -1e-12 > bend[0]


def test_smoothing_moves_the_best_answer_off_certainty() -> None:
    x = np.log(np.array([[0.95, 0.025, 0.025]]))
    gradient = loss.entropy_backward(np.array(1.0), loss.entropy_forward(x, np.array([0]), smoothing=0.075)[1])["x"]
    np.testing.assert_allclose(gradient, 0, atol=1e-12)


X = np.zeros((2, 3))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: loss.entropy_forward(X, np.array([0, 1, 2])), r"x has shape \(2, 3\) and labels \(3,\)"),
        (
            lambda: loss.entropy_forward(X, np.array([0, 3])),
            r"labels run from 0 to 3, but x of shape \(2, 3\) knows 0 to 2",
        ),
        (lambda: loss.entropy_forward(X, np.array([0, 1]), smoothing=1.5), "smoothing is 1.5"),
        (lambda: loss.entropy_forward(X, np.array([0, 1]), np.ones(2)), r"class_weights has shape \(2,\)"),
        (
            lambda: loss.entropy_forward(X, np.array([0, 1]), reduction="max"),
            "reduction is 'max', which is none of mean, sum",
        ),
        (lambda: loss.squared_forward(X, np.zeros((3, 2))), r"target has shape \(3, 2\), but .* asks for \(2, 3\)"),
        (
            lambda: loss.probability_forward(X, np.array([0, 1])),
            "the probability of label 0 is 0.0, but −log p needs p > 0",
        ),
        (lambda: loss.entropy_terms((0,), X, np.array([0, 1])), r"\[0\] is out of range for the loss of shape \(\)"),
    ],
)
def test_refusals(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
