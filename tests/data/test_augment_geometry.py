from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import stats
from torch.nn import functional

from pellucid.data.augment import CROP, CROP_RATIO, ROTATE, Draws, Stream, gather
from pellucid.data.augment.geometry import Affine, cropped, mirrored, moved, sheared, translated, turned, warp


def pictures(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(1)).to(torch.uint8)


def affine(n: int, seed: int = 0, most: float = 0.5) -> Affine:
    rng = np.random.default_rng(seed)
    near = rng.uniform(-most, most, (6, n))
    return Affine(1 + near[0], near[1], near[2], 1 + near[3], 10 * near[4], 10 * near[5])


def places(a: Affine, H: int, W: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Where each new pixel comes from, in float64: rows and columns (N, H, W)."""
    y = (np.arange(H) - (H - 1) / 2)[None, :, None]
    x = (np.arange(W) - (W - 1) / 2)[None, None, :]
    yy, yx, xy, xx, y0, x0 = (v[:, None, None] for v in (a.yy, a.yx, a.xy, a.xx, a.y0, a.x0))
    return yy * y + yx * x + y0 + (H - 1) / 2, xy * y + xx * x + x0 + (W - 1) / 2


@pytest.mark.parametrize("size", [(32, 32), (9, 14), (2, 3)])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_map_samples_as_torch_does_with_mirrored_edges(size: tuple[int, int], channels: int) -> None:
    H, W = size
    x = pictures(20, H, W, channels)
    a = affine(20)
    rows, columns = places(a, H, W)
    grid = torch.from_numpy(np.stack([2 * columns / (W - 1) - 1, 2 * rows / (H - 1) - 1], axis=-1))
    truth = functional.grid_sample(
        x.permute(0, 3, 1, 2).double(), grid, mode="bilinear", padding_mode="reflection", align_corners=True
    ).permute(0, 2, 3, 1)
    # A place is off by at most 1/512 pixel along each axis (and 2⁻¹⁷ of the distance from the middle), over which a
    # picture can change by 255 levels a pixel; then half a level of rounding.
    assert (warp(x, a).double() - truth).abs().max() < 255 * 2 / 500 + 0.5


@pytest.mark.parametrize("size", [(1, 1), (1, 4), (3, 5), (32, 32)])
def test_a_map_that_changes_nothing_changes_nothing(size: tuple[int, int]) -> None:
    x = pictures(4, *size, 3)
    assert torch.equal(warp(x, Affine.same(4)), x)


def test_a_map_of_flips_and_shifts_is_the_table_of_them() -> None:
    pixels = pictures(60, 16, 20, 3)
    draws = Draws(3, 4, np.arange(60))
    changes = ("flip", "shift")
    table = moved(pixels, draws, changes)
    assert not torch.equal(table, pixels)
    # A further map that does nothing takes the other way through the code.
    assert torch.equal(moved(pixels, draws, changes, Affine.same(60)), table)


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_quarter_turn_is_exact_and_anticlockwise(turns: int) -> None:
    x = pictures(3, 16, 16, 3)
    assert torch.equal(warp(x, turned(np.full(3, 90.0 * turns))), torch.rot90(x, turns, (1, 2)))


def test_a_rotation_is_pillows_away_from_the_edges() -> None:
    smooth = functional.interpolate(torch.rand(1, 3, 6, 6, generator=torch.Generator().manual_seed(3)), (48, 48))
    x = (functional.avg_pool2d(smooth, 5, 1, 2)[0].permute(1, 2, 0) * 255).to(torch.uint8)
    for degrees in (-15.0, 4.0, 11.5):
        ours = warp(x[None], turned(np.array([degrees])))[0].numpy().astype(int)
        theirs = np.asarray(Image.fromarray(x.numpy()).rotate(degrees, Image.Resampling.BILINEAR)).astype(int)
        assert np.abs(ours - theirs)[10:-10, 10:-10].max() <= 2
        wrong = np.asarray(Image.fromarray(x.numpy()).rotate(-degrees, Image.Resampling.BILINEAR)).astype(int)
        assert np.abs(ours - wrong)[10:-10, 10:-10].max() > 10


@pytest.mark.parametrize(("down", "right"), [(3, -2), (0, 5), (-40, 77)])
def test_a_translation_shows_the_mirrored_picture_beyond_its_edges(down: int, right: int) -> None:
    x = pictures(1, 7, 9, 1)
    wide = np.pad(x[0, :, :, 0].numpy(), 100, mode="reflect")
    expected = wide[100 - down : 107 - down, 100 - right : 109 - right]
    out = warp(x, translated(np.array([float(down)]), np.array([float(right)])))
    assert np.array_equal(out[0, :, :, 0].numpy(), expected)


def test_a_shear_moves_each_row_by_its_distance_from_the_middle() -> None:
    x = pictures(1, 5, 31, 1)
    # One pixel a row: the rows −2 … 2 from the middle move by −2 … 2 to the right.
    out = warp(x, sheared(np.zeros(1), np.ones(1)))
    for row in range(5):
        moved_by = row - 2
        assert torch.equal(out[0, row, 4:-4, 0], x[0, row, 4 - moved_by : 27 - moved_by, 0])
    turned_out = warp(x.transpose(1, 2), sheared(np.ones(1), np.zeros(1)))
    assert torch.equal(turned_out, out.transpose(1, 2))


def test_maps_one_after_the_other_are_one_map() -> None:
    first, second = affine(5, 1), affine(5, 2)
    together = first.then(second)
    for n in range(5):
        matrices = [
            np.array([[a.yy[n], a.yx[n], a.y0[n]], [a.xy[n], a.xx[n], a.x0[n]], [0, 0, 1]]) for a in (first, second)
        ]
        product = matrices[1] @ matrices[0]
        found = [[together.yy[n], together.yx[n], together.y0[n]], [together.xy[n], together.xx[n], together.x0[n]]]
        assert np.allclose(found, product[:2], rtol=1e-14)


@pytest.mark.parametrize("size", [(32, 32), (24, 40)])
def test_a_crop_is_a_box_of_the_drawn_share_within_the_picture(size: tuple[int, int]) -> None:
    H, W = size
    assert (CROP, CROP_RATIO) == (0.5, (3 / 4, 4 / 3))
    a = cropped(Draws(1, 2, np.arange(3000)), H, W)
    assert not a.yx.any()
    assert not a.xy.any()
    area, ratio = a.yy * a.xx, a.yy / a.xx
    assert stats.kstest(area, stats.uniform(CROP, 1 - CROP).cdf).pvalue > 1e-3
    assert ratio.min() >= CROP_RATIO[0] - 1e-9
    assert ratio.max() <= CROP_RATIO[1] + 1e-9
    assert stats.ks_2samp(ratio, 1 / ratio).pvalue > 1e-3
    # Its edges, from the middle of the picture; all places equally likely.
    for scale, middle, side in ((a.yy, a.y0, H), (a.xx, a.x0, W)):
        assert (np.abs(middle) + scale * side / 2).max() <= side / 2 + 1e-9
        free = (1 - scale) * side
        assert stats.kstest(middle / free, stats.uniform(-0.5, 1).cdf).pvalue > 1e-3


def test_a_crop_is_pillows_enlargement_of_the_box() -> None:
    pixels = pictures(12, 32, 32, 3)
    out = gather(pixels, np.arange(12), ("crop",), seed=1, epoch=0).numpy().astype(int)
    a = cropped(Draws(1, 0, np.arange(12)), 32, 32)
    rows, columns = places(a, 32, 32)
    for n in range(12):
        h, w = a.yy[n] * 32, a.xx[n] * 32
        top, left = 16 + a.y0[n] - h / 2, 16 + a.x0[n] - w / 2
        picture = Image.fromarray(pixels[n].numpy())
        theirs = np.asarray(
            picture.resize((32, 32), Image.Resampling.BILINEAR, box=(left, top, left + w, top + h))
        ).astype(int)
        # Pillow repeats the edge row where we mirror, so what reaches beyond the outermost pixels' middles is left out.
        inner = (rows[n] >= 0) & (rows[n] <= 31) & (columns[n] >= 0) & (columns[n] <= 31)
        assert inner.mean() > 0.85
        assert np.abs(out[n] - theirs)[inner].max() <= 3
        assert np.abs(out[n] - theirs)[inner].mean() < 0.5


def test_rotations_reach_both_ways_to_the_documented_angle() -> None:
    draws = Draws(2, 0, np.arange(500))
    degrees = draws.between(Stream.ROTATE, -ROTATE, ROTATE)
    assert ROTATE == 15
    assert -15 <= degrees.min() < -14.5
    assert 14.5 < degrees.max() <= 15
    pixels = pictures(500, 12, 12, 1)
    assert torch.equal(gather(pixels, np.arange(500), ("rotate",), 2, 0), warp(pixels, turned(degrees)))


def test_one_map_is_shift_flip_crop_and_rotation_in_this_order() -> None:
    n, side = 30, 64
    rough = torch.rand(n, 3, 9, 9, generator=torch.Generator().manual_seed(6))
    smooth = functional.interpolate(rough, (side, side), mode="bicubic").clamp(0, 1).permute(0, 2, 3, 1) * 255
    pixels, draws = smooth.to(torch.uint8).contiguous(), Draws(7, 0, np.arange(n))
    once = moved(pixels, draws, ("rotate", "crop", "flip", "shift"))
    degrees = draws.between(Stream.ROTATE, -ROTATE, ROTATE)
    flipped = moved(pixels, draws, ("flip", "shift"))
    stepwise = warp(warp(flipped, cropped(draws, side, side)), turned(degrees))
    swapped = warp(warp(flipped, turned(degrees)), cropped(draws, side, side))
    # Sampled twice, a picture is smoothed and mirrored twice; the middle of a smooth one hardly shows it.
    middle = slice(16, 48)
    close, far = ((once[:, middle, middle].float() - x[:, middle, middle]).abs().mean() for x in (stepwise, swapped))
    assert close < 1.5
    assert far > 4 * close


def test_one_colour_stays_that_colour() -> None:
    x = torch.full((30, 11, 13, 3), 201, dtype=torch.uint8)
    assert torch.equal(gather(x, np.arange(30), ("shift", "flip", "crop", "rotate"), 0, 0), x)


@pytest.mark.parametrize("side", [1, 2, 3, 8])
def test_positions_beyond_an_edge_are_numpys_reflection(side: int) -> None:
    position = np.arange(-50, 50)
    expected = np.pad(np.arange(side), 60, mode="reflect")[position + 60]
    assert np.array_equal(mirrored(position, side), expected)


def test_the_largest_pictures_are_sampled_in_place() -> None:
    """Whole numbers of 2⁻¹⁷ pixel must not run over at a side of 4096."""
    x = torch.zeros((1, 4096, 4, 1), dtype=torch.uint8)
    x[0, 4090] = 200
    out = warp(x, translated(np.array([-4000.0]), np.array([0.0])))
    assert out[0, 90].eq(200).all()
    half = warp(x.transpose(1, 2), turned(np.array([180.0])))
    assert half[0, :, 5].eq(200).all()
