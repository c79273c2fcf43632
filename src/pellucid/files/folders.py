"""Folders that belong to one run alone."""

from __future__ import annotations

import itertools
import os
import unicodedata
from pathlib import Path

from pellucid.files.refusals import not_written

#: Longest stem in bytes of UTF-8. File systems allow 255, and the folder's name appears in those of other files.
_STEM_BYTES = 100


def make_folder(path: str | os.PathLike[str]) -> Path:
    """Make the folder, and those above it, unless it is there already.

    Raises PellucidError when the system refuses, or a file stands there.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise not_written(error, path) from error
    return path


def new_folder(parent: str | os.PathLike[str], stem: str) -> Path:
    """Make `parent/stem-1`, or the first of `stem-2`, `stem-3`, … that does not exist yet; never an old one.

    Two processes at once get two folders. Letters and digits of any script, `.`, `_` and `-` stay in the stem, anything
    else becomes a `-`; a stem of which nothing stays is `run`. Raises PellucidError when the system refuses.
    """
    parent = make_folder(parent)
    stem = _tame(stem)
    for number in itertools.count(1):
        path = parent / f"{stem}-{number}"
        try:
            path.mkdir()
        except FileExistsError:
            continue
        except OSError as error:
            raise not_written(error, path) from error
        return path
    raise AssertionError("count() ends never")


def _tame(stem: str) -> str:
    # Composed, so that an accent typed in two ways gives one name; macOS would otherwise find them equal, Linux not.
    text = unicodedata.normalize("NFC", stem)
    kept = "".join(c if c in "._" or unicodedata.category(c)[0] in "LMN" else " " for c in text)
    # A leading dot would hide the folder, or lead out of it.
    tamed = "-".join(kept.split()).strip(".-")
    return tamed.encode()[:_STEM_BYTES].decode(errors="ignore").rstrip(".-") or "run"
