"""Random changes to training pictures, whole batches at a time.

What a picture becomes depends on (seed, epoch, its index) alone: each random number is a hash of these, not the next
draw of a generator, so neither the batch it stands in nor the number of processes can change it.

A flip and a shift only move pixels, so both together are a table of source rows, one of source columns, and one gather.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

#: Largest shift, as a share of the side: two pixels of 32.
SHIFT = 1 / 16

# One stream of random numbers for each use, so that adding a use changes no other.
_FLIP, _SHIFT_Y, _SHIFT_X = 1, 2, 3


def uniform(seed: int, epoch: int, index_n: NDArray[np.int64], stream: int) -> NDArray[np.float64]:
    """A random number in [0, 1) for each picture, the same whenever it is asked for.

    SplitMix64 (Steele, Lea and Flood 2014) over a counter made of the four arguments.
    """
    state_n = index_n.astype(np.uint64)
    for word in (epoch, stream, seed):
        state_n = _mix(state_n + np.uint64(word))
    return (state_n >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(state_n: NDArray[np.uint64]) -> NDArray[np.uint64]:
    state_n = state_n + np.uint64(0x9E3779B97F4A7C15)
    state_n = (state_n ^ (state_n >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state_n = (state_n ^ (state_n >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state_n ^ (state_n >> np.uint64(31))


def gather(
    pixels_nhwc: torch.Tensor, index_n: NDArray[np.int64], changes: Sequence[str], seed: int, epoch: int
) -> torch.Tensor:
    """The pictures at `index_n`, changed at random: uint8 NHWC in, uint8 NHWC out, on the pictures' device.

    `changes` are names of `pellucid.recipe.Augmentation`. What a shift brings in at an edge is the picture's own mirror
    image there.
    """
    N, H, W, C = pixels_nhwc.shape
    picked_n = torch.from_numpy(index_n).to(pixels_nhwc.device)
    if not changes:
        return pixels_nhwc.index_select(0, picked_n)
    rows_nh = np.arange(H)[None, :].repeat(len(index_n), axis=0)
    columns_nw = np.arange(W)[None, :].repeat(len(index_n), axis=0)
    if "flip" in changes:
        flipped_n = uniform(seed, epoch, index_n, _FLIP) < 0.5
        columns_nw = np.where(flipped_n[:, None], W - 1 - columns_nw, columns_nw)
    if "shift" in changes:
        rows_nh = _mirrored(rows_nh + _offsets(seed, epoch, index_n, _SHIFT_Y, H), H)
        columns_nw = _mirrored(columns_nw + _offsets(seed, epoch, index_n, _SHIFT_X, W), W)
    source_nhw = torch.from_numpy(rows_nh * W).unsqueeze(2) + torch.from_numpy(columns_nw).unsqueeze(1)
    source_nhw = source_nhw.to(pixels_nhwc.device) + (picked_n * (H * W)).view(-1, 1, 1)
    # One flat index over all pixels: three times as fast on a CPU as indexing the three axes.
    return pixels_nhwc.view(N * H * W, C).index_select(0, source_nhw.view(-1)).view(-1, H, W, C)


def _offsets(seed: int, epoch: int, index_n: NDArray[np.int64], stream: int, side: int) -> NDArray[np.int64]:
    most = min(max(1, round(side * SHIFT)), side - 1)
    return np.floor(uniform(seed, epoch, index_n, stream) * (2 * most + 1)).astype(np.int64)[:, None] - most


def _mirrored(position: NDArray[np.int64], side: int) -> NDArray[np.int64]:
    """Positions beyond an edge, reflected back inside (the edge row itself is not repeated)."""
    position = np.abs(position)
    return np.where(position >= side, 2 * (side - 1) - position, position)
