"""Which pictures a run was trained and selected on: `images.csv` in the run folder.

Pictures are known again by a digest of their bytes, so that a training picture that was moved, renamed or copied into
another folder is still not taken for an unseen one.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from pellucid.errors import DataError
from pellucid.files import read_bytes, write_text

FILE = "images.csv"

#: The largest record that is read, in bytes: some ten million pictures.
LIMIT = 1 << 30

_SPLITS = {"train", "val", "before"}
_DIGEST = re.compile("[0-9a-f]{16}")


class Row(NamedTuple):
    """One picture of a run."""

    file: str
    label: str
    split: str
    """train, val, or before: trained on by the run whose weights this one began with."""
    digest: str


def write_record(folder: Path, rows: Iterable[Row]) -> None:
    """Write the run's `images.csv`."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(Row._fields)
    writer.writerows(rows)
    write_text(folder / FILE, buffer.getvalue())


def read_record(folder: Path) -> list[Row] | None:
    """The rows of the run's `images.csv`; None where there is no such file (a bundle on its own).

    Raises DataError when the file is damaged.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    reader = csv.reader(io.StringIO(_text(path), newline=""))
    rows: list[Row] = []
    heading: tuple[str, ...] = ()
    try:
        heading = tuple(next(reader, ()))
        for fields in reader if heading == Row._fields else ():
            row = Row(*fields)
            if row.split not in _SPLITS or not _DIGEST.fullmatch(row.digest):
                # Taken as it stands, its picture would count as unseen.
                raise ValueError(f"no split {row.split!r:.40} or no digest {row.digest!r:.40}")  # noqa: TRY301
            rows.append(row)
    except (TypeError, ValueError, csv.Error) as error:
        raise DataError(f"{path}: damaged at line {reader.line_num} ({error}); train again") from error
    if heading != Row._fields:
        raise DataError(f"{path}: its first line is not {','.join(Row._fields)}; train again")
    return rows


def _text(path: Path) -> str:
    raw = read_bytes(path, limit=LIMIT)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}: damaged at line {line} ({error}); train again") from error
