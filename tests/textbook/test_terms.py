from __future__ import annotations

import numpy as np
import pytest

from pellucid.textbook import OPERATIONS, Group, Terms
from pellucid.textbook.terms import check_index, check_shape, gather, grid, row, summed, unknown


def test_a_sum_in_words_and_numbers() -> None:
    x, w = np.array([[1.0, -2.0, 3.0]]), np.array([[0.5, 1.0, 2.0]])
    terms = OPERATIONS["linear"].terms((0, 0), x, w, np.array([0.25]))
    assert terms.numbers() == "1·0.5 + (-2)·1 + 3·2 + 0.25·1 = 4.75"
    assert terms.numbers(most=2) == "1·0.5 + (-2)·1 + … = 4.75"
    assert terms.recompute() == 4.75
    assert terms.scale == 0.5 + 2 + 6 + 0.25
    assert len(terms) == 4
    first = next(iter(terms))
    assert (first.source, first.index, first.value, first.coefficient, first.contribution) == (
        "x",
        (0, 0),
        1.0,
        0.5,
        0.5,
    )


def test_the_other_factor_can_be_asked_in_turn() -> None:
    x, w = np.array([[1.0, -2.0]]), np.array([[0.5, 1.0], [3.0, 4.0]])
    (group,) = OPERATIONS["linear"].terms((0, 1), x, w).groups
    assert group.factor is not None
    assert group.factor.source == "w"
    assert group.factor.index.tolist() == [[1, 0], [1, 1]]
    assert group.factor.value.tolist() == [3.0, 4.0]
    assert group.factor.coefficient.tolist() == [1.0, -2.0], "the slope with respect to a weight is the pixel"


def test_a_maximum_in_words_and_numbers() -> None:
    x = np.array([[[[1.0, 5.0], [2.0, -1.0]]]])
    terms = OPERATIONS["max_pool"].terms((0, 0, 0, 0), x, kernel=2)
    assert terms.combine == "max"
    assert terms.numbers() == "max(1, 5, 2, (-1)) = 5"
    assert terms.groups[0].coefficient.tolist() == [0, 1, 0, 0]


def test_a_formula_in_words_and_numbers() -> None:
    x = np.array([[1.0], [3.0]])
    norm = OPERATIONS["batch_norm"]
    terms = norm.terms((1, 0), x, np.array([2.0]), np.array([0.5]), training=True, eps=0.0)
    assert terms.formula == "(x − μ)/√(σ² + ε)·γ + β"
    assert terms.numbers() == "(3 − 2)/√(1 + 0)·2 + 0.5 = 2.5"
    assert terms.steps()["mean"] == 2.0


def test_a_coefficient_is_a_slope_and_no_quotient() -> None:
    """tanh(0) = 0 from x = 0: a quotient would be 0/0."""
    terms = OPERATIONS["tanh"].terms((0,), np.zeros(1))
    assert terms.groups[0].coefficient[0] == 1.0
    assert terms.recompute() == 0.0


def test_a_formula_needs_its_rule() -> None:
    broken = Terms((Group("x", row((0,)), np.ones(1), np.ones(1)),), "f({x})", 1.0, "formula")
    with pytest.raises(ValueError, match="terms that combine by 'formula' need the rule"):
        broken.recompute()


def test_nothing_adds_up_to_zero() -> None:
    assert summed([], "Σ").recompute() == 0.0


def test_grid_and_gather() -> None:
    assert grid().shape == (1, 0)
    assert gather(np.array(3.0), grid()).tolist() == [3.0]
    assert gather(np.arange(6).reshape(2, 3), grid(1, [0, 2])).tolist() == [3.0, 5.0]


@pytest.mark.parametrize("index", [(2, 0), (0, 3), (-1, 0), (0,), (0, 0, 0)])
def test_an_index_out_of_range(index: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"is out of range for y of shape \(2, 3\): 0 ≤ index < shape"):
        check_index(index, (2, 3), "y")


def test_other_refusals() -> None:
    with pytest.raises(ValueError, match=r"b has shape \(2,\), but one bias an output asks for \(3,\)"):
        check_shape(np.zeros(2), (3,), "b", "one bias an output")
    assert str(unknown("z", ["x", "w"], "the argument")) == "the argument is 'z', which is none of x, w"


@pytest.mark.parametrize("name", list(OPERATIONS))
def test_an_unknown_argument_is_named(name: str) -> None:
    from tests.agree.cases import drawn  # the examples of the agreement test

    example = drawn(name, np.random.default_rng(0))
    operation = OPERATIONS[name]
    y, _ = operation.forward(*example.arrays, **example.attributes)
    with pytest.raises(ValueError, match="'nonsense', which is none of"):
        operation.grad_terms((0,), "nonsense", y, *example.arrays, **example.attributes)
