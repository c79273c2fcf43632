from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from pellucid.textbook import initialiser


@pytest.mark.parametrize("shape", [(7, 5), (6, 3, 5, 5), (8, 2, 3, 4)])
def test_fans_are_torchs(shape: tuple[int, ...]) -> None:
    assert initialiser.fans(shape) == torch.nn.init._calculate_fan_in_and_fan_out(torch.empty(shape))


@pytest.mark.parametrize("normal", [False, True])
def test_xavier_and_he_have_their_variance(normal: bool) -> None:
    rng, shape = np.random.default_rng(0), (64, 32, 5, 5)
    fan_in, fan_out = 32 * 25, 64 * 25
    for w, variance in (
        (initialiser.xavier(rng, shape, normal=normal), 2 / (fan_in + fan_out)),
        (initialiser.he(rng, shape, normal=normal), 2 / fan_in),
    ):
        assert abs(w.mean()) < 5 * np.sqrt(variance / w.size)
        assert w.var() == pytest.approx(variance, rel=0.03)
        law = (
            stats.norm(0, np.sqrt(variance))
            if normal
            else stats.uniform(-np.sqrt(3 * variance), 2 * np.sqrt(3 * variance))
        )
        assert stats.kstest(w.ravel(), law.cdf).pvalue > 1e-3


def test_he_carries_a_signal_through_fifty_layers_of_relu() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, 256))
    size = float((x**2).mean())
    for _ in range(50):
        x = np.maximum(x @ initialiser.he(rng, (256, 256)).T, 0)
    assert 0.1 < float((x**2).mean()) * 2 / size < 10
    y = rng.standard_normal((200, 256))
    for _ in range(50):
        y = np.maximum(y @ initialiser.xavier(rng, (256, 256)).T, 0)
    assert (y**2).mean() < 1e-10, "Xavier reckons without ReLU: half of the power is lost at every layer"


def test_truncated_normal_is_scipys() -> None:
    x = initialiser.truncated_normal(np.random.default_rng(0), (50_000,), std=0.5, limit=2)
    assert np.abs(x).max() <= 1.0
    assert stats.kstest(x, stats.truncnorm(-2, 2, scale=0.5).cdf).pvalue > 1e-3


@pytest.mark.parametrize("shape", [(5, 5), (4, 9), (9, 4), (6, 3, 2, 2)])
def test_orthogonal_keeps_lengths(shape: tuple[int, ...]) -> None:
    w = initialiser.orthogonal(np.random.default_rng(0), shape).reshape(shape[0], -1)
    gram = w @ w.T if w.shape[0] <= w.shape[1] else w.T @ w
    np.testing.assert_allclose(gram, np.eye(len(gram)), atol=1e-12)


def test_orthogonal_directions_are_evenly_spread() -> None:
    """Turning Q's columns matters: the first number must be as often negative as positive."""
    rng = np.random.default_rng(0)
    signs = [initialiser.orthogonal(rng, (3, 3))[0, 0] > 0 for _ in range(2000)]
    assert abs(np.mean(signs) - 0.5) < 0.05


def test_uniform_stays_in_its_range() -> None:
    x = initialiser.uniform(np.random.default_rng(0), (10_000,), -0.2, 0.4)
    assert stats.kstest(x, stats.uniform(-0.2, 0.6).cdf).pvalue > 1e-3


def test_refusals() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"shape is \(3,\), but fan_in = C·K·L"):
        initialiser.he(rng, (3,))
    with pytest.raises(ValueError, match="low is 1 and high is 0"):
        initialiser.uniform(rng, (3,), 1, 0)
    with pytest.raises(ValueError, match="std is 0 and limit 2"):
        initialiser.truncated_normal(rng, (3,), 0, 2)
