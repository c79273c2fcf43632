from __future__ import annotations

import pytest
import torch
from torch import nn

from pellucid import nets
from pellucid.data.batches import Batches
from pellucid.data.preprocess import Preprocess
from pellucid.recipe import Engine, Optimisation, Precision
from pellucid.training.loop import Training, place
from pellucid.training.losses import make_loss

CPU = torch.device("cpu")


def task(model: nn.Module, engine: Engine, optimisation: Optimisation, n: int = 50) -> Training:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (n, 8, 8, 3), generator=generator).to(torch.uint8)
    labels = torch.randint(0, 4, (n,), generator=generator)
    preprocess = Preprocess(size=(8, 8), resize="crop", channels=3, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
    batches = Batches(pixels, labels, preprocess, (), optimisation.batch_size or 128, seed=0)
    return Training(place(model, engine, CPU), batches, optimisation, engine, make_loss(optimisation))


def network() -> nn.Module:
    return nets.build("INPUT -> CONV(8) -> POOL -> DROPOUT(0.5) -> FC(16) -> FC(classes)", 4, (3, 8, 8), seed=1)


def engine(precision: Precision = "float32", layout: str = "nchw") -> Engine:
    return Engine(precision=precision, layout=layout, threads=1)  # type: ignore[arg-type]


def test_the_losses_are_those_of_a_loop_written_by_hand() -> None:
    optimisation = Optimisation(
        epochs=3, batch_size=16, optimizer="momentum", lr=0.05, schedule="constant", weight_decay=0
    )
    model = nets.build("INPUT -> CONV(8) -> POOL -> FC(classes)", 4, (3, 8, 8), seed=1)
    twin = nets.build("INPUT -> CONV(8) -> POOL -> FC(classes)", 4, (3, 8, 8), seed=1).double()
    training = task(model, engine("float64"), optimisation)
    optimizer = torch.optim.SGD(twin.parameters(), 0.05, momentum=0.9)
    mean, std = torch.tensor([0.4, 0.5, 0.6], dtype=torch.float64), torch.tensor([0.2, 0.3, 0.4], dtype=torch.float64)
    for epoch in range(3):
        total = 0.0
        for x_nhwc, labels in training.batches.epoch(epoch):
            x = ((x_nhwc.double() / 255 - mean) / std).permute(0, 3, 1, 2)
            assert isinstance(labels, torch.Tensor)
            loss = nn.functional.cross_entropy(twin(x), labels)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total += loss.item() * len(labels)
        assert sum(training.run_epoch()) == 50
        assert training.sums()[0] == pytest.approx(total / 50, rel=1e-12)


@pytest.mark.parametrize("precision", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_every_engine_learns_the_same_thing(precision: Precision, layout: str) -> None:
    optimisation = Optimisation(epochs=20, batch_size=25, optimizer="adam", lr=0.01, schedule="constant")
    training = task(network(), engine(precision, layout), optimisation)
    losses = []
    for _ in range(20):
        assert sum(training.run_epoch()) == 50
        losses.append(training.sums()[0])
    assert losses[-1] < 0.7 * losses[0]
    expected = torch.float64 if precision == "float64" else torch.float32
    assert {p.dtype for p in training.model.parameters()} == {expected}


def test_an_epoch_left_and_taken_up_again_ends_as_one_that_was_not() -> None:
    optimisation = Optimisation(epochs=2, batch_size=16)
    whole, parted = (task(network(), engine(), optimisation) for _ in range(2))
    list(whole.run_epoch())
    for _ in parted.run_epoch():
        if parted.step == 2:
            break
    torch.manual_seed(99)
    list(parted.run_epoch())
    assert whole.sums() == parted.sums()
    for a, b in zip(whole.model.parameters(), parted.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_rate_follows_the_schedule_step_by_step() -> None:
    optimisation = Optimisation(epochs=2, batch_size=10, lr=1.0, schedule="cosine")
    training = task(network(), engine(), optimisation)
    rates: list[float] = []
    for _ in range(2):
        rates.extend(training.optimizer.param_groups[0]["lr"] for _ in training.run_epoch())
    assert rates[0] == 1.0
    assert rates[5] == pytest.approx(0.5)
    assert rates == sorted(rates, reverse=True)
