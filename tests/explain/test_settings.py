"""torch's optimisers in the textbook's words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import optim

from pellucid.explain.settings import rule_of, step_of


def group(optimizer: type[optim.Optimizer], **settings: Any) -> dict[str, Any]:
    made = optimizer([torch.zeros(2)], **settings).param_groups[0]
    return {name: value for name, value in made.items() if name != "params"}


def test_settings_and_memory_have_the_textbooks_names() -> None:
    state = {"step": np.asarray(4.0), "exp_avg": np.array([1.0, 2.0]), "exp_avg_sq": np.array([3.0, 4.0])}
    step = step_of("AdamW", group(optim.AdamW, lr=0.1, betas=(0.5, 0.6), eps=1e-3), state, np.zeros(2))
    assert (step.rule, step.step) == ("adamw", 5)
    assert step.hyper == {"lr": 0.1, "weight_decay": 0.01, "eps": 1e-3, "beta1": 0.5, "beta2": 0.6}
    assert {name: array.tolist() for name, array in step.state.items()} == {"m": [1.0, 2.0], "v": [3.0, 4.0]}


def test_before_the_first_step_nothing_is_remembered() -> None:
    step = step_of("SGD", group(optim.SGD, lr=0.1, momentum=0.9), {}, np.ones((2, 3), np.float32))
    assert (step.rule, step.step, step.hyper["momentum"]) == ("momentum", 1, 0.9)
    assert step.state["velocity"].tolist() == [[0.0] * 3] * 2
    assert step.state["velocity"].dtype == np.float32


def test_plain_descent_has_no_momentum() -> None:
    step = step_of("SGD", group(optim.SGD, lr=0.1, weight_decay=0.2), {}, np.ones(2))
    assert (step.rule, step.hyper, step.state) == ("gradient_descent", {"lr": 0.1, "weight_decay": 0.2}, {})


@pytest.mark.parametrize(
    ("optimizer", "settings"),
    [
        (optim.SGD, {"lr": 0.1, "maximize": True}),
        (optim.SGD, {"lr": 0.1, "momentum": 0.5, "dampening": 0.1}),
        (optim.RMSprop, {"momentum": 0.5}),
        (optim.RMSprop, {"centered": True}),
        (optim.Adam, {"amsgrad": True}),
        (optim.NAdam, {}),
        (optim.Rprop, {}),
    ],
)
def test_what_the_textbook_has_not_is_no_rule(optimizer: type[optim.Optimizer], settings: dict[str, Any]) -> None:
    assert rule_of(optimizer.__name__, group(optimizer, **settings)) is None


def test_a_step_without_a_rule_keeps_its_numbers() -> None:
    state = {"step": np.asarray(2.0), "mu_product": np.asarray(0.5), "exp_avg": np.ones(2)}
    step = step_of("NAdam", group(optim.NAdam, lr=0.3), state, np.zeros(2))
    assert (step.rule, step.step, step.hyper["lr"]) == ("NAdam", 3, 0.3)
    assert list(step.state) == ["exp_avg"]
    assert step_of("", {"lr": 1.0}, {}, np.zeros(2)).rule == "an optimiser of your own"
