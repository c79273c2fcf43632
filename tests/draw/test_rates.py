from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pellucid.draw.rates import sweep
from pellucid.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.figure import Figure

RATES = [10.0**i for i in range(-6, 2)]
LOSSES = [2.3, 2.3, 2.2, 1.9, 1.2, 0.9, 1.5, 900.0]


def test_the_curve_its_lowest_point_and_the_suggestion(tmp_path: Path, drawn: list[Figure]) -> None:
    sweep(RATES, LOSSES, LOSSES, 0.01, tmp_path / "lr.png")
    assert (tmp_path / "lr.png").read_bytes().startswith(b"\x89PNG")
    (axes,) = drawn[0].axes
    assert axes.get_xscale() == "log"
    steps, smooth, lowest, suggested = axes.lines
    points = [np.asarray(line.get_xydata()).tolist() for line in (steps, smooth, lowest, suggested)]
    assert points[0] == points[1] == [[rate, loss] for rate, loss in zip(RATES, LOSSES, strict=True)]
    assert points[2] == [[0.1, 0.9]]
    assert [x for x, _ in points[3]] == [0.01, 0.01]
    # What exploded does not flatten the rest.
    low, high = axes.get_ylim()
    assert low < 0.9
    assert 2.3 < high < 4
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()][2:] == ["lowest, at 0.1", "suggested, 0.01"]


def test_a_flat_curve_still_has_an_axis(tmp_path: Path, drawn: list[Figure]) -> None:
    sweep([1.0, 2.0], [0.0, 0.0], [0.0, 0.0], 0.1, tmp_path / "lr.png")
    low, high = drawn[0].axes[0].get_ylim()
    assert math.isfinite(low)
    assert low < 0 < high


@pytest.mark.parametrize(("rates", "losses"), [([], []), ([1.0, 2.0], [1.0])])
def test_what_does_not_fit_is_refused(tmp_path: Path, rates: list[float], losses: list[float]) -> None:
    with pytest.raises(UsageError, match="expected as many"):
        sweep(rates, losses, losses, 0.1, tmp_path / "lr.png")
