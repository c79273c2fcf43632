"""Sizes against counting the windows one by one, and `same` padding against the rule as TensorFlow's guide words it."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid.nets.sizes import (
    both_axes,
    by,
    formula,
    padding_sides,
    size_after,
    spread,
    transposed_formula,
    transposed_size,
)

SETTINGS = settings(max_examples=300, deadline=None, derandomize=True)
sizes, small = st.integers(1, 70), st.integers(1, 7)


def positions(size: int, kernel: int, stride: int, before: int, after: int, dilation: int) -> int:
    """How many windows fit, found by laying them down."""
    count, left = 0, -before
    while left + (kernel - 1) * dilation < size + after:
        count, left = count + 1, left + stride
    return count


@SETTINGS
@given(sizes, small, small, st.integers(0, 4), small)
def test_size_is_the_number_of_windows(size: int, kernel: int, stride: int, padding: int, dilation: int) -> None:
    ours = size_after(size, kernel, stride=stride, padding=padding, dilation=dilation)
    assert max(ours, 0) == positions(size, kernel, stride, padding, padding, dilation)


@SETTINGS
@given(sizes, small, small, small)
def test_same_is_kerass(size: int, kernel: int, stride: int, dilation: int) -> None:
    before, after = padding_sides(size, kernel, stride=stride, padding="same", dilation=dilation)
    spanned = spread(kernel, dilation)
    total = max(spanned - (size % stride or stride), 0)
    assert (before, after) == (total // 2, total - total // 2)
    assert 0 <= after - before <= 1
    ours = size_after(size, kernel, stride=stride, padding="same", dilation=dilation)
    assert ours == math.ceil(size / stride) == positions(size, kernel, stride, before, after, dilation)


@SETTINGS
@given(sizes, small, small, st.sampled_from(["same", "valid", 0, 2]), small)
def test_the_written_formula_is_true(size: int, kernel: int, stride: int, padding: str, dilation: int) -> None:
    text = formula(size, kernel, stride=stride, padding=padding, dilation=dilation)  # type: ignore[arg-type]
    left, right = text.split(" = ")
    python = left.replace("⌊", "math.floor(").replace("⌋", ")").replace("−", "-").replace("·", "*")
    ours = size_after(size, kernel, stride=stride, padding=padding, dilation=dilation)  # type: ignore[arg-type]
    assert eval(python, {"math": math}) == int(right.replace("−", "-")) == ours


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (formula(32, 5), "⌊(32 − 5 + 2·0)/1⌋ + 1 = 28"),
        (formula(7, 3, stride=2, padding=1), "⌊(7 − 3 + 2·1)/2⌋ + 1 = 4"),
        (formula(32, 3, stride=2, padding="same"), "⌊(32 − 3 + 0 + 1)/2⌋ + 1 = 16"),
        (formula(32, 3, dilation=2), "⌊(32 − ((3 − 1)·2 + 1) + 2·0)/1⌋ + 1 = 28"),
        (formula(2, 5), "⌊(2 − 5 + 2·0)/1⌋ + 1 = −2"),
    ],
)
def test_formula_text(text: str, expected: str) -> None:
    assert text == expected


def test_small_words() -> None:
    assert both_axes("a", "a") == "a"
    assert both_axes("a", "b") == "H: a; W: b"
    assert by((3, 32, 32)) == "3×32×32"


@SETTINGS
@given(sizes, small, small, st.integers(0, 4), small)
def test_a_transposed_convolution_goes_back(size: int, kernel: int, stride: int, padding: int, dilation: int) -> None:
    """From the size a convolution gives, with the rows its floor left over, to the size it came from."""
    after = size_after(size, kernel, stride=stride, padding=padding, dilation=dilation)
    if after >= 1:
        left = (size + 2 * padding - spread(kernel, dilation)) % stride
        window = {"stride": stride, "padding": padding, "dilation": dilation, "output_padding": left}
        assert transposed_size(after, kernel, **window) == size
        assert transposed_formula(after, kernel, **window).endswith(f"= {size}")


def test_the_transposed_formula_filled_in() -> None:
    assert transposed_formula(7, 2, stride=2) == "(7 − 1)·2 − 2·0 + 2 = 14"
    assert transposed_formula(4, 3, stride=2, padding=1, dilation=2, output_padding=1) == (
        "(4 − 1)·2 − 2·1 + ((3 − 1)·2 + 1) + 1 = 10"
    )
