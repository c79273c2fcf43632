"""Changes that move pixels: flip, shift, crop, rotate, and the turns and shears of `trivial`.

A flip and a shift only move pixels, so both together are a table of source rows, one of source columns, and one gather.
All others are an affine map from a place in the new picture to a place in the old one. However many are named, their
maps are multiplied first and the picture is sampled once, so nothing is smoothed twice.

Places are whole multiples of 1/256 pixel, and every number of the bilinear sum is a whole number below 2²⁴, which
float32 holds exactly: the result is the same to the bit on every device and in every batch. Beyond an edge a picture
goes on as its own mirror image (the edge row itself is not repeated).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from pellucid.data.augment.draws import Draws, Stream

#: Largest shift, as a share of the side: two pixels of 32.
SHIFT = 1 / 16

#: Least share of the picture's area that a crop keeps.
CROP = 0.5

#: Least and greatest ratio of a crop's height to its width, for a square picture (Szegedy et al. 2015).
CROP_RATIO = (3 / 4, 4 / 3)

#: Largest rotation, in degrees.
ROTATE = 15.0


@dataclass(frozen=True)
class Affine:
    """For each picture, the place (in pixels from its middle) that a place of the new picture shows.

    y_old = yy·y + yx·x + y0, and x_old = xy·y + xx·x + x0.
    """

    yy: NDArray[np.float64]
    yx: NDArray[np.float64]
    xy: NDArray[np.float64]
    xx: NDArray[np.float64]
    y0: NDArray[np.float64]
    x0: NDArray[np.float64]

    @staticmethod
    def same(n: int) -> Affine:
        """Every place shows itself."""
        one, zero = np.ones(n), np.zeros(n)
        return Affine(one, zero, zero, one, zero, zero)

    def then(self, other: Affine) -> Affine:
        """`other` applied to what this gives."""
        # Written out, not as matrix products: no sum whose order could depend on how many pictures there are.
        return Affine(
            other.yy * self.yy + other.yx * self.xy,
            other.yy * self.yx + other.yx * self.xx,
            other.xy * self.yy + other.xx * self.xy,
            other.xy * self.yx + other.xx * self.xx,
            other.yy * self.y0 + other.yx * self.x0 + other.y0,
            other.xy * self.y0 + other.xx * self.x0 + other.x0,
        )


def moved(
    pixels_nhwc: torch.Tensor, draws: Draws, changes: Sequence[str], trivial: Affine | None = None
) -> torch.Tensor:
    """The pictures that `draws` are for, after shift, flip, crop, rotate and the map of `trivial`, in this order.

    uint8 NHWC, on the pictures' device.
    """
    if trivial is None and "crop" not in changes and "rotate" not in changes:
        return _rearranged(pixels_nhwc, draws, changes)
    H, W = pixels_nhwc.shape[1:3]
    # From the new picture to the old one, so the last change comes first.
    affine = trivial or Affine.same(len(draws.index_n))
    if "rotate" in changes:
        affine = affine.then(turned(draws.between(Stream.ROTATE, -ROTATE, ROTATE)))
    if "crop" in changes:
        affine = affine.then(cropped(draws, H, W))
    if "flip" in changes or "shift" in changes:
        affine = affine.then(_flipped_and_shifted(draws, changes, H, W))
    picked_n = torch.from_numpy(draws.at_n).to(pixels_nhwc.device)
    return warp(pixels_nhwc.index_select(0, picked_n), affine)


def _rearranged(pixels_nhwc: torch.Tensor, draws: Draws, changes: Sequence[str]) -> torch.Tensor:
    N, H, W, C = pixels_nhwc.shape
    index_n = draws.index_n
    picked_n = torch.from_numpy(draws.at_n).to(pixels_nhwc.device)
    if "flip" not in changes and "shift" not in changes:
        return pixels_nhwc.index_select(0, picked_n)
    rows_nh = np.arange(H)[None, :].repeat(len(index_n), axis=0)
    columns_nw = np.arange(W)[None, :].repeat(len(index_n), axis=0)
    if "flip" in changes:
        columns_nw = np.where(draws.flips()[:, None], W - 1 - columns_nw, columns_nw)
    if "shift" in changes:
        rows_nh = mirrored(rows_nh + draws.offsets(Stream.SHIFT_Y, _most(H))[:, None], H)
        columns_nw = mirrored(columns_nw + draws.offsets(Stream.SHIFT_X, _most(W))[:, None], W)
    source_nhw = torch.from_numpy(rows_nh * W).unsqueeze(2) + torch.from_numpy(columns_nw).unsqueeze(1)
    source_nhw = source_nhw.to(pixels_nhwc.device) + (picked_n * (H * W)).view(-1, 1, 1)
    # One flat index over all pixels: three times as fast on a CPU as indexing the three axes.
    return pixels_nhwc.view(N * H * W, C).index_select(0, source_nhw.view(-1)).view(-1, H, W, C)


def _most(side: int) -> int:
    return min(max(1, round(side * SHIFT)), side - 1)


def mirrored(position: NDArray[np.int64], side: int) -> NDArray[np.int64]:
    """Positions beyond an edge, reflected back inside, as often as it takes."""
    if side == 1:
        return np.zeros_like(position)
    if position.size and (position.min() <= -side or position.max() >= 2 * side - 1):
        position = position % (2 * side - 2)
    position = np.abs(position)
    return np.where(position >= side, 2 * (side - 1) - position, position)


def _flipped_and_shifted(draws: Draws, changes: Sequence[str], H: int, W: int) -> Affine:
    n = len(draws.index_n)
    one, zero = np.ones(n), np.zeros(n)
    sign = np.where(draws.flips(), -1.0, 1.0) if "flip" in changes else one
    y0, x0 = zero, zero
    if "shift" in changes:
        y0 = draws.offsets(Stream.SHIFT_Y, _most(H)).astype(np.float64)
        x0 = draws.offsets(Stream.SHIFT_X, _most(W)).astype(np.float64)
    return Affine(one, zero, zero, sign, y0, x0)


def turned(degrees_n: NDArray[np.float64]) -> Affine:
    """Pictures turned anticlockwise about their middles."""
    cos, sin = np.cos(np.radians(degrees_n)), np.sin(np.radians(degrees_n))
    zero = np.zeros_like(cos)
    return Affine(cos, sin, -sin, cos, zero, zero)


def cropped(draws: Draws, H: int, W: int) -> Affine:
    """A random box of each picture, enlarged to the whole (Szegedy et al. 2015, section 6).

    Its share of the area is uniform from CROP to 1. Its ratio of height to width, relative to the picture's, is
    log-uniform over what part of CROP_RATIO fits into the picture at this area: no box has to be drawn twice or cut.
    """
    area_n = draws.between(Stream.CROP_AREA, CROP, 1.0)
    low_n = np.log(np.maximum(CROP_RATIO[0], area_n))
    high_n = np.log(np.minimum(CROP_RATIO[1], 1 / area_n))
    ratio_n = np.exp(low_n + (high_n - low_n) * draws.unit(Stream.CROP_RATIO))
    tall_n, wide_n = np.sqrt(area_n * ratio_n), np.sqrt(area_n / ratio_n)
    zero = np.zeros_like(area_n)
    y0 = (draws.unit(Stream.CROP_Y) - 0.5) * (1 - tall_n) * H
    x0 = (draws.unit(Stream.CROP_X) - 0.5) * (1 - wide_n) * W
    return Affine(tall_n, zero, zero, wide_n, y0, x0)


def warp(x_nhwc: torch.Tensor, affine: Affine) -> torch.Tensor:
    """uint8 pictures (N, H, W, C) sampled where `affine` says: bilinear, to 1/256 pixel, rounded to uint8."""
    N, H, W, C = x_nhwc.shape
    device = x_nhwc.device
    upper_nhw, lower_nhw, down_nhw = _taps(affine.yy, affine.yx, affine.y0, (H, W), H, device)
    left_nhw, right_nhw, along_nhw = _taps(affine.xy, affine.xx, affine.x0, (H, W), W, device)
    start_n11 = (torch.arange(N, dtype=torch.int32, device=device) * (H * W)).view(N, 1, 1)
    upper_nhw, lower_nhw = upper_nhw * W + start_n11, lower_nhw * W + start_n11
    corners = [(y + x).view(-1) for y in (upper_nhw, lower_nhw) for x in (left_nhw, right_nhw)]
    down, along = down_nhw.view(-1), along_nhw.view(-1)
    up, back = 256 - down, 256 - along
    y_nhwc = torch.empty_like(x_nhwc)
    # A plane at a time: picking single numbers is faster than picking threes, and the weights need no repeating.
    for c in range(C):
        plane = x_nhwc[..., c].reshape(-1)
        a, b, d, e = (plane.index_select(0, corner).float() for corner in corners)
        top = a.mul_(back).add_(b.mul_(along))
        bottom = d.mul_(back).add_(e.mul_(along))
        total = top.mul_(up).add_(bottom.mul_(down))
        y_nhwc[..., c] = rounded(total, 16).view(N, H, W)
    return y_nhwc


def rounded(total: torch.Tensor, bits: int) -> torch.Tensor:
    """Whole numbers 0 ≤ total ≤ 255·2^bits, in float32, divided by 2^bits and rounded to uint8, halves up."""
    return ((total.int() + (1 << (bits - 1))) >> bits).to(torch.uint8)


def _taps(
    along_y_n: NDArray[np.float64],
    along_x_n: NDArray[np.float64],
    start_n: NDArray[np.float64],
    shape: tuple[int, int],
    side: int,
    device: torch.device,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """One coordinate of the old place of every new pixel: the pixels before and after it (int32), and the 256ths."""
    H, W = shape
    # In 2⁻¹⁷ pixel: coefficients to 2⁻¹⁶ times distances from the middle in half pixels. Exact in int32 up to a side of
    # 4096, which is the largest a network is shown.
    half_y_h, half_x_w = 2 * np.arange(H) - (H - 1), 2 * np.arange(W) - (W - 1)
    rows_nh = np.rint(along_y_n * 2**16).astype(np.int64)[:, None] * half_y_h
    columns_nw = np.rint(along_x_n * 2**16).astype(np.int64)[:, None] * half_x_w
    rows_nh += np.rint((start_n + (side - 1) / 2) * 2**17).astype(np.int64)[:, None] + 2**8
    first = (int(rows_nh.min()) + int(columns_nw.min()) >> 17) - 1
    last = (int(rows_nh.max()) + int(columns_nw.max()) >> 17) + 2
    fold = torch.from_numpy(mirrored(np.arange(first, last + 1), side).astype(np.int32)).to(device)
    rows_nh -= first << 17
    rows, columns = (torch.from_numpy(part.astype(np.int32)).to(device) for part in (rows_nh, columns_nw))
    place_nhw = (rows.unsqueeze(2) + columns.unsqueeze(1)) >> 9
    before = (place_nhw >> 8).view(-1)
    between_nhw = (place_nhw & 255).float()
    n = len(start_n)
    return fold.index_select(0, before).view(n, H, W), fold.index_select(0, before + 1).view(n, H, W), between_nhw


def sheared(y_n: NDArray[np.float64], x_n: NDArray[np.float64]) -> Affine:
    """Columns moved down by y for each pixel to the right, rows moved right by x for each pixel down."""
    one, zero = np.ones_like(y_n), np.zeros_like(y_n)
    return Affine(one, -y_n, -x_n, one, zero, zero)


def translated(y_n: NDArray[np.float64], x_n: NDArray[np.float64]) -> Affine:
    """Pictures moved down by y and right by x pixels."""
    one, zero = np.ones_like(y_n), np.zeros_like(y_n)
    return Affine(one, zero, zero, one, -y_n, -x_n)
