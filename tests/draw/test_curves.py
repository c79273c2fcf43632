from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from pellucid.draw.curves import curves
from pellucid.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def history(epochs: int, **changes: Any) -> list[dict[str, Any]]:
    rows = []
    for epoch in range(1, epochs + 1):
        share = epoch / epochs
        row = {
            "epoch": epoch,
            "step": 100 * epoch,
            "loss": 2.3 - 2 * share,
            "accuracy": 0.1 + 0.8 * share,
            "val_loss": 2.4 - 1.5 * share,
            "val_accuracy": 0.1 + 0.7 * share,
            "val_auc": 0.5 + 0.4 * share,
            "lr": 0.1 * (1 - share),
            "seconds": 1.5,
            "images_per_second": 1000.0,
        }
        rows.append(row | changes)
    return rows


def lines(axes: Axes) -> dict[str, Any]:
    """The values of the lines that the legend names."""
    return {str(line.get_label()): line.get_ydata() for line in axes.lines if not str(line.get_label()).startswith("_")}


@pytest.mark.parametrize("epochs", [1, 2, 12, 50, 500])
def test_the_numbers_drawn_are_the_history_s(tmp_path: Path, drawn: list[Figure], epochs: int) -> None:
    rows = history(epochs)
    curves(rows, tmp_path / "curves.png")
    top, middle, bottom = drawn[0].axes
    for axes, wanted in (
        (top, {"train": "loss", "val": "val_loss"}),
        (middle, {"train": "accuracy", "val": "val_accuracy", "val AUC": "val_auc"}),
        (bottom, {"learning rate": "lr"}),
    ):
        found = lines(axes)
        assert list(found) == list(wanted)
        for label, key in wanted.items():
            np.testing.assert_array_equal(found[label], [row[key] for row in rows])
        np.testing.assert_array_equal(axes.lines[0].get_xdata(), range(1, epochs + 1))
    assert [axes.get_title("left") for axes in drawn[0].axes] == ["Loss", "Accuracy", "Learning rate"]
    # One point is no line: it must have a marker.
    assert (top.lines[0].get_marker() == "o") == (epochs <= 40)
    with Image.open(tmp_path / "curves.png") as image:
        assert 700 < image.width < 1100
        assert len(image.convert("RGB").getcolors(1 << 20) or []) > 20


@pytest.mark.parametrize("epochs", [1, 2, 3, 50])
def test_epochs_are_whole_numbers(tmp_path: Path, drawn: list[Figure], epochs: int) -> None:
    curves(history(epochs), tmp_path / "curves.png")
    bottom = drawn[0].axes[2]
    low, high = bottom.get_xlim()
    assert low < 1 <= epochs < high
    ticks = [tick for tick in bottom.get_xticks() if low <= tick <= high]
    assert ticks
    assert all(tick == round(tick) for tick in ticks)


def said(figure: Figure) -> str:
    return figure.axes[0].get_title("right")


def test_the_best_epoch_is_the_most_accurate_then_the_lowest_loss(tmp_path: Path, drawn: list[Figure]) -> None:
    rows = history(5)
    for row, accuracy, loss in zip(rows, [0.5, 0.9, 0.9, 0.9, 0.8], [0.1, 0.5, 0.4, 0.4, 0.1], strict=True):
        row |= {"val_accuracy": accuracy, "val_loss": loss}
    curves(rows, tmp_path / "a.png")
    assert said(drawn[0]) == "best: epoch 3, val loss 0.4, val accuracy 0.900"
    marks = [line.get_xdata()[0] for axes in drawn[0].axes for line in axes.lines if str(line.get_label())[0] == "_"]  # type: ignore[index]
    assert marks
    assert set(marks) == {3}
    curves(rows, tmp_path / "b.png", best=5)
    assert said(drawn[1]).startswith("best: epoch 5, val loss 0.1")
    curves(rows, tmp_path / "c.png", best=99)
    assert said(drawn[2]) == ""


def test_without_validation(tmp_path: Path, drawn: list[Figure]) -> None:
    curves(history(4, val_loss=None, val_accuracy=None, val_auc=None), tmp_path / "a.png")
    rows = [{key: row[key] for key in ("epoch", "loss", "accuracy", "lr")} for row in history(4)]
    curves(rows, tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert [list(lines(axes)) for axes in drawn[0].axes] == [["train"], ["train"], ["learning rate"]]
    assert said(drawn[0]) == ""


def test_gaps_and_numbers_that_are_none(tmp_path: Path, drawn: list[Figure]) -> None:
    rows = history(6)
    rows[1]["loss"] = math.nan
    rows[2]["loss"] = math.inf
    rows[3]["loss"] = None
    rows[4]["val_accuracy"] = math.nan
    rows[5]["lr"] = "a text"
    curves(rows, tmp_path / "a.png")
    top, middle, bottom = drawn[0].axes
    assert np.isnan(lines(top)["train"]).tolist() == [False, True, True, True, False, False]
    assert np.isnan(lines(middle)["val"]).tolist() == [False] * 4 + [True, False]
    assert np.isnan(lines(bottom)["learning rate"]).tolist() == [False] * 5 + [True]
    curves([{"epoch": 1}, {"epoch": 2, "loss": None}], tmp_path / "b.png")
    assert [list(lines(axes)) for axes in drawn[1].axes] == [[], [], []]


def test_a_resumed_epoch_counts_once_and_rows_need_no_order(tmp_path: Path, drawn: list[Figure]) -> None:
    rows = history(4)
    again = {**rows[2], "loss": 0.25}
    curves([rows[3], rows[0], rows[1], rows[2], again], tmp_path / "a.png")
    loss = lines(drawn[0].axes[0])["train"]
    np.testing.assert_array_equal(loss, [rows[0]["loss"], rows[1]["loss"], 0.25, rows[3]["loss"]])


def test_a_wide_range_of_losses_is_logarithmic(tmp_path: Path, drawn: list[Figure]) -> None:
    rows = history(5)
    rows[0]["loss"] = 1e6
    curves(rows, tmp_path / "a.png")
    assert drawn[0].axes[0].get_yscale() == "log"
    assert drawn[0].axes[0].get_title("left") == "Loss (logarithmic)"
    # Not where a logarithm is not defined.
    rows[1]["loss"] = 0.0
    curves(rows, tmp_path / "b.png")
    assert drawn[1].axes[0].get_yscale() == "linear"


@pytest.mark.parametrize("changes", [{"lr": 1e-7}, {"lr": 0.0}, {"loss": 1e-6, "val_loss": 2e-6}, {"accuracy": 1.0}])
def test_titles_are_not_covered(tmp_path: Path, drawn: list[Figure], changes: dict[str, float]) -> None:
    curves(history(5, **changes), tmp_path / "a.png")
    figure = drawn[0]
    figure.draw_without_rendering()
    for axes in figure.axes:
        # The common factor of an axis stands where the title does.
        assert axes.yaxis.get_offset_text().get_text() == ""
    assert figure.axes[1].get_ylim()[1] <= 1.02


def test_panels_do_not_overlap(tmp_path: Path, drawn: list[Figure]) -> None:
    curves(history(30), tmp_path / "a.png")
    figure = drawn[0]
    figure.draw_without_rendering()
    boxes = [axes.get_tightbbox() for axes in figure.axes]
    for above, below in itertools.pairwise(boxes):
        assert above is not None
        assert below is not None
        assert above.y0 >= below.y1
    left = figure.axes[0]._left_title.get_window_extent()  # type: ignore[attr-defined]
    right = figure.axes[0]._right_title.get_window_extent()  # type: ignore[attr-defined]
    assert not left.overlaps(right)


def test_an_empty_history_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the history has no epoch"):
        curves([], tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []
