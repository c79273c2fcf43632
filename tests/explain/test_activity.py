"""Active, saturated and dead units, counted by hand and on a recorded network."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tests.explain.building import Builder
from torch import nn

from pellucid.explain.activity import sparsity, table
from pellucid.explain.record import record


def of(op: str, x: Any, **settings: Any) -> Any:
    build = Builder()
    build.op("act", op, build.leaf("input", "input", np.asarray(x, dtype=float)), **settings)
    (found,) = sparsity(build.tape())
    return found


def test_a_rectifier_by_hand() -> None:
    x = np.array([[[[1.0, -1.0]], [[-1.0, -2.0]]], [[[0.0, 3.0]], [[-1.0, 0.0]]]])
    found = of("relu", x)
    assert (found.name, found.op, found.shape) == ("act", "relu", (2, 2, 1, 2))
    assert found.active == 2 / 8
    assert found.saturated is None
    assert found.channels.tolist() == [0.5, 0.0]
    assert found.dead_channels == (1,)
    assert (found.units, found.dead_units) == (4, 2)
    assert found.text() == "act (relu): 25.0% active, 1 of 2 channels dead, 2 of 4 units"


def test_a_ceiling_saturates() -> None:
    x = [[-1.0, 3.0, 7.0, 9.0]]
    for found in (of("relu6", x), of("hard_tanh", x, low=0.0, high=6.0)):
        assert found.active == 0.75
        assert found.saturated == 0.5
        assert found.dead_channels == (0,)


@pytest.mark.parametrize("op", ["leaky_relu", "elu", "gelu", "silu", "softplus"])
def test_those_without_an_exact_zero_are_on_above_it(op: str) -> None:
    found = of(op, [[-2.0, 0.5, 1.0], [-3.0, -0.1, 2.0]])
    assert found.active == 0.5
    assert found.channels.tolist() == [0.0, 0.5, 1.0]
    assert found.dead_channels == (0,)


def test_flat_ends_by_their_slopes() -> None:
    x = np.array([[-9.0, 0.0, 9.0, 4.0]])
    found = of("sigmoid", x)
    slope = np.exp(-x) / (1 + np.exp(-x)) ** 2
    assert found.saturated == (slope < 0.01).mean() == 0.5
    assert found.active is None
    assert found.dead_channels == (0, 2)
    assert of("tanh", x).saturated == (1 - np.tanh(x) ** 2 < 0.01).mean() == 0.75
    assert of("hard_tanh", x).saturated == 0.75


def test_channels_stand_where_their_layer_puts_them() -> None:
    """Behind a linear layer of moved axes the features are the last axis; moved back they are channels again."""
    build = Builder(1)
    x = build.op("last", "permute", build.conv("conv", build.input(1, 2, 4, 4), 3, 1), axes=[0, 2, 3, 1])
    x = build.op("gelu", "gelu", build.linear("mlp", x, 5))
    build.op("relu", "relu", build.op("first", "permute", x, axes=[0, 3, 1, 2]))
    last, first = sparsity(build.tape())
    assert len(last.channels) == len(first.channels) == 5
    np.testing.assert_allclose(last.channels, (build.values["mlp"] > 0).mean(axis=(0, 1, 2)))


def test_gates_of_a_recurrent_network() -> None:
    build = Builder(2)
    build.lstm("lstm", build.input(2, 3, 2), 4)
    build.lstm("rnn", "input", 3, kind="rnn")
    found = {layer.name: layer for layer in sparsity(build.tape())}
    assert list(found) == ["lstm.0.i", "lstm.0.f", "lstm.0.g", "lstm.0.o", "rnn.0.h"]
    f, h = build.values["lstm.0.f"], build.values["rnn.0.h"]
    assert found["lstm.0.f"].saturated == (f * (1 - f) < 0.01).mean()
    assert found["rnn.0.h"].saturated == (1 - h**2 < 0.01).mean()
    assert len(found["lstm.0.f"].channels) == 4


def test_a_recorded_network_has_torchs_shares() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(1, 8, 3)
    net = nn.Sequential(conv, nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 10), nn.Sigmoid()).eval()
    assert conv.bias is not None
    with torch.no_grad():
        conv.bias[3] = -100.0
    x = torch.randn(4, 1, 6, 6)
    tape = record(net, x)
    relu, sigmoid = sparsity(tape)
    on = torch.relu(conv(x)) > 0
    assert relu.active == pytest.approx(float(on.float().mean()))
    np.testing.assert_allclose(relu.channels, on.float().mean((0, 2, 3)).numpy(), rtol=1e-6)
    assert relu.dead_channels == (3,)
    assert relu.dead_units == int((~on.any(0)).sum())
    assert len(sigmoid.channels) == 10
    assert table([relu, sigmoid]).count("\n") == 1


def test_nothing_to_tell() -> None:
    build = Builder(3)
    assert sparsity(build.tape(build.linear("fc", build.input(1, 2), 2))) == []
    assert table([]) == "no activation in this pass"
