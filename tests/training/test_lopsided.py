from __future__ import annotations

import pytest

from pellucid.recipe import Recipe, settle
from pellucid.training.lopsided import lopsided, suggestion


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ({"a": 50, "b": 10}, False),
        ({"a": 51, "b": 10}, True),
        ({"a": 6, "b": 1, "c": 0}, True),
        ({"a": 5, "b": 1, "c": 0}, False),
        ({"a": 7}, False),
        ({}, False),
    ],
)
def test_above_five_to_one(counts: dict[str, int], said: bool) -> None:
    assert lopsided(counts) is said
    labels = [name for name, count in counts.items() for _ in range(count)]
    assert bool(suggestion(Recipe(), labels)) is said


def test_the_suggestion_names_both_classes_and_the_remedies() -> None:
    (sentence,) = suggestion(Recipe(), ["rose"] * 1200 + ["daisy"] * 30 + ["tulip"] * 30)
    assert sentence.startswith("lopsided: rose has 1,200 training pictures, daisy 30; --balance sample")
    assert "--balance weights" in sentence


@pytest.mark.parametrize("settings", [{"balance": "sample"}, {"balance": "weights"}, {"head": "svm"}])
def test_who_has_been_told_is_not_told_again(settings: dict[str, str]) -> None:
    assert suggestion(settle(Recipe(), **settings), ["a"] * 90 + ["b"]) == ()
