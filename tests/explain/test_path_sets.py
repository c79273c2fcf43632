"""Large sets, by the envelope of lines; small ones stand among the rules, in test_path_rules.py."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from pellucid.explain.path_rules import best, by_terms
from pellucid.textbook import OPERATIONS

Array = npt.NDArray[Any]


def some_logs(rng: np.random.Generator, array: Array) -> Array:
    logs = np.log(rng.uniform(1e-3, 1, size=array.shape))
    return np.where(rng.random(array.shape) < 0.3, -np.inf, logs)


def test_large_sets_by_the_envelope() -> None:
    """Above the size at which all pairs are looked at: the same as from terms."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(3, 2, 20, 15)) * 2 + 1
    x[:, 1] = np.where(x[:, 1] > 0, x[:, 1], 0)
    gamma, beta = rng.normal(size=2), rng.normal(size=2)
    logs = [some_logs(rng, x), None, None, None, None]
    operation = OPERATIONS["batch_norm"]
    need = rng.random(x.shape) < 0.1
    arrays = [x, gamma, beta, np.zeros(2), np.ones(2)]
    found = best(operation, arrays, logs, {"training": True}, need)
    wanted = by_terms(operation, arrays, logs, {"training": True}, need, most=10**9)
    np.testing.assert_allclose(found[need], wanted[need], rtol=1e-9)


def test_one_number_far_out_is_its_own_best() -> None:
    """x̂ ≫ 1: the line that is the output's own is the envelope there, and has another slope."""
    x = np.zeros((1, 1, 30, 30)) + np.linspace(-1, 1, 900).reshape(1, 1, 30, 30)
    x[0, 0, 3, 4] = 500.0
    logs = [np.zeros(x.shape), None, None, None, None]
    operation, need = OPERATIONS["batch_norm"], np.ones(x.shape, dtype=bool)
    arrays: list[Any] = [x, None, None, None, None]
    found = best(operation, arrays, logs, {}, need)
    wanted = by_terms(operation, arrays, logs, {}, need, most=10**9)
    np.testing.assert_allclose(found, wanted, rtol=1e-9)


def test_a_number_that_is_the_mean_of_a_large_set() -> None:
    """Its line is level: 1 + x̂·t is 1 throughout."""
    x = (np.arange(-300.0, 301.0) + 7).reshape(1, 1, 1, 601)
    logs = [np.log(np.linspace(0.1, 1, 601)).reshape(x.shape), None, None, None, None]
    operation, arrays = OPERATIONS["batch_norm"], [x, None, np.array([0.5]), None, None]
    need = np.arange(601).reshape(x.shape) % 40 == 20
    assert need[0, 0, 0, 300]
    found, wanted = best(operation, arrays, logs, {}, need), by_terms(operation, arrays, logs, {}, need)
    np.testing.assert_allclose(found[need], wanted[need], rtol=1e-9)
