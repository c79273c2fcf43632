"""The layers the notation knows, each one frozen dataclass: its options, the map after it, and what it is made of.

To add a layer, write its class here and enter it in `LAYERS`; the notation, the sizes, the names and the building
follow. Nothing here imports torch: a layer names the modules it is made of (`Part`); `pellucid.nets.build` makes them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from pellucid.nets.grammar import NO_SOFTMAX
from pellucid.nets.layer import (
    ACTIVATION,
    ACTIVATIONS,
    MOST_GROUPS,
    Layer,
    Part,
    activation_parts,
    divisor,
    map_of,
    norm_parts,
)
from pellucid.nets.options import COUNT, FLAG, WINDOW, Value, Values, option
from pellucid.nets.sizes import Shape, ShapeError
from pellucid.nets.specs_conv import Conv, DepthwiseConv, SeparableConv, TransposedConv
from pellucid.nets.specs_pool import Pool, PyramidPool, SoftPool


@dataclass(frozen=True, slots=True)
class FullyConnected(Layer):
    """Every number to every unit; the map is flattened before the first one."""

    WORD: ClassVar[str] = "FC"
    STEM: ClassVar[str] = "fc"

    units: int | str = option(Values(words=("classes",), whole=COUNT.whole), placed=True)
    activation: str = option(ACTIVATION, "")
    """ReLU unless written, and none after the last FC, whose numbers are the logits."""
    bias: bool = option(FLAG, True)

    def after(self, shape: Shape) -> Shape:
        """(units,)."""
        assert len(shape) == 1
        assert isinstance(self.units, int)
        return (self.units,)

    def parts(self, shape: Shape) -> tuple[Part, ...]:
        """`fc1`, `fc1_relu`."""
        settings = {"in_features": shape[0], "out_features": self.units, "bias": self.bias}
        assert isinstance(self.units, int)
        count = self.units * (shape[0] + self.bias)
        return (Part("", "Linear", settings, count, gain=self.activation), *activation_parts(self.activation))


@dataclass(frozen=True, slots=True)
class Dropout(Layer):
    """In training, each number becomes 0 with this probability, and the others grow by 1/(1 − p)."""

    WORD: ClassVar[str] = "DROPOUT"
    STEM: ClassVar[str] = "dropout"

    p: float = option(Values(share=True), 0.5, placed=True)

    @property
    def text(self) -> str:
        """Always with its probability, which no reader should have to look up."""
        return f"DROPOUT({self.p:g})"

    def parts(self, shape: Shape) -> tuple[Part, ...]:
        """`dropout1`."""
        return (Part("", "Dropout", {"p": self.p}),)


@dataclass(frozen=True, slots=True)
class BatchNorm(Layer):
    """Each channel to mean 0 and variance 1 over the batch, then scaled and shifted by two learnt numbers."""

    WORD: ClassVar[str] = "BATCHNORM"
    STEM: ClassVar[str] = "batchnorm"

    def parts(self, shape: Shape) -> tuple[Part, ...]:
        """`batchnorm1`."""
        return (
            Part("", "BatchNorm2d" if len(shape) == 3 else "BatchNorm1d", {"num_features": shape[0]}, 2 * shape[0]),
        )


@dataclass(frozen=True, slots=True)
class LayerNorm(Layer):
    """Each image's numbers to mean 0 and variance 1, then scaled and shifted by learnt numbers, two a channel.

    Ba et al., "Layer normalization", 2016. Behind a flattening, two a number.
    """

    WORD: ClassVar[str] = "LAYERNORM"
    STEM: ClassVar[str] = "layernorm"

    def parts(self, shape: Shape) -> tuple[Part, ...]:
        """`layernorm1`: of a map, a group normalisation with one group, which takes maps of any size."""
        if len(shape) == 3:
            return norm_parts("layer", shape[0], "")
        return (Part("", "LayerNorm", {"normalized_shape": shape[0]}, 2 * shape[0]),)


@dataclass(frozen=True, slots=True)
class GroupNorm(Layer):
    """As layer normalisation, over each group of channels (Wu and He, "Group normalization", 2018)."""

    WORD: ClassVar[str] = "GROUPNORM"
    STEM: ClassVar[str] = "groupnorm"

    groups: int | str = option(Values(words=("auto",), whole=COUNT.whole), "auto", placed=True)
    """As many as divide the channels, 32 at most, unless given."""

    def after(self, shape: Shape) -> Shape:
        """As before it; the groups must share the channels out evenly."""
        if isinstance(self.groups, int) and shape[0] % self.groups:
            fitting = divisor(shape[0], self.groups)
            raise ShapeError(
                f"{self.groups} groups do not divide the {shape[0]} channels that reach it; write GROUPNORM({fitting})"
            )
        return shape

    def parts(self, shape: Shape) -> tuple[Part, ...]:
        """`groupnorm1`."""
        groups = self.groups if isinstance(self.groups, int) else divisor(shape[0], MOST_GROUPS)
        return (Part("", "GroupNorm", {"num_groups": groups, "num_channels": shape[0]}, 2 * shape[0]),)


@dataclass(frozen=True, slots=True)
class ResponseNorm(Layer):
    """Each number divided by a power of the squares beside it across the channels, (k + α/n·Σx²)^β.

    Local response normalisation: Krizhevsky et al., "ImageNet classification with deep convolutional neural networks",
    2012, there with k=2.
    """

    WORD: ClassVar[str] = "LRN"
    STEM: ClassVar[str] = "lrn"

    size: int = option(WINDOW, 5, placed=True)
    alpha: float = option(Values(positive=True), 1e-4)
    beta: float = option(Values(positive=True), 0.75)
    k: float = option(Values(positive=True), 1.0)

    def after(self, shape: Shape) -> Shape:
        """As before it."""
        return map_of(self, shape)

    def parts(self, shape: Shape) -> tuple[Part, ...]:
        """`lrn1`."""
        settings = {"size": self.size, "alpha": self.alpha, "beta": self.beta, "k": self.k}
        return (Part("", "LocalResponseNorm", settings),)


@dataclass(frozen=True, slots=True)
class Flatten(Layer):
    """A map (C, H, W) as one row of C·H·W numbers."""

    WORD: ClassVar[str] = "FLATTEN"
    STEM: ClassVar[str] = "flatten"

    def after(self, shape: Shape) -> Shape:
        """(C·H·W,)."""
        return (math.prod(map_of(self, shape)),)

    def parts(self, shape: Shape) -> tuple[Part, ...]:
        """`flatten`."""
        return (Part("", "Flatten", {}),)


#: Each word of the notation: the layer it stands for, and the options it settles.
LAYERS: dict[str, tuple[type[Layer], dict[str, Value]]] = {
    "conv": (Conv, {}),
    "dwconv": (DepthwiseConv, {}),
    "sepconv": (SeparableConv, {}),
    "tconv": (TransposedConv, {}),
    "pool": (Pool, {}),
    "globalpool": (Pool, {"size": "global"}),
    "softpool": (SoftPool, {}),
    "spp": (PyramidPool, {}),
    "fc": (FullyConnected, {}),
    "dropout": (Dropout, {}),
    "batchnorm": (BatchNorm, {}),
    "layernorm": (LayerNorm, {}),
    "groupnorm": (GroupNorm, {}),
    "lrn": (ResponseNorm, {}),
    "flatten": (Flatten, {}),
}

#: Words people bring from elsewhere, and how the notation says them.
ELSEWHERE = {
    **{name: f"an activation is an option of the layer before it: CONV(32, activation={name})" for name in ACTIVATIONS},
    "softmax": NO_SOFTMAX,
    "conv2d": "write CONV(32, kernel=3)",
    "convtranspose2d": "write TCONV(32, kernel=2, stride=2)",
    "deconv": "write TCONV(32, kernel=2, stride=2)",
    "depthwiseconv2d": "write DWCONV(kernel=3)",
    "separableconv2d": "write SEPCONV(32)",
    "batchnorm2d": "write BATCHNORM",
    "dense": "write FC(512)",
    "linear": "write FC(512)",
    "maxpool": "write POOL or POOL(2, max)",
    "maxpooling2d": "write POOL or POOL(2, max)",
    "avgpool": "write POOL(avg) or POOL(2, avg)",
    "output": "the last FC is the output: write FC(classes)",
}
