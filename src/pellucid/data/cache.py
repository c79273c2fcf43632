"""Pellucid's folder in the user's cache: data sets that were fetched, and arrays that were slow to read.

Everything in it can be deleted at any time.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pooch
from numpy.typing import NDArray

from pellucid.errors import PellucidError
from pellucid.files import read_json, write_json

# Raised when what is stored changes its meaning, so that an older cache is not taken for a newer one.
_VERSION = 1

_MANIFEST = "manifest.json"


def cache_folder() -> Path:
    """The folder: `PELLUCID_CACHE` where that is set, else `pellucid` in the system's place for caches."""
    return Path(os.environ.get("PELLUCID_CACHE") or pooch.os_cache("pellucid")).expanduser()


def remember(path: Path, arrays: Mapping[str, NDArray[np.uint8]]) -> None:
    """Keep the arrays that were read from the file at `path`. Where the cache cannot be written, nothing is kept."""
    folder = _folder(path)
    temporary = folder.with_name(f".{folder.name}-{secrets.token_hex(8)}")
    try:
        temporary.mkdir(parents=True)
        sums = {}
        for name, array in arrays.items():
            np.save(temporary / f"{name}.npy", array, allow_pickle=False)
            sums[name] = _checksum(array)
        write_json(temporary / _MANIFEST, _state(path) | {"arrays": sums})
        # A folder replaces only an empty one, and what stands there is of an older file, or damaged.
        shutil.rmtree(folder, ignore_errors=True)
        temporary.replace(folder)
    except (OSError, PellucidError):
        # No room, no permission, or another process was first: the next start reads the archive again.
        pass
    finally:
        with contextlib.suppress(OSError):
            shutil.rmtree(temporary, ignore_errors=True)


def recall(path: Path) -> dict[str, NDArray[np.uint8]] | None:
    """The arrays kept for the file at `path`; None when there are none, the file has changed, or they are damaged."""
    folder = _folder(path)
    try:
        manifest = read_json(folder / _MANIFEST)
        sums = manifest.pop("arrays")
        if manifest != _state(path):
            return None
        arrays = {}
        for name, expected in sums.items():
            array = np.load(folder / f"{name}.npy", allow_pickle=False)
            if array.dtype != np.uint8 or _checksum(array) != expected:
                return None
            arrays[name] = array
    except (OSError, PellucidError, ValueError, KeyError, AttributeError, TypeError, EOFError):
        return None
    return arrays


def _folder(path: Path) -> Path:
    # One place for each file, however often it changes, so that nothing piles up.
    key = hashlib.blake2b(os.fsencode(path.resolve()), digest_size=12).hexdigest()
    return cache_folder() / "arrays" / key


def _state(path: Path) -> dict[str, Any]:
    status = path.stat()
    return {"version": _VERSION, "size": status.st_size, "mtime_ns": status.st_mtime_ns}


def _checksum(array: NDArray[np.uint8]) -> str:
    data = hashlib.blake2b(repr(array.shape).encode(), digest_size=16)
    data.update(np.ascontiguousarray(array).data.cast("B"))
    return data.hexdigest()
