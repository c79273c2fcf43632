from __future__ import annotations

from pathlib import Path

import pytest

from pellucid.data.images import Source, Split
from pellucid.data.rules import Row, flippable, gather, label_of, printable
from pellucid.errors import DataError


def rows(*labelled: tuple[Split, str]) -> list[Row]:
    return [
        Row(split, label, f"{split}/{label}/{n}.jpg", Path(f"{n}.jpg")) for n, (split, label) in enumerate(labelled)
    ]


def gathered(
    *labelled: tuple[Split, str], training: bool = True, empty: tuple[tuple[Split, str, str], ...] = ()
) -> Source:
    return gather(rows(*labelled), place=Path("flowers"), kind="folder", training=training, empty=empty)


def test_classes_are_sorted_and_labels_follow_them() -> None:
    source = gathered(("train", "rose"), ("train", "aster"), ("val", "rose"), ("train", "aster"))
    assert source.classes == ("aster", "rose")
    assert list(source.splits) == ["train", "val"]
    assert source.splits["train"].names == ("train/aster/1.jpg", "train/aster/3.jpg", "train/rose/0.jpg")
    assert source.splits["train"].labels.tolist() == [0, 0, 1]
    assert source.splits["val"].labels.tolist() == [1]
    assert source.splits["train"].files == (Path("1.jpg"), Path("3.jpg"), Path("0.jpg"))
    assert (source.name, source.place) == ("flowers", "flowers")


@pytest.mark.parametrize(
    ("labelled", "empty", "complaint"),
    [
        ([], (), "no pictures in it"),
        ([("val", "a"), ("test", "b")], (), "no training pictures, only test and val"),
        ([("train", "a")], (), "only one class, 'a'"),
        ([("train", "a"), ("train", "b")], (("train", "c", "c"),), "the class 'c' has no pictures"),
        (
            [("train", "a"), ("train", "b")],
            (("train", "d", "d"), ("train", "c", "c"), ("train", "e", "e")),
            r"the class 'c' \(and 2 more\) has no pictures",
        ),
        (
            [("train", "tulips"), ("train", "roses"), ("val", "tulip")],
            (),
            r"val has the class 'tulip' \(as val/tulip/2\.jpg\), which train lacks: did you mean 'tulips'\? Rename",
        ),
        ([("train", "a"), ("train", "b"), ("test", "zebra")], (), "which train lacks: known are: a, b Rename"),
    ],
)
def test_what_cannot_be_trained_on_is_refused(
    labelled: list[tuple[Split, str]], empty: tuple[tuple[Split, str, str], ...], complaint: str
) -> None:
    with pytest.raises(DataError, match=complaint) as caught:
        gathered(*labelled, empty=empty)
    assert str(caught.value).startswith("flowers: ")


def test_a_thousand_known_classes_are_not_listed() -> None:
    with pytest.raises(DataError) as caught:
        gathered(*(("train", f"n{n:04}") for n in range(1000)), ("val", "zebra"))
    assert len(str(caught.value)) < 200


def test_for_evaluation_the_classes_are_those_that_are_there() -> None:
    source = gathered(("val", "b"), ("test", "a"), training=False, empty=(("train", "c", "c"),))
    assert source.classes == ("a", "b")
    assert gathered(("test", "a"), training=False).classes == ("a",)
    with pytest.raises(DataError, match="no pictures"):
        gathered(training=False)


def test_an_empty_class_in_val_is_no_reason_to_refuse() -> None:
    assert len(gathered(("train", "a"), ("train", "b"), empty=(("val", "a", "val/a"),)).classes) == 2


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("data/flowers", "flowers"),
        ("flowers.csv", "flowers"),
        ("flowers/metadata.csv", "flowers"),
        ("flowers/metadata.jsonl", "flowers"),
        ("flowers.v2", "flowers.v2"),
        ("/", "data"),
    ],
)
def test_the_data_is_named_after_its_place(place: str, name: str) -> None:
    source = gather(rows(("train", "a"), ("train", "b")), place=Path(place), kind="folder", training=True)
    assert source.name == name
    assert source.place == str(Path(place))


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        (("daisy", "rose"), True),
        (("0", "1", "2"), False),
        (("10", "2"), False),
        (("A", "b"), False),
        (("turn_left", "turn_right"), False),
        (("Right hand", "foot"), False),
        (("左", "前面"), False),
        (("左转", "右转"), False),
        (("bright", "leftover"), True),
        (("cat", "1"), True),
        (("猫", "狗狗"), True),
    ],
)
def test_pictures_are_mirrored_where_their_label_survives_it(classes: tuple[str, ...], expected: bool) -> None:
    assert flippable(classes) is expected
    source = gathered(*(("train", name) for name in classes))
    assert source.flip is expected
    assert any("not mirrored" in note for note in source.notes) is not expected


def test_names_can_be_printed_and_labels_agree_however_they_were_typed() -> None:
    assert printable("caf\udce9.jpg") == "caf\\xe9.jpg"
    assert label_of(" cafe\u0301 ") == label_of("caf\u00e9") == "café"
    assert printable("cafe\u0301") == "cafe\u0301"


def test_classes_that_train_lacks_can_be_left_out_and_are_named() -> None:
    labelled: tuple[tuple[Split, str], ...] = (
        ("train", "a"), ("train", "b"), ("val", "a"), ("val", "A"), ("test", "z"), ("test", "z"),
    )  # fmt: skip
    source = gather(rows(*labelled), place=Path("flowers"), kind="folder", training=True, mismatch=True)
    assert source.classes == ("a", "b")
    assert {split: images.names for split, images in source.splits.items()} == {
        "train": ("train/a/0.jpg", "train/b/1.jpg"),
        "val": ("val/a/2.jpg",),
    }
    assert [(skipped.file, skipped.label, skipped.split, skipped.kind) for skipped in source.left_out] == [
        ("test/z/4.jpg", "z", "test", "class-mismatch"),
        ("test/z/5.jpg", "z", "test", "class-mismatch"),
        ("val/A/3.jpg", "A", "val", "class-mismatch"),
    ]
