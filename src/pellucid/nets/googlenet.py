"""GoogLeNet: four branches beside each other, with kernels of several sizes, and two auxiliary heads on the way.

Szegedy et al., "Going deeper with convolutions", 2014 (table 1). `googlenet` is torchvision's, with its parameter
names: batch normalisation, and 3×3 where the paper has 5×5. `googlenet-paper` is the paper's: real 5×5 branches,
biases, local response normalisation, no batch normalisation. In both, the auxiliary heads average their map to 4×4 and
the main one to 1×1, whatever the size of the image.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import nn

from pellucid.errors import UsageError
from pellucid.nets.family import Family, Modules
from pellucid.nets.network import Network
from pellucid.nets.options import FLAG, option
from pellucid.nets.sizes import Shape, by

#: Table 1 of the paper: filters of 1×1; of 1×1 before 3×3, of 3×3; of 1×1 before 5×5, of 5×5; of 1×1 after the pool.
TABLE = {
    "inception3a": (64, 96, 128, 16, 32, 32),
    "inception3b": (128, 128, 192, 32, 96, 64),
    "inception4a": (192, 96, 208, 16, 48, 64),
    "inception4b": (160, 112, 224, 24, 64, 64),
    "inception4c": (128, 128, 256, 24, 64, 64),
    "inception4d": (112, 144, 288, 32, 64, 64),
    "inception4e": (256, 160, 320, 32, 128, 128),
    "inception5a": (256, 160, 320, 32, 128, 128),
    "inception5b": (384, 192, 384, 48, 128, 128),
}
#: Each auxiliary head, and the module whose map it sees.
AUXILIARY = {"aux1": "inception4a", "aux2": "inception4d"}
#: Mean and standard deviation of ImageNet's channels, by which its images are usually normalised.
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class GoogLeNet(Network):
    """Modules in a row, but for the auxiliary heads, which only `forward_with_auxiliary` asks."""

    auxiliary_loss_weight = 0.3

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002
        """(N, C, H, W) to logits (N, classes)."""
        return self.forward_with_auxiliary(input, ask=False)[0]

    def forward_with_auxiliary(self, x: torch.Tensor, *, ask: bool = True) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """The logits, and those of the two auxiliary heads; of none where the network was built with `aux=false`."""
        modules = dict(self.named_children())
        heads = {below: modules[head] for head, below in AUXILIARY.items() if head in modules and ask}
        logits = []
        for name, module in modules.items():
            if name not in AUXILIARY:
                x = module(x)
                if name in heads:
                    logits.append(heads[name](x))
        return x, logits


class ConvNormRelu(nn.Module):
    """Convolution without bias, batch normalisation, ReLU."""

    def __init__(self, channels: int, filters: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, filters, kernel, stride=stride, padding=kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(filters, eps=0.001)
        self.relu = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to (N, filters, ⌈H/stride⌉, ⌈W/stride⌉)."""
        return cast("torch.Tensor", self.relu(self.bn(self.conv(x))))


class ConvRelu(nn.Module):
    """Convolution with bias, then ReLU: the paper's."""

    def __init__(self, channels: int, filters: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, filters, kernel, stride=stride, padding=kernel // 2)
        self.relu = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to (N, filters, ⌈H/stride⌉, ⌈W/stride⌉)."""
        return cast("torch.Tensor", self.relu(self.conv(x)))


Conv = type[ConvNormRelu] | type[ConvRelu]


class Inception(nn.Module):
    """Four branches on one map, their filters behind one another."""

    def __init__(self, conv: Conv, channels: int, filters: tuple[int, ...], large: int) -> None:
        super().__init__()
        one, before_three, three, before_five, five, pooled = filters
        self.branch1 = conv(channels, one, 1)
        self.branch2 = nn.Sequential(conv(channels, before_three, 1), conv(before_three, three, 3))
        self.branch3 = nn.Sequential(conv(channels, before_five, 1), conv(before_five, five, large))
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), conv(channels, pooled, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to (N, the filters of all branches, H, W)."""
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)


class Auxiliary(nn.Module):
    """A classifier on a map half-way up, whose loss brings a gradient to the lower layers."""

    def __init__(self, conv: Conv, channels: int, classes: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(4)
        self.conv = conv(channels, 128, 1)
        self.flatten = nn.Flatten()
        self.fc1 = nn.Linear(128 * 16, 1024)
        self.relu = nn.ReLU()
        self.dropout = nn.Dropout(0.7)
        self.fc2 = nn.Linear(1024, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to logits (N, classes)."""
        x = self.relu(self.fc1(self.flatten(self.conv(self.pool(x)))))
        return cast("torch.Tensor", self.fc2(self.dropout(x)))


class TransformInput(nn.Module):
    """Images normalised by ImageNet's mean and deviation, as if by 0.5 and 0.5, with which the published weights came.

    (x·σ + μ − 0.5)/0.5 a channel, since x = (image − μ)/σ.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) to the same."""
        scale = x.new_tensor([deviation / 0.5 for deviation in DEVIATION])
        shift = x.new_tensor([(mean - 0.5) / 0.5 for mean in MEAN])
        return x * scale[:, None, None] + shift[:, None, None]


@dataclass(frozen=True, slots=True)
class TorchvisionGoogLeNet(Family):
    """`googlenet`."""

    SMALLEST: ClassVar[int] = 15
    CONV: ClassVar[Conv] = ConvNormRelu
    #: Kernel of the third branch.
    LARGE: ClassVar[int] = 3
    #: Window of the last pool before the fifth stage.
    LAST_POOL: ClassVar[int] = 2
    DROPOUT: ClassVar[float] = 0.2

    aux: bool = option(FLAG, True)
    """Whether the auxiliary heads are built."""
    transform_input: bool = option(FLAG, False)
    """Whether images normalised as usual are brought to what the published weights were trained on."""

    def network(self, name: str, classes: int, image: Shape) -> Network:
        """The network; UsageError where `transform-input` meets images that are not of three channels."""
        if self.transform_input and image[0] != 3:
            raise UsageError(
                f"{name}(transform-input=true) is for the three channels of ImageNet's images, not {by(image)}: "
                "leave it away"
            )
        plain = super(TorchvisionGoogLeNet, self).network(name, classes, image)
        return GoogLeNet(OrderedDict(plain.named_children()), plain.text, image, classes)

    def modules(self, classes: int, image: Shape) -> Modules:
        """`conv1` ... `inception5b`, `avgpool`, `flatten`, `dropout`, `fc`; `aux1` and `aux2`."""
        conv = self.CONV
        modules = Modules(transform_input=TransformInput()) if self.transform_input else Modules()
        modules.update(conv1=conv(image[0], 64, 7, stride=2), maxpool1=nn.MaxPool2d(3, stride=2, ceil_mode=True))
        modules.update(self.response_norm("lrn1"))
        modules.update(conv2=conv(64, 64, 1), conv3=conv(64, 192, 3), **self.response_norm("lrn2"))
        modules.update(maxpool2=nn.MaxPool2d(3, stride=2, ceil_mode=True))
        channels, seen = 192, {}
        for name, filters in TABLE.items():
            modules[name] = Inception(conv, channels, filters, self.LARGE)
            channels = filters[0] + filters[2] + filters[4] + filters[5]
            seen[name] = channels
            if name == "inception3b":
                modules["maxpool3"] = nn.MaxPool2d(3, stride=2, ceil_mode=True)
            elif name == "inception4e":
                modules["maxpool4"] = nn.MaxPool2d(self.LAST_POOL, stride=2, ceil_mode=True)
        if self.aux:
            modules.update({head: Auxiliary(conv, seen[below], classes) for head, below in AUXILIARY.items()})
        modules.update(avgpool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), dropout=nn.Dropout(self.DROPOUT))
        modules["fc"] = nn.Linear(channels, classes)
        self.draw(modules)
        return modules

    def response_norm(self, name: str) -> dict[str, nn.Module]:
        """What the paper has beside its pools; here nothing."""
        return {}

    def draw(self, modules: Modules) -> None:
        """First weights as torchvision draws them: normal, deviation 0.01, cut off at 2."""
        for module in nn.ModuleDict(modules).modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.trunc_normal_(module.weight, std=0.01, a=-2, b=2)


@dataclass(frozen=True, slots=True)
class PaperGoogLeNet(TorchvisionGoogLeNet):
    """`googlenet-paper`."""

    SMALLEST: ClassVar[int] = 31
    CONV: ClassVar[Conv] = ConvRelu
    LARGE: ClassVar[int] = 5
    LAST_POOL: ClassVar[int] = 3
    DROPOUT: ClassVar[float] = 0.4

    def response_norm(self, name: str) -> dict[str, nn.Module]:
        """After the first pool and before the second, over five channels (Krizhevsky et al., 2012)."""
        return {name: nn.LocalResponseNorm(5)}

    def draw(self, modules: Modules) -> None:
        """First weights of He et al. (2015), since no normalisation mends their size; biases zero.

        Those of the last layers stay small, for a first loss near ln(classes).
        """
        for name, module in nn.ModuleDict(modules).named_modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                if name.rpartition(".")[2] not in {"fc", "fc2"}:
                    nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
