"""Weighted sums beyond the sizes of the rules' own tests (test_path_rules.py)."""

from __future__ import annotations

import numpy as np
import pytest

from pellucid.explain import path_sums
from pellucid.explain.path_rules import best
from pellucid.textbook import OPERATIONS


def test_a_hundred_layers_do_not_underflow() -> None:
    """Strengths of e^−5000 are beyond any float; their logarithms are not."""
    rng = np.random.default_rng(2)
    x, w = rng.normal(size=(1, 4)), rng.normal(size=(3, 4))
    logs = [np.array([[-5000.0, -5001.0, -np.inf, -4990.0]]), None, None]
    found = best(OPERATIONS["linear"], [x, w, None], logs, {}, np.ones((1, 3), dtype=bool))
    size = np.abs(w * x)
    wanted = np.max(np.log(size / size.sum(axis=1, keepdims=True)) + logs[0], axis=1)
    np.testing.assert_allclose(found[0], wanted, rtol=1e-12)


def test_a_large_matrix_is_taken_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """In parts of any size: the same numbers."""
    rng = np.random.default_rng(3)
    w, b, x = rng.normal(size=(7, 40)), rng.normal(size=7), np.maximum(rng.normal(size=(9, 40)), 0)
    x[2] = 0
    logs = np.where(rng.random(x.shape) < 0.2, -np.inf, np.log(rng.uniform(size=x.shape)))
    whole = path_sums.sums(w, b, x, logs)
    size = np.abs(w[None] * x[:, None])
    with np.errstate(divide="ignore"):
        share = np.log(size / (size.sum(axis=2, keepdims=True) + np.abs(b)[:, None]))
    np.testing.assert_allclose(whole, (share + logs[:, None]).max(axis=2), rtol=1e-9)
    assert np.isneginf(whole[2]).all()
    monkeypatch.setattr(path_sums, "_ROOM", 90)
    monkeypatch.setattr(path_sums, "_CACHED", 90)
    np.testing.assert_allclose(path_sums.sums(w, b, x, logs), whole, rtol=1e-12)


def test_shares_of_nothing() -> None:
    found = path_sums.share_of(np.array([0.0, 0.0, np.nan, -np.inf]), np.array([0.0, np.inf, 1.0, 1.0]))
    assert np.isneginf(found).all()
