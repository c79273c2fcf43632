from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tests.explain.engine import BOUND, Pass, checked, indices, spelled
from torch.nn import functional

from pellucid.errors import UsageError, VerificationError
from pellucid.explain import Clipping, Step, Tape, Update
from pellucid.textbook import OPTIMISERS
from pellucid.training.muon import Muon
from pellucid.training.rmsprop import KerasRMSprop

Maker = Callable[[list[torch.Tensor], float], torch.optim.Optimizer]

#: The textbook's rule -> torch's optimiser, the settings by the textbook's names, torch's names of the states.
RULES: dict[str, tuple[Maker, dict[str, float], dict[str, str]]] = {
    "gradient_descent": (lambda p, l2: torch.optim.SGD(p, 0.1, weight_decay=l2), {"lr": 0.1}, {}),
    "momentum": (
        lambda p, l2: torch.optim.SGD(p, 0.1, momentum=0.8, weight_decay=l2),
        {"lr": 0.1, "momentum": 0.8},
        {"velocity": "momentum_buffer"},
    ),
    "nesterov": (
        lambda p, l2: torch.optim.SGD(p, 0.1, momentum=0.8, nesterov=True, weight_decay=l2),
        {"lr": 0.1, "momentum": 0.8},
        {"velocity": "momentum_buffer"},
    ),
    "adagrad": (
        lambda p, l2: torch.optim.Adagrad(p, 0.1, lr_decay=0.01, weight_decay=l2),
        {"lr": 0.1, "lr_decay": 0.01, "eps": 1e-10},
        {"square_sum": "sum"},
    ),
    "adadelta": (
        lambda p, l2: torch.optim.Adadelta(p, 0.5, rho=0.8, weight_decay=l2),
        {"lr": 0.5, "rho": 0.8, "eps": 1e-6},
        {"square_average": "square_avg", "delta_average": "acc_delta"},
    ),
    "rmsprop": (
        lambda p, l2: torch.optim.RMSprop(p, 0.01, alpha=0.9, weight_decay=l2),
        {"lr": 0.01, "alpha": 0.9, "eps": 1e-8},
        {"square_average": "square_avg"},
    ),
    "adam": (
        lambda p, l2: torch.optim.Adam(p, 0.01, weight_decay=l2),
        {"lr": 0.01, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8},
        {"m": "exp_avg", "v": "exp_avg_sq"},
    ),
    "adamw": (
        lambda p, l2: torch.optim.AdamW(p, 0.01, weight_decay=l2),
        {"lr": 0.01, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8},
        {"m": "exp_avg", "v": "exp_avg_sq"},
    ),
    "rmsprop_keras": (
        lambda p, l2: KerasRMSprop(p, 0.01, rho=0.8, weight_decay=l2),
        {"lr": 0.01, "alpha": 0.8, "eps": 1e-7},
        {"square_average": "square"},
    ),
    "muon": (
        lambda p, l2: Muon([{"params": p, "orthogonal": True, "weight_decay": l2}], 0.05, momentum=0.8),
        {"lr": 0.05, "momentum": 0.8, "rounds": 3},
        {"velocity": "velocity"},
    ),
}


def trained(
    rule: str, clip: str | None = None, decay: float = 0.02, steps: int = 3, x: torch.Tensor | None = None
) -> Tape:
    """A linear classifier some steps into its training, with the coming step on the tape; the numbers are torch's."""
    make, hyper, states = RULES[rule]
    p = Pass(seed=list(RULES).index(rule))
    w, b = p.leaf("parameter", "fc.weight", p.random(4, 6)), p.leaf("parameter", "fc.bias", p.random(4))
    labels = p.leaf("constant", "labels", torch.tensor([1, 0, 3, 2, 2]))
    x = p.leaf("input", "input", p.random(5, 6) if x is None else x)
    optimizer = make([w, b], decay)

    def clipped() -> Clipping | None:
        if clip == "norm":
            return Clipping("norm", 0.5, float(torch.nn.utils.clip_grad_norm_([w, b], 0.5)))
        if clip == "value":
            torch.nn.utils.clip_grad_value_([w, b], 0.1)
            return Clipping("value", 0.1)
        return None

    for _ in range(steps - 1):
        optimizer.zero_grad()
        functional.cross_entropy(functional.linear(x, w, b), labels).backward()  # type: ignore[no-untyped-call]
        clipped()
        optimizer.step()
    y = p.op("fc", "linear", ["input", "fc.weight", "fc.bias"], functional.linear(x, w, b))
    p.op("loss", "loss", ["fc", "labels", None], functional.cross_entropy(y, labels), operation="cross_entropy")
    tape = p.tape("loss")
    tape.values.update({name: tape.values[name].copy() for name in ("fc.weight", "fc.bias")})
    named = {"fc.weight": w, "fc.bias": b}
    before: dict[str, dict[str, Any]] = {}
    for name, tensor in named.items():
        state = optimizer.state[tensor]
        before[name] = {
            ours: state[theirs].numpy().copy() if theirs in state else np.zeros(tensor.shape, np.float32)
            for ours, theirs in states.items()
        }
        tensor.grad = torch.from_numpy(tape.gradients[name].copy())
    clipping = clipped()
    optimizer.step()
    every = {name: Step(rule, {**hyper, "weight_decay": decay}, before[name], steps) for name in named}
    tape.after = {name: tensor.detach().numpy().copy() for name, tensor in named.items()}
    tape.update = Update(every, clipping)
    return tape


@pytest.mark.parametrize("clip", [None, "norm", "value"])
@pytest.mark.parametrize("rule", list(OPTIMISERS))
def test_the_step_of_every_optimiser_is_explained(rule: str, clip: str | None) -> None:
    for steps, decay in ((1, 0.0), (4, 0.02)):
        tape = trained(rule, clip, decay, steps)
        for name in ("fc.weight", "fc.bias"):
            for index in indices(tape.values[name].shape, np.random.default_rng(0), 24):
                made = checked(tape, spelled(f"{name}.next", index))
                assert made.op == rule
                sources = [term.address.partition("[")[0] for term in made.terms]
                states = [f"{name}.state.{state}" for state in OPTIMISERS[rule].states]
                # Muon's numbers are made of the whole gradient and velocity.
                assert list(dict.fromkeys(sources)) == [name, f"{name}.grad", *states]
                assert len(sources) == (1 + 2 * tape.values[name].size if rule == "muon" else 2 + len(states))


@pytest.mark.parametrize("clip", [None, "norm", "value"])
@pytest.mark.parametrize("rule", list(OPTIMISERS))
def test_coefficients_are_slopes_of_the_step_with_clipping(rule: str, clip: str | None) -> None:
    tape = trained(rule, clip)
    update = tape.update
    assert update is not None
    for index in [(0, 1), (3, 5), (2, 2)]:
        made = tape.why(spelled("fc.weight.next", index))
        assert made.made is not None
        for k, group in enumerate(made.made.groups):
            for m, value in enumerate(group.value):
                h = 1e-5 * max(abs(value), 1e-4)
                ends = []
                for step in (h, -h):
                    groups = list(made.made.groups)
                    groups[k] = replace(group, value=group.value + step * (np.arange(len(group)) == m))
                    ends.append(replace(made.made, groups=tuple(groups)).recompute())
                slope = (ends[0] - ends[1]) / (2 * h)
                assert group.coefficient[m] == pytest.approx(slope, rel=1e-4, abs=1e-6)


def test_clipping_by_norm_is_told() -> None:
    tape = trained("momentum", "norm")
    made = tape.why("fc.weight.next[1,2]")
    assert tape.update is not None
    clipping = tape.update.clipping
    assert clipping is not None
    assert clipping.norm is not None
    every = np.concatenate([tape.gradients[name].ravel() for name in ("fc.weight", "fc.bias")]).astype(float)
    assert clipping.norm == pytest.approx(np.linalg.norm(every), rel=1e-6)
    assert clipping.factor == pytest.approx(0.5 / np.linalg.norm(every), rel=1e-5)
    assert clipping.factor < 1
    first, second, third = made.details
    assert first.startswith("clip = min(1, limit/(norm + 1e-06)) = min(1, 0.5/(")
    assert second.startswith(f"g = clip·grad + weight_decay·p = {clipping.factor:.6g}·")
    assert third.startswith("velocity = 0.8·")
    assert all(line.split(" = ")[-1] for line in made.details)


def test_every_line_of_the_details_adds_up() -> None:
    """The numbers in each line, put through Python, give the number at its end."""
    for rule in OPTIMISERS:
        for clip in (None, "norm", "value"):
            for line in trained(rule, clip).why("fc.weight.next[1,2]").details:
                *_, formula, result = line.split(" = ")
                plain = formula.replace("·", "*").replace("−", "-").replace("²", "**2").replace("^", "**")
                while "√(" in plain:
                    plain = plain.replace("√(", "np.sqrt(")
                assert eval(plain, {"np": np, "min": min, "max": max}) == pytest.approx(
                    float(result.strip("()")), rel=2e-4, abs=1e-6
                ), line


def test_without_a_clip_or_a_decay_the_gradient_enters_as_it_is() -> None:
    assert trained("gradient_descent", decay=0.0).why("fc.weight.next[1,2]").details == ()
    (line,) = trained("gradient_descent", decay=0.02).why("fc.weight.next[1,2]").details
    assert line.startswith("g = grad + weight_decay·p = ")
    lines = trained("adamw", decay=0.02).why("fc.weight.next[1,2]").details
    assert [line.split(" = ")[0] for line in lines] == ["shrunk", "m", "v", "m_hat", "v_hat"]


def test_a_rate_that_does_not_decay_is_not_told() -> None:
    tape = trained("adagrad", steps=1)
    lines = tape.why("fc.weight.next[1,2]").details
    assert [line.split(" = ")[0] for line in lines] == ["g", "square_sum", "rate"]
    assert tape.update is not None
    step = tape.update.parameters["fc.weight"]
    # At the first step the rate is the learning rate, whatever its decay.
    tape.update = Update({"fc.weight": Step("adagrad", {**step.hyper, "lr_decay": 0.0}, step.state, 1)})
    lines = tape.why("fc.weight.next[1,2]").details
    assert [line.split(" = ")[0] for line in lines] == ["g", "square_sum"]


def test_what_was_remembered_is_given() -> None:
    tape = trained("adam")
    made = tape.why("fc.weight.state.v[1,2]")
    assert made.combine == "given"
    assert made.formula == "what the optimiser remembered from the steps before, given"
    assert made.value == tape.value("fc.weight.state.v[1,2]") > 0
    assert tape.why("fc.weight[1,2]").details == (
        "its gradient: fc.weight.grad[1,2]",
        "after the step: fc.weight.next[1,2]",
    )


def test_a_step_without_a_rule_is_said_to_be_one() -> None:
    tape = trained("adam")
    assert tape.update is not None
    step = tape.update.parameters["fc.weight"]
    tape.update = Update({"fc.weight": Step("Adam (amsgrad)", step.hyper, step.state, step.step)})
    with pytest.raises(
        UsageError, match=r"fc\.weight\.next\[1,2\]: the step was made by Adam \(amsgrad\), which has no"
    ):
        tape.why("fc.weight.next[1,2]")
    assert tape.value("fc.weight.next[1,2]") == tape.after["fc.weight"][1, 2]


def test_a_step_that_is_not_the_rules_is_refused() -> None:
    tape = trained("adam")
    tape.after["fc.weight"] = tape.after["fc.weight"] + np.float32(1e-3)
    with pytest.raises(VerificationError, match=r"fc\.weight\.next\[1,2\]: recomputed .* the rule of adam"):
        tape.why("fc.weight.next[1,2]")


def test_a_parameter_that_the_step_leaves_is_what_it_was() -> None:
    tape = trained("adam")
    assert tape.update is not None
    tape.update = Update({"fc.weight": tape.update.parameters["fc.weight"]})
    tape.after["fc.bias"] = tape.values["fc.bias"].copy()
    made = checked(tape, "fc.bias.next[2]")
    assert made.formula == "p, left as it was: frozen, or without a gradient"
    assert [term.address for term in made.terms] == ["fc.bias[2]"]
    assert made.residual == 0.0
    with pytest.raises(
        UsageError, match=r"fc\.bias\.state\.m: the step left fc\.bias as it was, and nothing is remembered"
    ):
        tape.value("fc.bias.state.m")
    tape.after["fc.bias"] += np.float32(0.01)
    with pytest.raises(VerificationError):
        tape.why("fc.bias.next[2]")


def test_what_no_step_changes_has_no_next() -> None:
    tape = trained("adam")
    with pytest.raises(
        UsageError,
        match=r"input: the optimiser's step is on parameters, and input is none: it has fc\.weight, fc\.bias",
    ):
        tape.why("input.next[0,0]")
    tape.update = None
    with pytest.raises(UsageError, match=r"fc\.weight: the tape has no step of an optimiser: record with an optimiser"):
        tape.why("fc.weight.next[0,0]")


def test_the_tests_bound_is_within_the_public_one() -> None:
    assert trained("adam").why("fc.weight.next[0,0]").bound == 10 * BOUND
