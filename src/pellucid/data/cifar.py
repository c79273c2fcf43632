"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009) from the files of their "python version".

Those files are pickles, and a pickle can run code when it is opened. So each is opened only if its MD5 is the published
one, and even then by an unpickler that knows nothing but what an array is made of. They are read from a folder, or from
a tar of any compression, in memory: nothing is unpacked to the disk.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import hashlib
import io
import lzma
import pickle
import re
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pellucid.data.cache import recall, remember
from pellucid.data.cores import usable_cores
from pellucid.errors import DataError
from pellucid.files import read_bytes

#: The largest single file that is read: the largest of CIFAR-100 holds 155 MB.
LIMIT = 1 << 28

#: The most bytes that an archive is unpacked to; the larger of the two published ones has 187 MB in it.
UNPACKED = 1 << 29

#: The most entries of an archive that are looked at; the published ones have ten at most.
MEMBERS = 1000


#: The pixels of some pictures, in whatever order, and their labels (N,).
Batch: TypeAlias = tuple[NDArray[np.uint8], NDArray[np.uint8]]


@dataclass(frozen=True)
class Distribution:
    """The published files of one of the two sets, each with its MD5."""

    folder: str
    """Their folder in the archive."""
    train: dict[str, str]
    test: dict[str, str]
    meta: dict[str, str]
    labels: str
    """The key under which a batch has its labels."""
    names: str
    """The key under which the meta file has the names of the classes."""
    classes: int
    archive: str
    """The published archive."""
    md5: str
    """The archive's MD5."""

    @property
    def url(self) -> str:
        """Where the archive is published."""
        return f"https://www.cs.toronto.edu/~kriz/{self.archive}"

    @property
    def files(self) -> dict[str, str]:
        """All files that are read, and their MD5s."""
        return self.train | self.test | self.meta


CIFAR10 = Distribution(
    folder="cifar-10-batches-py",
    train={
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    },
    test={"test_batch": "40351d587109b95175f43aff81a1287e"},
    meta={"batches.meta": "5ff9c542aee3614f3951f8cda6e48888"},
    labels="labels",
    names="label_names",
    classes=10,
    archive="cifar-10-python.tar.gz",
    md5="c58f30108f718f92721af3b95e74349a",
)

CIFAR100 = Distribution(
    folder="cifar-100-python",
    train={"train": "16019d7e3df5f24257cddd939b257f8d"},
    test={"test": "f0ef6b0ae62326f3e7ffdfab6717acfc"},
    meta={"meta": "7973b15100ade9c7d40fb424638fde48"},
    labels="fine_labels",
    names="fine_label_names",
    classes=100,
    archive="cifar-100-python.tar.gz",
    md5="eb9058c3a382ffc7106e4002c42a8d85",
)


@dataclass(frozen=True, eq=False)
class Cifar:
    """One of the two sets, read: pixels N×32×32×3 uint8, labels (N,) uint8, and the published class names."""

    train_pixels: NDArray[np.uint8]
    train_labels: NDArray[np.uint8]
    test_pixels: NDArray[np.uint8]
    test_labels: NDArray[np.uint8]
    classes: tuple[str, ...]


def find(folders: list[Path], what: Distribution) -> Path | None:
    """Where in the first of the folders the set stands: as a folder of its files, or as an archive."""
    for folder in folders:
        for place in (folder / what.folder, folder):
            if all((place / name).is_file() for name in what.files):
                return place
        stem = "|".join(map(re.escape, (what.folder, what.archive.removesuffix(".tar.gz"))))
        archives = [
            path
            for path in sorted(folder.glob("cifar-*"))
            if re.fullmatch(rf"({stem})\.(tar(\.\w+)?|t[bglx]z\w*)", path.name) and path.is_file()
        ]
        if archives:
            return archives[0]
    return None


def read(place: Path, what: Distribution) -> Cifar:
    """Read the set from the folder of its files, or from an archive.

    An archive takes seconds to decompress, so its arrays are kept in the cache (see `pellucid.data.cache`) and taken
    from there until it changes. Raises DataError for anything that is not the published data.
    """
    if place.is_dir():
        contents = {name: read_bytes(place / name, limit=LIMIT) for name in what.files}
        return _decoded(contents, what, place)
    kept = recall(place)
    if kept is not None:
        found = _from_cache(kept, what)
        if found is not None:
            return found
    found = _decoded(_members(place, what), what, place)
    arrays = {key: value for key, value in vars(found).items() if isinstance(value, np.ndarray)}
    text = "\n".join(found.classes).encode()
    remember(place, arrays | {"classes": np.frombuffer(text, np.uint8)})
    return found


def _from_cache(kept: dict[str, NDArray[np.uint8]], what: Distribution) -> Cifar | None:
    try:
        classes = tuple(kept["classes"].tobytes().decode().split("\n"))
        found = Cifar(kept["train_pixels"], kept["train_labels"], kept["test_pixels"], kept["test_labels"], classes)
    except (KeyError, UnicodeDecodeError):
        return None
    whole = len(classes) == what.classes and all(
        pixels.shape == (len(labels), 32, 32, 3) and labels.ndim == 1 and labels.max(initial=0) < what.classes
        for pixels, labels in ((found.train_pixels, found.train_labels), (found.test_pixels, found.test_labels))
    )
    return found if whole else None


class _Limited(io.RawIOBase):
    """A decompressed stream that refuses to give more than `UNPACKED` bytes, skipped ones included.

    Thousands of times the archive's size may come out of it, and a header of tar may ask for all of it at once.
    """

    def __init__(self, stream: IO[bytes], archive: Path) -> None:
        self._stream, self._archive = stream, archive

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is, as far as a decompressor can."""
        return True

    def tell(self) -> int:
        """The place in the unpacked bytes."""
        return self._stream.tell()

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Go to a place, forwards as a rule: what lies between is unpacked and dropped."""
        if whence == 0:
            self._refuse_beyond(offset)
        return self._stream.seek(offset, whence)

    def read(self, size: int = -1, /) -> bytes:
        """So many bytes, or as many as there are."""
        # Beyond the end nothing is claimed: the last block of a tar is asked for in full.
        wanted = UNPACKED - self.tell() + 1 if size < 0 else min(size, UNPACKED - self.tell() + 1)
        data = self._stream.read(wanted)
        self._refuse_beyond(self.tell())
        return data

    def _refuse_beyond(self, place: int) -> None:
        if place > UNPACKED:
            raise DataError(
                f"{self._archive}: unpacks to more than {UNPACKED:,} bytes, which the published archive does not: "
                "is it it?"
            )


@contextlib.contextmanager
def _unpacked(archive: Path) -> Iterator[_Limited]:
    """The archive's bytes without their compression, which their beginning tells."""
    with archive.open("rb") as file:
        start = file.read(6)
        file.seek(0)
        stream: Any = file
        if start.startswith(b"\x1f\x8b"):
            stream = gzip.GzipFile(fileobj=file)
        elif start.startswith(b"BZh"):
            stream = bz2.BZ2File(file)
        elif start.startswith((b"\xfd7zXZ", b"\x5d\x00\x00")):
            stream = lzma.LZMAFile(file)  # noqa: SIM115 - closed below, as the others are
        with contextlib.closing(stream):
            yield _Limited(stream, archive)


def _members(archive: Path, what: Distribution) -> dict[str, bytes]:
    """The contents of the set's files in an archive, found by their exact names."""
    wanted = {f"{what.folder}/{name}": name for name in what.files}
    contents: dict[str, bytes] = {}
    total = 0
    try:
        with _unpacked(archive) as stream, tarfile.open(fileobj=stream, mode="r:") as tar:
            for count, member in enumerate(tar):
                # A sparse entry may be larger than its share of the archive.
                total += member.size
                if count >= MEMBERS or member.size > LIMIT or total > UNPACKED:
                    raise DataError(  # noqa: TRY301
                        f"{archive}: holds what the published archive does not ({member.name:.60}): is it it?"
                    )
                name = wanted.get(member.name)
                if name is None or name in contents:
                    continue
                file = tar.extractfile(member) if member.isreg() else None
                if file is None:
                    raise DataError(  # noqa: TRY301
                        f"{archive}: {member.name} in it is no plain file: take the published archive"
                    )
                contents[name] = file.read()
                if len(contents) == len(wanted):
                    break
    except (DataError, MemoryError):
        raise
    except Exception as error:  # a hostile archive makes tarfile and the decompressors fail in nearly any way
        raise DataError(f"{archive}: cannot be read as a tar archive ({error!s:.200}): take another copy") from error
    missing = [member for member, name in wanted.items() if name not in contents]
    if missing:
        raise DataError(f"{archive}: has no {missing[0]} in it: take the published {what.archive}")
    return contents


def _decoded(contents: dict[str, bytes], what: Distribution, place: Path) -> Cifar:
    def checksum(name: str) -> str:
        return hashlib.md5(contents[name], usedforsecurity=False).hexdigest()

    def opened(name: str) -> Batch:
        return _batch(_opened(contents[name], place), what, f"{place}: {name}")

    # Neither the sums nor the reordering of 30 million bytes hold Python's lock.
    with ThreadPoolExecutor(usable_cores()) as pool:
        for (name, expected), found in zip(what.files.items(), pool.map(checksum, what.files), strict=True):
            if found != expected:
                raise DataError(
                    f"{place}: {name} has MD5 {found}, and the published file has {expected}: it was not opened; take "
                    "another copy"
                )
        classes = _names(_opened(contents[next(iter(what.meta))], place), what, place)
        train, test = (_joined(list(pool.map(opened, names)), pool) for names in (what.train, what.test))
    return Cifar(*train, *test, classes)


def _batch(values: dict[str, Any], what: Distribution, place: str) -> Batch:
    """A batch's pixels as they stand in its file, a row of planes each (N, 3072), and its labels."""
    data, labels = values.get("data"), values.get(what.labels)
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != 3072:
        raise DataError(f"{place}: its data is no array of rows of 3,072 bytes: take the published file")
    if not isinstance(labels, list) or not all(isinstance(k, int) and 0 <= k < what.classes for k in labels):
        raise DataError(f"{place}: its {what.labels} are no list of numbers below {what.classes}: take another copy")
    if len(labels) != len(data):
        raise DataError(f"{place}: it has {len(data)} pictures and {len(labels)} labels: take another copy")
    return data, np.array(labels, np.uint8)


def _joined(batches: list[Batch], pool: ThreadPoolExecutor) -> Batch:
    """Pixels (N, 32, 32, 3) and labels of some batches, one after the other."""
    ends = np.cumsum([len(labels) for _, labels in batches])
    pixels = np.empty((ends[-1], 32, 32, 3), np.uint8)

    def put(end: int, data: NDArray[np.uint8]) -> None:
        # A row has the red plane first, then the green, then the blue.
        pixels[end - len(data) : end] = data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)

    list(pool.map(put, ends.tolist(), (data for data, _ in batches)))
    return pixels, np.concatenate([labels for _, labels in batches])


def _names(values: dict[str, Any], what: Distribution, place: Path) -> tuple[str, ...]:
    names = values.get(what.names)
    if not isinstance(names, list) or len(names) != what.classes or not all(isinstance(n, str) for n in names):
        raise DataError(f"{place}: its {what.names} are no list of {what.classes} names: take another copy")
    return tuple(names)


# What a pickled array of numbers is rebuilt with, under the names that NumPy has had for it.
_RECONSTRUCT: Any = np.empty(0).__reduce__()[0]
_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


class _ArraysOnly(pickle.Unpickler):
    """An unpickler that can rebuild arrays, numbers, strings and collections of them, and nothing else."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        """What the pickle means by a name."""
        try:
            return _ALLOWED[module_name, global_name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module_name}.{global_name}, which no array needs") from None

    def persistent_load(self, pid: Any) -> Any:
        """What the pickle keeps outside of itself: nothing here does."""
        raise pickle.UnpicklingError("it refers to something outside of itself")


def _opened(raw: bytes, place: Path) -> dict[str, Any]:
    """The dictionary in a pickle. Written by Python 2, it has bytes where we have text: hence latin1."""
    try:
        values = _ArraysOnly(io.BytesIO(raw), encoding="latin1").load()
    except MemoryError:
        raise
    except Exception as error:
        # A damaged pickle raises nearly anything.
        raise DataError(f"{place}: a file in it was refused ({error!s:.100}): take the published files") from error
    if not isinstance(values, dict):
        raise DataError(f"{place}: a file in it holds no dictionary: take the published files")
    return values
