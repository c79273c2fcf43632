from __future__ import annotations

import dataclasses
import hashlib
import io
import os
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pellucid.data import cifar
from pellucid.data.cache import remember
from pellucid.data.cifar import CIFAR10, CIFAR100, Cifar, Distribution
from pellucid.data.images import Source
from pellucid.errors import DataError

NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def batch(n: int, seed: int) -> dict[str, Any]:
    generator = np.random.default_rng(seed)
    return {
        "data": generator.integers(0, 256, (n, 3072), dtype=np.uint8),
        "labels": generator.integers(0, 10, n).tolist(),
        "batch_label": "one of them",
    }


def contents(**changes: bytes) -> dict[str, bytes]:
    """A set in the published form, of 3 pictures a file."""
    made = {name: pickle.dumps(batch(3, seed), 4) for seed, name in enumerate([*CIFAR10.train, *CIFAR10.test])}
    made["batches.meta"] = pickle.dumps({"label_names": NAMES, "num_vis": 3072}, 4)
    return made | changes


def published(files: dict[str, bytes]) -> Distribution:
    """A distribution of which these are the published files."""
    sums = {name: hashlib.md5(raw).hexdigest() for name, raw in files.items()}
    return dataclasses.replace(
        CIFAR10,
        train={name: sums[name] for name in CIFAR10.train},
        test={name: sums[name] for name in CIFAR10.test},
        meta={name: sums[name] for name in CIFAR10.meta},
    )


def folder(root: Path, files: dict[str, bytes]) -> Path:
    place = root / CIFAR10.folder
    place.mkdir(parents=True)
    for name, raw in files.items():
        (place / name).write_bytes(raw)
    return place


def archive(path: Path, files: dict[str, bytes], mode: str = "w:gz", prefix: str = f"{CIFAR10.folder}/") -> Path:
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, raw in files.items():
            member = tarfile.TarInfo(f"{prefix}{name}")
            member.size = len(raw)
            tar.addfile(member, io.BytesIO(raw))
    return path


def same(one: Cifar, other: Cifar) -> bool:
    return one.classes == other.classes and all(
        np.array_equal(getattr(one, name), getattr(other, name))
        for name in ("train_pixels", "train_labels", "test_pixels", "test_labels")
    )


# ---- reading


def test_a_folder_reads_as_the_format_says(tmp_path: Path) -> None:
    files = contents()
    found = cifar.read(folder(tmp_path, files), published(files))
    assert found.classes == tuple(NAMES)
    assert found.train_pixels.shape == (15, 32, 32, 3)
    assert found.test_pixels.shape == (3, 32, 32, 3)
    third = batch(3, 2)
    assert found.train_labels[6:9].tolist() == third["labels"]
    # The page of the data set: 1,024 red values row by row, then the green, then the blue.
    assert found.train_pixels[7, 5, 9].tolist() == [third["data"][1, plane * 1024 + 5 * 32 + 9] for plane in range(3)]


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("cifar-10-batches-py.tar", "w:"),
        ("cifar-10-batches-py.tar.gz", "w:gz"),
        ("cifar-10-python.tar.gz", "w:gz"),
        ("cifar-10-python.tgz", "w:gz"),
        ("cifar-10-batches-py.tar.bz2", "w:bz2"),
        ("cifar-10-batches-py.tar.xz", "w:xz"),
    ],
)
def test_an_archive_of_any_compression_reads_the_same(name: str, mode: str, tmp_path: Path) -> None:
    files = contents()
    what = published(files)
    place = archive(tmp_path / name, files, mode)
    assert cifar.find([tmp_path / "elsewhere", tmp_path], what) == place
    truth = cifar.read(folder(tmp_path / "unpacked", files), what)
    assert same(cifar.read(place, what), truth)
    assert same(cifar.read(place, what), truth)  # from the cache
    assert sorted(path.name for path in tmp_path.iterdir()) == [name, "unpacked"]


def test_where_it_is_looked_for(tmp_path: Path) -> None:
    assert cifar.find([tmp_path], CIFAR10) is None
    (tmp_path / "cifar-10-python.tar.gz.part").write_bytes(b"")
    (tmp_path / "cifar-10-batches-py.txt").write_bytes(b"")
    (tmp_path / "cifar-100-python.tar.gz").write_bytes(b"")
    assert cifar.find([tmp_path], CIFAR10) is None
    assert cifar.find([tmp_path], CIFAR100) == tmp_path / "cifar-100-python.tar.gz"
    place = folder(tmp_path, contents())
    archive(tmp_path / "cifar-10-python.tar.gz", contents())
    assert cifar.find([tmp_path], CIFAR10) == place
    assert cifar.find([place], CIFAR10) == place


def test_cifar100_has_its_own_keys(tmp_path: Path) -> None:
    def hundred(seed: int) -> bytes:
        values = batch(4, seed)
        fine = [99, 0, 5, 50]
        return pickle.dumps({"data": values["data"], "fine_labels": fine, "coarse_labels": [0, 1, 2, 3]}, 4)

    names = [f"class {n}" for n in range(100)]
    files = {"train": hundred(0), "test": hundred(1), "meta": pickle.dumps({"fine_label_names": names}, 4)}
    md5 = {name: hashlib.md5(raw).hexdigest() for name, raw in files.items()}
    what = dataclasses.replace(
        CIFAR100, train={"train": md5["train"]}, test={"test": md5["test"]}, meta={"meta": md5["meta"]}
    )
    place = archive(tmp_path / CIFAR100.archive, files, prefix="cifar-100-python/")
    found = cifar.read(place, what)
    assert found.train_labels.tolist() == [99, 0, 5, 50]
    assert len(found.classes) == 100


# ---- what is refused


def hostile(call: Any, *arguments: Any) -> bytes:
    class Evil:
        def __reduce__(self) -> Any:
            return call, arguments

    return pickle.dumps({"data": Evil(), "labels": [1]}, 2)


@pytest.mark.parametrize("packed", [False, True])
def test_a_pickle_that_runs_a_command_is_refused(packed: bool, tmp_path: Path) -> None:
    """Even with the right MD5."""
    canary = tmp_path / "canary"
    raw = hostile(os.system, f"touch {canary}")
    pickle.loads(raw)
    assert canary.exists()
    canary.unlink()
    files = contents(data_batch_3=raw)
    place = archive(tmp_path / "a.tar.gz", files) if packed else folder(tmp_path, files)
    with pytest.raises(DataError, match=r"system, which no array needs"):
        cifar.read(place, published(files))
    assert not canary.exists()


@pytest.mark.parametrize(
    ("raw", "complaint"),
    [
        (hostile(eval, "1 + 1"), r"builtin(s|__)\.eval"),
        (hostile(getattr, "", "join"), "getattr"),
        (hostile(np.load, "x"), "load"),
        (hostile(np.lib.format.open_memmap, "x"), "open_memmap"),
        (b"\x80\x02Pouter\n.", "outside of itself|refused"),
        (b"cnumpy\nndarray.__class__\n.", "which no array needs"),
        (b"\x80\x04\x8c\x05numpy\x8c\x10ndarray.__init__\x93.", "which no array needs"),
        (b"\x80\x02\x82\x01.", "refused"),
        (b"\x80\x02(cnumpy\ndtype\no.", "refused"),
        (b"", "refused"),
        (b"\x80\x02}q\x01(U", "refused"),
        (pickle.dumps([1, 2], 2), "no dictionary"),
    ],
)
def test_other_hostile_or_damaged_pickles_are_refused(raw: bytes, complaint: str, tmp_path: Path) -> None:
    files = contents(test_batch=raw)
    with pytest.raises(DataError, match=complaint):
        cifar.read(folder(tmp_path, files), published(files))


def test_no_state_of_ours_can_be_changed_by_a_pickle(tmp_path: Path) -> None:
    """BUILD sets attributes on what is there: of the four names, none lets it."""
    for name in (b"cnumpy\nndarray\n", b"cnumpy\ndtype\n", b"cnumpy.core.multiarray\n_reconstruct\n"):
        raw = b"\x80\x02" + name + b"N}U\x04evilI1\ns\x86b."
        files = contents(test_batch=raw)
        with pytest.raises(DataError, match="refused"):
            cifar.read(folder(tmp_path / hashlib.md5(name).hexdigest(), files), published(files))
    assert not hasattr(np.ndarray, "evil")


def test_a_wrong_checksum_keeps_the_pickle_shut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> Any:
        raise AssertionError("opened")

    monkeypatch.setattr(cifar, "_opened", never)
    files = contents()
    what = published(files)
    files["data_batch_2"] = hostile(print, "x")
    with pytest.raises(DataError, match=r"data_batch_2 has MD5 [0-9a-f]{32}, and the published .* was not opened"):
        cifar.read(folder(tmp_path, files), what)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"data": np.zeros((3, 3071), np.uint8)}, "rows of 3,072"),
        ({"data": np.zeros((3, 3072), np.float32)}, "rows of 3,072"),
        ({"data": [1, 2, 3]}, "rows of 3,072"),
        ({"labels": [0, 1, 10]}, "below 10"),
        ({"labels": [0, 1, -1]}, "below 10"),
        ({"labels": [0, 1, "2"]}, "below 10"),
        ({"labels": None}, "below 10"),
        ({"labels": [0, 1]}, "3 pictures and 2 labels"),
    ],
)
def test_a_batch_that_is_not_one_is_refused(change: dict[str, Any], complaint: str, tmp_path: Path) -> None:
    files = contents(data_batch_5=pickle.dumps(batch(3, 0) | change, 4))
    with pytest.raises(DataError, match=f"data_batch_5: .*{complaint}"):
        cifar.read(folder(tmp_path, files), published(files))


@pytest.mark.parametrize("names", [NAMES[:9], None, [1] * 10])
def test_class_names_that_are_none_are_refused(names: Any, tmp_path: Path) -> None:
    files = contents(**{"batches.meta": pickle.dumps({"label_names": names}, 4)})
    with pytest.raises(DataError, match="10 names"):
        cifar.read(folder(tmp_path, files), published(files))


@pytest.mark.parametrize("prefix", ["../cifar-10-batches-py/", "/cifar-10-batches-py/", "cifar-10-batches-py/../", ""])
def test_files_under_other_names_are_not_taken(prefix: str, tmp_path: Path) -> None:
    files = contents()
    place = archive(tmp_path / "a.tar.gz", files, prefix=prefix)
    with pytest.raises(DataError, match=r"has no cifar-10-batches-py/data_batch_1 in it"):
        cifar.read(place, published(files))
    assert [path.name for path in tmp_path.rglob("*")] == ["a.tar.gz"]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE])
def test_links_and_devices_in_an_archive_are_refused(kind: bytes, tmp_path: Path) -> None:
    files = contents()
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        member = tarfile.TarInfo("cifar-10-batches-py/data_batch_1")
        member.type, member.linkname = kind, "/etc/passwd"
        tar.addfile(member)
    with pytest.raises(DataError, match="is no plain file"):
        cifar.read(tmp_path / "a.tar", published(files))


def test_an_archive_larger_than_it_can_be_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = contents()
    place = archive(tmp_path / "a.tar.gz", {"huge": b"\0" * 100_000} | files)
    monkeypatch.setattr(cifar, "LIMIT", 50_000)
    with pytest.raises(DataError, match="what the published archive does not"):
        cifar.read(place, published(files))
    monkeypatch.undo()
    place = archive(tmp_path / "b.tar.gz", {f"file{n}": b"" for n in range(1001)} | files)
    with pytest.raises(DataError, match="what the published archive does not"):
        cifar.read(place, published(files))


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    files = contents()
    for mode in ("gz", "xz", "bz2"):
        raw = archive(tmp_path / "whole", files, f"w:{mode}").read_bytes()
        for damaged in (raw[: len(raw) // 2], raw[:200] + b"\xff" * 50 + raw[250:], b"nothing", b""):
            (tmp_path / "a.tar.gz").write_bytes(damaged)
            with pytest.raises(DataError):
                cifar.read(tmp_path / "a.tar.gz", published(files))


def test_a_cache_of_another_shape_is_not_believed(tmp_path: Path) -> None:
    files = contents()
    place = archive(tmp_path / "a.tar.gz", files)
    truth = cifar.read(place, published(files))
    good = {name: value for name, value in vars(truth).items() if name != "classes"}
    text = np.frombuffer("\n".join(NAMES).encode(), np.uint8)
    for wrong in (
        {"train_pixels": good["train_pixels"][:, :16]},
        {"test_labels": good["test_labels"] + np.uint8(20)},
        {"test_labels": good["test_labels"][:2]},
        {"classes": np.frombuffer(b"a\nb", np.uint8)},
        {"classes": np.array([255], np.uint8)},
    ):
        remember(place, good | {"classes": text} | wrong)
        assert same(cifar.read(place, published(files)), truth)
    remember(place, {"classes": text})
    assert same(cifar.read(place, published(files)), truth)


# ---- the real one


def test_the_real_cifar10_is_what_was_published(real_cifar: tuple[Source, Path]) -> None:
    source, _ = real_cifar
    assert source.classes == tuple(NAMES)
    assert (source.kind, source.flip, source.resize, source.name) == ("named", True, "crop", "cifar10")
    train, test = source.splits["train"], source.splits["test"]
    assert train.pixels is not None
    assert test.pixels is not None
    assert train.pixels.shape == (50_000, 32, 32, 3)
    assert np.bincount(train.labels).tolist() == [5000] * 10
    assert np.bincount(test.labels).tolist() == [1000] * 10
    # The mean and deviation of the training set that everybody normalises with.
    counts = [np.bincount(train.pixels[..., c].ravel(), minlength=256) / (50_000 * 1024) for c in range(3)]
    mean = np.array([share @ np.arange(256) / 255 for share in counts])
    square = np.array([share @ (np.arange(256) / 255) ** 2 for share in counts])
    assert mean == pytest.approx([0.4914, 0.4822, 0.4465], abs=1e-4)
    assert np.sqrt(square - mean**2) == pytest.approx([0.2470, 0.2435, 0.2616], abs=1e-4)
    # The first picture is a frog, the second a truck.
    assert [source.classes[k] for k in train.labels[:2]] == ["frog", "truck"]
    assert train.pixels[0, 0, 0].tolist() == [59, 62, 63]


def test_a_second_start_takes_the_real_one_from_the_cache(
    real_cifar: tuple[Source, Path], real_data: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PELLUCID_CACHE", str(real_cifar[1]))

    def never(*_: Any) -> Any:
        raise AssertionError("decompressed again")

    monkeypatch.setattr(cifar, "_members", never)
    place = cifar.find([real_data("cifar-10")], CIFAR10)
    assert place is not None
    found = cifar.read(place, CIFAR10)
    pixels = real_cifar[0].splits["test"].pixels
    assert pixels is not None
    assert np.array_equal(found.test_pixels, pixels)
    assert found.classes == real_cifar[0].classes
