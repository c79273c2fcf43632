from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pellucid import nets
from pellucid.data.batches import Batches
from pellucid.data.preprocess import Preprocess
from pellucid.recipe import Engine, Precision, Recipe, settle
from pellucid.textbook import average
from pellucid.training.finetune import freeze
from pellucid.training.loop import Training, place
from pellucid.training.losses import make_loss

CPU = torch.device("cpu")


def task(model: nn.Module, engine: Engine, n: int = 50, **settings: Any) -> Training:
    recipe = settle(Recipe(engine=engine), **{"weight_decay": 0.0, **settings})
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (n, 8, 8, 3), generator=generator).to(torch.uint8)
    labels = torch.randint(0, 4, (n,), generator=generator)
    preprocess = Preprocess(size=(8, 8), resize="crop", channels=3, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
    batches = Batches(pixels, labels, preprocess, (), settings["batch_size"], seed=0)
    return Training(place(model, engine, CPU), batches, recipe, make_loss(recipe))


def network() -> nn.Module:
    return nets.build("INPUT -> CONV(8) -> POOL -> DROPOUT(0.5) -> FC(16) -> FC(classes)", 4, (3, 8, 8), seed=1)


def engine(precision: Precision = "float32", layout: str = "nchw") -> Engine:
    return Engine(precision=precision, layout=layout, threads=1)  # type: ignore[arg-type]


def test_the_losses_are_those_of_a_loop_written_by_hand() -> None:
    model = nets.build("INPUT -> CONV(8) -> POOL -> FC(classes)", 4, (3, 8, 8), seed=1)
    twin = nets.build("INPUT -> CONV(8) -> POOL -> FC(classes)", 4, (3, 8, 8), seed=1).double()
    training = task(
        model, engine("float64"), epochs=3, batch_size=16, optimizer="momentum", lr=0.05, schedule="constant"
    )
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
    training = task(
        network(), engine(precision, layout), epochs=20, batch_size=25, optimizer="adam", lr=0.01, schedule="constant"
    )
    losses = []
    for _ in range(20):
        assert sum(training.run_epoch()) == 50
        losses.append(training.sums()[0])
    assert losses[-1] < 0.7 * losses[0]
    expected = torch.float64 if precision == "float64" else torch.float32
    assert {p.dtype for p in training.model.parameters()} == {expected}


def test_an_epoch_left_and_taken_up_again_ends_as_one_that_was_not() -> None:
    whole, parted = (task(network(), engine(), epochs=2, batch_size=16) for _ in range(2))
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
    training = task(network(), engine(), epochs=2, batch_size=10, lr=1.0, schedule="cosine")
    rates: list[float] = []
    for _ in range(2):
        rates.extend(training.optimizer.param_groups[0]["lr"] for _ in training.run_epoch())
    assert rates[0] == 1.0
    assert rates[5] == pytest.approx(0.5)
    assert rates == sorted(rates, reverse=True)


def small(**settings: Any) -> Training:
    return task(network(), engine(), **{"epochs": 2, "batch_size": 10, "lr": 0.1, "schedule": "constant", **settings})


def test_clipping_by_norm_bounds_the_step_and_leaves_its_direction() -> None:
    plain, clipped = small(optimizer="sgd"), small(optimizer="sgd", clip_norm=0.01)
    moves = []
    for training in (plain, clipped):
        before = torch.cat([p.detach().flatten().clone() for p in training.model.parameters()])
        next(training.run_epoch())
        moves.append(torch.cat([p.detach().flatten() for p in training.model.parameters()]) - before)
    assert moves[0].norm() > 0.0011
    assert moves[1].norm().item() == pytest.approx(0.1 * 0.01, rel=1e-4)
    assert torch.cosine_similarity(moves[0], moves[1], dim=0).item() == pytest.approx(1, abs=1e-4)


def test_clipping_by_value_bounds_every_number() -> None:
    training = small(optimizer="sgd", clip_value=1e-4)
    before = [p.detach().clone() for p in training.model.parameters()]
    next(training.run_epoch())
    moved = torch.cat([(p.detach() - b).flatten() for p, b in zip(training.model.parameters(), before, strict=True)])
    assert moved.abs().max().item() == pytest.approx(1e-5, rel=1e-2)


def test_l1_adds_its_slope_to_matrices_and_filters_only() -> None:
    plain, pulled = small(optimizer="sgd"), small(optimizer="sgd", l1=0.01)
    start = {name: p.detach().clone() for name, p in plain.model.named_parameters()}
    for training in (plain, pulled):
        next(training.run_epoch())
    for (name, a), b in zip(plain.model.named_parameters(), pulled.model.parameters(), strict=True):
        expected = -0.1 * 0.01 * start[name].sign() if a.ndim > 1 else torch.zeros_like(a)
        assert torch.allclose(b - a, expected, atol=1e-7)


def test_the_average_is_the_textbooks() -> None:
    training = small(ema=0.9)
    seen: list[list[Any]] = []
    for _ in range(2):
        seen.extend(
            [p.detach().double().numpy().copy() for p in training.model.parameters()] for _ in training.run_epoch()
        )
    for i, kept in enumerate(training.kept.parameters()):
        expected = average.exponential_average(np.stack([weights[i] for weights in seen]), 0.9)
        assert kept.numpy() == pytest.approx(expected[-1], abs=1e-6)
    assert training.kept is not training.model


def test_adam_gives_way_to_sgd_at_its_share_of_the_run() -> None:
    training = small(optimizer="adam+sgd@0.5", lr=0.002)
    kinds = []
    rates = []
    for _ in range(2):
        for _ in training.run_epoch():
            kinds.append(type(training.optimizer).__name__)
            rates.append(training.optimizer.param_groups[0]["lr"])
    assert kinds == ["Adam"] * 5 + ["SGD"] * 5
    assert rates == [0.002] * 5 + [0.1] * 5


def test_the_whole_set_is_one_step() -> None:
    training = small(batch_size=50, epochs=3)
    assert [len(list(training.run_epoch())) for _ in range(3)] == [1, 1, 1]


def test_auxiliary_heads_pull_with_their_weight() -> None:
    """GoogLeNet's gradient is that of loss + 0.3 (auxiliary losses), written out by hand."""
    model, twin = (nets.build("googlenet", 4, (3, 32, 32), seed=1) for _ in range(2))
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (4, 32, 32, 3), generator=generator).to(torch.uint8)
    labels = torch.randint(0, 4, (4,), generator=generator)
    preprocess = Preprocess(size=(32, 32), resize="crop", channels=3, mean=(0.5,) * 3, std=(0.5,) * 3)
    recipe = settle(
        Recipe(engine=engine()), optimizer="sgd", lr=0.1, schedule="constant", weight_decay=0.0, batch_size=4, epochs=1
    )
    batches = Batches(pixels, labels, preprocess, (), 4, seed=0)
    training = Training(place(model, engine(), CPU), batches, recipe, make_loss(recipe))
    (x_nhwc, target), *_ = batches.epoch(0)
    assert isinstance(target, torch.Tensor)
    twin.train()
    torch.manual_seed(0)
    logits, auxiliary = twin.forward_with_auxiliary(preprocess.normalise(x_nhwc).contiguous())
    entropy = nn.functional.cross_entropy
    assert len(auxiliary) == 2
    whole = entropy(logits, target) + 0.3 * sum(entropy(a, target) for a in auxiliary)
    slopes = torch.autograd.grad(whole, list(twin.parameters()))
    list(training.run_epoch())
    assert training.sums()[0] == pytest.approx(entropy(logits, target).item(), rel=1e-4)
    for (name, after), before, slope in zip(model.named_parameters(), twin.parameters(), slopes, strict=True):
        assert torch.allclose(after, before - 0.1 * slope, atol=2e-5), name


def normalised() -> nn.Module:
    net = "INPUT -> CONV(4, norm=batch) -> POOL -> CONV(6, norm=batch) -> POOL -> FC(classes)"
    return nets.build(net, 4, (3, 8, 8), seed=1)


def test_what_is_frozen_stays_to_the_bit_epoch_after_epoch_statistics_and_all() -> None:
    model = normalised()
    frozen = freeze(model, 1)
    assert frozen
    recipe: dict[str, Any] = {
        "epochs": 3,
        "batch_size": 16,
        "lr": 0.1,
        "schedule": "constant",
        "weight_decay": 0.1,
        "ema": 0.5,
    }
    training = task(model, engine(), freeze=1, **recipe)
    first = next(name for name, _ in model.named_modules() if name.startswith("conv1") and "norm" in name)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for _ in range(3):
        list(training.run_epoch())
    moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert not moved & set(frozen)
    assert not {name for name in moved if name.startswith(first)}
    assert {name for name in before if name not in frozen and not name.startswith(first)} == moved
    assert training.average is not None
    assert torch.equal(training.average.state_dict()[f"{first}.running_mean"], before[f"{first}.running_mean"])


def test_every_group_follows_the_schedule_times_its_own_factor_in_both_stages() -> None:
    settings: dict[str, Any] = {"epochs": 2, "batch_size": 10, "schedule": "cosine", "optimizer": "adam+sgd@0.5"}
    plain = task(normalised(), engine(), **settings)
    deep = task(normalised(), engine(), lr_decay_by_depth=0.5, **settings)
    for _ in range(2):
        for _, _ in zip(plain.run_epoch(), deep.run_epoch(), strict=True):
            rate = plain.optimizer.param_groups[0]["lr"]
            rates = {round(group["lr"] / rate, 12) for group in deep.optimizer.param_groups}
            assert rates == {1.0, 0.5, 0.25}
            assert deep.optimizer.param_groups[0]["lr"] == rate
    assert plain.stage == deep.stage == 1


def test_a_factor_of_one_changes_nothing() -> None:
    settings: dict[str, Any] = {"epochs": 1, "batch_size": 10, "optimizer": "sgd", "lr": 0.1}
    plain, same = (task(normalised(), engine(), lr_decay_by_depth=factor, **settings) for factor in (None, 1.0))
    for training in (plain, same):
        list(training.run_epoch())
    for a, b in zip(plain.model.parameters(), same.model.parameters(), strict=True):
        assert torch.equal(a, b)
