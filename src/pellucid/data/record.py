"""Which pictures a run was trained and selected on: `images.csv` in the run folder.

Pictures are known again by a digest of their bytes, so that a training picture that was moved, renamed or copied into
another folder is still not taken for an unseen one.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from pellucid.errors import DataError
from pellucid.files import write_text

FILE = "images.csv"


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
    with path.open(encoding="utf-8", newline="") as lines:
        reader = csv.reader(lines)
        try:
            if tuple(next(reader, ())) != Row._fields:
                raise DataError(f"{path}: its first line is not {','.join(Row._fields)}; train again")
            return [Row(*fields) for fields in reader]
        except (TypeError, csv.Error, UnicodeDecodeError) as error:
            raise DataError(f"{path}: damaged at line {reader.line_num} ({error}); train again") from error
