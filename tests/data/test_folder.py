from __future__ import annotations

import os
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pellucid.data.folder import open_folder, split_folders
from pellucid.data.images import Source
from pellucid.errors import DataError


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4)).save(path, {".jpg": "JPEG", ".jpeg": "JPEG"}.get(path.suffix.lower(), "PNG"))
    return path


def tree(root: Path, *names: str) -> Path:
    for name in names:
        picture(root / name)
    return root


def opened(root: Path, *, training: bool = True) -> Source:
    return open_folder(root, training=training)


def test_one_folder_a_class(tmp_path: Path) -> None:
    source = opened(tree(tmp_path / "pets", "dog/a.jpg", "cat/b.JPG", "cat/old/deep/c.png", "cat/a.JpEg"))
    assert source.classes == ("cat", "dog")
    assert list(source.splits) == ["train"]
    images = source.splits["train"]
    assert images.names == ("cat/a.JpEg", "cat/b.JPG", "cat/old/deep/c.png", "dog/a.jpg")
    assert images.labels.tolist() == [0, 0, 0, 1]
    assert images.files is not None
    assert [file.relative_to(tmp_path / "pets").as_posix() for file in images.files] == list(images.names)
    assert (source.name, source.kind, source.resize, source.flip, source.notes) == ("pets", "folder", "crop", True, ())


@pytest.mark.parametrize(
    "ending", [".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".PNG", ".TifF"]
)
def test_every_ending_that_was_promised_counts(ending: str, tmp_path: Path) -> None:
    tree(tmp_path, "a/x.png", "b/x.png")
    (tmp_path / "b" / f"y{ending}").touch()
    assert f"b/y{ending}" in opened(tmp_path).splits["train"].names


def test_hidden_files_and_what_systems_leave_are_ignored(tmp_path: Path) -> None:
    tree(
        tmp_path, "aa/x.png", "bb/x.png", ".git/x.png", "__MACOSX/aa/x.png", "aa/.thumbs/x.png", "aa/._x.png",
        ".ipynb_checkpoints/x.png", "aa/@eaDir/x.png", "$RECYCLE.BIN/x.png",
    )  # fmt: skip
    (tmp_path / "aa" / "Thumbs.db").touch()
    (tmp_path / ".DS_Store").touch()
    (tmp_path / "LICENSE.txt").touch()
    source = opened(tmp_path)
    assert source.splits["train"].names == ("aa/x.png", "bb/x.png")
    assert source.notes == ()


def test_files_that_are_no_pictures_by_their_names_are_counted(tmp_path: Path) -> None:
    tree(tmp_path, "aa/x.png", "bb/x.png")
    for name in ("aa/1.heic", "aa/2.HEIC", "bb/notes.txt", "bb/deep/README"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (note,) = opened(tmp_path).notes
    assert note.startswith("4 files are ignored")
    assert "2 .heic" in note
    assert "1 without an ending" in note


@pytest.mark.parametrize("val", ["val", "valid", "validation", "Val"])
@pytest.mark.parametrize(("train", "test"), [("train", "test"), ("Training", "testing")])
def test_folders_named_as_splits_are_splits(train: str, val: str, test: str, tmp_path: Path) -> None:
    tree(tmp_path, f"{train}/a/1.png", f"{train}/b/1.png", f"{val}/a/2.png", f"{test}/b/3.png")
    source = opened(tmp_path)
    assert list(source.splits) == ["train", "val", "test"]
    assert source.splits["val"].names == (f"{val}/a/2.png",)
    assert source.splits["test"].labels.tolist() == [1]
    assert set(split_folders(tmp_path)) == {train, val, test}


def test_two_names_for_one_split_are_refused(tmp_path: Path) -> None:
    tree(tmp_path, "train/a/1.png", "train/b/1.png", "val/a/2.png", "valid/a/2.png")
    with pytest.raises(DataError, match="both val and valid name the val split"):
        opened(tmp_path)


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    source = opened(tree(tmp_path, "train/1.png", "bus/1.png", "car/1.png"))
    assert source.classes == ("bus", "car", "train")
    assert list(source.splits) == ["train"]


def test_splits_beside_other_pictures_are_refused(tmp_path: Path) -> None:
    tree(tmp_path, "train/a/1.png", "train/b/1.png", "extra/c/1.png")
    with pytest.raises(DataError, match="'extra' beside it has pictures too"):
        opened(tmp_path)


def test_folders_without_pictures_beside_splits_are_not_in_the_way(tmp_path: Path) -> None:
    tree(tmp_path, "train/a/1.png", "train/b/1.png")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.txt").touch()
    assert opened(tmp_path).classes == ("a", "b")


def test_a_test_folder_without_classes_is_not_used_and_said_so(tmp_path: Path) -> None:
    tree(tmp_path, "train/a/1.png", "train/b/1.png", "test/1.png", "test/2.png", "train/stray.png")
    source = opened(tmp_path)
    assert list(source.splits) == ["train"]
    assert "test is not used: its 2 pictures stand in no class folder." in source.notes
    assert "1 picture in train stand in no class folder and are ignored." in source.notes


def test_empty_classes_are_refused_for_training_only(tmp_path: Path) -> None:
    tree(tmp_path, "a/1.png", "b/1.png")
    (tmp_path / "c" / "deep").mkdir(parents=True)
    (tmp_path / "c" / "deep" / "a.txt").touch()
    with pytest.raises(DataError, match="the class 'c' has no pictures"):
        opened(tmp_path)
    assert opened(tmp_path, training=False).classes == ("a", "b")


@pytest.mark.parametrize(
    ("names", "complaint"),
    [
        ([], "no pictures in it: expected one folder a class"),
        (["1.png", "2.png"], "2 pictures in it, but no folders: make one folder a class"),
        (["train/1.png", "test/1.png"], "train: 1 picture in it, but no folders"),
        (["a/1.png"], "only one class, 'a'"),
        (["train/a/1.png", "val/a/1.png"], "only one class, 'a'"),
        (["val/a/1.png", "val/b/1.png"], "no training pictures, only val"),
        (["train/a/1.png", "train/b/1.png", "val/c/1.png"], "val has the class 'c'"),
    ],
)
def test_what_is_no_training_data_is_refused(names: list[str], complaint: str, tmp_path: Path) -> None:
    root = tree(tmp_path / "data", *names)
    root.mkdir(exist_ok=True)
    with pytest.raises(DataError, match=complaint) as caught:
        opened(root)
    assert str(caught.value).startswith(str(root))


def test_one_folder_too_many_is_recognised(tmp_path: Path) -> None:
    tree(tmp_path, "flowers/rose/1.png", "flowers/tulip/1.png")
    with pytest.raises(DataError, match=f"did you mean {tmp_path / 'flowers'}\\?$"):
        opened(tmp_path)


def test_evaluation_takes_what_is_there(tmp_path: Path) -> None:
    tree(tmp_path, "test/a/1.png")
    source = opened(tmp_path, training=False)
    assert (list(source.splits), source.classes) == (["test"], ("a",))
    (tmp_path / "empty" / "a").mkdir(parents=True)
    with pytest.raises(DataError, match="no pictures"):
        opened(tmp_path / "empty", training=False)


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_links_are_followed_and_circles_end(tmp_path: Path) -> None:
    root = tree(tmp_path / "data", "a/1.png", "b/2.png")
    tree(tmp_path / "elsewhere", "c/3.png")
    (root / "c").symlink_to(tmp_path / "elsewhere" / "c")
    (root / "a" / "up").symlink_to(root)
    (root / "a" / "self").symlink_to(root / "a")
    (root / "b" / "again.png").symlink_to(root / "b" / "2.png")
    source = opened(root)
    assert source.classes == ("a", "b", "c")
    assert source.splits["train"].names == ("a/1.png", "b/2.png", "b/again.png", "c/3.png")


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_a_link_that_leads_nowhere_is_left_for_reading_to_name(tmp_path: Path) -> None:
    root = tree(tmp_path, "a/1.png", "b/1.png")
    (root / "a" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    assert "a/gone.png" in opened(root).splits["train"].names


@pytest.mark.skipif(sys.platform != "linux", reason="other systems compose names, or refuse odd bytes")
def test_one_class_typed_in_two_ways_is_one_class(tmp_path: Path) -> None:
    tree(tmp_path, "train/caf\u00e9/1.png", "train/cafe\u0301/2.png", "train/tea/1.png", "val/cafe\u0301/3.png")
    source = opened(tmp_path)
    assert source.classes == ("caf\u00e9", "tea")
    assert len(source.splits["train"]) == 3
    assert source.splits["val"].names == ("val/cafe\u0301/3.png",)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse odd bytes in names")
def test_names_that_are_no_utf8_can_be_read_and_printed(tmp_path: Path) -> None:
    tree(tmp_path, "a/1.png", "b/1.png")
    odd = os.fsencode(tmp_path / "a") + b"/caf\xe9.png"
    Path(os.fsdecode(odd)).write_bytes((tmp_path / "a" / "1.png").read_bytes())
    images = opened(tmp_path).splits["train"]
    assert images.names[1] == "a/caf\\xe9.png"
    "".join(images.names).encode()
    assert images.files is not None
    assert images.files[1].read_bytes()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_folder_that_may_not_be_entered_is_named(tmp_path: Path) -> None:
    root = tree(tmp_path, "a/1.png", "b/1.png")
    (root / "b").chmod(0)
    try:
        with pytest.raises(DataError, match=r"b: cannot be listed \(Permission denied\)"):
            opened(root)
    finally:
        (root / "b").chmod(0o700)


def test_a_folder_that_vanished_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be listed"):
        opened(tmp_path / "gone")


def test_the_order_is_that_of_the_names_whatever_the_disk_says(tmp_path: Path) -> None:
    names = [f"c{k}/{n}.png" for k in range(3) for n in np.random.default_rng(k).permutation(12)]
    images = opened(tree(tmp_path, *names)).splits["train"]
    assert list(images.names) == sorted(names)


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_a_link_to_itself_is_left_for_reading_to_name(tmp_path: Path) -> None:
    root = tree(tmp_path, "a/1.png", "b/1.png")
    (root / "a" / "loop.png").symlink_to("loop.png")
    (root / "b" / "loop").symlink_to("loop")
    assert opened(root).splits["train"].names == ("a/1.png", "a/loop.png", "b/1.png")


def test_a_million_files_are_listed_in_half_a_gigabyte(tmp_path: Path) -> None:
    """Of 20,000: at most 500 bytes each at the highest, names of 24 letters included."""
    for k in range(4):
        (tmp_path / f"class {k}").mkdir()
        for n in range(5000):
            os.close(os.open(tmp_path / f"class {k}" / f"a tiny picture {n:05}.jpg", os.O_CREAT))
    tracemalloc.start()
    try:
        source = opened(tmp_path)
        highest = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(source.splits["train"]) == 20_000
    assert highest < 500 * 20_000


def test_empty_folders_are_told_where_they_stand(tmp_path: Path) -> None:
    tree(tmp_path, "train/a/1.png", "train/b/1.png", "val/a/1.png")
    for hollow in ("train/c", "val/b", "val/d"):
        (tmp_path / hollow).mkdir()
    source = opened(tmp_path, training=False)
    assert source.empty == (("train", "c", "train/c"), ("val", "b", "val/b"), ("val", "d", "val/d"))
    assert open_folder(tmp_path, training=True, mismatch=True).classes == ("a", "b")
