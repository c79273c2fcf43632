from __future__ import annotations

import io
import itertools
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pellucid.data import decode as decode_module
from pellucid.data import load as load_module
from pellucid.data import reading as reading_module
from pellucid.data.decode import BadImage
from pellucid.data.images import Images
from pellucid.data.load import Loaded, Rows, Streamed, available_memory, fits, load
from pellucid.data.preprocess import Preprocess
from pellucid.data.source import open_source
from pellucid.data.split import digests
from pellucid.errors import DataError

GREY = Preprocess((6, 8), "crop", 1, (0.5,), (0.5,))


def pictures(root: Path, n: int, per_class: int = 10) -> Images:
    """Even pictures whose grey value is their number."""
    files = []
    for k in range(n):
        files.append(root / f"{k:03}.png")
        Image.new("L", (8, 6), k % 256).save(files[-1])
    return Images(tuple(f.name for f in files), np.arange(n) // per_class, tuple(files), None)


def spoil(images: Images, *numbers: int) -> None:
    assert images.files is not None
    for n in numbers:
        images.files[n].write_bytes(b"nothing")


def check(loaded: Loaded[NDArray[np.uint8]], numbers: list[int], per_class: int = 10) -> None:
    assert loaded.pixels.shape == (len(numbers), 6, 8, 1)
    assert [int(x.min()) for x in loaded.pixels] == [int(x.max()) for x in loaded.pixels] == numbers
    assert loaded.names == tuple(f"{n:03}.png" for n in numbers)
    assert loaded.labels.tolist() == [n // per_class for n in numbers]


def test_pictures_come_in_order_with_their_labels_and_digests(tmp_path: Path) -> None:
    images = pictures(tmp_path, 100)
    loaded = load(images, GREY)
    check(loaded, list(range(100)))
    assert loaded.bad == ()
    assert loaded.raw_digests == tuple(digests(images))


def test_each_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = pictures(tmp_path, 20)
    read: list[str] = []
    original = Path.read_bytes

    def counting(self: Path) -> bytes:
        if self.suffix == ".png":
            read.append(self.name)
        return original(self)

    monkeypatch.setattr(Path, "read_bytes", counting)
    load(images, GREY)
    assert sorted(read) == sorted(images.names)


def test_bad_pictures_are_left_out_and_named(tmp_path: Path) -> None:
    images = pictures(tmp_path, 100)
    before = digests(images)
    assert images.files is not None
    spoil(images, 0)
    images.files[50].unlink()
    images.files[98].write_bytes(images.files[98].read_bytes()[:-30])
    loaded = load(images, GREY, max_bad_share=0.03)
    good = [n for n in range(100) if n not in {0, 50, 98}]
    check(loaded, good)
    assert [(bad.name, bad.kind) for bad in loaded.bad] == [
        ("000.png", "not-an-image"),
        ("050.png", "unreadable"),
        ("098.png", "truncated"),
    ]
    assert loaded.raw_digests == tuple(before[n] for n in good)


@pytest.mark.parametrize(("n", "bad", "allowed"), [(300, 3, True), (300, 4, False), (20, 1, True), (20, 2, False)])
def test_one_in_a_hundred_may_be_bad_and_at_least_one(n: int, bad: int, allowed: bool, tmp_path: Path) -> None:
    images = pictures(tmp_path, n)
    spoil(images, *range(bad))
    if allowed:
        assert len(load(images, GREY).bad) == bad
    else:
        with pytest.raises(DataError, match=rf"^{bad} of {n} pictures cannot be used: 000\.png: it is no picture"):
            load(images, GREY)


def test_a_refusal_names_a_few_and_counts_the_rest(tmp_path: Path) -> None:
    images = pictures(tmp_path, 12)
    spoil(images, *range(5))
    with pytest.raises(DataError, match=r"002\.png: .*; and 2 more$") as caught:
        load(images, GREY)
    assert "003.png" not in str(caught.value)


def test_when_none_is_left_it_is_refused(tmp_path: Path) -> None:
    images = pictures(tmp_path, 1)
    spoil(images, 0)
    with pytest.raises(DataError, match=r"^1 of 1 pictures cannot be used"):
        load(images, GREY, max_bad_share=1)


def test_a_class_of_which_none_is_left_is_refused(tmp_path: Path) -> None:
    images = pictures(tmp_path, 11)
    spoil(images, 10)
    with pytest.raises(DataError, match=r"not one good picture is left of the class of 010\.png: 010\.png: it is no"):
        load(images, GREY)


def test_what_would_not_fit_is_refused_before_anything_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> bytes:
        raise AssertionError("read")

    monkeypatch.setattr(reading_module, "read_file", never)
    monkeypatch.setattr(load_module, "available_memory", lambda: 1_000_000_000)
    n = 5000
    images = Images(("x",) * n, np.zeros(n, np.int64), (tmp_path / "x.png",) * n, None)
    big = Preprocess((224, 224), "crop", 3, (0.5,) * 3, (0.5,) * 3)
    with pytest.raises(DataError) as caught:
        load(images, big)
    assert str(caught.value) == (
        "5,000 pictures of 224×224×3 take 0.8 GB, and 1.0 GB of memory are available, of which 70% may be used: "
        "choose a smaller --size or --sample"
    )
    monkeypatch.setattr(load_module, "available_memory", lambda: None)
    with pytest.raises(AssertionError, match="read"):
        load(images, GREY)


def test_available_memory_is_a_part_of_all_there_is() -> None:
    available = available_memory()
    if not Path("/proc/meminfo").exists():
        assert available is None
        return
    total = int(Path("/proc/meminfo").read_text().split()[1]) * 1024
    assert available is not None
    assert 0 < available < total


def test_a_container_limits_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "/proc/meminfo": "MemTotal: 16000 kB\nMemFree: 1 kB\nMemAvailable: 8000 kB\n",
        "/sys/fs/cgroup/memory.max": "3000000\n",
        "/sys/fs/cgroup/memory.current": "1000000\n",
        "/sys/fs/cgroup/memory.stat": "anon 500000\nfile 450000\ninactive_file 400000\n",
    }

    def read(self: Path, **_: Any) -> str:
        try:
            return files[str(self)]
        except KeyError:
            raise FileNotFoundError(str(self)) from None

    monkeypatch.setattr(Path, "read_text", read)
    assert available_memory() == 2_400_000
    files["/sys/fs/cgroup/memory.max"] = "max\n"
    assert available_memory() == 8_192_000
    del files["/sys/fs/cgroup/memory.max"]
    assert available_memory() == 8_192_000
    files["/proc/meminfo"] = "nonsense"
    assert available_memory() is None


def test_a_file_of_absurd_size_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = pictures(tmp_path, 20)
    assert images.files is not None
    with images.files[3].open("ab") as file:
        file.write(b"\0" * 5000)
    monkeypatch.setattr(decode_module, "MAX_BYTES", 4000)
    (bad,) = load(images, GREY).bad
    assert (bad.name, bad.kind) == ("003.png", "too-large")


def test_progress_counts_up_to_all_in_the_calling_thread(tmp_path: Path) -> None:
    images = pictures(tmp_path, 50)
    spoil(images, 7)
    seen: list[tuple[int, int]] = []
    threads = set()

    def progress(done: int, total: int) -> None:
        seen.append((done, total))
        threads.add(threading.get_ident())

    load(images, GREY, progress=progress, max_bad_share=0.1)
    assert seen[-1] == (50, 50)
    assert all(a < b for (a, _), (b, _) in itertools.pairwise(seen))
    assert {total for _, total in seen} == {50}
    assert threads == {threading.get_ident()}


def test_ctrl_c_drops_what_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = pictures(tmp_path, 20)
    assert images.files is not None
    n = 20_000
    many = Images(tuple(map(str, range(n))), np.zeros(n, np.int64), images.files * (n // 20), None)
    decoded: list[int] = []
    original = Preprocess.decoded

    def counting(self: Preprocess, raw: bytes, name: str) -> Any:
        decoded.append(1)
        return original(self, raw, name)

    monkeypatch.setattr(Preprocess, "decoded", counting)

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    start = time.perf_counter()
    with pytest.raises(KeyboardInterrupt):
        load(many, GREY, progress=interrupt)
    assert len(decoded) < n / 2
    assert time.perf_counter() - start < 5


def test_arrays_are_fitted_and_their_own_pixels_digested() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 4, 4, 1), dtype=np.uint8)
    images = Images(tuple(map(str, range(30))), np.arange(30) % 3, None, pixels)
    preprocess = Preprocess((6, 6), "pad", 3, (0.5,) * 3, (0.5,) * 3)
    seen: list[tuple[int, int]] = []
    loaded = load(images, preprocess, progress=lambda *numbers: seen.append(numbers))
    assert np.array_equal(loaded.pixels[:, 1:5, 1:5], np.repeat(pixels, 3, 3))
    assert loaded.raw_digests == tuple(digests(images))
    assert loaded.labels.tolist() == images.labels.tolist()
    assert seen == [(30, 30)]


def test_an_empty_split_loads_as_nothing() -> None:
    loaded = load(Images((), np.zeros(0, np.int64), (), None), GREY)
    assert loaded.pixels.shape == (0, 6, 8, 1)
    assert (loaded.names, loaded.bad) == ((), ())


def test_real_photographs_load_as_each_alone(real_data: Callable[[str], Path]) -> None:
    images = open_source(real_data("flower-photos-small")).splits["val"]
    preprocess = Preprocess((48, 48), "crop", 3, (0.5,) * 3, (0.5,) * 3)
    loaded = load(images, preprocess)
    assert loaded.bad == ()
    assert images.files is not None
    for n in range(0, 80, 9):
        assert np.array_equal(loaded.pixels[n], preprocess.pixels(images.files[n].read_bytes(), "x"))


def test_a_bad_picture_among_good_ones_in_memory_is_told_like_in_files(tmp_path: Path) -> None:
    """Two classes, a jpeg cut in half: the sentence a user reads."""
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(buffer, "JPEG")
    images = pictures(tmp_path, 20)
    assert images.files is not None
    images.files[4].write_bytes(buffer.getvalue()[:400])
    (bad,) = load(images, GREY).bad
    assert isinstance(bad, BadImage)
    assert str(bad) == "004.png: the file ends before its picture does: copy it again, or take it away"


# ---- what is fetched when it is wanted


def test_rows_are_the_pictures_in_their_own_order() -> None:
    pixels = np.arange(10, dtype=np.uint8).repeat(6).reshape(10, 2, 3, 1)
    rows = Rows(pixels, np.array([7, 0, 3, 3]))
    assert (len(rows), rows.shape) == (4, (4, 2, 3, 1))
    assert rows[1:3][:, 0, 0, 0].tolist() == [0, 3]
    assert rows.take(np.array([3, 0]))[:, 0, 0, 0].tolist() == [3, 7]
    rows.take(np.array([0]))[:] = 99
    assert pixels.max() == 9


def test_streamed_pictures_are_those_that_would_be_loaded(tmp_path: Path) -> None:
    images = pictures(tmp_path, 20)
    assert images.files is not None
    streamed = Streamed(images.files, images.names, GREY)
    assert (len(streamed), streamed.shape) == (20, (20, 6, 8, 1))
    assert np.array_equal(streamed[5:9], load(images, GREY).pixels[5:9])
    assert np.array_equal(streamed.take(np.array([19, 2])), load(images, GREY).pixels[[19, 2]])
    assert streamed.take(np.empty(0, np.int64)).shape == (0, 6, 8, 1)
    images.files[3].unlink()
    with pytest.raises(BadImage, match=r"^003\.png: cannot be read"):
        streamed.take(np.array([3]))


@pytest.mark.parametrize(("available", "expected"), [(None, True), (200, True), (170, False)])
def test_what_fits(monkeypatch: pytest.MonkeyPatch, available: int | None, expected: bool) -> None:
    monkeypatch.setattr(load_module, "available_memory", lambda: available)
    assert fits(10, (2, 2, 3)) is expected
