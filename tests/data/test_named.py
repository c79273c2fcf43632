from __future__ import annotations

import dataclasses
import gzip
import hashlib
import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pooch
import pytest
from sklearn.datasets import load_digits
from sklearn.svm import SVC

from pellucid.data import named
from pellucid.data.cache import cache_folder
from pellucid.data.cifar import Distribution
from pellucid.data.named import IDX_SETS, IdxFile, IdxSet, open_named
from pellucid.errors import DataError


def idx(array: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def packed(raw: bytes) -> bytes:
    return gzip.compress(raw, mtime=0)


def small(seed: int = 0, changes: dict[str, bytes] | None = None) -> dict[str, bytes]:
    """MNIST's four files, with 6 training and 4 test pictures of 28×28."""
    generator = np.random.default_rng(seed)
    files = {}
    for split, n in (("train", 6), ("t10k", 4)):
        files[f"{split}-images-idx3-ubyte"] = idx(generator.integers(0, 256, (n, 28, 28), dtype=np.uint8))
        files[f"{split}-labels-idx1-ubyte"] = idx(generator.integers(0, 10, n, dtype=np.uint8))
    return files | (changes or {})


def as_published(files: dict[str, bytes], like: IdxSet = IDX_SETS["mnist"]) -> IdxSet:
    def known(file: IdxFile) -> IdxFile:
        raw = files[file.name]
        return IdxFile(file.name, hashlib.md5(packed(raw)).hexdigest(), hashlib.md5(raw).hexdigest())

    return dataclasses.replace(
        like, train=(known(like.train[0]), known(like.train[1])), test=(known(like.test[0]), known(like.test[1]))
    )


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "data"
    path.mkdir()
    monkeypatch.setenv("PELLUCID_DATA", str(path))
    return path


def write(folder: Path, files: dict[str, bytes], ending: str = ".gz") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, raw in files.items():
        (folder / f"{name}{ending}").write_bytes(packed(raw) if ending == ".gz" else raw)


# ---- digits


def test_digits_are_scikit_learns() -> None:
    source = open_named("digits")
    truth = load_digits()
    train, test = source.splits["train"], source.splits["test"]
    assert (len(train), len(test)) == (1438, 359)
    assert train.pixels is not None
    assert test.pixels is not None
    assert train.pixels.shape[1:] == (8, 8, 1)
    both = np.concatenate([train.pixels, test.pixels]).reshape(-1, 64)
    assert both.max() == 255
    # Every picture once, with its label.
    ours = sorted(zip(both.tolist(), np.concatenate([train.labels, test.labels]).tolist(), strict=True))
    scaled = np.round(truth.data * 255 / 16).astype(int).tolist()
    assert ours == sorted(zip(scaled, truth.target.tolist(), strict=True))
    assert (source.flip, source.resize, source.classes) == (False, "crop", tuple("0123456789"))
    assert train.names[17] == "train/00017"


def test_the_split_of_digits_is_stratified_fixed_and_not_flattering() -> None:
    source = open_named("digits")
    train, test = source.splits["train"], source.splits["test"]
    assert test.pixels is not None
    assert train.pixels is not None
    total = np.bincount(train.labels) + np.bincount(test.labels)
    assert np.abs(np.bincount(test.labels) - total / 5).max() <= 0.5
    again = open_named("digits").splits["test"].pixels
    assert again is not None
    assert np.array_equal(test.pixels, again)
    # The figures that the module's docstring gives.
    x_train, x_test = train.pixels.reshape(-1, 64) * (16 / 255), test.pixels.reshape(-1, 64) * (16 / 255)
    assert SVC(gamma=0.001, C=10).fit(x_train, train.labels).score(x_test, test.labels) == pytest.approx(
        0.964, abs=3e-3
    )


# ---- MNIST and its like


@pytest.mark.parametrize("ending", [".gz", ""])
@pytest.mark.parametrize("place", ["mnist", "MNIST/raw", "."])
def test_the_files_may_stand_in_several_places_gzipped_or_not(
    place: str, ending: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = small()
    monkeypatch.setitem(IDX_SETS, "mnist", as_published(files))
    write(root / place, files, ending)
    before = sorted(root.rglob("*"))
    source = open_named("mnist", fetch=False)
    assert source.splits["train"].pixels is not None
    assert source.splits["train"].pixels.tobytes() == files["train-images-idx3-ubyte"][16:]
    assert source.splits["test"].labels.tolist() == list(files["t10k-labels-idx1-ubyte"][8:])
    assert source.splits["train"].pixels.shape == (6, 28, 28, 1)
    assert source.splits["test"].names == ("test/00000", "test/00001", "test/00002", "test/00003")
    assert sorted(root.rglob("*")) == before


def test_compressed_anew_or_with_a_dot_they_are_the_same_files(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = small()
    monkeypatch.setitem(IDX_SETS, "mnist", as_published(files))
    (root / "mnist").mkdir()
    for name, raw in files.items():
        if "images" in name:
            (root / "mnist" / f"{name}.gz").write_bytes(gzip.compress(raw, 1))
        else:
            (root / "mnist" / name.replace("-idx", ".idx")).write_bytes(raw)
    assert len(open_named("mnist", fetch=False).splits["train"]) == 6


def test_other_contents_are_refused_by_name(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = small()
    monkeypatch.setitem(IDX_SETS, "mnist", as_published(files))
    write(root / "mnist", files | {"t10k-images-idx3-ubyte": small(1)["t10k-images-idx3-ubyte"]})
    with pytest.raises(DataError, match=r"t10k-images-idx3-ubyte\.gz: its contents have MD5 .* those of mnist"):
        open_named("mnist")


def test_files_of_the_other_set_in_a_shared_folder_are_not_taken_for_ours(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = small(0), small(1)
    monkeypatch.setitem(IDX_SETS, "fashion-mnist", as_published(ours, IDX_SETS["fashion-mnist"]))
    write(root, theirs)
    with pytest.raises(DataError, match="fashion-mnist have"):
        open_named("fashion-mnist", fetch=False)
    write(cache_folder() / "data" / "fashion-mnist", ours)
    source = open_named("fashion-mnist", fetch=False)
    assert source.splits["train"].labels.tolist() == list(ours["train-labels-idx1-ubyte"][8:])


@pytest.mark.parametrize(
    ("name", "raw"),
    [
        ("train-labels-idx1-ubyte", idx(np.array([0, 1, 2, 3, 4, 10], np.uint8))),
        ("train-labels-idx1-ubyte", idx(np.array([0, 1, 2, 3, 4], np.uint8))),
        ("train-images-idx3-ubyte", idx(np.zeros((6, 28), np.uint8))),
    ],
)
def test_pictures_and_labels_must_go_together(
    name: str, raw: bytes, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = small(changes={name: raw})
    monkeypatch.setitem(IDX_SETS, "mnist", as_published(files))
    write(root / "mnist", files)
    with pytest.raises(DataError, match="do not go together"):
        open_named("mnist")


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_the_checksums_are_the_published_ones(name: str, real_data: Callable[[str], Path]) -> None:
    """Of the gzipped files, as their pages give them; those of the contents follow from these."""
    for file in (*IDX_SETS[name].train, *IDX_SETS[name].test):
        raw = (real_data(name) / f"{file.name}.gz").read_bytes()
        assert hashlib.md5(raw).hexdigest() == file.published
        with gzip.open(io.BytesIO(raw)) as opened:
            assert hashlib.md5(opened.read()).hexdigest() == file.contents


def test_the_real_mnist_is_what_was_published(
    real_data: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PELLUCID_DATA", str(real_data("mnist").parent))
    source = open_named("mnist", fetch=False)
    train, test = source.splits["train"], source.splits["test"]
    assert train.pixels is not None
    assert np.bincount(train.labels).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(test.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert train.labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert (train.pixels.mean() / 255, train.pixels.std() / 255) == pytest.approx((0.1307, 0.3081), abs=5e-5)
    assert (source.flip, source.resize) == (False, "pad")


def test_the_real_fashion_mnist_is_what_was_published(
    real_data: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PELLUCID_DATA", str(real_data("fashion-mnist").parent))
    source = open_named("fashion-mnist", fetch=False)
    assert np.bincount(source.splits["train"].labels).tolist() == [6000] * 10
    assert np.bincount(source.splits["test"].labels).tolist() == [1000] * 10
    assert [source.classes[k] for k in source.splits["train"].labels[:2]] == ["Ankle boot", "T-shirt/top"]
    assert (source.flip, source.resize) == (True, "pad")


# ---- fetching


def retrieving(monkeypatch: pytest.MonkeyPatch, files: dict[str, bytes]) -> list[str]:
    """A network of these files, by URL, that checks as pooch does; the URLs asked for are listed."""
    asked: list[str] = []

    def retrieve(url: str, known_hash: str, fname: str, path: Path) -> str:
        asked.append(url)
        raw = files[url]
        if known_hash != f"md5:{hashlib.md5(raw).hexdigest()}":
            raise ValueError("hash mismatch")
        Path(path).mkdir(parents=True, exist_ok=True)
        (Path(path) / fname).write_bytes(raw)
        return str(Path(path) / fname)

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    return asked


def test_absent_files_are_fetched_into_the_cache_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = small()
    what = as_published(files)
    monkeypatch.setitem(IDX_SETS, "mnist", what)
    asked = retrieving(monkeypatch, {f"{what.url}/{name}.gz": packed(raw) for name, raw in files.items()})
    for _ in range(2):
        assert len(open_named("mnist").splits["test"]) == 4
    assert len(asked) == 4
    assert asked[0] == "https://storage.googleapis.com/cvdf-datasets/mnist/train-images-idx3-ubyte.gz"
    assert list(root.iterdir()) == []
    assert sorted(path.name for path in (cache_folder() / "data" / "mnist").iterdir()) == sorted(
        f"{name}.gz" for name in files
    )


def test_an_archive_is_fetched_into_the_cache(
    small_cifar: Callable[[Path, str], Distribution], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("PELLUCID_DATA", raising=False)
    what = small_cifar(tmp_path / "a", "w:gz")
    monkeypatch.setitem(named.CIFAR_SETS, "cifar10", what)
    asked = retrieving(monkeypatch, {what.url: (tmp_path / "a").read_bytes()})
    for _ in range(2):
        source = open_named("cifar10")
        assert (len(source.splits["train"]), len(source.splits["test"])) == (15, 3)
    assert asked == ["https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"]


@pytest.mark.parametrize(
    ("name", "file"), [("mnist", "t10k-labels-idx1-ubyte.gz"), ("cifar100", "cifar-100-python.tar.gz")]
)
def test_without_a_network_it_is_said_what_to_put_where(
    name: str, file: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: Any, **__: Any) -> Any:
        raise ConnectionError("Max retries exceeded with url: " + "x" * 500) from OSError("Name or service not known")

    monkeypatch.setattr(pooch, "retrieve", unreachable)
    own = {"mnist": "mnist", "cifar100": "cifar-100"}[name]
    with pytest.raises(DataError, match=r"^\w+: its files are not on this machine, and fetching failed") as caught:
        open_named(name)
    assert f"{file} into {root / own}" in str(caught.value)
    assert "fetching failed (Name or service not known): put" in str(caught.value)
    with pytest.raises(DataError, match="fetching is off"):
        open_named(name, fetch=False)
    monkeypatch.delenv("PELLUCID_DATA")
    with pytest.raises(DataError, match="or set PELLUCID_DATA"):
        open_named(name)


def test_a_fetched_file_with_a_wrong_checksum_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = small()
    what = as_published(files)
    monkeypatch.setitem(IDX_SETS, "mnist", what)
    retrieving(monkeypatch, {f"{what.url}/{name}.gz": b"something else" for name in files})
    with pytest.raises(DataError, match="hash mismatch"):
        open_named("mnist")
    assert list(root.iterdir()) == []


def test_a_folder_with_some_of_the_files_is_not_mixed_with_fetched_ones(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = small()
    what = as_published(files)
    monkeypatch.setitem(IDX_SETS, "mnist", what)
    write(root / "mnist", dict(list(files.items())[:3]))
    asked = retrieving(monkeypatch, {f"{what.url}/{name}.gz": packed(raw) for name, raw in files.items()})
    source = open_named("mnist")
    assert len(asked) == 4
    assert source.place == str(cache_folder() / "data" / "mnist")


def test_cifar_is_found_in_its_own_folder_and_directly(
    small_cifar: Callable[[Path, str], Distribution], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in (root / "cifar-10", root):
        place.mkdir(exist_ok=True)
        made = place / "cifar-10-batches-py.tar.xz"
        monkeypatch.setitem(named.CIFAR_SETS, "cifar10", small_cifar(made, "w:xz"))
        source = open_named("cifar10", fetch=False)
        assert source.place == str(made)
        assert source.splits["test"].names == ("test/00000", "test/00001", "test/00002")
        assert source.splits["test"].labels.tolist() == [0, 9, 5]
        made.unlink()
