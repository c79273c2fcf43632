from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pellucid.textbook import convolution, transposed


def test_it_is_the_transpose() -> None:
    """⟨A·x, y⟩ = ⟨x, Aᵀ·y⟩ for every x and y: what "transposed" says."""
    rng = np.random.default_rng(0)
    settings: dict[str, Any] = {"stride": 2, "padding": 1, "dilation": 1, "groups": 2}
    x, w = rng.standard_normal((2, 4, 7, 7)), rng.standard_normal((6, 2, 3, 3))
    ax, _ = convolution.forward(x, w, **settings)
    y = rng.standard_normal(ax.shape)
    aty, _ = transposed.forward(y, w, **settings)
    assert aty.shape == x.shape
    np.testing.assert_allclose((ax * y).sum(), (x * aty).sum(), rtol=1e-12)


@pytest.mark.parametrize(
    ("shapes", "settings", "message"),
    [
        (
            ((1, 3, 4, 4), (2, 3, 3, 3)),
            {},
            r"x has shape \(1, 3, 4, 4\) and w \(2, 3, 3, 3\), but transposed convolution takes",
        ),
        (((1, 3, 4, 4), (3, 2, 3, 3)), {"groups": 2}, "with C a multiple of G = 2"),
        (((1, 2, 4, 4), (2, 2, 3, 3)), {"output_padding": 1}, r"output padding \(1, 1\) smaller than the stride"),
        (((1, 2, 1, 1), (2, 2, 3, 3)), {"padding": 2}, r"gives an output of \[-1, -1\]"),
        (
            ((1, 2, 4, 4), (2, 2, 3, 3), (3,)),
            {},
            r"b has shape \(3,\), but one bias an output channel .* asks for \(2,\)",
        ),
    ],
)
def test_shapes_that_do_not_fit(shapes: Any, settings: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        transposed.forward(*(np.zeros(shape) for shape in shapes), **settings)
