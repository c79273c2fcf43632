"""A table of pictures and labels: a CSV, or the `metadata.csv` or `metadata.jsonl` of a Hugging Face image folder.

Columns: `path` (or `file_name`) and `label`, and if wanted `split`; others are ignored. Paths are relative to the
table. A CSV of one's own may also name files elsewhere, by absolute paths or with `..`; a `metadata` file found in a
folder may not, since the folder may have come from anywhere. Without a `split` column, a table whose every path begins
with a split's name (`train/…`) is split so; else all rows are for training.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from pellucid.data.folder import split_folders
from pellucid.data.images import Source, Split
from pellucid.data.rules import SPLITS, Row, gather, label_of, printable
from pellucid.errors import DataError, did_you_mean
from pellucid.files import read_bytes
from pellucid.files.read import parse_json

#: The largest table that is read: some ten million rows.
LIMIT = 1 << 30

#: The longest path or label, in characters: as long as Linux's paths.
LONGEST = 4096

METADATA = ("metadata.csv", "metadata.jsonl")

_PATHS = ("path", "file_name")


def open_table(table: Path, *, training: bool, mismatch: bool = False) -> Source:
    """The pictures that a CSV (or a file of JSON lines) names.

    Raises DataError, naming the file and the line, for a table or a row that is not as it should be, and what
    `pellucid.data.rules.gather` raises. A row whose file is missing is refused for training; else reading it will tell.
    """
    notes: list[str] = []
    rows = _rows(table, table.parent, "", training=training, inside=table.name in METADATA, notes=notes)
    return gather(rows, place=table, kind="table", training=training, mismatch=mismatch, notes=notes)


def open_metadata(root: Path, *, training: bool, mismatch: bool = False) -> Source | None:
    """The pictures of a folder that has `metadata.csv` or `metadata.jsonl`, in itself or in each split's folder.

    None where there is no such file. Raises as `open_table`, and where only some of the splits have one.
    """
    notes: list[str] = []
    table = _metadata(root)
    if table is not None:
        rows = _rows(table, root, "", training=training, inside=True, notes=notes)
        return gather(rows, place=root, kind="table", training=training, mismatch=mismatch, notes=notes)
    tables = {name: _metadata(folder) for name, folder in split_folders(root).items()}
    if not any(tables.values()):
        return None
    rows = []
    for name, found in tables.items():
        if found is None:
            raise DataError(
                f"{root}: other splits have a metadata file, and {name} has none: add one, or remove them all"
            )
        rows += [
            row._replace(split=SPLITS[name.lower()])
            for row in _rows(found, found.parent, f"{name}/", training=training, inside=True, notes=[])
        ]
    return gather(rows, place=root, kind="table", training=training, mismatch=mismatch, notes=notes)


def _metadata(folder: Path) -> Path | None:
    found = [folder / name for name in METADATA if (folder / name).is_file()]
    if len(found) > 1:
        raise DataError(f"{folder}: has both {METADATA[0]} and {METADATA[1]}: remove one of them")
    return found[0] if found else None


def _rows(table: Path, folder: Path, prefix: str, *, training: bool, inside: bool, notes: list[str]) -> list[Row]:
    seen: dict[str, int] = {}
    rows: list[Row] = []
    has_split = True
    for line, values in _lines(table):
        place = f"{table}, line {line}"
        path = _path(values, place)
        if "\\" in path and not _is_file(folder / path):
            path = path.replace("\\", "/")  # written on Windows
        name = Path(os.path.normpath(path)).as_posix()
        file = folder / name
        if inside and (Path(name).is_absolute() or name.split("/")[0] == ".."):
            raise DataError(
                f"{place}: {path!r:.200} is outside of {folder}: a metadata file names files in its own folder"
            )
        if training and not _is_file(file):
            raise DataError(f"{place}: there is no file {str(file)!r:.400}: mend the path, or take the row out")
        if name in seen:
            raise DataError(f"{place}: {path!r:.200} stands in line {seen[name]} already: take one of the two rows out")
        seen[name] = line
        has_split = has_split and "split" in values
        split = _split(values["split"], place) if "split" in values else "train"
        rows.append(Row(split, _label(values, place), printable(prefix + name), file))
    if not has_split and not prefix:
        rows = _split_by_path(rows, notes)
    return rows


def _is_file(file: Path) -> bool:
    try:
        return file.is_file()
    except OSError:  # a name that is too long, a folder that is barred
        return False


def _split_by_path(rows: list[Row], notes: list[str]) -> list[Row]:
    parts = [PurePosixPath(row.name).parts for row in rows]
    if not all(len(part) > 1 and part[0].lower() in SPLITS for part in parts):
        return rows
    notes.append("The table has no column split; the first folder of each path is taken for it.")
    return [row._replace(split=SPLITS[part[0].lower()]) for row, part in zip(rows, parts, strict=True)]


def _path(values: Mapping[str, Any], place: str) -> str:
    path = next((values[key] for key in _PATHS if key in values), None)
    if path is None:
        raise DataError(f"{place}: has no path: expected {' or '.join(_PATHS)}")
    if not isinstance(path, str) or not path.strip() or "\0" in path or len(path) > LONGEST:
        raise DataError(f"{place}: the path is {path!r:.60}: expected the name of a file")
    return path.strip()


def _label(values: Mapping[str, Any], place: str) -> str:
    label = values.get("label")
    if isinstance(label, int) and not isinstance(label, bool):
        label = str(label)
    if not isinstance(label, str) or not label.strip() or len(label) > LONGEST:
        raise DataError(f"{place}: the label is {label!r:.60}: expected the name of a class")
    return label_of(label)


def _split(value: Any, place: str) -> Split:
    split = SPLITS.get(value.strip().lower()) if isinstance(value, str) else None
    if split is None:
        raise DataError(f"{place}: {value!r:.60} is no split: {did_you_mean(str(value), SPLITS)}")
    return split


def _lines(table: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Each row's line number and values by column."""
    raw = read_bytes(table, limit=LIMIT)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataError(f"{table}, line {line}: is not UTF-8 text: save the table as UTF-8") from error
    return _json_lines(text, table) if table.suffix.lower() == ".jsonl" else _csv_lines(text, table)


def _json_lines(text: str, table: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(io.StringIO(text), start=1):
        if not line.strip():
            continue
        values = parse_json(line.strip().encode("utf-8"), f"{table}, line {number}", depth=64)
        if not isinstance(values, dict):
            raise DataError(f"{table}, line {number}: expected an object in braces, found {values!r:.60}: mend it")
        yield number, values


def _csv_lines(text: str, table: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    heading = text.partition("\n")[0]
    # Spreadsheets write what the user's country has: a semicolon where the comma marks decimals.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=heading.count), strict=True)
    try:
        columns = [column.strip().lower() for column in next(reader, [])]
        if not set(_PATHS) & set(columns) or "label" not in columns:
            found = ", ".join(columns)[:100] or "nothing"
            raise DataError(f"{table}, line 1: expected a heading with the columns path and label, found {found}")
        twice = next((name for name in (*_PATHS, "label", "split") if columns.count(name) > 1), None)
        if twice is not None:
            raise DataError(f"{table}, line 1: has the column {twice} twice: take one of the two out")
        for cells in reader:
            if not cells:
                continue
            if len(cells) < len(columns):
                raise DataError(
                    f"{table}, line {reader.line_num}: {len(cells)} cells under {len(columns)} columns: mend it"
                )
            yield reader.line_num, dict(zip(columns, cells, strict=False))
    except csv.Error as error:
        raise DataError(f"{table}, line {reader.line_num}: is not CSV ({error}): mend it") from error
