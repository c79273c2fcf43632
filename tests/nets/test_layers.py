"""`same` convolution against plain loops over Keras's rule, in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pellucid.nets.layers import SameConv2d, Scale, SoftPool2d, SpatialPyramidPool2d, convolution


def by_loops(x_chw: np.ndarray, w_ockl: np.ndarray, stride: int, dilation: int) -> np.ndarray:
    """Convolution with the padding of TensorFlow's guide: K − S, or K − (W mod S), the odd row after."""
    filters, _, K, L = w_ockl.shape
    outs, befores = [], []
    for size, kernel in zip(x_chw.shape[1:], (K, L), strict=True):
        spanned = (kernel - 1) * dilation + 1
        outs.append(-(-size // stride))
        befores.append(max(spanned - (size % stride or stride), 0) // 2)
    y_oij = np.zeros((filters, *outs))
    for i in range(outs[0]):
        for j in range(outs[1]):
            for k in range(K):
                for m in range(L):
                    h, w = i * stride + k * dilation - befores[0], j * stride + m * dilation - befores[1]
                    if 0 <= h < x_chw.shape[1] and 0 <= w < x_chw.shape[2]:
                        y_oij[:, i, j] += w_ockl[:, :, k, m] @ x_chw[:, h, w]
    return y_oij


@settings(max_examples=80, deadline=None, derandomize=True)
@given(st.integers(1, 11), st.integers(1, 11), st.integers(1, 6), st.integers(1, 4), st.integers(1, 3))
def test_same_convolution_is_kerass(height: int, width: int, kernel: int, stride: int, dilation: int) -> None:
    generator = torch.Generator().manual_seed(height * 100 + width)
    module = convolution(
        in_channels=2, out_channels=3, kernel_size=kernel, stride=stride, padding="same", dilation=dilation, bias=True
    ).double()
    x_nchw = torch.randn(1, 2, height, width, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        y_noij = module(x_nchw)
        expected = by_loops(x_nchw[0].numpy(), module.weight.numpy(), stride, dilation)
    assert module.bias is not None
    expected += module.bias.detach().numpy()[:, None, None]
    np.testing.assert_allclose(y_noij[0].numpy(), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("kernel", "dilation"), [(1, 1), (3, 1), (5, 1), (2, 2), (3, 3)])
def test_odd_spans_at_stride_one_are_plain_convolutions(kernel: int, dilation: int) -> None:
    module = convolution(in_channels=1, out_channels=1, kernel_size=kernel, stride=1, padding="same", dilation=dilation)
    assert type(module) is nn.Conv2d
    assert module(torch.zeros(1, 1, 9, 6)).shape == (1, 1, 9, 6)


def test_pads_by_itself_only_where_it_must(monkeypatch: pytest.MonkeyPatch) -> None:
    padded = []
    pad = nn.functional.pad

    def recorded(x: torch.Tensor, sides: tuple[int, ...]) -> torch.Tensor:
        padded.append(sides)
        return pad(x, sides)

    monkeypatch.setattr(nn.functional, "pad", recorded)
    module = SameConv2d(1, 1, 3, stride=2)
    module(torch.zeros(1, 1, 5, 7))
    assert padded == []
    module(torch.zeros(1, 1, 6, 7))
    assert padded == [(0, 0, 0, 1)]


def test_valid_and_numbers_are_plain() -> None:
    window = {"in_channels": 1, "out_channels": 1, "kernel_size": 3, "stride": 2, "dilation": 1}
    for padding, expected in (("valid", (0, 0)), (2, (2, 2))):
        module = convolution(**window, padding=padding)  # type: ignore[arg-type]
        assert type(module) is nn.Conv2d
        assert module.padding == expected


def test_gradients_groups_and_layout() -> None:
    module = SameConv2d(4, 4, 2, stride=3, groups=2).double()
    x_nchw = torch.randn(
        2, 4, 7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True
    )
    assert torch.autograd.gradcheck(module, (x_nchw,))
    last = x_nchw.detach().contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(module(last), module(x_nchw))


def test_exports_and_says_what_it_is() -> None:
    module = SameConv2d(1, 2, 3, stride=2)
    assert "padding=same" in repr(module)
    x_nchw = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(torch.export.export(module, (x_nchw,)).module()(x_nchw), module(x_nchw))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(3, 9), st.integers(3, 9), st.integers(1, 3), st.integers(1, 3))
def test_softpool_is_its_formula(height: int, width: int, size: int, stride: int) -> None:
    x_nchw = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y_ncij = SoftPool2d(size, stride)(x_nchw).numpy()
    assert y_ncij.shape == nn.functional.max_pool2d(x_nchw, size, stride).shape
    for i in range(y_ncij.shape[2]):
        for j in range(y_ncij.shape[3]):
            window = x_nchw[:, :, i * stride : i * stride + size, j * stride : j * stride + size].numpy()
            weights = np.exp(window)
            expected = (weights * window).sum((2, 3)) / weights.sum((2, 3))
            np.testing.assert_allclose(y_ncij[:, :, i, j], expected, rtol=0, atol=1e-12)


def test_softpool_lies_between_the_mean_and_the_largest_at_any_magnitude() -> None:
    x_nchw = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    # Two windows of one map, far apart: the exponential of one overflows float32, and of the other is 0.
    far = x_nchw.clone()
    far[:, :, :4] += 200
    far[:, :, 4:] -= 200
    for x in (x_nchw, 1000 * x_nchw, far):
        y, mean, largest = SoftPool2d(2)(x), nn.functional.avg_pool2d(x, 2), nn.functional.max_pool2d(x, 2)
        slack = 1e-5 * x.abs().max()
        assert (y >= mean - slack).all()
        assert (y <= largest + slack).all()
    assert torch.autograd.gradcheck(SoftPool2d(3, 2), (x_nchw[:1].double().requires_grad_(),))


@pytest.mark.parametrize("mean", [False, True])
def test_the_bins_of_a_pyramid_are_the_papers(mean: bool) -> None:
    """Appendix A of He et al. (2014): bin i of n reaches from row ⌊(i − 1)/n·H⌋ to ⌈i/n·H⌉, i counted from 1."""
    levels = (4, 3, 1)
    for H, W in ((13, 10), (4, 7), (2, 3)):
        x_chw = np.random.default_rng(H).normal(size=(2, H, W))
        expected = []
        for n in levels:
            for c in range(2):
                for i in range(n):
                    for j in range(n):
                        rows, columns = (slice(k * size // n, -(-(k + 1) * size // n)) for k, size in ((i, H), (j, W)))
                        cell = x_chw[c, rows, columns]
                        expected.append(cell.mean() if mean else cell.max())
        row = SpatialPyramidPool2d(levels, mean=mean)(torch.from_numpy(x_chw)[None])
        assert row.shape == (1, 2 * (16 + 9 + 1))
        np.testing.assert_allclose(row[0].numpy(), expected, rtol=0, atol=1e-12)
    assert "levels=(4, 3, 1)" in repr(SpatialPyramidPool2d(levels))


def test_a_scale_multiplies_every_number_and_says_by_what() -> None:
    x = torch.arange(6.0).reshape(2, 3)
    assert torch.equal(Scale(0.5)(x), torch.tensor([[0.0, 0.5, 1.0], [1.5, 2.0, 2.5]]))
    assert str(Scale(1 / 9)) == "Scale(0.1111)"
