"""A part of a recipe that could never come into effect is refused before any work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pellucid.errors import UsageError
from pellucid.recipe import Recipe, settle
from pellucid.training import run
from pellucid.training.misfits import refuse_misfits


def refuse(pictures: int = 100, **settings: Any) -> None:
    refuse_misfits(settle(Recipe(), **{"epochs": 10, "batch_size": 10, **settings}), pictures)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            {"schedule": "step@10"},
            "--schedule step@10: is longer than the run, of 10 epochs, and would never halve the rate; "
            "give at least --epochs 11, or --schedule constant",
        ),
        ({"schedule": "step@1", "epochs": 1}, "is longer than the run, of 1 epoch, and"),
        (
            {"schedule": "step", "epochs": 4, "batch_size": "all"},
            "--schedule step: needs at least 5 steps, and this run",
        ),
        ({"schedule": "tenths", "epochs": 3, "batch_size": "all"}, "--schedule tenths: needs at least 4 steps"),
        (
            {"schedule": "warmup-cosine", "epochs": 1},
            "needs at least 20 steps, and this run has 10; give more --epochs",
        ),
        ({"schedule": "plateau", "epochs": 5}, "a run of 5 epochs has no room for that; give at least --epochs 6"),
        (
            {"patience": 10},
            "--patience 10: is never over in a run of 10 epochs; leave it away, or give at least --epochs",
        ),
        (
            {"optimizer": "adam+sgd@0.99", "epochs": 1},
            "--optimizer adam+sgd@0.99: of 10 steps none is left for sgd; begin it sooner, or write --optimizer adam",
        ),
    ],
)
def test_what_has_no_room_in_the_run_is_refused(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        refuse(**settings)
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"schedule": "step@9"},
        {"schedule": "step", "epochs": 5, "batch_size": "all"},
        {"schedule": "tenths", "epochs": 4, "batch_size": "all"},
        {"schedule": "warmup-cosine", "epochs": 2},
        {"schedule": "plateau", "epochs": 6},
        {"schedule": "onecycle", "epochs": 1, "batch_size": "all"},
        {"patience": 9},
        {"optimizer": "adam+sgd@0.9", "epochs": 1},
    ],
)
def test_what_just_fits_is_not(settings: dict[str, Any]) -> None:
    refuse(**settings)


def test_it_is_refused_before_anything_is_written(tmp_path: Path, small: Recipe) -> None:
    with pytest.raises(UsageError, match="is never over in a run of 2 epochs"):
        next(iter(run(settle(small, patience=2), out=tmp_path / "run")))
    assert not (tmp_path / "run").exists()
