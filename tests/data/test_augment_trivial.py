from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps
from scipy import stats

from pellucid.data.augment import Draws, gather, trivial
from pellucid.data.augment.geometry import sheared, translated, turned, warp
from pellucid.data.augment.trivial import OPERATIONS, drawn, movement, recoloured

STRENGTHS = np.array([-1.0, -0.5, 0.0, 0.3, 1.0])


def pictures(n: int, H: int = 24, W: int = 20, C: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(4)
    # Dark and of little contrast, each channel differently, as autocontrast and equalise need.
    reach = torch.tensor([60, 120, 200])[:C]
    return (20 + torch.rand((n, H, W, C), generator=generator) ** 2 * reach).to(torch.uint8)


def pillow(x: torch.Tensor) -> list[Image.Image]:
    return [Image.fromarray(picture.numpy()) for picture in x]


def difference(x: torch.Tensor, images: list[Image.Image]) -> int:
    return int(np.abs(x.numpy().astype(int) - np.stack([np.asarray(i).astype(int) for i in images])).max())


def test_posterise_solarise_and_equalise_are_pillows_to_the_bit() -> None:
    x = pictures(5)
    bits = [8 - round(4 * abs(s)) for s in STRENGTHS]
    posterised = [ImageOps.posterize(i, b) for i, b in zip(pillow(x), bits, strict=True)]
    assert bits == [4, 6, 8, 7, 4]
    assert difference(trivial.posterise(x, STRENGTHS), posterised) == 0
    thresholds = [round(256 * (1 - abs(s))) for s in STRENGTHS]
    solarised = [ImageOps.solarize(i, t) for i, t in zip(pillow(x), thresholds, strict=True)]
    assert difference(trivial.solarise(x, STRENGTHS), solarised) == 0
    assert difference(trivial.equalise(x, STRENGTHS), [ImageOps.equalize(i) for i in pillow(x)]) == 0


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (40, 40)])
def test_equalise_is_pillows_for_pictures_of_few_pixels_or_levels(size: tuple[int, int]) -> None:
    x = pictures(6, *size)
    x[0] = 77
    x[1, :, :, 1] = x[1, :, :, 1] // 64 * 64
    assert difference(trivial.equalise(x, np.ones(6)), [ImageOps.equalize(i) for i in pillow(x)]) == 0


def test_autocontrast_is_pillows_within_its_rounding() -> None:
    x = pictures(5)
    x[0] = 77
    out = trivial.autocontrast(x, STRENGTHS)
    assert difference(out, [ImageOps.autocontrast(i) for i in pillow(x)]) <= 1
    assert torch.equal(out[0], x[0])
    assert out[1:].amin((1, 2)).eq(0).all()
    assert out[1:].amax((1, 2)).eq(255).all()


@pytest.mark.parametrize(
    ("change", "enhancer"),
    [
        (trivial.brightness, ImageEnhance.Brightness),
        (trivial.contrast, ImageEnhance.Contrast),
        (trivial.saturation, ImageEnhance.Color),
        (trivial.sharpness, ImageEnhance.Sharpness),
    ],
)
def test_enhancements_are_pillows_at_every_strength(
    change: Callable[[torch.Tensor, NDArray[np.float64]], torch.Tensor],
    enhancer: Callable[[Image.Image], ImageEnhance._Enhance],
) -> None:
    x = pictures(5)
    theirs = [enhancer(i).enhance(1 + 0.9 * s) for i, s in zip(pillow(x), STRENGTHS, strict=True)]
    ours = change(x, STRENGTHS)
    if change is trivial.sharpness:
        # Pillow leaves the outermost pixels alone.
        ours, theirs = ours[:, 1:-1, 1:-1], [i.crop((1, 1, i.width - 1, i.height - 1)) for i in theirs]
    assert difference(ours, theirs) <= 2
    assert torch.equal(ours[2], x[2, 1:-1, 1:-1] if change is trivial.sharpness else x[2])


def test_all_changes_are_equally_likely_and_all_strengths() -> None:
    operation, strength = drawn(Draws(0, 0, np.arange(14_000)))
    assert len(OPERATIONS) == 14
    assert stats.chisquare(np.bincount(operation, minlength=14)).pvalue > 1e-3
    steps = np.abs(strength) * 30
    assert np.allclose(steps, np.rint(steps))
    assert stats.chisquare(np.bincount(np.rint(steps).astype(int), minlength=31)).pvalue > 1e-3
    assert (strength > 0).sum() == pytest.approx((strength < 0).sum(), rel=0.06)
    for number in range(14):
        assert abs(strength[operation == number].mean()) < 0.08


def test_a_picture_gets_its_one_change_and_no_other() -> None:
    n = 400
    pixels = pictures(n)
    draws = Draws(9, 2, np.arange(n))
    operation, strength = drawn(draws)
    out = gather(pixels, np.arange(n), ("trivial",), 9, 2)
    zero = np.zeros(1)
    for i in range(n):
        x, name, s = pixels[i : i + 1], OPERATIONS[operation[i]], strength[i : i + 1]
        match name:
            case "identity":
                expected = x
            case "rotate":
                expected = warp(x, turned(30 * s))
            case "shear-x":
                expected = warp(x, sheared(zero, 0.3 * s))
            case "shear-y":
                expected = warp(x, sheared(0.3 * s, zero))
            case "translate-x":
                expected = warp(x, translated(zero, 10 / 32 * 20 * s))
            case "translate-y":
                expected = warp(x, translated(10 / 32 * 24 * s, zero))
            case _:
                expected = getattr(trivial, name)(x, s)
        assert torch.equal(out[i : i + 1], expected), name
    assert set(operation) == set(range(14))


def test_no_map_is_made_where_no_picture_moves() -> None:
    operation, _ = drawn(Draws(0, 0, np.arange(100)))
    still = np.flatnonzero(operation >= OPERATIONS.index("brightness"))
    assert movement(Draws(0, 0, still), 8, 8) is None
    assert movement(Draws(0, 0, np.arange(100)), 8, 8) is not None
    moving = np.flatnonzero((operation >= 1) & (operation <= 5))
    x = pictures(len(moving))
    assert torch.equal(recoloured(x, Draws(0, 0, moving)), x)


def test_grey_pictures_can_draw_every_change() -> None:
    x = pictures(300, 8, 8, 1)
    out = gather(x, np.arange(300), ("trivial",), 0, 0)
    operation, _ = drawn(Draws(0, 0, np.arange(300)))
    colourless = operation == OPERATIONS.index("saturation")
    assert colourless.any()
    assert torch.equal(out[colourless], x[colourless])
