"""Random changes to training pictures, whole batches at a time.

What a picture becomes depends on (seed, epoch, its index) alone: each random number is a hash of these, not the next
draw of a generator, so neither the batch it stands in nor the number of processes can change it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import numpy as np
import torch
from numpy.typing import NDArray

from pellucid.data.augment.draws import Draws, Stream, uniform
from pellucid.data.augment.geometry import CROP, CROP_RATIO, ROTATE, SHIFT, moved
from pellucid.data.augment.pixels import BLUR, COLOUR, CUTOUT, NOISE, blurred, coloured, cutout, noisy
from pellucid.data.augment.trivial import movement, recoloured
from pellucid.data.images import Lazy
from pellucid.errors import UsageError, did_you_mean
from pellucid.recipe import Augmentation

#: The order in which changes are made, whatever the order in which they are named. The last two need a second picture,
#: and are made by `pellucid.data.mix`.
ORDER: tuple[Augmentation, ...] = (
    "shift",
    "flip",
    "crop",
    "rotate",
    "trivial",
    "colour",
    "blur",
    "noise",
    "cutout",
    "mixup",
    "cutmix",
)

#: What a hole is filled with unless the mean of the pictures is given: the middle grey.
GREY = (0.5,)

# Pixels that are worked on at once: what fits into a processor's cache, and is enough for a GPU.
_PIXELS = {"cpu": 2**18, "cuda": 2**24}

__all__ = [
    "BLUR",
    "COLOUR",
    "CROP",
    "CROP_RATIO",
    "CUTOUT",
    "GREY",
    "NOISE",
    "ORDER",
    "ROTATE",
    "SHIFT",
    "Draws",
    "Stream",
    "gather",
    "uniform",
]


def gather(
    pixels_nhwc: torch.Tensor | Lazy,
    index_n: NDArray[np.int64],
    changes: Sequence[str],
    seed: int,
    epoch: int | NDArray[np.int64],
    mean: Sequence[float] = GREY,
) -> torch.Tensor:
    """The pictures at `index_n`, changed at random: uint8 NHWC in, uint8 NHWC out, on the pictures' device.

    Pictures that are fetched when they are wanted come out in the processor's memory.

    `changes` are names of `pellucid.recipe.Augmentation`, made in the order of ORDER; mixup and cutmix are passed over
    here. `epoch` may be one for each picture. `mean` is the pictures' mean from 0 to 1, one number or one a channel:
    what cutout leaves.

    Raises UsageError for a change of another name.
    """
    for name in changes:
        if name not in get_args(Augmentation):
            raise UsageError(f"augment {name!r}: no change of this name; {did_you_mean(name, ORDER)}")
    draws = Draws(seed, epoch, index_n)
    if not isinstance(pixels_nhwc, torch.Tensor):
        pixels_nhwc = torch.from_numpy(pixels_nhwc.take(index_n))
        draws = Draws(seed, epoch, index_n, np.arange(len(index_n)))
    # Mirroring and shifting alone make nothing larger than what comes out.
    if {"shift", "flip", "mixup", "cutmix"}.issuperset(changes):
        return moved(pixels_nhwc, draws, changes)
    H, W = pixels_nhwc.shape[1:3]
    least = _PIXELS.get(pixels_nhwc.device.type, _PIXELS["cpu"])
    size = max(1, least // (H * W))
    places = np.arange(len(index_n))
    parts = [
        _changed(pixels_nhwc, draws[places[start : start + size]], changes, mean)
        for start in range(0, len(index_n), size)
    ]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _changed(pixels_nhwc: torch.Tensor, draws: Draws, changes: Sequence[str], mean: Sequence[float]) -> torch.Tensor:
    H, W = pixels_nhwc.shape[1:3]
    x_nhwc = moved(pixels_nhwc, draws, changes, movement(draws, H, W) if "trivial" in changes else None)
    if "trivial" in changes:
        x_nhwc = recoloured(x_nhwc, draws)
    if "colour" in changes:
        x_nhwc = coloured(x_nhwc, draws)
    if "blur" in changes:
        x_nhwc = blurred(x_nhwc, draws)
    if "noise" in changes:
        x_nhwc = noisy(x_nhwc, draws)
    if "cutout" in changes:
        x_nhwc = cutout(x_nhwc, draws, [255 * level for level in mean])
    return x_nhwc
