"""The default network: small and quick to train, for images of any size from 8×8.

Its first convolution is not learnt. It takes overlapping patches of the image apart into the directions in which the
training images' patches differ most, each scaled to variance 1 (patch whitening: Page, "How to train your ResNet 8",
2019), and gives every direction and its opposite to the ReLU behind it, which so loses nothing. Each block then halves
the map and adds to it what one more convolution makes of it (He et al., "Deep residual learning for image
recognition", 2015). The pool stands before the normalisation, which then has a quarter of the numbers to normalise.
Convolutions begin as the identity as far as their filters reach (Dirac), and the scales of the normalisations are held
at 1: the next convolution can scale as well, and what is left, the shifts, may then be learnt at a higher rate (Jordan,
"94% on CIFAR-10 in 3.29 seconds on a single GPU", 2024, whose network this one descends from).

The largest number of each map makes the head independent of its size, so a network built for one size runs on larger
ones, and on smaller ones as long as its pools have two rows left to halve.

No ReLU works in place: it was not measurably faster, and would overwrite what a hook on the normalisation reads.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import cast

import torch
from torch import nn

from pellucid.nets.family import Family, Modules
from pellucid.nets.layers import Scale
from pellucid.nets.network import Network
from pellucid.nets.options import COUNT, Values, option, written
from pellucid.nets.sizes import Shape, ShapeError, by
from pellucid.nets.whitening import whitening

#: Channels of the third block from the last, unless given; each further block has twice as many.
WIDTH = 64
#: Blocks, at least; more where it takes more to halve the map down to `LAST_MAP`. They have fewer channels.
BLOCKS = 3
LAST_MAP = 4
FEWEST_CHANNELS = 8
#: Directions of a patch that the stem looks into: half the network's width, but from 16 to 24. Each is two of its
#: filters, and what they give is most of what the first block has to work on.
FEWEST_DIRECTIONS, DIRECTIONS = 16, 24
#: The stem strides until the shorter side of its map is at most this, and takes patches of twice its stride. Larger
#: patches than 8×8 would have more numbers than can be told apart.
LARGEST_MAP = 24
LARGEST_STRIDE = 4
#: Blocks pool while the shorter side of the map is above this.
POOL_ABOVE = 3
#: What the features are multiplied by on their way to the head: its weights then move slowly against the features.
SCALE = 1 / 9
SMALLEST_IMAGE = 8


@dataclass(frozen=True, slots=True)
class Quick(Family):
    """The default network's options."""

    width: int = option(COUNT, WIDTH, placed=True)
    stride: int | str = option(Values(words=("auto",), whole=(1, 256)), "auto")
    """Of the stem; by the images' size unless given."""
    middle: int | str = option(Values(words=("auto",), whole=COUNT.whole), "auto")
    """Channels of the block before the last, which has four times the width: twice the width unless given."""

    def network(self, name: str, classes: int, image: Shape) -> Network:
        """See the module. Raises ShapeError for images smaller than 8×8, or too small for the stride."""
        return QuickNetwork(self.modules(classes, image), written(self, name), image, classes)

    def modules(self, classes: int, image: Shape) -> Modules:
        """stem, block1 ... block3 or more, pool, flatten, scale, head."""
        C, H, W = image
        if min(H, W) < SMALLEST_IMAGE:
            raise ShapeError(
                f"quick takes images from {SMALLEST_IMAGE}×{SMALLEST_IMAGE}, not {by((H, W))}: "
                f"make them larger, say --size {2 * SMALLEST_IMAGE}"
            )
        stride = stem_stride(min(H, W)) if isinstance(self.stride, str) else self.stride
        kernel = 2 * stride
        if min(H, W) < kernel:
            raise ShapeError(
                f"quick(stride={stride}) looks at patches of {kernel}×{kernel}, which images of {by((H, W))} are too "
                f"small for: write stride={stem_stride(min(H, W))} or leave it away"
            )
        channels = 2 * min(max(FEWEST_DIRECTIONS, min(DIRECTIONS, self.width // 2)), C * kernel**2)
        stem = nn.Conv2d(C, channels, kernel, stride=stride, bias=False).requires_grad_(False)
        _draw_patches(stem)
        modules = Modules(stem=_named(conv=stem, relu=nn.ReLU()))
        side = (min(H, W) - kernel) // stride + 1
        blocks = max(BLOCKS, math.ceil(math.log2((side + 1) / (LAST_MAP + 1))))
        widths = [max(FEWEST_CHANNELS, round(self.width * 2.0 ** (BLOCKS - left))) for left in range(blocks, 0, -1)]
        if not isinstance(self.middle, str):
            widths[-2] = self.middle
        for number, width in enumerate(widths, 1):
            pool = side > POOL_ABOVE
            modules[f"block{number}"] = Block(channels, width, pool=pool)
            channels, side = width, side // 2 if pool else side
        head = nn.Linear(channels, classes)
        nn.init.zeros_(head.bias)
        modules.update(pool=nn.AdaptiveMaxPool2d(1), flatten=nn.Flatten(), scale=Scale(SCALE), head=head)
        return modules


class QuickNetwork(Network):
    """`quick`, which looks at training images before its first step."""

    def look_at(self, x_nchw: torch.Tensor) -> None:
        """Set the stem's filters to whiten the patches of these images (N, C, H, W)."""
        conv = cast("nn.Conv2d", self.get_submodule("stem.conv"))
        directions_okl = whitening(x_nchw, conv.kernel_size[0], conv.out_channels // 2)
        with torch.no_grad():
            conv.weight.copy_(torch.cat([directions_okl, -directions_okl]))


class Block(nn.Module):
    """Convolution, pool, normalisation, ReLU; then the map plus its residual branch."""

    def __init__(self, channels: int, width: int, *, pool: bool) -> None:
        super().__init__()
        self.conv = _conv3(channels, width)
        self.pool = nn.MaxPool2d(2) if pool else nn.Identity()
        self.norm = _norm(width)
        self.relu = nn.ReLU()
        self.residual = _named(conv=_conv3(width, width), norm=_norm(width), relu=nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to (N, width, ⌊H/2⌋, ⌊W/2⌋), or H×W where it does not pool."""
        x = self.relu(self.norm(self.pool(self.conv(x))))
        return cast("torch.Tensor", x + self.residual(x))


def stem_stride(side: int) -> int:
    """The smallest power of two that brings an image's shorter side down to `LARGEST_MAP`; 4 where none below does."""
    stride = 1
    while stride < LARGEST_STRIDE and math.ceil(side / stride) > LARGEST_MAP:
        stride *= 2
    return stride


def _conv3(channels: int, width: int) -> nn.Conv2d:
    # Without bias: the normalisation that follows takes the mean away.
    conv = nn.Conv2d(channels, width, 3, padding=1, bias=False)
    nn.init.dirac_(conv.weight[: min(channels, width)].detach())
    return conv


def _norm(width: int) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(width)
    norm.weight.requires_grad_(False)
    return norm


def _draw_patches(conv: nn.Conv2d) -> None:
    """Random directions at right angles, and their opposites: what the filters are until they have seen images."""
    # In place throughout: a bundle's network is first built without memory, where torch imports its compiler to join
    # or negate tensors.
    with torch.no_grad():
        first, second = conv.weight.chunk(2)
        nn.init.orthogonal_(first)
        second.copy_(first).mul_(-1)


def _named(**modules: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(modules))
