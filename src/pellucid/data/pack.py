"""Packs: the pictures of a folder, decoded once at one size, kept in the user's cache and mapped into memory.

A pack is two files of plain bytes, one row a picture (the pixels, and the signatures that near doubles are found by),
and an index that says which picture each row is: its name, size in bytes and time of modification, what one pass found
out about it (`reading.Facts`), and a checksum of the row. A start finds each file with the size and time that the index
has, and reads anew only those that differ; their rows are added at the end. The index is written last, in one step,
when the rows are on the disk: a pack that was cut off by a crash has rows that no index names, or an index that names
more rows than there are, and then it is made anew. Nothing in it is ever run, and what does not hold together is taken
for no pack at all.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pellucid.data.cache import cache_folder
from pellucid.data.cores import usable_cores
from pellucid.data.decode import BadImage
from pellucid.data.images import Images
from pellucid.data.pack_index import FILE, Index, read_index, versions, write_index
from pellucid.data.preprocess import Preprocess
from pellucid.data.reading import FIELDS, Facts, read_file, read_files
from pellucid.data.split import digest
from pellucid.data.twins import SIDE
from pellucid.errors import PellucidError
from pellucid.files import make_folder

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

#: Bytes that all packs together may take; of more, those used longest ago are removed.
LIMIT = 50_000_000_000

#: The share of the free disk that a new pack may take.
DISK_SHARE = 0.9

#: What is not known of a file.
_UNKNOWN = -1


@dataclass(frozen=True, eq=False)
class Packed:
    """Pictures read once: what is known of each of N, and where its pixels are."""

    facts: Facts
    pixels: NDArray[np.uint8] | None
    """R×H×W×C: rows of these pictures and perhaps of others, mapped into memory or in it. None where not kept."""
    signatures: NDArray[np.uint8]
    """R×16×16×3."""
    row_n: NDArray[np.int64]
    """The row of each of the N."""
    opened: int
    """How many files were read now; the others are as they were."""
    changed: tuple[str, ...] = ()
    """Pictures that are not what the pack had, though neither size nor time of modification says so."""

    def shown(self, index_n: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The signatures of pictures, by their places among the N."""
        return np.asarray(self.signatures[self.row_n[index_n]])


def pack_folder(place: str, preprocess: Preprocess) -> Path:
    """Where the pack of the pictures of a place, at one size, stands or would stand."""
    facts = (os.path.abspath(place), preprocess.size, preprocess.channels, preprocess.resize)  # noqa: PTH100
    return cache_folder() / "packs" / digest(repr(facts).encode("utf-8", "surrogateescape"))


def pack(
    place: str,
    images: Images,
    preprocess: Preprocess,
    *,
    progress: Callable[[int, int], None] | None = None,
    full: bool = False,
) -> Packed:
    """The pictures from their pack, which is made or brought up to date by reading what is not in it yet.

    With `full`, every file is read and every row checked, and what is not as the index says is made anew. `progress` is
    called with the files read and those to be read. Raises PellucidError when the disk refuses; ask `no_room` before.
    """
    folder, state = pack_folder(place, preprocess), _state(images)
    index = _open(folder, preprocess)
    entry_n = _entries(index, images, state)
    stays = np.ones(len(images), np.bool_)
    changed: tuple[str, ...] = ()
    if full and index is not None:
        stays, changed = _verified(folder, index, images, entry_n, preprocess)
    fresh = np.flatnonzero((entry_n < 0) | ~stays)
    if len(fresh):
        make_folder(folder)
        with _alone(folder):
            # Perhaps another process has just done it.
            index = _open(folder, preprocess)
            fresh = np.flatnonzero((_entries(index, images, state) < 0) | ~stays)
            index = _added(folder, index, images, fresh, preprocess, progress)
        _trim(folder)
    elif progress is not None:
        progress(0, 0)
    assert index is not None
    with contextlib.suppress(OSError):
        os.utime(folder / FILE)
    return _mapped(folder, index, images, preprocess, len(fresh), changed)


def no_room(place: str, images: Images, preprocess: Preprocess) -> str | None:
    """Why the disk cannot hold the pack of these pictures, in a sentence; None where it can."""
    folder = pack_folder(place, preprocess)
    missing = int((_entries(_open(folder, preprocess), images, _state(images)) < 0).sum())
    needed = missing * (int(np.prod(_shape(preprocess))) + SIDE * SIDE * 3)
    there = next((parent for parent in folder.parents if parent.is_dir()), folder)
    try:
        free = shutil.disk_usage(there).free
        writable = os.access(there, os.W_OK)
    except OSError:
        free, writable = 0, False
    if not missing or (writable and needed <= DISK_SHARE * free):
        return None
    if not writable:
        return f"{there} cannot be written to, and would hold the decoded pictures"
    return (
        f"the decoded pictures take {needed / 1e9:,.1f} GB, and {free / 1e9:,.1f} GB are free on the disk of {there}, "
        f"of which {DISK_SHARE:.0%} may be used"
    )


def in_memory(
    images: Images, preprocess: Preprocess, *, keep: bool = True, progress: Callable[[int, int], None] | None = None
) -> Packed:
    """The pictures read without a pack; without `keep`, only what is known of them, not their pixels."""
    N = len(images)
    pixels = np.zeros((N, *_shape(preprocess)), np.uint8) if keep else None
    signatures = np.zeros((N, SIDE, SIDE, 3), np.uint8)

    def sink(start: int, part: NDArray[np.uint8], shown: NDArray[np.uint8]) -> None:
        if pixels is not None:
            pixels[start : start + len(part)] = part
        signatures[start : start + len(part)] = shown

    facts = read_files(images.files or (), images.names, preprocess, sink, progress=progress)
    return Packed(facts, pixels, signatures, np.arange(N), N)


def _shape(preprocess: Preprocess) -> tuple[int, int, int]:
    return (*preprocess.size, preprocess.channels)


def _about(preprocess: Preprocess) -> dict[str, str]:
    return versions(_shape(preprocess), preprocess.resize)


def _paths(folder: Path, token: str) -> tuple[Path, Path]:
    return folder / f"pixels-{token}.u8", folder / f"signatures-{token}.u8"


def _widths(preprocess: Preprocess) -> tuple[int, int]:
    """Bytes of a row in each of the two files."""
    return int(np.prod(_shape(preprocess))), SIDE * SIDE * 3


def _state(images: Images) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Size and time of modification of each file now."""
    found = np.full((len(images), 2), _UNKNOWN, np.int64)
    for n, file in enumerate(images.files or ()):
        with contextlib.suppress(OSError):
            status = os.stat(file)  # noqa: PTH116 - twice as fast, and there may be a million
            found[n] = status.st_size, status.st_mtime_ns
    return found[:, 0], found[:, 1]


def _open(folder: Path, preprocess: Preprocess) -> Index | None:
    """The index, if it is sound and its rows are there."""
    index = read_index(folder, _about(preprocess), preprocess.channels)
    if index is None:
        return None
    for path, width in zip(_paths(folder, index.token), _widths(preprocess), strict=True):
        # Rows are added to these files: through a link, they would be added somewhere else.
        if path.is_symlink() or not path.is_file() or path.stat().st_size < index.rows * width:
            return None
    return index


def _entries(
    index: Index | None, images: Images, state: tuple[NDArray[np.int64], NDArray[np.int64]]
) -> NDArray[np.int64]:
    """The entry of each picture that is as it was; −1 for the others."""
    entry_n = np.full(len(images), -1, np.int64)
    if index is None:
        return entry_n
    known = {name: entry for entry, name in enumerate(index.names)}
    entry_n[:] = [known.get(name, -1) for name in images.names]
    there = np.flatnonzero(entry_n >= 0)
    columns = index.facts.columns
    same = (columns["bytes"][entry_n[there]] == state[0][there]) & (columns["mtime"][entry_n[there]] == state[1][there])
    entry_n[there[~same]] = -1
    return entry_n


def _mapped(
    folder: Path, index: Index, images: Images, preprocess: Preprocess, opened: int, changed: tuple[str, ...]
) -> Packed:
    known = {name: entry for entry, name in enumerate(index.names)}
    entry_n = np.array([known[name] for name in images.names], np.int64)
    arrays: list[NDArray[np.uint8]] = []
    for path, shape in zip(_paths(folder, index.token), (_shape(preprocess), (SIDE, SIDE, 3)), strict=True):
        if index.rows:
            arrays.append(np.memmap(path, np.uint8, "r", shape=(index.rows, *shape)))
        else:
            arrays.append(np.empty((0, *shape), np.uint8))
    return Packed(index.take(entry_n, images.names), arrays[0], arrays[1], index.row[entry_n], opened, changed)


def _added(
    folder: Path,
    index: Index | None,
    images: Images,
    fresh: NDArray[np.int64],
    preprocess: Preprocess,
    progress: Callable[[int, int], None] | None,
) -> Index:
    """The index with the fresh pictures read and added; what is interrupted keeps what it has."""
    names = tuple(images.names[n] for n in fresh)
    if index is not None:
        replaced = set(names)
        stay = np.array([e for e, name in enumerate(index.names) if name not in replaced], np.int64)
        if index.rows + len(fresh) > 2 * (len(stay) + len(fresh)) + 1024:
            # Half of it is of pictures that have changed since.
            index, fresh, names = None, np.arange(len(images)), images.names
        else:
            index = _kept(index, stay)
    start = 0 if index is None else index.rows
    token = secrets.token_hex(8) if index is None else index.token
    files = tuple(images.files[n] for n in fresh) if images.files is not None else ()
    facts = Facts.empty(len(fresh), preprocess.channels)
    checksum, done = np.zeros(len(fresh), np.uint32), np.zeros(len(fresh), np.bool_)
    with _Writers(folder, token, preprocess, start) as writers:

        def sink(first: int, pixels: NDArray[np.uint8], signatures: NDArray[np.uint8]) -> None:
            writers.write(first, pixels, signatures)
            checksum[first : first + len(pixels)] = [zlib.crc32(row) for row in pixels]
            done[first : first + len(pixels)] = True

        try:
            read_files(files, names, preprocess, sink, progress=progress, facts=facts)
        finally:
            writers.flush()
            here = Index(token, names, facts, start + np.arange(len(fresh)), checksum)
            joined = _joined(index, _kept(here, np.flatnonzero(done)))
            if len(joined):
                write_index(folder, _lasting(joined), _about(preprocess))
    _tidy(folder, token)
    return joined


def _kept(index: Index, entries: NDArray[np.int64]) -> Index:
    names = tuple(index.names[e] for e in entries)
    return Index(index.token, names, index.take(entries), index.row[entries], index.checksum[entries])


def _joined(first: Index | None, second: Index) -> Index:
    if first is None:
        return second
    bad = first.facts.bad | {entry + len(first): found for entry, found in second.facts.bad.items()}
    columns = {name: np.concatenate([first.facts.columns[name], second.facts.columns[name]]) for name in FIELDS}
    return Index(
        first.token,
        first.names + second.names,
        Facts(columns, np.concatenate([first.facts.sums, second.facts.sums]), bad),
        np.concatenate([first.row, second.row]),
        np.concatenate([first.checksum, second.checksum]),
    )


def _lasting(index: Index) -> Index:
    """Without the files that the system did not hand over: they may be readable next time, and look the same."""
    gone = [entry for entry, bad in index.facts.bad.items() if bad.kind == "unreadable"]
    return _kept(index, np.setdiff1d(np.arange(len(index)), gone)) if gone else index


def _not_kept(error: OSError, path: Path) -> PellucidError:
    return PellucidError(
        f"{path.parent}: the decoded pictures could not be kept there ({error.strerror or error}): make room, point "
        "PELLUCID_CACHE at another folder, or use --no-cache"
    )


class _Writers:
    """The two files of rows, open to be added to from any thread."""

    def __init__(self, folder: Path, token: str, preprocess: Preprocess, start: int) -> None:
        self._paths, self._widths, self._start = _paths(folder, token), _widths(preprocess), start
        self._lock = threading.Lock()

    def __enter__(self) -> _Writers:
        try:
            self._files = []
            for path, width in zip(self._paths, self._widths, strict=True):
                file = os.fdopen(_opened(path), "r+b", buffering=0)
                self._files.append(file)
                # What a crash left behind the last row that counts is cut off.
                file.truncate(self._start * width)
        except OSError as error:
            raise _not_kept(error, self._paths[0]) from error
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files:
            file.close()

    def write(self, first: int, *arrays: NDArray[np.uint8]) -> None:
        """Write the rows of pictures `first`, `first` + 1 and so on."""
        for file, width, rows in zip(self._files, self._widths, arrays, strict=True):
            rest = rows.data.cast("B")
            try:
                with self._lock:
                    file.seek((self._start + first) * width)
                    while rest:
                        rest = rest[file.write(rest) or 0 :]
            except OSError as error:
                raise _not_kept(error, self._paths[0]) from error

    def flush(self) -> None:
        """Have the rows on the disk before an index names them."""
        for file in self._files:
            os.fsync(file.fileno())


def _verified(
    folder: Path, index: Index, images: Images, entry_n: NDArray[np.int64], preprocess: Preprocess
) -> tuple[NDArray[np.bool_], tuple[str, ...]]:
    """Whether each picture's file and row are what they were when it was read; and whose file is not."""
    rows = np.memmap(_paths(folder, index.token)[0], np.uint8, "r", shape=(index.rows, *_shape(preprocess)))

    def holds(n: int) -> tuple[bool, bool]:
        entry = int(entry_n[n])
        if entry < 0:
            return True, True
        try:
            raw, _ = read_file((images.files or ())[n], images.names[n])
        except BadImage:
            return False, True
        same = digest(raw) == f"{int(index.facts.columns['digest'][entry]):016x}"
        return same, zlib.crc32(rows[index.row[entry]].tobytes()) == index.checksum[entry]

    with ThreadPoolExecutor(usable_cores()) as pool:
        found = list(pool.map(holds, range(len(images)), chunksize=64))
    stays = np.array([same and whole for same, whole in found], np.bool_)
    return stays, tuple(images.names[n] for n, (same, _) in enumerate(found) if not same)


def _tidy(folder: Path, token: str) -> None:
    """Remove the rows of earlier packs in this folder; a process that has them mapped keeps them."""
    keep = {path.name for path in _paths(folder, token)}
    for path in folder.glob("*.u8"):
        if path.name not in keep:
            with contextlib.suppress(OSError):
                path.unlink()


def _trim(keep: Path) -> None:
    """Remove the packs used longest ago while all together are larger than they may be."""
    with contextlib.suppress(OSError):
        packs = []
        for folder in keep.parent.iterdir():
            used = (folder / FILE).stat().st_mtime if (folder / FILE).exists() else 0.0
            packs.append((folder == keep, used, folder, sum(file.stat().st_size for file in folder.iterdir())))
        total = sum(size for *_, size in packs)
        for current, _, folder, size in sorted(packs, key=lambda pack: pack[:2]):
            if total <= LIMIT or current:
                break
            shutil.rmtree(folder, ignore_errors=True)
            total -= size


def _opened(path: Path) -> int:
    """A file opened to be written to, made where there is none; never through a link."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0), 0o666)
    except OSError as error:
        raise _not_kept(error, path) from error


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process at a time adds to a pack; a second waits. The system lets go of the lock when a process dies."""
    with os.fdopen(_opened(folder / "lock"), "wb") as lock:
        if sys.platform == "win32":
            while True:
                # Waits for ten seconds, then says that it is another's.
                with contextlib.suppress(OSError):
                    msvcrt.locking(lock.fileno(), msvcrt.LK_LOCK, 1)
                    break
        else:
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
