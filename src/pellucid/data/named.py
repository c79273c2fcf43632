"""Data sets known by name: digits, mnist, fashion-mnist, cifar10, cifar100.

The standard files are looked for in `PELLUCID_DATA` (in the set's own folder there, or directly), then in the `data`
folder of Pellucid's cache, and else fetched into the latter. `PELLUCID_DATA` itself is never written to. Every file is
checked against an MD5 before it is used.

`digits` are the 1,797 handwritten digits that come with scikit-learn. Nobody published a split of them, so ours is: the
last fifth of each class, in scikit-learn's order, is `test`. That order goes by writer, so most writers of `test` are
new. A random fifth has near-twins of its pictures in `train`, and flatters: a support-vector machine gets 96.4 % of
ours right, and 98.6 to 99.7 % of random ones.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pooch
from numpy.typing import NDArray

from pellucid.data import cifar, idx
from pellucid.data.cache import cache_folder
from pellucid.data.images import Images, Source, Split
from pellucid.errors import DataError

DIGITS = tuple("0123456789")

_GARMENTS = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip


@dataclass(frozen=True)
class IdxFile:
    """One published file: its name without `.gz`, the MD5 published for the gzipped file, and that of its contents.

    The MD5s of the contents were taken from files that had the published one; they let a file count that someone has
    decompressed, or compressed anew.
    """

    name: str
    published: str
    contents: str


@dataclass(frozen=True)
class IdxSet:
    """MNIST, or a set in the same form."""

    folders: tuple[str, ...]
    """Where in `PELLUCID_DATA` its files may stand; the first is its own."""
    url: str
    classes: tuple[str, ...]
    flip: bool
    train: tuple[IdxFile, IdxFile]
    """Pictures and labels."""
    test: tuple[IdxFile, IdxFile]


IDX_SETS = {
    "mnist": IdxSet(
        folders=("mnist", "MNIST/raw"),
        url="https://storage.googleapis.com/cvdf-datasets/mnist",
        classes=DIGITS,
        flip=False,
        train=(
            IdxFile("train-images-idx3-ubyte", "f68b3c2dcbeaaa9fbdd348bbdeb94873", "6bbc9ace898e44ae57da46a324031adb"),
            IdxFile("train-labels-idx1-ubyte", "d53e105ee54ea40749a09fcbcd1e9432", "a25bea736e30d166cdddb491f175f624"),
        ),
        test=(
            IdxFile("t10k-images-idx3-ubyte", "9fb629c4189551a2d022fa330f9573f3", "2646ac647ad5339dbf082846283269ea"),
            IdxFile("t10k-labels-idx1-ubyte", "ec29112dd5afa0611ce80d1b7f02629c", "27ae3e4e09519cfbb04c329615203637"),
        ),
    ),
    "fashion-mnist": IdxSet(
        folders=("fashion-mnist", "FashionMNIST/raw"),
        url="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
        classes=_GARMENTS,
        flip=True,
        train=(
            IdxFile("train-images-idx3-ubyte", "8d4fb7e6c68d591d4c3dfef9ec88bf0d", "f4a8712d7a061bf5bd6d2ca38dc4d50a"),
            IdxFile("train-labels-idx1-ubyte", "25c81989df183df01b3e8a0aad5dffbe", "9018921c3c673c538a1fc5bad174d6f9"),
        ),
        test=(
            IdxFile("t10k-images-idx3-ubyte", "bef4ecab320f06d8554ea6380940ec79", "8181f5470baa50b63fa0f6fddb340f0a"),
            IdxFile("t10k-labels-idx1-ubyte", "bb300cfdad3c16e7a12a480ee83cd310", "15d484375f8d13e6eb1aabb0c3f46965"),
        ),
    ),
}

CIFAR_SETS = {"cifar10": cifar.CIFAR10, "cifar100": cifar.CIFAR100}

#: The CIFAR sets' own folders in `PELLUCID_DATA`.
_CIFAR_FOLDERS = {"cifar10": "cifar-10", "cifar100": "cifar-100"}

#: Every name, in the order of the sets' size.
NAMES = ("digits", *IDX_SETS, *CIFAR_SETS)


def open_named(name: str, *, fetch: bool = True) -> Source:
    """The data set of that name, one of `NAMES`.

    Raises DataError when its files are absent and `fetch` is off or fails, or when they are not the published ones.
    """
    if name == "digits":
        return _digits()
    if name in IDX_SETS:
        return _idx_set(name, fetch=fetch)
    return _cifar_set(name, fetch=fetch)


def _digits() -> Source:
    from sklearn.datasets import load_digits  # noqa: PLC0415 - takes a second, and no other data set needs it

    found = load_digits()
    # 0…16, counts of dark points in squares of 4×4.
    pixels: NDArray[np.uint8] = np.floor(found.images * (255 / 16) + 0.5).astype(np.uint8)[..., None]
    labels: NDArray[np.int64] = found.target.astype(np.int64)
    held = [group[-round(len(group) / 5) :] for group in (np.flatnonzero(labels == k) for k in range(10))]
    test = np.sort(np.concatenate(held))
    train = np.setdiff1d(np.arange(len(labels)), test)
    return Source(
        name="digits",
        place="scikit-learn",
        kind="named",
        classes=DIGITS,
        splits={
            "train": _images("train", pixels[train], labels[train]),
            "test": _images("test", pixels[test], labels[test]),
        },
        flip=False,
        resize="crop",
        notes=("digits has no published split: test is the last fifth of each class, mostly by other writers.",),
    )


def _idx_set(name: str, *, fetch: bool) -> Source:
    what = IDX_SETS[name]
    refused = None
    for folder in _folders(*what.folders):
        paths = [_idx_path(folder, file) for file in (*what.train, *what.test)]
        if any(path is None for path in paths):
            continue
        try:
            return _read_idx(name, what, folder)
        except DataError as error:
            # MNIST and Fashion-MNIST name their files alike, so those in a shared folder may be the other's.
            refused = refused or error
    if refused is not None:
        raise refused
    files = {f"{file.name}.gz": (f"{what.url}/{file.name}.gz", file.published) for file in (*what.train, *what.test)}
    return _read_idx(name, what, _fetched(name, what.folders[0], files, fetch=fetch))


def _read_idx(name: str, what: IdxSet, folder: Path) -> Source:
    splits: dict[Split, Images] = {}
    halves: tuple[tuple[Split, tuple[IdxFile, IdxFile]], ...] = (("train", what.train), ("test", what.test))
    for split, (of_pictures, of_labels) in halves:
        pixels, labels = _array(folder, of_pictures, name), _array(folder, of_labels, name)
        if pixels.ndim != 3 or labels.shape != pixels.shape[:1] or labels.max(initial=0) >= len(what.classes):
            sides = f"{pixels.shape} pictures, {labels.shape} labels up to {labels.max(initial=0)}"
            raise DataError(f"{folder}: the {split} files of {name} do not go together ({sides}): take other copies")
        splits[split] = _images(split, pixels[..., None], labels.astype(np.int64))
    return Source(name, str(folder), "named", what.classes, splits, what.flip, "pad")


def _array(folder: Path, file: IdxFile, name: str) -> NDArray[np.uint8]:
    path = _idx_path(folder, file)
    if path is None:
        raise DataError(f"{folder / file.name}.gz: is gone: start again")
    contents = idx.read_contents(path)
    found = hashlib.md5(contents, usedforsecurity=False).hexdigest()
    if found != file.contents:
        raise DataError(
            f"{path}: its contents have MD5 {found}, and those of {name} have {file.contents}: take another copy, or "
            "move it out of the way to have it fetched"
        )
    return idx.parse(contents, str(path))


def _idx_path(folder: Path, file: IdxFile) -> Path | None:
    # Some programs that unpack the files put a dot for the hyphen before the format.
    names = (f"{file.name}.gz", file.name, file.name.replace("-idx", ".idx"))
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _cifar_set(name: str, *, fetch: bool) -> Source:
    what = CIFAR_SETS[name]
    own = _CIFAR_FOLDERS[name]
    place = cifar.find(_folders(own), what)
    if place is None:
        place = _fetched(name, own, {what.archive: (what.url, what.md5)}, fetch=fetch) / what.archive
    found = cifar.read(place, what)
    return Source(
        name=name,
        place=str(place),
        kind="named",
        classes=found.classes,
        splits={
            "train": _images("train", found.train_pixels, found.train_labels.astype(np.int64)),
            "test": _images("test", found.test_pixels, found.test_labels.astype(np.int64)),
        },
        flip=True,
        resize="crop",
    )


def _folders(*own: str) -> list[Path]:
    """Where a set's files may stand, in the order in which it is looked."""
    roots = [cache_folder() / "data"]
    if os.environ.get("PELLUCID_DATA"):
        roots.insert(0, Path(os.environ["PELLUCID_DATA"]).expanduser())
    return [folder for root in roots for folder in (*(root / name for name in own), root)]


def _fetched(name: str, own: str, files: dict[str, tuple[str, str]], *, fetch: bool) -> Path:
    """The folder into which the files (each with its URL and MD5) were fetched. Raises DataError if they were not."""
    folder = cache_folder() / "data" / own
    data = os.environ.get("PELLUCID_DATA")
    remedy = f"put {', '.join(files)} into {Path(data).expanduser() / own if data else folder}"
    if not data:
        remedy += ", or set PELLUCID_DATA to the folder that has them"
    if not fetch:
        raise DataError(f"{name}: its files are not on this machine, and fetching is off: {remedy}")
    try:
        for file, (url, md5) in files.items():
            pooch.retrieve(url, known_hash=f"md5:{md5}", fname=file, path=folder)
    except (OSError, ValueError) as error:
        # requests' errors are OSErrors; a wrong checksum is a ValueError.
        cause = f"{_innermost(error)!s:.150}"
        raise DataError(
            f"{name}: its files are not on this machine, and fetching failed ({cause}): {remedy}"
        ) from error
    return folder


def _innermost(error: BaseException) -> BaseException:
    """What began it: the outer errors of a failed connection repeat the URL and the number of attempts."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return error


def _images(split: str, pixels: NDArray[np.uint8], labels: NDArray[np.int64]) -> Images:
    return Images(tuple(f"{split}/{n:05}" for n in range(len(labels))), labels, None, pixels)
