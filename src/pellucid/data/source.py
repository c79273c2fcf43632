"""What `pellucid train DATA` is given, opened: a data set's name, a folder, or a table.

A bare name of a data set (`mnist`) always means that data set, whatever stands in the current folder, so that a recipe
means the same everywhere; a folder of that name is written `./mnist`, or given as a `pathlib.Path`.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from pellucid.data.decode import BadImage, Header, header
from pellucid.data.folder import open_folder
from pellucid.data.images import Images, Source, Split
from pellucid.data.named import NAMES, open_named
from pellucid.data.table import open_metadata, open_table
from pellucid.errors import DataError, did_you_mean

__all__ = ["Images", "Source", "Split", "Understanding", "open_source", "understood"]

#: How many headers are read to learn the sizes of the pictures.
SAMPLE = 1000

_EXPECTED = (
    f"DATA is a data set's name ({', '.join(NAMES)}), a folder with one folder a class, a CSV of path,label, or a "
    "folder with metadata.csv or metadata.jsonl"
)


@dataclass(frozen=True)
class Understanding:
    """What is known of a source before anything is decoded."""

    classes: tuple[str, ...]
    counts: dict[Split, dict[str, int]]
    """Pictures of each class in each split."""
    sizes: dict[Literal["min", "median", "max"], tuple[int, int]]
    """Width and height in pixels, each on its own, over the pictures looked at."""
    grey: bool
    """Whether all pictures looked at have a single channel."""
    sampled: int
    """How many pictures were looked at: all, or an even sample of at most 1,000."""
    unreadable_headers: int
    """How many of these could not be read."""

    @property
    def channels(self) -> Literal[1, 3]:
        """What a network should be shown: 1 for grey pictures, else 3."""
        return 1 if self.grey else 3


def open_source(
    data: str | os.PathLike[str], *, training: bool = True, mismatch: bool = False, fetch: bool = True
) -> Source:
    """The labelled pictures that `data` means; nothing is decoded yet.

    With `training`, what cannot be trained on is refused: no pictures, an empty class, one class only, a class in val
    or test that train lacks, a row without its file; with `mismatch`, such classes are left out instead. Without
    `training`, the classes are those that are there. With `fetch`, a data set that is not on this machine is fetched.

    Raises DataError.
    """
    if data in NAMES:
        return open_named(str(data), fetch=fetch)
    if not os.fspath(data):
        raise DataError(f"no data is named: {_EXPECTED}")
    path = Path(data).expanduser()
    try:
        found = "folder" if path.is_dir() else "file" if path.is_file() else "other" if path.exists() else ""
    except OSError as error:
        raise DataError(f"{os.fspath(data)!r:.200} cannot be looked at ({error.strerror}): {_EXPECTED}") from error
    if found == "folder":
        found_table = open_metadata(path, training=training, mismatch=mismatch)
        return found_table or open_folder(path, training=training, mismatch=mismatch)
    if found == "file" and path.suffix.lower() in {".csv", ".jsonl"}:
        return open_table(path, training=training, mismatch=mismatch)
    if found:
        raise DataError(f"{path}: is neither a folder nor a table (unpack it first, if it is an archive): {_EXPECTED}")
    raise DataError(
        f"{os.fspath(data)!r} is neither a data set's name nor a path that exists: {_hint(path)}{_EXPECTED}"
    )


def understood(source: Source) -> Understanding:
    """Count the pictures and read the sizes in the headers of an even sample.

    Raises DataError when not one header of the sample can be read.
    """
    counts: dict[Split, dict[str, int]] = {}
    for split, images in source.splits.items():
        numbers = np.bincount(images.labels, minlength=len(source.classes))
        counts[split] = dict(zip(source.classes, numbers.tolist(), strict=True))
    if source.kind == "named":
        headers: list[Header | BadImage] = [
            Header(width=x.shape[2], height=x.shape[1], grey=x.shape[3] == 1)
            for x in (images.pixels for images in source.splits.values())
            if x is not None
        ]
        sampled = sum(map(len, source.splits.values()))
    else:
        headers = _headers(source)
        sampled = len(headers)
    good = [found for found in headers if isinstance(found, Header)]
    bad = [found for found in headers if isinstance(found, BadImage)]
    if not good:
        raise DataError(f"{source.place}: not one of {len(bad)} pictures looked at can be read; the first is {bad[0]}")
    sides = np.array([(found.width, found.height) for found in good])
    return Understanding(
        classes=source.classes,
        counts=counts,
        sizes={"min": _pair(sides.min(0)), "median": _pair(np.median(sides, 0)), "max": _pair(sides.max(0))},
        grey=all(found.grey for found in good),
        sampled=sampled,
        unreadable_headers=len(bad),
    )


def _headers(source: Source) -> list[Header | BadImage]:
    pictures = [
        pair for images in source.splits.values() for pair in zip(images.files or (), images.names, strict=True)
    ]
    chosen = np.unique(np.linspace(0, len(pictures) - 1, SAMPLE).round().astype(int))

    def read(n: int) -> Header | BadImage:
        file, name = pictures[n]
        try:
            return header(file, name)
        except BadImage as bad:
            return bad

    # Threads, since on a network drive each file is a wait.
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(read, chosen.tolist()))


def _pair(sides: np.ndarray[tuple[int], np.dtype[np.float64]]) -> tuple[int, int]:
    return round(float(sides[0])), round(float(sides[1]))


def _hint(path: Path) -> str:
    """A near name, among the data sets and what stands beside where the path points."""
    try:
        beside = [entry.name for entry in path.parent.iterdir() if not entry.name.startswith(".")]
    except (OSError, ValueError):
        beside = []
    near = did_you_mean(path.name, [*NAMES, *sorted(beside)])
    return f"{near} " if near.startswith("did") else ""
