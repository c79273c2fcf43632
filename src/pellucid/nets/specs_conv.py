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
from pellucid.nets.sizes import Padding, Shape, ShapeError, formula, size_after


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
        return (conv, *norm_parts(self.norm, self.filters), *activation_parts(self.activation))
