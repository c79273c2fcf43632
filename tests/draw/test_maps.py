"""Feature maps as pictures."""

from __future__ import annotations

import numpy as np
import pytest

from pellucid.draw import colours, tiles
from pellucid.errors import UsageError


def test_zero_is_white_and_the_signs_differ() -> None:
    shown = colours(np.array([0.0, 2.0, -2.0, 1.0, np.nan]))
    assert shown[0].tolist() == [255, 255, 255]
    assert shown[1].tolist() == [213, 94, 0]
    assert shown[2].tolist() == [0, 114, 178]
    assert shown[3].tolist() == [234, 174, 128]
    assert shown[4].tolist() == [0, 0, 0]


def test_nothing_but_zeros_is_white() -> None:
    assert (colours(np.zeros((2, 3))) == 255).all()


def test_more_than_the_extreme_is_the_full_colour() -> None:
    assert (colours(np.array([5.0]), extreme=1.0) == colours(np.array([1.0]), extreme=1.0)).all()


def test_every_map_stands_in_its_place() -> None:
    maps = np.random.default_rng(0).normal(size=(5, 3, 4))
    sheet = tiles(maps, columns=2, gap=1)
    assert sheet.shape == (3 * 4 - 1, 2 * 5 - 1, 3)
    extreme = np.abs(maps).max()
    for place in range(5):
        top, left = place // 2 * 4, place % 2 * 5
        assert (sheet[top : top + 3, left : left + 4] == colours(maps[place], extreme)).all()
    assert (sheet[3, :] == 221).all()
    assert (sheet[8:, 5:] == 255).all()


def test_one_scale_for_all_maps() -> None:
    sheet = tiles(np.array([[[1.0]], [[10.0]]]), columns=2, gap=0)
    assert sheet[0, 0].tolist() != sheet[0, 1].tolist()


@pytest.mark.parametrize("shape", [(3, 4), (0, 3, 4), (1, 2, 3, 4)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="expected \\(maps, height, width\\)"):
        tiles(np.zeros(shape))
