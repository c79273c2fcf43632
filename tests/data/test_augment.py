from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pellucid.data.augment import SHIFT, gather, uniform


def pictures(n: int = 6, side: int = 16, channels: int = 3) -> torch.Tensor:
    return torch.randint(0, 256, (n, side, side, channels), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


def test_without_changes_the_pictures_are_those_asked_for() -> None:
    pixels = pictures()
    index = np.array([3, 0, 3])
    assert torch.equal(gather(pixels, index, (), 0, 0), pixels[[3, 0, 3]])


def test_a_flip_is_the_mirror_image_of_about_half() -> None:
    pixels = pictures(400)
    out = gather(pixels, np.arange(400), ("flip",), seed=1, epoch=0)
    mirrored = pixels.flip(2)
    flipped = [torch.equal(out[i], mirrored[i]) for i in range(400)]
    kept = [torch.equal(out[i], pixels[i]) for i in range(400)]
    assert all(a != b for a, b in zip(flipped, kept, strict=True))
    assert 160 < sum(flipped) < 240


def test_a_shift_equals_padding_by_reflection_and_cropping() -> None:
    pixels = pictures(50, 32)
    most = round(32 * SHIFT)
    out = gather(pixels, np.arange(50), ("shift",), seed=2, epoch=3)
    padded = torch.nn.functional.pad(
        pixels.permute(0, 3, 1, 2).float(), (most, most, most, most), mode="reflect"
    ).permute(0, 2, 3, 1)
    seen = set()
    for i in range(50):
        places = [
            (dy, dx)
            for dy in range(2 * most + 1)
            for dx in range(2 * most + 1)
            if torch.equal(padded[i, dy : dy + 32, dx : dx + 32].to(torch.uint8), out[i])
        ]
        assert len(places) == 1
        seen.update(places)
    # All of the 25 shifts are possible; fifty draws meet most of them.
    assert len(seen) > 15


@settings(deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=12), st.integers(0, 2**32 - 1), st.integers(0, 1000))
def test_what_a_picture_becomes_does_not_depend_on_its_batch(indices: list[int], seed: int, epoch: int) -> None:
    pixels = pictures(side=8)
    together = gather(pixels, np.array(indices), ("flip", "shift"), seed, epoch)
    for place, index in enumerate(indices):
        alone = gather(pixels, np.array([index]), ("flip", "shift"), seed, epoch)[0]
        assert torch.equal(together[place], alone)


@pytest.mark.parametrize("vary", ["index", "seed", "epoch", "stream"])
def test_random_numbers_are_uniform_whatever_varies(vary: str) -> None:
    n = 4000
    if vary == "index":
        values = uniform(7, 3, np.arange(n), 1)
    else:
        fixed = {"seed": 7, "epoch": 3, "stream": 1}
        values = np.concatenate([uniform(index_n=np.array([5]), **{**fixed, vary: i}) for i in range(n)])
    assert values.min() >= 0
    assert values.max() < 1
    assert stats.kstest(values, "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(values[:-1], values[1:])[0, 1]) < 0.06


def test_a_picture_of_one_pixel_can_be_shifted() -> None:
    pixels = pictures(2, 1)
    assert torch.equal(gather(pixels, np.arange(2), ("flip", "shift"), 0, 0), pixels)
