from __future__ import annotations

import pytest
import torch

from pellucid.recipe import Loss, Recipe, settle
from pellucid.training.losses import balanced, focal, make_loss


def test_cross_entropy_of_the_lectures() -> None:
    loss = make_loss(Recipe())
    for probabilities, expected in (((0.7, 0.2, 0.1), 0.3567), ((0.1, 0.3, 0.6), 2.3026)):
        logits = torch.tensor([probabilities]).log()
        assert loss(logits, torch.tensor([0])).item() == pytest.approx(expected, abs=5e-5)


def test_label_smoothing_by_hand() -> None:
    loss = make_loss(settle(Recipe(), label_smoothing=0.3))
    p = torch.tensor([0.7, 0.2, 0.1])
    target = torch.tensor([0.8, 0.1, 0.1])
    expected = -(target * p.log()).sum().item()
    assert loss(p.log()[None], torch.tensor([0])).item() == pytest.approx(expected, rel=1e-6)


def test_mse_by_hand() -> None:
    loss = make_loss(settle(Recipe(), loss="mse"))
    logits = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]]).log()
    expected = ((0.3**2 + 0.2**2 + 0.1**2) + (0.1**2 + 0.3**2 + 0.4**2)) / 2
    assert loss(logits, torch.tensor([0, 2])).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", ["cross-entropy", "mse", "focal"])
def test_a_mixture_of_labels_is_the_label_where_one_has_all_of_it(name: Loss) -> None:
    loss = make_loss(settle(Recipe(), loss=name))
    logits, labels = torch.randn(5, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 3, 1, 1, 2])
    whole = torch.nn.functional.one_hot(labels, 4).float()
    assert loss(logits, whole).item() == pytest.approx(loss(logits, labels).item(), rel=1e-6)
    # Half of each label: the mean of the two cross-entropies.
    if name == "cross-entropy":
        other = labels.flip(0)
        half = (whole + torch.nn.functional.one_hot(other, 4)) / 2
        expected = (loss(logits, labels) + loss(logits, other)) / 2
        assert loss(logits, half).item() == pytest.approx(expected.item(), rel=1e-6)


def test_focal_by_hand() -> None:
    """Lin et al. 2017: at p = 0.9 and γ = 2 a picture counts a hundredth of its cross-entropy."""
    logits = torch.tensor([[0.9, 0.1]]).double().log()
    cross_entropy = -torch.tensor(0.9).double().log()
    assert focal(logits, torch.tensor([0])).item() == pytest.approx(0.01 * cross_entropy.item(), rel=1e-6)


@pytest.mark.parametrize("weighted", [False, True])
def test_focal_without_focus_is_cross_entropy(weighted: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(20, 3, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 3, (20,), generator=generator)
    weight = torch.tensor([0.5, 1.0, 4.0], dtype=torch.float64) if weighted else None
    expected = torch.nn.functional.cross_entropy(logits, labels, weight)
    assert focal(logits, labels, focus=0, weight_k=weight).item() == pytest.approx(expected.item(), rel=1e-12)


def test_class_weights_make_rare_classes_count_as_much_as_common_ones() -> None:
    counts = [80, 15, 5]
    weight = balanced(counts)
    assert (weight * torch.tensor(counts)).tolist() == pytest.approx([100 / 3] * 3)
    loss = make_loss(settle(Recipe(), balance="weights"), counts)
    logits, labels = torch.randn(9, 3, generator=torch.Generator().manual_seed(1)), torch.arange(9) % 3
    expected = torch.nn.functional.cross_entropy(logits, labels, weight.float())
    assert loss(logits, labels).item() == pytest.approx(expected.item(), rel=1e-6)


def test_softmax_with_two_outputs_is_sigmoid_with_one() -> None:
    generator = torch.Generator().manual_seed(2)
    two = torch.randn(50, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(0, 2, (50,), generator=generator)
    one = (two[:, 1] - two[:, 0]).detach().requires_grad_()
    softmax = torch.nn.functional.cross_entropy(two, labels)
    sigmoid = torch.nn.functional.binary_cross_entropy_with_logits(one, labels.double())
    assert softmax.item() == pytest.approx(sigmoid.item(), rel=1e-12)
    (two_slope,) = torch.autograd.grad(softmax, two)
    (one_slope,) = torch.autograd.grad(sigmoid, one)
    assert torch.allclose(two_slope[:, 1], one_slope)
