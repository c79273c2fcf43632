"""A watched pass: what is recorded, and that the module is left exactly as it was."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pellucid.nets.watch import BATCH, first_shape, watch


class Noisy(nn.Module):
    """Draws random numbers, writes to its buffers and replaces one: all that could be disturbed."""

    seen: torch.Tensor
    swapped: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(2)
        self.drop = nn.Dropout()
        self.fc = nn.Linear(2, 3)
        self.register_buffer("seen", torch.zeros(()))
        self.register_buffer("swapped", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen += 1
        self.swapped = self.swapped + 1
        noise = torch.rand(2)
        x = self.drop(self.norm(x)).mean((2, 3)) + noise
        result: torch.Tensor = self.fc(x)
        return result


@pytest.mark.parametrize("training", [True, False])
def test_everything_is_as_it_was(training: bool) -> None:
    model = Noisy().train(training)
    model.drop.train(not training)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    tensors = dict(model.named_buffers())
    state = torch.get_rng_state()
    watched = watch(model, (2, 4, 4))
    assert watched.error is None
    assert [call.name for call in watched.calls] == ["", "norm", "drop", "fc"]
    assert [call.output for call in watched.calls] == [(BATCH, 3), (BATCH, 2, 4, 4), (BATCH, 2, 4, 4), (BATCH, 3)]
    assert watched.calls[3].input == (BATCH, 2)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(value is tensors[name] for name, value in model.named_buffers())
    assert (model.training, model.drop.training, model.norm.training) == (training, not training, training)
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())
    assert all(weight.grad is None and weight.device.type == "cpu" for weight in model.parameters())


def test_what_breaks_is_kept_and_the_layer_is_known() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Sequential(nn.ReLU(), nn.Linear(5, 2)))
    watched = watch(model, (1, 2, 2))
    assert isinstance(watched.error, RuntimeError)
    assert [call.name for call in watched.open] == ["", "1", "1.1"]
    assert watched.open[-1].input == (BATCH, 4)
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())


def test_networks_on_the_meta_device_stay_there() -> None:
    """A layer of 40 GB is run without being made."""
    with torch.device("meta"):
        model = nn.Sequential(nn.Flatten(), nn.Linear(100_000, 100_000))
    assert watch(model, (10, 100, 100)).calls[-1].output == (BATCH, 100_000)


def test_lazy_modules_stay_lazy() -> None:
    model = nn.Sequential(nn.Flatten(), nn.LazyLinear(3))
    assert watch(model, (1, 2, 2)).calls[-1].output == (BATCH, 3)
    assert isinstance(model[1].weight, nn.UninitializedParameter)


def test_a_tensor_is_given_as_it_is() -> None:
    watched = watch(nn.ReLU(), torch.zeros(3, 4))
    assert (watched.calls[0].input, watched.output.shape) == ((3, 4), (3, 4))


def test_double_networks_get_double_images() -> None:
    assert watch(nn.Linear(4, 2).double(), (1, 4, 4)).error is None


def test_first_shape() -> None:
    assert first_shape(({"a": 1, "b": [None, torch.zeros(2, 3)]}, torch.zeros(4))) == (2, 3)
    assert first_shape("none") is None
