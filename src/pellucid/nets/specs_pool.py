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
        return C, *pooled(self, H, W)

    def parts(self, shape: Shape) -> tuple[Part, ...]:
        """`pool1`."""
        if isinstance(self.size, str):
            return (Part("", "AdaptiveAvgPool2d" if self.mean else "AdaptiveMaxPool2d", {"output_size": 1}),)
        settings = {"kernel_size": self.size, "stride": self.stride or self.size, "padding": self.padding}
        return (Part("", "AvgPool2d" if self.mean else "MaxPool2d", settings),)


@dataclass(frozen=True, slots=True)
class SoftPool(Layer):
    """The numbers under a window, weighed by their exponentials."""

    WORD: ClassVar[str] = "SOFTPOOL"
    STEM: ClassVar[str] = "softpool"
    WINDOWED: ClassVar[bool] = True

    size: int = option(WINDOW, 2, placed=True)
    stride: int = option(WINDOW, 0)

    def after(self, shape: Shape) -> Shape:
        """(C, I, J), by the size formula."""
        C, H, W = map_of(self, shape)
        return C, *pooled(self, H, W)

    def parts(self, shape: Shape) -> tuple[Part, ...]:
        """`softpool1`."""
        return (Part("", "SoftPool2d", {"kernel_size": self.size, "stride": self.stride or self.size}),)


@dataclass(frozen=True, slots=True)
class PyramidPool(Layer):
    """A map of any size as C·(L₁² + L₂² + ...) numbers."""

    WORD: ClassVar[str] = "SPP"
    STEM: ClassVar[str] = "spp"

    levels: tuple[int, ...] = option(Values(whole=(1, 100)), (4, 2, 1), placed=True, many=True)
    kind: str = option(Values(words=("max", "avg")), "max", placed=True)

    def after(self, shape: Shape) -> Shape:
        """(C·ΣL²,), whatever the size of the map."""
        return (map_of(self, shape)[0] * sum(level**2 for level in self.levels),)

    def parts(self, shape: Shape) -> tuple[Part, ...]:
        """`spp1`."""
        return (Part("", "SpatialPyramidPool2d", {"levels": self.levels, "mean": self.kind == "avg"}),)


def pooled(layer: Pool | SoftPool, H: int, W: int) -> tuple[int, int]:
    """The map after a window of a fixed size. Raises TooSmallError, with the remedy, where it does not fit."""
    assert isinstance(layer.size, int)
    size, stride, padding = layer.size, layer.stride or layer.size, getattr(layer, "padding", 0)
    I, J = (size_after(n, size, stride=stride, padding=padding) for n in (H, W))  # noqa: E741
    if min(I, J) < 1:
        worked = formula(min(H, W), size, stride=stride, padding=padding)
        fixed = f"leave it away ({layer.WORD}? does so by itself)"
        if min(H, W) > 1:
            fixed = f"write {dataclasses.replace(layer, size=min(H, W)).text} or {fixed}"
        raise TooSmallError(f"a {size}×{size} window does not fit the {H}×{W} map that reaches it: {worked}; {fixed}")
    return I, J
