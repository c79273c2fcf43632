from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from pellucid.data import cache


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "a.tar.xz"
    path.write_bytes(b"contents")
    return path


def arrays(seed: int = 0) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.uint8]]]:
    generator = np.random.default_rng(seed)
    return {
        "pixels": generator.integers(0, 256, (7, 4, 4, 3), dtype=np.uint8),
        "labels": generator.integers(0, 256, 7, dtype=np.uint8),
    }


def stored() -> list[Path]:
    return sorted(path for path in cache.cache_folder().rglob("*") if path.is_file())


def test_what_is_kept_comes_back(archive: Path) -> None:
    assert cache.recall(archive) is None
    cache.remember(archive, arrays())
    found = cache.recall(archive)
    assert found is not None
    assert all(np.array_equal(found[name], array) for name, array in arrays().items())
    assert [path.name for path in stored()] == ["labels.npy", "manifest.json", "pixels.npy"]


def test_an_archive_that_changed_is_read_again_and_replaces_the_old(archive: Path) -> None:
    cache.remember(archive, arrays())
    archive.write_bytes(b"other contents")
    assert cache.recall(archive) is None
    cache.remember(archive, arrays(1))
    found = cache.recall(archive)
    assert found is not None
    assert np.array_equal(found["labels"], arrays(1)["labels"])
    assert len(stored()) == 3
    os.utime(archive, ns=(0, 0))
    assert cache.recall(archive) is None


@pytest.mark.parametrize("name", ["labels.npy", "manifest.json", "pixels.npy"])
def test_damage_of_any_kind_is_noticed(archive: Path, name: str) -> None:
    for damage in ("flip", "cut", "empty", "gone"):
        cache.remember(archive, arrays())
        (path,) = (path for path in stored() if path.name == name)
        raw = path.read_bytes()
        if damage == "gone":
            path.unlink()
        else:
            flipped = raw[:-3] + bytes([raw[-3] ^ 1]) + raw[-2:]
            path.write_bytes({"flip": flipped, "cut": raw[:-1], "empty": b""}[damage])
        if (name, damage) != ("manifest.json", "cut"):  # only its last newline
            assert cache.recall(archive) is None


def test_a_pickle_in_the_cache_is_not_opened(archive: Path) -> None:
    cache.remember(archive, arrays())
    (path,) = (path for path in stored() if path.name == "labels.npy")
    np.save(path, np.array([object()], dtype=object), allow_pickle=True)
    assert cache.recall(archive) is None


def test_without_room_nothing_is_kept_and_nothing_left_behind(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    cache.remember(archive, arrays())
    assert cache.recall(archive) is None
    assert list((cache.cache_folder() / "arrays").iterdir()) == []


def test_a_cache_that_cannot_be_made_is_done_without(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("PELLUCID_CACHE", str(tmp_path / "file"))
    cache.remember(archive, arrays())
    assert cache.recall(archive) is None


def test_the_folder_is_the_users_unless_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PELLUCID_CACHE", str(tmp_path))
    assert cache.cache_folder() == tmp_path
    monkeypatch.delenv("PELLUCID_CACHE")
    assert cache.cache_folder().name == "pellucid"
