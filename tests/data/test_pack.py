from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pellucid.data import pack as pack_module
from pellucid.data.images import Images
from pellucid.data.pack import in_memory, no_room, pack, pack_folder
from pellucid.data.pack_index import FILE
from pellucid.data.preprocess import Preprocess
from pellucid.errors import PellucidError

PREPROCESS = Preprocess((6, 8), "crop", 1, (0.5,), (0.5,))


def picture(file: Path, value: int) -> None:
    """An even picture of this grey."""
    Image.new("L", (16, 12), value).save(file)


def pictures(folder: Path, n: int = 50) -> Images:
    folder.mkdir(exist_ok=True)
    files = [folder / f"{k:03}.png" for k in range(n)]
    for k, file in enumerate(files):
        if not file.exists():
            picture(file, k)
    return Images(tuple(file.name for file in files), np.arange(n) % 2, tuple(files), None)


def values(packed: Any) -> list[int]:
    pixels = packed.pixels[packed.row_n]
    assert (pixels.min(axis=(1, 2, 3)) == pixels.max(axis=(1, 2, 3))).all()
    return [int(x) for x in pixels[:, 0, 0, 0]]


@pytest.fixture
def images(tmp_path: Path) -> Images:
    return pictures(tmp_path / "data")


@pytest.fixture
def place(tmp_path: Path) -> str:
    return str(tmp_path / "data")


def folder_of(place: str) -> Path:
    return pack_folder(place, PREPROCESS)


def row_file(place: str) -> Path:
    (file,) = folder_of(place).glob("pixels-*.u8")
    return file


def test_a_second_start_opens_no_picture_and_gives_the_same(
    images: Images, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = pack(place, images, PREPROCESS)
    assert first.opened == 50
    assert values(first) == list(range(50))

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("a picture was opened")

    monkeypatch.setattr(pack_module, "read_files", never)
    second = pack(place, images, PREPROCESS)
    assert second.opened == 0
    assert values(second) == list(range(50))
    for name, column in first.facts.columns.items():
        assert np.array_equal(column, second.facts.columns[name])
    assert np.array_equal(first.facts.sums, second.facts.sums)


def test_a_pack_gives_what_reading_into_memory_gives(images: Images, place: str) -> None:
    packed, direct = pack(place, images, PREPROCESS), in_memory(images, PREPROCESS)
    assert packed.pixels is not None
    assert direct.pixels is not None
    assert np.array_equal(packed.pixels[packed.row_n], direct.pixels)
    assert np.array_equal(packed.signatures[packed.row_n], direct.signatures)
    assert np.array_equal(packed.facts.sums, direct.facts.sums)
    assert in_memory(images, PREPROCESS, keep=False).pixels is None


def test_it_is_mapped_and_cannot_be_written_to(images: Images, place: str) -> None:
    packed = pack(place, images, PREPROCESS)
    assert isinstance(packed.pixels, np.memmap)
    assert not packed.pixels.flags.writeable


def test_of_a_changed_folder_only_what_changed_is_read(images: Images, place: str) -> None:
    pack(place, images, PREPROCESS)
    assert images.files is not None
    picture(images.files[3], 200)
    images.files[4].unlink()
    Image.new("L", (16, 12), 201).save(Path(place) / "new.png")
    kept = [n for n in range(50) if n != 4]
    now = Images(
        (*(images.names[n] for n in kept), "new.png"),
        np.zeros(50, np.int64),
        (*(images.files[n] for n in kept), Path(place) / "new.png"),
        None,
    )
    packed = pack(place, now, PREPROCESS)
    assert packed.opened == 2
    assert values(packed) == [200 if n == 3 else n for n in kept] + [201]
    assert pack(place, now, PREPROCESS).opened == 0


def test_a_touched_file_is_read_anew(images: Images, place: str) -> None:
    pack(place, images, PREPROCESS)
    assert images.files is not None
    os.utime(images.files[7], ns=(1, 1))
    assert pack(place, images, PREPROCESS).opened == 1


def test_some_of_the_pictures_and_another_order_are_served_from_the_same_pack(images: Images, place: str) -> None:
    pack(place, images, PREPROCESS)
    some = images.take(np.array([40, 3, 17]))
    packed = pack(place, some, PREPROCESS)
    assert packed.opened == 0
    assert values(packed) == [40, 3, 17]
    assert pack(place, images, PREPROCESS).opened == 0


def test_another_size_is_another_pack(images: Images, place: str) -> None:
    pack(place, images, PREPROCESS)
    for other in (Preprocess((8, 8), "crop", 1, (0.5,), (0.5,)), Preprocess((6, 8), "stretch", 1, (0.5,), (0.5,))):
        assert pack_folder(place, other) != folder_of(place)
        assert pack(place, images, other).opened == 50
    # Mean and deviation are applied later.
    assert pack(place, images, Preprocess((6, 8), "crop", 1, (0.1,), (0.2,))).opened == 0


# ---- bad files


def test_bad_files_are_remembered_and_what_was_not_handed_over_is_tried_again(images: Images, place: str) -> None:
    assert images.files is not None
    images.files[5].write_bytes(b"no picture")
    images.files[6].unlink()
    for opened in (50, 1):
        packed = pack(place, images, PREPROCESS)
        assert packed.opened == opened
        assert {n: (bad.kind, bad.name) for n, bad in packed.facts.bad.items()} == {
            5: ("not-an-image", "005.png"),
            6: ("unreadable", "006.png"),
        }
    picture(images.files[6], 6)
    packed = pack(place, images, PREPROCESS)
    assert list(packed.facts.bad) == [5]
    assert [value for n, value in enumerate(values(packed)) if n != 5] == [n for n in range(50) if n != 5]


# ---- crashes


@pytest.mark.parametrize("what", ["pixels-*.u8", "signatures-*.u8", FILE])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_pack_that_was_cut_off_is_made_anew(images: Images, place: str, what: str, share: float) -> None:
    pack(place, images, PREPROCESS)
    (file,) = folder_of(place).glob(what)
    os.truncate(file, int(file.stat().st_size * share))
    packed = pack(place, images, PREPROCESS)
    assert packed.opened == 50
    assert values(packed) == list(range(50))
    assert len(list(folder_of(place).glob("*.u8"))) == 2


def test_rows_that_no_index_names_are_overwritten(images: Images, place: str) -> None:
    pack(place, images, PREPROCESS)
    with row_file(place).open("ab") as file:
        file.write(b"\xff" * 1000)
    assert images.files is not None
    picture(images.files[0], 99)
    packed = pack(place, images, PREPROCESS)
    assert packed.opened == 1
    assert values(packed) == [99, *range(1, 50)]
    assert row_file(place).stat().st_size == 51 * 48


def test_what_an_interrupt_leaves_is_gone_on_with(tmp_path: Path) -> None:
    images, place = pictures(tmp_path / "data", 200), str(tmp_path / "data")

    def interrupt(done: int, _total: int) -> None:
        if done >= 64:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack(place, images, PREPROCESS, progress=interrupt)
    packed = pack(place, images, PREPROCESS)
    assert 0 < packed.opened <= 200 - 64
    assert values(packed) == [n % 256 for n in range(200)]


def test_two_processes_at_once_make_one_pack(tmp_path: Path) -> None:
    images, place = pictures(tmp_path / "data", 100), str(tmp_path / "data")
    found: list[list[int]] = []
    threads = [threading.Thread(target=lambda: found.append(values(pack(place, images, PREPROCESS)))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [list(range(100))] * 3
    assert len(list(folder_of(place).glob("*.u8"))) == 2


# ---- the whole truth


def test_a_content_that_changed_behind_its_time_is_found_by_a_full_check(images: Images, place: str) -> None:
    pack(place, images, PREPROCESS)
    assert images.files is not None
    file = images.files[9]
    before = file.stat()
    raw = bytearray(file.read_bytes())
    picture(file, 111)
    new = file.read_bytes()
    file.write_bytes(new + bytes(len(raw) - len(new)) if len(new) < len(raw) else new)
    same_size = file.stat().st_size == before.st_size
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    if same_size:
        assert pack(place, images, PREPROCESS).opened == 0  # nothing tells
    packed = pack(place, images, PREPROCESS, full=True)
    assert same_size
    assert packed.changed == ("009.png",)
    assert values(packed)[9] == 111
    assert pack(place, images, PREPROCESS, full=True).changed == ()


def test_a_row_that_rotted_is_found_by_a_full_check(images: Images, place: str) -> None:
    pack(place, images, PREPROCESS)
    with row_file(place).open("r+b") as file:
        file.seek(12 * 48 + 5)
        file.write(b"\xee")
    packed = pack(place, images, PREPROCESS, full=True)
    assert (packed.opened, packed.changed) == (1, ())
    assert values(packed) == list(range(50))


def test_another_decoder_is_another_pack(images: Images, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pack(place, images, PREPROCESS)
    monkeypatch.setattr("PIL.__version__", "0.0")
    assert pack(place, images, PREPROCESS).opened == 50


def test_a_pack_of_mostly_forgotten_rows_begins_anew(
    images: Images, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert images.files is not None
    for n in range(30):
        for k, file in enumerate(images.files):
            os.utime(file, ns=(n, n))
            assert file.exists(), k
        packed = pack(place, images, PREPROCESS)
        assert values(packed) == list(range(50))
    assert row_file(place).stat().st_size <= (2 * 50 + 1024 + 50) * 48


# ---- room


def test_room_is_asked_for_before(images: Images, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage:
        free = 100_000

    assert no_room(place, images, PREPROCESS) is None
    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage)
    assert no_room(place, images, PREPROCESS) is None
    many = Images(images.names * 50, np.zeros(2500, np.int64), (images.files or ()) * 50, None)
    why = no_room(place, many, PREPROCESS)
    assert why is not None
    assert "0.0 GB are free" in why
    monkeypatch.undo()
    # What is packed already needs no more.
    pack(place, images, PREPROCESS)
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Full", (), {"free": 0}))
    assert no_room(place, images, PREPROCESS) is None


def test_a_full_disk_is_a_sentence(images: Images, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def __init__(self, file: Any) -> None:
            self.file = file

        def seek(self, _: int) -> None: ...

        def write(self, _: Any) -> int:
            raise OSError(28, "No space left on device")

        def fileno(self) -> int:
            return int(self.file.fileno())

        def close(self) -> None:
            self.file.close()

    enter = pack_module._Writers.__enter__

    def entered(self: Any) -> Any:
        enter(self)
        self._files = [Full(file) for file in self._files]
        return self

    monkeypatch.setattr(pack_module._Writers, "__enter__", entered)
    with pytest.raises(PellucidError, match=r"No space left on device.*--no-cache"):
        pack(place, images, PREPROCESS)
    monkeypatch.undo()
    assert values(pack(place, images, PREPROCESS)) == list(range(50))


@pytest.fixture
def others(tmp_path: Path) -> list[str]:
    places = []
    for n in range(4):
        images, place = pictures(tmp_path / f"data {n}"), str(tmp_path / f"data {n}")
        pack(place, images, PREPROCESS)
        os.utime(folder_of(place) / FILE, (n, n))
        places.append(place)
    return places


def test_packs_used_longest_ago_go_first(
    images: Images, place: str, others: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = sum(file.stat().st_size for file in folder_of(others[0]).iterdir())
    monkeypatch.setattr(pack_module, "LIMIT", 3.5 * one)
    pack(place, images, PREPROCESS)
    assert [folder_of(other).exists() for other in others] == [False, False, True, True]
    monkeypatch.setattr(pack_module, "LIMIT", 0)
    assert images.files is not None
    picture(images.files[0], 9)
    pack(place, images, PREPROCESS)
    assert not any(folder_of(other).exists() for other in others)
    assert folder_of(place).exists()


@pytest.mark.skipif(not hasattr(os, "O_NOFOLLOW"), reason="this system has no links to be wary of")
@pytest.mark.parametrize("name", ["lock", "pixels", "signatures"])
def test_a_pack_is_not_written_through_a_link(images: Images, place: str, tmp_path: Path, name: str) -> None:
    pack(place, images, PREPROCESS)
    other = tmp_path / "other"
    other.write_bytes(b"precious" * 100_000)
    link = folder_of(place) / "lock" if name == "lock" else next(folder_of(place).glob(f"{name}-*.u8"))
    link.unlink()
    link.symlink_to(other)
    picture(images.files[0], 200)  # type: ignore[index]
    if name == "lock":
        with pytest.raises(PellucidError, match="the decoded pictures could not be kept there"):
            pack(place, images, PREPROCESS)
    else:
        assert values(pack(place, images, PREPROCESS))[0] == 200
    assert other.read_bytes() == b"precious" * 100_000
