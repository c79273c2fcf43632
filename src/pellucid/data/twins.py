"""Near doubles: pictures that are the same but for their size, their compression or a touch of light.

Each picture leaves a signature: 16×16 colours, the whole picture scaled down to them. What all pictures of a
set have in common (a studio's background, the frame of a microscope) is taken off first, so that only what is a
picture's own counts. The hash is that of the low frequencies of its cosine transform, one bit each: above the median or
not. Two pictures whose hashes differ in at most `BITS` of 63 bits are compared: they are near doubles when the
correlation of their grey levels is at least `ALIKE`, and the colours differ by at most `COLOUR` grey levels.

Of the 60,000 pictures of CIFAR-10 that leaves 678 pairs; all have the same label, where chance would have one in ten,
and of 60 drawn at random 59 are the same photograph to the eye. Of 400 photographs of flowers, all different, it leaves
none: the nearest hashes differ in 14 bits. A copy that was cut by more than 2 % at each side, turned or mirrored is not
found.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pellucid.data.decode import Reduced

#: Rows and columns of a signature.
SIDE = 16

#: Bits by which hashes of near doubles may differ.
BITS = 8

#: The least correlation of near doubles.
ALIKE = 0.95

#: The largest difference of near doubles' colours (root mean square of Cb and Cr).
COLOUR = 25.0

#: The least side of a picture, in pixels, that is looked at: smaller ones (handwritten digits, say) show too little.
LEAST = 32

#: The least spread of a signature's grey levels: a picture of fog is like every other.
CONTRAST = 6.0

# How many a set must have before what they have in common is mostly taken for the set's own.
_PRIOR = 20.0

# Neighbours that are compared in a bucket of the search, so that a million frames of one film take no year.
_NEIGHBOURS = 256

# Signatures worked on at a time.
_PART = 4096

#: The signatures (n×16×16×3) of the pictures at n places.
Shown: TypeAlias = Callable[[NDArray[np.int64]], NDArray[np.uint8]]

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_FREQUENCIES = np.cos(np.pi * (2 * np.arange(SIDE)[None] + 1) * np.arange(8)[:, None] / (2 * SIDE)).astype(np.float32)


def signature(found: Reduced) -> NDArray[np.uint8]:
    """A picture's signature, 16×16×3, whatever its proportions."""
    left, top, right, bottom = found.box
    # Whole pixels first: that is several times as fast.
    most = max(1, int(min(right - left, bottom - top) / (2 * SIDE)))
    image = found.image.reduce(most) if most > 1 else found.image
    box = (left / most, top / most, right / most, bottom / most)
    return np.array(image.resize((SIDE, SIDE), Image.Resampling.BILINEAR, box=box))


def near_doubles(shown: Shown, among: NDArray[np.int64]) -> NDArray[np.int64]:
    """Pairs of near doubles, (pairs, 2), each in ascending order, among the pictures at `among`.

    `shown` gives the signatures of pictures by their places; a few thousand are asked for at a time. Pairs whose hashes
    differ by 6 bits are all found, and of those by 8 about 93 in 100.
    """
    common = _common(shown, among)
    hashes, flat = _hashes(shown, among, common)
    among, hashes = among[~flat], hashes[~flat]
    found = _candidates(hashes)
    pairs = np.sort(among[found], axis=1)
    kept = [
        part[_alike(shown(part[:, 0]), shown(part[:, 1]), common)]
        for part in (pairs[start : start + _PART] for start in range(0, len(pairs), _PART))
    ]
    out = np.concatenate(kept) if kept else np.empty((0, 2), np.int64)
    return out[np.lexsort((out[:, 1], out[:, 0]))]


def _common(shown: Shown, among: NDArray[np.int64]) -> NDArray[np.float32]:
    """What is taken off every picture's grey levels: their mean, as far as there are enough to tell."""
    total = np.zeros((SIDE, SIDE), np.float64)
    for start in range(0, len(among), _PART):
        total += _luma(shown(among[start : start + _PART])).sum(0)
    return (total / (len(among) + _PRIOR)).astype(np.float32)


def _luma(signatures: NDArray[np.uint8]) -> NDArray[np.float32]:
    grey: NDArray[np.float32] = signatures.astype(np.float32) @ _LUMA
    return grey


def _hashes(
    shown: Shown, among: NDArray[np.int64], common: NDArray[np.float32]
) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
    """The 63-bit hash of each picture, and whether it shows too little for one."""
    hashes, flat = np.empty(len(among), np.uint64), np.empty(len(among), np.bool_)
    powers = np.uint64(1) << np.arange(63, dtype=np.uint64)
    for start in range(0, len(among), _PART):
        grey_nhw = _luma(shown(among[start : start + _PART])) - common
        waves_n = np.einsum("uh,nhw,vw->nuv", _FREQUENCIES, grey_nhw, _FREQUENCIES, optimize=True)
        # Without the first, which is only how light the picture is.
        waves_n = waves_n.reshape(len(grey_nhw), 64)[:, 1:]
        above_n = waves_n > np.median(waves_n, axis=1, keepdims=True)
        hashes[start : start + _PART] = above_n.astype(np.uint64) @ powers
        flat[start : start + _PART] = grey_nhw.std(axis=(1, 2)) < CONTRAST
    return hashes, flat


def _candidates(hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Pairs of hashes that differ in at most BITS bits, each once.

    Hashes that differ in 6 bits agree in 2 of their 8 bytes at least. So for every 2 bytes the hashes are sorted by
    these, and neighbours that agree in them are compared: no more work than the sorting, unless very many agree.
    """
    bytes_n8 = hashes.astype("<u8").view(np.uint8).reshape(-1, 8).astype(np.uint32)
    found = [np.empty(0, np.int64)]
    for a, b in itertools.combinations(range(8), 2):
        key = bytes_n8[:, a] << 8 | bytes_n8[:, b]
        order = np.lexsort((hashes, key))
        key, sorted_hashes = key[order], hashes[order]
        at = np.arange(len(order))
        for step in range(1, _NEIGHBOURS + 1):
            at = at[at + step < len(order)]
            at = at[key[at] == key[at + step]]
            if not len(at):
                break
            near = at[np.bitwise_count(sorted_hashes[at] ^ sorted_hashes[at + step]) <= BITS]
            first, second = order[near], order[near + step]
            found.append(np.minimum(first, second) * len(hashes) + np.maximum(first, second))
    pairs = np.unique(np.concatenate(found))
    return np.stack([pairs // max(1, len(hashes)), pairs % max(1, len(hashes))], axis=1)


def _alike(a: NDArray[np.uint8], b: NDArray[np.uint8], common: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which of these pairs (each N×16×16×3) show the same."""
    grey_a, grey_b = _luma(a), _luma(b)
    own_a, own_b = ((grey - common).reshape(len(grey), -1) for grey in (grey_a, grey_b))
    own_a, own_b = (own - own.mean(axis=1, keepdims=True) for own in (own_a, own_b))
    spread = np.sqrt((own_a**2).sum(axis=1) * (own_b**2).sum(axis=1))
    correlation = (own_a * own_b).sum(axis=1) / np.maximum(spread, 1e-6)
    # Blue and red less grey, as Cb and Cr are but for their scale.
    tint_a, tint_b = ((x[..., ::2].astype(np.float32) - grey[..., None]) for x, grey in ((a, grey_a), (b, grey_b)))
    scale = np.array([0.713, 0.564], np.float32)
    apart = np.sqrt((((tint_a - tint_b) * scale) ** 2).mean(axis=(1, 2, 3)))
    alike: NDArray[np.bool_] = (correlation >= ALIKE) & (apart <= COLOUR)
    return alike
