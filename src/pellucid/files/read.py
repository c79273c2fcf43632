"""Readers with limits, for files that may come from anywhere."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
import stat
from pathlib import Path
from typing import Any

from pellucid.errors import DataError, UsageError
from pellucid.files.refusals import not_read

MIB = 1 << 20

#: The longest whole number taken, in characters. Turning more digits into an int takes quadratic time.
_DIGITS = 100

#: Strings (an unfinished one up to the end), brackets, and words such as numbers: enough to find a place by.
#: Possessive, since a hostile file must not make the search go back.
_TOKENS = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]|[-+.\w]++', re.DOTALL)


class _FlawError(ValueError):
    """What this reader refuses though Python's would take it; `word` is the offending token, where one is known."""

    def __init__(self, why: str, word: str = "") -> None:
        super().__init__(why)
        self.word = word


def read_bytes(path: str | os.PathLike[str], *, limit: int) -> bytes:
    """The whole of a regular file of at most `limit` bytes.

    Raises DataError for a file that is missing, unreadable, larger, or no regular file (a pipe would block).
    """
    path = Path(path)
    try:
        size = regular_size(path, limit)
        with path.open("rb") as file:
            # As much as there is: asking for the whole limit would take that much memory.
            data = file.read(size + 1)
            while len(data) <= limit and (more := file.read(MIB)):
                data += more
    except OSError as error:
        raise not_read(error, path) from error
    if len(data) > limit:
        raise too_large(path, len(data), limit)
    return data


def read_json(path: str | os.PathLike[str], *, limit: int = 16 * MIB, depth: int = 64) -> Any:
    """The value in a JSON file of at most `limit` bytes, nested at most `depth` deep.

    Stricter than Python's reader: NaN, infinity, numbers too large for a float, whole numbers of more than 100 digits
    and one key twice in an object are refused, for another reader would understand them differently. A byte-order mark
    is skipped.

    Raises DataError naming the file and, where it is known, the line and column.
    """
    path = Path(path)
    return parse_json(read_bytes(path, limit=limit), str(path), depth=depth)


def read_lines(path: str | os.PathLike[str], limit: int = 16 * MIB) -> list[dict[str, Any]]:
    """The objects in a file of one JSON object a line, of at most `limit` bytes in all; empty lines are skipped.

    A last line without its newline that does not parse was torn by lost power, and is left out. Raises DataError for
    any other damage, naming the line.
    """
    path = Path(path)
    lines = read_bytes(path, limit=limit).split(b"\n")
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            rows.append(_row(line, f"{path}, line {number}"))
        except DataError:
            if number < len(lines):
                raise
    return rows


def checksum(path: str | os.PathLike[str], algorithm: str = "sha256") -> str:
    """The file's checksum in lower-case hexadecimal, read in pieces; `algorithm` is a name `hashlib` knows.

    Raises DataError for a file that is missing or unreadable, and UsageError for an unknown algorithm.
    """
    path = Path(path)
    if algorithm not in hashlib.algorithms_available or algorithm.startswith("shake"):
        raise UsageError(f"{algorithm!r} is no checksum this Python computes: use sha256 or md5")
    try:
        regular_size(path, None)
        with path.open("rb") as file:
            # Not for security: published MD5s are compared also where a system bars MD5 from signatures.
            return hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()
    except OSError as error:
        raise not_read(error, path) from error


def parse_json(data: bytes, place: str, *, depth: int) -> Any:
    """The value in JSON bytes, as strict as `read_json`; `place` begins the message of a DataError."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(f"{place}, line {line}: not UTF-8 text: save it as UTF-8, or take another copy") from error
    try:
        value = json.loads(
            text,
            parse_constant=_constant,
            parse_float=_float,
            parse_int=_int,
            object_pairs_hook=_object,
        )
    except json.JSONDecodeError as error:
        raise DataError(
            f"{place}, line {error.lineno}, column {error.colno}: not JSON ({error.msg}): mend it there, or take "
            "another copy"
        ) from error
    except _FlawError as error:
        where = _position(text, _find(text, error.word)) if error.word else ""
        raise DataError(f"{place}{where}: {error}") from error
    except RecursionError:
        raise _too_deep(text, place, depth) from None
    if text.count("[") + text.count("{") > depth and _depth_exceeds(value, depth):
        raise _too_deep(text, place, depth)
    return value


def too_large(path: Path, size: int, limit: int) -> DataError:
    """The error for a file over a reader's limit."""
    return DataError(f"{path}: holds {size:,} bytes or more, and at most {limit:,} are read: is it the right file?")


def regular_size(path: Path, limit: int | None) -> int:
    """The size in bytes of a regular file. Raises DataError above `limit`, and OSError as the system does."""
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(status.st_mode):
        raise DataError(f"{path}: is no regular file but a device, a pipe or a socket: name a file")
    if limit is not None and status.st_size > limit:
        raise too_large(path, status.st_size, limit)
    return status.st_size


def _row(line: bytes, place: str) -> dict[str, Any]:
    row = parse_json(line, place, depth=64)
    if not isinstance(row, dict):
        raise DataError(f"{place}: expected an object in braces, found {row!r:.60}: mend the line or take it out")
    return row


def _constant(word: str) -> float:
    raise _FlawError(f"{word} is not a number JSON has: put null in its place", word)


def _float(word: str) -> float:
    value = float(word)
    if math.isinf(value):
        raise _FlawError(f"{word:.30} is too large for a floating-point number: mend it", word)
    return value


def _int(word: str) -> int:
    if len(word) > _DIGITS:
        raise _FlawError(f"{word:.30}… has {len(word):,} digits, and at most {_DIGITS} are read: mend it", word)
    return int(word)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise _FlawError(f"the key {twice!r:.60} stands twice in one object: take one of the two out")
    return value


def _depth_exceeds(value: Any, depth: int) -> bool:
    """Whether lists and objects nest deeper than `depth`, without recursion."""
    level = [value] if isinstance(value, (dict, list)) else []
    for _ in range(depth):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, (dict, list))
        ]
    return bool(level)


def _too_deep(text: str, place: str, depth: int) -> DataError:
    opened = 0
    where = ""
    for token in _TOKENS.finditer(text):
        opened += {"[": 1, "{": 1, "]": -1, "}": -1}.get(token.group(), 0)
        if opened > depth:
            where = _position(text, token.start())
            break
    return DataError(f"{place}{where}: nested more than {depth} deep, which no file of ours is: is it the right file?")


def _find(text: str, word: str) -> int:
    return next((token.start() for token in _TOKENS.finditer(text) if token.group() == word), 0)


def _position(text: str, offset: int) -> str:
    return f", line {text.count(chr(10), 0, offset) + 1}, column {offset - text.rfind(chr(10), 0, offset)}"
