from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pellucid.data.images import Source
from pellucid.data.source import open_source
from pellucid.errors import DataError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with pictures (opened only later, hence empty) under several names."""
    path = tmp_path / "photos"
    for name in ("1.jpg", "2.jpg", "3.jpg", "deep/4.jpg", "train/5.jpg", "train/6.jpg", "val/7.jpg", "with, comma.jpg"):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).touch()
    (tmp_path / "outside.jpg").touch()
    return path


def csv(root: Path, text: str, name: str = "labels.csv", encoding: str = "utf-8") -> Path:
    (root / name).write_bytes(text.encode(encoding))
    return root / name


def opened(path: Path, *, training: bool = True) -> Source:
    return open_source(path, training=training)


def labelled(source: Source) -> dict[str, list[tuple[str, str]]]:
    return {
        split: [(name, source.classes[k]) for name, k in zip(images.names, images.labels, strict=True)]
        for split, images in source.splits.items()
    }


# ---- what is understood


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("path,label\n1.jpg,cat\ndeep/4.jpg,dog\n", "utf-8"),
        ("path,label\r\n1.jpg,cat\r\ndeep/4.jpg,dog", "utf-8"),
        ("path,label\n1.jpg,cat\ndeep/4.jpg,dog\n", "utf-8-sig"),
        ("file_name,label\n1.jpg,cat\ndeep/4.jpg,dog\n", "utf-8"),
        (" Path , LABEL \n 1.jpg , cat \n./deep/../deep/4.jpg,dog\n", "utf-8"),
        ("label;path\ncat;1.jpg\ndog;deep/4.jpg\n", "utf-8"),
        ("path\tlabel\n1.jpg\tcat\ndeep/4.jpg\tdog\n", "utf-8"),
        ("id,path,label,author\n7,1.jpg,cat,me\n\n8,deep/4.jpg,dog,you\n", "utf-8"),
        ('path,label\n"1.jpg",cat\n"deep\\4.jpg",dog\n', "utf-8"),
    ],
)
def test_a_csv_names_files_and_labels(text: str, encoding: str, root: Path) -> None:
    source = opened(csv(root, text, encoding=encoding))
    assert labelled(source) == {"train": [("1.jpg", "cat"), ("deep/4.jpg", "dog")]}
    assert source.splits["train"].files == (root / "1.jpg", root / "deep" / "4.jpg")
    assert (source.kind, source.name, source.place) == ("table", "labels", str(root / "labels.csv"))


def test_quotes_and_other_scripts(root: Path) -> None:
    source = opened(csv(root, 'path,label\n"with, comma.jpg","猫, wild"\n1.jpg,"a ""dog"""\n'))
    assert labelled(source)["train"] == [("1.jpg", 'a "dog"'), ("with, comma.jpg", "猫, wild")]


def test_a_column_may_name_the_split(root: Path) -> None:
    source = opened(csv(root, "path,label,split\n1.jpg,a,train\n2.jpg,b,Train\n3.jpg,a,valid\ndeep/4.jpg,b,test\n"))
    assert {split: len(images) for split, images in source.splits.items()} == {"train": 2, "val": 1, "test": 1}


def test_paths_that_all_begin_with_a_split_tell_it(root: Path) -> None:
    source = opened(csv(root, "path,label\ntrain/5.jpg,a\ntrain/6.jpg,b\nval/7.jpg,a\n"))
    assert {split: len(images) for split, images in source.splits.items()} == {"train": 2, "val": 1}
    assert any("first folder of each path" in note for note in source.notes)
    source = opened(csv(root, "path,label\ntrain/5.jpg,a\ntrain/6.jpg,b\n1.jpg,a\n"))
    assert list(source.splits) == ["train"]


def test_a_csv_of_ones_own_may_name_files_elsewhere(root: Path) -> None:
    outside = root.parent / "outside.jpg"
    source = opened(csv(root, f"path,label\n../outside.jpg,a\n{root / '1.jpg'},b\n"))
    assert source.splits["train"].files is not None
    assert {file.resolve() for file in source.splits["train"].files} == {outside, root / "1.jpg"}


def test_hugging_faces_metadata_csv(root: Path) -> None:
    csv(root, "file_name,label,text\n1.jpg,cat,hello\ndeep/4.jpg,dog,there\n", "metadata.csv")
    source = opened(root)
    assert labelled(source) == {"train": [("1.jpg", "cat"), ("deep/4.jpg", "dog")]}
    assert (source.name, source.place, source.kind) == ("photos", str(root), "table")
    assert labelled(opened(root / "metadata.csv")) == labelled(source)


def test_hugging_faces_metadata_jsonl(root: Path) -> None:
    rows = [{"file_name": "1.jpg", "label": 3}, {"file_name": "deep/4.jpg", "label": 12, "objects": {"bbox": [1]}}]
    text = "\n".join(map(json.dumps, rows)) + "\n\n"
    csv(root, text, "metadata.jsonl")
    source = opened(root)
    assert source.classes == ("12", "3")
    assert labelled(source)["train"] == [("1.jpg", "3"), ("deep/4.jpg", "12")]


def test_hugging_faces_metadata_in_each_split(root: Path) -> None:
    csv(root / "train", "file_name,label\n5.jpg,a\n6.jpg,b\n", "metadata.csv")
    csv(root / "val", '{"file_name": "7.jpg", "label": "b"}\n', "metadata.jsonl")
    source = opened(root)
    assert labelled(source) == {"train": [("train/5.jpg", "a"), ("train/6.jpg", "b")], "val": [("val/7.jpg", "b")]}
    (root / "val" / "metadata.jsonl").unlink()
    with pytest.raises(DataError, match="val has none"):
        opened(root)


# ---- what is refused


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "line 1: expected a heading with the columns path and label, found nothing"),
        ("a,b\n1.jpg,cat\n", "line 1: expected a heading .* found a, b"),
        ("path,class\n1.jpg,cat\n", "line 1: expected a heading .* found path, class"),
        ("path,label\n", "no pictures in it: expected a row for each picture"),
        ("path,label\n1.jpg,cat\n2.jpg\n", "line 3: 1 cells under 2 columns"),
        ("path,label\n1.jpg,cat\n,dog\n", "line 3: the path is ''"),
        ("path,label\n1.jpg,cat\n2.jpg,\n", "line 3: the label is ''"),
        ("path,label\n1.jpg,cat\n2.jpg,  \n", "line 3: the label is"),
        ("path,label\n1.jpg,cat\n\n\ngone.jpg,dog\n", r"line 5: there is no file '.*gone\.jpg'"),
        ("path,label\n1.jpg,cat\ndeep,dog\n", "line 3: there is no file"),
        ("path,label\n1.jpg,cat\n" + "x" * 4000 + ",dog\n", "line 3: there is no file"),
        ("path,label\n1.jpg,cat\n2.jpg,dog\n./1.jpg,dog\n", r"line 4: '\./1\.jpg' stands in line 2 already"),
        ("path,label,split\n1.jpg,cat,train\n2.jpg,dog,tarin\n", "line 3: 'tarin' is no split: did you mean 'train'"),
        ('path,label\n1.jpg,"cat\n2.jpg,dog\n', "is not CSV"),
        ('path,label\n1.jpg,"cat"x\n', "line 2: is not CSV"),
        ("path,label\n1.jpg,cat\n2.jpg,cat\n", "only one class, 'cat'"),
        ("path,label,split\n1.jpg,a,train\n2.jpg,b,train\n3.jpg,c,val\n", "val has the class 'c'"),
    ],
)
def test_an_error_names_the_table_and_the_line(text: str, complaint: str, root: Path) -> None:
    table = csv(root, text)
    with pytest.raises(DataError, match=complaint) as caught:
        opened(table)
    assert str(caught.value).startswith(str(table))


def test_text_that_is_not_utf8_is_refused_with_its_line(root: Path) -> None:
    with pytest.raises(DataError, match="line 3: is not UTF-8"):
        opened(csv(root, "path,label\n1.jpg,cat\n2.jpg,café\n", encoding="latin-1"))
    with pytest.raises(DataError, match="not UTF-8"):
        opened(csv(root, "path,label\n1.jpg,cat\n", encoding="utf-16"))


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ('{"file_name": "2.jpg", "label": ', "line 2, line 1, column .*: not JSON"),
        ('{"file_name": "\\ud800.jpg", "label": "a"}', "line 2.*half a character"),
        ('{"file_name": "2.jpg", "label": "\\udfff"}', "line 2.*half a character"),
        ('{"file_name": "2.jpg", "label": "a", "label": "b"}', "line 2.*stands twice"),
        (json.dumps({"file_name": "2.jpg", "label": "a" * 5000}), "line 2: the label is"),
        ("[1, 2]", "line 2: expected an object"),
        ("[" * 100_000, "line 2, line 1, column 65: nested more than 64 deep"),
        ('{"label": "a"}', "line 2: has no path"),
        ('{"file_name": 3, "label": "a"}', "line 2: the path is 3"),
        ('{"file_name": "2.jpg\\u0000", "label": "a"}', "line 2: the path is"),
        ('{"file_name": "2.jpg"}', "line 2: the label is None"),
        ('{"file_name": "2.jpg", "label": true}', "line 2: the label is True"),
        ('{"file_name": "2.jpg", "label": 0.5}', "line 2: the label is 0.5"),
        ('{"file_name": "2.jpg", "label": "a", "split": 1}', "line 2: 1 is no split"),
        ('{"file_name": "../outside.jpg", "label": "a"}', "line 2: .* is outside of"),
        ('{"file_name": "deep/../../outside.jpg", "label": "a"}', "line 2: .* is outside of"),
        ('{"file_name": "/etc/hostname", "label": "a"}', "line 2: .* is outside of"),
    ],
)
def test_a_json_line_that_is_wrong_is_named(row: str, complaint: str, root: Path) -> None:
    csv(root, '{"file_name": "1.jpg", "label": "b"}\n' + row + "\n", "metadata.jsonl")
    with pytest.raises(DataError, match=complaint):
        opened(root)


def test_two_metadata_files_are_one_too_many(root: Path) -> None:
    csv(root, "file_name,label\n1.jpg,a\n", "metadata.csv")
    csv(root, "{}", "metadata.jsonl")
    with pytest.raises(DataError, match=r"both metadata\.csv and metadata\.jsonl"):
        opened(root)


def test_for_evaluation_a_missing_file_is_left_for_reading_to_name(root: Path) -> None:
    source = opened(csv(root, "path,label\n1.jpg,cat\ngone.jpg,cat\n"), training=False)
    assert labelled(source) == {"train": [("1.jpg", "cat"), ("gone.jpg", "cat")]}


def test_a_huge_cell_is_refused(root: Path) -> None:
    with pytest.raises(DataError, match="line 2: is not CSV"):
        opened(csv(root, "path,label\n1.jpg," + "x" * 200_000 + "\n"))


def test_many_rows_are_read_quickly(root: Path) -> None:
    names = [f"{n}.jpg" for n in range(20_000)]
    rows: list[Any] = [f"{name},{n % 7}x" for n, name in enumerate(names)]
    source = opened(csv(root, "path,label\n" + "\n".join(rows)), training=False)
    assert len(source.splits["train"]) == 20_000
