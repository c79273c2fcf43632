from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from pellucid.data.audit import KINDS, Audit, Problem, allowed, audit, class_problems, counted, together
from pellucid.data.decode import BadImage
from pellucid.data.images import Source, Split
from pellucid.data.reading import Facts
from pellucid.data.rules import Row, gather
from pellucid.data.source import open_source

#: Shows nothing, so that nothing is nearly like it.
FLAT = np.full((16, 16, 3), 100, np.uint8)


def source_of(*rows: tuple[Split, str, str], **settings: object) -> Source:
    """A folder with these pictures: split, label, file name."""
    made = [Row(split, label, f"{split}/{label}/{name}", Path(name)) for split, label, name in rows]
    return gather(made, place=Path("data"), kind="folder", training=False, **settings)  # type: ignore[arg-type]


def audited(
    source: Source,
    digests: Sequence[int],
    *,
    pixels: Sequence[int] | None = None,
    signatures: np.ndarray | None = None,
    sizes: Sequence[tuple[int, int]] | None = None,
    bad: dict[int, BadImage] | None = None,
    least: int = 1,
) -> Audit:
    images, split_n = together(source)
    n = len(images)
    facts = Facts.empty(n, 3)
    facts.columns["digest"][:] = digests
    facts.columns["pixels_digest"][:] = pixels or range(1000, 1000 + n)
    facts.columns["width"][:], facts.columns["height"][:] = np.array(sizes or [(100, 80)] * n).T
    facts.bad.update(bad or {})
    shown = (np.stack([FLAT] * n) if signatures is None else signatures).__getitem__
    return audit(source, images, split_n, facts, shown, least=least)


def told(found: Audit) -> list[tuple[str, str, str]]:
    return [(problem.file, problem.kind, problem.other) for problem in found.problems]


A: Split = "train"
B: Split = "val"
C: Split = "test"


def test_pictures_that_all_differ_are_fine() -> None:
    found = audited(source_of((A, "x", "1"), (A, "y", "2"), (B, "x", "3"), (B, "y", "4")), [1, 2, 3, 4])
    assert (found.problems, found.files, found.options()) == ((), 4, "")
    assert found.refusal((), 0.01) is None


@pytest.mark.parametrize("by_pixels", [False, True])
@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([(A, "x", "1"), (A, "x", "2")], [("train/x/2", "double", "train/x/1")]),
        ([(A, "x", "1"), (A, "y", "2")], [("train/y/2", "label-conflict", "train/x/1")]),
        ([(A, "x", "1"), (B, "x", "2")], [("val/x/2", "leak", "train/x/1")]),
        ([(B, "x", "1"), (C, "x", "2")], [("test/x/2", "leak", "val/x/1")]),
        (
            [(A, "x", "1"), (B, "y", "2")],
            [("val/y/2", "label-conflict", "train/x/1"), ("val/y/2", "leak", "train/x/1")],
        ),
        (
            [(A, "x", "1"), (A, "x", "2"), (A, "x", "3")],
            [("train/x/2", "double", "train/x/1"), ("train/x/3", "double", "train/x/1")],
        ),
        # The first of three is of another label than the two others, which are of two splits.
        (
            [(A, "x", "1"), (A, "y", "2"), (B, "y", "3")],
            [
                ("train/y/2", "label-conflict", "train/x/1"),
                ("val/y/3", "label-conflict", "train/x/1"),
                ("val/y/3", "leak", "train/x/1"),
            ],
        ),
        # Two in val, both of train's: no double is told beside the leaks.
        (
            [(A, "x", "1"), (B, "x", "2"), (B, "x", "3")],
            [("val/x/2", "leak", "train/x/1"), ("val/x/3", "leak", "train/x/1")],
        ),
    ],
)
def test_the_same_picture_more_than_once(
    rows: list[tuple[Split, str, str]], expected: list[tuple[str, str, str]], by_pixels: bool
) -> None:
    rest: list[tuple[Split, str, str]] = [
        (split, label, f"other {split} {label}") for split in {row[0] for row in rows} | {A} for label in ("x", "y")
    ]
    source = source_of(*rows, *rest)
    images, _ = together(source)
    same = [0 if "other" not in name else 10 + n for n, name in enumerate(images.names)]
    different = list(range(100, 100 + len(same)))
    found = audited(source, different, pixels=same) if by_pixels else audited(source, same, pixels=different)
    assert told(found) == expected
    assert all(problem.refused == (problem.kind in {"leak", "label-conflict"}) for problem in found.problems)


def test_nearly_the_same_is_told_as_such_and_small_pictures_are_not_compared() -> None:
    generator = np.random.default_rng(0)
    signatures = generator.integers(0, 256, (4, 16, 16, 3), dtype=np.uint8)
    signatures[1] = np.clip(signatures[0].astype(int) + generator.integers(-3, 4, signatures[0].shape), 0, 255)
    source = source_of((A, "x", "1"), (A, "x", "2"), (A, "y", "3"), (A, "y", "4"))
    found = audited(source, [1, 2, 3, 4], signatures=signatures)
    assert told(found) == [("train/x/2", "near-double", "train/x/1")]
    assert found.same.tolist() == [[0, 1]]
    assert told(audited(source, [1, 2, 3, 4], signatures=signatures, sizes=[(28, 28)] * 4)) == []


def test_bad_and_small_pictures_are_told_and_the_bad_compared_with_none() -> None:
    source = source_of((A, "x", "1"), (A, "x", "2"), (A, "y", "3"), (A, "y", "4"))
    bad = {n: BadImage("empty", name, "nothing") for n, name in ((0, "train/x/1"), (1, "train/x/2"))}
    found = audited(source, [7, 7, 1, 2], bad=bad, sizes=[(0, 0), (0, 0), (63, 200), (64, 64)], least=64)
    assert told(found) == [("train/x/1", "empty", ""), ("train/x/2", "empty", ""), ("train/y/3", "too-small", "")]
    assert [problem.kind for problem in found.bad] == ["empty", "empty"]
    assert "63×200" in found.problems[2].detail


@pytest.mark.parametrize(("files", "share", "may"), [(10, 0.01, 1), (1000, 0.01, 10), (1000, 0.0101, 10), (50, 0.1, 5)])
def test_a_share_of_the_files_may_be_bad(files: int, share: float, may: int) -> None:
    assert allowed(files, share) == may


def test_a_refusal_names_all_that_is_wrong_and_the_options_that_allow_it() -> None:
    problems = (
        Problem("val/x/2", "leak", "…", "train/x/1", refused=True),
        Problem("train/y/2", "label-conflict", "…", "train/x/9", refused=True),
        Problem("val/z", "class-mismatch", "val has the class 'z', which train lacks", refused=True),
        Problem("val/q", "class-mismatch", "val has no picture of 'q'"),
        *(Problem(f"train/{n}", "empty", "…") for n in range(4)),
    )
    found = Audit("data", 100, problems, np.empty((0, 2), np.int64))
    assert found.refusal((), 0.01) == (
        "data: 1 picture in more than one split (leak), first val/x/2 (as train/x/1); 1 picture under two labels "
        "(label-conflict), first train/y/2 (as train/x/9); 1 wrong with the classes (class-mismatch), first val has "
        "the class 'z', which train lacks; 4 of 100 files cannot be used (first train/0: empty): mend them (pellucid "
        "check tells all), or train all the same with --accept leak label-conflict class-mismatch --max-bad 0.04"
    )
    only = found.refusal(("leak", "class-mismatch"), 0.04)
    assert only is not None
    assert "(leak)" not in only
    assert only.endswith("--accept leak label-conflict class-mismatch")
    assert found.refusal(("leak", "label-conflict", "class-mismatch"), 0.04) is None
    assert counted(problems) == {"empty": 4, "leak": 1, "label-conflict": 1, "class-mismatch": 2}
    assert list(counted(problems)) == [kind for kind in KINDS if kind in counted(problems)]


# ---- classes


def mismatches(source: Source) -> list[tuple[str, bool]]:
    return [(problem.file, problem.refused) for problem in class_problems(source)]


def test_missing_extra_and_empty_classes_are_told_by_split() -> None:
    source = source_of(
        (A, "x", "1"),
        (A, "y", "2"),
        (B, "x", "3"),
        (B, "z", "4"),
        empty=[(A, "hollow", "train/hollow"), (B, "y", "val/y")],
    )
    assert mismatches(source) == [("train/hollow", True), ("val/y", False), ("val/z", True)]


@pytest.mark.parametrize(
    ("one", "other", "how"),
    [
        ("daisy", "Daisy", "by case"),
        ("oak tree", "oaktree", "by space"),
        ("ｄaisy", "daisy", "in how it is written"),
        ("STRASSE", "straße", "by case"),
    ],
)
def test_names_that_differ_only_in_how_they_are_written(one: str, other: str, how: str) -> None:
    (problem,) = class_problems(source_of((A, one, "1"), (A, other, "2")))
    assert problem.refused
    assert how in problem.detail
    across = class_problems(source_of((A, one, "1"), (A, "y", "2"), (B, other, "3")))
    assert how in next(problem.detail for problem in across if problem.refused)


def test_letters_great_and_small_and_numbers_are_classes_of_their_own() -> None:
    assert class_problems(source_of((A, "a", "1"), (A, "A", "2"), (A, "1", "3"), (A, "10", "4"))) == []


def test_folders_whose_names_differ_in_unicode_form_are_one_class_and_told(tmp_path: Path) -> None:
    for folder in ("caf\u00e9", "cafe\u0301", "tea"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.jpg").touch()
    source = open_source(tmp_path, training=False)
    if len(list(tmp_path.iterdir())) == 2:
        pytest.skip("this disk takes the two names for one")
    assert source.classes == ("café", "tea")
    (problem,) = class_problems(source)
    assert problem.file in {"caf\u00e9", "cafe\u0301"}
    assert not problem.refused


def test_the_folder_of_a_class_is_called_as_it_stands(tmp_path: Path) -> None:
    for folder in ("Training/a", "Training/b", "valid/a", "valid/c"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "1.jpg").touch()
    (tmp_path / "Training" / "d").mkdir()
    assert mismatches(open_source(tmp_path, training=False)) == [
        ("Training/d", True),
        ("valid/c", True),
        ("valid/b", False),
    ]
