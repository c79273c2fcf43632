from __future__ import annotations

import numpy as np
import pytest

from pellucid.textbook import matrix


def test_a_matrix_that_served_twice_adds_up_its_gradients() -> None:
    a, b = np.ones((2, 1, 3)), np.array([[1.0], [2.0], [3.0]])
    _, kept = matrix.forward(a, b)
    assert matrix.backward(np.ones((2, 1, 1)), kept)["b"].ravel().tolist() == [2.0, 2.0, 2.0]
    terms = matrix.grad_terms((2, 0), "b", np.ones((2, 1, 1)), a, b)
    assert [(t.index, t.value) for t in terms] == [((0, 0, 0), 1.0), ((1, 0, 0), 1.0)]


def test_the_terms_are_a_row_with_a_column() -> None:
    terms = matrix.terms((0, 1), np.array([[1.0, 2.0]]), np.array([[3.0, 5.0], [4.0, 6.0]]))
    assert terms.numbers() == "1·5 + 2·6 = 17"
    factor = terms.groups[0].factor
    assert factor is not None
    assert (factor.source, factor.index.tolist()) == ("b", [[0, 1], [1, 1]])


@pytest.mark.parametrize(
    ("a", "b"), [((2, 3), (2, 3)), ((3,), (3, 2)), ((2, 2, 3), (4, 3, 2))], ids=["inner", "vector", "front"]
)
def test_refusals(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"do not fit: a·b needs \(…, I, K\) and \(…, K, J\), equal or 1 in front"):
        matrix.forward(np.zeros(a), np.zeros(b))


def test_an_unknown_argument() -> None:
    with pytest.raises(ValueError, match="matmul whose gradient is asked for is 'x', which is none of a, b"):
        matrix.grad_terms((0, 0), "x", np.zeros((1, 1)), np.zeros((1, 1)), np.zeros((1, 1)))
