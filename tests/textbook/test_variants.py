from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.signal import convolve2d

from pellucid.textbook import convolution, linear, variants


def test_true_convolution_is_scipys() -> None:
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((6, 7)), rng.standard_normal((3, 2))
    y, _ = variants.true_forward(x[None, None], w[None, None])
    np.testing.assert_allclose(y[0, 0], convolve2d(x, w, mode="valid"), atol=1e-12)


def test_both_agree_exactly_when_the_kernel_is_its_own_turn() -> None:
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((1, 1, 6, 6)), rng.standard_normal((1, 1, 3, 3))
    symmetric = w + variants.turn(w)
    np.testing.assert_allclose(variants.true_forward(x, symmetric)[0], convolution.forward(x, symmetric)[0], atol=1e-12)
    assert np.abs(variants.true_forward(x, w)[0] - convolution.forward(x, w)[0]).max() > 0.1


def test_a_separable_kernel_is_the_whole_kernel_it_multiplies_out_to() -> None:
    """Depthwise v and pointwise w do what one kernel w[o,c]·v[c,k,l] does, with fewer weights."""
    rng = np.random.default_rng(0)
    x, v, w = rng.standard_normal((2, 3, 6, 6)), rng.standard_normal((3, 1, 3, 3)), rng.standard_normal((4, 3, 1, 1))
    y, _ = variants.separable_forward(x, v, w)
    whole = w[:, :, 0, 0][:, :, None, None] * v[None, :, 0]
    np.testing.assert_allclose(y, convolution.forward(x, whole)[0], atol=1e-12)
    assert v.size + w.size == 3 * 9 + 3 * 4 < whole.size == 9 * 3 * 4


def test_pointwise_is_a_linear_layer_at_every_pixel() -> None:
    rng = np.random.default_rng(0)
    x, w, b = rng.standard_normal((2, 3, 4, 5)), rng.standard_normal((6, 3, 1, 1)), rng.standard_normal(6)
    y, _ = linear.forward(x.transpose(0, 2, 3, 1), w[:, :, 0, 0], b)
    np.testing.assert_allclose(variants.pointwise_forward(x, w, b)[0], y.transpose(0, 3, 1, 2), atol=1e-12)


def test_the_matrix_holds_every_window_as_a_row() -> None:
    x = np.arange(2 * 3 * 4 * 4, dtype=float).reshape(2, 3, 4, 4)
    rows = variants.unroll(x, (3, 3), padding=1, stride=2)
    assert rows.shape == (2 * 2 * 2, 3 * 9)
    np.testing.assert_array_equal(rows[3].reshape(3, 3, 3), x[0, :, 1:4, 1:4])


@pytest.mark.parametrize(
    ("forward", "shapes", "message"),
    [
        (
            variants.depthwise_forward,
            ((1, 3, 5, 5), (3, 2, 3, 3)),
            r"depthwise takes x \(N, C, H, W\) and w \(M·C, 1, K, L\)",
        ),
        (variants.depthwise_forward, ((1, 3, 5, 5), (4, 1, 3, 3)), r"x has shape \(1, 3, 5, 5\) and w \(4, 1, 3, 3\)"),
        (variants.pointwise_forward, ((1, 3, 5, 5), (4, 3, 3, 3)), r"1×1 takes x .* and w \(O, C, 1, 1\)"),
        (
            variants.unrolled_forward,
            ((1, 3, 5, 5), (4, 2, 3, 3)),
            r"x has shape \(1, 3, 5, 5\) and w \(4, 2, 3, 3\), but X·Wᵀ",
        ),
    ],
)
def test_shapes_that_do_not_fit(forward: Any, shapes: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        forward(*(np.zeros(shape) for shape in shapes))


def test_an_unknown_output_is_named() -> None:
    x, v, w = np.zeros((1, 2, 4, 4)), np.zeros((2, 1, 3, 3)), np.zeros((3, 2, 1, 1))
    with pytest.raises(ValueError, match="output is 'q', which is none of y, z"):
        variants.separable_terms((0, 0, 0, 0), x, v, w, output="q")
