from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from pellucid.textbook import OPTIMISERS
from pellucid.textbook.optimiser import batches
from pellucid.training.rmsprop import KerasRMSprop

#: Our settings, and the torch optimiser with its own names for them.
PAIRS: list[tuple[str, dict[str, float], Any]] = [
    ("gradient_descent", {"lr": 0.1}, lambda p: torch.optim.SGD(p, lr=0.1)),
    ("gradient_descent", {"lr": 0.1, "weight_decay": 0.2}, lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=0.2)),
    ("momentum", {"lr": 0.1, "momentum": 0.8}, lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.8)),
    (
        "nesterov",
        {"lr": 0.1, "momentum": 0.8, "weight_decay": 0.01},
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.8, nesterov=True, weight_decay=0.01),
    ),
    ("adagrad", {"lr": 0.1, "lr_decay": 0.05}, lambda p: torch.optim.Adagrad(p, lr=0.1, lr_decay=0.05)),
    ("adagrad", {"lr": 0.1, "weight_decay": 0.1}, lambda p: torch.optim.Adagrad(p, lr=0.1, weight_decay=0.1)),
    ("adadelta", {"rho": 0.8}, lambda p: torch.optim.Adadelta(p, rho=0.8)),
    ("adadelta", {"weight_decay": 0.1}, lambda p: torch.optim.Adadelta(p, weight_decay=0.1)),
    ("rmsprop", {"lr": 0.01}, lambda p: torch.optim.RMSprop(p, lr=0.01)),
    ("rmsprop", {"alpha": 0.9, "weight_decay": 0.1}, lambda p: torch.optim.RMSprop(p, alpha=0.9, weight_decay=0.1)),
    ("rmsprop_keras", {"lr": 0.01, "weight_decay": 0.1}, lambda p: KerasRMSprop(p, lr=0.01, weight_decay=0.1)),
    ("adam", {"lr": 0.05}, lambda p: torch.optim.Adam(p, lr=0.05)),
    (
        "adam",
        {"beta1": 0.8, "beta2": 0.9, "weight_decay": 0.1},
        lambda p: torch.optim.Adam(p, betas=(0.8, 0.9), weight_decay=0.1),
    ),
    ("adamw", {"lr": 0.05}, lambda p: torch.optim.AdamW(p, lr=0.05)),
    ("adamw", {"lr": 0.05, "weight_decay": 0.3}, lambda p: torch.optim.AdamW(p, lr=0.05, weight_decay=0.3)),
]
NAMES = list(OPTIMISERS)


def slope(p: Any) -> Any:
    """The gradient of a bent valley, Σ (p²·k/2 + cos p), in NumPy or torch."""
    k = 1 + np.arange(6.0).reshape(2, 3)
    return p * (torch.from_numpy(k) if isinstance(p, torch.Tensor) else k) - (
        p.sin() if isinstance(p, torch.Tensor) else np.sin(p)
    )


@pytest.mark.parametrize(("name", "hyper", "engine"), PAIRS)
def test_fifty_steps_are_torchs(name: str, hyper: dict[str, float], engine: Any) -> None:
    ours = np.random.default_rng(0).standard_normal((2, 3))
    theirs = torch.nn.Parameter(torch.from_numpy(ours.copy()))
    rule, stepper = OPTIMISERS[name], engine([theirs])
    state = rule.start(ours)
    for step in range(1, 51):
        ours, state = rule.step(ours, slope(ours), state, step, **hyper)
        theirs.grad = slope(theirs.detach())
        stepper.step()
        np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("extra", [{}, {"weight_decay": 0.1, "clip": 0.5}])
def test_terms_recompute_the_step_and_their_coefficients_are_slopes(name: str, extra: dict[str, float]) -> None:
    rng, rule = np.random.default_rng(1), OPTIMISERS[name]
    p, state = rng.standard_normal((2, 3)), rule.start(np.zeros((2, 3)))
    for step in range(1, 5):
        g = rng.standard_normal((2, 3))
        after, next_state = rule.step(p, g, state, step, **extra)
        arrays = {"p": p, "g": g, **state}
        for index in np.ndindex(p.shape):
            terms = rule.terms(index, p, g, state, step, **extra)
            assert terms.recompute() == pytest.approx(float(after[index]), abs=1e-13 * terms.scale)
            assert terms.numbers()
            for term in terms:
                # A step in proportion to the number: averages of squares are small, and have no left side at 0.
                h = 1e-5 * abs(term.value)
                if h == 0:
                    continue
                ends = []
                for way in (h, -h):
                    moved = {k: v.copy() for k, v in arrays.items()}
                    moved[term.source][term.index] += way
                    ends.append(
                        rule.step(moved["p"], moved["g"], {k: moved[k] for k in state}, step, **extra)[0][index]
                    )
                numeric = float((ends[0] - ends[1]) / (2 * h))
                assert term.coefficient == pytest.approx(numeric, rel=1e-6, abs=1e-15 / h), term.source
        p, state = after, next_state


@pytest.mark.parametrize("name", NAMES)
def test_single_precision_stays_within_the_scale(name: str) -> None:
    rng, rule = np.random.default_rng(2), OPTIMISERS[name]
    p = rng.standard_normal((4, 5)).astype(np.float32)
    state = rule.start(p)
    for step in range(1, 6):
        g = rng.standard_normal(p.shape).astype(np.float32)
        after, next_state = rule.step(p, g, state, step)
        assert after.dtype == np.float32
        for index in np.ndindex(p.shape):
            terms = rule.terms(index, p, g, state, step)
            assert abs(terms.recompute() - float(after[index])) <= 1e-5 * terms.scale
        p, state = after, next_state


def test_batches_go_through_every_image_once() -> None:
    rng = np.random.default_rng(0)
    for size, count in ((10, 1), (1, 10), (3, 4)):
        parts = list(batches(rng, 10, size))
        assert len(parts) == count
        assert sorted(np.concatenate(parts).tolist()) == list(range(10))
    with pytest.raises(ValueError, match="size is 11, but a batch of 10 images holds 1 to 10"):
        list(batches(rng, 10, 11))


def test_refusals() -> None:
    p, adam = np.ones(2), OPTIMISERS["adam"]
    with pytest.raises(
        ValueError, match="a setting of adam is 'momentum', which is none of lr, weight_decay, clip, beta1"
    ):
        adam.step(p, p, adam.start(p), 1, momentum=0.9)
    with pytest.raises(ValueError, match="lr is -1, but the rule"):
        adam.step(p, p, adam.start(p), 1, lr=-1)
    with pytest.raises(ValueError, match=r"a state of adam is 'm', which is none of \(no state was given\)"):
        adam.step(p, p, {}, 1)
    with pytest.raises(ValueError, match="step is 0, but steps are counted from 1"):
        adam.step(p, p, adam.start(p), 0)
    with pytest.raises(ValueError, match=r"g has shape \(3,\), but one gradient a weight of p \(2,\) asks for \(2,\)"):
        adam.step(p, np.ones(3), adam.start(p), 1)
