"""Whole networks as torch records them: random numbers of the pass, of its gradients, and of the optimiser's step."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.explain.engine import BOUND, checked, spelled
from torch import nn
from torch.nn import functional

from pellucid import nets
from pellucid.errors import VerificationError
from pellucid.explain import Tape
from pellucid.explain.record import record
from pellucid.training.muon import Muon

#: The network, and the images that it takes.
NETS: dict[str, tuple[int, int, int]] = {
    "lenet5": (1, 32, 32),
    "resnet20": (3, 32, 32),
    "lstm(units=16)": (1, 12, 12),
    "rnn(units=16)": (1, 12, 12),
}


def model_of(net: str) -> nn.Module:
    torch.set_num_threads(1)
    model = nets.build(net, 10, NETS[net], seed=0)
    with torch.no_grad():
        # As after some training: a normalisation with γ = 1, β = 0 would hide mistakes in both.
        draw = torch.Generator().manual_seed(1)
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=draw))
    return model


def images_of(net: str, count: int = 2) -> torch.Tensor:
    return torch.randn((count, *NETS[net]), generator=torch.Generator().manual_seed(2))


@cache
def recorded(net: str, training: bool) -> Tape:
    return record(model_of(net), images_of(net), label=[3, 7], training=training)


def drawn(arrays: dict[str, Any], rng: np.random.Generator, count: int) -> list[tuple[str, tuple[int, ...]]]:
    """So many numbers: of every array two, then of arrays drawn by size."""
    names = [name for name, array in arrays.items() if array.size]
    size = np.array([arrays[name].size for name in names], float)
    more = rng.choice(len(names), max(0, count - 2 * len(names)), p=size / size.sum())
    chosen = [*names, *names, *(names[k] for k in more)]
    return [(name, tuple(int(rng.integers(n)) for n in arrays[name].shape)) for name in chosen]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("net", list(NETS))
def test_any_value_and_any_gradient_is_explained(net: str, training: bool) -> None:
    tape = recorded(net, training)
    rng = np.random.default_rng(0)
    for name, index in drawn(tape.values, rng, 150):
        checked(tape, spelled(name, index))
    gradients = {name: array for name, array in tape.gradients.items() if name != "loss"}
    for name, index in drawn(gradients, rng, 150):
        assert checked(tape, spelled(f"{name}.grad", index)).combine == "sum"


def test_the_small_numbers_of_a_deep_lstm_are_explained_too() -> None:
    """A unit near zero is rounded as its neighbours are: its own size is no measure of that."""
    tape = record(
        nets.build("lstm(units=96, layers=4)", 10, (1, 28, 28), seed=0), images_of("lenet5", 8)[..., :28, :28]
    )
    y, o, c = (tape.values[name].astype(float) for name in ("lstm", "lstm.3.o", "lstm.3.c"))
    scale = 2 * np.abs(o * np.tanh(c))
    judged = np.abs(y - o * np.tanh(c)) / scale
    worst = np.argsort(-judged.ravel())[:40]
    assert judged.ravel()[worst[0]] > BOUND, "there are such units"
    for k in worst:
        checked(tape, spelled("lstm", tuple(int(i) for i in np.unravel_index(k, y.shape))))
    # A thousandth of a typical unit is still seen.
    tape.values["lstm"] = tape.values["lstm"] + np.float32(np.abs(y).mean() / 1000)
    with pytest.raises(VerificationError):
        tape.why("lstm[0,20,5]")


@pytest.mark.parametrize("net", ["lenet5", "lstm(units=16)"])
def test_a_loaded_tape_answers_the_same(net: str, tmp_path: Path) -> None:
    tape = recorded(net, True)
    tape.save(tmp_path / "tape")
    back = Tape.load(tmp_path / "tape")
    rng = np.random.default_rng(1)
    for name, index in drawn(tape.values, rng, 60):
        assert back.why(spelled(name, index)).to_json() == tape.why(spelled(name, index)).to_json()
    for name, index in drawn(tape.gradients, rng, 60):
        address = spelled(f"{name}.grad", index)
        assert back.why(address).to_json() == tape.why(address).to_json()


MAKERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "gradient_descent": lambda p: torch.optim.SGD(p, 0.05, weight_decay=0.02),
    "momentum": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, weight_decay=0.02),
    "nesterov": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, nesterov=True, weight_decay=0.02),
    "adagrad": lambda p: torch.optim.Adagrad(p, 0.05, weight_decay=0.02, lr_decay=0.1),
    "adadelta": lambda p: torch.optim.Adadelta(p, 0.5, weight_decay=0.02),
    "rmsprop": lambda p: torch.optim.RMSprop(p, 0.005, weight_decay=0.02),
    "adam": lambda p: torch.optim.Adam(p, 0.005, weight_decay=0.02),
    "adamw": lambda p: torch.optim.AdamW(p, 0.005, weight_decay=0.02),
    "muon": lambda p: Muon([{"params": p, "orthogonal": True, "weight_decay": 0.02}], 0.01),
}


@pytest.mark.parametrize("clip", [None, {"norm": 0.5}, {"value": 0.01}])
@pytest.mark.parametrize("rule", list(MAKERS))
def test_any_parameter_after_a_step_is_explained(rule: str, clip: dict[str, float] | None) -> None:
    model, images, labels = model_of("lenet5"), images_of("lenet5"), torch.tensor([3, 7])
    optimizer = MAKERS[rule](model.parameters())
    for _ in range(3):
        optimizer.zero_grad()
        functional.cross_entropy(model(images), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    tape = record(model, images, label=labels, optimizer=optimizer, clip=clip)
    rng = np.random.default_rng(0)
    assert tape.after
    # A number after Muon's step has as many terms as its layer, twice over, and listing them takes its time.
    after = {name: array for name, array in tape.after.items() if rule != "muon" or array.size < 3000}
    for name, index in drawn(after, rng, 30):
        made = checked(tape, spelled(f"{name}.next", index))
        assert made.op == rule
        for term in made.terms:
            assert tape.why(term.address).value == term.value or ".grad" in term.address
    if rule in {"adam", "momentum"}:
        # The real step, for comparison: the tape's is torch's own.
        optimizer.zero_grad()
        functional.cross_entropy(model(images), labels).backward()  # type: ignore[no-untyped-call]
        if clip and "norm" in clip:
            nn.utils.clip_grad_norm_(model.parameters(), clip["norm"])
        elif clip:
            nn.utils.clip_grad_value_(model.parameters(), clip["value"])
        optimizer.step()
        for name, parameter in model.named_parameters():
            np.testing.assert_array_equal(tape.after[name], parameter.detach().numpy())
