from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from pellucid import nets
from pellucid.data.batches import Batches
from pellucid.data.load import Loaded, Shown
from pellucid.data.preprocess import Preprocess
from pellucid.errors import UsageError
from pellucid.recipe import Engine, Recipe, settle
from pellucid.training import budget
from pellucid.training.budget import MOST, WIDTHS, fit_budget
from pellucid.training.losses import make_loss

ENGINE = Engine(precision="float32", layout="nchw", threads=1)


def batches(n: int) -> Batches:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (n, 8, 8, 3), generator=generator).to(torch.uint8)
    labels = torch.randint(0, 3, (n,), generator=generator)
    return Batches(pixels, labels, Preprocess((8, 8), "crop", 3, (0.5,) * 3, (0.5,) * 3), (), 16, seed=4)


def val(n: int = 7) -> Shown:
    return Loaded(np.zeros((n, 8, 8, 3), np.uint8), np.zeros(n, np.int64), tuple("abcdefg"[:n]), (), ())


def build(net: str) -> nn.Module:
    return nets.build(net, 3, (3, 8, 8), seed=0)


def fitted(seconds: float, pictures: int = 64, build: Callable[[str], nn.Module] = build, **settings: object) -> Recipe:
    recipe = settle(Recipe(data="d", engine=ENGINE), budget=seconds, **settings)
    return fit_budget(recipe, build, batches(pictures), val(), make_loss(recipe, [1, 1, 1])).recipe


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A machine on which an epoch of `quick` takes (width/16)² seconds; and the networks that it was asked about."""
    asked: list[str] = []

    def seconds(model: nets.Network, *_: object) -> float:
        asked.append(model.text)
        width = model.get_parameter("block1.conv.weight").shape[0]
        return (width / 16) ** 2

    monkeypatch.setattr(budget, "_epoch_seconds", seconds)
    return asked


@pytest.mark.parametrize(
    ("seconds", "width", "epochs"),
    [
        # An epoch takes 1, 2.25, 4, 9, 16, 36 and 64 seconds; it must be 1, 1, 1, 4, 8, 16 and 24 of them at least.
        (1.0, 16, 1),
        (2.3, 24, 1),
        (5.0, 32, 1),
        (35.0, 32, 8),
        (36.0, 48, 4),
        (127.0, 48, 14),
        (128.0, 64, 8),
        (1536.0, 128, 24),
    ],
)
def test_the_width_grows_with_the_time(
    timed: list[str], monkeypatch: pytest.MonkeyPatch, seconds: float, width: int, epochs: int
) -> None:
    monkeypatch.setattr(budget, "LOOKED_AT", 64)
    recipe = fitted(seconds)
    assert (recipe.net, recipe.optimisation.epochs) == (f"quick({width})", epochs)
    assert recipe.optimisation.budget is None
    # What is too wide was asked about once, and nothing beyond it.
    assert len(timed) == min(len(WIDTHS), list(WIDTHS).index(width) + 2)


def test_few_pictures_want_more_epochs_before_a_wider_network(
    timed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "LOOKED_AT", 64 * 25)
    # Five times as many of each: 32 channels are worth while from five epochs of four seconds.
    assert fitted(19.0).net == "quick(24)"
    assert fitted(20.0).net == "quick(32)"


def test_epochs_have_a_bound(timed: list[str]) -> None:
    assert fitted(1e9).optimisation.epochs == MOST


def test_a_network_that_says_its_width_keeps_it(timed: list[str]) -> None:
    recipe = fitted(100.0, net="quick(24)")
    assert (recipe.net, recipe.optimisation.epochs) == ("quick(24)", 44)
    assert timed == ["quick(24)"]


def test_time_for_less_than_an_epoch_is_refused_with_what_would_do(timed: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        fitted(0.4375)
    assert str(caught.value) == (
        "--budget 0.4375: an epoch of the 64 pictures takes 1.0 seconds on this machine, and one at least is needed; "
        "give --budget 1, or train on fewer with --sample 0.43"
    )


def test_an_epoch_is_its_steps_and_the_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four steps of half a second; three of seven pictures of val in 0.03 seconds, so all in 0.07."""
    monkeypatch.setattr(budget, "step_milliseconds", lambda *_: 500.0)
    monkeypatch.setattr(budget, "EVALUATED", 3)
    clock = iter([10.0, 10.8, 11.0, 11.03])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    recipe = settle(Recipe(data="d", engine=ENGINE), net="quick(8)")
    loss = make_loss(recipe, [1, 1, 1])
    found = budget._epoch_seconds(build("quick(8)"), recipe, batches(64), val(), loss, ENGINE)
    assert found == pytest.approx(budget.SLOWER * (4 * 0.5 + 0.07))


def test_steps_are_timed_on_this_machine() -> None:
    recipe = fitted(2.0, net="quick(8)")
    assert recipe.optimisation.epochs is not None
    assert 1 <= recipe.optimisation.epochs <= MOST


def test_the_model_is_as_it_was_built() -> None:
    recipe = settle(Recipe(data="d", engine=ENGINE), budget=1.0, net="quick(8)")
    found = fit_budget(recipe, build, batches(64), val(), make_loss(recipe, [1, 1, 1]))
    for name, tensor in build("quick(8)").state_dict().items():
        assert torch.equal(found.model.state_dict()[name], tensor)
    assert found.measured.engine == ENGINE
