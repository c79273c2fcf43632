from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from pellucid.data.batches import Batches
from pellucid.data.preprocess import Preprocess
from pellucid.errors import PellucidError
from pellucid.recipe import Engine, Recipe, settle
from pellucid.training.loop import Training
from pellucid.training.losses import Loss
from pellucid.training.machine import computing
from pellucid.training.sweep import FROM, STEPS, TO, smoothed, suggest, sweep

ENGINE = Engine(precision="float64", layout="nchw", threads=1)
N, SIDE = 60, 4


def squares(logits_nk: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Half the mean squared distance from the one-hot target: with a linear network, a quadratic in the weights."""
    target_nk = nn.functional.one_hot(labels, logits_nk.shape[1]).to(logits_nk.dtype)
    return 0.5 * (logits_nk - target_nk).square().sum(1).mean()


def linear(loss: Loss = squares, **settings: object) -> Training:
    """Linear regression on every picture at once, as plain gradient descent."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (N, SIDE, SIDE, 1), generator=generator).to(torch.uint8)
    labels = torch.randint(0, 3, (N,), generator=generator)
    preprocess = Preprocess((SIDE, SIDE), "crop", 1, (0.5,), (0.29,))
    model = nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE, 3)).double()
    plain = {"optimizer": "sgd", "weight_decay": 0.0, "epochs": 200, "batch_size": N, "schedule": "constant"}
    recipe = settle(Recipe(engine=ENGINE), **(plain | settings))
    return Training(model, Batches(pixels, labels, preprocess, (), N, seed=0), recipe, loss)


def limit(training: Training) -> float:
    """The rate beyond which gradient descent on this quadratic diverges: 2/λ, λ the largest eigenvalue."""
    batches = training.batches
    assert isinstance(batches.pixels_nhwc, torch.Tensor)
    x_nd = batches.preprocess.normalise(batches.pixels_nhwc, torch.float64).flatten(1)
    x_nd = torch.cat([x_nd, torch.ones(N, 1, dtype=torch.float64)], 1)
    return 2 / float(torch.linalg.eigvalsh(x_nd.T @ x_nd / N).max())


def after(rate: float, epochs: int = 60) -> list[float]:
    training = linear(lr=rate)
    losses = []
    for _ in range(epochs):
        list(training.run_epoch())
        losses.append(training.sums()[0])
    return losses


def test_on_a_quadratic_the_suggestion_is_stable_and_not_timid() -> None:
    training = linear()
    edge = limit(training)
    # The limit is what it is said to be: just below it the loss falls, just above it grows.
    below, above = after(0.98 * edge), after(1.05 * edge)
    assert below[-1] < below[0]
    assert above[-1] > above[20] > 0
    with computing(ENGINE):
        found = sweep(training)
    assert 0.01 * edge < found.suggestion < edge
    losses = after(found.suggestion)
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.8 * losses[0]


def test_the_rates_rise_by_equal_factors_over_the_usual_one() -> None:
    with computing(ENGINE):
        found = sweep(linear())
    rates = found.rates
    # It ended early, since it exploded.
    assert len(rates) == len(found.losses) == len(found.smoothed) < STEPS
    assert rates[0] == pytest.approx(0.1 * FROM)
    assert rates[1] / rates[0] == pytest.approx((TO / FROM) ** (1 / 99))
    assert rates[-1] / rates[-2] == pytest.approx((TO / FROM) ** (1 / 99))


def test_the_run_is_left_as_it_was() -> None:
    training = linear(optimizer="adam+sgd@0.6", lr="find", ema=0.9, schedule="onecycle")
    before = copy.deepcopy(training.model.state_dict())
    torch.manual_seed(3)
    state = torch.get_rng_state()
    with computing(ENGINE):
        sweep(training)
    assert torch.equal(torch.get_rng_state(), state)
    assert training.step == 0
    assert training.lowered == 1.0
    assert not training.optimizer.state
    assert all(p.grad is None for p in training.model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in training.model.state_dict().items())
    assert float(training.loss_sum) == training.seen == 0


def test_a_loss_that_falls_at_no_rate_is_refused() -> None:
    def nothing(logits_nk: torch.Tensor, _labels: torch.Tensor) -> torch.Tensor:
        return logits_nk.sum() * 0 + 1

    with (
        pytest.raises(PellucidError, match="--lr find: the loss falls at no rate from 1e-05 to 100"),
        computing(ENGINE),
    ):
        sweep(linear(nothing))


def test_the_suggestion_is_a_tenth_of_the_rate_of_the_lowest_smoothed_loss() -> None:
    rates = [10.0**i for i in range(-6, 4)]
    losses = [2.0, 2.0, 1.9, 1.5, 1.0, 0.6, 0.4, 6.0, math.inf, 9.0]
    found = suggest(rates, losses)
    assert found.lowest == rates[6]
    assert found.suggestion == pytest.approx(0.1)
    assert all(math.isfinite(value) for value in found.smoothed)


def test_smoothing_is_the_running_average_without_its_start() -> None:
    losses = [3.0, 1.0, 4.0, 1.0, 5.0]
    for i, value in enumerate(smoothed(losses), 1):
        weights = [0.9 ** (i - 1 - j) for j in range(i)]
        expected = sum(w * x for w, x in zip(weights, losses, strict=False)) / sum(weights)
        assert value == pytest.approx(expected, rel=1e-9)
