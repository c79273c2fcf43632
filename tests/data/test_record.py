from __future__ import annotations

from pathlib import Path

import pytest

from pellucid.data.record import FILE, Row, read_record, write_record
from pellucid.errors import DataError


def test_a_record_comes_back_as_it_was_written(tmp_path: Path) -> None:
    rows = [Row('a, "b"/图 1.jpg', "玫瑰", "train", "0" * 16), Row("line\nbreak.png", "x", "val", "f" * 16)]
    write_record(tmp_path, rows)
    assert read_record(tmp_path) == rows


def test_no_record_is_no_error(tmp_path: Path) -> None:
    assert read_record(tmp_path) is None


@pytest.mark.parametrize("text", ["", "a,b\n", "file,label,split,digest\nonly,three,fields\n"])
def test_a_damaged_record_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=r"images\.csv.*train again"):
        read_record(tmp_path)


@pytest.mark.parametrize("row", ["a.jpg,a,tset,0000000000000000", "a.jpg,a,train,zz", "a.jpg,a,train,"])
def test_a_row_that_would_make_a_picture_seem_unseen_is_refused(tmp_path: Path, row: str) -> None:
    (tmp_path / FILE).write_text(f"file,label,split,digest\n{row}\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"images\.csv: damaged at line 2 .*train again"):
        read_record(tmp_path)
