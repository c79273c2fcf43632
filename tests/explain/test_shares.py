from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pellucid.explain import Term
from pellucid.explain.shares import grouped, largest, not_finite, parts_of
from pellucid.textbook import Factor, Group, Terms


def of(*groups: Group) -> Terms:
    return Terms(groups, "", 1.0)


X = Group(
    "x",
    np.array([[0, 1], [0, 2], [1, 1]]),
    np.array([1.0, 2.0, -3.0]),
    np.array([0.5, 0.25, 2.0]),
    Factor("w", np.array([[7], [8], [9]]), np.array([0.5, 0.25, 2.0]), np.array([1.0, 2.0, -3.0])),
)
B = Group("b", np.zeros((1, 0), int), np.array([4.0]), np.array([1.0]))
NAMES = {"x": "input", "w": "fc.weight", "b": "loss"}


def test_terms_have_the_names_of_the_tape() -> None:
    first, second = parts_of(of(X, B), NAMES)
    assert first.every() == [
        Term("input[0,1]", 1.0, 0.5, 0.5, "fc.weight[7]"),
        Term("input[0,2]", 2.0, 0.25, 0.5, "fc.weight[8]"),
        Term("input[1,1]", -3.0, 2.0, -6.0, "fc.weight[9]"),
    ]
    assert [first.term(k) for k in range(3)] == first.every()
    assert second.every() == [Term("loss", 4.0, 1.0, 4.0)]


def test_an_argument_that_was_left_out_is_not_listed() -> None:
    (only,) = parts_of(of(X, B), {"x": "input"})
    assert only.every()[0] == Term("input[0,1]", 1.0, 0.5, 0.5)


def test_the_largest_stay_in_order_where_they_are_equal() -> None:
    parts = parts_of(of(X, B), NAMES)
    assert [term.address for term in largest(parts, 4)] == ["input[1,1]", "loss", "input[0,1]", "input[0,2]"]
    assert largest(parts, 2)[2] == Term("(2 more)", None, None, 1.0, None, 2)
    assert largest((), 3) == ()


def test_a_group_of_one_is_that_term() -> None:
    parts = parts_of(of(X, B), NAMES)
    by_row = grouped(parts, lambda _, rank: (0,)[:rank])
    assert by_row == (
        Term("input[0,:]", None, None, 1.0, None, 2),
        Term("input[1,1]", -3.0, 2.0, -6.0, "fc.weight[9]"),
        Term("loss", 4.0, 1.0, 4.0),
    )
    assert grouped(parts, lambda *_: ())[0] == Term("input", None, None, -5.0, None, 3)


def test_two_groups_of_one_array_are_one() -> None:
    parts = parts_of(of(X, X), NAMES)
    assert [(term.address, term.count) for term in grouped(parts, lambda *_: ())] == [("input", 6)]
    assert [term.count for term in grouped(parts, lambda _, rank: tuple(range(rank)))] == [2, 2, 2]


numbers = st.floats(-1e6, 1e6, width=32)


@given(st.lists(st.tuples(numbers, numbers, st.integers(0, 2), st.integers(0, 2)), min_size=1), st.integers(0, 9))
def test_sums_are_unchanged(rows: list[tuple[float, float, int, int]], count: int) -> None:
    value, coefficient = (np.array([row[k] for row in rows], float) for k in (0, 1))
    parts = parts_of(of(Group("x", np.array([row[2:] for row in rows]), value, coefficient)), NAMES)
    total, size = math.fsum(value * coefficient), math.fsum(np.abs(value * coefficient))
    for terms in (largest(parts, count), *(grouped(parts, lambda *_, kept=kept: kept) for kept in ((), (0,), (1,)))):
        assert math.fsum(term.contribution for term in terms) == pytest.approx(total, abs=1e-12 * size)
        assert sum(term.count for term in terms) == len(rows)


def test_what_is_not_finite_is_named_and_comes_first() -> None:
    bad = Group("x", np.array([[0], [1], [2]]), np.array([1.0, np.nan, 3.0]), np.array([1.0, 1.0, np.inf]))
    parts = parts_of(of(bad), NAMES)
    assert not_finite(parts) == ("input[1]", "input[2]")
    assert {term.address for term in largest(parts, 2)[:2]} == {"input[1]", "input[2]"}
    assert not_finite(parts_of(of(X), NAMES)) == ()
