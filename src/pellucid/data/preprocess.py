"""What is done to every picture before a network sees it: one object for training, evaluation, prediction and export.

Two steps. `Preprocess.pixels` (or `fit`, from decoded pixels) makes a uint8 picture of the network's size and number of
channels; `Preprocess.normalise` makes numbers of it. In a bundle the object is `preprocessor_config.json`, in Hugging
Face's keys.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from pellucid.data.decode import Reduced, decode_reduced
from pellucid.errors import DataError, did_you_mean
from pellucid.recipe import Resize

#: The largest side a network is shown.
MAX_SIDE = 4096

#: How many times the network's side a JPEG's shorter side has after a reduced decoding, at least. At twice the side
#: photographs differ by 0.4 grey levels on average from those decoded whole, at 1.4 by 0.8, and it takes half the time.
DECODED = 1.4

#: The least side that a JPEG is decoded at, whatever the network's.
LEAST_DECODED = 32

#: The least standard deviation that is divided by: one grey level.
LEAST_STD = 1 / 255

#: The 256 values of a pixel, and their squares: counts of the values times this are the sums of both.
POWERS = np.stack([np.arange(256), np.arange(256) ** 2], axis=1)

# Pillow's number for it, which is also the number Hugging Face writes down.
_BILINEAR = int(Image.Resampling.BILINEAR)


@dataclass(frozen=True, slots=True)
class Preprocess:
    """How a picture becomes a network's input."""

    size: tuple[int, int]
    """Height and width of the input, in pixels."""
    resize: Resize
    """`crop`: scale until the picture just covers the size, and keep the middle. `stretch`: scale both sides to it.
    `pad`: scale down if need be, never up, and centre on black (as LeCun's 28×28 digits stand in 32×32)."""
    channels: Literal[1, 3]
    """1: grey (ITU-R 601 luma of a colour picture). 3: RGB (a grey picture repeated)."""
    mean: tuple[float, ...]
    """One number a channel, taken off after scaling to 0…1."""
    std: tuple[float, ...]
    """One number a channel, divided by after that."""

    def __post_init__(self) -> None:
        """Refuse what cannot be, with a DataError."""
        sides: tuple[int, ...] = self.size
        if len(sides) != 2 or not all(_is_whole(side) and 1 <= side <= MAX_SIDE for side in sides):
            raise DataError(f"preprocessing: size {self.size}: expected height and width from 1 to {MAX_SIDE}")
        if self.resize not in get_args(Resize):
            raise DataError(
                f"preprocessing: resize {self.resize!r}: {did_you_mean(str(self.resize), get_args(Resize))}"
            )
        if not _is_whole(self.channels) or self.channels not in {1, 3}:
            raise DataError(f"preprocessing: channels {self.channels!r}: expected 1 (grey) or 3 (RGB)")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != self.channels or not all(math.isfinite(value) for value in values):
                raise DataError(
                    f"preprocessing: {name} {values}: expected {self.channels} finite numbers, one a channel"
                )
        if min(self.std) <= 0:
            raise DataError(f"preprocessing: std {self.std}: is divided by, so every one must be above 0")

    def pixels(self, raw: bytes, name: str) -> NDArray[np.uint8]:
        """A picture file's bytes as the network sees them before normalisation: uint8 H×W×C.

        A large JPEG is decoded at a reduced scale that is still well above the size needed, so that its pixels differ
        a little from `fit(decode(raw))`: in photographs by about one grey level on average. Raises BadImage, which
        calls the picture `name`.
        """
        return self.fit_reduced(self.decoded(raw, name))

    def decoded(self, raw: bytes, name: str) -> Reduced:
        """A picture file's bytes decoded as far as this size needs, for `fit_reduced`. Raises BadImage."""
        return decode_reduced(raw, name, max(LEAST_DECODED, math.ceil(DECODED * max(self.size))))

    def fit_reduced(self, found: Reduced) -> NDArray[np.uint8]:
        """What `decoded` gave, at the network's size: uint8 H×W×C."""
        if self.channels == 3 and self.resize == "crop" and found.image.size != self.size[::-1]:
            # The usual case without turning the picture into an array and back.
            return np.array(_scaled(found.image, self.size, _covering(found.box, self.size)))
        return self._fitted(found.pixels, found.box)

    def fit(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A decoded picture (H×W×3 RGB, H×W×1 or H×W grey, uint8) at the network's size: uint8 H×W×C.

        Bilinear, with as wide a filter as a reduction needs (no aliasing).
        """
        height, width = image.shape[:2]
        return self._fitted(image[:, :, None] if image.ndim == 2 else image, (0, 0, width, height))

    def _fitted(self, image: NDArray[np.uint8], box: tuple[float, float, float, float]) -> NDArray[np.uint8]:
        """The part of a picture in the box (left, top, right, bottom) at the network's size."""
        x_hwc = _in_channels(image, self.channels)
        left, top, right, bottom = box
        width, height = right - left, bottom - top
        H, W = self.size
        if self.resize == "pad":
            scale = min(H / height, W / width, 1.0)
            inner = (max(1, round(height * scale)), max(1, round(width * scale)))
            padded_hwc: NDArray[np.uint8] = _padded(_resampled(x_hwc, inner, box)[None], self.size)[0]
            return padded_hwc
        if self.resize == "stretch":
            return _resampled(x_hwc, self.size, box)
        scale = max(H / height, W / width)
        if scale == 1 and (height, width) == x_hwc.shape[:2]:
            # A cut between whole pixels; resampling would smear an odd remainder over its neighbours.
            y, x = int(height - H) // 2, int(width - W) // 2
            return np.ascontiguousarray(x_hwc[y : y + H, x : x + W])
        return _resampled(x_hwc, self.size, _covering(box, self.size))

    def fit_batch(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Many decoded pictures of one size at once: uint8 N×h×w×c to N×H×W×C, each as `fit` gives it."""
        x_nhwc = _in_channels(images, self.channels)
        N, height, width, C = x_nhwc.shape
        H, W = self.size
        if (height, width) == (H, W):
            return np.ascontiguousarray(x_nhwc)
        if self.resize == "pad" and height <= H and width <= W:
            return _padded(x_nhwc, self.size)
        y_nhwc: NDArray[np.uint8] = np.empty((N, H, W, C), np.uint8)

        def part(start: int) -> None:
            for n in range(start, min(start + 256, N)):
                y_nhwc[n] = self.fit(x_nhwc[n])

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(part, range(0, N, 256)))
        return y_nhwc

    def normalise(self, x_nhwc: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """The network's input (x/255 − mean)/std: uint8 N×H×W×C to `dtype` N×C×H×W, on the same device.

        The memory stays in NHWC order (torch's channels_last). Computed as one multiplication and one addition in
        float32 (float64 where that is asked for), then rounded to `dtype`.
        """
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        N, H, W, C = x_nhwc.shape
        # Whole rows, with the channels' numbers repeated along them: eight times as fast as steps of three.
        scale, shift = _affine(self.mean, self.std, W, wide, x_nhwc.device)
        y = x_nhwc.reshape(N, H, W * C).to(wide, copy=True).mul_(scale).add_(shift)
        return y.to(dtype).view(N, H, W, C).permute(0, 3, 1, 2)

    def with_statistics(self, pixels: NDArray[np.uint8]) -> Preprocess:
        """This, with mean and standard deviation of a sample of what `fit` gives (uint8 N×H×W×C).

        They are exact. A deviation below one grey level counts as one.
        """
        if len(pixels) == 0:
            raise DataError("preprocessing: no pictures to take mean and deviation from: give at least one")
        sums = np.zeros((self.channels, 2), np.int64)
        for c in range(self.channels):
            for start in range(0, len(pixels), 1024):  # bincount makes 8 bytes of each
                counts = np.bincount(pixels[start : start + 1024, :, :, c].ravel(), minlength=256)
                sums[c] += counts @ POWERS
        return self.with_sums(sums, len(pixels))

    def with_sums(self, sums: NDArray[np.int64], pictures: int) -> Preprocess:
        """As `with_statistics`, from the sums of all pixels and of their squares: whole numbers, (channels, 2)."""
        n = pictures * self.size[0] * self.size[1]
        mean, std = [], []
        for first, second in sums.tolist():
            mean.append(first / (255 * n))
            # Python's whole numbers are of any length: nothing is rounded before the root.
            std.append(max(LEAST_STD, math.sqrt((n * second - first * first) / (255 * n) ** 2)))
        return dataclasses.replace(self, mean=tuple(mean), std=tuple(std))

    def to_config(self) -> dict[str, Any]:
        """The contents of `preprocessor_config.json`: Hugging Face's keys, and the two of ours that decide.

        Hugging Face has a processor that does the same for a cropped square (CLIP's) and a stretched picture (ViT's),
        and none for a padded one, so that no `image_processor_type` is claimed there.
        """
        H, W = self.size
        sides = {"height": H, "width": W}
        config: dict[str, Any] = {"do_resize": self.resize != "pad", "size": sides, "resample": _BILINEAR}
        if self.resize == "stretch":
            config["image_processor_type"] = "ViTImageProcessor"
        elif self.resize == "crop" and H == W:
            config["image_processor_type"] = "CLIPImageProcessor"
            config |= {"size": {"shortest_edge": H}, "do_center_crop": True, "crop_size": sides}
        elif self.resize == "pad":
            config |= {"do_pad": True, "pad_size": sides}
        return config | {
            "do_convert_rgb": self.channels == 3,
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": list(self.mean),
            "image_std": list(self.std),
            "resize": self.resize,
            "channels": self.channels,
        }

    @classmethod
    def from_config(cls, config: object, place: str = "preprocessor_config.json") -> Preprocess:
        """Read what `to_config` wrote; `place` names the file in messages.

        Raises DataError for what is missing, of the wrong type or out of range, and for settings of Hugging Face's
        that `to_config` never writes (another filter, another scale), since they would be ignored here.
        """
        if not isinstance(config, Mapping):
            raise DataError(f"{place}: expected an object with preprocessing settings, found {config!r:.60}")
        fixed = {"resample": _BILINEAR, "do_rescale": True, "do_normalize": True, "rescale_factor": 1 / 255}
        for key, value in fixed.items():
            found = config.get(key, value)
            if isinstance(found, bool) != isinstance(value, bool) or found != value:
                raise DataError(f"{place}: {key} is {found!r:.60}, and only {value!r} is understood: mend it")
        resize, channels = _setting(config, "resize", str, place), _setting(config, "channels", int, place)
        if resize not in get_args(Resize):
            raise DataError(f"{place}: resize {resize!r} is no way to resize: {did_you_mean(resize, get_args(Resize))}")
        size = _size(config, place)
        mean, std = (_numbers(_setting(config, key, list, place), key, place) for key in ("image_mean", "image_std"))
        try:
            return cls(size, resize, channels, mean, std)
        except DataError as error:
            raise DataError(f"{place}: {error}") from error


@functools.lru_cache(maxsize=64)
def _affine(
    mean: tuple[float, ...], std: tuple[float, ...], width: int, dtype: torch.dtype, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale and shift of a row of pixels, kept on the device: making them anew would stop a GPU's queue each step."""
    # Whoever asks first may be in inference mode, and such a tensor could not be used in training.
    with torch.inference_mode(False):
        scale = [1 / (255 * s) for s in std]
        shift = [-m / s for m, s in zip(mean, std, strict=True)]
        row = torch.tensor([scale * width, shift * width], dtype=dtype, device=device)
        return row[0], row[1]


def _in_channels(x: NDArray[np.uint8], channels: int) -> NDArray[np.uint8]:
    """…×1 or …×3 pixels with 1 or 3 channels."""
    if x.shape[-1] == channels:
        return x
    if channels == 3:
        return np.repeat(x, 3, axis=-1)
    y = np.empty((*x.shape[:-1], 1), np.uint8)
    for n in range(0, len(x), 1024):  # in parts: on its way, it takes twelve times the memory
        red, green, blue = (x[n : n + 1024, ..., c].astype(np.uint32) for c in range(3))
        # ITU-R 601 luma in 16-bit fixed point, to the bit as Pillow's conversion to "L".
        y[n : n + 1024, ..., 0] = (19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16
    return y


def _covering(box: tuple[float, float, float, float], size: tuple[int, int]) -> tuple[float, float, float, float]:
    """The middle of a box (left, top, right, bottom), as much of it as has the proportions of `size`."""
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    scale = max(size[0] / height, size[1] / width)
    seen_h, seen_w = min(size[0] / scale, height), min(size[1] / scale, width)
    left, top = left + (width - seen_w) / 2, top + (height - seen_h) / 2
    return left, top, left + seen_w, top + seen_h


def _scaled(image: Image.Image, size: tuple[int, int], box: tuple[float, float, float, float]) -> Image.Image:
    left, top, right, bottom = box
    # Sums of fractions may end a last bit beyond the edge, which Pillow refuses.
    box = (max(0.0, left), max(0.0, top), min(float(image.width), right), min(float(image.height), bottom))
    return image.resize(size[::-1], Image.Resampling.BILINEAR, box=box)


def _resampled(
    x_hwc: NDArray[np.uint8], size: tuple[int, int], box: tuple[float, float, float, float]
) -> NDArray[np.uint8]:
    """The part of the picture in `box` (left, top, right, bottom) at another size."""
    height, width = x_hwc.shape[:2]
    if (height, width) == size and box == (0.0, 0.0, float(width), float(height)):
        return np.ascontiguousarray(x_hwc)
    image = Image.fromarray(x_hwc[:, :, 0] if x_hwc.shape[2] == 1 else x_hwc)
    y = np.array(_scaled(image, size, box))
    return y[:, :, None] if y.ndim == 2 else y


def _padded(x_nhwc: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """The pictures centred on black; an odd remainder goes to the right and below."""
    N, height, width, C = x_nhwc.shape
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    y_nhwc = np.zeros((N, *size, C), np.uint8)
    y_nhwc[:, top : top + height, left : left + width] = x_nhwc
    return y_nhwc


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _setting(config: Mapping[str, Any], key: str, kind: type, place: str) -> Any:
    if key not in config:
        raise DataError(f"{place}: {key!r} is missing: write the file anew with pellucid, or take it from the bundle")
    value = config[key]
    if not isinstance(value, kind) or isinstance(value, bool):
        raise DataError(f"{place}: {key} is {value!r:.60}: expected {kind.__name__}")
    return value


def _size(config: Mapping[str, Any], place: str) -> tuple[int, int]:
    key = "crop_size" if config.get("resize") == "crop" and "crop_size" in config else "size"
    sides = _setting(config, key, dict, place)
    if not all(_is_whole(sides.get(side)) for side in ("height", "width")):
        raise DataError(f"{place}: {key} is {sides!r:.60}: expected whole numbers height and width")
    return sides["height"], sides["width"]


def _numbers(values: list[Any], key: str, place: str) -> tuple[float, ...]:
    if not all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values):
        raise DataError(f"{place}: {key} is {values!r:.60}: expected numbers")
    try:
        return tuple(float(value) for value in values)
    except OverflowError as error:
        raise DataError(f"{place}: {key} is {values!r:.60}: expected numbers that a float can hold") from error
