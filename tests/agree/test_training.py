"""A whole network: LeNet-5 of textbook functions alone, and LeNet-5 in the engine, step by step from the same seed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pellucid import nets
from pellucid.data import open_source
from pellucid.data.batches import Batches, cuts, order
from pellucid.data.preprocess import Preprocess
from pellucid.recipe import Engine, Optimizer, Recipe, settle
from pellucid.textbook import lenet5
from pellucid.training.loop import Training, place
from pellucid.training.losses import make_loss

SEED, BATCH, EPOCHS = 5, 64, 3


@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
def test_three_epochs_on_digits_give_the_same_losses(optimizer: Optimizer) -> None:
    images = open_source("digits").splits["train"]
    assert images.pixels is not None
    preprocess = Preprocess((32, 32), "crop", 1, (0.0,), (1.0,))
    pixels = preprocess.fit_batch(images.pixels)
    preprocess = preprocess.with_statistics(pixels)
    lr = 0.05 if optimizer == "momentum" else 0.001
    engine = Engine(precision="float64", layout="nchw", threads=1)
    recipe = settle(
        Recipe(engine=engine), epochs=EPOCHS, batch_size=BATCH, optimizer=optimizer, lr=lr, schedule="constant",
        weight_decay=0.0,
    )  # fmt: skip
    model = nets.build("lenet5", 10, (1, 32, 32), seed=SEED)
    weights = {name: value.double().numpy().copy() for name, value in model.state_dict().items()}

    losses: list[float] = []
    loss = make_loss(recipe)

    def noted(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        value = loss(logits, labels)
        losses.append(value.item())
        return value

    batches = Batches(torch.from_numpy(pixels), torch.from_numpy(images.labels), preprocess, (), BATCH, SEED)
    training = Training(place(model, engine, torch.device("cpu")), batches, recipe, noted)
    for _ in range(EPOCHS):
        assert sum(training.run_epoch()) == len(images)

    # The textbook's own arithmetic all the way, from the same uint8 pictures.
    x_nchw = (pixels[:, None, :, :, 0] / 255 - preprocess.mean[0]) / preprocess.std[0]
    n = len(images)
    steps = (order(SEED, epoch, n)[cut] for epoch in range(EPOCHS) for cut in cuts(n, BATCH))
    hyper = {"momentum": 0.9} if optimizer == "momentum" else {}
    taught = list(lenet5.train(weights, x_nchw, images.labels, steps, optimiser=optimizer, lr=lr, **hyper))
    assert losses == pytest.approx([value for value, _ in taught], rel=1e-9)
    learnt = taught[-1][1]
    assert len(losses) == EPOCHS * len(batches)
    assert losses[-1] < 0.5 * losses[0]
    for name, value in training.model.state_dict().items():
        np.testing.assert_allclose(value.numpy(), learnt[name], rtol=0, atol=1e-9)
