"""Pictures decoded, at the network's size, as uint8: in memory, or read when they are wanted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from pellucid.data.cores import usable_cores
from pellucid.data.decode import BadImage
from pellucid.data.images import Images, Lazy
from pellucid.data.preprocess import Preprocess
from pellucid.data.reading import hexadecimal, read_file, read_files
from pellucid.data.split import digests
from pellucid.errors import DataError

#: The share of the available memory that the pictures may take; training needs the rest.
MEMORY_SHARE = 0.7


@dataclass(frozen=True, eq=False)
class Rows:
    """Some rows of an array that may be larger than memory, in an order of their own."""

    pixels: NDArray[np.uint8]
    """All rows there are: memory-mapped, as a rule."""
    row_n: NDArray[np.int64]

    @property
    def shape(self) -> tuple[int, ...]:
        """N, H, W, C."""
        return len(self.row_n), *self.pixels.shape[1:]

    def __len__(self) -> int:
        return len(self.row_n)

    def __getitem__(self, which: slice, /) -> NDArray[np.uint8]:
        return np.asarray(self.pixels[self.row_n[which]])

    def take(self, index_n: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The pictures at these places, as an array of their own."""
        return np.asarray(self.pixels[self.row_n[index_n]])


@dataclass(frozen=True, eq=False)
class Streamed:
    """Pictures that are decoded anew whenever they are wanted."""

    files: tuple[Path, ...]
    names: tuple[str, ...]
    preprocess: Preprocess

    @property
    def shape(self) -> tuple[int, ...]:
        """N, H, W, C."""
        return len(self.files), *self.preprocess.size, self.preprocess.channels

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, which: slice, /) -> NDArray[np.uint8]:
        return self.take(np.arange(len(self.files))[which])

    def take(self, index_n: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The pictures at these places. Raises BadImage for one that has become unreadable."""

        def one(n: int) -> NDArray[np.uint8]:
            return self.preprocess.pixels(read_file(self.files[n], self.names[n])[0], self.names[n])

        with ThreadPoolExecutor(usable_cores()) as pool:
            found = list(pool.map(one, index_n.tolist()))
        return np.stack(found) if found else np.empty((0, *self.shape[1:]), np.uint8)


P_co = TypeVar("P_co", bound="NDArray[np.uint8] | Lazy", covariant=True)


@dataclass(frozen=True, eq=False)
class Loaded(Generic[P_co]):
    """Pictures at the network's size, in the order of the images they were loaded from, without the bad ones."""

    pixels: P_co
    """N×H×W×C, as `Preprocess.pixels` gives them."""
    labels: NDArray[np.int64]
    names: tuple[str, ...]
    bad: tuple[BadImage, ...]
    """The pictures left out, and why."""
    raw_digests: tuple[str, ...]
    """The `pellucid.data.split.digest` of each picture's file (or pixels) before preprocessing."""


#: Pictures in memory, or fetched when they are wanted.
Shown: TypeAlias = "Loaded[NDArray[np.uint8] | Lazy]"


def load(
    images: Images,
    preprocess: Preprocess,
    *,
    progress: Callable[[int, int], None] | None = None,
    max_bad_share: float = 0.01,
) -> Loaded[NDArray[np.uint8]]:
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
    pixels = np.empty((N, H, W, C), np.uint8)

    def keep(start: int, part: NDArray[np.uint8], _signatures: NDArray[np.uint8]) -> None:
        pixels[start : start + len(part)] = part

    facts = read_files(images.files or (), images.names, preprocess, keep, progress=progress)
    refuse_too_bad(images, facts.bad, max_bad_share)
    good = facts.good()
    for to, n in enumerate(good.tolist() if facts.bad else ()):  # in place: a copy would need the memory twice
        pixels[to] = pixels[n]
    return Loaded(
        pixels=pixels[: len(good)],
        labels=images.labels[good],
        names=tuple(images.names[n] for n in good),
        bad=tuple(facts.bad[n] for n in sorted(facts.bad)),
        raw_digests=tuple(hexadecimal(d) for d in facts.columns["digest"][good].tolist()),
    )


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


def fits(count: int, shape: tuple[int, int, int]) -> bool:
    """Whether so many pictures of this height, width and channels have room in memory."""
    free = available_memory()
    return free is None or count * shape[0] * shape[1] * shape[2] <= MEMORY_SHARE * free


def _refuse_too_much(count: int, shape: tuple[int, int, int]) -> None:
    free = available_memory()
    needed = count * shape[0] * shape[1] * shape[2]
    if free is not None and not fits(count, shape):
        sides = "×".join(map(str, shape))
        raise DataError(
            f"{count:,} pictures of {sides} take {needed / 1e9:,.1f} GB, and {free / 1e9:,.1f} GB of memory are "
            f"available, of which {MEMORY_SHARE:.0%} may be used: choose a smaller --size or --sample"
        )


def refuse_too_bad(images: Images, bad: Mapping[int, BadImage], max_bad_share: float) -> None:
    """Refuse pictures of which more than `max_bad_share` are bad (one is forgiven), or all of a class. DataError."""
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
