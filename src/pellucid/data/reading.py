"""One pass over picture files, in threads: each is opened once, and all that anybody asks of it is taken from it.

That is its pixels at the network's size, what the audit compares (digests, a signature, the size), and the sums that
mean and deviation are made of.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pellucid.data.cores import usable_cores
from pellucid.data.decode import FORMATS, BadImage, Header, Reduced, refuse_irregular, strict, unreadable
from pellucid.data.images import Images
from pellucid.data.preprocess import Preprocess
from pellucid.data.twins import SIDE, signature

# Pictures handed to a thread at a time, so that a million of them are not a million tasks waiting.
_TASK = 16

#: Receives the pixels (n×H×W×C) and signatures (n×16×16×3) of `n` pictures, and the place of the first.
Sink = Callable[[int, NDArray[np.uint8], NDArray[np.uint8]], None]

#: What is kept of each picture, and as what.
FIELDS: dict[str, np.dtype[Any]] = {
    "bytes": np.dtype(np.int64),
    "mtime": np.dtype(np.int64),
    "digest": np.dtype(np.uint64),
    "pixels_digest": np.dtype(np.uint64),
    "width": np.dtype(np.int32),
    "height": np.dtype(np.int32),
    "grey": np.dtype(np.bool_),
    "format": np.dtype(np.uint8),
}


@dataclass(frozen=True, eq=False)
class Facts:
    """What is known of N pictures, in their order; nothing is known of those in `bad`."""

    columns: dict[str, NDArray[Any]]
    """`FIELDS` by name: size in bytes and time of modification (ns); digests of the file, and of what it shows (its
    size, its pixels at the network's size, its signature); width and height as seen, whether there is one channel only,
    and the place of the format in `decode.FORMATS`."""
    sums: NDArray[np.int64]
    """(N, channels, 2): the sum of the pixels at the network's size, and that of their squares."""
    bad: dict[int, BadImage]

    @classmethod
    def empty(cls, n: int, channels: int) -> Facts:
        """Room for `n` pictures."""
        columns = {name: np.zeros(n, dtype) for name, dtype in FIELDS.items()}
        return cls(columns, np.zeros((n, channels, 2), np.int64), {})

    def __len__(self) -> int:
        return len(self.sums)

    def good(self) -> NDArray[np.int64]:
        """The places of the pictures that can be used."""
        return np.setdiff1d(np.arange(len(self)), np.fromiter(self.bad, np.int64, len(self.bad)))


def read_files(
    files: Sequence[Path],
    names: Sequence[str],
    preprocess: Preprocess,
    sink: Sink,
    *,
    progress: Callable[[int, int], None] | None = None,
    facts: Facts | None = None,
) -> Facts:
    """Read all files; `names` is what errors call them. What cannot be used is in the facts' `bad`, and black.

    With `facts`, these are filled; those of a picture are complete before `sink` receives it.

    `sink` is called from several threads at once, for pictures 0…15, 16…31 and so on in any order; `progress` from the
    calling thread, with the pictures done and all of them.
    """
    known = Facts.empty(len(files), preprocess.channels) if facts is None else facts

    def task(start: int) -> int:
        stop = min(start + _TASK, len(files))
        pixels = np.zeros((stop - start, *preprocess.size, preprocess.channels), np.uint8)
        signatures = np.zeros((stop - start, SIDE, SIDE, 3), np.uint8)
        for n in range(start, stop):
            try:
                raw = _entered(known, n, files[n], names[n])
                found = preprocess.decoded(raw, names[n])
                pixels[n - start] = preprocess.fit_reduced(found)
                signatures[n - start] = signature(found)
                _describe(known, n, found.header, pixels[n - start], signatures[n - start])
            except BadImage as bad:
                known.bad[n] = bad
        known.sums[start:stop] = _sums(pixels)
        sink(start, pixels, signatures)
        return stop - start

    done = 0
    pool = ThreadPoolExecutor(usable_cores())
    with strict:
        try:
            for count in pool.map(task, range(0, len(files), _TASK)):
                done += count
                if progress is not None:
                    progress(done, len(files))
        finally:
            # After Ctrl-C the tasks that wait are dropped.
            pool.shutdown(cancel_futures=True)
    return known


def read_arrays(images: Images, sink: Callable[[int, NDArray[np.uint8]], None]) -> Facts:
    """The facts of pictures that are arrays already, at their own size; `sink` receives their signatures."""
    assert images.pixels is not None
    x_nhwc = images.pixels
    N, H, W, C = x_nhwc.shape
    facts = Facts.empty(N, C)
    for n, x_hwc in enumerate(x_nhwc):
        rgb = x_hwc if C == 3 else np.repeat(x_hwc, 3, axis=2)
        facts.columns["digest"][n] = facts.columns["pixels_digest"][n] = _digest(np.ascontiguousarray(x_hwc))
        sink(n, signature(Reduced(Image.fromarray(rgb), (0, 0, W, H)))[None])
    facts.columns["width"][:], facts.columns["height"][:], facts.columns["grey"][:] = W, H, C == 1
    return facts


def read_file(file: Path, name: str) -> tuple[bytes, os.stat_result]:
    """A picture file's bytes, and its status when it was opened. Raises BadImage."""
    status = refuse_irregular(file, name)
    try:
        return file.read_bytes(), status
    except OSError as error:
        raise unreadable(error, name) from error


def hexadecimal(digest: int) -> str:
    """A digest of the facts as `pellucid.data.split.digest` writes it."""
    return f"{digest:016x}"


def _entered(facts: Facts, n: int, file: Path, name: str) -> bytes:
    raw, status = read_file(file, name)
    facts.columns["bytes"][n], facts.columns["mtime"][n] = status.st_size, status.st_mtime_ns
    facts.columns["digest"][n] = _digest(raw)
    return raw


def _describe(facts: Facts, n: int, header: Header, pixels: NDArray[np.uint8], shown: NDArray[np.uint8]) -> None:
    size = np.array([header.width, header.height], np.int32)
    facts.columns["pixels_digest"][n] = _digest(size.tobytes() + pixels.tobytes() + shown.tobytes())
    facts.columns["width"][n], facts.columns["height"][n] = size
    facts.columns["grey"][n] = header.grey
    # A stereo JPEG (MPO) is a JPEG here.
    facts.columns["format"][n] = FORMATS.index(header.format) if header.format in FORMATS else 0


def _digest(data: bytes | NDArray[np.uint8]) -> int:
    """As `pellucid.data.split.digest`, as a number."""
    view = data if isinstance(data, bytes) else data.data.cast("B")
    return int.from_bytes(hashlib.blake2b(view, digest_size=8).digest(), "big")


def _sums(x_nhwc: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The sum of each channel's pixels, and of their squares: (N, channels, 2). Below 2⁵³, so float64 is exact."""
    x_npc = x_nhwc.reshape(len(x_nhwc), -1, x_nhwc.shape[3]).astype(np.float64)
    return np.stack([np.einsum("npc->nc", x_npc), np.einsum("npc,npc->nc", x_npc, x_npc)], axis=2).astype(np.int64)
