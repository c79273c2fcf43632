"""Variances layer by layer, against theory and against torch's own of each map."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pellucid import nets


def batch(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def of(model: nn.Module, x: torch.Tensor) -> dict[str, float]:
    return {row.name: row.variance for row in nets.variances(model, x).rows}


def test_each_row_is_the_variance_of_that_map() -> None:
    model = nets.build("quick", 10, (3, 16, 16), seed=0).eval()
    x_nchw = batch(8, 3, 16, 16)
    found = of(model, x_nchw)
    stem = model[:1](x_nchw)
    assert found["stem.relu"] == pytest.approx(stem.var(correction=0).item(), rel=1e-4)
    assert found["head"] == pytest.approx(model(x_nchw).var(correction=0).item(), rel=1e-4)


@pytest.mark.parametrize(("kind", "gain"), [("he", 1.0), ("uniform(0.01)", 200 * 0.01**2 / 3 / 2)])
def test_he_keeps_the_spread_and_small_weights_lose_it(kind: str, gain: float) -> None:
    """With a ReLU before it, each layer multiplies the variance by half its inputs times its weights' variance."""
    text = "INPUT(1,1,200) -> [FC(200)]*8 -> FC(200)"
    model = nets.initialise(nets.parse(text), kind, seed=0)
    found = of(model, batch(256, 1, 1, 200))
    per_layer = (found["fc8"] / found["fc2"]) ** (1 / 6)
    assert per_layer == pytest.approx(gain, rel=0.12)


def test_the_model_is_left_as_it_was() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten(), nn.LSTM(144, 5)).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    rows = nets.variances(model, batch(2, 3, 8, 8)).rows
    assert [row.name for row in rows] == ["0", "1", "2", "3", "4"]
    assert rows[1].variance == pytest.approx(1, rel=1e-3)  # the batch's own statistics: the model is in training
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(module.training and not module._forward_hooks for module in model.modules())
    with pytest.raises(RuntimeError):
        nets.variances(model, batch(2, 1, 8, 8))
    assert not any(module._forward_hooks for module in model.modules())


def test_the_table() -> None:
    linear = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        linear.weight.copy_(torch.eye(2))
    assert str(nets.variances(nn.Sequential(linear), torch.tensor([[1.0, 3.0], [5.0, 7.0]]))).split("\n") == [
        "name  layer                                                weights    numbers",
        "────  ─────────────────────────────────────────────────  ─────────  ─────────",
        "0     Linear(in_features=2, out_features=2, bias=False)       0.25          5",
    ]


def test_the_variance_of_the_weights_leaves_biases_aside() -> None:
    model = nets.build("INPUT -> CONV(8) -> POOL -> FC(classes)", 4, (3, 8, 8), seed=0)
    with torch.no_grad():
        model.get_parameter("conv1.bias").fill_(100)
    own = {row.name: row.weights for row in nets.variances(model, batch(2, 3, 8, 8)).rows}
    assert own["conv1"] == pytest.approx(model.get_parameter("conv1.weight").var(correction=0).item(), rel=1e-4)
    assert own["fc1"] == pytest.approx(model.get_parameter("fc1.weight").var(correction=0).item(), rel=1e-4)
    assert own["pool1"] is None
