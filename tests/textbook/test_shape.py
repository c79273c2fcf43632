from __future__ import annotations

import numpy as np
import pytest

from pellucid.textbook import shape


def test_splitting_undoes_concatenating() -> None:
    x = np.random.default_rng(0).standard_normal((2, 6, 3))
    parts = shape.split(x, 3)
    assert [part.shape for part in parts] == [(2, 2, 3)] * 3
    np.testing.assert_array_equal(shape.concatenate_forward(*parts)[0], x)


def test_a_number_of_the_border_has_no_terms() -> None:
    terms = shape.padding_terms((0,), np.ones(2), ((1, 0),), 7.5)
    assert len(terms) == 0
    assert terms.recompute() == 7.5
    assert terms.numbers() == "the padding, 7.5 = 7.5"


def test_stacking_numbers_makes_a_row() -> None:
    assert shape.stack_forward(np.array(1.0), np.array(2.0))[0].tolist() == [1.0, 2.0]


def test_a_mean_keeps_its_axes_or_not() -> None:
    x, dy = np.arange(8.0).reshape(1, 2, 4), np.array([[4.0, 8.0]])
    kept, gone = (shape.mean_forward(x, (2,), keep=keep) for keep in (True, False))
    assert (kept[0].shape, gone[0].shape) == ((1, 2, 1), (1, 2))
    assert shape.mean_backward(dy, gone[1])["x"].ravel().tolist() == [1, 1, 1, 1, 2, 2, 2, 2]
    assert shape.mean_terms((0, 1), x, (2,), keep=False).recompute() == 5.5
    assert shape.mean_grad_terms((0, 1, 2), "x", dy, x, (2,), keep=False).recompute() == 2.0


def test_refusals() -> None:
    x = np.zeros((2, 5))
    with pytest.raises(ValueError, match=r"x of shape \(2, 5\) does not split evenly into 2 parts on axis 1: 5 / 2"):
        shape.split(x, 2)
    with pytest.raises(ValueError, match=r"shapes \(2, 5\) and \(3, 5\) do not fit: all axes but 1"):
        shape.concatenate_forward(x, np.zeros((3, 5)))
    with pytest.raises(ValueError, match=r"axis is 2, but arrays of shape \(2, 5\) have axes 0 to 1"):
        shape.concatenate_forward(x, x, axis=2)
    with pytest.raises(ValueError, match=r"start is 2, but x of shape \(2, 5\) has axes 0 to 1"):
        shape.flatten_forward(x, 2)
    with pytest.raises(ValueError, match=r"widths are \(\(-1, 0\),\), but x of shape \(2, 5\)"):
        shape.padding_forward(x, ((-1, 0),))
    with pytest.raises(ValueError, match=r"axes are \(0, 0\), but x of shape \(2, 5\) has axes 0 to 1, each once"):
        shape.mean_forward(x, (0, 0))
    with pytest.raises(ValueError, match=r"shapes \(2, 5\), \(5,\) do not fit: all must be equal to stack"):
        shape.stack_forward(x, x[0])
    with pytest.raises(ValueError, match=r"axis is 3, but arrays of shape \(2, 5\) stack along 0 to 2"):
        shape.stack_forward(x, x, axis=3)
    with pytest.raises(ValueError, match="stack whose gradient is asked for is 'x2', which is none of x0, x1"):
        shape.stack_grad_terms((0, 0), "x2", x, x, x)
