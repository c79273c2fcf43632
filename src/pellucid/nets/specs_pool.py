"""The pools of the notation."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

from pellucid.nets.layer import Layer, Part, TooSmallError, map_of
from pellucid.nets.options import WINDOW, Values, option
from pellucid.nets.sizes import Shape, formula, size_after


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
        C, H, W = map_of(self, shape)
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
