"""Networks that have a name and take options in parentheses: `resnet50(d=true)`, `mlp(512, 256)`."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from pellucid.nets.network import Network
from pellucid.nets.options import written
from pellucid.nets.sizes import Shape, ShapeError, by

Modules = OrderedDict[str, nn.Module]


@dataclass(frozen=True, slots=True)
class Family:
    """A network's options. The fields made with `option` are what may stand in the parentheses."""

    #: The smallest side of an image; what is smaller loses its last row on the way.
    SMALLEST: ClassVar[int] = 1

    def notation(self) -> str:
        """The network in the notation; empty for one that it cannot write."""
        return ""

    def modules(self, classes: int, image: Shape) -> Modules:
        """The modules in a row, for images (C, H, W)."""
        raise NotImplementedError

    def network(self, name: str, classes: int, image: Shape) -> Network:
        """The network with first weights. Raises ShapeError where the images are too small for it."""
        if min(image[1:]) < self.SMALLEST:
            raise ShapeError(
                f"{name} takes images from {self.SMALLEST}×{self.SMALLEST}, not {by(image[1:])}, which its strides "
                f"and pools leave nothing of: make them larger, say --size {self.SMALLEST}"
            )
        return Network(self.modules(classes, image), written(self, name), image, classes)
