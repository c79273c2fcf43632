"""Atomic writes: the old file or the new one, never a part of either."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
from pathlib import Path
from typing import Any

from pellucid.errors import UsageError
from pellucid.files.refusals import not_written

#: Binary on Windows too, where text mode would turn every 0x0A into two bytes.
_BINARY = getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)

#: How far back `append_line` looks for the start of a torn last line; far above the length of any line it writes.
_TAIL = 1 << 20


def write_bytes(
    path: str | os.PathLike[str], data: bytes | bytearray | memoryview, *, previous: str | None = None
) -> None:
    """Write `data` as the whole of `path`, replacing what was there in one step.

    The bytes go to a temporary file in the same folder, are flushed to the disk, and then take the old file's name, so
    that a reader, a full disk or lost power meets either the old file or the new one. A symbolic link is replaced, not
    followed.

    With `previous`, the old file is not lost but takes that name beside it; a kill between the two renamings leaves
    the old file under that name alone.

    Raises PellucidError when the system refuses; no temporary file is left, and the old file is as it was.
    """
    path = Path(path)
    temporary = unfinished(path.parent)
    try:
        _write_new(temporary, data)
        if previous is not None and path.exists():
            os.replace(path, path.parent / previous)  # noqa: PTH105
        os.replace(temporary, path)  # noqa: PTH105  (tests break exactly this call)
    except OSError as error:
        _remove(temporary)
        raise not_written(error, path) from error
    except BaseException:
        # Ctrl-C in the middle leaves no litter either.
        _remove(temporary)
        raise
    sync_folder(path)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    r"""Write `text` as UTF-8, atomically, with the line ends it has.

    A file name that is no valid UTF-8 on the disk holds lone surrogates in Python; these come out as \udc80 and the
    like, since a run should not fail at its last file because of one picture's name. Raises as `write_bytes`.
    """
    write_bytes(path, text.encode("utf-8", errors="backslashreplace"))


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write `value` as JSON, atomically: UTF-8, two spaces of indent, keys in their order, a newline at the end.

    Raises UsageError for NaN and infinity, which JSON does not have, and as `write_bytes`.
    """
    write_text(path, _dumps(path, value, indent=2) + "\n")


def append_line(path: str | os.PathLike[str], value: dict[str, Any]) -> None:
    """Append one JSON object as one line, in a single write that is flushed to the disk before this returns.

    A last line torn by lost power is cut off first, so that the new one does not grow onto it.

    Raises UsageError for NaN and infinity, and PellucidError when the system refuses; the file is then as it was.
    """
    path = Path(path)
    line = _dumps(path, value, indent=None).encode("utf-8", errors="backslashreplace") + b"\n"
    is_new = not path.exists()
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | _BINARY, 0o666)
        try:
            _append(descriptor, line)
        finally:
            os.close(descriptor)
    except OSError as error:
        if is_new:
            _remove(path)
        raise not_written(error, path) from error
    if is_new:
        sync_folder(path)


def unfinished(parent: Path) -> Path:
    """A name in a folder for what is being made there and does not have its own name yet."""
    return parent / f".pellucid-{secrets.token_hex(8)}.tmp"


def clear_unfinished(folder: str | os.PathLike[str], *, below: bool = True) -> None:
    """Take away the temporary files that a killed process has left in a folder, and `below` it.

    To be called by whoever alone writes there. What cannot be taken away stays: it is litter, and harms nothing.
    """
    for path in Path(folder).glob(f"{'**/' if below else ''}.pellucid-*.tmp"):
        _remove(path)


def _dumps(path: str | os.PathLike[str], value: Any, *, indent: int | None) -> str:
    try:
        return json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise UsageError(f"{os.fspath(path)}: {error}: write null (None) for a number that is not defined") from error


def _write_new(path: Path, data: bytes | bytearray | memoryview) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY, 0o666)
    try:
        _write_all(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, data: bytes | bytearray | memoryview) -> None:
    rest = memoryview(data).cast("B")
    while rest:
        # A write may take only a part: Linux stops at 2 GiB, and a disk where it is full; the next write says so.
        rest = rest[os.write(descriptor, rest) :]


def _append(descriptor: int, line: bytes) -> None:
    size, line = _mend(descriptor, line)
    try:
        _write_all(descriptor, line)
        os.fsync(descriptor)
    except OSError:
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, size)
        raise


def _mend(descriptor: int, line: bytes) -> tuple[int, bytes]:
    """Cut off a torn last line, or finish a whole one that lacks only its newline: the size now, what to write."""
    size = os.lseek(descriptor, 0, os.SEEK_END)
    start = os.lseek(descriptor, max(0, size - _TAIL), os.SEEK_SET)
    tail = os.read(descriptor, size - start).rpartition(b"\n")[2]
    if not tail:
        return size, line
    try:
        whole = isinstance(json.loads(tail), dict)
    except (ValueError, RecursionError):
        whole = False
    if whole:
        return size, b"\n" + line
    size -= len(tail)
    os.ftruncate(descriptor, size)
    return size, line


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()


def sync_folder(path: Path) -> None:
    """Flush the folder's entry for `path`; without it, lost power can undo the renaming."""
    if os.name != "posix":
        return
    try:
        descriptor = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        # Some network file systems flush no folders, and a folder may be writable but not readable: the file stands.
        if error.errno not in {errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EPERM}:
            raise not_written(error, path) from error
