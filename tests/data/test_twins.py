from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from pellucid.data import twins
from pellucid.data.decode import Reduced, decode_reduced
from pellucid.data.twins import SIDE, near_doubles, signature

Pixels = NDArray[np.uint8]


def photo(seed: int, width: int = 160, height: int = 120) -> Image.Image:
    """Something with the broad forms of a photograph, unlike any other."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def sign(image: Image.Image) -> Pixels:
    return signature(Reduced(image, (0, 0, *image.size)))


def saved(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def pairs_of(images: list[Image.Image]) -> list[list[int]]:
    found: list[list[int]] = near_doubles(
        np.stack([sign(image) for image in images]).__getitem__, np.arange(len(images))
    ).tolist()
    return found


@pytest.mark.parametrize("size", [(96, 64), (403, 299), (40, 33)])
def test_a_signature_shows_what_the_picture_shows(size: tuple[int, int]) -> None:
    """A ramp across and another down: each place has the value of its middle."""
    width, height = size
    across, down = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    found = sign(Image.fromarray(np.stack([across, down, 255 - across], axis=2).astype(np.uint8)))
    middles = (np.arange(16) + 0.5) / 16 * 255
    assert np.abs(found[:, 1:15, 0] - middles[1:15]).max() <= 6
    assert np.abs(found[1:15, :, 1].T - middles[1:15]).max() <= 6


def test_of_a_reduced_jpeg_it_is_that_of_the_whole() -> None:
    buffer = io.BytesIO()
    photo(0, 403, 299).save(buffer, "JPEG", quality=95)
    whole, small = (signature(decode_reduced(buffer.getvalue(), "x", least)) for least in (None, 64))
    assert np.abs(whole.astype(int) - small).max() <= 8
    assert len(near_doubles(np.stack([whole, small]).__getitem__, np.arange(2))) == 1


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "nothing": lambda image: image,
    "another compression": lambda image: saved(image, 30),
    "half the size": lambda image: image.resize((image.width // 2, image.height // 2)),
    "stretched to a square": lambda image: image.resize((100, 100)),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.15),
    "darker": lambda image: ImageEnhance.Brightness(image).enhance(0.7),
    "more contrast": lambda image: ImageEnhance.Contrast(image).enhance(1.2),
    "cut by a hundredth": lambda image: image.crop((2, 1, image.width - 2, image.height - 1)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_is_found_among_others(change: str) -> None:
    images = [photo(seed) for seed in range(30)]
    copies = [CHANGES[change](image) for image in images[:10]]
    assert pairs_of(images + copies) == [[n, 30 + n] for n in range(10)]


@pytest.mark.parametrize(
    "change",
    [
        lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        lambda image: image.transpose(Image.Transpose.ROTATE_90),
        lambda image: Image.fromarray(np.array(image)[:, :, [1, 2, 0]]),
        lambda image: image.crop((0, 0, image.width // 2, image.height)),
    ],
)
def test_what_is_not_the_same_picture_is_not_said_to_be(change: Callable[[Image.Image], Image.Image]) -> None:
    images = [photo(seed) for seed in range(20)]
    assert pairs_of(images + [change(image) for image in images]) == []


def test_pictures_that_show_nothing_are_no_doubles() -> None:
    generator = np.random.default_rng(0)
    fog = [Image.fromarray(generator.normal(120 + n, 3, (40, 40, 3)).astype(np.uint8)) for n in range(10)]
    assert pairs_of(fog) == []


def test_what_all_pictures_have_in_common_does_not_count() -> None:
    """A fixed camera: the same scene behind every object. The objects differ, and one was saved twice."""
    scene = np.array(photo(0, 128, 128)).astype(int)
    generator = np.random.default_rng(0)
    images = []
    for n in range(60):
        picture = scene.copy()
        picture[32:96, 32:96] = np.array(photo(100 + n, 64, 64))
        picture += generator.normal(0, 2, picture.shape).astype(int)
        images.append(Image.fromarray(picture.clip(0, 255).astype(np.uint8)))
    signatures = np.stack([sign(image) for image in images])
    grey = signatures.reshape(60, -1).astype(float)
    assert np.median(np.corrcoef(grey)) > 0.5  # alike they are
    assert pairs_of([*images, saved(images[7], 50)]) == [[7, 60]]


def test_every_pair_of_up_to_six_bits_is_found_and_none_of_more_than_eight() -> None:
    generator = np.random.default_rng(0)
    hashes = generator.integers(0, 2**63, 400, dtype=np.uint64)
    for n in range(200):
        flipped = generator.choice(63, generator.integers(0, 12), replace=False)
        hashes[200 + n] = hashes[n] ^ np.uint64(sum(1 << int(bit) for bit in flipped))
    found = set(map(tuple, twins._candidates(hashes).tolist()))
    apart = np.bitwise_count(hashes[:, None] ^ hashes[None])
    for limit, check in ((6, set.issuperset), (twins.BITS, set.issubset)):
        first, second = np.nonzero(np.triu(apart <= limit, 1))
        assert check(found, set(zip(first.tolist(), second.tolist(), strict=True)))
    assert found


def test_nothing_is_found_among_none_or_one() -> None:
    signatures = np.zeros((3, SIDE, SIDE, 3), np.uint8)
    for among in (np.empty(0, np.int64), np.array([2])):
        assert near_doubles(signatures.__getitem__, among).shape == (0, 2)


def test_of_four_hundred_different_photographs_none_are_doubles(real_data: Callable[[str], Path]) -> None:
    files = sorted(real_data("flower-photos-small").rglob("*.jpg"))
    signatures = np.stack([signature(decode_reduced(file.read_bytes(), "x", 96)) for file in files])
    assert len(near_doubles(signatures.__getitem__, np.arange(len(files)))) == 0
