"""A whole network: LeNet-5 of textbook functions trains on real digits as torch's does, step by step."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from pellucid.textbook import lenet5

Array = npt.NDArray[Any]


def digits() -> tuple[Array, Array]:
    """The 1,797 handwritten digits at 32×32, from 0 to 1, float64."""
    data = load_digits()
    small = data.images / 16
    return np.kron(small, np.ones((4, 4)))[:, None], data.target


def network(weights: dict[str, Array]) -> nn.Sequential:
    layers = {
        "conv1": nn.Conv2d(1, 6, 5),
        "tanh1": nn.Tanh(),
        "pool1": nn.AvgPool2d(2),
        "conv2": nn.Conv2d(6, 16, 5),
        "tanh2": nn.Tanh(),
        "pool2": nn.AvgPool2d(2),
        "conv3": nn.Conv2d(16, 120, 5),
        "tanh3": nn.Tanh(),
        "flatten": nn.Flatten(),
        "fc1": nn.Linear(120, 84),
        "tanh4": nn.Tanh(),
        "fc2": nn.Linear(84, 10),
    }
    net = nn.Sequential()
    for name, layer in layers.items():
        net.add_module(name, layer)
    net = net.double()
    net.load_state_dict({name: torch.from_numpy(w.copy()) for name, w in weights.items()})
    return net


@pytest.mark.parametrize(
    ("optimiser", "hyper", "epochs"), [("momentum", {"lr": 0.05, "momentum": 0.9}, 3), ("adam", {"lr": 0.002}, 1)]
)
def test_every_loss_is_torchs(optimiser: str, hyper: dict[str, Any], epochs: int) -> None:
    torch.set_num_threads(1)
    x, labels = digits()
    weights = lenet5.start(np.random.default_rng(0))
    net = network(weights)
    engine: Any = (
        torch.optim.SGD(net.parameters(), **hyper)
        if optimiser == "momentum"
        else torch.optim.Adam(net.parameters(), **hyper)
    )
    order = list(lenet5.epochs(np.random.default_rng(1), len(x), 64, epochs))
    after, losses = weights, []
    for (loss, now), batch in zip(
        lenet5.train(weights, x, labels, iter(order), optimiser=optimiser, **hyper), order, strict=True
    ):
        theirs = nn.functional.cross_entropy(net(torch.from_numpy(x[batch])), torch.from_numpy(labels[batch]))
        engine.zero_grad()
        theirs.backward()  # type: ignore[no-untyped-call]
        engine.step()
        after = now
        assert loss == pytest.approx(theirs.item(), rel=1e-9)
        losses.append(loss)
    for name, parameter in net.named_parameters():
        np.testing.assert_allclose(after[name], parameter.detach().numpy(), rtol=1e-9, atol=1e-10)
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:10])
    if epochs == 3:
        assert lenet5.accuracy(after, x, labels) > 0.9
