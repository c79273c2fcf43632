from __future__ import annotations

import dataclasses
import io
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from pellucid.data.decode import BadImage, decode, decode_reduced
from pellucid.data.preprocess import LEAST_STD, Preprocess
from pellucid.errors import DataError
from pellucid.recipe import Resize

Pixels = NDArray[np.uint8]
RESIZES: tuple[Resize, ...] = ("crop", "stretch", "pad")


def made(size: tuple[int, int], resize: Resize, channels: int = 3) -> Preprocess:
    three = channels == 3
    return Preprocess(size, resize, 3 if three else 1, (0.5,) * channels, (0.25,) * channels)


def noise(*shape: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def as_png(pixels: Pixels) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels.squeeze()).save(buffer, "PNG")
    return buffer.getvalue()


def ramp(height: int, width: int) -> Pixels:
    """Red grows by 2 a column, green by 2 a row: a picture's place can be read off its colour."""
    rows, columns = np.mgrid[:height, :width] * 2
    return np.dstack([columns, rows, np.zeros_like(rows)]).astype(np.uint8)


# ---- size


@pytest.mark.parametrize("resize", RESIZES)
def test_a_picture_of_the_right_size_is_left_alone(resize: Resize, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("resized")

    monkeypatch.setattr(Image.Image, "resize", never)
    pixels = noise(24, 32, 3)
    assert np.array_equal(made((24, 32), resize).fit(pixels), pixels)


@pytest.mark.parametrize(("height", "width"), [(60, 100), (100, 60), (61, 100), (80, 80)])
@pytest.mark.parametrize("size", [(20, 20), (10, 30), (40, 16)])
def test_crop_keeps_the_middle_in_proportion(height: int, width: int, size: tuple[int, int]) -> None:
    """A ramp stays a ramp under a symmetric filter, so each output pixel must have the colour of its centre."""
    H, W = size
    scale = max(H / height, W / width)
    rows, columns = (np.arange(H) + 0.5) / scale, (np.arange(W) + 0.5) / scale
    rows += (height - H / scale) / 2 - 0.5
    columns += (width - W / scale) / 2 - 0.5
    out = made(size, "crop").fit(ramp(height, width)).astype(float)
    edge = slice(2, -2)  # where the filter is cut off, it is not symmetric
    assert np.abs(out[edge, edge, 0] - 2 * columns[None, edge]).max() <= 1
    assert np.abs(out[edge, edge, 1] - 2 * rows[edge, None]).max() <= 1


def test_stretch_takes_the_whole_picture() -> None:
    out = made((20, 50), "stretch").fit(ramp(60, 100)).astype(float)
    edge = slice(1, -1)
    assert np.abs(out[edge, edge, 0] - 2 * ((np.arange(50) + 0.5) * 2 - 0.5)[None, edge]).max() <= 1
    assert np.abs(out[edge, edge, 1] - 2 * ((np.arange(20) + 0.5) * 3 - 0.5)[edge, None]).max() <= 1


def test_pad_centres_on_black_as_lecun_did() -> None:
    digit = noise(28, 28, 1)
    out = made((32, 32), "pad", 1).fit(digit)
    assert np.array_equal(out[2:30, 2:30], digit)
    frame = out.copy()
    frame[2:30, 2:30] = 0
    assert not frame.any()


def test_pad_never_enlarges_and_scales_down_what_does_not_fit() -> None:
    out = made((10, 10), "pad").fit(np.full((5, 4, 3), 255, np.uint8))
    assert (out > 0).all(2).sum() == 20
    out = made((10, 10), "pad").fit(np.full((40, 20, 3), 255, np.uint8))
    assert (out[:, :, 0] == 255).any(0).tolist() == [False] * 2 + [True] * 5 + [False] * 3
    assert (out[:, :, 0] == 255).any(1).all()


def test_crop_cuts_between_whole_pixels_where_nothing_is_scaled() -> None:
    pixels = noise(20, 33, 3)
    assert np.array_equal(made((20, 20), "crop").fit(pixels), pixels[:, 6:26])


def test_a_reduction_does_not_alias() -> None:
    """Stripes one pixel wide become an even grey; without a wide filter they would become stripes or black."""
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    out = made((8, 8), "stretch").fit(stripes)[:, 1:-1].astype(int)
    assert np.abs(out - 127.5).max() < 8


@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 500), (500, 1), (3, 200), (2, 2)])
def test_odd_shapes_come_out_right(resize: Resize, height: int, width: int) -> None:
    for channels in (1, 3):
        out = made((16, 24), resize, channels).fit(np.full((height, width, 3), 200, np.uint8))
        assert out.shape == (16, 24, channels)
        assert out.dtype == np.uint8
        assert set(np.unique(out)) <= {0, 200}


# ---- channels


def test_grey_is_luma_as_itu_601_and_pillow_have_it() -> None:
    pixels = noise(64, 64, 3)
    out = made((64, 64), "crop", 1).fit(pixels)[:, :, 0]
    assert np.array_equal(out, np.array(Image.fromarray(pixels).convert("L")))
    tall = noise(2500, 3, 3)
    assert np.array_equal(made((2500, 3), "crop", 1).fit(tall)[:, :, 0], np.array(Image.fromarray(tall).convert("L")))
    luma = pixels @ np.array([0.299, 0.587, 0.114])
    assert np.abs(out - luma).max() <= 0.51


@pytest.mark.parametrize("resize", RESIZES)
def test_a_grey_array_and_its_png_give_the_same_pixels(resize: Resize) -> None:
    digit = noise(28, 28)
    for channels, size in itertools.product((1, 3), ((28, 28), (32, 32), (20, 20), (64, 48))):
        preprocess = made(size, resize, channels)
        from_array = preprocess.fit(digit)
        assert from_array.shape == (*size, channels)
        assert np.array_equal(from_array, preprocess.pixels(as_png(digit), "x"))
        assert np.array_equal(from_array, preprocess.fit(digit[:, :, None]))
        assert np.array_equal(from_array, preprocess.fit(np.repeat(digit[:, :, None], 3, 2)))


# ---- bytes


def test_bytes_are_decoded_by_the_one_policy() -> None:
    pixels = noise(40, 30, 3)
    preprocess = made((16, 16), "crop")
    assert np.array_equal(preprocess.pixels(as_png(pixels), "x"), preprocess.fit(pixels))
    with pytest.raises(BadImage, match=r"^a/b\.jpg: "):
        preprocess.pixels(b"nothing", "a/b.jpg")


def test_a_large_jpeg_decoded_at_a_reduced_scale_looks_the_same(real_data: Callable[[str], Path]) -> None:
    files = sorted(real_data("flower-photos-small").rglob("*.jpg"))[::5]
    reduced, apart = 0, []
    for file in files:
        raw = file.read_bytes()
        for size in ((32, 32), (24, 48)):
            preprocess = made(size, "crop")
            full = decode(raw, "x")
            reduced += decode_reduced(raw, "x", 2 * max(size)).pixels.shape != full.shape
            apart.append(np.abs(preprocess.pixels(raw, "x").astype(int) - preprocess.fit(full)).mean())
    assert reduced > len(files)
    assert np.mean(apart) < 1.3
    assert max(apart) < 3.5


# ---- batches


@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("given", [1, 3])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("side", [(28, 28), (20, 36), (32, 32), (40, 40), (7, 31)])
def test_a_batch_gives_what_each_picture_gives(
    resize: Resize, given: int, channels: int, side: tuple[int, int]
) -> None:
    images = noise(9, *side, given)
    preprocess = made((32, 32), resize, channels)
    out = preprocess.fit_batch(images)
    assert out.shape == (9, 32, 32, channels)
    assert all(np.array_equal(out[n], preprocess.fit(images[n])) for n in range(9))


def test_a_batch_larger_than_one_task_keeps_its_order() -> None:
    images = np.repeat(np.arange(700, dtype=np.uint16).view(np.uint8).reshape(700, 2)[:, None, :, None], 3, 1)
    out = made((6, 4), "stretch", 1).fit_batch(images)
    assert np.array_equal(out[:, 0, [0, -1], 0], images[:, 0, :, 0])


def test_a_batch_of_the_right_size_is_not_copied() -> None:
    images = noise(4, 8, 8, 3)
    assert made((8, 8), "crop").fit_batch(images) is images


# ---- normalisation


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("shape", [(5, 7), (1, 1), (8, 8)])
def test_normalising_is_the_formula(channels: int, shape: tuple[int, int]) -> None:
    preprocess = dataclasses.replace(
        made(shape, "crop", channels), mean=(0.4914, 0.4822, 0.4465)[:channels], std=(0.247, 0.2435, 0.2616)[:channels]
    )
    x = torch.from_numpy(noise(4, *shape, channels))
    truth = ((x.numpy() / 255 - np.array(preprocess.mean)) / np.array(preprocess.std)).transpose(0, 3, 1, 2)
    for dtype, tolerance in ((torch.float64, 1e-14), (torch.float32, 1e-6), (torch.bfloat16, 2.0**-8)):
        y = preprocess.normalise(x, dtype)
        assert y.dtype == dtype
        assert y.shape == (4, channels, *shape)
        assert np.abs(y.double().numpy() - truth).max() <= tolerance * max(1, np.abs(truth).max())
    assert torch.equal(preprocess.normalise(x, torch.bfloat16), preprocess.normalise(x).bfloat16())


def test_the_result_is_channels_last_and_the_pixels_are_untouched() -> None:
    x = torch.from_numpy(noise(4, 6, 5, 3))
    before = x.clone()
    y = made((6, 5), "crop").normalise(x)
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(x, before)
    again = x.float()
    assert torch.equal(made((6, 5), "crop").normalise(again), y)
    assert torch.equal(again, before.float())


def test_normalising_first_in_inference_mode_does_not_spoil_training() -> None:
    preprocess = dataclasses.replace(made((3, 3), "crop"), mean=(0.1, 0.2, 0.123456))
    x = torch.from_numpy(noise(2, 3, 3, 3))
    with torch.inference_mode():
        first = preprocess.normalise(x)
    weight = torch.ones(3, 1, 1, requires_grad=True)
    y = preprocess.normalise(x)
    torch.autograd.backward((y * weight).sum())
    assert weight.grad is not None
    assert torch.allclose(weight.grad.flatten(), first.clone().sum((0, 2, 3)))


def test_statistics_are_those_of_the_pixels() -> None:
    pixels = noise(2500, 6, 4, 3)
    pixels[..., 2] //= 4
    found = made((6, 4), "crop").with_statistics(pixels)
    assert np.allclose(found.mean, (pixels / 255).mean((0, 1, 2)), atol=1e-12)
    assert np.allclose(found.std, (pixels / 255).std((0, 1, 2)), atol=1e-12)
    y = found.normalise(torch.from_numpy(pixels), torch.float64)
    assert torch.allclose(y.mean((0, 2, 3)), torch.zeros(3, dtype=torch.float64), atol=1e-9)
    assert torch.allclose(y.std((0, 2, 3), correction=0), torch.ones(3, dtype=torch.float64))


def test_a_flat_set_does_not_divide_by_nothing() -> None:
    found = made((2, 2), "crop", 1).with_statistics(np.full((5, 2, 2, 1), 51, np.uint8))
    assert found.mean == pytest.approx((0.2,))
    assert found.std == (LEAST_STD,)
    with pytest.raises(DataError, match="no pictures"):
        found.with_statistics(np.empty((0, 2, 2, 1), np.uint8))


# ---- on disk


@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(32, 32), (48, 64)])
def test_a_configuration_reads_back_as_it_was(resize: Resize, channels: int, size: tuple[int, int]) -> None:
    one = dataclasses.replace(made(size, resize, channels), mean=(1 / 3,) * channels, std=(0.1,) * channels)
    assert Preprocess.from_config(json.loads(json.dumps(one.to_config()))) == one


def test_hugging_face_would_do_the_same_to_a_cropped_square() -> None:
    """Their processor, by its documentation: shortest edge to a length, centre crop, scale, normalise."""
    one = made((20, 20), "crop")
    config = one.to_config()
    assert config["image_processor_type"] == "CLIPImageProcessor"
    assert (config["do_resize"], config["do_center_crop"], config["do_rescale"], config["do_normalize"]) == (True,) * 4
    photo = np.array(Image.fromarray(noise(9, 12, 3)).resize((180, 120), Image.Resampling.BICUBIC))
    edge = config["size"]["shortest_edge"]
    scaled = Image.fromarray(photo).resize((edge * 180 // 120, edge), config["resample"])
    top, left = ((side - edge) // 2 for side in (scaled.height, scaled.width))
    cut = np.array(scaled.crop((left, top, left + edge, top + edge)))
    theirs = (cut * config["rescale_factor"] - config["image_mean"]) / config["image_std"]
    ours = one.normalise(torch.from_numpy(one.fit(photo)[None]))[0].permute(1, 2, 0).numpy()
    # At the cut, their filter has seen what is then cut off.
    assert np.abs(theirs - ours)[:, 1:-1].max() < 1.01 / (255 * 0.25)


def test_hugging_face_would_do_the_same_to_a_stretched_picture() -> None:
    one = made((20, 30), "stretch")
    config = one.to_config()
    assert config["image_processor_type"] == "ViTImageProcessor"
    photo = noise(50, 40, 3)
    size = config["size"]["width"], config["size"]["height"]
    assert np.array_equal(np.array(Image.fromarray(photo).resize(size, config["resample"])), one.fit(photo))


def test_nobody_is_told_that_a_padded_picture_is_simply_resized() -> None:
    config = made((32, 32), "pad", 1).to_config()
    assert "image_processor_type" not in config
    assert config["do_resize"] is False
    assert config["do_convert_rgb"] is False


GOOD = made((32, 32), "crop").to_config()
STRETCHED = made((32, 32), "stretch").to_config()


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        (None, "expected an object"),
        ([], "expected an object"),
        ({}, "'resize' is missing"),
        ({**GOOD, "resize": "squash"}, "'squash' is no way to resize"),
        ({**GOOD, "resize": 3}, "resize is 3"),
        ({**GOOD, "channels": 2}, "channels 2"),
        ({**GOOD, "channels": True}, "channels is True"),
        ({**GOOD, "channels": "3"}, "channels is '3'"),
        ({**GOOD, "channels": 1}, "expected 1 finite"),
        ({**GOOD, "crop_size": {"height": 32}}, "crop_size"),
        ({**STRETCHED, "size": 32}, "size is 32"),
        ({**STRETCHED, "size": {"height": 32, "width": "32"}}, "whole numbers height and width"),
        ({**STRETCHED, "size": {"height": 0, "width": 32}}, "from 1 to 4096"),
        ({**STRETCHED, "size": {"height": 32, "width": 4097}}, "from 1 to 4096"),
        ({**STRETCHED, "size": {"height": True, "width": 32}}, "whole numbers"),
        ({**GOOD, "image_mean": 0.5}, "image_mean is 0.5"),
        ({**GOOD, "image_mean": [0.5, 0.5]}, "expected 3 finite"),
        ({**GOOD, "image_mean": [0.5, float("nan"), 0.5]}, "finite"),
        ({**GOOD, "image_mean": [0.5, 10**400, 0.5]}, "a float can hold"),
        ({**GOOD, "image_std": [0.5, 0.0, 0.5]}, "above 0"),
        ({**GOOD, "image_std": [0.5, -0.1, 0.5]}, "above 0"),
        ({**GOOD, "image_std": [0.5, "0.1", 0.5]}, "expected numbers"),
        ({**GOOD, "image_std": [0.5, float("inf"), 0.5]}, "finite"),
        ({**GOOD, "rescale_factor": 1}, "rescale_factor"),
        ({**GOOD, "do_rescale": False}, "do_rescale"),
        ({**GOOD, "do_normalize": 1}, "do_normalize"),
        ({**GOOD, "resample": 3}, "resample"),
    ],
)
def test_nonsense_in_a_configuration_is_refused(config: object, complaint: str) -> None:
    with pytest.raises(DataError, match=complaint) as caught:
        Preprocess.from_config(config, "run/preprocessor_config.json")
    assert str(caught.value).startswith("run/preprocessor_config.json: ")


def test_a_preprocessing_that_cannot_be_is_refused_in_code_too() -> None:
    with pytest.raises(DataError, match="4096"):
        made((4097, 10), "crop")
    with pytest.raises(DataError, match="did you mean 'crop'"):
        dataclasses.replace(made((4, 4), "crop"), resize="corp")  # type: ignore[arg-type]
