"""VGG: 3×3 convolutions in five stages, each twice as wide as the one before and half as high and wide.

Simonyan and Zisserman, "Very deep convolutional networks for large-scale image recognition", 2014 (configurations A, B,
D and E); with batch normalisation as later became usual. Parameters are named, and first weights drawn, as in
torchvision, so that weights published for it load.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from pellucid.nets.family import Family, Modules
from pellucid.nets.options import Values, option
from pellucid.nets.sizes import Shape

WIDTHS = (64, 128, 256, 512, 512)
#: How many convolutions each stage has.
STAGES = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
#: The map that reaches the fully connected layers; one of another size is averaged, or repeated, to it.
LAST_MAP = 7
#: Units of each of the two hidden fully connected layers.
UNITS = 4096


@dataclass(frozen=True, slots=True)
class VGG(Family):
    """Convolutions in five stages, then three fully connected layers."""

    #: Five pools that halve.
    SMALLEST: ClassVar[int] = 32

    depth: int
    norm: bool
    dropout: float = option(Values(share=True), 0.5)

    def modules(self, classes: int, image: Shape) -> Modules:
        """`features`, `avgpool`, `flatten`, `classifier`."""
        features: list[nn.Module] = []
        channels = image[0]
        for width, times in zip(WIDTHS, STAGES[self.depth], strict=True):
            for _ in range(times):
                features.append(nn.Conv2d(channels, width, 3, padding=1))
                features += [nn.BatchNorm2d(width)] if self.norm else []
                features.append(nn.ReLU())
                channels = width
            features.append(nn.MaxPool2d(2))
        classifier: list[nn.Module] = []
        for inputs in (channels * LAST_MAP**2, UNITS):
            classifier += [nn.Linear(inputs, UNITS), nn.ReLU(), nn.Dropout(self.dropout)]
        classifier.append(nn.Linear(UNITS, classes))
        modules = Modules(
            features=nn.Sequential(*features),
            avgpool=nn.AdaptiveAvgPool2d(LAST_MAP),
            flatten=nn.Flatten(),
            classifier=nn.Sequential(*classifier),
        )
        for module in (*features, *classifier):
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, 0, 0.01)
            if isinstance(module, (nn.Conv2d, nn.Linear)) and module.bias is not None:
                nn.init.zeros_(module.bias)
        return modules
