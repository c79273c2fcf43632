from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pellucid.data.images import Images


def test_taking_some_takes_all_their_parts() -> None:
    names, labels = ("a", "b", "c"), np.array([5, 6, 7])
    files = tuple(map(Path, names))
    pixels = np.arange(3, dtype=np.uint8).reshape(3, 1, 1, 1)
    some = Images(names, labels, files, None).take(np.array([2, 0]))
    assert (some.names, some.labels.tolist(), some.files, len(some)) == (("c", "a"), [7, 5], (files[2], files[0]), 2)
    some = Images(names, labels, None, pixels).take(np.array([1]))
    assert some.pixels is not None
    assert (some.names, some.pixels.ravel().tolist()) == (("b",), [1])


@pytest.mark.parametrize("files", [None, (Path("a"),)])
def test_pictures_are_files_or_pixels(files: tuple[Path, ...] | None) -> None:
    pixels = None if files is None else np.zeros((1, 2, 2, 3), np.uint8)
    with pytest.raises(AssertionError):
        Images(("a",), np.zeros(1, np.int64), files, pixels)


def test_parts_are_of_one_length() -> None:
    with pytest.raises(AssertionError):
        Images(("a", "b"), np.zeros(1, np.int64), (Path("a"),), None)
