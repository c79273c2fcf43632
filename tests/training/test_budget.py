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
from pellucid.nets.quick import stem_stride
from pellucid.recipe import Engine, Recipe, settle
from pellucid.training import budget
from pellucid.training.budget import LARGEST_SMALL_IMAGE, MOST, NETS, SMALL_IMAGE_NETS, fit_budget
from pellucid.training.losses import make_loss

ENGINE = Engine(precision="float32", layout="nchw", threads=1)


def batches(n: int, side: int = 8) -> Batches:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (n, side, side, 3), generator=generator).to(torch.uint8)
    labels = torch.randint(0, 3, (n,), generator=generator)
    return Batches(pixels, labels, Preprocess((side, side), "crop", 3, (0.5,) * 3, (0.5,) * 3), (), 16, seed=4)


def val(n: int = 7) -> Shown:
    return Loaded(np.zeros((n, 8, 8, 3), np.uint8), np.zeros(n, np.int64), tuple("abcdefg"[:n]), (), ())


def build(net: str) -> nn.Module:
    return nets.build(net, 3, (3, 8, 8), seed=0)


def fitted(
    seconds: float,
    pictures: int = 64,
    build: Callable[[str], nn.Module] = build,
    side: int = 8,
    **settings: object,
) -> Recipe:
    recipe = settle(Recipe(data="d", engine=ENGINE), budget=seconds, **settings)
    return fit_budget(recipe, build, batches(pictures, side), val(), make_loss(recipe, [1, 1, 1])).recipe


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A machine on which an epoch takes (width/16)² seconds, and three times that with a wider middle; and the networks
    that it was asked about."""
    asked: list[str] = []

    def seconds(model: nets.Network, *_: object) -> float:
        asked.append(model.text)
        width = model.get_parameter("block1.conv.weight").shape[0]
        return (width / 16) ** 2 * (3 if "middle" in model.text else 1)

    monkeypatch.setattr(budget, "_epoch_seconds", seconds)
    return asked


@pytest.mark.parametrize(
    ("seconds", "side", "net", "epochs"),
    [
        # An epoch takes 1, 2.25, 4, 9, 16, 36 and 64 seconds; it must be 1, 1, 1, 4, 8, 16 and 24 of them at least.
        (1.0, 49, "quick(16)", 1),
        (2.3, 49, "quick(24)", 1),
        (5.0, 64, "quick(32)", 1),
        (35.0, 64, "quick(32)", 8),
        (36.0, 64, "quick(48)", 4),
        (127.0, 64, "quick(48)", 14),
        (128.0, 64, "quick(64)", 8),
        (1536.0, 64, "quick(128)", 24),
        # 1, 2.25, 4, 12, 27, 48, 108 and 192 seconds; 1, 1, 1, 3, 8, 12, 16 and 24 times.
        (1.0, 48, "quick(16)", 1),
        (35.0, 32, "quick(32)", 8),
        (36.0, 32, "quick(32, stride=1, middle=128)", 3),
        (216.0, 8, "quick(48, stride=1, middle=192)", 8),
        (576.0, 8, "quick(64, stride=1, middle=256)", 12),
        (9999.0, 8, "quick(128, stride=1, middle=512)", 52),
    ],
)
def test_the_network_grows_with_the_time(
    timed: list[str], monkeypatch: pytest.MonkeyPatch, seconds: float, side: int, net: str, epochs: int
) -> None:
    monkeypatch.setattr(budget, "LOOKED_AT", 64)

    def build(name: str) -> nn.Module:
        return nets.build(name, 3, (3, side, side), seed=0)

    recipe = fitted(seconds, build=build, side=side)
    assert (recipe.net, recipe.optimisation.epochs) == (net, epochs)
    assert recipe.optimisation.budget is None
    # What is too large was asked about once, and nothing beyond it.
    possible = list(SMALL_IMAGE_NETS if side <= LARGEST_SMALL_IMAGE else NETS)
    assert len(timed) == min(len(possible), possible.index(net) + 2)


def test_small_images_are_those_that_the_stem_would_stride_over() -> None:
    assert stem_stride(LARGEST_SMALL_IMAGE) == 2
    assert stem_stride(LARGEST_SMALL_IMAGE + 1) > 2


def test_few_pictures_want_more_epochs_before_a_larger_network(
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
