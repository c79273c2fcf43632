from __future__ import annotations

import numpy as np
import pytest

from pellucid.textbook import adaptive_pooling


@pytest.mark.parametrize(("size", "count"), [(7, 3), (6, 7), (1, 7), (224, 7), (5, 5)])
def test_bins_cover_everything_and_their_shares_sum_to_one(size: int, count: int) -> None:
    shares = adaptive_pooling.shares(size, count)
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    assert (shares.sum(axis=0) > 0).all()


def test_the_pyramid_has_one_length_whatever_the_image() -> None:
    for size in (4, 7, 33):
        y, _ = adaptive_pooling.pyramid_forward(np.zeros((2, 3, size, size + 1)))
        assert y.shape == (2, 3 * (1 + 4 + 16))


def test_refusals() -> None:
    with pytest.raises(ValueError, match=r"x has shape \(3, 4\), but adaptive pooling takes"):
        adaptive_pooling.adaptive_average_forward(np.zeros((3, 4)), 2)
    with pytest.raises(ValueError, match="size is 0, but must be one or two whole numbers ≥ 1"):
        adaptive_pooling.adaptive_average_forward(np.zeros((1, 1, 3, 4)), 0)
    with pytest.raises(ValueError, match=r"levels are \(0,\)"):
        adaptive_pooling.pyramid_forward(np.zeros((1, 1, 3, 4)), (0,))
    with pytest.raises(ValueError, match=r"but global pooling takes \(N, C, H, W\)"):
        adaptive_pooling.global_forward(np.zeros((3, 4)))
