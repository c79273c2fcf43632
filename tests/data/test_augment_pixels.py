from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageEnhance
from scipy import ndimage, stats

from pellucid.data.augment import BLUR, COLOUR, CUTOUT, NOISE, Draws, Stream, gather
from pellucid.data.augment.pixels import (
    BLUR_PIXELS,
    blur,
    blurred,
    coloured,
    cutout,
    gaussian,
    inside,
    luma,
    noise,
    noisy,
    normals,
    span,
    tint,
)


def pictures(*shape: int, seed: int = 2) -> torch.Tensor:
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed)).to(torch.uint8)


def levels(x: torch.Tensor) -> NDArray[np.float64]:
    return x.numpy().astype(np.float64)


@pytest.mark.parametrize("enhance", ["Brightness", "Contrast", "Color"])
@pytest.mark.parametrize("factor", [0.1, 0.8, 1.0, 1.2, 1.9])
def test_each_part_of_the_colour_is_pillows(enhance: str, factor: float) -> None:
    x = pictures(6, 9, 12, 3)
    factors = [np.ones(6) for _ in range(3)]
    factors[["Brightness", "Contrast", "Color"].index(enhance)][:] = factor
    ours = levels(tint(x, *factors))
    for n in range(6):
        theirs = np.asarray(getattr(ImageEnhance, enhance)(Image.fromarray(x[n].numpy())).enhance(factor), float)
        # Pillow rounds the mean grey to a whole level and cuts fractions off, we round once.
        assert np.abs(ours[n] - theirs).max() <= (2 if enhance == "Contrast" else 1)


def test_brightness_contrast_and_saturation_are_one_after_the_other() -> None:
    x = pictures(5, 6, 7, 3)
    rng = np.random.default_rng(0)
    b, c, s = rng.uniform(0.7, 1.3, (3, 5))
    weights = np.array([0.299, 0.587, 0.114])
    y = b[:, None, None, None] * levels(x)
    mean = (y @ weights).mean(axis=(1, 2))[:, None, None, None]
    y = mean + c[:, None, None, None] * (y - mean)
    grey = (y @ weights)[..., None]
    y = grey + s[:, None, None, None] * (y - grey)
    # Half a level of rounding, and half a level by which the whole number for the grey is off.
    assert np.abs(levels(tint(x, b, c, s)) - y.clip(0, 255)).max() < 1.3


def test_grey_is_pillows() -> None:
    x = pictures(3, 20, 30, 3)
    for n in range(3):
        assert np.array_equal(luma(x)[n, :, :, 0].numpy(), np.asarray(Image.fromarray(x[n].numpy()).convert("L")))


def test_saturation_does_nothing_to_grey_pictures_and_brightness_does() -> None:
    x = pictures(4, 5, 5, 1)
    one = np.ones(4)
    assert torch.equal(tint(x, one, one, np.full(4, 1.7)), x)
    assert np.array_equal(levels(tint(x, 1.5 * one, one, one)), np.rint(1.5 * levels(x)).clip(0, 255))


def test_colour_draws_three_factors_of_the_documented_reach() -> None:
    assert COLOUR == 0.2
    draws = Draws(0, 0, np.arange(800))
    x = pictures(800, 4, 4, 3)
    factors = [draws.between(s, 0.8, 1.2) for s in (Stream.BRIGHTNESS, Stream.CONTRAST, Stream.SATURATION)]
    for i, factor in enumerate(factors):
        assert stats.kstest(factor, stats.uniform(0.8, 0.4).cdf).pvalue > 1e-3
        assert abs(np.corrcoef(factor, factors[i - 1])[0, 1]) < 0.1
    assert torch.equal(coloured(x, draws), tint(x, *factors))


@pytest.mark.parametrize("size", [(32, 32), (9, 20)])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_blur_is_scipys_gaussian(size: tuple[int, int], channels: int) -> None:
    x = pictures(8, *size, channels)
    sigma = np.linspace(0.3, 2.0, 8)
    ours = levels(blur(x, sigma, 6))
    away = []
    for n in range(8):
        for c in range(channels):
            truth = ndimage.gaussian_filter(levels(x)[n, :, :, c], sigma[n], mode="mirror", radius=6)
            assert np.abs(ours[n, :, :, c] - truth).max() < 0.75
            away.append((ours[n, :, :, c] - truth).mean())
    # Both roundings go to the nearest: cutting a sixteenth of a level off would show as 0.03.
    if size == (32, 32):
        assert abs(np.mean(away)) < 0.012


def test_a_blur_of_no_width_and_of_one_colour_changes_nothing() -> None:
    x = pictures(3, 8, 8, 3)
    assert torch.equal(blur(x, np.zeros(3), 3), x)
    flat = torch.full((3, 8, 8, 3), 255, dtype=torch.uint8)
    assert torch.equal(blur(flat, np.array([0.2, 1.0, 2.0]), 6), flat)


def test_the_weights_of_a_blur_are_a_whole_4096() -> None:
    sigma = np.linspace(0, 2, 41)
    weights = gaussian(sigma, 6)
    assert np.array_equal(weights.sum(axis=1), np.full(41, 4096.0))
    assert np.array_equal(weights, np.rint(weights))
    assert (weights >= 0).all()
    assert np.array_equal(weights, weights[:, ::-1])
    truth = stats.norm.pdf(np.arange(-6, 7)[None, :], scale=sigma[1:, None])
    assert np.abs(weights[1:] / 4096 - truth / truth.sum(axis=1, keepdims=True)).max() < 0.001


@pytest.mark.parametrize(("side", "most"), [(16, 0.5), (32, 1.0), (64, 2.0), (100, 2.0)])
def test_a_blur_is_as_wide_as_documented(side: int, most: float) -> None:
    assert (BLUR, BLUR_PIXELS) == (1 / 32, 2.0)
    x = pictures(4, side, side + 3, 1)
    draws = Draws(0, 0, np.arange(4))
    assert torch.equal(blurred(x, draws), blur(x, draws.between(Stream.BLUR, 0, most), int(np.ceil(3 * most))))


def test_a_blur_does_not_depend_on_how_wide_the_others_of_its_batch_are() -> None:
    x = pictures(24, 64, 64, 1)
    together = gather(x, np.arange(24), ("blur",), 0, 0)
    for i in range(24):
        assert torch.equal(gather(x, np.array([i]), ("blur",), 0, 0)[0], together[i])


def splitmix(key: int, number: int) -> int:
    """Steele, Lea and Flood 2014, in Python's whole numbers."""
    state = (key + number * 0x9E3779B97F4A7C15) % 2**64
    state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    state = (state ^ (state >> 27)) * 0x94D049BB133111EB % 2**64
    return state ^ (state >> 31)


def test_normal_numbers_are_quantiles_that_splitmix_chooses() -> None:
    keys = np.array([0, 1, -5, 2**62, -(2**63)], np.int64)
    ours = normals(keys, 10, torch.device("cpu")).numpy()
    assert ours.shape == (5, 10)
    for n, key in enumerate(keys):
        words = [splitmix(int(key) % 2**64, i) for i in range(3)]
        bits = [(word >> 16 * part) & 0xFFFF for word in words for part in range(4)]
        signed = [b - 2**16 if b >= 2**15 else b for b in bits]
        assert np.allclose(ours[n], stats.norm.ppf((np.array(signed[:10]) + 32768.5) / 65536), rtol=1e-6)


def test_normal_numbers_are_normal_and_unrelated() -> None:
    values = normals(Draws(0, 0, np.arange(50)).keys(Stream.NOISE), 3072, torch.device("cpu")).numpy()
    assert stats.kstest(values.ravel(), "norm").pvalue > 1e-3
    related = np.corrcoef(values)
    assert np.abs(related - np.eye(50)).max() < 0.09
    assert abs(np.corrcoef(values[:, :-1].ravel(), values[:, 1:].ravel())[0, 1]) < 0.01


def test_noise_is_normal_of_the_drawn_width_about_the_picture() -> None:
    assert NOISE == 12
    x = torch.full((40, 32, 32, 3), 128, dtype=torch.uint8)
    draws = Draws(4, 0, np.arange(40))
    width = draws.between(Stream.NOISE_SIZE, 0, 12.0)
    away = levels(noisy(x, draws)) - 128
    # Rounding to whole levels adds a variance of 1/12.
    expected = np.sqrt(width**2 + 1 / 12)
    found = away.std(axis=(1, 2, 3))
    assert np.abs(found / expected - 1)[width > 1].max() < 0.06
    assert np.abs(away.mean(axis=(1, 2, 3)) / expected).max() < 0.08


def test_noise_stays_between_black_and_white_and_its_absence_changes_nothing() -> None:
    x = pictures(4, 30, 30, 1)
    keys = np.arange(4)
    assert torch.equal(noise(x, np.zeros(4), keys), x)
    # Wrapping around would make white of black here.
    ends = torch.tensor([0, 255], dtype=torch.uint8).repeat(450).view(1, 30, 30, 1)
    away = levels(noise(ends, np.array([12.0]), keys[:1])) - levels(ends)
    assert np.abs(away).max() < 60
    assert (away[levels(ends) == 0] == 0).mean() == pytest.approx(0.5, abs=0.08)


def test_a_span_has_its_pixel_in_the_middle_and_ends_at_the_edges() -> None:
    begin, end = span(np.array([0, 5, 5, 9, 5]), np.array([4, 4, 3, 4, 0]), 10)
    assert begin.tolist() == [0, 3, 4, 7, 5]
    assert end.tolist() == [2, 7, 7, 10, 5]
    assert inside(begin, end, 10, torch.device("cpu")).sum(1).tolist() == [2, 4, 3, 3, 0]


@pytest.mark.parametrize(("size", "side"), [((32, 32), 8), ((20, 33), 5), ((3, 5), 1)])
def test_cutout_fills_a_square_of_the_documented_side(size: tuple[int, int], side: int) -> None:
    assert CUTOUT == 1 / 4
    H, W = size
    n = 400
    x = pictures(n, H, W, 3).clamp(max=249)
    out = cutout(x, Draws(0, 0, np.arange(n)), (250.0, 251.2, 252.9))
    fill = torch.tensor([250, 251, 253], dtype=torch.uint8)
    hole = (out == fill).all(dim=3)
    assert torch.equal(out[~hole], x[~hole])
    tops, lefts = set(), set()
    for n_hole in hole.numpy():
        rows, columns = np.flatnonzero(n_hole.any(axis=1)), np.flatnonzero(n_hole.any(axis=0))
        assert n_hole.sum() == len(rows) * len(columns)
        assert (np.diff(rows) == 1).all()
        assert (np.diff(columns) == 1).all()
        for places, length in ((rows, H), (columns, W)):
            assert 1 <= len(places) <= side
            # Less than the whole side only where an edge cuts it.
            assert len(places) == side or places[0] == 0 or places[-1] == length - 1
        tops.add((rows[0], rows[-1]))
        lefts.add((columns[0], columns[-1]))
    # The middle is any pixel, so there are as many positions as rows and as columns.
    assert len(tops) == H
    assert len(lefts) == W


def test_cutout_takes_nothing_from_pictures_that_it_would_take_away() -> None:
    for side in (1, 2):
        x = pictures(5, side, side, 3)
        assert torch.equal(cutout(x, Draws(0, 0, np.arange(5)), (0, 0, 0)), x)


def test_cutout_leaves_the_mean_it_is_given() -> None:
    x = torch.zeros((2, 8, 8, 1), dtype=torch.uint8)
    out = gather(x, np.arange(2), ("cutout",), 0, 0, mean=(0.4,))
    assert set(out.flatten().tolist()) == {0, 102}
    assert set(gather(x, np.arange(2), ("cutout",), 0, 0).flatten().tolist()) == {0, 128}
