from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.nn import functional as F  # noqa: N812  its name everywhere

from pellucid.textbook.sizes import (
    Field,
    Layer,
    Window,
    backwards,
    field,
    forwards,
    output_size,
    same_padding,
    transposed_size,
)

SMALL = settings(max_examples=80, derandomize=True, deadline=None, database=None)


@SMALL
@given(
    st.integers(1, 20), st.integers(1, 5), st.integers(1, 4), st.integers(0, 3), st.integers(1, 3), st.integers(0, 1)
)
def test_sizes_are_torchs(size: int, kernel: int, stride: int, padding: int, dilation: int, extra: int) -> None:
    x = torch.zeros(1, 1, size)
    if size + 2 * padding >= dilation * (kernel - 1) + 1:
        y = F.conv1d(x, torch.zeros(1, 1, kernel), None, stride, padding, dilation)
        assert output_size(size, kernel, stride, padding, dilation) == y.shape[-1]
        if padding <= kernel // 2:
            y = F.max_pool1d(x, kernel, stride, padding, dilation, ceil_mode=True)
            assert output_size(size, kernel, stride, padding, dilation, ceil=True) == y.shape[-1]
    assume(extra < max(stride, dilation))
    expected = (size - 1) * stride - 2 * padding + dilation * (kernel - 1) + 1 + extra
    assume(expected >= 1)
    y = F.conv_transpose1d(x, torch.zeros(1, 1, kernel), None, stride, padding, extra, 1, dilation)
    assert transposed_size(size, kernel, stride, padding, dilation, extra) == y.shape[-1]


@SMALL
@given(st.integers(1, 30), st.integers(1, 7), st.integers(1, 4), st.integers(1, 3))
def test_same_padding_gives_the_size_over_the_stride(size: int, kernel: int, stride: int, dilation: int) -> None:
    before, after = same_padding(size, kernel, stride, dilation)
    assert after - before in {0, 1}
    if size + before + after >= dilation * (kernel - 1) + 1:
        assert output_size(size, kernel, stride, (before, after), dilation) == -(-size // stride)


def test_the_field_of_lenet5() -> None:
    layers = [
        Layer("conv1", ("image",), Window(5)),
        Layer("pool1", ("conv1",), Window(2, 2)),
        Layer("conv2", ("pool1",), Window(5)),
        Layer("pool2", ("conv2",), Window(2, 2)),
        Layer("conv3", ("pool2",), Window(5)),
    ]
    fields = [field(layers, layer.name) for layer in layers]
    assert fields == [Field(5, 1, 0), Field(6, 2, 0), Field(14, 2, 0), Field(16, 4, 0), Field(32, 4, 0)]
    assert backwards(layers, "conv3", (0, 0)) == (0, 31)
    assert forwards(layers, "pool2", (17, 17)) == (1, 4)


@SMALL
@given(st.data())
def test_fields_through_branches_are_what_gradients_reach(data: st.DataObject) -> None:
    """Positive weights: the pixels with a gradient are exactly those between the ends of the region."""

    def draw(low: int, high: int) -> int:
        return data.draw(st.integers(low, high))

    windows = {}
    for name in ("stem", "left", "right", "top"):
        stride = draw(1, 2) if name in {"stem", "top"} else 1
        kernel = draw(1, 3)
        windows[name] = Window(kernel, stride, draw(0, kernel // 2), draw(1, 2))
    layers = [
        Layer("stem", ("image",), windows["stem"]),
        Layer("left", ("stem",), windows["left"]),
        Layer("right", ("stem",), windows["right"]),
        Layer("sum", ("left", "right", "stem")),
        Layer("top", ("sum",), windows["top"]),
    ]
    size = 40
    x = torch.ones(1, 1, size, requires_grad=True)

    def run(name: str, a: torch.Tensor) -> torch.Tensor:
        w = windows[name]
        return F.conv1d(a, torch.ones(1, 1, w.kernel), None, w.stride, w.before, w.dilation)

    stem = run("stem", x)
    left, right = run("left", stem), run("right", stem)
    width = min(left.shape[-1], right.shape[-1], stem.shape[-1])
    top = run("top", left[..., :width] + right[..., :width] + stem[..., :width])
    i = top.shape[-1] // 2
    (gradient,) = torch.autograd.grad(top[0, 0, i], x)
    reached = np.flatnonzero(gradient[0, 0].numpy())
    region = backwards(layers, "top", (i, i), size)
    assert region == (reached[0], reached[-1])
    found = field(layers, "top")
    whole = backwards(layers, "top", (i, i))
    assert whole == (found.start + i * found.jump, found.start + i * found.jump + found.size - 1)
    first, last = forwards(layers, "top", (int(reached[0]), int(reached[0])))
    assert first <= i <= last


def test_refusals() -> None:
    with pytest.raises(ValueError, match=r"size 3, kernel 5, .* give ⌊\(3 − 5 \+ 0\)/1⌋ \+ 1 < 1"):
        output_size(3, 5)
    with pytest.raises(ValueError, match=r"\(1 − 1\)·1 − 2·2 \+ 1·\(3 − 1\) \+ 1 \+ 0 = -1 < 1"):
        transposed_size(1, 3, padding=2)
    uneven = [Layer("a", ("image",), Window(3, 2)), Layer("b", ("image",)), Layer("c", ("a", "b"))]
    with pytest.raises(ValueError, match=r"the branches that meet in 'c' have jumps \{'a': 2, 'b': 1\}"):
        field(uneven, "c")
    with pytest.raises(ValueError, match=r"layer 'a' reads from \['z'\], but before it there are \['image'\]"):
        field([Layer("a", ("z",))], "a")
    with pytest.raises(ValueError, match=r"there is no layer 'q' among \['a'\]"):
        backwards([Layer("a", ("image",))], "q", (0, 0))
