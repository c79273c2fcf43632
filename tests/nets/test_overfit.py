"""Each network learns 32 real photographs by heart: its forward and backward pass hang together at full size.

A plain VGG, which nothing normalises, gets four. VGG's dropout is off, since it is there to prevent just this.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from pellucid import nets

RealData = Callable[[str], Path]


def flowers(folder: Path, side: int, number: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The first pictures of each class in turn, each channel to mean 0 and variance 1."""
    classes = sorted(path for path in (folder / "train").iterdir() if path.is_dir())
    files = [sorted(path.glob("*.jpg")) for path in classes]
    pixels, labels = [], []
    for i in range(number):
        label = i % len(classes)
        with Image.open(files[label][i // len(classes)]) as picture:
            pixels.append(np.asarray(picture.convert("RGB").resize((side, side)), dtype=np.float32))
        labels.append(label)
    x_nchw = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous()
    x_nchw = (x_nchw - x_nchw.mean((0, 2, 3), keepdim=True)) / x_nchw.std((0, 2, 3), keepdim=True)
    return x_nchw, torch.tensor(labels)


def overfit(folder: Path, net: str, side: int, number: int, rule: str, rate: float, steps: int) -> None:
    x_nchw, labels = flowers(folder, side, number)
    model = nets.build(net, 5, (3, side, side), seed=0)
    optimiser: torch.optim.Optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    if rule == "sgd":
        optimiser = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
    first = 0.0
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for _ in range(steps):
            logits, auxiliary = model.forward_with_auxiliary(x_nchw)
            loss = nn.functional.cross_entropy(logits, labels)
            first = first or loss.item()
            for more in auxiliary:
                loss = loss + model.auxiliary_loss_weight * nn.functional.cross_entropy(more, labels)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        if auxiliary:
            assert all(weight.grad is not None for weight in model.parameters()), "a head without a gradient"
        # The statistics of a few steps lag behind the weights: let them be those of these pictures.
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 1.0
        with torch.no_grad():
            model(x_nchw)
            logits = model.eval()(x_nchw)
    assert (logits.argmax(1) == labels).float().mean().item() == 1.0
    assert nn.functional.cross_entropy(logits, labels).item() < 0.35 < first


@pytest.mark.parametrize(
    ("net", "side", "rule", "rate", "steps"),
    [
        ("lenet5", 32, "adam", 3e-3, 60),
        ("quick", 32, "adam", 5e-3, 15),
        ("perceptron", 32, "adam", 1e-3, 30),
        ("mlp", 32, "adam", 1e-3, 20),
        ("rnn", 32, "adam", 5e-3, 120),
        ("lstm", 32, "adam", 1e-2, 120),
        ("vgg11-bn(dropout=0)", 32, "sgd", 0.005, 9),
        ("googlenet", 32, "adam", 1e-3, 14),
        ("resnet18", 32, "sgd", 0.02, 10),
        ("resnet18(d=true, zero-gamma=true)", 32, "sgd", 0.02, 12),
        ("resnet50", 32, "adam", 1e-3, 14),
        ("resnet20", 32, "adam", 5e-3, 25),
    ],
)
def test_learns_32_photographs_by_heart(
    real_data: RealData, net: str, side: int, rule: str, rate: float, steps: int
) -> None:
    overfit(real_data("flower-photos-small"), net, side, 32, rule, rate, steps)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("net", "side", "rule", "rate", "steps"),
    [
        ("cifar-cnn", 32, "adam", 1e-3, 120),
        ("vgg13-bn(dropout=0)", 32, "sgd", 0.005, 14),
        ("vgg16-bn(dropout=0)", 32, "sgd", 0.005, 14),
        ("vgg19-bn(dropout=0)", 32, "sgd", 0.005, 14),
        ("googlenet-paper", 64, "adam", 5e-4, 50),
        ("resnet34", 32, "sgd", 0.02, 16),
        ("resnet101", 32, "adam", 1e-3, 18),
        ("resnet50(d=true, zero-gamma=true)", 64, "sgd", 0.02, 16),
        ("resnet32", 32, "adam", 3e-3, 50),
        ("resnet56", 32, "adam", 3e-3, 60),
    ],
)
def test_the_others_learn_32_photographs_by_heart(
    real_data: RealData, net: str, side: int, rule: str, rate: float, steps: int
) -> None:
    overfit(real_data("flower-photos-small"), net, side, 32, rule, rate, steps)


@pytest.mark.slow
@pytest.mark.parametrize("net", ["vgg11", "vgg13", "vgg16", "vgg19"])
def test_a_plain_vgg_learns_four_by_heart(real_data: RealData, net: str) -> None:
    overfit(real_data("flower-photos-small"), f"{net}(dropout=0)", 32, 4, "adam", 1e-4, 20)
