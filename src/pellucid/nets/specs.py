"""The layers the notation knows, each one frozen dataclass: its options, the map after it, and what it is made of.

To add a layer, write its class here and enter it in `LAYERS`; the notation, the sizes, the names and the building
follow. Nothing here imports torch: a layer names the modules it is made of (`Part`); `pellucid.nets.build` makes them.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

from pellucid.nets.sizes import Padding, Shape, ShapeError, formula, size_after

Value = int | float | str | bool

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


class TooSmallError(ShapeError):
    """The map that reaches a layer is smaller than its window; an optional item is left out where this is raised."""


@dataclass(frozen=True, slots=True)
class Values:
    """What an option may be: words, whole numbers within a range, or any number within [0, 1)."""

    words: tuple[str, ...] = ()
    whole: tuple[int, int] | None = None
    share: bool = False

    def read(self, text: str) -> Value | None:
        """`text` as a value; None where it is not one."""
        word = text.lower()
        if word in self.words:
            return {"true": True, "false": False}.get(word, word)
        try:
            number = float(text)
        except ValueError:
            return None
        if self.whole is not None and number.is_integer() and self.whole[0] <= number <= self.whole[1]:
            return int(number)
        return number if self.share and 0 <= number < 1 else None

    def __str__(self) -> str:
        kinds = [f"a whole number from {self.whole[0]} to {self.whole[1]:,}"] if self.whole else []
        kinds += ["a number from 0 up to, but not including, 1"] if self.share else []
        return " or ".join([*kinds, *([" | ".join(self.words)] if self.words else [])])


COUNT = Values(whole=(1, 1_000_000))
WINDOW = Values(whole=(1, 10_000))
FLAG = Values(words=("true", "false"))
ACTIVATION = Values(words=(*ACTIVATIONS, "none"))


def option(values: Values, default: Any = dataclasses.MISSING, *, placed: bool = False) -> Any:
    """A field that the notation reads as one of `values`; `placed` ones need no `name=` in front."""
    return field(default=default, metadata={"values": values, "placed": placed})


@dataclass(frozen=True, slots=True)
class Part:
    """One torch module: what stands after the layer's name, the class, what it is called with, and its parameters."""

    suffix: str
    make: str
    settings: dict[str, Any]
    parameters: int = 0
    gain: str = ""
    """The activation that follows, for the size of the first weights."""


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
        words = []
        for item in dataclasses.fields(self):
            value = getattr(self, item.name)
            if value != item.default:
                shown = str(value).lower() if isinstance(value, bool) else str(value)
                words.append(shown if item.metadata["placed"] else f"{item.name}={shown}")
        return f"{self.WORD}({', '.join(words)})" if words else self.WORD


def _map(layer: Layer, shape: Shape) -> tuple[int, int, int]:
    if len(shape) != 3:
        raise ShapeError(
            f"{layer.text} works on a map, but what reaches it is already flattened to {shape[0]} numbers; "
            f"write {layer.WORD} before FLATTEN and the first FC"
        )
    return shape


@dataclass(frozen=True, slots=True)
class Conv(Layer):
    """Convolution, then normalisation where asked for, then the activation."""

    WORD: ClassVar[str] = "CONV"
    STEM: ClassVar[str] = "conv"
    WINDOWED: ClassVar[bool] = True

    filters: int = option(COUNT, placed=True)
    kernel: int = option(WINDOW, 3)
    stride: int = option(WINDOW, 1)
    padding: Padding = option(Values(words=("same", "valid"), whole=(0, 10_000)), "same")  # noqa: RUF009
    dilation: int = option(WINDOW, 1)
    groups: int = option(COUNT, 1)
    activation: str = option(ACTIVATION, "relu")
    norm: str = option(Values(words=("none", "batch")), "none")
    bias: bool = option(FLAG, True)

    def problem(self) -> str:
        """Groups share the filters out evenly."""
        if self.filters % self.groups:
            fitting = _divisor(self.filters, self.groups)
            return f"groups={self.groups} does not divide its {self.filters} filters; write groups={fitting}"
        return ""

    def after(self, shape: Shape) -> Shape:
        """(O, I, J), by the size formula."""
        C, H, W = _map(self, shape)
        if C % self.groups:
            fixed = dataclasses.replace(self, groups=_divisor(math.gcd(C, self.filters), self.groups))
            raise ShapeError(f"groups={self.groups} does not divide the {C} channels that reach it; write {fixed.text}")
        window = {"stride": self.stride, "padding": self.padding, "dilation": self.dilation}
        I, J = (size_after(n, self.kernel, **window) for n in (H, W))  # type: ignore[arg-type]  # noqa: E741
        if min(I, J) < 1:
            self._refuse(H, W)
        return self.filters, I, J

    def _refuse(self, H: int, W: int) -> None:
        small = min(H, W)
        worked = formula(small, self.kernel, stride=self.stride, padding=self.padding, dilation=self.dilation)
        # The largest kernel that fits: with a dilation it may be much smaller than the map.
        room = small + 2 * (self.padding if isinstance(self.padding, int) else 0)
        fixed = dataclasses.replace(self, kernel=(room - 1) // self.dilation + 1)
        dilated = f", spread over {(self.kernel - 1) * self.dilation + 1} places by dilation {self.dilation},"
        raise TooSmallError(
            f"a {self.kernel}×{self.kernel} kernel{dilated if self.dilation > 1 else ''} does not fit the {H}×{W} map "
            f"that reaches it: {worked}; write {fixed.text} or padding=same"
        )

    def parts(self, shape: Shape) -> tuple[Part, ...]:
        """`conv1`, `conv1_norm` where asked for, `conv1_relu` (or another activation)."""
        conv = Part(
            "",
            "convolution",
            {
                "in_channels": shape[0],
                "out_channels": self.filters,
                "kernel_size": self.kernel,
                "stride": self.stride,
                "padding": self.padding,
                "dilation": self.dilation,
                "groups": self.groups,
                "bias": self.bias,
            },
            parameters=self.filters * (shape[0] // self.groups * self.kernel**2 + self.bias),
            gain=self.activation,
        )
        norm = (_batch_norm("_norm", "BatchNorm2d", self.filters),) if self.norm == "batch" else ()
        return (conv, *norm, *_activation(self.activation))


@dataclass(frozen=True, slots=True)
class Pool(Layer):
    """The largest value, or the mean, under a window; `global` has a window as large as the map."""

    WORD: ClassVar[str] = "POOL"
    STEM: ClassVar[str] = "pool"
    WINDOWED: ClassVar[bool] = True

    size: int | str = option(Values(words=("global",), whole=WINDOW.whole), 2, placed=True)
    kind: str = option(Values(words=("max", "avg")), "", placed=True)
    stride: int = option(WINDOW, 0)
    padding: int = option(Values(whole=(0, 5_000)), 0)

    def problem(self) -> str:
        """A window lies at least half on the map, and a global one has neither stride nor padding."""
        if isinstance(self.size, str):
            return (
                "a global pool has neither stride nor padding; leave them away" if self.stride or self.padding else ""
            )
        if self.padding > self.size // 2:
            limit = self.size // 2
            return (
                f"padding={self.padding} is more than half of its window of {self.size}; write at most padding={limit}"
            )
        return ""

    @property
    def mean(self) -> bool:
        """Whether it takes the mean: where `avg` is written, and in a global pool where nothing is."""
        return (self.kind or ("avg" if self.size == "global" else "max")) == "avg"

    def after(self, shape: Shape) -> Shape:
        """(C, I, J), by the size formula; (C, 1, 1) of a global pool."""
        C, H, W = _map(self, shape)
        if isinstance(self.size, str):
            return C, 1, 1
        size, stride = self.size, self.stride or self.size
        I, J = (size_after(n, size, stride=stride, padding=self.padding) for n in (H, W))  # noqa: E741
        if min(I, J) < 1:
            worked = formula(min(H, W), size, stride=stride, padding=self.padding)
            fixed = "leave it away (POOL? does so by itself)"
            if min(H, W) > 1:
                fixed = f"write {dataclasses.replace(self, size=min(H, W)).text} or {fixed}"
            raise TooSmallError(
                f"a {size}×{size} window does not fit the {H}×{W} map that reaches it: {worked}; {fixed}"
            )
        return C, I, J

    def parts(self, shape: Shape) -> tuple[Part, ...]:
        """`pool1`."""
        if isinstance(self.size, str):
            return (Part("", "AdaptiveAvgPool2d" if self.mean else "AdaptiveMaxPool2d", {"output_size": 1}),)
        settings = {"kernel_size": self.size, "stride": self.stride or self.size, "padding": self.padding}
        return (Part("", "AvgPool2d" if self.mean else "MaxPool2d", settings),)


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
        return (Part("", "Linear", settings, count, gain=self.activation), *_activation(self.activation))


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
        return (_batch_norm("", "BatchNorm2d" if len(shape) == 3 else "BatchNorm1d", shape[0]),)


@dataclass(frozen=True, slots=True)
class Flatten(Layer):
    """A map (C, H, W) as one row of C·H·W numbers."""

    WORD: ClassVar[str] = "FLATTEN"
    STEM: ClassVar[str] = "flatten"

    def after(self, shape: Shape) -> Shape:
        """(C·H·W,)."""
        return (math.prod(_map(self, shape)),)

    def parts(self, shape: Shape) -> tuple[Part, ...]:
        """`flatten`."""
        return (Part("", "Flatten", {}),)


def _batch_norm(suffix: str, make: str, channels: int) -> Part:
    return Part(suffix, make, {"num_features": channels}, 2 * channels)


def _activation(name: str) -> tuple[Part, ...]:
    return () if name == "none" else (Part("_" + name.replace("-", "_"), ACTIVATIONS[name], {}),)


def _divisor(number: int, below: int) -> int:
    return next(n for n in range(min(below, number), 0, -1) if number % n == 0)


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
    "softmax": "the network ends in logits and the loss takes their softmax; leave it away",
    "conv2d": "write CONV(32, kernel=3)",
    "dense": "write FC(512)",
    "linear": "write FC(512)",
    "maxpool": "write POOL or POOL(2, max)",
    "maxpooling2d": "write POOL or POOL(2, max)",
    "avgpool": "write POOL(avg) or POOL(2, avg)",
    "output": "the last FC is the output: write FC(classes)",
}
