"""`same` convolution against plain loops over Keras's rule, in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pellucid.nets.layers import SameConv2d, convolution


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
