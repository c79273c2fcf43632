from __future__ import annotations

import io
import os
import pickle
import struct
import subprocess
import sys
import threading
import time
import tracemalloc
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFile

from pellucid.data.decode import FORMATS, MAX_PIXELS, BadImage, decode, decode_reduced, header
from pellucid.errors import DataError

Pixels = NDArray[np.uint8]

#: Formats and settings that keep every pixel.
LOSSLESS: list[tuple[str, dict[str, Any]]] = [
    ("PNG", {}),
    ("BMP", {}),
    ("PPM", {}),
    ("WEBP", {"lossless": True}),
    ("TIFF", {}),
    ("TIFF", {"compression": "tiff_lzw"}),
    ("TIFF", {"compression": "tiff_deflate"}),
]


def noise(height: int = 37, width: int = 53, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def smooth(height: int, width: int, seed: int = 0) -> Pixels:
    """Something like a photograph: no detail finer than eight pixels or so."""
    image = Image.fromarray(noise(height // 16 + 2, width // 16 + 2, seed))
    return np.array(image.resize((width, height), Image.Resampling.BICUBIC))


def saved(pixels: NDArray[Any] | Image.Image, kind: str, **settings: Any) -> bytes:
    buffer = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(buffer, kind, **settings)
    return buffer.getvalue()


def kind_of(raw: bytes) -> str:
    with pytest.raises(BadImage) as caught:
        decode(raw, "a.jpg")
    assert str(caught.value).startswith("a.jpg: ")
    return caught.value.kind


# ---- what is read


@pytest.mark.parametrize(("kind", "settings"), LOSSLESS)
def test_lossless_formats_give_their_pixels_back(kind: str, settings: dict[str, Any]) -> None:
    out = decode(saved(noise(), kind, **settings), "x")
    assert out.dtype == np.uint8
    assert np.array_equal(out, noise())
    assert out.flags.writeable


def test_a_jpeg_is_close() -> None:
    photo = smooth(120, 200)
    out = decode(saved(photo, "JPEG", quality=95), "x").astype(int)
    assert np.abs(out - photo).mean() < 2


def test_a_gif_of_few_colours_is_exact() -> None:
    colours = np.array([[255, 0, 0], [0, 128, 0], [3, 4, 5], [255, 255, 255]], np.uint8)
    pixels = colours[np.random.default_rng(0).integers(0, 4, (20, 30))]
    assert np.array_equal(decode(saved(pixels, "GIF"), "x"), pixels)


def test_grey_and_black_and_white_repeat_in_three_channels() -> None:
    grey = noise()[:, :, 0]
    assert np.array_equal(decode(saved(grey, "PNG"), "x"), np.repeat(grey[:, :, None], 3, 2))
    assert np.array_equal(decode(saved(grey, "PPM"), "x"), np.repeat(grey[:, :, None], 3, 2))
    bits = grey > 127
    for kind in ("PNG", "PPM", "TIFF"):
        assert np.array_equal(decode(saved(bits, kind), "x")[:, :, 0], np.where(bits, 255, 0))


def test_the_bytes_decide_not_the_name() -> None:
    assert np.array_equal(decode(saved(noise(), "PNG"), "photo.jpg"), noise())


def test_cmyk_becomes_rgb() -> None:
    """Without black, each colour is what its ink leaves: R = 255 − C."""
    ink = np.dstack([smooth(64, 64), np.zeros((64, 64), np.uint8)])
    out = decode(saved(Image.fromarray(ink, "CMYK"), "JPEG", quality=97), "x").astype(int)
    assert np.abs(out - (255 - ink[:, :, :3].astype(int))).mean() < 2
    assert np.array_equal(decode(saved(Image.fromarray(ink, "CMYK"), "TIFF"), "x"), 255 - ink[:, :, :3])


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "TIFF"])
def test_of_several_pictures_the_first_counts(kind: str) -> None:
    first, second = (Image.new("RGB", (12, 9), colour) for colour in ("red", "blue"))
    raw = saved(first, kind, save_all=True, append_images=[second], **({"lossless": True} if kind == "WEBP" else {}))
    with Image.open(io.BytesIO(raw)) as image:
        assert getattr(image, "n_frames", 1) == 2
    assert (decode(raw, "x") == [255, 0, 0]).all()


def test_a_stereo_jpeg_counts_as_its_first_picture() -> None:
    first, second = Image.new("RGB", (32, 24), "red"), Image.new("RGB", (32, 24), "blue")
    raw = saved(first, "MPO", save_all=True, append_images=[second], quality=95)
    out = decode(raw, "x")
    assert out.shape == (24, 32, 3)
    assert np.abs(out.astype(int) - [255, 0, 0]).max() < 4
    assert decode_reduced(raw, "x", 6).pixels.shape == (6, 8, 3)


# ---- transparency


def test_transparency_is_laid_on_white() -> None:
    colour, alpha = noise(), noise(seed=1)[:, :, :1]
    out = decode(saved(np.dstack([colour, alpha]), "PNG"), "x").astype(int)
    share = alpha / 255
    assert np.abs(out - (share * colour + (1 - share) * 255)).max() <= 1


def test_grey_with_transparency_is_laid_on_white() -> None:
    pixels = np.array([[[0, 0], [0, 255], [100, 0], [100, 255]]], np.uint8)
    out = decode(saved(Image.fromarray(pixels, "LA"), "PNG"), "x")
    assert out[0, :, 0].tolist() == [255, 0, 255, 100]


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_a_transparent_palette_entry_is_white(kind: str) -> None:
    image = Image.fromarray(np.array([[0, 1, 2, 1]], np.uint8), "P")
    image.putpalette([10, 20, 30, 200, 0, 0, 0, 0, 200])
    out = decode(saved(image, kind, transparency=1), "x")
    assert out[0].tolist() == [[10, 20, 30], [255, 255, 255], [0, 0, 200], [255, 255, 255]]


def test_a_palette_with_several_alphas_is_laid_on_white_without_a_warning() -> None:
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
    image.putpalette([0, 0, 0, 0, 0, 0, 0, 0, 0])
    out = decode(saved(image, "PNG", transparency=bytes([255, 0, 51])), "x")
    assert out[0, :, 0].tolist() == [0, 255, 204]


@pytest.mark.parametrize(("mode", "key"), [("RGB", (7, 8, 9)), ("L", 7), ("I;16", 7 * 257)])
def test_a_transparent_colour_is_white(mode: str, key: Any) -> None:
    pixels: dict[str, NDArray[Any]] = {
        "RGB": np.array([[[7, 8, 9], [9, 8, 7]]], np.uint8),
        "L": np.array([[7, 9]], np.uint8),
        "I;16": np.array([[7 * 257, 9 * 257]], np.uint16),
    }
    out = decode(saved(pixels[mode], "PNG", transparency=key), "x")
    assert out[0, 0].tolist() == [255, 255, 255]
    assert out[0, 1, 0] == 9


# ---- more than eight bits


def tiff(values: bytes, width: int, height: int, bits: int, photometric: int = 1, order: str = "<") -> bytes:
    """A grey TIFF of one strip, written from the specification (TIFF 6.0, 1992)."""
    tags = [
        (256, 4, width), (257, 4, height), (258, 3, bits), (259, 3, 1), (262, 3, photometric),
        (273, 4, 8), (277, 3, 1), (278, 4, height), (279, 4, len(values)), (339, 3, 1),
    ]  # fmt: skip
    entries = b""
    for tag, kind, value in tags:
        packed = struct.pack(order + ("HH" if kind == 3 else "I"), *((value, 0) if kind == 3 else (value,)))
        entries += struct.pack(order + "HHI", tag, kind, 1) + packed
    values += b"\0" * (len(values) % 2)
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8 + len(values))
    return start + values + struct.pack(order + "H", len(tags)) + entries + b"\0\0\0\0"


def test_sixteen_bits_are_scaled_and_not_clipped() -> None:
    exact = np.arange(256, dtype=np.uint16)[None] * 257
    for raw in (saved(exact, "PNG"), saved(exact, "TIFF"), tiff(exact.astype(">u2").tobytes(), 256, 1, 16, order=">")):
        out = decode(raw, "x")
        assert out.shape == (1, 256, 3)
        assert out[0, :, 1].tolist() == list(range(256))
    between = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    out = decode(saved(between, "PNG"), "x")[:, :, 0]
    assert np.array_equal(out, np.floor(between / 257 + 0.5))


def test_a_twelve_bit_tiff_is_scaled_by_its_own_range() -> None:
    values = [0, 4095, 2048, 1000]
    packed = b"".join(
        bytes([a >> 4, (a & 15) << 4 | b >> 8, b & 255]) for a, b in zip(values[::2], values[1::2], strict=True)
    )
    assert decode(tiff(packed, 4, 1, 12), "x")[0, :, 0].tolist() == [0, 255, 128, 62]


def test_white_may_be_zero() -> None:
    values = np.array([[0, 65535, 257 * 10]], "<u2")
    assert decode(tiff(values.tobytes(), 3, 1, 16, photometric=0), "x")[0, :, 0].tolist() == [255, 0, 245]
    assert decode(tiff(bytes([0, 255, 10]), 3, 1, 8, photometric=0), "x")[0, :, 0].tolist() == [255, 0, 245]


@pytest.mark.parametrize("top", [65535, 4095, 1023])
def test_a_pgm_is_scaled_by_the_maximum_it_names(top: int) -> None:
    values = np.array([0, top // 3, top // 2, top])
    raw = b"P5\n4 1\n%d\n" % top + values.astype(">u2").tobytes()
    assert decode(raw, "x")[0, :, 0].tolist() == np.floor(values * 255 / top + 0.5).tolist()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 0.25, 0.5, 1], [0, 64, 128, 255]),
        ([0, 1, 128, 255], [0, 1, 128, 255]),
        ([0, 257, 2570, 65535], [0, 1, 10, 255]),
        ([-1, 0, 0, 1], [0, 128, 128, 255]),
        ([0, 1e6, 5e5, 2e5], [0, 255, 128, 51]),
        ([np.nan, np.inf, 0.5, 1], [0, 0, 128, 255]),
        ([-3, -3, -3, -3], [0, 0, 0, 0]),
        ([np.nan, np.nan, np.nan, np.nan], [0, 0, 0, 0]),
    ],
)
def test_floating_point_is_scaled_by_its_range(values: list[float], expected: list[int]) -> None:
    assert decode(saved(np.array([values], np.float32), "TIFF"), "x")[0, :, 0].tolist() == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 1, 128, 255], [0, 1, 128, 255]),
        ([0, 257, 2570, 65535], [0, 1, 10, 255]),
        ([-100, 0, 100, 0], [0, 128, 255, 128]),
        ([0, 1_000_000, 500_000, 200_000], [0, 255, 128, 51]),
    ],
)
def test_whole_numbers_of_32_bits_are_scaled_by_their_range(values: list[int], expected: list[int]) -> None:
    assert decode(saved(np.array([values], np.int32), "TIFF"), "x")[0, :, 0].tolist() == expected


def test_colour_of_sixteen_bits_gives_the_upper_eight() -> None:
    rows = b"".join(b"\0" + struct.pack(">3H", v, 65535 - v, v) for v in (0, 0x1234, 0xFFFF))
    raw = png((1, 3), rows, depth=16, colour=2)
    assert decode(raw, "x")[:, 0, :2].tolist() == [[0, 255], [0x12, 0xED], [255, 0]]


def png(size: tuple[int, int], rows: bytes, depth: int = 8, colour: int = 2) -> bytes:
    """A PNG from its unpacked rows, chunk by chunk (RFC 2083); `size` is width, height."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = struct.pack(">2I5B", *size, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


# ---- EXIF orientation


def as_seen(stored: Pixels, orientation: int) -> Pixels:
    """EXIF 2.32, tag 0x0112: which side of the seen picture the stored rows begin at, and which the columns."""
    rows_at, columns_at = {
        1: ("top", "left"), 2: ("top", "right"), 3: ("bottom", "right"), 4: ("bottom", "left"),
        5: ("left", "top"), 6: ("right", "top"), 7: ("right", "bottom"), 8: ("left", "bottom"),
    }[orientation]  # fmt: skip
    height, width = stored.shape[:2]
    tall, wide = (width, height) if rows_at in {"left", "right"} else (height, width)
    seen = np.empty((tall, wide, 3), np.uint8)
    for r in range(height):
        for c in range(width):
            place = {rows_at: r, columns_at: c}
            y = place["top"] if "top" in place else tall - 1 - place["bottom"]
            x = place["left"] if "left" in place else wide - 1 - place["right"]
            seen[y, x] = stored[r, c]
    return seen


def with_orientation(pixels: Pixels, kind: str, orientation: Any, **settings: Any) -> bytes:
    image = Image.fromarray(pixels)
    if kind == "TIFF":
        return saved(image, kind, tiffinfo={274: orientation}, **settings)
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved(image, kind, exif=exif, **settings)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("kind", "settings"),
    [("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"})],
)
def test_a_picture_on_its_side_is_stood_up(
    kind: str, settings: dict[str, Any], orientation: int, tmp_path: Path
) -> None:
    stored = noise(7, 11)
    raw = with_orientation(stored, kind, orientation, **settings)
    seen = as_seen(stored, orientation)
    assert np.array_equal(decode(raw, "x"), seen)
    (tmp_path / "a").write_bytes(raw)
    found = header(tmp_path / "a")
    assert (found.height, found.width) == seen.shape[:2]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_jpeg_on_its_side_is_stood_up_at_any_scale(orientation: int, tmp_path: Path) -> None:
    photo = smooth(128, 192)
    raw = with_orientation(photo, "JPEG", orientation, quality=95)
    seen = as_seen(decode(saved(photo, "JPEG", quality=95), "x"), orientation)
    assert np.array_equal(decode(raw, "x"), seen)
    small = decode_reduced(raw, "x", 64).pixels
    assert small.shape == (seen.shape[0] // 2, seen.shape[1] // 2, 3)
    halved = seen.reshape(small.shape[0], 2, small.shape[1], 2, 3).mean((1, 3))
    assert np.abs(small - halved).mean() < 2
    (tmp_path / "a.jpg").write_bytes(raw)
    assert header(tmp_path / "a.jpg").width == seen.shape[1]


@pytest.mark.parametrize("orientation", [0, 9, 300])
def test_an_orientation_that_does_not_exist_changes_nothing(orientation: int) -> None:
    assert np.array_equal(decode(with_orientation(noise(), "PNG", orientation), "x"), noise())


def test_damaged_exif_takes_nothing_from_the_picture() -> None:
    raw = saved(noise(), "PNG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\xff" * 40)
    assert np.array_equal(decode(raw, "x"), noise())


# ---- reduced JPEGs


@pytest.mark.parametrize(
    ("size", "at_least", "expected", "inner"),
    [
        ((800, 1200), 100, (100, 150), (100, 150)),
        ((800, 1200), 101, (200, 300), (200, 300)),
        ((800, 1200), 401, (800, 1200), (800, 1200)),
        ((800, 1200), 3000, (800, 1200), (800, 1200)),
        ((277, 320), 32, (35, 40), (34.625, 40)),
        ((3999, 1601), 400, (1000, 401), (999.75, 400.25)),
    ],
)
def test_a_jpeg_is_reduced_as_far_as_asked_and_keeps_its_proportions(
    size: tuple[int, int], at_least: int, expected: tuple[int, int], inner: tuple[float, float]
) -> None:
    found = decode_reduced(saved(Image.new("RGB", size[::-1], "teal"), "JPEG"), "x", at_least)
    assert found.pixels.shape[:2] == expected
    assert found.box == (0.0, 0.0, inner[1], inner[0])
    assert (found.header.height, found.header.width) == size


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_margin_of_a_reduced_picture_turns_with_it(orientation: int) -> None:
    """65 rows fill 8⅛ of 9: what is left of the ninth is no picture, and stands where EXIF puts it."""
    down, across = np.linspace(0, 255, 65)[:, None, None], np.linspace(255, 0, 73)[None, :, None]
    photo = np.concatenate(np.broadcast_arrays(down, across, 128 + 0 * down), axis=2).astype(np.uint8)
    found = decode_reduced(with_orientation(photo, "JPEG", orientation, quality=97), "x", 8)
    assert (found.header.height, found.header.width) == as_seen(photo, orientation).shape[:2]
    # Each quarter of the box shows what the same quarter of the whole picture does.
    whole = quarters(as_seen(photo, orientation), None)
    assert np.abs(quarters(found.pixels, found.box) - whole).max() <= 7
    wrong = (0.0, 0.0, found.box[2] - found.box[0], found.box[3] - found.box[1])
    assert wrong == found.box or np.abs(quarters(found.pixels, wrong) - whole).max() > 14


def quarters(pixels: Pixels, box: tuple[float, float, float, float] | None) -> NDArray[np.int64]:
    return np.array(Image.fromarray(pixels).resize((2, 2), Image.Resampling.BILINEAR, box=box)).astype(np.int64)


def test_only_jpegs_are_reduced() -> None:
    found = decode_reduced(saved(noise(256, 256), "PNG"), "x", 8)
    assert found.pixels.shape[:2] == (256, 256)
    assert found.box == (0, 0, 256, 256)


# ---- what is refused


def test_a_refusal_says_which_picture_and_what_to_do() -> None:
    with pytest.raises(
        BadImage, match=r"^roses/b\.jpg: the file is empty \(0 bytes\): copy it again, or take it away$"
    ):
        decode(b"", "roses/b.jpg")
    error = BadImage("truncated", "a.png", "cut")
    assert isinstance(error, DataError)
    assert error.exit_code == 3
    again = pickle.loads(pickle.dumps(error))
    assert (again.kind, again.name, again.detail, str(again)) == ("truncated", "a.png", "cut", "a.png: cut")


@pytest.mark.parametrize(
    ("raw", "hint"),
    [
        (b"hello, world\n", "JPEG, PNG, BMP"),
        (b"\0" * 1000, "JPEG, PNG, BMP"),
        (b"%PDF-1.7 ...", "PDF"),
        (b"PK\x03\x04....", "ZIP"),
        (b"\n<!DOCTYPE html><html>", "web page"),
        (b"<svg xmlns='x'/>", "SVG"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC"),
    ],
)
def test_what_is_no_picture_is_named_for_what_it_is(raw: bytes, hint: str) -> None:
    with pytest.raises(BadImage, match=hint) as caught:
        decode(raw, "x")
    assert caught.value.kind == "not-an-image"


@pytest.mark.parametrize("kind", ["ICO", "TGA", "JPEG2000", "EPS", "PDF"])
def test_other_formats_are_not_opened(kind: str) -> None:
    assert kind_of(saved(noise(32, 32), kind)) == "not-an-image"


ENCODINGS: list[tuple[str, dict[str, Any]]] = [*LOSSLESS, ("JPEG", {}), ("JPEG", {"progressive": True}), ("GIF", {})]


@pytest.mark.parametrize("lenient", [False, True])
@pytest.mark.parametrize(("kind", "settings"), ENCODINGS)
def test_a_file_that_ends_early_is_never_half_a_picture(
    kind: str, settings: dict[str, Any], lenient: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", lenient)
    raw = saved(smooth(96, 128), kind, **settings)
    whole = decode(raw, "x")
    kinds = []
    for cut in np.linspace(1, len(raw) - 1, 60).astype(int):
        try:
            # What follows the pixels may go (the closing byte of a GIF).
            assert np.array_equal(decode(raw[:cut], "x"), whole)
        except BadImage as error:
            kinds.append(error.kind)
    assert len(kinds) >= 58
    # Cut within the first bytes, nobody can tell what it was to be.
    assert kinds.count("truncated") >= 57
    assert set(kinds) <= {"truncated", "not-an-image"}
    assert ImageFile.LOAD_TRUNCATED_IMAGES is lenient


def test_a_jpeg_filled_up_with_zeros_is_truncated() -> None:
    raw = saved(smooth(200, 300), "JPEG", quality=90)
    filled = raw[: len(raw) // 2] + b"\0" * 100_000
    Image.open(io.BytesIO(filled)).load()  # Pillow takes the zeros for pixels
    assert kind_of(filled) == "truncated"


def test_a_jpeg_with_something_after_its_end_is_whole() -> None:
    raw = saved(smooth(64, 64), "JPEG")
    junk = np.random.default_rng(0).bytes(5000) + b"\xff\xda"
    assert np.array_equal(decode(raw + junk, "x"), decode(raw, "x"))


def test_a_damaged_tiff_is_refused_without_a_word_on_stderr() -> None:
    """Pillow logs an error here, which Python prints where no logging is set up."""
    raw = bytearray(tiff(bytes(64), 8, 8, 8))
    entry = raw.index(struct.pack("<HHIH", 277, 3, 1, 1))
    raw[entry + 8 : entry + 10] = struct.pack("<H", 2048)
    code = (
        "import sys; from pellucid.data.decode import BadImage, decode\n"
        "try: decode(sys.stdin.buffer.read(), 'x')\n"
        "except BadImage: print('refused')"
    )
    ran = subprocess.run([sys.executable, "-c", code], input=bytes(raw), capture_output=True, check=True)
    assert (ran.stdout.strip(), ran.stderr) == (b"refused", b"")


def test_damage_inside_a_png_is_found() -> None:
    raw = bytearray(saved(noise(), "PNG"))
    raw[len(raw) // 2] ^= 0xFF
    assert kind_of(bytes(raw)) in {"unreadable", "truncated"}


@pytest.mark.parametrize("limit", [None, 89_478_485, 10**12])
@pytest.mark.parametrize("side", [10_001, 13_000, 60_000])
def test_giants_are_refused_from_their_header(
    side: int, limit: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever Pillow's own limit is, without its warning, and without decoding."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    raw = png((side, side), b"")
    start = time.perf_counter()
    assert kind_of(raw) == "too-large"
    (tmp_path / "a.png").write_bytes(raw)
    with pytest.raises(BadImage, match="100,000,000") as caught:
        header(tmp_path / "a.png")
    assert caught.value.kind == "too-large"
    assert time.perf_counter() - start < 1
    assert side**2 > MAX_PIXELS


def test_a_large_picture_below_the_limit_is_no_warning(tmp_path: Path) -> None:
    """Pillow warns above 89 million pixels; the limit here is 100 million."""
    (tmp_path / "a.png").write_bytes(png((9990, 9990), b""))
    assert header(tmp_path / "a.png").width == 9990


@pytest.mark.parametrize(("kind", "settings"), ENCODINGS)
def test_damage_gives_a_picture_or_a_refusal_and_nothing_else(kind: str, settings: dict[str, Any]) -> None:
    generator = np.random.default_rng(len(kind))
    raw = saved(smooth(24, 32), kind, **settings)
    outcomes = set()
    for _ in range(150):
        damaged = bytearray(raw)
        for place in generator.integers(0, min(len(raw), 400), 4):
            damaged[place] = generator.integers(0, 256)
        try:
            out = decode_reduced(bytes(damaged), "x", int(generator.choice([1, 1000]))).pixels
            assert out.dtype == np.uint8
            assert out.ndim == 3
            assert out.shape[2] == 3
            outcomes.add("picture")
        except BadImage as error:
            outcomes.add(error.kind)
    assert len(outcomes) > 1


# ---- headers


@pytest.mark.parametrize(
    ("image", "kind", "grey"),
    [
        (Image.new("L", (5, 4)), "PNG", True),
        (Image.new("1", (5, 4)), "PNG", True),
        (Image.new("I;16", (5, 4)), "PNG", True),
        (Image.new("LA", (5, 4)), "PNG", True),
        (Image.new("L", (5, 4)), "JPEG", True),
        (Image.new("L", (5, 4)), "PPM", True),
        (Image.new("L", (5, 4)), "GIF", True),
        (Image.new("F", (5, 4)), "TIFF", True),
        (Image.new("RGB", (5, 4)), "PNG", False),
        (Image.new("RGB", (5, 4)), "JPEG", False),
        (Image.new("RGBA", (5, 4)), "PNG", False),
        (Image.new("CMYK", (5, 4)), "JPEG", False),
        (Image.new("L", (5, 4)).convert("P"), "PNG", True),
        (Image.new("L", (5, 4)).convert("P"), "BMP", True),
        (Image.new("RGB", (5, 4), "red").convert("P"), "BMP", False),
        (Image.new("RGB", (5, 4), "red").convert("P"), "GIF", False),
        (Image.new("RGB", (5, 4), "red").convert("P"), "PNG", False),
    ],
)
def test_a_header_tells_size_and_whether_it_is_grey(image: Image.Image, kind: str, grey: bool, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(saved(image, kind))
    found = header(tmp_path / "a")
    assert (found.width, found.height, found.grey) == (5, 4, grey)


def test_a_header_is_read_without_decoding(tmp_path: Path) -> None:
    for kind, settings in ENCODINGS:
        raw = saved(noise(300, 300), kind, **settings)
        if kind == "WEBP" or "compression" in settings:
            continue  # these keep what is needed in other places than the beginning
        (tmp_path / "a").write_bytes(raw[: len(raw) // 2] if kind != "TIFF" else raw)
        assert header(tmp_path / "a").width == 300


@pytest.mark.parametrize(
    ("raw", "kind"), [(b"", "empty"), (b"hello", "not-an-image"), (saved(noise(), "PNG")[:20], "truncated")]
)
def test_a_bad_header_is_refused_as_a_bad_picture_is(raw: bytes, kind: str, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(raw)
    with pytest.raises(BadImage, match=r"^daisy/a\.png: ") as caught:
        header(tmp_path / "a.png", "daisy/a.png")
    assert caught.value.kind == kind


def test_a_missing_file_is_unreadable(tmp_path: Path) -> None:
    with pytest.raises(BadImage, match="No such file") as caught:
        header(tmp_path / "gone.png")
    assert caught.value.kind == "unreadable"
    with pytest.raises(BadImage, match="cannot be read"):
        header(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes among files here")
def test_a_pipe_is_no_picture_and_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(BadImage, match="it is no file") as caught:
        header(tmp_path / "pipe.jpg")
    assert caught.value.kind == "unreadable"


# ---- threads


def test_pillow_is_left_as_it_was_found() -> None:
    """Warnings and the lenient switch are the process's: they must survive many threads leaving in any order."""
    before = list(warnings.filters), ImageFile.LOAD_TRUNCATED_IMAGES
    good, cut = saved(smooth(64, 64), "JPEG"), saved(noise(), "TIFF")[:-30]

    def one(n: int) -> None:
        if n % 2:
            decode(good, "x")
        else:
            with pytest.raises(BadImage):
                decode(cut, "x")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one, range(400)))
    assert (list(warnings.filters), ImageFile.LOAD_TRUNCATED_IMAGES) == before


def test_other_warnings_are_heard_while_a_picture_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    inside, go_on = threading.Event(), threading.Event()
    load: Callable[..., Any] = ImageFile.ImageFile.load

    def slow(self: Any) -> Any:
        inside.set()
        go_on.wait(5)
        return load(self)

    monkeypatch.setattr(ImageFile.ImageFile, "load", slow)
    worker = threading.Thread(target=decode, args=(saved(noise(), "BMP"), "x"))
    worker.start()
    assert inside.wait(5)
    try:
        with pytest.raises(UserWarning, match="ours"):
            warnings.warn("ours", UserWarning, stacklevel=1)
    finally:
        go_on.set()
        worker.join()


def test_real_photographs_decode(real_data: Callable[[str], Path]) -> None:
    files = sorted(real_data("flower-photos-small").rglob("*.jpg"))
    assert len(files) == 400
    for file in files[::8]:
        found = header(file)
        assert decode(file.read_bytes(), file.name).shape == (found.height, found.width, 3)
        assert not found.grey


def test_the_formats_are_those_promised() -> None:
    assert set(FORMATS) == {"JPEG", "PNG", "BMP", "WEBP", "GIF", "TIFF", "PPM"}


def test_a_side_longer_than_any_jpegs_is_refused() -> None:
    raw = saved(np.zeros((1, 65_536), np.uint8), "PNG")
    with pytest.raises(BadImage, match=r"65,536×1 pixels, and a side of 65,535 is the most that is decoded: scale it"):
        decode(raw, "long.png")
    assert decode(saved(np.zeros((1, 65_535), np.uint8), "PNG"), "it").shape == (1, 65_535, 3)


def test_a_ppm_of_comments_takes_no_longer_than_its_bytes() -> None:
    body = b" ".join(b"%d" % n for n in range(48))
    slow = b"P3\n4 # four\n4\n255\n" + b"#\n" * 1_000_000 + body
    begun = time.perf_counter()
    assert np.array_equal(decode(slow, "it").ravel(), np.arange(48))
    # Pillow alone takes a minute for each megabyte of them.
    assert time.perf_counter() - begun < 5


def test_sixteen_bits_of_grey_take_memory_by_the_row() -> None:
    x = np.arange(4_000_000, dtype=np.uint32).astype(np.uint16).reshape(2000, 2000)
    raw = saved(x, "PNG")
    tracemalloc.start()
    y = decode(raw, "it")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert np.array_equal(y[..., 0], np.floor(x * (255 / 65535) + 0.5).astype(np.uint8))
    # float64 of the whole took eight bytes a pixel three times over.
    assert peak < 20 * x.size


def test_a_name_that_no_file_can_have_is_refused() -> None:
    for name in ("a\0b.jpg", "\ud800.jpg"):
        with pytest.raises(BadImage, match="no file can have such a name"):
            header(name)
