from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from pellucid.data import idx
from pellucid.errors import DataError


def made(shape: tuple[int, ...], body: bytes, kind: int = 8) -> bytes:
    return struct.pack(f">BBBB{len(shape)}I", 0, 0, kind, len(shape), *shape) + body


def test_an_array_reads_back(tmp_path: Path) -> None:
    truth = np.random.default_rng(0).integers(0, 256, (5, 4, 3), dtype=np.uint8)
    contents = made(truth.shape, truth.tobytes())
    found = idx.parse(contents, "x")
    assert np.array_equal(found, truth)
    assert found.flags.writeable
    (tmp_path / "plain.gz").write_bytes(contents)
    (tmp_path / "packed").write_bytes(gzip.compress(contents))
    assert idx.read_contents(tmp_path / "plain.gz") == idx.read_contents(tmp_path / "packed") == contents


@pytest.mark.parametrize(
    ("contents", "complaint"),
    [
        (b"", "two zeros"),
        (b"\0\0\x08", "two zeros"),
        (b"\x1f\x8b\x08\x01", "two zeros"),
        (made((4,), b"abc"), "4 = 4 bytes, and 3 follow"),
        (made((4,), b"abcde"), "and 5 follow"),
        (made((2**32 - 1,) * 3, b"abc"), "announces"),
        (made((0, 28, 28), b"x"), "0 bytes"),
        (made((3,), b"abc", kind=0x0D), "type 0xd"),
        (b"\0\0\x08\x00", "ends early"),
        (b"\0\0\x08\x03\0\0\0\x01", "ends early"),
        (b"\0\0\x08\xff" + b"\0" * 100, "ends early"),
    ],
)
def test_a_header_that_lies_is_refused(contents: bytes, complaint: str) -> None:
    with pytest.raises(DataError, match=complaint) as caught:
        idx.parse(contents, "train-labels")
    assert str(caught.value).startswith("train-labels: ")


def test_a_damaged_gzip_is_refused(tmp_path: Path) -> None:
    packed = gzip.compress(made((1000,), bytes(range(250)) * 4))
    for damaged in (packed[:-10], packed[:20], packed[:30] + b"\xff" * 30, b"\x1f\x8b"):
        (tmp_path / "a.gz").write_bytes(damaged)
        with pytest.raises(DataError, match="no whole gzip"):
            idx.read_contents(tmp_path / "a.gz")


def test_a_bomb_is_refused_before_it_fills_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idx, "LIMIT", 100_000)
    (tmp_path / "a.gz").write_bytes(gzip.compress(b"\0" * 10_000_000))
    with pytest.raises(DataError, match="more than 100,000 bytes"):
        idx.read_contents(tmp_path / "a.gz")
    (tmp_path / "b").write_bytes(b"\0" * 200_000)
    with pytest.raises(DataError, match="100,000"):
        idx.read_contents(tmp_path / "b")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        idx.read_contents(tmp_path / "gone")


@pytest.mark.parametrize(
    "contents",
    [b"\0\0\x08\xc8" + b"\0\0\0\1" * 200 + b"\0", b"\0\0\x08\x03" + b"\0\0\0\0" + b"\xff" * 8],
)
def test_dimensions_that_cannot_be_are_refused(contents: bytes) -> None:
    with pytest.raises(DataError, match="dimensions that cannot be"):
        idx.parse(contents, "it")
