from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from pellucid.textbook import places


def test_mirrored_borders_are_the_engines() -> None:
    x = np.random.default_rng(0).standard_normal((1, 2, 3, 4))
    for mode, wide in (("reflect", (2, 1, 0, 1, 2, 3, 2)), ("replicate", (0, 0, 0, 1, 2, 3, 3))):
        theirs = F.pad(torch.from_numpy(x), (2, 1, 0, 0), mode=mode)
        np.testing.assert_array_equal(places.forward(x, (None, None, None, wide))[0], theirs.numpy())


def test_a_number_taken_three_times_has_three_terms() -> None:
    terms = places.grad_terms((0,), "x", np.array([1.0, 2.0, 3.0, 4.0]), np.zeros(2), ([0, 1, 0, 0],))
    assert [(t.index, t.value) for t in terms] == [((0,), 1.0), ((2,), 3.0), ((3,), 4.0)]
    assert len(places.grad_terms((1,), "x", np.ones(1), np.zeros(2), ([0],))) == 0


def test_a_number_without_axes_is_taken_as_it_is() -> None:
    y, kept = places.forward(np.array(2.0), ())
    assert y == 2.0
    assert places.backward(np.array(3.0), kept)["x"] == 3.0


def test_refusals() -> None:
    x = np.zeros((2, 5))
    with pytest.raises(ValueError, match=r"places has 1 lists, but x of shape \(2, 5\) has 2 axes"):
        places.forward(x, ([0],))
    with pytest.raises(ValueError, match=r"places \[5\] on axis 1 are not all in x of shape \(2, 5\)"):
        places.forward(x, (None, [5]))
    with pytest.raises(ValueError, match=r"places \[-1\] on axis 0 are not all in x"):
        places.forward(x, ([-1], None))
    with pytest.raises(ValueError, match="the argument of take whose gradient is asked for is 'y'"):
        places.grad_terms((0, 0), "y", x, x, (None, None))
