"""Folders that belong to one run alone."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import shutil
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from pellucid.errors import UsageError
from pellucid.files.refusals import not_written
from pellucid.files.write import sync_folder, unfinished

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


@contextlib.contextmanager
def staged(parent: str | os.PathLike[str]) -> Iterator[Path]:
    """A hidden new folder in `parent`, to be filled and then given its name by `put` or `put_new`.

    So that nobody, after whatever kill, meets a folder with half of its files. Without a name in the end it is removed.
    """
    folder = unfinished(make_folder(parent))
    try:
        folder.mkdir()
    except OSError as error:
        raise not_written(error, folder) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def put(folder: Path, path: str | os.PathLike[str]) -> Path:
    """Give a staged folder its name, in one step.

    Raises UsageError where a file, or a folder that is not empty, has the name; and PellucidError when the system
    refuses.
    """
    path = Path(path)
    try:
        if os.name != "posix" and path.is_dir():
            path.rmdir()  # elsewhere a folder cannot take the place of an empty one
        folder.rename(path)
        sync_folder(path)
    except OSError as error:
        if error.errno in {errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR}:
            raise UsageError(f"{path}: is there already, and is not overwritten; choose another folder") from error
        raise not_written(error, path) from error
    return path


def put_new(folder: Path, stem: str) -> Path:
    """Name a staged folder `stem-1` in its parent, or the first of `stem-2`, `stem-3`, … that does not exist yet.

    Two processes at once get two folders. Letters and digits of any script, `.`, `_` and `-` stay in the stem, anything
    else becomes a `-`; a stem of which nothing stays is `run`. Raises PellucidError when the system refuses.
    """
    stem = _tame(stem)
    for number in itertools.count(1):
        path = folder.parent / f"{stem}-{number}"
        if path.exists() or path.is_symlink():
            continue
        try:
            return put(folder, path)
        except UsageError:
            continue  # somebody else was quicker
    raise AssertionError("count() ends never")


@contextlib.contextmanager
def alone_in(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Be the only process that writes in a folder, as far as processes ask; a killed one gives it free.

    Raises UsageError where another is at work. On systems without such locks nobody is kept out.
    """
    try:
        import fcntl  # noqa: PLC0415  (not everywhere)
    except ImportError:
        yield
        return
    folder = Path(folder)
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise not_written(error, folder) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(f"{folder}: another process is at work in this folder; wait for it, or end it") from error
        except OSError:
            pass  # a network file system without locks
        yield
    finally:
        os.close(descriptor)


def _tame(stem: str) -> str:
    # Composed, so that an accent typed in two ways gives one name; macOS would otherwise find them equal, Linux not.
    text = unicodedata.normalize("NFC", stem)
    kept = "".join(c if c in "._" or unicodedata.category(c)[0] in "LMN" else " " for c in text)
    # A leading dot would hide the folder, or lead out of it.
    tamed = "-".join(kept.split()).strip(".-")
    return tamed.encode()[:_STEM_BYTES].decode(errors="ignore").rstrip(".-") or "run"
