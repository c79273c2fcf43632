"""Whole networks, ours and others': every operation that computes has its rule, and every rule its residual."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from tests.explain.engine import checked, spelled
from torch import nn
from torch.nn import functional

from pellucid import nets
from pellucid.explain import Tape, operation_of
from pellucid.explain.node import LEAVES
from pellucid.explain.record import forget, record

OWN: dict[str, tuple[int, int, int]] = {
    "quick": (3, 32, 32),
    "lenet5": (1, 32, 32),
    "cifar-cnn": (3, 32, 32),
    "vgg11-bn": (3, 32, 32),
    "googlenet": (3, 64, 64),
    "googlenet-paper": (3, 64, 64),
    "resnet18": (3, 32, 32),
    "resnet20": (3, 32, 32),
    "resnet50": (3, 32, 32),
    "rnn": (1, 28, 28),
    "lstm(layers=5)": (1, 28, 28),
}
#: Built in full they have a hundred million weights and take seconds each.
LARGE = {"vgg11-bn", "resnet50", "googlenet"}
VISION = ["squeezenet1_1", "shufflenet_v2_x1_0", "googlenet", "densenet121"]
HUB = ["ResNet", "ConvNext", "MobileNetV1", "MobileNetV2", "EfficientNet", "RegNet", "Bit", "PoolFormer"]


def recorded(make: Callable[[], nn.Module], image: tuple[int, int, int], training: bool) -> Tape:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = make()
    with torch.no_grad():
        # Statistics that fit the weights: with 0 and 1 the values of a deep network fade to nothing.
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 1.0
        model.train()(torch.randn(4, *image))
    tape = record(model, torch.randn(2, *image), [1, 2], training=training)
    forget(model)
    return tape


def addresses(tape: Tape, rng: np.random.Generator) -> Iterator[str]:
    """One number of every value and of every gradient."""
    for node in tape.nodes:
        index = tuple(int(rng.integers(size)) for size in node.shape) if 0 not in node.shape else None
        if index is not None and node.op not in LEAVES:
            yield spelled(node.name, index)
        if index is not None and node.name in tape.gradients and node.name != tape.loss:
            yield spelled(f"{node.name}.grad", index)


def explained(tape: Tape) -> None:
    """Everything has a rule, and every rule gives the engine's number."""
    assert [node.op for node in tape.nodes if node.op not in LEAVES and operation_of(node) is None] == []
    for address in addresses(tape, np.random.default_rng(0)):
        checked(tape, address)


@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
@pytest.mark.parametrize("net", [pytest.param(net, marks=[pytest.mark.slow] * (net in LARGE)) for net in OWN])
def test_ours(net: str, training: bool) -> None:
    explained(recorded(lambda: nets.build(net, 10, OWN[net], seed=0), OWN[net], training))


@pytest.mark.slow
@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
@pytest.mark.parametrize("name", VISION)
def test_torchvisions(torchvision: ModuleType, name: str, training: bool) -> None:
    settings = {"init_weights": True} if name == "googlenet" else {}
    make: Callable[..., nn.Module] = getattr(torchvision.models, name)
    explained(recorded(lambda: make(weights=None, num_classes=10, **settings), (3, 64, 64), training))


@pytest.mark.slow
@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
@pytest.mark.parametrize("family", HUB)
def test_transformers(torchvision: ModuleType, family: str, training: bool) -> None:
    del torchvision  # transformers looks for it
    pytest.importorskip("transformers")
    library = importlib.import_module("transformers")

    def make() -> nn.Module:
        settings = getattr(library, f"{family}Config")(num_labels=10)
        model: nn.Module = getattr(library, f"{family}ForImageClassification")(settings)
        return model

    explained(recorded(make, (3, 64, 64), training))


class Given(nn.Module):
    """A convolution, what is tried out, and a linear layer on it."""

    def __init__(self, between: Callable[[torch.Tensor], torch.Tensor], *parts: nn.Module) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.between, self.parts = between, nn.ModuleList(parts)
        self.fc = nn.LazyLinear(3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.between(self.conv(x))
        for part in self.parts:
            y = part(y)
        out: torch.Tensor = self.fc(y.flatten(1))
        return out


BETWEEN: dict[str, Any] = {
    "centred, the mean held": lambda x: x - x.mean((2, 3), keepdim=True).detach(),
    "mean and maximum over channels": lambda x: torch.cat([x.mean(1, keepdim=True), x.max(1, keepdim=True).values], 1),
    "maximum over places": lambda x: x.amax((2, 3)),
    "unit length": lambda x: functional.normalize(x.flatten(1), dim=1),
    "mirrored border": lambda x: functional.pad(x, (1, 2, 1, 0), mode="reflect"),
    "larger": lambda x: functional.interpolate(x, scale_factor=2),
    "turned and rolled": lambda x: x.flip(3).roll(1, 2),
    "adaptive maximum": lambda x: functional.adaptive_max_pool2d(x, 2),
    "exponential and root": lambda x: (x.exp() + x.square() + 1).sqrt().log1p(),
    "channels read across": lambda x: functional.channel_shuffle(x, 2),
    "matrices": lambda x: x @ x.transpose(2, 3) / 6,
    "clamped": lambda x: torch.maximum(x.clamp(-0.5, 0.5), x.abs().neg()),
    "stacked": lambda x: torch.stack([x, x.sin()], 1),
}


@pytest.mark.parametrize("name", BETWEEN)
def test_what_other_networks_do(name: str) -> None:
    model = Given(BETWEEN[name])
    model(torch.zeros(2, 1, 8, 8))
    explained(recorded(lambda: model, (1, 8, 8), training=False))


def test_learnt_slopes_and_lengths() -> None:
    torch.manual_seed(0)
    normed = nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 3, 3))
    model = Given(lambda x: x, nn.PReLU(4), normed, nn.PReLU(), nn.InstanceNorm2d(3, affine=True))
    model(torch.zeros(2, 1, 8, 8))
    tape = recorded(lambda: model, (1, 8, 8), training=False)
    assert {"prelu", "weight_norm", "group_norm"} <= {node.op for node in tape.nodes}
    explained(tape)


def test_a_held_value_sends_nothing_back() -> None:
    """Of y = x − detach(mean x) the gradient of x is that of y, as if the mean were a constant."""
    model = Given(BETWEEN["centred, the mean held"])
    model(torch.zeros(2, 1, 8, 8))
    tape = recorded(lambda: model, (1, 8, 8), training=False)
    np.testing.assert_array_equal(tape.gradients["conv"], tape.gradients["sub"])
    assert "mean" not in tape.gradients
    terms = tape.why("conv.grad[0,1,2,3]").terms
    assert [term.address for term in terms] == ["sub.grad[0,1,2,3]"]
