from __future__ import annotations

import numpy as np
import pytest

from pellucid.textbook.dropout import DROPOUT, LECTURE, draw_mask


def test_both_forms_agree_in_expectation() -> None:
    """The mean over many masks is what the test phase gives, in each form; and the forms differ by 1 − p alone."""
    rng, x, p, draws = np.random.default_rng(0), np.array([1.0, -2.0, 0.5]), 0.3, 200_000
    masks = draw_mask(rng, (draws, 3), p)
    for form in (DROPOUT, LECTURE):
        mean = form.forward(np.broadcast_to(x, (draws, 3)), masks, p=p)[0].mean(axis=0)
        test, _ = form.forward(x, np.ones(3), p=p, training=False)
        error = 5 * np.abs(x) * np.sqrt(p / (1 - p) / draws)
        assert (np.abs(mean - test) < error).all()
    np.testing.assert_allclose(
        LECTURE.forward(x, masks[0], p=p)[0], DROPOUT.forward(x, masks[0], p=p)[0] * (1 - p), atol=1e-15
    )


def test_the_mask_drops_a_share_of_p() -> None:
    mask = draw_mask(np.random.default_rng(0), (100_000,), 0.2)
    assert set(np.unique(mask)) == {0.0, 1.0}
    assert abs((mask == 0).mean() - 0.2) < 0.006


@pytest.mark.parametrize("p", [-0.1, 1.0, 1.5])
def test_a_probability_out_of_range(p: float) -> None:
    with pytest.raises(ValueError, match=r"but m/\(1 − p\) needs 0 ≤ p < 1"):
        draw_mask(np.random.default_rng(0), (2,), p)
    with pytest.raises(ValueError, match=f"p is {p}"):
        DROPOUT.forward(np.ones(2), np.ones(2), p=p)
