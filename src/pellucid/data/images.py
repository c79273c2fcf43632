"""Labelled pictures, before anything is decoded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Split = Literal["train", "val", "test"]


class Lazy(Protocol):
    """Pictures N×H×W×C (uint8) that are fetched when they are wanted, and may be more than the memory holds."""

    @property
    def shape(self) -> tuple[int, ...]:
        """N, H, W, C."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, which: slice, /) -> NDArray[np.uint8]: ...

    def take(self, index_n: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The pictures at these places, as an array of their own."""
        ...


def picked(pixels_nhwc: NDArray[np.uint8] | Lazy, index_n: NDArray[np.int64]) -> NDArray[np.uint8]:
    """The pictures at these places, wherever they are kept."""
    return pixels_nhwc[index_n] if isinstance(pixels_nhwc, np.ndarray) else pixels_nhwc.take(index_n)


@dataclass(frozen=True, eq=False)
class Images:
    """The pictures of one split: files still to be read, or pixels where the format is an array already."""

    names: tuple[str, ...]
    """What each is called in reports, each once: a path in posix style, `daisy/a.jpg`, or `train/00017`."""
    labels: NDArray[np.int64]
    """(N,), indices of the source's classes."""
    files: tuple[Path, ...] | None
    pixels: NDArray[np.uint8] | None
    """N×H×W×C. Exactly one of `files` and `pixels` is there."""

    def __post_init__(self) -> None:
        """Hold the parts together; a breach is a defect of the reader's, not of the data's."""
        assert (self.files is None) != (self.pixels is None)
        parts = self.files if self.files is not None else self.pixels
        assert parts is not None
        assert len(self.names) == len(self.labels) == len(parts)

    def __len__(self) -> int:
        return len(self.names)

    def take(self, indices: NDArray[np.int64]) -> Images:
        """The pictures at `indices`, in that order."""
        return Images(
            names=tuple(self.names[i] for i in indices),
            labels=self.labels[indices],
            files=None if self.files is None else tuple(self.files[i] for i in indices),
            pixels=None if self.pixels is None else self.pixels[indices],
        )


class Skipped(NamedTuple):
    """A picture that is left out, and why: a line of a run's `skipped.csv`."""

    file: str
    label: str
    split: str
    kind: str
    detail: str


@dataclass(frozen=True, eq=False)
class Source:
    """Labelled pictures and what is known of them."""

    name: str
    """What to call the data, as in a run's name: `mnist`, or the last part of a path."""
    place: str
    """Where it was read from."""
    kind: Literal["named", "folder", "table"]
    classes: tuple[str, ...]
    splits: dict[Split, Images]
    flip: bool
    """Whether a mirrored picture keeps its label."""
    resize: Literal["crop", "stretch", "pad"]
    """How the pictures are best made a network's size."""
    notes: tuple[str, ...] = ()
    """What the reader should tell the user, one sentence each."""
    empty: tuple[tuple[Split, str, str], ...] = ()
    """Classes that exist in a split and have no picture there: the split, the class, and where it stands."""
    merged: tuple[tuple[str, str], ...] = ()
    """Folders taken for a class of another folder's: where each stands, and a sentence on it."""
    left_out: tuple[Skipped, ...] = ()
    """Pictures that are not among the splits'."""
