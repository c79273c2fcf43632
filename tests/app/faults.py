"""Forty faults, planted into a copy of real photographs, each with what has to be said of it."""

from __future__ import annotations

import io
import os
import shutil
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageEnhance


class Fault(NamedTuple):
    """A fault as planted."""

    file: str
    """Relative to the data."""
    kind: str
    other: str = ""
    """The picture it was made of, where it is the same as another."""


def plant(clean: Path, folder: Path) -> list[Fault]:
    """Copy the photographs and plant the faults; they are returned."""
    shutil.copytree(clean, folder, copy_function=shutil.copyfile)
    photos = {
        (split, label): sorted(path.relative_to(folder).as_posix() for path in (folder / split / label).iterdir())
        for split in ("train", "val")
        for label in ("daisy", "dandelion", "roses", "sunflowers", "tulips")
    }
    return [
        *_broken(folder, photos),
        *_strangers(folder, photos),
        *_doubles(folder, photos),
        *_classes(folder, photos),
    ]


def _broken(root: Path, photos: dict[tuple[str, str], list[str]]) -> list[Fault]:
    """Files of the right kind that are damaged: spoiled where they stand, so that their class has one fewer."""
    faults = []
    jpegs = [photos["train", "daisy"][0], photos["train", "roses"][3], photos["val", "tulips"][2]]
    for n, name in enumerate(jpegs):
        raw = (root / name).read_bytes()
        (root / name).write_bytes(raw[: len(raw) * (n + 1) // 4])
        faults.append(Fault(name, "truncated"))
    # An interrupted copy, filled up with zeros.
    name = photos["train", "tulips"][5]
    raw = (root / name).read_bytes()
    (root / name).write_bytes(raw[: len(raw) // 2] + bytes(len(raw) - len(raw) // 2))
    faults.append(Fault(name, "truncated"))
    with Image.open(root / photos["train", "daisy"][1]) as image:
        png = _saved(image, "PNG")
        gif = _saved(image.convert("P"), "GIF")
    faults += _added(root, "train/daisy/half.png", png[: len(png) // 2], "truncated")
    faults += _added(root, "train/roses/half.gif", gif[: len(gif) // 2], "truncated")
    tiff = _saved(Image.fromarray(np.arange(4096, dtype=np.uint16).reshape(64, 64) * 16), "TIFF")
    faults += _added(root, "val/sunflowers/half 半.tif", tiff[: len(tiff) // 2], "truncated")
    faults += _added(root, "train/daisy/leer 空的 图片.jpg", b"", "empty")
    faults += _added(root, "val/roses/nothing.png", b"", "empty")
    spoiled = bytearray(png)
    spoiled[len(png) // 2] ^= 0xFF
    faults += _added(root, "train/tulips/damaged.png", bytes(spoiled), "unreadable")
    (root / "train" / "roses" / "loop.jpg").symlink_to("loop.jpg")
    (root / "train" / "roses" / "gone.jpg").symlink_to(root / "nowhere.jpg")
    faults += [Fault("train/roses/loop.jpg", "unreadable"), Fault("train/roses/gone.jpg", "unreadable")]
    if hasattr(os, "mkfifo"):
        os.mkfifo(root / "train" / "roses" / "pipe.jpg")
        faults.append(Fault("train/roses/pipe.jpg", "unreadable"))
    else:  # Windows has no pipes among files
        faults += _added(root, "train/roses/pipe.jpg", bytes(spoiled), "unreadable")
    # A circle of folders: nothing to tell, but the listing must come to an end.
    (root / "train" / "roses" / "circle").symlink_to(root / "train" / "roses", target_is_directory=True)
    return faults


def _strangers(root: Path, photos: dict[tuple[str, str], list[str]]) -> list[Fault]:
    """What is no picture, or one of a size that cannot be."""
    faults = _added(root, "train/sunflowers/notes.jpg", "Sunflowers, 向日葵.\n".encode(), "not-an-image")
    faults += _added(root, "val/daisy/page.jpg", b"<!DOCTYPE html><html>404</html>", "not-an-image")
    faults += _added(root, "train/tulips/scan.png", b"%PDF-1.7 ...", "not-an-image")
    faults += _added(root, "train/tulips/phone.jpg", b"\0\0\0\x18ftypheic\0\0\0\0", "not-an-image")
    for n, side in enumerate((20_000, 60_000)):
        head = struct.pack(">2I5B", side, side, 8, 2, 0, 0, 0)
        bomb = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + _chunk(b"IDAT", zlib.compress(bytes(9)))
        faults += _added(root, f"train/dandelion/bomb {n}.png", bomb + _chunk(b"IEND", b""), "too-large")
    generator = np.random.default_rng(0)
    for n, (width, height) in enumerate(((1, 1), (16, 12), (300, 20), (63, 90))):
        tiny = Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8))
        name = f"{'train' if n < 3 else 'val'}/tulips/tiny {n}.png"
        faults += _added(root, name, _saved(tiny, "PNG"), "too-small")
    return faults


def _doubles(root: Path, photos: dict[tuple[str, str], list[str]]) -> list[Fault]:
    """Pictures that are there more than once: as files, as pixels, or nearly."""
    faults: list[Fault] = []

    def copy(source: str, name: str, *kinds: str, change: str = "") -> None:
        if change:
            with Image.open(root / source) as image:
                raw = _changed(image.convert("RGB"), change)
        else:
            raw = (root / source).read_bytes()
        (root / name).write_bytes(raw)
        faults.extend(Fault(name, kind, source) for kind in kinds)

    def train(label: str, n: int) -> str:
        return photos["train", label][n]

    def val(label: str, n: int) -> str:
        return photos["val", label][n]

    copy(train("daisy", 10), "train/daisy/zz copy.jpg", "double")
    copy(train("roses", 10), "train/roses/zz copy.jpg", "double")
    copy(val("tulips", 10), "val/tulips/zz 副本.jpg", "double")
    copy(train("tulips", 11), "train/tulips/zz small.jpg", "near-double", change="half")
    copy(train("dandelion", 11), "train/dandelion/zz saved.jpg", "near-double", change="saved")
    copy(train("sunflowers", 11), "train/sunflowers/zz light.jpg", "near-double", change="light")
    copy(val("daisy", 12), "val/daisy/zz small.jpg", "near-double", change="half")
    copy(train("daisy", 20), "val/daisy/zz leak.jpg", "leak")
    copy(train("roses", 21), "val/roses/zz leak.jpg", "leak")
    copy(train("dandelion", 22), "val/dandelion/zz leak.jpg", "leak", change="half")
    copy(train("sunflowers", 23), "val/sunflowers/zz leak.jpg", "leak", change="saved")
    copy(val("roses", 13), "val/dandelion/zz roses.jpg", "label-conflict")
    copy(train("daisy", 30), "train/roses/zz daisy.jpg", "label-conflict")
    copy(train("dandelion", 31), "train/tulips/zz dandelion.jpg", "label-conflict", change="saved")
    # Both: another label, in another split.
    copy(train("sunflowers", 32), "val/tulips/zz sunflower.jpg", "leak", "label-conflict")
    return faults


def _classes(root: Path, photos: dict[tuple[str, str], list[str]]) -> list[Fault]:
    """Classes that are empty, or that only one split has, or that are written otherwise."""
    (root / "train" / "orchids").mkdir()
    faults = [Fault("train/orchids", "class-mismatch")]
    for number, name in enumerate(("Roses", "violets")):
        (root / "val" / name).mkdir()
        generator = np.random.default_rng(100 + number)
        pixels = Image.fromarray(generator.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        pixels.resize((320, 240), Image.Resampling.BICUBIC).save(root / "val" / name / "a.png")
        faults.append(Fault(f"val/{name}", "class-mismatch"))
    return faults


def _changed(image: Image.Image, change: str) -> bytes:
    if change == "half":
        return _saved(image.resize((image.width // 2, image.height // 2), Image.Resampling.BICUBIC), "JPEG")
    if change == "light":
        return _saved(ImageEnhance.Brightness(image).enhance(1.1), "JPEG")
    return _saved(image, "JPEG", quality=40)


def _added(root: Path, name: str, raw: bytes, kind: str) -> list[Fault]:
    (root / name).write_bytes(raw)
    return [Fault(name, kind)]


def _saved(image: Image.Image, kind: str, **settings: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **settings)
    return buffer.getvalue()


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
