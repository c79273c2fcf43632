"""How large a map is after a window has moved over it: ⌊(W − K + 2P)/S⌋ + 1, also with its numbers filled in.

`W` is the size of the map along one axis, `K` the kernel's, `S` the stride, `P` the padding on either side. Dilation
`D` spreads the kernel over (K − 1)·D + 1 places, which then stands for K (Dumoulin and Visin, "A guide to convolution
arithmetic for deep learning", 2016).
"""

from __future__ import annotations

import math
from typing import Literal

from pellucid.errors import UsageError

#: Rows added on either side; `same` adds what keeps the output at ⌈W/S⌉, `valid` adds none.
Padding = int | tuple[int, int] | Literal["same", "valid"]

#: One image or map without its batch axis: (C, H, W), or (D,) once flattened.
Shape = tuple[int, ...]


class ShapeError(UsageError):
    """Layers that do not fit what reaches them; the message names the layer, the numbers and the corrected line."""


def spread(kernel: int, dilation: int = 1) -> int:
    """How many places a kernel spans: (K − 1)·D + 1."""
    return (kernel - 1) * dilation + 1


def padding_sides(size: int, kernel: int, *, stride: int, padding: Padding, dilation: int = 1) -> tuple[int, int]:
    """Rows of padding (before, after) along one axis.

    `same` follows Keras: the output has ⌈W/S⌉ places at any stride, kernel and dilation, and where the total is odd the
    extra row goes after (right, bottom). With a stride above 1 it therefore depends on `size`.
    """
    if padding == "same":
        total = max((math.ceil(size / stride) - 1) * stride + spread(kernel, dilation) - size, 0)
        return total // 2, total - total // 2
    if padding == "valid":
        return 0, 0
    return padding if isinstance(padding, tuple) else (padding, padding)


def size_after(size: int, kernel: int, *, stride: int = 1, padding: Padding = 0, dilation: int = 1) -> int:
    """The map's size along one axis after the window: ⌊(W − K + 2P)/S⌋ + 1; below 1 where the window does not fit."""
    before, after = padding_sides(size, kernel, stride=stride, padding=padding, dilation=dilation)
    return (size - spread(kernel, dilation) + before + after) // stride + 1


def formula(size: int, kernel: int, *, stride: int = 1, padding: Padding = 0, dilation: int = 1) -> str:
    """The size formula with its numbers filled in.

    >>> formula(32, 5)
    '⌊(32 − 5 + 2·0)/1⌋ + 1 = 28'
    >>> formula(32, 3, stride=2, padding="same")
    '⌊(32 − 3 + 0 + 1)/2⌋ + 1 = 16'
    >>> formula(32, 3, dilation=2)
    '⌊(32 − ((3 − 1)·2 + 1) + 2·0)/1⌋ + 1 = 28'
    """
    before, after = padding_sides(size, kernel, stride=stride, padding=padding, dilation=dilation)
    spanned = str(kernel) if dilation == 1 else f"(({kernel} − 1)·{dilation} + 1)"
    added = f"2·{before}" if before == after else f"{before} + {after}"
    result = size_after(size, kernel, stride=stride, padding=padding, dilation=dilation)
    return f"⌊({size} − {spanned} + {added})/{stride}⌋ + 1 = {str(result).replace('-', '−')}"


def transposed_size(
    size: int, kernel: int, *, stride: int = 1, padding: int = 0, dilation: int = 1, output_padding: int = 0
) -> int:
    """The map's size along one axis after a transposed convolution: (W − 1)·S − 2P + (K − 1)·D + 1 + extra rows."""
    return (size - 1) * stride - 2 * padding + spread(kernel, dilation) + output_padding


def transposed_formula(
    size: int, kernel: int, *, stride: int = 1, padding: int = 0, dilation: int = 1, output_padding: int = 0
) -> str:
    """The size formula of a transposed convolution with its numbers filled in.

    >>> transposed_formula(7, 2, stride=2)
    '(7 − 1)·2 − 2·0 + 2 = 14'
    >>> transposed_formula(7, 3, stride=2, padding=1, output_padding=1)
    '(7 − 1)·2 − 2·1 + 3 + 1 = 14'
    """
    spanned = str(kernel) if dilation == 1 else f"(({kernel} − 1)·{dilation} + 1)"
    added = f" + {output_padding}" if output_padding else ""
    result = transposed_size(
        size, kernel, stride=stride, padding=padding, dilation=dilation, output_padding=output_padding
    )
    return f"({size} − 1)·{stride} − 2·{padding} + {spanned}{added} = {str(result).replace('-', '−')}"


def both_axes(height: str, width: str) -> str:
    """One formula where height and width have the same, else both, named."""
    return height if height == width else f"H: {height}; W: {width}"


def by(shape: Shape) -> str:
    """A shape as people write it: 3×32×32."""
    return "×".join(str(n) for n in shape)
