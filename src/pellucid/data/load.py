"""Pictures into memory: decoded, at the network's size, as uint8."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pellucid.data.decode import BadImage, unreadable
from pellucid.data.images import Images
from pellucid.data.preprocess import Preprocess
from pellucid.data.split import digest, digests
from pellucid.errors import DataError

#: The largest picture file that is read, in bytes.
MAX_BYTES = 1 << 30

#: The share of the available memory that the pictures may take; training needs the rest.
MEMORY_SHARE = 0.7

# Pictures handed to a thread at a time, so that a million of them are not a million tasks waiting.
_TASK = 16


@dataclass(frozen=True, eq=False)
class Loaded:
    """Pictures in memory, in the order of the images they were loaded from, without the bad ones."""

    pixels: NDArray[np.uint8]
    """N×H×W×C, as `Preprocess.pixels` gives them."""
    labels: NDArray[np.int64]
    names: tuple[str, ...]
    bad: tuple[BadImage, ...]
    """The pictures left out, and why."""
    raw_digests: tuple[str, ...]
    """The `pellucid.data.split.digest` of each picture's file (or pixels) before preprocessing."""


def load(
    images: Images,
    preprocess: Preprocess,
    *,
    progress: Callable[[int, int], None] | None = None,
    max_bad_share: float = 0.01,
) -> Loaded:
    """Decode all pictures, in threads, each file read once.

    A bad picture is left out and named in `bad`. `progress` is called from the calling thread with the pictures done
    and all of them. Raises DataError when the pictures would not fit in memory, before anything is read; when more than
    `max_bad_share` of them are bad (one bad picture is always forgiven, unless none is left); and when a class has
    pictures, but not one good one.
    """
    N, (H, W), C = len(images), preprocess.size, preprocess.channels
    _refuse_too_much(N, (H, W, C))
    if images.pixels is not None:
        pixels = preprocess.fit_batch(images.pixels)
        if progress is not None:
            progress(N, N)
        return Loaded(pixels, images.labels, images.names, (), tuple(digests(images)))
    files = images.files or ()
    pixels = np.empty((N, H, W, C), np.uint8)
    seen = [""] * N
    bad: dict[int, BadImage] = {}

    def task(start: int) -> int:
        numbers = range(start, min(start + _TASK, N))
        for n in numbers:
            try:
                raw = _read(files[n], images.names[n])
                seen[n] = digest(raw)
                pixels[n] = preprocess.pixels(raw, images.names[n])
            except BadImage as error:
                bad[n] = error
        return len(numbers)

    done = 0
    pool = ThreadPoolExecutor(workers())
    try:
        for count in pool.map(task, range(0, N, _TASK)):
            done += count
            if progress is not None:
                progress(done, N)
    finally:
        # After Ctrl-C the tasks that wait are dropped.
        pool.shutdown(cancel_futures=True)
    _refuse_too_bad(images, bad, max_bad_share)
    good = [n for n in range(N) if n not in bad]
    for to, n in enumerate(good if bad else ()):  # in place: a copy would need the memory twice
        pixels[to] = pixels[n]
    return Loaded(
        pixels=pixels[: len(good)],
        labels=images.labels[good],
        names=tuple(images.names[n] for n in good),
        bad=tuple(bad[n] for n in sorted(bad)),
        raw_digests=tuple(seen[n] for n in good),
    )


def workers() -> int:
    """How many threads may decode at once: the cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def available_memory() -> int | None:
    """Bytes that can be taken without swapping, within a container's limit; None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError, StopIteration):
        return None
    control = Path("/sys/fs/cgroup")
    try:
        limit = int((control / "memory.max").read_text(encoding="ascii"))
        used = int((control / "memory.current").read_text(encoding="ascii"))
        pages = (line.split() for line in (control / "memory.stat").read_text(encoding="ascii").splitlines())
        # Pages of files that the kernel gives back when asked.
        idle = next((int(value) for key, value in pages if key == "inactive_file"), 0)
    except (OSError, ValueError):
        return free
    return max(0, min(free, limit - used + idle))


def _refuse_too_much(count: int, shape: tuple[int, int, int]) -> None:
    free = available_memory()
    needed = count * shape[0] * shape[1] * shape[2]
    if free is not None and needed > MEMORY_SHARE * free:
        sides = "×".join(map(str, shape))
        raise DataError(
            f"{count:,} pictures of {sides} take {needed / 1e9:,.1f} GB, and {free / 1e9:,.1f} GB of memory are "
            f"available, of which {MEMORY_SHARE:.0%} may be used: choose a smaller --size or --sample"
        )


def _read(file: Path, name: str) -> bytes:
    try:
        size = file.stat().st_size
        if size > MAX_BYTES:
            detail = f"the file has {size:,} bytes, more than the {MAX_BYTES:,} that are read: scale it down first"
            raise BadImage("too-large", name, detail)
        return file.read_bytes()
    except OSError as error:
        raise unreadable(error, name) from error


def _refuse_too_bad(images: Images, bad: dict[int, BadImage], max_bad_share: float) -> None:
    if not bad:
        return
    first = "; ".join(str(bad[n]) for n in sorted(bad)[:3])
    allowed = max(1, int(max_bad_share * len(images)))
    if len(bad) > allowed or len(bad) == len(images):
        more = f"; and {len(bad) - 3:,} more" if len(bad) > 3 else ""
        raise DataError(f"{len(bad):,} of {len(images):,} pictures cannot be used: {first}{more}")
    lost = np.setdiff1d(images.labels, np.delete(images.labels, sorted(bad)))
    if len(lost):
        n = next(n for n in sorted(bad) if images.labels[n] == lost[0])
        raise DataError(f"not one good picture is left of the class of {images.names[n]}: {bad[n]}")
