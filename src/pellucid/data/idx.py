"""IDX, the format of MNIST: a big-endian header (0, 0, type, number of dimensions, each dimension), then the numbers.

LeCun, Cortes and Burges, "The MNIST database of handwritten digits" (1998), describe it at the end of their page.
"""

from __future__ import annotations

import gzip
import io
import math
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pellucid.errors import DataError
from pellucid.files import read_bytes

#: The largest file that is read, before and after decompression: the largest known one holds 47 MB.
LIMIT = 1 << 28

_UNSIGNED_BYTE = 8


def read_contents(path: Path) -> bytes:
    """The contents of an IDX file, decompressed if it is gzipped, whatever its name says.

    Raises DataError for a file that is missing, damaged or larger than `LIMIT`.
    """
    raw = read_bytes(path, limit=LIMIT)
    if not raw.startswith(b"\x1f\x8b"):
        return raw
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(raw)) as file:
            contents = file.read(LIMIT + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: is no whole gzip file ({error}): take another copy") from error
    if len(contents) > LIMIT:
        raise DataError(
            f"{path}: decompresses to more than {LIMIT:,} bytes, which no IDX file here has: is it the one?"
        )
    return contents


def parse(contents: bytes, place: str) -> NDArray[np.uint8]:
    """The array of unsigned bytes in IDX contents; `place` names it in messages.

    Raises DataError for another type of numbers, or a header that does not go with what follows it.
    """
    if len(contents) < 4 or contents[:2] != b"\0\0":
        raise DataError(f"{place}: does not begin as an IDX file does (two zeros): is it the right file?")
    kind, ndim = contents[2], contents[3]
    if kind != _UNSIGNED_BYTE:
        raise DataError(f"{place}: holds numbers of IDX type {kind:#x}, and only unsigned bytes (0x8) are read")
    start = 4 + 4 * ndim
    if ndim == 0 or len(contents) < start:
        raise DataError(f"{place}: its IDX header ends early ({ndim} dimensions announced): take another copy")
    shape = tuple(int.from_bytes(contents[at : at + 4], "big") for at in range(4, start, 4))
    if math.prod(shape) != len(contents) - start:
        announced = f"{'×'.join(map(str, shape))} = {math.prod(shape):,} bytes"
        raise DataError(
            f"{place}: its header announces {announced}, and {len(contents) - start:,} follow: take another copy"
        )
    try:
        # A copy: what shares memory with bytes is read-only, which torch warns of.
        return np.frombuffer(bytearray(contents[start:]), np.uint8).reshape(shape).copy()
    except ValueError as error:
        # More dimensions than NumPy has, or sides whose product fits in no number beside one of 0.
        raise DataError(f"{place}: its header announces {ndim} dimensions that cannot be ({error})") from error
