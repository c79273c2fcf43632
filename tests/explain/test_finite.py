"""The first number of a pass that is not finite is named, on the way forth and on the way back."""

from __future__ import annotations

import numpy as np
import pytest

from pellucid.explain import Node, Tape
from pellucid.explain.finite import not_finite


def tape(**arrays: object) -> Tape:
    values = {name: np.asarray(value) for name, value in arrays.items()}
    return Tape(nodes=[Node(name, "relu", shape=array.shape) for name, array in values.items()], values=values)


@pytest.mark.parametrize(("number", "word"), [(np.nan, "nan"), (np.inf, "inf"), (-np.inf, "-inf")])
def test_the_first_in_order_and_its_address(number: float, word: str) -> None:
    made = tape(a=np.ones((2, 3)), b=np.array([[1.0, 2.0], [number, number]]), c=np.array([number]))
    assert not_finite(made) == [f"the first number that is not finite is b[1,0], of relu: {word}"]


def test_gradients_are_searched_from_the_end() -> None:
    made = tape(a=np.ones(2), b=np.ones(2), c=np.float32(1))
    made.gradients = {"a": np.array([np.nan, 1]), "b": np.array([0, np.inf]), "c": np.asarray(1.0)}
    assert not_finite(made) == ["the first number that is not finite is b.grad[1], of relu: inf"]
    made.values["c"] = np.asarray(np.float32("nan"))
    assert not_finite(made)[0] == "the first number that is not finite is c, of relu: nan"


def test_whole_numbers_and_large_sums_are_finite() -> None:
    assert not_finite(tape(a=np.array([2**62, 2**62]), b=np.full(4, 3e38, np.float32), c=np.array([True]))) == []


def test_infinities_that_cancel_are_found() -> None:
    assert not_finite(tape(a=np.array([np.inf, -np.inf])))
