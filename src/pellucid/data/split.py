"""Choosing among labelled pictures, the same share of every class, and telling pictures apart."""

from __future__ import annotations

import hashlib
import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from pellucid.data.decode import unreadable
from pellucid.data.images import Images

# One stream of random numbers for each use, so that sampling first does not change what a split would have chosen.
_HOLD_OUT, _SAMPLE = 1, 2


def stratified(
    labels: NDArray[np.int64], share: float, seed: int, *, seen: NDArray[np.bool_] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split N pictures in two: indices kept, and indices held out, `share` of every class; both in ascending order.

    A class of two pictures or more has at least one on either side; a class of one is kept. Pictures that are `seen`
    are held out only where a class has no others left. The same labels, share and seed give the same split on every
    machine.
    """
    held = []
    for members, n in _shuffled(labels, (seed, _HOLD_OUT)):
        count = _rounded(share * n)
        if seen is not None:
            members = members[np.argsort(seen[members], kind="stable")]  # noqa: PLW2901 (the same ones, reordered)
        held.append(members[: min(max(count, 1), n - 1)])
    held_out = np.sort(np.concatenate(held)) if held else np.empty(0, np.int64)
    return np.setdiff1d(np.arange(len(labels)), held_out), held_out


def sample(labels: NDArray[np.int64], share: float, seed: int) -> NDArray[np.int64]:
    """Indices of `share` of the pictures of every class, in ascending order; at least two of a class that has them.

    Two, so that the sample can still be split for validation.
    """
    kept = [members[: max(_rounded(share * n), min(2, n))] for members, n in _shuffled(labels, (seed, _SAMPLE))]
    return np.sort(np.concatenate(kept)) if kept else np.empty(0, np.int64)


def digest(data: bytes | memoryview) -> str:
    """What pictures are known again by: 16 hexadecimal digits of BLAKE2b over their bytes.

    64 bits: of a million pictures, two different ones share a digest with a chance of 1 in 37 million.
    """
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def digests(images: Images) -> list[str]:
    """The `digest` of each picture's file as it is on the disk, or of its pixels where there is no file.

    Raises BadImage for a file that cannot be read.
    """
    if images.pixels is not None:
        return [digest(np.ascontiguousarray(x).data.cast("B")) for x in images.pixels]
    files = images.files or ()

    def of_file(n: int) -> str:
        try:
            return digest(files[n].read_bytes())
        except OSError as error:
            raise unreadable(error, images.names[n]) from error

    with ThreadPoolExecutor() as pool:
        return list(pool.map(of_file, range(len(files))))


def _shuffled(labels: NDArray[np.int64], seeds: tuple[int, int]) -> list[tuple[NDArray[np.int64], int]]:
    """Each class's indices in random order, and how many they are."""
    generator = np.random.Generator(np.random.PCG64(seeds))
    groups = (np.flatnonzero(labels == label) for label in np.unique(labels))
    return [(generator.permutation(group), len(group)) for group in groups]


def _rounded(value: float) -> int:
    # Python's round() takes 2.5 to 2 and 3.5 to 4, which nobody expects of a share.
    return math.floor(value + 0.5)
