from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pellucid.data.decode import FORMATS, BadImage, decode_reduced
from pellucid.data.images import Images
from pellucid.data.preprocess import Preprocess
from pellucid.data.reading import Facts, hexadecimal, read_arrays, read_file, read_files
from pellucid.data.split import digest
from pellucid.data.twins import signature

PREPROCESS = Preprocess((12, 10), "crop", 3, (0.5,) * 3, (0.5,) * 3)


class Kept:
    """A sink that keeps what it is given."""

    def __init__(self, n: int, preprocess: Preprocess = PREPROCESS) -> None:
        self.pixels = np.full((n, *preprocess.size, preprocess.channels), 7, np.uint8)
        self.signatures = np.full((n, 16, 16, 3), 7, np.uint8)

    def __call__(self, start: int, pixels: NDArray[np.uint8], signatures: NDArray[np.uint8]) -> None:
        self.pixels[start : start + len(pixels)] = pixels
        self.signatures[start : start + len(pixels)] = signatures


def pictures(folder: Path, n: int) -> list[Path]:
    generator = np.random.default_rng(0)
    files = []
    for k in range(n):
        pixels = generator.integers(0, 256, (30 + k, 50, 3), dtype=np.uint8)
        files.append(folder / f"{k:02}.{('png', 'jpg', 'tif', 'webp')[k % 4]}")
        Image.fromarray(pixels).save(files[-1])
    return files


def read(files: list[Path]) -> tuple[Facts, Kept]:
    kept = Kept(len(files))
    return read_files(files, [file.name for file in files], PREPROCESS, kept), kept


def test_one_pass_finds_all_that_is_asked_of_a_file(tmp_path: Path) -> None:
    files = pictures(tmp_path, 40)
    facts, kept = read(files)
    assert facts.bad == {}
    for n, file in enumerate(files):
        raw, status = file.read_bytes(), file.stat()
        assert np.array_equal(kept.pixels[n], PREPROCESS.pixels(raw, "x"))
        assert np.array_equal(kept.signatures[n], signature(decode_reduced(raw, "x", 32)))
        columns = {name: column[n] for name, column in facts.columns.items()}
        assert (columns["bytes"], columns["mtime"]) == (status.st_size, status.st_mtime_ns)
        assert (columns["width"], columns["height"], columns["grey"]) == (50, 30 + n, False)
        assert FORMATS[columns["format"]] == ("PNG", "JPEG", "TIFF", "WEBP")[n % 4]
        assert hexadecimal(int(columns["digest"])) == digest(raw)
        x = kept.pixels[n].astype(int).reshape(-1, 3)
        assert facts.sums[n].tolist() == np.stack([x.sum(0), (x * x).sum(0)], axis=1).tolist()


def test_the_sums_give_the_statistics_of_the_pixels(tmp_path: Path) -> None:
    facts, kept = read(pictures(tmp_path, 9))
    found = PREPROCESS.with_sums(facts.sums.sum(axis=0), 9)
    assert found == PREPROCESS.with_statistics(kept.pixels)
    assert found.mean == pytest.approx(kept.pixels.mean((0, 1, 2)) / 255, rel=1e-12)
    assert found.std == pytest.approx(kept.pixels.std((0, 1, 2)) / 255, rel=1e-9)


def test_the_same_pixels_in_another_file_have_the_same_digest(tmp_path: Path) -> None:
    (first,) = pictures(tmp_path, 1)
    with Image.open(first) as image:
        image.save(tmp_path / "b.bmp")
        image.transpose(Image.Transpose.FLIP_TOP_BOTTOM).save(tmp_path / "c.png")
    facts, _ = read([first, tmp_path / "b.bmp", tmp_path / "c.png"])
    files, pixels = (facts.columns[name].tolist() for name in ("digest", "pixels_digest"))
    assert len(set(files)) == 3
    assert pixels[0] == pixels[1] != pixels[2]


def test_what_cannot_be_used_is_named_and_black(tmp_path: Path) -> None:
    files = pictures(tmp_path, 5)
    files[1].write_bytes(b"")
    files[3].unlink()
    facts, kept = read(files)
    assert {n: bad.kind for n, bad in facts.bad.items()} == {1: "empty", 3: "unreadable"}
    assert facts.good().tolist() == [0, 2, 4]
    assert not kept.pixels[[1, 3]].any()
    assert kept.pixels[[0, 2, 4]].any(axis=(1, 2, 3)).all()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes among files here")
def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(BadImage, match="it is no file"):
        read_file(tmp_path / "pipe.jpg", "pipe.jpg")


def test_a_link_to_itself_is_unreadable(tmp_path: Path) -> None:
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    with pytest.raises(BadImage, match=r"^a/loop\.jpg: cannot be read"):
        read_file(tmp_path / "loop.jpg", "a/loop.jpg")


def test_a_path_in_chinese_with_spaces_is_read(tmp_path: Path) -> None:
    place = tmp_path / "花 园" / "向日 葵"
    place.mkdir(parents=True)
    facts, _ = read(pictures(place, 2))
    assert facts.bad == {}


def test_arrays_have_facts_too() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 40, 30, 1), dtype=np.uint8)
    pixels[2] = pixels[0]
    shown: dict[int, NDArray[np.uint8]] = {}
    facts = read_arrays(Images(("a", "b", "c"), np.zeros(3, np.int64), None, pixels), shown.__setitem__)
    assert facts.columns["width"].tolist() == [30] * 3
    assert facts.columns["height"].tolist() == [40] * 3
    digests = facts.columns["digest"].tolist()
    assert digests[0] == digests[2] != digests[1]
    assert hexadecimal(digests[0]) == digest(pixels[0].tobytes())
    assert sorted(shown) == [0, 1, 2]
    assert shown[0].shape == (1, 16, 16, 3)
