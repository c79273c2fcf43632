"""Residual networks: each block adds to its map what a few convolutions make of it.

He et al., "Deep residual learning for image recognition", 2015: `resnet18` to `resnet101` for photographs (table 1),
`resnet20` to `resnet56` for CIFAR's small images (section 4.2). Parameters are named, and first weights drawn, as in
torchvision; with the stem and the shortcuts of ResNet-D they are named as in timm.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from pellucid.nets.family import Family, Modules
from pellucid.nets.options import FLAG, option
from pellucid.nets.sizes import Shape


class BasicBlock(nn.Module):
    """Two 3×3 convolutions beside the shortcut."""

    #: How many times its width a block's output has channels.
    EXPANSION: ClassVar[int] = 1

    def __init__(self, channels: int, width: int, stride: int, shortcut: nn.Module | None) -> None:
        super().__init__()
        self.conv1 = conv3(channels, width, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU()
        self.conv2 = conv3(width, width)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = shortcut
        self.relu2 = nn.ReLU()

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        """The normalisation just before the sum."""
        return self.bn2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to (N, width, ⌈H/stride⌉, ⌈W/stride⌉)."""
        y = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        return cast("torch.Tensor", self.relu2(y + (x if self.downsample is None else self.downsample(x))))


class Bottleneck(nn.Module):
    """1×1 to a quarter of the channels, 3×3 (which has the stride), 1×1 back, beside the shortcut."""

    EXPANSION: ClassVar[int] = 4

    def __init__(self, channels: int, width: int, stride: int, shortcut: nn.Module | None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU()
        self.conv2 = conv3(width, width, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu2 = nn.ReLU()
        self.conv3 = nn.Conv2d(width, self.EXPANSION * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(self.EXPANSION * width)
        self.downsample = shortcut
        self.relu3 = nn.ReLU()

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        """The normalisation just before the sum."""
        return self.bn3

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to (N, 4·width, ⌈H/stride⌉, ⌈W/stride⌉)."""
        y = self.relu2(self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x))))))
        y = self.bn3(self.conv3(y))
        return cast("torch.Tensor", self.relu3(y + (x if self.downsample is None else self.downsample(x))))


class PaddedShortcut(nn.Module):
    """Option A of the paper: every second row and column, and channels of zeros for those that are missing."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.missing, self.stride = width - channels, stride

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to (N, width, ⌈H/stride⌉, ⌈W/stride⌉)."""
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.missing))

    def extra_repr(self) -> str:
        """How much is left out and added."""
        return f"stride={self.stride}, zero_channels={self.missing}"


Block = type[BasicBlock] | type[Bottleneck]
Shortcut = Callable[[int, int, int], nn.Module]

#: The block and how many of it each stage has: table 1 of the paper.
STAGES: dict[int, tuple[Block, tuple[int, ...]]] = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
}


@dataclass(frozen=True, slots=True)
class ResNet(Family):
    """For photographs: a stem that brings the image to a quarter of its side, then four stages."""

    depth: int
    d: bool = option(FLAG, False)
    """ResNet-D: three 3×3 convolutions for the 7×7 one, and shortcuts that average before they convolve (He T. et al.,
    "Bag of tricks for image classification with convolutional neural networks", 2018)."""
    zero_gamma: bool = option(FLAG, False)
    """Each block begins as its shortcut alone: the scale of its last normalisation is 0 at first (same paper)."""

    def modules(self, classes: int, image: Shape) -> Modules:
        """`conv1`, `bn1`, `relu`, `maxpool`, `layer1` ... `layer4`, `avgpool`, `flatten`, `fc`."""
        block, times = STAGES[self.depth]
        modules = Modules(conv1=_deep_stem(image[0]) if self.d else nn.Conv2d(image[0], 64, 7, 2, 3, bias=False))
        modules.update(bn1=nn.BatchNorm2d(64), relu=nn.ReLU(), maxpool=nn.MaxPool2d(3, stride=2, padding=1))
        channels = 64
        for stage, blocks in enumerate(times):
            width, stride = 64 * 2**stage, 1 if stage == 0 else 2
            shortcut = _averaged if self.d else _projected
            modules[f"layer{stage + 1}"] = _stage(block, channels, width, blocks, stride, shortcut)
            channels = width * block.EXPANSION
        modules.update(avgpool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), fc=nn.Linear(channels, classes))
        _draw(modules, zero_gamma=self.zero_gamma)
        return modules


@dataclass(frozen=True, slots=True)
class CifarResNet(Family):
    """For small images: one 3×3 convolution, then three stages of 16, 32 and 64 channels; 6n + 2 layers."""

    depth: int
    zero_gamma: bool = option(FLAG, False)
    """Each block begins as its shortcut alone: the scale of its last normalisation is 0 at first."""

    def modules(self, classes: int, image: Shape) -> Modules:
        """`conv1`, `bn1`, `relu`, `layer1` ... `layer3`, `avgpool`, `flatten`, `fc`."""
        modules = Modules(conv1=conv3(image[0], 16), bn1=nn.BatchNorm2d(16), relu=nn.ReLU())
        channels = 16
        for stage, width in enumerate((16, 32, 64)):
            stride = 1 if stage == 0 else 2
            blocks = (self.depth - 2) // 6
            modules[f"layer{stage + 1}"] = _stage(BasicBlock, channels, width, blocks, stride, PaddedShortcut)
            channels = width
        modules.update(avgpool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), fc=nn.Linear(channels, classes))
        _draw(modules, zero_gamma=self.zero_gamma)
        return modules


def conv3(channels: int, width: int, stride: int = 1) -> nn.Conv2d:
    """A 3×3 convolution, without bias: the normalisation that follows takes the mean away."""
    return nn.Conv2d(channels, width, 3, stride=stride, padding=1, bias=False)


def _stage(block: Block, channels: int, width: int, blocks: int, stride: int, shortcut: Shortcut) -> nn.Sequential:
    """Blocks in a row; the first has the stride, and a shortcut where the shape changes."""
    wide = width * block.EXPANSION
    changes = stride > 1 or channels != wide
    first = block(channels, width, stride, shortcut(channels, wide, stride) if changes else None)
    return nn.Sequential(first, *(block(wide, width, 1, None) for _ in range(blocks - 1)))


def _projected(channels: int, width: int, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, width, 1, stride=stride, bias=False), nn.BatchNorm2d(width))


def _averaged(channels: int, width: int, stride: int) -> nn.Sequential:
    # Rounding up, as the strided convolution beside it does on maps of odd size.
    pool = nn.Identity() if stride == 1 else nn.AvgPool2d(2, stride, ceil_mode=True, count_include_pad=False)
    return nn.Sequential(pool, nn.Conv2d(channels, width, 1, bias=False), nn.BatchNorm2d(width))


def _deep_stem(channels: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for stride in (2, 1):
        layers += [conv3(channels, 32, stride), nn.BatchNorm2d(32), nn.ReLU()]
        channels = 32
    return nn.Sequential(*layers, conv3(32, 64))


def _draw(modules: Modules, *, zero_gamma: bool) -> None:
    for module in nn.Sequential(OrderedDict(modules)).modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if zero_gamma and isinstance(module, (BasicBlock, Bottleneck)):
            nn.init.zeros_(module.last_norm.weight)
