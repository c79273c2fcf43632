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

from pellucid.errors import PellucidError, UsageError
from pellucid.files.refusals import not_written
from pellucid.files.write import sync_folder, unfinished

#: Longest stem in bytes of UTF-8. File systems allow 255, and the folder's name appears in those of other files.
_STEM_BYTES = 100


def make_folder(path: str | os.PathLike[str]) -> Path:
    """Make the folder, and those above it, unless it is there already; lost power does not undo it.

    Raises PellucidError when the system refuses, or a file stands there.
    """
    path = Path(path)
    try:
        missing = [folder for folder in (path, *path.parents) if not folder.exists()]
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise not_written(error, path) from error
    for folder in reversed(missing):
        sync_folder(folder)
    return path


@contextlib.contextmanager
def staged(parent: str | os.PathLike[str]) -> Iterator[Path]:
    """A hidden new folder in `parent`, to be filled and then given its name by `put` or `put_new`.

    So that nobody, after whatever kill, meets a folder with half of its files. Without a name in the end it is removed;
    those that killed processes have left are removed first.
    """
    parent = make_folder(parent)
    _clear_abandoned(parent)
    with contextlib.ExitStack() as held:
        folder = _held(parent, held)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _held(parent: Path, stack: contextlib.ExitStack) -> Path:
    """A hidden new folder that no other process takes for abandoned until the stack is left."""
    while True:
        folder = unfinished(parent)
        try:
            folder.mkdir()
        except OSError as error:
            raise not_written(error, folder) from error
        try:
            stack.enter_context(alone_in(folder))
        except UsageError:
            continue  # another process is removing it: it came between the making and the holding
        except PellucidError:
            if folder.is_dir():
                raise
        if folder.is_dir():
            return folder


def _clear_abandoned(parent: Path) -> None:
    """Remove the hidden folders that nobody holds any more. Where the system has no locks they stay."""
    for path in parent.glob(".pellucid-*.tmp"):
        if path.is_dir() and not path.is_symlink():
            with contextlib.suppress(PellucidError), alone_in(path) as sure:
                if sure:
                    shutil.rmtree(path, ignore_errors=True)


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
def alone_in(folder: str | os.PathLike[str]) -> Iterator[bool]:
    """Be the only process that writes in a folder, as far as processes ask; a killed one gives it free.

    Yields whether that is sure: on systems without such locks nobody is kept out. Raises UsageError where another is at
    work.
    """
    try:
        import fcntl  # noqa: PLC0415  (not everywhere)
    except ImportError:
        yield False
        return
    folder = Path(folder)
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise not_written(error, folder) from error
    sure = True
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(f"{folder}: another process is at work in this folder; wait for it, or end it") from error
        except OSError:
            sure = False  # a network file system without locks
        yield sure
    finally:
        os.close(descriptor)


def _tame(stem: str) -> str:
    # Composed, so that an accent typed in two ways gives one name; macOS would otherwise find them equal, Linux not.
    text = unicodedata.normalize("NFC", stem)
    kept = "".join(c if c in "._" or unicodedata.category(c)[0] in "LMN" else " " for c in text)
    # A leading dot would hide the folder, or lead out of it.
    tamed = "-".join(kept.split()).strip(".-")
    return tamed.encode()[:_STEM_BYTES].decode(errors="ignore").rstrip(".-") or "run"
