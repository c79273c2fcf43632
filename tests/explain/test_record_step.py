"""The optimiser's step on a tape is the step that the optimiser takes, and the user's is not taken."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import pytest
import torch
from tests.explain.recording import assert_untouched, images, pooled, small, state
from torch import nn, optim
from torch.nn import functional

from pellucid.explain.record import record
from pellucid.recipe import Optimizer
from pellucid.textbook import OPTIMISERS
from pellucid.training.muon import Muon
from pellucid.training.optimise import make_optimizer
from pellucid.training.rmsprop import KerasRMSprop

Maker = Callable[[Any], optim.Optimizer]

RULES: dict[str, tuple[str, Maker]] = {
    "sgd": ("gradient_descent", lambda p: optim.SGD(p, 0.1, weight_decay=0.01)),
    "momentum": ("momentum", lambda p: optim.SGD(p, 0.1, momentum=0.8)),
    "nesterov": ("nesterov", lambda p: optim.SGD(p, 0.1, momentum=0.8, nesterov=True, weight_decay=0.01)),
    "adagrad": ("adagrad", lambda p: optim.Adagrad(p, 0.1, lr_decay=0.1, initial_accumulator_value=0.2)),
    "adadelta": ("adadelta", lambda p: optim.Adadelta(p, 0.7, rho=0.8)),
    "rmsprop": ("rmsprop", lambda p: optim.RMSprop(p, 0.01, alpha=0.9)),
    "rmsprop, Keras's": ("rmsprop_keras", lambda p: KerasRMSprop(p, 0.01, weight_decay=0.1)),
    "adam": ("adam", lambda p: optim.Adam(p, 0.01, betas=(0.8, 0.99), weight_decay=0.1)),
    "adam, the decay apart": ("adamw", lambda p: optim.Adam(p, 0.01, weight_decay=0.1, decoupled_weight_decay=True)),
    "adamw": ("adamw", lambda p: optim.AdamW(p, torch.tensor(0.01), weight_decay=0.1)),
    "muon": ("muon", lambda p: Muon([{"params": p, "orthogonal": True, "weight_decay": 0.1}], 0.05)),
    "beside muon": ("adamw", lambda p: Muon([{"params": p, "weight_decay": 0.1}], 0.05)),
}
BEYOND: dict[str, tuple[str, Maker]] = {
    "maximize": ("SGD (maximize)", lambda p: optim.SGD(p, 0.1, maximize=True)),
    "dampening": ("SGD (dampening, momentum)", lambda p: optim.SGD(p, 0.1, momentum=0.9, dampening=0.1)),
    "amsgrad": ("Adam (amsgrad)", lambda p: optim.Adam(p, 0.1, amsgrad=True)),
    "centered": ("RMSprop (centered)", lambda p: optim.RMSprop(p, 0.1, centered=True)),
    "rmsprop with momentum": ("RMSprop (momentum)", lambda p: optim.RMSprop(p, 0.1, momentum=0.5)),
    "nadam": ("NAdam", lambda p: optim.NAdam(p, 0.1)),
}


def trained(make: Maker, steps: int) -> tuple[Any, optim.Optimizer]:
    model = small(lambda m, x: pooled(m, m.conv(x).relu()))
    optimizer = make(model.parameters())
    for seed in range(steps):
        optimizer.zero_grad()
        functional.cross_entropy(model(images(seed=seed)), torch.tensor([0, 1])).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return model, optimizer


def stepped(model: Any, optimizer: optim.Optimizer, clip: dict[str, float] | None = None) -> dict[str, Any]:
    """The parameters after the engine's own step."""
    optimizer.zero_grad()
    functional.cross_entropy(model(images()), torch.tensor([0, 1])).backward()  # type: ignore[no-untyped-call]
    if clip and "norm" in clip:
        nn.utils.clip_grad_norm_(model.parameters(), clip["norm"])
    elif clip:
        nn.utils.clip_grad_value_(model.parameters(), clip["value"])
    optimizer.step()
    return {name: p.detach().numpy().copy() for name, p in model.named_parameters()}


def remembered(optimizer: optim.Optimizer) -> list[Any]:
    """The optimiser's state, copied."""
    return copy.deepcopy([optimizer.state_dict()["state"], optimizer.state_dict()["param_groups"]])


@pytest.mark.parametrize("steps", [0, 2])
@pytest.mark.parametrize("name", RULES)
def test_the_step_is_the_engines_and_follows_the_rule(name: str, steps: int) -> None:
    rule, make = RULES[name]
    model, optimizer = trained(make, steps)
    before, memory = state(model), remembered(optimizer)
    tape = record(model, images(), [0, 1], optimizer=optimizer)
    assert_untouched(model, before)
    torch.testing.assert_close(remembered(optimizer), memory, rtol=0, atol=0)
    assert tape.update is not None
    assert set(tape.update.parameters) == set(tape.after) == {"conv.weight", "conv.bias", "fc.weight", "fc.bias"}
    after = stepped(model, optimizer)
    for parameter, step in tape.update.parameters.items():
        np.testing.assert_array_equal(tape.after[parameter], after[parameter])
        assert (step.rule, step.step) == (rule, steps + 1 if "step" in memory[0].get(0, {}) or not steps else step.step)
        assert set(step.state) == set(OPTIMISERS[rule].states)
        p, g = tape.values[parameter].astype(float), tape.gradients[parameter].astype(float)
        moments = {key: array.astype(float) for key, array in step.state.items()}
        made, _ = OPTIMISERS[rule].step(p, g, moments, step.step, **step.hyper)
        np.testing.assert_allclose(made, after[parameter], rtol=0, atol=2e-6 * np.abs(p).max())


@pytest.mark.parametrize("name", BEYOND)
def test_a_rule_that_the_textbook_has_not_is_said_to_be_none(name: str) -> None:
    rule, make = BEYOND[name]
    model, optimizer = trained(make, 1)
    tape = record(model, images(), [0, 1], optimizer=optimizer)
    assert tape.update is not None
    assert {step.rule for step in tape.update.parameters.values()} == {rule}
    assert rule not in OPTIMISERS
    after = stepped(model, optimizer)
    for parameter, array in tape.after.items():
        np.testing.assert_array_equal(array, after[parameter])


def test_an_optimiser_of_ones_own_is_not_taken_for_torchs() -> None:
    class SGD(optim.SGD):
        """As torch's by name, and perhaps not by what it does."""

    model, optimizer = trained(lambda p: SGD(p, 0.1), 0)
    tape = record(model, images(), [0, 1], optimizer=optimizer)
    assert tape.update is not None
    assert tape.update.parameters["conv.weight"].rule == "an optimiser of your own"


@pytest.mark.parametrize("clip", [{"norm": 0.05}, {"norm": 1e3}, {"value": 0.01}])
def test_gradients_are_clipped_before_the_step_and_kept_as_they_were(clip: dict[str, float]) -> None:
    model, optimizer = trained(lambda p: optim.SGD(p, 0.1), 0)
    plain = record(model, images(), [0, 1]).gradients
    tape = record(model, images(), [0, 1], optimizer=optimizer, clip=clip)
    for name, gradient in plain.items():
        np.testing.assert_array_equal(tape.gradients[name], gradient, name)
    assert tape.update is not None
    assert tape.update.clipping is not None
    kind, limit = next(iter(clip.items()))
    assert (tape.update.clipping.kind, tape.update.clipping.limit) == (kind, limit)
    after = stepped(model, optimizer, clip)
    norm = np.sqrt(sum((plain[name].astype(float) ** 2).sum() for name in after))
    if kind == "norm":
        assert tape.update.clipping.norm == pytest.approx(norm, rel=1e-6)
        assert (tape.update.clipping.factor < 1) == (norm > limit)
    else:
        assert tape.update.clipping.norm is None
    for name, array in after.items():
        np.testing.assert_array_equal(tape.after[name], array)


def test_groups_have_their_own_settings_and_schedules_stand() -> None:
    model = small(lambda m, x: pooled(m, m.conv(x)))
    groups = [{"params": model.conv.parameters(), "lr": 0.5}, {"params": [model.fc.weight]}]
    optimizer = optim.SGD(groups, lr=0.1, momentum=0.9)
    schedule = optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    optimizer.step()
    schedule.step()
    tape = record(model, images(), [0, 1], optimizer=optimizer)
    assert tape.update is not None
    rates = {name: step.hyper["lr"] for name, step in tape.update.parameters.items()}
    assert rates == {"conv.weight": 0.25, "conv.bias": 0.25, "fc.weight": 0.05}
    np.testing.assert_array_equal(tape.after["fc.bias"], tape.values["fc.bias"])
    assert schedule.get_last_lr() == [0.25, 0.05]


def test_frozen_and_unused_parameters_stay() -> None:
    model = small(lambda m, x: pooled(m, m.conv(x)), spare=nn.Linear(2, 2))
    model.conv.weight.requires_grad_(False)
    optimizer = optim.SGD(model.parameters(), 0.1, weight_decay=0.5)
    tape = record(model, images(), [0, 1], optimizer=optimizer)
    assert tape.update is not None
    assert set(tape.update.parameters) == {"conv.bias", "fc.weight", "fc.bias"}
    for name in ("conv.weight", "spare.weight", "spare.bias"):
        np.testing.assert_array_equal(tape.after[name], tape.values[name])
    assert "spare.weight" not in tape.gradients


def test_the_gradients_the_user_has_are_not_what_is_stepped_on() -> None:
    model, optimizer = trained(lambda p: optim.SGD(p, 0.1), 1)
    tape = record(model, images(), [0, 1], optimizer=optimizer)
    for name, array in tape.after.items():
        p, g = tape.values[name].astype(float), tape.gradients[name].astype(float)
        np.testing.assert_allclose(array, p - 0.1 * g, atol=1e-7)


@pytest.mark.parametrize("name", get_args(Optimizer))
def test_every_optimiser_of_a_recipe_has_a_rule(name: Any) -> None:
    model = small(lambda m, x: pooled(m, m.conv(x)))
    tape = record(model, images(), [0, 1], optimizer=make_optimizer(model, name, 0.01, 0.1))
    assert tape.update is not None
    assert {step.rule for step in tape.update.parameters.values()} <= set(OPTIMISERS)
    decay = {parameter: step.hyper.get("weight_decay") for parameter, step in tape.update.parameters.items()}
    assert decay["fc.weight"] == 0.1
    assert decay["fc.bias"] == 0.0
