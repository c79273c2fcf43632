"""The layers the notation knows, each one frozen dataclass: its options, the map after it, and what it is made of.

To add a layer, write its class here and enter it in `LAYERS`; the notation, the sizes, the names and the building
follow. Nothing here imports torch: a layer names the modules it is made of (`Part`); `pellucid.nets.build` makes them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from pellucid.nets.grammar import NO_SOFTMAX
from pellucid.nets.layer import ACTIVATION, ACTIVATIONS, Layer, Part, activation_parts, map_of
from pellucid.nets.options import COUNT, FLAG, Value, Values, option
from pellucid.nets.sizes import Shape
from pellucid.nets.specs_conv import Conv
from pellucid.nets.specs_pool import Pool


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
    "pool": (Pool, {}),
    "globalpool": (Pool, {"size": "global"}),
    "fc": (FullyConnected, {}),
    "dropout": (Dropout, {}),
    "batchnorm": (BatchNorm, {}),
    "flatten": (Flatten, {}),
}

#: Words people bring from elsewhere, and how the notation says them.
ELSEWHERE = {
    **{name: f"an activation is an option of the layer before it: CONV(32, activation={name})" for name in ACTIVATIONS},
    "softmax": NO_SOFTMAX,
    "conv2d": "write CONV(32, kernel=3)",
    "dense": "write FC(512)",
    "linear": "write FC(512)",
    "maxpool": "write POOL or POOL(2, max)",
    "maxpooling2d": "write POOL or POOL(2, max)",
    "avgpool": "write POOL(avg) or POOL(2, avg)",
    "output": "the last FC is the output: write FC(classes)",
}
