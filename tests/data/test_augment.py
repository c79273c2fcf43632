from __future__ import annotations

import hashlib
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pellucid.data import augment
from pellucid.data.augment import ORDER, SHIFT, Draws, Stream, gather, uniform
from pellucid.data.augment.geometry import moved
from pellucid.data.augment.pixels import blurred, coloured, cutout, noisy
from pellucid.data.augment.trivial import movement, recoloured
from pellucid.errors import UsageError
from pellucid.recipe import Augmentation

SINGLE = [name for name in ORDER if name not in {"mixup", "cutmix"}]
SHAPES = [(1, 1), (1, 6), (3, 5), (16, 16)]


def pictures(n: int = 6, side: int = 16, channels: int = 3) -> torch.Tensor:
    return sized(n, side, side, channels)


def sized(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0)).to(torch.uint8)


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


def test_flips_alternate_from_epoch_to_epoch() -> None:
    pixels = pictures(60)
    shown = [gather(pixels, np.arange(60), ("flip",), seed=1, epoch=epoch) for epoch in range(4)]
    assert torch.equal(shown[1], shown[0].flip(2))
    assert torch.equal(shown[2], shown[0])
    assert torch.equal(shown[3], shown[1])
    # Where each picture has its own number of looks, that decides.
    looks_n = np.arange(60) % 4
    mixed = gather(pixels, np.arange(60), ("flip",), seed=1, epoch=looks_n)
    assert all(torch.equal(mixed[n], shown[looks_n[n]][n]) for n in range(60))


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


def test_no_picture_repeats_what_its_neighbour_was_an_epoch_before() -> None:
    here, there = (uniform(7, epoch, np.arange(first, first + 1000), 1) for epoch, first in ((4, 0), (3, 1)))
    assert not np.isin(here, there).any()


@pytest.mark.parametrize(
    ("changes", "digest"),
    [
        (("flip",), "5423efc424c6ff7a"),
        (("shift",), "16f9785f00e1eb27"),
        (("flip", "shift"), "5bb1eab0bee1744b"),
    ],
)
def test_what_flip_and_shift_make_never_changes(changes: tuple[str, ...], digest: str) -> None:
    n = 40 * 32 * 32 * 3
    levels = (np.arange(n, dtype=np.uint64) * np.uint64(2654435761) % np.uint64(2**32)) >> np.uint64(24)
    pixels = torch.from_numpy(levels.astype(np.uint8).reshape(40, 32, 32, 3))
    out = gather(pixels, np.arange(40)[::-1].copy(), changes, seed=7, epoch=3)
    assert hashlib.sha256(out.numpy().tobytes()).hexdigest().startswith(digest)


def test_the_order_has_every_change_once() -> None:
    assert sorted(ORDER) == sorted(get_args(Augmentation))


def test_an_unknown_change_is_named_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"augment 'color': no change of this name; did you mean 'colour'\?"):
        gather(pictures(), np.arange(2), ("flip", "color"), 0, 0)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", SHAPES)
@pytest.mark.parametrize("name", [*SINGLE, "all"])
def test_every_change_makes_the_same_of_a_picture_in_any_batch(name: str, size: tuple[int, int], channels: int) -> None:
    pixels = sized(40, *size, channels)
    before = pixels.clone()
    changes = tuple(SINGLE) if name == "all" else (name,)
    index = np.random.default_rng(1).permutation(40)
    together = gather(pixels, index, changes, seed=5, epoch=2)
    assert together.dtype == torch.uint8
    assert together.shape == pixels.shape
    alone = torch.cat([gather(pixels, index[i : i + 1], changes, seed=5, epoch=2) for i in range(40)])
    assert torch.equal(together, alone)
    assert torch.equal(pixels, before)
    if min(size) > 8:
        assert not torch.equal(together, pixels[torch.from_numpy(index)])
        for seed, epoch in ((6, 2), (5, 3)):
            assert not torch.equal(together, gather(pixels, index, changes, seed, epoch))


@settings(deadline=None, max_examples=20)
@given(st.lists(st.sampled_from(SINGLE), min_size=2, unique=True), st.randoms(use_true_random=False))
def test_the_order_in_which_changes_are_named_makes_no_difference(names: list[str], random: object) -> None:
    mixed = list(names)
    random.shuffle(mixed)  # type: ignore[attr-defined]
    pixels = pictures(8, 8)
    assert torch.equal(gather(pixels, np.arange(8), names, 3, 1), gather(pixels, np.arange(8), mixed, 3, 1))


def test_changes_are_made_one_after_the_other_as_documented() -> None:
    pixels = pictures(30)
    draws = Draws(3, 1, np.arange(30))
    x = moved(pixels, draws, ("shift", "flip", "crop", "rotate"), movement(draws, 16, 16))
    x = noisy(blurred(coloured(recoloured(x, draws), draws), draws), draws)
    x = cutout(x, draws, [255 * 0.2, 255 * 0.4, 255 * 0.6])
    assert torch.equal(gather(pixels, np.arange(30), SINGLE, 3, 1, (0.2, 0.4, 0.6)), x)


def test_large_batches_are_worked_on_in_parts_that_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = pictures(30)
    whole = gather(pixels, np.arange(30), SINGLE, 3, 1)
    monkeypatch.setattr(augment, "_PIXELS", {"cpu": 7 * 16 * 16})
    assert torch.equal(gather(pixels, np.arange(30), SINGLE, 3, 1), whole)


@pytest.mark.parametrize("vary", ["index_n", "seed", "epoch", "stream"])
def test_keys_give_uniform_numbers_whatever_varies(vary: str) -> None:
    n = 4000
    if vary == "index_n":
        values = Draws(7, 3, np.arange(n)).unit(Stream.CROP_AREA)
    elif vary == "stream":
        # Beyond the streams in use, as those to come will be.
        values = np.concatenate([Draws(7, 3, np.array([5])).unit(i) for i in range(n)])  # type: ignore[arg-type]
    else:
        fixed: dict[str, Any] = {"seed": 7, "epoch": 3}
        values = np.concatenate(
            [Draws(**{**fixed, vary: i}, index_n=np.array([5])).unit(Stream.CROP_AREA) for i in range(n)]
        )
    assert values.min() >= 0
    assert values.max() < 1
    assert stats.kstest(values, "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(values[:-1], values[1:])[0, 1]) < 0.06


def test_no_picture_repeats_what_another_was_an_epoch_ago() -> None:
    keys = np.concatenate([Draws(0, epoch, np.arange(200)).keys(Stream.NOISE) for epoch in range(20)])
    assert len(np.unique(keys)) == len(keys)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 3.0])
def test_beta_is_distributed_as_it_says(alpha: float) -> None:
    values = Draws(1, 0, np.arange(4000)).beta(Stream.MIXUP_SHARE, alpha)
    assert stats.kstest(values, stats.beta(alpha, alpha).cdf).pvalue > 1e-3


def test_the_first_streams_keep_their_numbers() -> None:
    """Runs made before there were others must come out the same."""
    assert (Stream.FLIP, Stream.SHIFT_Y, Stream.SHIFT_X) == (1, 2, 3)
