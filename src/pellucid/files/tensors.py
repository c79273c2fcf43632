"""Arrays on disk as safetensors: a JSON header with names, types, shapes and byte ranges, then the bytes.

The header is checked here before the library opens the file: it may come from anywhere, and one that lies about a
length must end in a sentence, not in a huge allocation.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors
import safetensors.numpy

from pellucid.errors import DataError, UsageError
from pellucid.files.read import MIB, parse_json, read_bytes, regular_size
from pellucid.files.refusals import not_read
from pellucid.files.write import write_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

GIB = 1 << 30

_HEADER_LIMIT = 16 * MIB

#: The name among the metadata under which a sealed file carries its checksum, and what stands there while it is taken.
_SEAL, _UNSEALED = "pellucid.sha256", "0" * 64

#: Dimensions an array may have in NumPy 2.
_DIMENSIONS = 64

#: The format's names of what NumPy has.
_DTYPES = {
    "BOOL": np.dtype(np.bool_),
    "U8": np.dtype(np.uint8),
    "I8": np.dtype(np.int8),
    "U16": np.dtype(np.uint16),
    "I16": np.dtype(np.int16),
    "F16": np.dtype(np.float16),
    "U32": np.dtype(np.uint32),
    "I32": np.dtype(np.int32),
    "F32": np.dtype(np.float32),
    "U64": np.dtype(np.uint64),
    "I64": np.dtype(np.int64),
    "F64": np.dtype(np.float64),
}


def read_tensors(
    path: str | os.PathLike[str], *, limit: int = 4 * GIB, sealed: bool = False
) -> dict[str, NDArray[Any]]:
    """The arrays in a safetensors file of at most `limit` bytes, by name, sorted; each is writable.

    Raises DataError for a file that is missing, larger, damaged, or holds a type NumPy lacks (bfloat16); and, where it
    is to be `sealed`, for one of which any byte is not as it was written.
    """
    path = Path(path)
    header = _header(path, limit)
    try:
        if sealed:
            data = read_bytes(path, limit=limit)
            _check_seal(path, data, header)
            arrays = safetensors.numpy.load(data)
        else:
            arrays = safetensors.numpy.load_file(path)
    except OSError as error:
        raise not_read(error, path) from error
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        raise _damaged(path, str(error)) from error
    return {name: _plain(arrays[name]) for name in sorted(arrays)}


def read_tensors_metadata(path: str | os.PathLike[str], *, limit: int = 4 * GIB) -> dict[str, str]:
    """The texts stored beside the arrays; empty where there are none. Raises as `read_tensors`."""
    metadata: dict[str, str] = _header(Path(path), limit).get("__metadata__", {})
    return metadata


def write_tensors(
    path: str | os.PathLike[str],
    arrays: Mapping[str, NDArray[Any]],
    metadata: Mapping[str, str] | None = None,
    *,
    seal: bool = False,
    previous: str | None = None,
) -> None:
    """Write arrays as safetensors, atomically. Equal arrays and metadata give equal bytes.

    A sealed file carries the SHA-256 of itself among its metadata, for `read_tensors` to compare. `previous` is as for
    `write_bytes`. Raises UsageError for an array whose type the format lacks, and PellucidError when the system
    refuses.
    """
    # Contiguous, or the library would silently write other numbers; `require` leaves 0-d arrays 0-d.
    ready = {name: _ready(Path(path), name, array) for name, array in sorted(arrays.items())}
    texts = dict(metadata or {}) | ({_SEAL: _UNSEALED} if seal else {})
    data = safetensors.numpy.save(ready, texts or None)
    if texts:
        data = _with_metadata_sorted(data)
    write_bytes(path, _sealed(data) if seal else data, previous=previous)


def _sealed(data: bytes) -> bytearray:
    """The same file with its checksum where the zeros stood."""
    whole = bytearray(data)
    at = _seal_place(data)
    whole[at : at + len(_UNSEALED)] = hashlib.sha256(data).hexdigest().encode()
    return whole


def _check_seal(path: Path, data: bytes, header: dict[str, Any]) -> None:
    found = header.get("__metadata__", {}).get(_SEAL, "")
    at = _seal_place(data)
    if at < 0 or len(found) != len(_UNSEALED):
        raise _damaged(path, "it has no checksum of itself")
    view = memoryview(data)
    now = hashlib.sha256(view[:at])
    now.update(_UNSEALED.encode())
    now.update(view[at + len(_UNSEALED) :])
    if now.hexdigest() != found:
        raise _damaged(path, "its checksum is not that of its bytes")


def _seal_place(data: bytes) -> int:
    """Where in the file the checksum stands; negative where there is none."""
    before = f'"{_SEAL}":"'.encode()
    at = data.find(before, 8, 8 + int.from_bytes(data[:8], "little"))
    return at if at < 0 else at + len(before)


def _ready(path: Path, name: str, array: NDArray[Any]) -> NDArray[Any]:
    if name == "__metadata__":
        raise UsageError(f"{path}: an array cannot be named __metadata__, which the format keeps for itself: rename it")
    array = np.asarray(array)
    known = [dtype.name for dtype in _DTYPES.values()]
    if array.dtype.name not in known:
        raise UsageError(
            f"{path}: {name} is of type {array.dtype}, which is not stored here: turn it into one of {', '.join(known)}"
        )
    return np.require(array, dtype=array.dtype.newbyteorder("<"), requirements="C")


def _plain(array: NDArray[Any]) -> NDArray[Any]:
    if array.dtype == np.bool_:
        # Any byte may stand in the file; a boolean that is neither 0 nor 1 in memory adds up wrongly.
        return np.asarray(np.not_equal(array.view(np.uint8), 0))
    # Older versions of the library give read-only views, which torch.from_numpy warns about.
    return np.require(array, requirements="W")


def _with_metadata_sorted(data: bytes) -> bytes:
    """The same file with its metadata in order: the library writes them in one that changes from run to run."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    # Padded to eight bytes, as the library does, so that the numbers are aligned where the file is mapped.
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def _header(path: Path, limit: int) -> dict[str, Any]:
    """The checked header: known types, each byte range as long as its shape says, no gap, no overlap."""
    header, room = _read_header(path, limit)
    metadata = header.get("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise _damaged(path, "its metadata are not texts")
    ranges = sorted(_range(path, name, entry) for name, entry in header.items() if name != "__metadata__")
    reached = 0
    for begin, end, name in ranges:
        if begin != reached:
            raise _damaged(path, f"{name!r:.80} begins at byte {begin}, where {reached} was expected")
        reached = end
    if reached != room:
        raise _damaged(path, f"the arrays take {reached:,} bytes, and the file has {room:,} for them")
    return header


def _read_header(path: Path, limit: int) -> tuple[dict[str, Any], int]:
    """The header as it stands, and how many bytes follow it."""
    try:
        size = regular_size(path, limit)
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > size - 8:
                raise _damaged(path, f"a header of {length:,} bytes does not fit into a file of {size:,}")
            if length > _HEADER_LIMIT:
                raise _damaged(path, f"a header of {length:,} bytes is above the {_HEADER_LIMIT:,} that are read")
            text = file.read(length)
    except OSError as error:
        raise not_read(error, path) from error
    header = parse_json(text, f"{path}, header", depth=4)
    if not isinstance(header, dict):
        raise _damaged(path, "its header is no JSON object")
    return header, size - 8 - length


def _range(path: Path, name: str, entry: Any) -> tuple[int, int, str]:
    """The bytes one array takes, checked against its shape and type."""
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise _damaged(path, f"the entry of {name!r:.80} is not its dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise DataError(
            f"{path}: {name!r:.80} is of type {dtype!r:.20}, which NumPy lacks: save it as one of {', '.join(_DTYPES)}"
        )
    if not _sizes(shape) or len(shape) > _DIMENSIONS:
        raise _damaged(path, f"the shape of {name!r:.80} is {shape!r:.80}")
    if not _sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise _damaged(path, f"the byte range of {name!r:.80} is {offsets!r:.80}")
    expected = math.prod(shape) * _DTYPES[dtype].itemsize
    if offsets[1] - offsets[0] != expected:
        found = offsets[1] - offsets[0]
        raise _damaged(path, f"{name!r:.80} of shape {shape!r:.80} takes {expected:,} bytes, and has {found:,}")
    return offsets[0], offsets[1], name


def _sizes(values: Any) -> bool:
    """Whether these are sizes: whole numbers that fit a signed 64-bit integer, booleans not among them."""
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 1 << 63 for value in values)


def _damaged(path: Path, why: str) -> DataError:
    return DataError(f"{path}: not a sound safetensors file: {why}: take another copy")
