from __future__ import annotations

import pytest
import torch

from pellucid.recipe import Optimisation
from pellucid.training.losses import make_loss


def test_cross_entropy_of_the_lectures() -> None:
    loss = make_loss(Optimisation())
    for probabilities, expected in (((0.7, 0.2, 0.1), 0.3567), ((0.1, 0.3, 0.6), 2.3026)):
        logits = torch.tensor([probabilities]).log()
        assert loss(logits, torch.tensor([0])).item() == pytest.approx(expected, abs=5e-5)


def test_label_smoothing_by_hand() -> None:
    loss = make_loss(Optimisation(label_smoothing=0.3))
    p = torch.tensor([0.7, 0.2, 0.1])
    target = torch.tensor([0.8, 0.1, 0.1])
    expected = -(target * p.log()).sum().item()
    assert loss(p.log()[None], torch.tensor([0])).item() == pytest.approx(expected, rel=1e-6)


def test_mse_by_hand() -> None:
    loss = make_loss(Optimisation(loss="mse"))
    logits = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]]).log()
    expected = ((0.3**2 + 0.2**2 + 0.1**2) + (0.1**2 + 0.3**2 + 0.4**2)) / 2
    assert loss(logits, torch.tensor([0, 2])).item() == pytest.approx(expected, rel=1e-6)
