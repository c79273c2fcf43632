"""The convolutions of the notation."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import ClassVar

from pellucid.nets.layer import (
    ACTIVATION,
    NORM,
    Layer,
    Part,
    TooSmallError,
    activation_parts,
    divisor,
    map_of,
    norm_parts,
)
from pellucid.nets.options import COUNT, FLAG, WINDOW, Values, option
from pellucid.nets.sizes import (
    Padding,
    Shape,
    ShapeError,
    formula,
    size_after,
    spread,
    transposed_formula,
    transposed_size,
)

PADDING = Values(words=("same", "valid"), whole=(0, 10_000))


@dataclass(frozen=True, slots=True)
class Conv(Layer):
    """Convolution, then normalisation where asked for, then the activation."""

    WORD: ClassVar[str] = "CONV"
    STEM: ClassVar[str] = "conv"
    WINDOWED: ClassVar[bool] = True

    filters: int = option(COUNT, placed=True)
    kernel: int = option(WINDOW, 3)
    stride: int = option(WINDOW, 1)
    padding: Padding = option(PADDING, "same")  # noqa: RUF009
    dilation: int = option(WINDOW, 1)
    groups: int = option(COUNT, 1)
    activation: str = option(ACTIVATION, "relu")
    norm: str = option(NORM, "none")
    bias: bool = option(FLAG, True)

    def problem(self) -> str:
        """Groups share the filters out evenly."""
        if self.filters % self.groups:
            fitting = divisor(self.filters, self.groups)
            return f"groups={self.groups} does not divide its {self.filters} filters; write groups={fitting}"
        return ""

    def after(self, shape: Shape) -> Shape:
        """(O, I, J), by the size formula."""
        C, H, W = map_of(self, shape)
        if C % self.groups:
            fixed = dataclasses.replace(self, groups=divisor(math.gcd(C, self.filters), self.groups))
            raise ShapeError(f"groups={self.groups} does not divide the {C} channels that reach it; write {fixed.text}")
        return self.filters, *convolved(self, H, W)

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
        return (conv, *norm_parts(self.norm, self.filters), *activation_parts(self.activation))


@dataclass(frozen=True, slots=True)
class DepthwiseConv(Layer):
    """Each channel convolved by itself, `multiplier` times over."""

    WORD: ClassVar[str] = "DWCONV"
    STEM: ClassVar[str] = "dwconv"
    WINDOWED: ClassVar[bool] = True

    multiplier: int = option(COUNT, 1, placed=True)
    kernel: int = option(WINDOW, 3)
    stride: int = option(WINDOW, 1)
    padding: Padding = option(PADDING, "same")  # noqa: RUF009
    dilation: int = option(WINDOW, 1)
    activation: str = option(ACTIVATION, "relu")
    norm: str = option(NORM, "none")
    bias: bool = option(FLAG, True)

    def conv(self, channels: int) -> Conv:
        """The convolution that this is on a map of so many channels."""
        return Conv(
            channels * self.multiplier, self.kernel, self.stride, self.padding, self.dilation, channels,
            self.activation, self.norm, self.bias,
        )  # fmt: skip

    def after(self, shape: Shape) -> Shape:
        """(C·multiplier, I, J), by the size formula."""
        C, H, W = map_of(self, shape)
        return C * self.multiplier, *convolved(self, H, W)

    def parts(self, shape: Shape) -> tuple[Part, ...]:
        """`dwconv1`, and `dwconv1_norm`, `dwconv1_relu` as a convolution has them."""
        return self.conv(shape[0]).parts(shape)


@dataclass(frozen=True, slots=True)
class SeparableConv(Layer):
    """A depthwise convolution, then a 1×1 one across the channels, nothing between them (Chollet, "Xception", 2016)."""

    WORD: ClassVar[str] = "SEPCONV"
    STEM: ClassVar[str] = "sepconv"
    WINDOWED: ClassVar[bool] = True

    filters: int = option(COUNT, placed=True)
    kernel: int = option(WINDOW, 3)
    stride: int = option(WINDOW, 1)
    padding: Padding = option(PADDING, "same")  # noqa: RUF009
    dilation: int = option(WINDOW, 1)
    activation: str = option(ACTIVATION, "relu")
    norm: str = option(NORM, "none")
    bias: bool = option(FLAG, True)

    def after(self, shape: Shape) -> Shape:
        """(O, I, J), by the size formula."""
        _, H, W = map_of(self, shape)
        return self.filters, *convolved(self, H, W)

    def parts(self, shape: Shape) -> tuple[Part, ...]:
        """`sepconv1_depthwise`, which has no bias, `sepconv1`, and its normalisation and activation."""
        C = shape[0]
        depthwise = Conv(
            C, self.kernel, self.stride, self.padding, self.dilation, groups=C, activation="none", bias=False
        )
        # No activation stands between the two, so the kernels keep the spread and the 1×1 ones make up for the ReLU.
        first = dataclasses.replace(depthwise.parts(shape)[0], suffix="_depthwise", gain="linear")
        pointwise = Conv(self.filters, 1, activation=self.activation, norm=self.norm, bias=self.bias)
        return first, *pointwise.parts(shape)


@dataclass(frozen=True, slots=True)
class TransposedConv(Layer):
    """What carries the gradient of a convolution back, used forward: the map grows by the stride."""

    WORD: ClassVar[str] = "TCONV"
    STEM: ClassVar[str] = "tconv"

    filters: int = option(COUNT, placed=True)
    kernel: int = option(WINDOW, 2)
    stride: int = option(WINDOW, 2)
    padding: int = option(Values(whole=(0, 10_000)), 0)
    output_padding: int = option(Values(whole=(0, 10_000)), 0)
    dilation: int = option(WINDOW, 1)
    groups: int = option(COUNT, 1)
    activation: str = option(ACTIVATION, "relu")
    norm: str = option(NORM, "none")
    bias: bool = option(FLAG, True)

    def problem(self) -> str:
        """Groups share the filters out evenly, and the rows added at the end are fewer than the stride or dilation."""
        if self.filters % self.groups:
            fitting = divisor(self.filters, self.groups)
            return f"groups={self.groups} does not divide its {self.filters} filters; write groups={fitting}"
        most = max(self.stride, self.dilation) - 1
        if self.output_padding > most:
            return f"output-padding is below its stride or dilation; write at most output-padding={most}"
        return ""

    def after(self, shape: Shape) -> Shape:
        """(O, I, J): (W − 1)·S − 2P + (K − 1)·D + 1, and the rows added at the end."""
        C, H, W = map_of(self, shape)
        if C % self.groups:
            fixed = dataclasses.replace(self, groups=divisor(math.gcd(C, self.filters), self.groups))
            raise ShapeError(f"groups={self.groups} does not divide the {C} channels that reach it; write {fixed.text}")
        window = self.window
        I, J = (transposed_size(n, self.kernel, **window) for n in (H, W))  # noqa: E741
        if min(I, J) < 1:
            worked = transposed_formula(min(H, W), self.kernel, **window)
            raise TooSmallError(
                f"its padding takes away more than there is of a {H}×{W} map: {worked}; "
                f"write {dataclasses.replace(self, padding=0).text}"
            )
        return self.filters, I, J

    @property
    def window(self) -> dict[str, int]:
        """Stride, padding, dilation and the rows added at the end."""
        return {
            "stride": self.stride,
            "padding": self.padding,
            "dilation": self.dilation,
            "output_padding": self.output_padding,
        }

    def parts(self, shape: Shape) -> tuple[Part, ...]:
        """`tconv1`, and its normalisation and activation."""
        C = shape[0]
        settings = {
            "in_channels": C,
            "out_channels": self.filters,
            "kernel_size": self.kernel,
            "groups": self.groups,
            "bias": self.bias,
            **self.window,
        }
        count = C * (self.filters // self.groups) * self.kernel**2 + self.filters * self.bias
        tconv = Part("", "ConvTranspose2d", settings, count, gain=self.activation)
        return (tconv, *norm_parts(self.norm, self.filters), *activation_parts(self.activation))


def convolved(layer: Conv | DepthwiseConv | SeparableConv, H: int, W: int) -> tuple[int, int]:
    """The map after a convolution. Raises TooSmallError, with the remedy, where its kernel does not fit."""
    kernel, padding, dilation = layer.kernel, layer.padding, layer.dilation
    I, J = (size_after(n, kernel, stride=layer.stride, padding=padding, dilation=dilation) for n in (H, W))  # noqa: E741
    if min(I, J) < 1:
        small = min(H, W)
        worked = formula(small, kernel, stride=layer.stride, padding=padding, dilation=dilation)
        # The largest kernel that fits: with a dilation it may be much smaller than the map.
        room = small + 2 * (padding if isinstance(padding, int) else 0)
        fixed = dataclasses.replace(layer, kernel=(room - 1) // dilation + 1)
        dilated = f", spread over {spread(kernel, dilation)} places by dilation {dilation}," if dilation > 1 else ""
        raise TooSmallError(
            f"a {kernel}×{kernel} kernel{dilated} does not fit the {H}×{W} map that reaches it: {worked}; "
            f"write {fixed.text} or padding=same"
        )
    return I, J
