from __future__ import annotations

import numpy as np
import pytest

from pellucid.textbook.average import exponential_average


def test_it_is_the_weighted_sum_written_out() -> None:
    x, beta = np.random.default_rng(0).standard_normal((40, 2)), 0.9
    plain = exponential_average(x, beta, correct=False)
    corrected = exponential_average(x, beta)
    for t in (1, 5, 40):
        weights = (1 - beta) * beta ** np.arange(t)[::-1]
        np.testing.assert_allclose(plain[t - 1], weights @ x[:t], rtol=1e-12)
        np.testing.assert_allclose(corrected[t - 1], weights @ x[:t] / weights.sum(), rtol=1e-12)


def test_the_correction_takes_the_bias_out() -> None:
    x = np.random.default_rng(0).standard_normal((5, 20_000)) + 3
    assert abs(exponential_average(x, 0.99)[-1].mean() - 3) < 0.05
    assert exponential_average(x, 0.99, correct=False)[-1].mean() < 0.2


def test_a_beta_that_never_forgets() -> None:
    with pytest.raises(ValueError, match=r"beta is 1.0, but β·a \+ \(1 − β\)·x needs 0 ≤ β < 1"):
        exponential_average(np.ones(3), 1.0)
