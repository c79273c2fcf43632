from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from pellucid.training.monitor import PLATEAU_FACTOR, PLATEAU_PATIENCE, best, lowered, rank, waited


def rows(*accuracies: float, losses: list[float] | None = None) -> list[dict[str, Any]]:
    losses = losses or [1.0] * len(accuracies)
    return [
        {"epoch": i, "val_accuracy": a, "val_loss": loss, "val_auc": None}
        for i, (a, loss) in enumerate(zip(accuracies, losses, strict=True), 1)
    ]


def test_the_best_epoch_by_each_figure() -> None:
    history = rows(0.5, 0.7, 0.7, 0.6, losses=[1.0, 0.9, 0.8, 0.5])
    accuracy, loss = best(history, "val_accuracy"), best(history, "val_loss")
    assert accuracy is not None
    assert loss is not None
    assert (accuracy["epoch"], loss["epoch"]) == (3, 4)
    assert best([], "val_loss") is None
    assert rank({"val_auc": None, "val_loss": 0.1}, "val_auc") < rank({"val_auc": 0.1, "val_loss": 9.0}, "val_auc")


def test_patience_counts_from_the_best_epoch() -> None:
    assert [waited(rows(*[0.1, 0.5, 0.4, 0.4][:n]), "val_accuracy") for n in range(1, 5)] == [0, 0, 1, 2]
    assert waited([], "val_loss") == 0


@pytest.mark.parametrize("seed", range(20))
def test_plateau_lowers_the_rate_when_torchs_does(seed: int) -> None:
    losses = np.random.default_rng(seed).integers(0, 12, 60) / 10 + np.linspace(1, 0, 60)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=PLATEAU_FACTOR, patience=PLATEAU_PATIENCE, threshold=0.0, eps=0.0
    )
    history = rows(*[0.0] * 60, losses=losses.tolist())
    for n in range(1, 61):
        scheduler.step(losses[n - 1])
        assert lowered(history[:n], "val_loss") == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
