from __future__ import annotations

import numpy as np
import pytest

from pellucid.textbook.approximation import fit, predict

X = np.linspace(-1, 1, 401)
CURVES = {"sine": np.sin(np.pi * X), "step": np.where(X > 0, 1.0, 0.0)}


@pytest.mark.parametrize("name", list(CURVES))
def test_the_largest_error_falls_with_the_units(name: str) -> None:
    """Of the step away from the jump: at the jump no sum of smooth functions can be near both sides."""
    y = CURVES[name]
    counted = np.abs(X) >= 0.05 if name == "step" else np.ones_like(X, dtype=bool)
    errors = [float(np.abs(predict(fit(X, y, units), X) - y)[counted].max()) for units in (4, 16, 64)]
    assert errors[0] > 1.9 * errors[1] > 1.9 * 1.9 * errors[2]
    assert errors[-1] < {"sine": 0.001, "step": 0.07}[name]


def test_refusals() -> None:
    with pytest.raises(ValueError, match=r"x has shape \(401,\), y \(3,\) and units is 4"):
        fit(X, np.zeros(3), 4)
