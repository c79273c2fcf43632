from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pellucid.textbook import normalisation


def test_the_output_has_mean_beta_and_spread_gamma() -> None:
    x = np.random.default_rng(0).standard_normal((16, 3, 5, 5)) * 4 + 10
    out, _ = normalisation.batch_forward(x, np.full(3, 2.0), np.full(3, -1.0), training=True)
    np.testing.assert_allclose(out["y"].mean(axis=(0, 2, 3)), -1, atol=1e-12)
    np.testing.assert_allclose(out["y"].std(axis=(0, 2, 3)), 2, rtol=1e-5)


def test_running_averages_come_to_the_datas_own() -> None:
    rng = np.random.default_rng(0)
    mean, variance = np.zeros(1), np.ones(1)
    for _ in range(400):
        x = rng.standard_normal((64, 1)) * 3 + 5
        out, _ = normalisation.batch_forward(x, None, None, mean, variance, training=True)
        mean, variance = out["running_mean"], out["running_variance"]
    assert abs(mean[0] - 5) < 0.5
    assert abs(variance[0] - 9) < 2
    terms = normalisation.batch_terms((0,), x, None, None, mean, variance, training=True, output="running_mean")
    assert abs(terms.recompute() - (0.9 * mean[0] + 0.1 * x.mean())) < 1e-12


def test_group_normalisation_has_the_others_as_its_ends() -> None:
    x = np.random.default_rng(0).standard_normal((2, 6, 4, 4))
    whole, _ = normalisation.group_forward(x, groups=1)
    np.testing.assert_allclose(whole, normalisation.layer_forward(x, axes=3)[0], atol=1e-12)
    each, _ = normalisation.group_forward(x, groups=6)
    np.testing.assert_allclose(each, normalisation.layer_forward(x, axes=2)[0], atol=1e-12)


def test_the_scale_holds_where_the_mean_is_far_above_the_spread() -> None:
    """At mean/std 10⁴ float32 loses four digits of x̂; the scale says so, and the residual stays within 1e-5 of it."""
    x = (np.random.default_rng(0).standard_normal((4, 64)) + 1e4).astype(np.float32)
    y, _ = normalisation.layer_forward(x)
    for index in np.ndindex(x.shape):
        terms = normalisation.layer_terms(index, x)
        assert abs(terms.recompute() - float(y[index])) <= 1e-5 * terms.scale


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: normalisation.group_forward(np.zeros((1, 6, 2)), groups=4),
            r"4 groups do not split x of shape \(1, 6, 2\) evenly",
        ),
        (
            lambda: normalisation.batch_forward(np.zeros((2, 3)), np.zeros(2)),
            r"gamma has shape \(2,\), .* asks for \(3,\)",
        ),
        (lambda: normalisation.batch_forward(np.zeros((1, 3)), training=True), "σ² needs at least 2 to train"),
        (lambda: normalisation.batch_forward(np.zeros(3)), r"x has shape \(3,\), but batch normalisation takes"),
        (
            lambda: normalisation.layer_forward(np.zeros((2, 3)), axes=3),
            r"axes is 3, but x of shape \(2, 3\) has 1 to 2",
        ),
        (
            lambda: normalisation.layer_forward(np.zeros((2, 3)), np.zeros(2)),
            r"gamma has shape \(2,\), .* asks for \(3,\)",
        ),
        (
            lambda: normalisation.batch_terms((0,), np.zeros((2, 3)), output="running_mean"),
            "output is 'running_mean', which is none of y",
        ),
    ],
)
def test_refusals(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
