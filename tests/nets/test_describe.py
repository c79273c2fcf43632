"""Modules in words."""

from __future__ import annotations

import pytest
from torch import nn

from pellucid.nets.describe import describe, size_formula, windows
from pellucid.nets.layers import SameConv2d
from pellucid.nets.watch import Call


@pytest.mark.parametrize(
    ("module", "said"),
    [
        (nn.Conv2d(1, 6, 5), "Conv2d(1, 6, kernel_size=(5, 5))"),
        (nn.Conv2d(1, 6, 3, stride=(2, 1), bias=False), "Conv2d(1, 6, kernel_size=(3, 3), stride=(2, 1), bias=False)"),
        (SameConv2d(1, 6, 3, stride=2), "SameConv2d(1, 6, kernel_size=(3, 3), stride=(2, 2), padding=same)"),
        (nn.BatchNorm2d(32), "BatchNorm2d(32)"),
        (nn.MaxPool2d(2), "MaxPool2d(kernel_size=2, stride=2)"),
        (nn.Linear(3, 2, bias=False), "Linear(in_features=3, out_features=2, bias=False)"),
        (nn.ReLU(), "ReLU()"),
        (nn.Dropout(0.25), "Dropout(p=0.25)"),
    ],
)
def test_describe(module: nn.Module, said: str) -> None:
    assert describe(module) == said


def test_windows() -> None:
    assert windows(nn.Conv2d(1, 1, (3, 5), stride=2, padding=(0, 1), dilation=(1, 2))) == [(3, 2, 0, 1), (5, 2, 1, 2)]
    assert windows(nn.Conv2d(1, 1, 3, padding="same")) == [(3, 1, "same", 1)] * 2
    assert windows(SameConv2d(1, 1, 3, stride=2)) == [(3, 2, "same", 1)] * 2
    assert windows(nn.AvgPool2d(2, padding=1)) == [(2, 2, 1, 1)] * 2


def test_size_formula() -> None:
    call = Call("pool", nn.MaxPool2d(2), (1, 3, 8, 6), (1, 3, 4, 3))
    assert size_formula(call) == "H: ⌊(8 − 2 + 2·0)/2⌋ + 1 = 4; W: ⌊(6 − 2 + 2·0)/2⌋ + 1 = 3"
    assert size_formula(Call("relu", nn.ReLU(), (1, 3, 8, 8), (1, 3, 8, 8))) == ""
    # A pool that rounds up gives one more than the formula says; then the formula is not shown.
    assert size_formula(Call("pool", nn.MaxPool2d(2, ceil_mode=True), (1, 3, 7, 7), (1, 3, 4, 4))) == ""
    assert size_formula(Call("pool", nn.MaxPool2d(2, ceil_mode=True), (1, 3, 8, 8), (1, 3, 4, 4))) != ""
