"""The default network: small, residual, for images of any size from 8×8.

A stem brings the image down to a map of at most 48 on its shorter side; each block then doubles the width and halves
the map, and adds to its map what one more convolution makes of it (He et al., "Deep residual learning for image
recognition", 2015). The pool stands before the normalisation, which then has a quarter of the numbers to normalise. The
mean over the map makes the head independent of its size, so a network built for one size runs on larger ones, and on
smaller ones as long as its pools have two rows left to halve.

No ReLU works in place: it was not measurably faster, and would overwrite what a hook on the normalisation reads.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import cast

import torch
from torch import nn

from pellucid.nets.sizes import ShapeError, by

#: Channels after the stem, and after each block.
STEM_WIDTH = 16
WIDTHS = (32, 64, 128)
#: The stem strides until the shorter side of its map is at most this.
LARGEST_MAP = 48
#: A map above this after the stem gets one more block of the last width.
EXTRA_BLOCK_ABOVE = 40
#: Blocks pool while the shorter side of the map is above this.
POOL_ABOVE = 3
SMALLEST_IMAGE = 8


class Block(nn.Module):
    """Convolution, pool, normalisation, ReLU; then the map plus its residual branch."""

    def __init__(self, channels: int, width: int, *, pool: bool) -> None:
        super().__init__()
        self.conv = _conv3(channels, width)
        self.pool = nn.MaxPool2d(2) if pool else nn.Identity()
        self.norm = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.residual = _named(conv=_conv3(width, width), norm=nn.BatchNorm2d(width), relu=nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to (N, width, ⌊H/2⌋, ⌊W/2⌋), or H×W where it does not pool."""
        x = self.relu(self.norm(self.pool(self.conv(x))))
        return cast("torch.Tensor", x + self.residual(x))


def quick(classes: int, image: tuple[int, int, int]) -> OrderedDict[str, nn.Module]:
    """The default network for images (C, H, W), in a row: stem, block1 ... block3 or 4, pool, flatten, head.

    Raises ShapeError for images smaller than 8×8.
    """
    C, H, W = image
    if min(H, W) < SMALLEST_IMAGE:
        raise ShapeError(
            f"quick takes images from {SMALLEST_IMAGE}×{SMALLEST_IMAGE}, not {by((H, W))}: "
            f"make them larger, say --size {2 * SMALLEST_IMAGE}"
        )
    stride = stem_stride(min(H, W))
    # Each doubling of the stride adds one ring to the kernel, so that neighbouring windows still overlap.
    kernel = 3 + 2 * int(math.log2(stride))
    conv = nn.Conv2d(C, STEM_WIDTH, kernel, stride=stride, padding=kernel // 2, bias=False)
    modules: OrderedDict[str, nn.Module] = OrderedDict()
    modules["stem"] = _named(conv=conv, norm=nn.BatchNorm2d(STEM_WIDTH), relu=nn.ReLU())
    side = math.ceil(min(H, W) / stride)
    channels = STEM_WIDTH
    for number, width in enumerate((*WIDTHS, WIDTHS[-1]) if side > EXTRA_BLOCK_ABOVE else WIDTHS, 1):
        pool = side > POOL_ABOVE
        modules[f"block{number}"] = Block(channels, width, pool=pool)
        channels, side = width, side // 2 if pool else side
    modules.update(pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), head=nn.Linear(channels, classes))
    for part in modules.values():
        for module in part.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
    return modules


def stem_stride(side: int) -> int:
    """The smallest power of two that brings an image's shorter side down to `LARGEST_MAP`."""
    stride = 1
    while math.ceil(side / stride) > LARGEST_MAP:
        stride *= 2
    return stride


def _conv3(channels: int, width: int) -> nn.Conv2d:
    # Without bias: the normalisation that follows takes the mean away.
    return nn.Conv2d(channels, width, 3, padding=1, bias=False)


def _named(**modules: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(modules))
