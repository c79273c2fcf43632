"""Random numbers that belong to a picture: hashes of (seed, epoch, index of the picture, what the number is for).

None is the next draw of a generator, so neither the batch a picture stands in nor the number of processes can change
what it becomes.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, auto

import numpy as np
from numpy.typing import NDArray
from scipy import special


class Stream(IntEnum):
    """One stream of random numbers for each use, so that adding a use (at the end) changes no other."""

    FLIP = auto()
    SHIFT_Y = auto()
    SHIFT_X = auto()
    CROP_AREA = auto()
    CROP_RATIO = auto()
    CROP_Y = auto()
    CROP_X = auto()
    ROTATE = auto()
    BRIGHTNESS = auto()
    CONTRAST = auto()
    SATURATION = auto()
    BLUR = auto()
    NOISE_SIZE = auto()
    NOISE = auto()
    CUTOUT_Y = auto()
    CUTOUT_X = auto()
    TRIVIAL = auto()
    TRIVIAL_STRENGTH = auto()
    TRIVIAL_SIGN = auto()
    PARTNER = auto()
    MIXUP_SHARE = auto()
    CUTMIX_COIN = auto()
    CUTMIX_SHARE = auto()
    CUTMIX_Y = auto()
    CUTMIX_X = auto()
    DEAL = auto()


def uniform(seed: int, epoch: int | NDArray[np.int64], index_n: NDArray[np.int64], stream: int) -> NDArray[np.float64]:
    """A random number in [0, 1) for each picture, the same whenever it is asked for.

    `epoch` may be one for each picture. SplitMix64 (Steele, Lea and Flood 2014) over the four arguments, one after the
    other.
    """
    return (_hashed(seed, epoch, index_n, stream) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _hashed(seed: int, epoch: int | NDArray[np.int64], index_n: NDArray[np.int64], stream: int) -> NDArray[np.uint64]:
    # The index is scrambled before the epoch is added, or a picture would repeat what the one before it will be an
    # epoch later.
    state_n = _mix(index_n.astype(np.uint64))
    for word in (epoch, stream, seed):
        state_n = _mix(state_n + np.asarray(word).astype(np.uint64))
    return state_n


def _mix(state_n: NDArray[np.uint64]) -> NDArray[np.uint64]:
    state_n = state_n + np.uint64(0x9E3779B97F4A7C15)
    state_n = (state_n ^ (state_n >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state_n = (state_n ^ (state_n >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state_n ^ (state_n >> np.uint64(31))


@dataclass(frozen=True)
class Draws:
    """The random numbers of some pictures in one epoch."""

    seed: int
    epoch: int | NDArray[np.int64]
    """Or, where some pictures are seen more often than others, how often each was seen before."""
    index_n: NDArray[np.int64]
    """Which pictures, as places in the training set."""
    place_n: NDArray[np.int64] | None = None
    """Where they stand in the pixels at hand, if these are not those of the whole set."""

    @property
    def at_n(self) -> NDArray[np.int64]:
        """Where in the pixels at hand the pictures are."""
        return self.index_n if self.place_n is None else self.place_n

    def flips(self) -> NDArray[np.bool_]:
        """Whether each picture is mirrored: half of them in even epochs, the others in odd ones.

        So both sides of a picture are seen equally often, and never one of them twice in a row (Jordan, "94% on
        CIFAR-10 in 3.29 seconds on a single GPU", 2024).
        """
        first_n = uniform(self.seed, 0, self.index_n, Stream.FLIP) < 0.5
        flipped_n: NDArray[np.bool_] = first_n ^ (np.asarray(self.epoch) % 2 == 1)
        return flipped_n

    def offsets(self, stream: Stream, most: int) -> NDArray[np.int64]:
        """A whole number from −most to most for each picture."""
        return np.floor(self.unit(stream) * (2 * most + 1)).astype(np.int64) - most

    def keys(self, stream: Stream) -> NDArray[np.int64]:
        """64 random bits for each picture."""
        return _hashed(self.seed, self.epoch, self.index_n, stream).view(np.int64)

    def unit(self, stream: Stream) -> NDArray[np.float64]:
        """A number in [0, 1) for each picture."""
        return uniform(self.seed, self.epoch, self.index_n, stream)

    def between(self, stream: Stream, low: float, high: float) -> NDArray[np.float64]:
        """A number in [low, high) for each picture, all equally likely."""
        return low + (high - low) * self.unit(stream)

    def beta(self, stream: Stream, alpha: float) -> NDArray[np.float64]:
        """A number in [0, 1] for each picture, distributed as Beta(alpha, alpha)."""
        return np.asarray(special.betaincinv(alpha, alpha, self.unit(stream)), np.float64)

    def __getitem__(self, which: NDArray[np.int64]) -> Draws:
        """Those of some of these pictures, by their place among them."""
        places = None if self.place_n is None else self.place_n[which]
        return Draws(self.seed, of_some(self.epoch, which), self.index_n[which], places)


def of_some(epoch: int | NDArray[np.int64], which: NDArray[np.int64] | slice) -> int | NDArray[np.int64]:
    """The epoch of some pictures, by their place: their own, or the one that all share."""
    return epoch if isinstance(epoch, int) else epoch[which]
