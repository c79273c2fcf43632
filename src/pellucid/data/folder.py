"""A folder of pictures, one folder a class: `root/<class>/…`, or `root/{train,val,test}/<class>/…`.

The class is the first level; below it, folders may go as deep as they like. Hidden files and folders are ignored, and
so is what operating systems leave behind.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from pellucid.data.decode import EXTENSIONS
from pellucid.data.images import Source, Split
from pellucid.data.rules import SPLITS, Row, gather, label_of, printable
from pellucid.errors import DataError

_JUNK = {"__macosx", "@eadir", "$recycle.bin", "system volume information", "lost+found", "thumbs.db", "desktop.ini"}


@dataclass
class _Level:
    """What stands in one folder: folders, pictures, and how many other files of each ending."""

    folders: list[Path] = field(default_factory=list)
    pictures: list[Path] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)


def open_folder(root: Path, *, training: bool, mismatch: bool = False) -> Source:
    """The pictures in a folder, by class.

    Raises DataError when there is nothing to train on (see `pellucid.data.rules.gather`), when two folders claim to be
    the same split, or when some folders are splits and others are not.
    """
    top = _level(root)
    notes: list[str] = []
    splits = _splits(root, top)
    if splits is None:
        if not top.folders and top.pictures:
            raise DataError(f"{root}: {_count(top.pictures)} in it, but no folders: make one folder a class")
        splits = {"train": (root, top)}
    rows: list[Row] = []
    empty: set[tuple[Split, str, str]] = set()
    merged: list[tuple[str, str]] = []
    others: Counter[str] = Counter()
    for split, (folder, level) in splits.items():
        if not level.folders and level.pictures:
            if split == "train":
                raise DataError(f"{folder}: {_count(level.pictures)} in it, but no folders: make one folder a class")
            notes.append(f"{folder.name} is not used: its {_count(level.pictures)} stand in no class folder.")
            continue
        if level.pictures:
            notes.append(f"{_count(level.pictures)} in {folder.name or root} stand in no class folder and are ignored.")
        full: dict[str, str] = {}
        for place in level.folders:
            label, name = label_of(place.name), printable(place.relative_to(root).as_posix())
            files = _walk(place, {_identity(root), _identity(folder)}, others)
            rows += [Row(split, label, printable(file.relative_to(root).as_posix()), file) for file in files]
            if not files:
                empty.add((split, label, name))
            elif full.setdefault(label, name) != name:
                merged.append(
                    (
                        name,
                        f"taken for the class {label!r}, as {full[label]!r} is: only spaces or the form "
                        "of a letter tell the two names apart",
                    )
                )
        empty = {hollow for hollow in empty if hollow[0] != split or hollow[1] not in full}
    if others:
        most = ", ".join(f"{count} {ending or 'without an ending'}" for ending, count in others.most_common(5))
        notes.append(f"{others.total():,} files are ignored, since they are no pictures by their names: {most}.")
    if training:
        _refuse_wrapping(root, splits, rows)
    return gather(
        rows, place=root, kind="folder", training=training, mismatch=mismatch, empty=empty, merged=merged, notes=notes
    )


def split_folders(root: Path) -> dict[str, Path]:
    """The folders in `root` that are named as splits, by name."""
    return {path.name: path for path in _level(root).folders if path.name.lower() in SPLITS}


def _splits(root: Path, top: _Level) -> dict[Split, tuple[Path, _Level]] | None:
    """The splits' folders, or None where the folders in `root` are the classes themselves."""
    named = {path: _level(path) for path in top.folders if path.name.lower() in SPLITS}
    rest = [path for path in top.folders if path not in named]
    if not named or (rest and not any(level.folders for level in named.values())):
        # A class may be called train, among classes bus and car.
        return None
    stray = next((path.name for path in rest if _walk(path, {_identity(root)}, Counter())), None)
    if stray is not None:
        names = ", ".join(path.name for path in named)
        raise DataError(
            f"{root}: {names} is named as a split, and {stray!r} beside it has pictures too: move that away, or rename "
            f"{names} if they are classes"
        )
    splits: dict[Split, tuple[Path, _Level]] = {}
    for path, level in named.items():
        split = SPLITS[path.name.lower()]
        if split in splits:
            names = f"{splits[split][0].name} and {path.name}"
            raise DataError(f"{root}: both {names} name the {split} split: merge them, or remove one")
        splits[split] = (path, level)
    return splits


def _refuse_wrapping(root: Path, splits: dict[Split, tuple[Path, _Level]], rows: list[Row]) -> None:
    """An archive often unpacks into one folder more than expected, whose only class would be the data set."""
    if len({row.label for row in rows}) == 1 and set(splits) == {"train"}:
        for inner in splits["train"][1].folders:
            if len(_level(inner).folders) > 1:
                raise DataError(f"{root}: only one class, {inner.name!r}, with folders in it: did you mean {inner}?")


def _level(folder: Path) -> _Level:
    level = _Level()
    try:
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed ({error.strerror}): check the path and its permissions") from error
    for entry in found:
        if entry.name.startswith(".") or entry.name.casefold() in _JUNK:
            continue
        if _is_folder(entry):
            level.folders.append(Path(entry.path))
        elif Path(entry.name).suffix.lower() in EXTENSIONS:
            # Also a link that leads nowhere: reading it will name it.
            level.pictures.append(Path(entry.path))
        else:
            level.others[Path(entry.name).suffix.lower()] += 1
    return level


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself: reading it will name it
        return False


def _walk(folder: Path, seen: set[tuple[int, int]], others: Counter[str]) -> list[Path]:
    """All pictures under a folder. Each real folder is entered once, so that links in a circle come to an end."""
    files: list[Path] = []
    waiting = [folder]
    while waiting:
        here = waiting.pop()
        identity = _identity(here)
        if identity in seen:
            continue
        seen.add(identity)
        level = _level(here)
        files += level.pictures
        others.update(level.others)
        waiting += level.folders
    return files


def _identity(folder: Path) -> tuple[int, int]:
    try:
        status = folder.stat()
    except OSError as error:
        raise DataError(f"{folder}: cannot be entered ({error.strerror}): check its permissions") from error
    return status.st_dev, status.st_ino


def _count(pictures: list[Path]) -> str:
    return "1 picture" if len(pictures) == 1 else f"{len(pictures):,} pictures"
