"""What every layer of the notation has: its options, the shape after it, and the torch modules it is made of.

Nothing here imports torch: a layer names the modules it is made of (`Part`); `pellucid.nets.build` makes them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from pellucid.nets.options import Values, written
from pellucid.nets.sizes import Shape, ShapeError

#: The torch module of each activation. What stands after a layer carries its name: `conv1_relu`.
ACTIVATIONS = {
    "relu": "ReLU",
    "tanh": "Tanh",
    "sigmoid": "Sigmoid",
    "leaky-relu": "LeakyReLU",
    "elu": "ELU",
    "gelu": "GELU",
    "silu": "SiLU",
}


ACTIVATION = Values(words=(*ACTIVATIONS, "none"))

#: The kinds of normalisation that an option `norm` may name.
NORM = Values(words=("none", "batch", "layer", "group"))

#: The most groups of a group normalisation whose groups nobody chose (Wu and He, "Group normalization", 2018).
MOST_GROUPS = 32


class TooSmallError(ShapeError):
    """The map that reaches a layer is smaller than its window; an optional item is left out where this is raised."""


@dataclass(frozen=True, slots=True)
class Part:
    """One torch module: what stands after the layer's name, the class, what it is called with, and its parameters."""

    suffix: str
    make: str
    settings: dict[str, Any]
    parameters: int = 0
    gain: str = ""
    """What follows, for the size of the first weights: an activation, or `linear` for another convolution."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer with all its options."""

    WORD: ClassVar[str] = ""
    STEM: ClassVar[str] = ""
    WINDOWED: ClassVar[bool] = False
    """Whether a map can be too small for it: only such a layer may be optional."""

    def problem(self) -> str:
        """What is wrong with these options taken together; empty where nothing is."""
        return ""

    def after(self, shape: Shape) -> Shape:
        """The shape after this layer. Raises ShapeError where `shape` does not fit."""
        return shape

    def parts(self, shape: Shape) -> tuple[Part, ...]:
        """The modules it is made of, for an input of `shape`."""
        raise NotImplementedError

    @property
    def text(self) -> str:
        """The layer in the notation, options that are at their default left out."""
        return written(self, self.WORD)


def map_of(layer: Layer, shape: Shape) -> tuple[int, int, int]:
    """`shape` as (C, H, W). Raises ShapeError where it is flat."""
    if len(shape) != 3:
        raise ShapeError(
            f"{layer.text} works on a map, but what reaches it is already flattened to {shape[0]} numbers; "
            f"write {layer.WORD} before FLATTEN and the first FC"
        )
    return shape


def activation_parts(name: str) -> tuple[Part, ...]:
    """The activation behind a layer, if any: `conv1_relu`."""
    return () if name == "none" else (Part("_" + name.replace("-", "_"), ACTIVATIONS[name], {}),)


def norm_parts(kind: str, channels: int, suffix: str = "_norm") -> tuple[Part, ...]:
    """The normalisation of a map, if any: `conv1_norm`.

    `layer` takes the mean and the variance of all numbers of an image (Ba et al., "Layer normalization", 2016), here
    with one scale and one shift a channel, so that it does not fix the size of the map; `group` takes them over each
    of at most 32 groups of channels.
    """
    if kind == "none":
        return ()
    if kind == "batch":
        return (Part(suffix, "BatchNorm2d", {"num_features": channels}, 2 * channels),)
    groups = 1 if kind == "layer" else divisor(channels, MOST_GROUPS)
    return (Part(suffix, "GroupNorm", {"num_groups": groups, "num_channels": channels}, 2 * channels),)


def divisor(number: int, most: int) -> int:
    """The largest divisor of `number` that is at most `most`."""
    return next(n for n in range(min(most, number), 0, -1) if number % n == 0)
