from __future__ import annotations

import numpy as np
import pytest

from pellucid.textbook import OPTIMISERS, penalty


def test_l1_ends_at_zero_and_l2_shrinks() -> None:
    """Descent on the penalty alone: L1 takes the same off every weight, L2 the same share."""
    w = np.array([1.0, 0.1])
    step = OPTIMISERS["gradient_descent"].step
    l1, _ = step(w, penalty.l1_backward(np.array(1.0), (w, 0.5))["w"], {}, 1, lr=0.1)
    l2, _ = step(w, penalty.l2_backward(np.array(1.0), (w, 0.5))["w"], {}, 1, lr=0.1)
    np.testing.assert_allclose(w - l1, [0.05, 0.05])
    np.testing.assert_allclose(l2 / w, [1 - 2 * 0.1 * 0.5] * 2)


def test_l1_has_no_slope_at_zero() -> None:
    assert penalty.l1_backward(np.array(1.0), (np.zeros(1), 1.0))["w"].tolist() == [0.0]


def test_a_negative_strength() -> None:
    for forward in (penalty.l1_forward, penalty.l2_forward):
        with pytest.raises(ValueError, match=r"strength is -1, but .* need λ ≥ 0"):
            forward(np.ones(2), -1)
