"""Initialisers against the variance each promises, and against orthogonality."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from pellucid import nets
from pellucid.errors import UsageError
from pellucid.nets.initialise import INITIALISERS


def model() -> nn.Sequential:
    """Wide enough for a variance to be told to a few per cent."""
    return nn.Sequential(
        nn.Conv2d(64, 96, 3), nn.BatchNorm2d(96), nn.Conv2d(96, 96, 5, groups=4), nn.ConvTranspose2d(96, 64, 3),
        nn.Linear(300, 200),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "variance", "bound"),
    [
        ("uniform", lambda i, o: 0.1**2 / 3, lambda i, o: 0.1),
        ("uniform(0.3)", lambda i, o: 0.3**2 / 3, lambda i, o: 0.3),
        # A normal distribution cut off at two deviations has 0.774 of its variance.
        ("truncated-normal", lambda i, o: 0.774 * 0.05**2, lambda i, o: 0.1),
        ("truncated-normal(0.01)", lambda i, o: 0.774 * 0.01**2, lambda i, o: 0.02),
        ("xavier", lambda i, o: 2 / (i + o), lambda i, o: math.sqrt(6 / (i + o))),
        ("he", lambda i, o: 2 / i, lambda i, o: math.inf),
    ],
)
def test_the_spread_each_promises(kind: str, variance: object, bound: object) -> None:
    assert callable(variance)
    assert callable(bound)
    net = nets.initialise(model(), kind, seed=0)
    # What each output adds up, and each input is added to, of one group.
    fans = {"0": (64 * 9, 96 * 9), "2": (24 * 25, 24 * 25), "3": (96 * 9, 64 * 9), "4": (300, 200)}
    for name, (inputs, outputs) in fans.items():
        weight, bias = (net.get_submodule(name).get_parameter(which) for which in ("weight", "bias"))
        assert weight.var().item() == pytest.approx(variance(inputs, outputs), rel=0.05), name
        assert weight.abs().max().item() <= bound(inputs, outputs)
        assert abs(weight.mean().item()) < 0.03 * weight.std().item()
        assert not bias.any()
    assert (net.get_submodule("1").get_parameter("weight") == 1).all()


def test_orthogonal_keeps_lengths() -> None:
    net = nets.initialise(nn.Sequential(nn.Linear(50, 50), nn.Conv2d(4, 8, 3, groups=2)), "orthogonal", seed=0)
    square = net.get_parameter("0.weight")
    torch.testing.assert_close(square @ square.T, torch.eye(50), rtol=0, atol=1e-5)
    for group in net.get_parameter("1.weight").flatten(1).chunk(2):
        torch.testing.assert_close(group @ group.T, torch.eye(4), rtol=0, atol=1e-5)
    doubled = nets.initialise(nn.Linear(50, 30), "orthogonal(2)", seed=0).get_parameter("weight")
    torch.testing.assert_close(doubled @ doubled.T, 4 * torch.eye(30), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("cell", "gates"), [(nn.RNN, 1), (nn.LSTM, 4), (nn.GRU, 3)])
def test_each_gate_is_a_matrix_of_its_own(cell: type[nn.RNNBase], gates: int) -> None:
    recurrent = nets.initialise(cell(20, 30, num_layers=2), "orthogonal", seed=0)  # type: ignore[arg-type, call-arg]
    for name in ("weight_hh_l0", "weight_hh_l1", "weight_ih_l1"):
        for gate in recurrent.get_parameter(name).chunk(gates):
            torch.testing.assert_close(gate @ gate.T, torch.eye(30), rtol=0, atol=1e-5)
    xavier = nets.initialise(recurrent, "xavier", seed=0).get_parameter("weight_ih_l0")
    assert xavier.abs().max().item() <= math.sqrt(6 / 50)
    assert xavier.abs().max().item() > 0.9 * math.sqrt(6 / 50)
    assert not recurrent.get_parameter("bias_hh_l0").any()


def test_torchs_own_are_what_the_layers_draw() -> None:
    drawn = nets.initialise(nn.Sequential(nn.Linear(5, 4), nn.LSTM(3, 2), nn.Conv2d(2, 2, 3)), "torch", seed=7)
    torch_random = torch.random.fork_rng()
    with torch_random:
        torch.manual_seed(7)
        fresh = nn.Sequential(nn.Linear(5, 4), nn.LSTM(3, 2), nn.Conv2d(2, 2, 3))
    for name, weight in fresh.named_parameters():
        assert torch.equal(weight, drawn.get_parameter(name))


@pytest.mark.parametrize("kind", INITIALISERS)
def test_a_seed_decides_and_nothing_else_moves(kind: str) -> None:
    state = torch.get_rng_state()
    first, same, other = (
        nets.initialise(nn.Sequential(nn.Conv2d(3, 4, 3), nn.LSTM(4, 4)), kind, seed=seed).state_dict()
        for seed in (1, 1, 2)
    )
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not torch.equal(first["0.weight"], other["0.weight"])
    net = nn.Linear(2, 2)
    torch.set_rng_state(state)
    assert nets.initialise(net, kind, seed=3) is net
    assert torch.equal(torch.get_rng_state(), state)
    assert all(weight.requires_grad for weight in net.parameters())


def test_mistakes() -> None:
    with pytest.raises(UsageError, match=r"^'heh' is no initialiser Pellucid knows: did you mean 'he'\?"):
        nets.initialise(nn.Linear(1, 1), "heh")
    with pytest.raises(UsageError) as caught:
        nets.initialise(nn.Linear(1, 1), "uniform(0)")
    assert str(caught.value).split("\n")[0] == (
        "column 9 of the initialiser: a of uniform is a number above 0, not '0'"
    )
    with pytest.raises(UsageError, match="nothing follows the options of he"):
        nets.initialise(nn.Linear(1, 1), "he() 3")
