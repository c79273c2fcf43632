"""Changes to what pixels show: colour, blur, noise, cutout.

Every sum here is of whole numbers below 2²⁴, which float32 holds exactly, or of two terms in a fixed order: the result
is the same to the bit on every device and in every batch.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import special

from pellucid.data.augment.draws import Draws, Stream
from pellucid.data.augment.geometry import mirrored, rounded

#: Brightness, contrast and saturation are multiplied by 1 − COLOUR to 1 + COLOUR.
COLOUR = 0.2

#: Largest standard deviation of the blur, as a share of the shorter side (one pixel of 32), and in pixels.
BLUR, BLUR_PIXELS = 1 / 32, 2.0

#: Largest standard deviation of the noise, in grey levels.
NOISE = 12.0

#: Side of the square that is cut out, as a share of the shorter side: 8 pixels of 32.
CUTOUT = 1 / 4

#: ITU-R 601 luma in 65536ths, Pillow's numbers.
_LUMA = (19595, 38470, 7471)


def per_picture(values: NDArray[np.float64], x: torch.Tensor) -> torch.Tensor:
    """A number for each picture, as float32 that broadcasts over its pixels (N, 1, 1, 1)."""
    return torch.from_numpy(values.astype(np.float32)).to(x.device).view(-1, 1, 1, 1)


def to_uint8(y: torch.Tensor) -> torch.Tensor:
    """Numbers rounded to the nearest grey level, and to 0 or 255 beyond these."""
    return y.round_().clamp_(0, 255).to(torch.uint8)


def luma(x_nhwc: torch.Tensor) -> torch.Tensor:
    """uint8 pictures in grey (N, H, W, 1): whole numbers as int32, as Pillow's `convert("L")`."""
    if x_nhwc.shape[3] == 1:
        return x_nhwc.int()
    red, green, blue = (x_nhwc[..., c : c + 1].int() * weight for c, weight in enumerate(_LUMA))
    return (red + green + blue + 2**15) >> 16


def tint(
    x_nhwc: torch.Tensor,
    brightness_n: NDArray[np.float64],
    contrast_n: NDArray[np.float64],
    saturation_n: NDArray[np.float64],
) -> torch.Tensor:
    """Brightness, then contrast about the mean grey, then saturation, each multiplied by a number for each picture.

    All three are linear, so they are one formula, and nothing is cut off at black or white between them. On grey
    pictures saturation changes nothing.
    """
    H, W = x_nhwc.shape[1:3]
    grey_nhw1 = luma(x_nhwc)
    mean_n = grey_nhw1.sum((1, 2, 3)).cpu().numpy() / (H * W)
    # x → b·x → c·b·x + (1 − c)·b·mean → s·(that) + (1 − s)·(the grey of that).
    kept_n = saturation_n * contrast_n * brightness_n
    greyed_n = (1 - saturation_n) * contrast_n * brightness_n
    added_n = (1 - contrast_n) * brightness_n * mean_n
    y_nhwc = x_nhwc.float().mul_(per_picture(kept_n, x_nhwc))
    return to_uint8(
        y_nhwc.add_(grey_nhw1.float().mul_(per_picture(greyed_n, x_nhwc)).add_(per_picture(added_n, x_nhwc)))
    )


def coloured(x_nhwc: torch.Tensor, draws: Draws) -> torch.Tensor:
    """Brightness, contrast and saturation changed, each by up to COLOUR."""
    return tint(
        x_nhwc,
        *(
            draws.between(stream, 1 - COLOUR, 1 + COLOUR)
            for stream in (Stream.BRIGHTNESS, Stream.CONTRAST, Stream.SATURATION)
        ),
    )


def gaussian(sigma_n: NDArray[np.float64], radius: int) -> NDArray[np.float64]:
    """The weights (N, 2·radius + 1) of Gaussians of these deviations, as whole 4096ths that add up to 4096.

    A deviation of 0 leaves a picture as it is.
    """
    away_k = np.arange(-radius, radius + 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        weight_nk = np.where(away_k == 0, 1.0, np.exp(-0.5 * (away_k / sigma_n[:, None]) ** 2))
    weight_nk = np.asarray(np.rint(weight_nk / weight_nk.sum(axis=1, keepdims=True) * 4096), np.float64)
    weight_nk[:, radius] += 4096 - weight_nk.sum(axis=1)
    return weight_nk


def blur(x_nhwc: torch.Tensor, sigma_n: NDArray[np.float64], radius: int) -> torch.Tensor:
    """Each picture smoothed by a Gaussian of its own deviation, in pixels, cut at `radius`; its edges mirrored."""
    weight_nk = gaussian(sigma_n, radius)
    # Down the columns to 1/16 grey level, then along the rows: each product stays below 2²⁴.
    down = _smoothed(x_nhwc.float(), weight_nk, 1)
    return rounded(_smoothed(((down.int() + 128) >> 8).float(), weight_nk, 2), 16)


def _smoothed(x_nhwc: torch.Tensor, weight_nk: NDArray[np.float64], axis: int) -> torch.Tensor:
    N, H, W, C = x_nhwc.shape
    side, radius = x_nhwc.shape[axis], weight_nk.shape[1] // 2
    folded = torch.from_numpy(mirrored(np.arange(-radius, side + radius), side)).to(x_nhwc.device)
    # Rows of numbers, in which a pixel to the side is C numbers away: twice as fast as four axes.
    wide = x_nhwc.index_select(axis, folded).view(N, -1, (W + 2 * radius if axis == 2 else W) * C)
    step, length = (C, W * C) if axis == 2 else (1, H)

    def weight(k: int) -> torch.Tensor:
        return torch.from_numpy(weight_nk[:, k].astype(np.float32)).to(x_nhwc.device).view(N, 1, 1)

    total = wide.narrow(axis, radius * step, length) * weight(radius)
    for away in range(1, radius + 1):
        before, after = (wide.narrow(axis, (radius + d) * step, length) for d in (-away, away))
        total += (before + after).mul_(weight(radius + away))
    return total.view(N, H, W, C)


def blurred(x_nhwc: torch.Tensor, draws: Draws) -> torch.Tensor:
    """Each picture smoothed by a Gaussian, its deviation up to BLUR of the shorter side or BLUR_PIXELS."""
    most = min(BLUR_PIXELS, BLUR * min(x_nhwc.shape[1:3]))
    # One radius for all: that of the greatest deviation in the batch would depend on the batch.
    return blur(x_nhwc, draws.between(Stream.BLUR, 0, most), int(np.ceil(3 * most)))


@functools.cache
def _normals(device: torch.device) -> torch.Tensor:
    """The 65536 quantiles of the standard normal distribution, in the order of 16 bits read as a signed number."""
    quantiles = special.ndtri((np.arange(65536) + 0.5) / 65536).astype(np.float32)
    return torch.from_numpy(quantiles).to(device)


def _signed(word: int) -> int:
    return word - 2**64 if word >= 2**63 else word


def normals(keys_n: NDArray[np.int64], count: int, device: torch.device) -> torch.Tensor:
    """`count` standard normal numbers for each key, float32 (N, count), the same on every device.

    SplitMix64 again, over a counter that starts at the key. Each hash gives four numbers: 16 bits choose a quantile,
    which is fine enough for what is rounded to grey levels, and cuts the tails at 4.3 deviations.
    """
    words = -(-count // 4)
    counter = torch.arange(words, dtype=torch.int64, device=device) * _signed(0x9E3779B97F4A7C15)
    state = torch.from_numpy(keys_n).to(device).unsqueeze(1) + counter
    # torch shifts the sign in from the left; a mask takes it out.
    state = (state ^ ((state >> 30) & (2**34 - 1))) * _signed(0xBF58476D1CE4E5B9)
    state = (state ^ ((state >> 27) & (2**37 - 1))) * _signed(0x94D049BB133111EB)
    state = state ^ ((state >> 31) & (2**33 - 1))
    chosen = state.view(torch.int16).view(-1).int() + 32768
    return _normals(device).index_select(0, chosen).view(len(keys_n), 4 * words)[:, :count]


def noise(x_nhwc: torch.Tensor, sigma_n: NDArray[np.float64], keys_n: NDArray[np.int64]) -> torch.Tensor:
    """Normal noise added to each number, of each picture's own deviation in grey levels."""
    H, W, C = x_nhwc.shape[1:]
    y_nhwc = normals(keys_n, H * W * C, x_nhwc.device).reshape(x_nhwc.shape).mul_(per_picture(sigma_n, x_nhwc))
    return to_uint8(y_nhwc.add_(x_nhwc))


def noisy(x_nhwc: torch.Tensor, draws: Draws) -> torch.Tensor:
    """Normal noise, each picture's deviation up to NOISE grey levels."""
    return noise(x_nhwc, draws.between(Stream.NOISE_SIZE, 0, NOISE), draws.keys(Stream.NOISE))


def span(
    middle_n: NDArray[np.int64], length_n: NDArray[np.int64], side: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where stretches of these lengths about these pixels begin and end (not included) within a side."""
    begin_n = middle_n - length_n // 2
    return np.maximum(begin_n, 0), np.minimum(begin_n + length_n, side)


def inside(begin_n: NDArray[np.int64], end_n: NDArray[np.int64], side: int, device: torch.device) -> torch.Tensor:
    """Which places of a side lie in each stretch: bool (N, side)."""
    place = np.arange(side)
    return torch.from_numpy((place >= begin_n[:, None]) & (place < end_n[:, None])).to(device)


def cutout(x_nhwc: torch.Tensor, draws: Draws, fill: Sequence[float]) -> torch.Tensor:
    """A square of each picture replaced by `fill` (0 to 255, a number a channel) (DeVries and Taylor 2017).

    Its middle is any pixel of the picture, so that a part of it may lie outside, as in the paper. Of a picture of two
    pixels or less a side nothing is cut out.
    """
    H, W = x_nhwc.shape[1:3]
    side = round(min(H, W) * CUTOUT)
    held = []
    for stream, length in ((Stream.CUTOUT_Y, H), (Stream.CUTOUT_X, W)):
        middle_n = np.floor(draws.unit(stream) * length).astype(np.int64)
        held.append(inside(*span(middle_n, np.full_like(middle_n, side), length), length, x_nhwc.device))
    hole_nhw1 = (held[0].unsqueeze(2) & held[1].unsqueeze(1)).unsqueeze(3)
    colour = torch.tensor([round(level) for level in fill], dtype=torch.uint8, device=x_nhwc.device)
    return torch.where(hole_nhw1, colour, x_nhwc)
