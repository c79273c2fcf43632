"""Feature maps and kernels as small pictures, one pixel a number."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from pellucid.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Ends of the scale of signed numbers, and of positive ones alone: blue and orange as in the other drawings, which are
#: told apart with any of the common kinds of colour blindness. Zero is white.
_NEGATIVE, _POSITIVE = np.array([0, 114, 178]), np.array([213, 94, 0])
_GAP = np.array([221, 221, 221])


def colours(values: NDArray[Any], extreme: float | None = None) -> NDArray[np.uint8]:
    """Numbers of any shape as colours, shape (..., 3): white at 0, orange above it, blue below.

    `extreme` is the size of number that gets the full colour: the largest here, unless given. Numbers that are none
    (NaN, infinity) are black.
    """
    values = np.asarray(values, dtype=np.float64)
    finite = np.isfinite(values)
    sizes = np.abs(np.where(finite, values, 0.0))
    extreme = float(sizes.max(initial=0.0)) if extreme is None else extreme
    share = np.clip(sizes / extreme, 0.0, 1.0)[..., None] if extreme > 0 else np.zeros((*values.shape, 1))
    ends = np.where((values < 0)[..., None], _NEGATIVE, _POSITIVE)
    mixed = 255 + share * (ends - 255)
    return np.where(finite[..., None], np.rint(mixed), 0).astype(np.uint8)


def tiles(maps: NDArray[Any], columns: int | None = None, gap: int = 1) -> NDArray[np.uint8]:
    """Maps (M, H, W) side by side as one picture (height, width, 3), on one scale of colours.

    In a near-square arrangement unless `columns` is given; `gap` pixels of grey stand between two maps. Raises
    UsageError for maps of another shape, or none.
    """
    maps = np.asarray(maps)
    if maps.ndim != 3 or 0 in maps.shape:
        raise UsageError(f"maps of shape {maps.shape}: expected (maps, height, width), and at least one map")
    count, height, width = maps.shape
    columns = min(count, columns or math.ceil(math.sqrt(count * height / width)))
    rows = math.ceil(count / columns)
    sheet = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, np.uint8)
    for place, pixels in enumerate(colours(maps)):
        top, left = place // columns * (height + gap), place % columns * (width + gap)
        sheet[top : top + height + gap, left : left + width + gap] = _GAP
        sheet[top : top + height, left : left + width] = pixels
    return sheet
