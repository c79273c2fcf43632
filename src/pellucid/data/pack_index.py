"""The index of a pack: which picture each row is, and all that is known of it. Safetensors, checked when read."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import features

from pellucid.data.decode import FORMATS, BadImage, Kind
from pellucid.data.reading import FIELDS, Facts
from pellucid.errors import PellucidError
from pellucid.files import read_tensors, read_tensors_metadata, write_tensors

FILE = "index.safetensors"

#: What stands in the names of the files of rows.
_TOKEN = re.compile("[0-9a-z]{1,64}")

# Raised when what is stored changes its meaning, so that an older pack is not taken for a newer one.
_VERSION = "1"


@dataclass(frozen=True, eq=False)
class Index:
    """What a pack holds, one entry a picture."""

    token: str
    """Part of the names of the files that the rows are in."""
    names: tuple[str, ...]
    facts: Facts
    row: NDArray[np.int64]
    checksum: NDArray[np.uint32]
    """Of each picture's row of pixels."""

    def __len__(self) -> int:
        return len(self.names)

    @property
    def rows(self) -> int:
        """How many rows the files have at least."""
        return int(self.row.max()) + 1 if len(self.row) else 0

    def take(self, entries: NDArray[np.int64], names: tuple[str, ...] | None = None) -> Facts:
        """What is known of the pictures at these entries, in this order; `names` is what they are called now."""
        bad: dict[int, BadImage] = {}
        if self.facts.bad:
            for place, entry in enumerate(entries.tolist()):
                if entry in self.facts.bad:
                    found = self.facts.bad[entry]
                    bad[place] = BadImage(found.kind, names[place] if names else found.name, found.detail)
        columns = {name: column[entries] for name, column in self.facts.columns.items()}
        return Facts(columns, self.facts.sums[entries], bad)


def versions(shape: tuple[int, int, int], resize: str) -> dict[str, str]:
    """What must be equal for a pack's rows to be what would be decoded now."""
    return {
        "pellucid": _VERSION,
        "shape": "×".join(map(str, shape)),
        "resize": resize,
        "pillow": PIL.__version__,
        "jpeg": str(features.version("libjpeg_turbo") or features.version("jpg")),
    }


def write_index(folder: Path, index: Index, about: dict[str, str]) -> None:
    """Write the index in one step. Raises PellucidError when the system refuses."""
    texts = {
        "names": "\0".join(index.names),
        "bad": json.dumps([[entry, bad.kind, bad.detail] for entry, bad in sorted(index.facts.bad.items())]),
    }
    arrays: dict[str, NDArray[Any]] = {
        name: np.frombuffer(text.encode("utf-8", "backslashreplace"), np.uint8) for name, text in texts.items()
    }
    arrays |= {f"fact {name}": column for name, column in index.facts.columns.items()}
    arrays |= {"sums": index.facts.sums, "row": index.row, "checksum": index.checksum}
    write_tensors(folder / FILE, arrays, {**about, "token": index.token})


def read_index(folder: Path, about: dict[str, str], channels: int) -> Index | None:
    """The index in `folder`; None where there is none, it is of another version, or it does not hold together."""
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        metadata = read_tensors_metadata(path)
        token = metadata.pop("token", "")
        if metadata != about or not _TOKEN.fullmatch(token):
            return None
        arrays = read_tensors(path)
        names = tuple(arrays["names"].tobytes().decode().split("\0")) if len(arrays["row"]) else ()
        index = Index(
            token=token,
            names=names,
            facts=Facts(
                {name: arrays[f"fact {name}"] for name in FIELDS},
                arrays["sums"],
                _bad(json.loads(arrays["bad"].tobytes().decode()), names),
            ),
            row=arrays["row"],
            checksum=arrays["checksum"],
        )
    except (PellucidError, OSError, ValueError, KeyError, IndexError, TypeError, RecursionError):
        return None
    return index if _holds(index, channels) and _can_be(index.facts, about) else None


def _bad(rows: Any, names: tuple[str, ...]) -> dict[int, BadImage]:
    bad = {}
    for entry, kind, detail in rows:
        if type(entry) is not int or not 0 <= entry < len(names) or kind not in get_args(Kind):
            raise ValueError(entry)
        bad[entry] = BadImage(kind, names[entry], str(detail))
    return bad


def _can_be(facts: Facts, about: dict[str, str]) -> bool:
    """Whether there are such formats, and pixels (whole numbers to 255) with these sums."""
    height, width, _ = map(int, about["shape"].split("×"))
    first, second = facts.sums[..., 0].astype(np.float64), facts.sums[..., 1].astype(np.float64)
    # Cauchy and Schwarz; below 2⁵³ float64 is exact but for the product, hence the last factor.
    spread = first**2 <= height * width * second * (1 + 1e-12)
    known = bool((facts.columns["format"] < len(FORMATS)).all())
    return known and bool(((first >= 0) & (first <= second) & (second <= 255 * first) & spread).all())


def _holds(index: Index, channels: int) -> bool:
    """Whether the parts fit each other, and no row is another's."""
    n = len(index)
    columns = index.facts.columns
    return (
        len(set(index.names)) == n
        and all(columns[name].shape == (n,) and columns[name].dtype == dtype for name, dtype in FIELDS.items())
        and index.facts.sums.shape == (n, channels, 2)
        and index.facts.sums.dtype == np.int64
        and index.row.shape == index.checksum.shape == (n,)
        and index.row.dtype == np.int64
        and index.checksum.dtype == np.uint32
        and bool((index.row >= 0).all())
        and len(np.unique(index.row)) == n
    )
