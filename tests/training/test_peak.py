from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from pellucid.data.batches import Batches
from pellucid.data.preprocess import Preprocess
from pellucid.recipe import Engine, Recipe, settle
from pellucid.training.loop import Training, place
from pellucid.training.losses import make_loss
from pellucid.training.peak import matrix_rate, step_flop


def training(model: nn.Module, precision: str = "float32") -> Training:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (6, 8, 8, 3), generator=generator).to(torch.uint8)
    preprocess = Preprocess(size=(8, 8), resize="crop", channels=3, mean=(0.5,) * 3, std=(0.3,) * 3)
    engine = Engine(precision=precision, layout="nhwc", threads=1)  # type: ignore[arg-type]
    recipe = settle(Recipe(engine=engine), epochs=1, batch_size=6, optimizer="sgd", lr=0.1)
    batches = Batches(pixels, torch.arange(6) % 5, preprocess, (), 6, seed=0)
    return Training(place(model, engine, torch.device("cpu")), batches, recipe, make_loss(recipe))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_operations_of_a_step_are_those_counted_by_hand(precision: str) -> None:
    # A convolution 3 -> 4 of 3x3 over 8x8, padded; then 256 -> 5.
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 5))
    going = training(model, precision)
    before = [p.clone() for p in model.parameters()]
    ((x_nhwc, target),) = going.batches.epoch(0)
    forward = 2 * 6 * (8 * 8 * 4 * 3 * 9 + 256 * 5)
    # Backwards: as much again for the weights; for the input as well, but not that of the first layer.
    expected = 2 * forward + 2 * 6 * 256 * 5
    assert step_flop(going, x_nhwc, target) == expected
    # Nothing was learnt by it.
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert all(p.grad is None for p in model.parameters())


def test_the_peak_is_what_this_machine_does() -> None:
    found = matrix_rate("float32", torch.device("cpu"))
    # More than a processor of the nineties, less than any of today's.
    assert 1e8 < found < 1e14
    assert np.isfinite(found)
