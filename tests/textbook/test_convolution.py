from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pellucid.textbook import OPERATIONS, convolution, variants

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "conv_forward.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("kind", ["convolution", "unrolled_convolution", "true_convolution"])
def test_the_golden_convolution(kind: str) -> None:
    x, w = np.array([GOLDEN["x_chw"]], dtype=float), np.array(GOLDEN["w_ockl"], dtype=float)
    if kind == "true_convolution":
        w = variants.turn(w)
    b = np.array(GOLDEN["b_o"], dtype=float)
    settings = {"stride": GOLDEN["stride"], "padding": GOLDEN["padding"]}
    y, _ = OPERATIONS[kind].forward(x, w, b, **settings)
    assert y[0].tolist() == GOLDEN["y_oij"]
    for index in np.ndindex(y.shape):
        assert OPERATIONS[kind].terms(index, x, w, b, **settings).recompute() == y[index]


def test_same_padding_of_an_even_kernel_has_its_odd_row_at_the_end() -> None:
    x, w = np.ones((1, 1, 3, 3)), np.ones((1, 1, 2, 2))
    y, _ = convolution.forward(x, w, padding=((0, 1), (0, 1)))
    assert y[0, 0].tolist() == [[4, 4, 2], [4, 4, 2], [2, 2, 1]]


def test_padding_is_no_term() -> None:
    terms = convolution.terms((0, 0, 0, 0), np.ones((1, 2, 4, 4)), np.ones((1, 2, 3, 3)), padding=1)
    assert len(terms) == 2 * 2 * 2, "of 3×3 only 2×2 lie on the image, in two channels"


W = np.zeros((4, 2, 3, 3))


@pytest.mark.parametrize(
    ("x", "w", "settings", "message"),
    [
        (
            np.zeros((1, 3, 5, 5)),
            W,
            {},
            r"x has shape \(1, 3, 5, 5\) and w \(4, 2, 3, 3\), but each kernel must have C/G = 3/1",
        ),
        (np.zeros((1, 3, 5, 5)), W, {"groups": 2}, r"2 groups do not split x \(1, 3, 5, 5\) and w .* evenly: C = 3"),
        (np.zeros((1, 2, 2, 5)), W, {}, r"does not fit the padded height 2 \+ 0 \+ 0: ⌊\(2 − 3 \+ 0\)/1⌋ \+ 1 < 1"),
        (np.zeros((2, 5, 5)), W, {}, r"x has shape \(2, 5, 5\) .* takes x \(N, C, H, W\)"),
        (np.zeros((1, 2, 5, 5)), W, {"stride": 0}, "stride is 0, but must be one or two whole numbers ≥ 1"),
        (np.zeros((1, 2, 5, 5)), W, {"padding": (-1, 0)}, r"padding is \(-1, 0\), but must be"),
    ],
)
def test_shapes_that_do_not_fit(x: Any, w: Any, settings: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        convolution.forward(x, w, **settings)


def test_an_index_out_of_range() -> None:
    x, w = np.zeros((1, 2, 5, 5)), W
    with pytest.raises(
        ValueError, match=r"\[0, 0, 3, 0\] is out of range for the output of convolution of shape \(1, 4, 3, 3\)"
    ):
        convolution.terms((0, 0, 3, 0), x, w)
