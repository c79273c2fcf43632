from __future__ import annotations

import itertools
import math
from typing import get_args

import numpy as np
import pytest
import torch
from torch import nn

from pellucid.recipe import Optimizer, Schedule
from pellucid.textbook import OPTIMISERS
from pellucid.training.optimise import learning_rate, make_optimizer, rate_of, set_rate

STEPS = 100


def rates(schedule: Schedule) -> list[float]:
    return [learning_rate(schedule, 2.0, step, STEPS) for step in range(STEPS)]


def test_constant() -> None:
    assert set(rates("constant")) == {2.0}


def test_step_halves_at_each_fifth() -> None:
    assert [rates("step")[i] for i in (0, 19, 20, 40, 99)] == [2.0, 2.0, 1.0, 0.5, 0.125]


def test_step_halves_after_so_many_steps_where_it_says() -> None:
    values = [learning_rate("step", 2.0, step, STEPS, halving=30) for step in range(STEPS)]
    assert [values[i] for i in (0, 29, 30, 59, 60, 90, 99)] == [2.0, 2.0, 1.0, 1.0, 0.5, 0.25, 0.25]


def test_tenths_falls_at_half_and_at_three_quarters() -> None:
    values = rates("tenths")
    assert [values[i] for i in (0, 49)] == [2.0, 2.0]
    assert [values[i] for i in (50, 74)] == pytest.approx([0.2, 0.2])
    assert [values[i] for i in (75, 99)] == pytest.approx([0.02, 0.02])


def test_exponential_falls_to_a_hundredth_by_equal_factors() -> None:
    values = [*rates("exponential"), learning_rate("exponential", 2.0, STEPS, STEPS)]
    ratios = [b / a for a, b in itertools.pairwise(values)]
    assert max(ratios) - min(ratios) < 1e-12
    assert values[-1] == pytest.approx(0.02)


def test_cosine_equals_torch() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.0)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for value in rates("cosine"):
        assert value == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-12)
        optimizer.step()
        scheduler.step()


def test_onecycle_climbs_to_its_peak_and_falls_to_zero() -> None:
    values = [*rates("onecycle"), learning_rate("onecycle", 2.0, STEPS, STEPS)]
    top = values.index(max(values))
    assert values[0] == pytest.approx(0.4)
    assert top == 20
    assert values[top] == pytest.approx(2.0)
    assert values == sorted(values[:top]) + sorted(values[top:], reverse=True)
    assert values[-1] == 0
    assert min(values[:-1]) > 0


def test_warmup_cosine_climbs_for_a_twentieth_then_follows_the_cosine() -> None:
    values = rates("warmup-cosine")
    assert values[:5] == pytest.approx([2 / 6, 4 / 6, 1.0, 8 / 6, 10 / 6])
    assert values[5] == pytest.approx(2.0)
    assert values[5:] == pytest.approx([1 + math.cos(math.pi * i / 95) for i in range(95)])


@pytest.mark.parametrize("schedule", get_args(Schedule))
def test_a_run_of_one_step_learns(schedule: Schedule) -> None:
    assert 0 < learning_rate(schedule, 1.0, 0, 1) <= 1.0


@pytest.mark.parametrize("name", get_args(Optimizer))
def test_weight_decay_pulls_on_matrices_only(name: Optimizer) -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 2))
    optimizer = make_optimizer(model, name, 0.01, 0.1)
    decays = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert len(decays) == len(list(model.parameters()))
    assert all(decays[id(p)] == (0.1 if p.ndim > 1 else 0.0) for p in model.parameters())
    assert {group["lr"] for group in optimizer.param_groups} == ({0.01} if name != "muon" else {0.01, 0.001})


def test_frozen_parameters_are_left_out() -> None:
    model = nn.Linear(3, 2)
    model.bias.requires_grad_(False)
    optimizer = make_optimizer(model, "nesterov", 0.1, 0.0)
    assert [p for group in optimizer.param_groups for p in group["params"]] == [model.weight]


@pytest.mark.parametrize(
    ("name", "first", "second"),
    [
        # By hand, gradient 1 twice, rate 0.1, momentum 0.9: v = 1, then 1.9; Nesterov looks ahead, g + 0.9 v.
        ("sgd", -0.1, -0.2),
        ("momentum", -0.1, -0.29),
        ("nesterov", -0.19, -0.461),
        ("adagrad", -0.1, -0.1 - 0.1 / math.sqrt(2)),
        ("adam", -0.1, -0.2),
        ("adamw", -0.1, -0.2),
        # The one layer is the last, which AdamW has, at a tenth of the rate.
        ("muon", -0.01, -0.02),
        ("rmsprop", -0.1 / math.sqrt(0.1 + 1e-7), -0.1 / math.sqrt(0.1 + 1e-7) - 0.1 / math.sqrt(0.19 + 1e-7)),
    ],
)
def test_two_steps_by_hand(name: Optimizer, first: float, second: float) -> None:
    model = nn.Linear(1, 1, bias=False).double()
    nn.init.zeros_(model.weight)
    optimizer = make_optimizer(model, name, 0.1, 0.0)
    for expected in (first, second):
        model.weight.grad = torch.ones_like(model.weight)
        optimizer.step()
        assert model.weight.item() == pytest.approx(expected, rel=1e-6)


def deep() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(2, 3))


@pytest.mark.parametrize("name", get_args(Optimizer))
def test_lower_layers_have_lower_rates_and_the_same_rule_of_decay(name: Optimizer) -> None:
    model = deep()
    optimizer = make_optimizer(model, name, 0.1, 0.3, 0.5)
    found = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    assert len(found) == len(list(model.parameters()))
    for layer, expected in (("4", 0.1), ("0", 0.05), ("1", 0.05)):
        for parameter in model.get_submodule(layer).parameters():
            beside = name == "muon" and (layer == "4" or parameter.ndim == 1)
            assert found[id(parameter)]["lr"] == pytest.approx(expected / 10 if beside else expected)
            assert found[id(parameter)]["weight_decay"] == (0.3 if parameter.ndim > 1 else 0.0)
    set_rate(optimizer, 0.4)
    for layer, expected in (("4", 0.4), ("0", 0.2)):
        weight = model.get_submodule(layer)._parameters["weight"]
        beside = name == "muon" and layer == "4"
        assert found[id(weight)]["lr"] == pytest.approx(expected / 10 if beside else expected)


@pytest.mark.parametrize("by_depth", [None, 0.5])
def test_the_shifts_of_normalisations_have_their_own_rate(by_depth: float | None) -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.GroupNorm(1, 2), nn.Flatten(), nn.Linear(2, 3))
    optimizer = make_optimizer(model, "nesterov", 0.1, 0.3, by_depth, bias_rate=16)
    set_rate(optimizer, 0.2)
    found = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    assert len(found) == len(list(model.parameters()))
    for name, parameter in model.named_parameters():
        depth = 1.0 if by_depth is None or name.startswith("4") else by_depth
        raised = 16 if name in {"1.bias", "2.bias"} else 1
        assert found[id(parameter)]["lr"] == pytest.approx(0.2 * depth * raised), name
        assert found[id(parameter)]["weight_decay"] == (0.3 if parameter.ndim > 1 else 0.0)
    assert rate_of(optimizer) == 0.2


def test_a_raised_step_is_so_many_times_as_long() -> None:
    model = nn.BatchNorm1d(1)
    optimizer = make_optimizer(model, "sgd", 0.1, 0.0, bias_rate=16)
    model.weight.grad, model.bias.grad = torch.ones(1), torch.ones(1)
    optimizer.step()
    assert model.weight.item() == pytest.approx(1 - 0.1)
    assert model.bias.item() == pytest.approx(-1.6)


def test_the_rate_is_told_though_all_that_is_trained_lies_deep() -> None:
    model = deep()
    model.get_submodule("4").requires_grad_(False)
    optimizer = make_optimizer(model, "sgd", 0.1, 0.0, 0.5)
    set_rate(optimizer, 0.3)
    assert rate_of(optimizer) == pytest.approx(0.3)


def test_without_a_decay_by_depth_every_group_has_the_rate_itself() -> None:
    optimizer = make_optimizer(deep(), "adam", 0.1, 0.3)
    set_rate(optimizer, 0.7)
    assert {group["lr"] for group in optimizer.param_groups} == {0.7}


def test_muon_has_the_hidden_matrices_and_adamw_the_rest() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 4), nn.Linear(4, 2))
    optimizer = make_optimizer(model, "muon", 0.1, 0.3)
    names = {id(p): name for name, p in model.named_parameters()}
    hidden = {names[id(p)] for group in optimizer.param_groups if group["orthogonal"] for p in group["params"]}
    assert hidden == {"0.weight", "3.weight"}
    assert rate_of(optimizer) == 0.1


@pytest.mark.parametrize("shape", [(4, 3, 3, 3), (12, 5)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_muons_steps_are_the_textbooks(shape: tuple[int, ...], layout: torch.memory_format) -> None:
    rng, rule = np.random.default_rng(0), OPTIMISERS["muon"]
    model = nn.Sequential(nn.Identity(), nn.Linear(2, 2))
    ours = rng.standard_normal(shape)
    theirs = torch.from_numpy(ours.copy())
    weight = nn.Parameter(theirs.to(memory_format=layout) if len(shape) == 4 else theirs)
    model.get_submodule("0").register_parameter("weight", weight)
    optimizer = make_optimizer(model, "muon", 0.1, 0.3)
    state = rule.start(ours)
    for step in range(1, 6):
        g = rng.standard_normal(shape)
        ours, state = rule.step(ours, g, state, step, lr=0.1, weight_decay=0.3, momentum=0.6, rounds=3)
        weight.grad = torch.from_numpy(g)
        optimizer.step()
        np.testing.assert_allclose(weight.detach().numpy(), ours, rtol=0, atol=1e-12)
