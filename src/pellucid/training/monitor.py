"""The figure that a run is steered by: which epoch is best, when plateau lowers the rate, when patience is over.

All of it follows from the lines of `metrics.jsonl` written so far, so a resumed run needs to remember nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pellucid.recipe import Monitor

Rows = Sequence[Mapping[str, Any]]

#: Epochs without improvement after which plateau lowers the rate, and what it multiplies it by.
PLATEAU_PATIENCE, PLATEAU_FACTOR = 3, 0.1


def rank(row: Mapping[str, Any], monitor: Monitor) -> tuple[float, float]:
    """How good an epoch was: larger is better. Of equals the one with the smaller loss; an undefined AUC is worst."""
    loss = -float(row["val_loss"])
    if monitor == "val_loss":
        return loss, 0.0
    value = row[monitor]
    return (-math.inf if value is None else float(value)), loss


def best(rows: Rows, monitor: Monitor) -> Mapping[str, Any] | None:
    """The line of the best epoch so far, the earliest of equals; None before the first."""
    return max(rows, key=lambda row: rank(row, monitor), default=None)


def waited(rows: Rows, monitor: Monitor) -> int:
    """Epochs since the best one."""
    found = best(rows, monitor)
    return 0 if found is None else int(rows[-1]["epoch"]) - int(found["epoch"])


def lowered(rows: Rows, monitor: Monitor) -> float:
    """What plateau has multiplied the learning rate by, after these epochs.

    Each time more than three epochs in a row have not improved on the best before them (as torch's ReduceLROnPlateau
    counts with patience 3), the rate is divided by ten and the counting begins again.
    """
    factor, top, bad = 1.0, (-math.inf, -math.inf), 0
    for row in rows:
        now = rank(row, monitor)
        top, bad = (now, 0) if now > top else (top, bad + 1)
        if bad > PLATEAU_PATIENCE:
            factor, bad = factor * PLATEAU_FACTOR, 0
    return factor
