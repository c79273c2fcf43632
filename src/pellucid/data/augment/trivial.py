"""TrivialAugment (Müller and Hutter 2021): one change a picture, drawn from fourteen, of a strength drawn from 31.

The strengths reach as far as in the paper's smaller space (the one of RandAugment), in which nearly all of them leave a
picture recognisable. Turns, shears and translations become part of the one map that moves the pixels; the others work
on those pictures of the batch that drew them, a group for each.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from pellucid.data.augment.draws import Draws, Stream
from pellucid.data.augment.geometry import Affine, mirrored, sheared, translated, turned
from pellucid.data.augment.pixels import per_picture, tint, to_uint8

#: The changes, in the order in which they are drawn.
OPERATIONS = (
    "identity",
    "rotate",
    "shear-x",
    "shear-y",
    "translate-x",
    "translate-y",
    "brightness",
    "contrast",
    "saturation",
    "sharpness",
    "posterise",
    "solarise",
    "autocontrast",
    "equalise",
)

#: At full strength: degrees; shear; translation as a share of the side; how far a factor is from 1.
ROTATE, SHEAR, TRANSLATE, ENHANCE = 30.0, 0.3, 10 / 32, 0.9

#: At full strength, bits that posterising takes from each number.
POSTERISE = 4

_LEVELS = 31


def drawn(draws: Draws) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """For each picture its change, as a place in OPERATIONS, and its strength from −1 to 1."""
    operation_n = np.floor(draws.unit(Stream.TRIVIAL) * len(OPERATIONS)).astype(np.int64)
    strength_n = np.floor(draws.unit(Stream.TRIVIAL_STRENGTH) * _LEVELS) / (_LEVELS - 1)
    return operation_n, np.where(draws.unit(Stream.TRIVIAL_SIGN) < 0.5, -strength_n, strength_n)


def movement(draws: Draws, H: int, W: int) -> Affine | None:
    """The map of the pictures that drew a turn, a shear or a translation, and of no change for the others.

    None where no picture drew one.
    """
    operation_n, strength_n = drawn(draws)

    def of(name: str, most: float) -> NDArray[np.float64]:
        return np.where(operation_n == OPERATIONS.index(name), strength_n * most, 0.0)

    # At most one of the three is a change at all, so their order is none.
    turn = of("rotate", ROTATE)
    shear = of("shear-y", SHEAR), of("shear-x", SHEAR)
    way = of("translate-y", TRANSLATE * H), of("translate-x", TRANSLATE * W)
    if not any(part.any() for part in (turn, *shear, *way)):
        return None
    return turned(turn).then(sheared(*shear)).then(translated(*way))


def recoloured(x_nhwc: torch.Tensor, draws: Draws) -> torch.Tensor:
    """The pictures that drew another change, with it; the others as they are."""
    operation_n, strength_n = drawn(draws)
    y_nhwc = x_nhwc.clone()
    for name, change in _CHANGES.items():
        which_n = np.flatnonzero((operation_n == OPERATIONS.index(name)) & ((strength_n != 0) | (name in _ALWAYS)))
        if len(which_n):
            picked_n = torch.from_numpy(which_n).to(x_nhwc.device)
            y_nhwc.index_copy_(0, picked_n, change(x_nhwc.index_select(0, picked_n), strength_n[which_n]))
    return y_nhwc


def brightness(x_nhwc: torch.Tensor, strength_n: NDArray[np.float64]) -> torch.Tensor:
    """Multiplied by 1 + 0.9·strength."""
    one_n = np.ones_like(strength_n)
    return tint(x_nhwc, 1 + ENHANCE * strength_n, one_n, one_n)


def contrast(x_nhwc: torch.Tensor, strength_n: NDArray[np.float64]) -> torch.Tensor:
    """Distances from the mean grey multiplied by 1 + 0.9·strength."""
    one_n = np.ones_like(strength_n)
    return tint(x_nhwc, one_n, 1 + ENHANCE * strength_n, one_n)


def saturation(x_nhwc: torch.Tensor, strength_n: NDArray[np.float64]) -> torch.Tensor:
    """Distances from each pixel's grey multiplied by 1 + 0.9·strength."""
    one_n = np.ones_like(strength_n)
    return tint(x_nhwc, one_n, one_n, 1 + ENHANCE * strength_n)


def sharpness(x_nhwc: torch.Tensor, strength_n: NDArray[np.float64]) -> torch.Tensor:
    """Distances from a smoothed picture (3×3, the middle counting five times) multiplied by 1 + 0.9·strength."""
    H, W = x_nhwc.shape[1:3]
    wide = x_nhwc.float()
    for axis, side in ((1, H), (2, W)):
        folded = torch.from_numpy(mirrored(np.arange(-1, side + 1), side)).to(x_nhwc.device)
        wide = wide.index_select(axis, folded)
    smooth = 4 * x_nhwc.float()
    for y in range(3):
        for x in range(3):
            smooth += wide[:, y : y + H, x : x + W]
    # (1 + 0.9 s)·x − 0.9 s·smooth/13.
    change = per_picture(ENHANCE * strength_n, x_nhwc)
    return to_uint8(x_nhwc.float().mul_(1 + change).sub_(smooth.div_(13).mul_(change)))


def posterise(x_nhwc: torch.Tensor, strength_n: NDArray[np.float64]) -> torch.Tensor:
    """The lowest bits of each number set to 0: up to four at full strength."""
    bits_n = np.rint(np.abs(strength_n) * POSTERISE).astype(np.int64)
    mask_n = torch.from_numpy((256 - (1 << bits_n)).astype(np.uint8)).to(x_nhwc.device)
    return x_nhwc & mask_n.view(-1, 1, 1, 1)


def solarise(x_nhwc: torch.Tensor, strength_n: NDArray[np.float64]) -> torch.Tensor:
    """Numbers from a threshold on inverted: from 256 (none) down to 0 (all) at full strength."""
    threshold = per_picture(np.rint(256 * (1 - np.abs(strength_n))), x_nhwc)
    return torch.where(x_nhwc >= threshold, 255 - x_nhwc, x_nhwc)


def autocontrast(x_nhwc: torch.Tensor, strength_n: NDArray[np.float64]) -> torch.Tensor:
    """Each channel of each picture stretched to reach from 0 to 255; one of a single level stays. No strength."""
    low, high = x_nhwc.amin((1, 2), keepdim=True).int(), x_nhwc.amax((1, 2), keepdim=True).int()
    reach = high - low
    stretched = to_uint8(((x_nhwc.int() - low) * 255).float() / reach.clamp(min=1).float())
    return torch.where(reach > 0, stretched, x_nhwc)


def equalise(x_nhwc: torch.Tensor, strength_n: NDArray[np.float64]) -> torch.Tensor:
    """Levels respaced so that each channel's histogram is as even as can be (Pillow's formula). No strength."""
    N, H, W, C = x_nhwc.shape
    plane_nc = torch.arange(N * C, device=x_nhwc.device).view(N, 1, 1, C) * 256
    address = (plane_nc + x_nhwc.long()).reshape(-1)
    count = torch.bincount(address, minlength=N * C * 256).view(N * C, 256)
    last = count.gather(1, x_nhwc.amax((1, 2)).long().view(N * C, 1))
    step = (H * W - last) // 255
    before = count.cumsum(1) - count
    table = ((step // 2 + before) // step.clamp(min=1)).clamp(max=255)
    table = torch.where(step > 0, table, torch.arange(256, device=x_nhwc.device))
    return table.view(-1).index_select(0, address).view(x_nhwc.shape).to(torch.uint8)


_CHANGES: dict[str, Callable[[torch.Tensor, NDArray[np.float64]], torch.Tensor]] = {
    change.__name__: change
    for change in (brightness, contrast, saturation, sharpness, posterise, solarise, autocontrast, equalise)
}

# They have no strength that could be nothing.
_ALWAYS = ("autocontrast", "equalise")
