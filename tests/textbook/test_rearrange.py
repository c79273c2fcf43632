from __future__ import annotations

import numpy as np
import pytest

from pellucid.textbook import rearrange


def test_a_channel_shuffle_is_split_exchange_join() -> None:
    """Channels 0 1 2 | 3 4 5 of two groups come out as 0 3 1 4 2 5."""
    x = np.arange(6.0).reshape(1, 6, 1)
    split, _ = rearrange.reshape_forward(x, (1, 2, 3, 1))
    turned, _ = rearrange.permute_forward(split, (0, 2, 1, 3))
    joined, _ = rearrange.reshape_forward(turned, (1, 6, 1))
    assert joined.ravel().tolist() == [0, 3, 1, 4, 2, 5]
    terms = rearrange.permute_terms((0, 2, 1, 0), split, (0, 2, 1, 3))
    assert [(t.source, t.index, t.value) for t in terms] == [("x", (0, 1, 2, 0), 5.0)]
    assert terms.formula == "y[i] = x[j], i = j in order [0, 2, 1, 3]"


def test_what_was_not_taken_has_no_gradient() -> None:
    x, dy = np.arange(5.0), np.array([10.0, 20.0])
    assert rearrange.slice_forward(x, 0, 1, 5, 3)[0].tolist() == [1.0, 4.0]
    gone = rearrange.slice_grad_terms((2,), "x", dy, x, 0, 1, 5, 3)
    assert (len(gone), gone.recompute()) == (0, 0.0)
    assert rearrange.slice_grad_terms((4,), "x", dy, x, 0, 1, 5, 3).recompute() == 20.0
    assert len(rearrange.select_grad_terms((2,), "x", np.array(3.0), x, 0, 1)) == 0


def test_a_number_that_was_repeated_adds_up_its_gradients() -> None:
    terms = rearrange.expand_grad_terms((0, 1), "x", np.ones((4, 3, 2)), np.zeros((1, 2)), (4, 3, 2))
    assert len(terms) == 12
    assert terms.recompute() == 12.0


def test_nothing_is_empty() -> None:
    """An empty slice, and arrays without axes."""
    assert rearrange.slice_forward(np.zeros(3), 0, 2, 2)[0].shape == (0,)
    assert rearrange.reshape_forward(np.array(3.0), (1, 1))[0].tolist() == [[3.0]]
    assert rearrange.reshape_terms((), np.array([[3.0]]), ()).recompute() == 3.0


def test_refusals() -> None:
    x = np.zeros((2, 5))
    with pytest.raises(ValueError, match=r"x of shape \(2, 5\) has 10 numbers, which do not make the shape \(3, 3\)"):
        rearrange.reshape_forward(x, (3, 3))
    with pytest.raises(ValueError, match=r"do not make the shape \(-2, -5\)"):
        rearrange.reshape_forward(x, (-2, -5))
    with pytest.raises(ValueError, match=r"axes are \[0, 0\], but x of shape \(2, 5\) has axes 0 to 1, each once"):
        rearrange.permute_forward(x, (0, 0))
    with pytest.raises(ValueError, match=r"start 0, stop 6 and step 1 on axis 1 do not fit x of shape \(2, 5\)"):
        rearrange.slice_forward(x, 1, 0, 6)
    with pytest.raises(ValueError, match=r"start 0, stop 1 and step 1 on axis 2 do not fit"):
        rearrange.slice_forward(x, 2, 0, 1)
    with pytest.raises(ValueError, match=r"index 5 on axis 1 is not in x of shape \(2, 5\)"):
        rearrange.select_forward(x, 1, 5)
    with pytest.raises(ValueError, match=r"x of shape \(2, 5\) does not expand to \(2, 6\)"):
        rearrange.expand_forward(x, (2, 6))
    with pytest.raises(ValueError, match=r"does not expand to \(5,\)"):
        rearrange.expand_forward(x, (5,))
    with pytest.raises(ValueError, match="the argument whose gradient is asked for is 'y', which is none of x"):
        rearrange.identity_grad_terms((0, 0), "y", x, x)
