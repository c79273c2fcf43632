from __future__ import annotations

import pytest
import torch

from pellucid.recipe import Loss, Optimisation
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


@pytest.mark.parametrize("name", ["cross-entropy", "mse"])
def test_a_mixture_of_labels_is_the_label_where_one_has_all_of_it(name: Loss) -> None:
    loss = make_loss(Optimisation(loss=name))
    logits, labels = torch.randn(5, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 3, 1, 1, 2])
    whole = torch.nn.functional.one_hot(labels, 4).float()
    assert loss(logits, whole).item() == pytest.approx(loss(logits, labels).item(), rel=1e-6)
    # Half of each label: the mean of the two cross-entropies.
    if name == "cross-entropy":
        other = labels.flip(0)
        half = (whole + torch.nn.functional.one_hot(other, 4)) / 2
        expected = (loss(logits, labels) + loss(logits, other)) / 2
        assert loss(logits, half).item() == pytest.approx(expected.item(), rel=1e-6)
