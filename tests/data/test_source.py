from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pellucid.data import named
from pellucid.data.images import Images, Source
from pellucid.data.source import open_source, understood
from pellucid.errors import DataError


def picture(path: Path, width: int = 6, height: int = 4, mode: str = "RGB") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, (width, height)).save(path)
    return path


# ---- what DATA may be


def test_a_name_is_the_data_set_whatever_stands_in_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    picture(tmp_path / "digits" / "odd" / "1.png")
    picture(tmp_path / "digits" / "even" / "2.png")
    assert open_source("digits").kind == "named"
    for path in ("./digits", Path("digits"), tmp_path / "digits", f"{tmp_path}/digits/"):
        source = open_source(path)
        assert (source.kind, source.name, source.classes) == ("folder", "digits", ("even", "odd"))


def test_fetching_can_be_forbidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PELLUCID_DATA", raising=False)
    with pytest.raises(DataError, match="fetching is off"):
        open_source("cifar100", fetch=False)


def test_a_home_folder_may_be_written_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    picture(tmp_path / "pets" / "cat" / "1.png")
    picture(tmp_path / "pets" / "dog" / "1.png")
    assert open_source("~/pets").classes == ("cat", "dog")


@pytest.mark.parametrize(
    ("data", "hint"),
    [
        ("minst", "did you mean 'mnist'"),
        ("fashion_mnist", "did you mean 'fashion-mnist'"),
        ("flowers-photo", "did you mean 'flower-photos'"),
        ("qqqq", "exists: DATA is"),
        ("no/such/place", "exists: DATA is"),
    ],
)
def test_what_does_not_exist_gets_a_hint(data: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "flower-photos").mkdir()
    with pytest.raises(DataError, match=hint) as caught:
        open_source(data)
    assert repr(data) in str(caught.value)
    assert "a CSV of path,label" in str(caught.value)


@pytest.mark.parametrize("data", ["", "x" * 5000, "a\0b", "INPUT -> CONV(32) -> FC(10)"])
def test_what_can_be_no_path_is_refused_in_a_sentence(data: str) -> None:
    """An empty one above all: it would mean the current folder."""
    with pytest.raises(DataError, match="DATA is a data set's name") as caught:
        open_source(data)
    assert data[:50] in str(caught.value) or "\0" in data


def test_a_file_that_is_no_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "photos.zip").touch()
    with pytest.raises(DataError, match=r"photos\.zip: is neither a folder nor a table \(unpack it first"):
        open_source(tmp_path / "photos.zip")


def test_training_and_evaluation_have_their_own_rules(tmp_path: Path) -> None:
    picture(tmp_path / "cat" / "1.png")
    with pytest.raises(DataError, match="only one class"):
        open_source(tmp_path)
    assert open_source(tmp_path, training=False).classes == ("cat",)


def test_the_real_photographs_are_understood(real_data: Callable[[str], Path]) -> None:
    source = open_source(real_data("flower-photos-small"))
    assert source.classes == ("daisy", "dandelion", "roses", "sunflowers", "tulips")
    assert source.name == "flower-photos-small"
    found = understood(source)
    assert found.counts == {"train": dict.fromkeys(source.classes, 64), "val": dict.fromkeys(source.classes, 16)}
    assert (found.sampled, found.unreadable_headers, found.grey, found.channels) == (400, 0, False, 3)
    sizes = []
    for images in source.splits.values():
        for file in images.files or ():
            with Image.open(file) as image:
                sizes.append(image.size)
    assert found.sizes["min"] == tuple(np.min(sizes, 0))
    assert found.sizes["max"] == tuple(np.max(sizes, 0))
    assert found.sizes["median"] == tuple(np.median(sizes, 0))


# ---- what is understood of it


def test_sizes_counts_and_grey_of_a_folder(tmp_path: Path) -> None:
    for n, (width, height) in enumerate(((10, 40), (20, 20), (30, 10))):
        picture(tmp_path / "train" / "aa" / f"{n}.png", width, height, "L")
    picture(tmp_path / "train" / "bb" / "0.png", 30, 20, "L")
    picture(tmp_path / "val" / "bb" / "0.png", 30, 20, "L")
    found = understood(open_source(tmp_path))
    assert found.counts == {"train": {"aa": 3, "bb": 1}, "val": {"aa": 0, "bb": 1}}
    assert found.sizes == {"min": (10, 10), "median": (30, 20), "max": (30, 40)}
    assert (found.grey, found.channels, found.classes) == (True, 1, ("aa", "bb"))
    picture(tmp_path / "train" / "bb" / "1.png", 5, 5, "RGB")
    found = understood(open_source(tmp_path))
    assert (found.grey, found.channels) == (False, 3)


def test_unreadable_headers_are_counted_and_the_rest_decides(tmp_path: Path) -> None:
    picture(tmp_path / "aa" / "1.png", mode="L")
    picture(tmp_path / "bb" / "1.png", mode="L")
    (tmp_path / "bb" / "2.png").write_bytes(b"nothing")
    found = understood(open_source(tmp_path))
    assert (found.sampled, found.unreadable_headers, found.grey) == (3, 1, True)


def test_when_nothing_can_be_read_it_is_refused(tmp_path: Path) -> None:
    for name in ("aa/1.png", "bb/1.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"nothing")
    with pytest.raises(
        DataError, match=r"not one of 2 pictures looked at can be read; the first is aa/1\.png: it is no"
    ):
        understood(open_source(tmp_path))


def test_of_many_an_even_sample_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    narrow, wide = picture(tmp_path / "n.png", 10, 10), picture(tmp_path / "w.png", 30, 10)
    n = 5000
    files = (narrow,) * (n // 2) + (wide,) * (n // 2)
    images = Images(tuple(map(str, range(n))), np.zeros(n, np.int64), files, None)
    found = understood(Source("x", "x", "folder", ("a",), {"train": images}, True, "crop"))
    assert found.sampled == 1000
    assert found.sizes == {"min": (10, 10), "median": (20, 10), "max": (30, 10)}


def test_arrays_need_no_files() -> None:
    found = understood(named.open_named("digits"))
    assert found.sizes == {"min": (8, 8), "median": (8, 8), "max": (8, 8)}
    assert (found.sampled, found.channels) == (1797, 1)
    assert sum(found.counts["test"].values()) == 359


def test_looking_at_data_does_not_load_torch() -> None:
    code = "import sys; import pellucid.data; sys.exit('torch' in sys.modules or 'sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
