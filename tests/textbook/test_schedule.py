from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch

from pellucid.textbook import schedule


def rates(make: Callable[[Any], Any], count: int) -> list[float]:
    """The learning rates that a scheduler of torch gives."""
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1, momentum=0.9)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch asks for optimiser steps in between; only the rates matter here
        scheduler = make(optimiser)
        found = []
        for _ in range(count):
            found.append(optimiser.param_groups[0]["lr"])
            scheduler.step()
    return found


SCHEDULERS = torch.optim.lr_scheduler


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (lambda t: schedule.step(t, 0.1, every=3, factor=0.5), lambda o: SCHEDULERS.StepLR(o, 3, 0.5)),
        (lambda t: schedule.exponential(t, 0.1, gamma=0.9), lambda o: SCHEDULERS.ExponentialLR(o, 0.9)),
        (lambda t: schedule.cosine(t, 0.1, total=20, floor=0.01), lambda o: SCHEDULERS.CosineAnnealingLR(o, 20, 0.01)),
        (lambda t: schedule.one_cycle(t, 0.4, total=21), lambda o: SCHEDULERS.OneCycleLR(o, 0.4, total_steps=21)),
    ],
)
def test_they_are_torchs(ours: Callable[[int], float], theirs: Callable[[Any], Any]) -> None:
    assert [ours(t) for t in range(20)] == pytest.approx(rates(theirs, 20), rel=1e-12)


def test_the_plateau_is_torchs() -> None:
    losses = [1.0, 0.9, 0.91, 0.92, 0.9, 0.90001, 0.8, 0.85, 0.84, 0.83, 0.82, 0.81, 0.805, 0.79, 0.9, 0.9, 0.9, 0.9]
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler = SCHEDULERS.ReduceLROnPlateau(optimiser, factor=0.5, patience=2)
    ours = schedule.Plateau(0.1, factor=0.5, patience=2)
    for value in losses:
        scheduler.step(value)
        ours = ours.after(value)
        assert ours.rate == optimiser.param_groups[0]["lr"]
    assert ours.rate < 0.02, "lowered more than twice"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: schedule.step(1, 0.1, every=0), "epoch is 1 and every is 0"),
        (lambda: schedule.exponential(1, 0.1, gamma=1.5), "t is 1 and gamma 1.5"),
        (lambda: schedule.cosine(11, 0.1, total=10), "t is 11, but a schedule over 10 steps is defined for 0 ≤ t ≤ 10"),
        (
            lambda: schedule.one_cycle(10, 0.1, total=10),
            "t is 10, but a schedule over 10 steps is defined for 0 ≤ t ≤ 9",
        ),
        (lambda: schedule.one_cycle(1, 0.1, total=10, rise=0.05), r"rise is 0.05, but the peak at step 0.05·10 − 1"),
    ],
)
def test_refusals(call: Callable[[], float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
