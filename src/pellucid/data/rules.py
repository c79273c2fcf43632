"""From the pictures that a folder or a table names to a `Source`, or a refusal that says what is wrong with them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from pellucid.data.images import Images, Skipped, Source, Split
from pellucid.errors import DataError, did_you_mean

#: What folders and tables may call a split, in lower case.
SPLITS: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}


class Row(NamedTuple):
    """One labelled picture."""

    split: Split
    label: str
    name: str
    """A relative path in posix style, each once."""
    file: Path


def gather(
    rows: Sequence[Row],
    *,
    place: Path,
    kind: Literal["folder", "table"],
    training: bool,
    mismatch: bool = False,
    empty: Collection[tuple[Split, str, str]] = (),
    merged: Sequence[tuple[str, str]] = (),
    notes: Sequence[str] = (),
) -> Source:
    """The source made of these rows; `empty` are classes that exist and have no picture, and where they stand.

    Raises DataError when there is no picture, and, where it is for training, when there is no training picture, an
    empty class, one class only, or a class in val or test that train lacks. With `mismatch`, empty classes are passed
    over, and pictures of classes that train lacks are left out.
    """
    if not rows:
        remedy = "one folder a class, and pictures in each" if kind == "folder" else "a row for each picture"
        raise DataError(f"{place}: no pictures in it: expected {remedy}")
    of_split: dict[Split, list[Row]] = {}
    for row in sorted(rows, key=lambda row: row.name):
        of_split.setdefault(row.split, []).append(row)
    left_out: list[Skipped] = []
    if training and mismatch:
        left_out = _without_strangers(of_split)
    if training:
        _refuse(of_split, place, () if mismatch else empty)
        rows = [row for part in of_split.values() for row in part]
    classes = tuple(sorted({row.label for row in rows}))
    index = {label: k for k, label in enumerate(classes)}
    mirrored = flippable(classes)
    if not mirrored:
        notes = (*notes, "Pictures are not mirrored: the classes look like characters, or name a side.")
    return Source(
        name=_name(place.resolve()),
        place=str(place),
        kind=kind,
        classes=classes,
        splits={
            split: Images(
                names=tuple(row.name for row in of_split[split]),
                labels=np.array([index[row.label] for row in of_split[split]], np.int64),
                files=tuple(row.file for row in of_split[split]),
                pixels=None,
            )
            for split in ("train", "val", "test")
            if split in of_split
        },
        flip=mirrored,
        resize="crop",
        notes=tuple(notes),
        empty=tuple(sorted(empty)),
        merged=tuple(merged),
        left_out=tuple(left_out),
    )


def _without_strangers(of_split: dict[Split, list[Row]]) -> list[Skipped]:
    """Take out the pictures of classes that train lacks; these."""
    known = {row.label for row in of_split.get("train", ())}
    left_out = []
    for split in [split for split in of_split if split != "train" and known]:
        for row in of_split[split]:
            if row.label not in known:
                detail = f"train has no class {row.label!r}"
                left_out.append(Skipped(row.name, row.label, split, "class-mismatch", detail))
        of_split[split] = [row for row in of_split[split] if row.label in known]
        if not of_split[split]:
            del of_split[split]
    return left_out


def _refuse(of_split: dict[Split, list[Row]], place: Path, empty: Collection[tuple[Split, str, str]]) -> None:
    """The rules of training."""
    if "train" not in of_split:
        raise DataError(f"{place}: no training pictures, only {' and '.join(of_split)}: add a train split")
    bare = sorted(label for split, label, _ in empty if split == "train")
    if bare:
        more = f" (and {len(bare) - 1} more)" if len(bare) > 1 else ""
        raise DataError(
            f"{place}: the class {bare[0]!r}{more} has no pictures: add some, or remove its folder, or train "
            "without it with --accept class-mismatch"
        )
    known = {row.label for row in of_split["train"]}
    for split in ("val", "test"):
        for row in of_split.get(split, ()):
            if row.label not in known:
                lacks = f"{split} has the class {row.label!r} (as {row.name}), which train lacks"
                near = did_you_mean(row.label, sorted(known)[:1000])
                # A thousand known classes are no help.
                near = f"{near} " if near.startswith("did") or len(known) <= 20 else ""
                raise DataError(
                    f"{place}: {lacks}: {near}Rename it, or add training pictures of it, or train without it with "
                    "--accept class-mismatch"
                )
    if len(known) == 1:
        raise DataError(f"{place}: only one class, {known.pop()!r}: a recogniser needs at least two to tell apart")


def _name(place: Path) -> str:
    """What to call the data: after its folder, or after its table, unless that is called as all of them are."""
    if place.suffix.lower() not in {".csv", ".jsonl"}:
        return place.name or "data"
    return place.parent.name or "data" if place.stem == "metadata" else place.stem


def flippable(classes: Collection[str]) -> bool:
    """Whether a mirrored picture keeps its label, as far as the names of the classes tell.

    Not where they are single characters or numbers (a mirrored 3 is no digit), or name a left and a right.
    """
    if all(len(name) == 1 or name.isdecimal() for name in classes):
        return False
    words = {word for name in classes for word in re.split(r"[\W_\d]+", name.casefold())}
    return not (words & {"left", "right"} or any("左" in name or "右" in name for name in classes))


def printable(name: str) -> str:
    r"""A file's name without what no terminal or JSON could take: bytes that are no UTF-8 are shown as \xff.

    Raises UnicodeEncodeError for half a character, which no file's name has.
    """
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def label_of(text: str) -> str:
    """A class's name, composed: é is one character however it was typed, or macOS and Linux would disagree."""
    return unicodedata.normalize("NFC", printable(text.strip()))
