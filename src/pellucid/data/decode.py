"""From the bytes of a picture file to uint8 RGB: the one decoding policy, whoever asks.

- Formats: JPEG, PNG, BMP, WebP, GIF, TIFF and PPM (PGM, PBM). Nothing else is opened, whatever a file is called.
- EXIF: a picture that says it lies on its side is stood up.
- Transparency is laid on white. Palettes, CMYK and the rest become RGB as Pillow converts them.
- More than 8 bits of grey are scaled by their range, never clipped: 16 bits by 1/257, the 12 bits of a 12-bit TIFF by
  255/4095. Where the range is not written down (32-bit whole numbers, floating point) it is the least of 0…1 (floating
  point only), 0…255 and 0…65535 that holds every value, else that of the values. What is not finite is black. Colour of
  16 bits a channel comes as Pillow gives it: the upper 8.
- Of an animation or several pages, the first.
- More than 100 million pixels, or 65,535 in a row or a column, are refused when the header says so, before anything is
  decoded; and so is a progressive JPEG of more than 100 scans, each of which would go through the whole picture.
- A file that ends early is refused. No grey half is ever made up, even where Pillow has been told to.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import logging
import os
import re
import stat
import threading
import warnings
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError

from pellucid.data.markers import ends, ends_early, scans
from pellucid.errors import DataError

#: The format families that are opened, as Pillow names them.
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "GIF", "TIFF", "PPM")

#: The endings under which a folder's pictures are looked for, in lower case.
EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"})

#: The largest picture that is decoded, in pixels.
MAX_PIXELS = 100_000_000

#: The largest file that is read, in bytes.
MAX_BYTES = 1 << 30

#: The largest side that is decoded, in pixels: JPEG's own. Readers pad a row at a time.
MAX_SIDE = 65_535

#: The most scans of a progressive JPEG that are decoded; cameras and programs write about ten.
MAX_SCANS = 100

#: Pictures of more pixels are decoded one at a time, whatever the number of threads, or sixteen of the largest would
#: take sixteen times the memory.
_LARGE_PIXELS = 25_000_000
_LARGE = threading.Lock()

#: A comment in a PPM. Pillow's reader of the kind written in letters takes time by the square of their number.
_PPM_COMMENT = re.compile(rb"#[^\r\n]*+")

# What Pillow logs about a damaged file is said here, in the refusal; a program that sets up logging still gets it.
logging.getLogger("PIL").addHandler(logging.NullHandler())

Kind = Literal["unreadable", "truncated", "empty", "not-an-image", "too-large"]

_ORIENTATION = 0x0112

#: EXIF's orientations, and what undoes each.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

#: Those that make a width of a height.
_QUARTER = {_TURNS[orientation] for orientation in (5, 6, 7, 8)}

#: Modes of one channel with more than 8 bits.
_WIDE = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")

#: How files begin that people take for pictures of a kind read here.
_STRANGERS = {
    b"%PDF": "it is a PDF",
    b"PK\x03\x04": "it is a ZIP archive",
    b"<svg": "it is an SVG drawing",
    b"<?xml": "it is XML, perhaps an SVG drawing",
    b"<!DOCTYPE": "it is a web page, perhaps a failed download",
    b"<html": "it is a web page, perhaps a failed download",
}


class BadImage(DataError):  # noqa: N818 - it names a picture, and reads so where it is kept in lists
    """One picture that cannot be used, and why; the others are not touched by it."""

    def __init__(self, kind: Kind, name: str, detail: str) -> None:
        # All three to the base class, or the error could not cross from one process to another.
        super().__init__(kind, name, detail)
        self.kind: Kind = kind
        self.name = name
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.name}: {self.detail}"


@dataclass(frozen=True, slots=True)
class Header:
    """What a picture's header says: its size in pixels as seen (EXIF applied), and whether it has one channel only."""

    width: int
    height: int
    grey: bool
    format: str = ""
    """What it is, as Pillow calls it (one of FORMATS, or MPO for a stereo JPEG)."""


class Reduced(NamedTuple):
    """A picture, perhaps at a fraction of its size."""

    image: Image.Image
    """RGB."""
    box: tuple[float, float, float, float]
    """What of it is the picture: left, top, right, bottom. At 1/4, 277 rows become 69¼, and stand in 70."""
    header: Header = Header(0, 0, grey=False)

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """H×W×3 RGB, as a copy: what Pillow lends is read-only, which torch warns of."""
        return np.array(self.image)


class _PillowStrict:
    """Pillow's process-wide switches as this policy needs them, for as long as any thread decodes.

    Its warnings are about files that are then decoded or refused here, so they are silenced; its option to fill up
    truncated pictures is off. `warnings.catch_warnings` alone does not do: two threads that leave it in another order
    than they entered would leave the silence behind. Hence the count: the first in saves, the last out restores.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._warnings = warnings.catch_warnings()
        self._lenient = False

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._warnings = warnings.catch_warnings()
                self._warnings.__enter__()
                warnings.filterwarnings("ignore", module=r"PIL\.")
                self._lenient = ImageFile.LOAD_TRUNCATED_IMAGES
                ImageFile.LOAD_TRUNCATED_IMAGES = False
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                ImageFile.LOAD_TRUNCATED_IMAGES = self._lenient
                self._warnings.__exit__(None, None, None)


_STRICT = _PillowStrict()

#: Hold this while many pictures are decoded, and setting the switches does not cost each of them.
strict: AbstractContextManager[None] = _STRICT


def decode(raw: bytes, name: str) -> NDArray[np.uint8]:
    """The picture in a file's bytes, H×W×3 RGB; `name` is what errors call it. Raises BadImage."""
    return decode_reduced(raw, name, None).pixels


def decode_reduced(raw: bytes, name: str, at_least: int | None) -> Reduced:
    """The picture in a file's bytes, and what its header says; `name` is what errors call it.

    A JPEG may be decoded at 1/2, 1/4 or 1/8 of its size (from fewer coefficients of its cosine transform, so in a
    fraction of the time), as long as its shorter side keeps `at_least` pixels. None decodes all of it.

    Raises BadImage.
    """
    if not raw:
        raise BadImage("empty", name, "the file is empty (0 bytes): copy it again, or take it away")
    if raw[:2] in {b"P1", b"P2", b"P3"}:
        raw = _PPM_COMMENT.sub(b"", raw)
    with _STRICT:
        try:
            with Image.open(io.BytesIO(raw), formats=FORMATS) as image:
                _refuse_giant(image, name)
                progressive = bool(image.info.get("progressive"))
                if progressive and scans(raw) > MAX_SCANS:
                    detail = f"it is a JPEG of {scans(raw):,} scans, and {MAX_SCANS} is the most that is decoded"
                    raise BadImage("unreadable", name, f"{detail}: save it again, or take it away")  # noqa: TRY301
                full, grey, what = image.size, _is_grey(image), image.format or ""
                size = (float(full[0]), float(full[1])) if at_least is None else _draft(image, at_least)
                # A progressive JPEG is in memory at its full size, whatever the scale it is wanted at.
                width, height = full if progressive else image.size
                with _LARGE if width * height > _LARGE_PIXELS else contextlib.nullcontext():
                    return _decoded(image, raw, name, size, Header(*full, grey, what))
        except (BadImage, MemoryError):
            raise
        except Exception as error:
            # Pillow's readers raise nearly anything over a damaged file.
            raise _refusal(error, raw, name) from error


def _decoded(image: Image.Image, raw: bytes, name: str, size: tuple[float, float], said: Header) -> Reduced:
    image.load()
    if said.format in {"JPEG", "MPO"} and not ends(raw):
        raise _cut_off(name)
    turn = _turn(image)
    # Of a TIFF, Pillow has turned the picture, and gives the size as seen.
    if turn in _QUARTER and said.format != "TIFF":
        said = dataclasses.replace(said, width=said.height, height=said.width)
    upright, box = _upright(image, size, turn)
    return Reduced(_rgb(upright), box, said)


def header(path: str | os.PathLike[str], name: str | None = None) -> Header:
    """The size and kind of the picture in a file, without decoding it.

    Raises BadImage, with `name` (else the path) in its message.
    """
    path = Path(path)
    name = str(path) if name is None else name
    refuse_irregular(path, name)
    with _STRICT:
        try:
            with Image.open(path, formats=FORMATS) as image:
                _refuse_giant(image, name)
                width, height = image.size
                # A TIFF's size is given as seen already; a PNG whose EXIF follows the pixels would have to be decoded.
                if image.format != "TIFF" and (image.format != "PNG" or "exif" in image.info):
                    width, height = (height, width) if _orientation(image) >= 5 else (width, height)
                return Header(width, height, _is_grey(image), image.format or "")
        except (BadImage, MemoryError):
            raise
        except Exception as error:
            raise _refusal(error, _beginning(path, error, name), name) from error


def _draft(image: Image.Image, at_least: int) -> tuple[float, float]:
    """Have a JPEG decoded at the smallest scale that keeps `at_least` pixels; the width and height it then has."""
    width, height = image.size
    for scale in (8, 4, 2):
        # What is no JPEG answers None.
        if min(width, height) // scale >= at_least and image.draft(None, (width // scale, height // scale)):
            return width / scale, height / scale
    return float(width), float(height)


def unreadable(error: OSError, name: str) -> BadImage:
    """The refusal of a file that the system does not hand over."""
    why = error.strerror or type(error).__name__
    return BadImage("unreadable", name, f"cannot be read ({why}): mend its place or its permissions, or take it away")


def refuse_irregular(path: Path, name: str) -> os.stat_result:
    """The status of a file, if it is one: a pipe under a picture's name would never end.

    Raises BadImage, also for one of more than `MAX_BYTES`.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise unreadable(error, name) from error
    except ValueError as error:
        raise BadImage("unreadable", name, f"cannot be read (no file can have such a name: {error})") from error
    if not stat.S_ISREG(status.st_mode):
        raise BadImage("unreadable", name, "cannot be read (it is no file): put the picture there, or take it away")
    if status.st_size > MAX_BYTES:
        detail = f"the file has {status.st_size:,} bytes, more than the {MAX_BYTES:,} that are read"
        raise BadImage("too-large", name, f"{detail}: scale it down first")
    return status


def _refuse_giant(image: Image.Image, name: str) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise BadImage(
            "too-large",
            name,
            f"{width:,}×{height:,} pixels are more than the {MAX_PIXELS:,} that are decoded: scale it down first",
        )
    if max(width, height) > MAX_SIDE:
        detail = f"{width:,}×{height:,} pixels, and a side of {MAX_SIDE:,} is the most that is decoded"
        raise BadImage("too-large", name, f"{detail}: scale it down first")


def _cut_off(name: str) -> BadImage:
    return BadImage("truncated", name, "the file ends before its picture does: copy it again, or take it away")


def _refusal(error: Exception, raw: bytes, name: str) -> BadImage:
    """What is raised in place of `error`, which came up over these bytes (for a header, the first of them)."""
    if isinstance(error, Image.DecompressionBombError):
        detail = f"it says it has more pixels than the {MAX_PIXELS:,} that are decoded: scale it down first"
        return BadImage("too-large", name, detail)
    if isinstance(error, UnidentifiedImageError):
        if ends_early(raw):
            return _cut_off(name)
        what = next((what for start, what in _STRANGERS.items() if raw.lstrip().startswith(start)), "")
        if not what and raw[4:8] == b"ftyp":
            what = "it is HEIC, AVIF or a film"
        detail = f"it is no picture of a kind that is read ({what or 'JPEG, PNG, BMP, WebP, GIF, TIFF, PPM'})"
        return BadImage("not-an-image", name, f"{detail}: save it as JPEG or PNG, or take it away")
    if "truncated" in str(error).lower() or isinstance(error, EOFError) or ends_early(raw):
        return _cut_off(name)
    detail = f"it cannot be decoded ({type(error).__name__}: {error!s:.100}): save it again as JPEG or PNG"
    return BadImage("unreadable", name, f"{detail}, or take it away")


def _beginning(path: Path, error: Exception, name: str) -> bytes:
    """The first bytes of a file whose header was refused. Raises BadImage when it is empty or not handed over."""
    if isinstance(error, OSError) and error.errno is not None:
        raise unreadable(error, name) from error
    try:
        with path.open("rb") as file:
            start = file.read(4096)
    except OSError as closed:
        raise unreadable(closed, name) from closed
    if not start:
        raise BadImage("empty", name, "the file is empty (0 bytes): copy it again, or take it away") from error
    return start


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # noqa: BLE001 - a damaged EXIF block says nothing, and takes nothing from the picture
        return 1
    return value if isinstance(value, int) else 1


def _turn(image: Image.Image) -> Image.Transpose | None:
    """What stands a picture up, if it does not."""
    if image.format == "JPEG" and not image.info.keys() & {"exif", "xmp"}:
        return None  # as Pillow would find, in a fraction of the time
    return _TURNS.get(_orientation(image))


def _upright(
    image: Image.Image, size: tuple[float, float], turn: Image.Transpose | None
) -> tuple[Image.Image, tuple[float, float, float, float]]:
    """The decoded picture as it is to be seen, and what of it is picture; `size` is that of its upper left part."""
    width, height = size
    if turn is None:
        return image, (0.0, 0.0, width, height)
    right, below = image.width - width, image.height - height
    upright = image.transpose(turn)
    # What the turn does to the margin of a reduced picture: (left, top) of the part that is seen.
    left, top = {
        Image.Transpose.FLIP_LEFT_RIGHT: (right, 0.0),
        Image.Transpose.ROTATE_180: (right, below),
        Image.Transpose.FLIP_TOP_BOTTOM: (0.0, below),
        Image.Transpose.TRANSPOSE: (0.0, 0.0),
        Image.Transpose.ROTATE_270: (below, 0.0),
        Image.Transpose.TRANSVERSE: (below, right),
        Image.Transpose.ROTATE_90: (0.0, right),
    }[turn]
    if turn in _QUARTER:
        width, height = height, width
    return upright, (left, top, left + width, top + height)


def _is_grey(image: Image.Image) -> bool:
    if image.mode == "P" and image.palette is not None:
        # As it stands in the file; asking Pillow for it would decode the picture.
        layout, colours = image.palette.rawmode or image.palette.mode, bytes(image.palette.palette)
        step = {"RGB": 3, "BGR": 3, "BGRX": 4}.get(layout)
        return step is not None and colours[0::step] == colours[1::step] == colours[2::step]
    return image.mode in {"1", "L", "LA", "La", *_WIDE}


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode in _WIDE:
        image = Image.fromarray(_eight_bits(image))
    elif image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> NDArray[np.uint8]:
    """A grey picture of more than 8 bits, scaled to 8 (the module's docstring has the rules)."""
    wide = np.asarray(image)
    tags: Any = getattr(image, "tag_v2", {})
    if image.mode.startswith("I;16"):
        bits = tags.get(258, (16,))
        low, high = 0.0, 2.0 ** (bits[0] if isinstance(bits, tuple) else bits) - 1
    elif image.format == "PPM" and image.mode == "I":
        low, high = 0.0, 65535.0
    else:
        low, high = _range(wide, image.mode)
    key = image.info.get("transparency")
    eight = np.empty(wide.shape, np.uint8)
    # By rows: in float64 all at once, the largest picture would take gigabytes.
    rows = max(1, (1 << 20) // max(1, wide.shape[1]))
    for y in range(0, len(wide), rows):
        values = wide[y : y + rows].astype(np.float64)
        grey = np.nan_to_num((values - low) * 255 / (high - low), nan=0.0, posinf=0.0, neginf=0.0)
        if tags.get(262) == 0:  # white is zero
            grey = 255 - grey
        if isinstance(key, int):
            grey[values == key] = 255
        eight[y : y + rows] = np.floor(np.clip(grey, 0, 255) + 0.5)
    return eight


def _range(values: NDArray[Any], mode: str) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    for top in (1.0, 255.0, 65535.0) if mode == "F" else (255.0, 65535.0):
        if low >= 0 and high <= top:
            return 0.0, top
    return low, high if high > low else low + 1
