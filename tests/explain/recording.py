"""A recorded pass beside the engine's own: the same bits, and a model that nobody has touched."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from pellucid.explain import Tape
from pellucid.explain.record import record
from pellucid.nets.layers import Dropout

Step = Callable[[Any, torch.Tensor], Any]


class Written(nn.Module):
    """A model whose forward is a function: `Written(lambda m, x: m.fc(x), fc=nn.Linear(2, 2))`."""

    def __init__(self, forward: Step, **modules: Any) -> None:
        super().__init__()
        for name, module in modules.items():
            setattr(self, name, module)
        self.step = forward

    def forward(self, x: torch.Tensor) -> Any:
        return self.step(self, x)


def small(forward: Step, seed: int = 0, **modules: Any) -> Any:
    """With a convolution `conv` (3 to 4 channels) and a linear layer `fc` (4 to 5) besides the modules given."""
    torch.manual_seed(seed)
    return Written(forward, conv=nn.Conv2d(3, 4, 3), fc=nn.Linear(4, 5), **modules)


def pooled(model: Any, y: torch.Tensor) -> Any:
    """The logits of feature maps with four channels."""
    return model.fc(y.mean((2, 3)))


def images(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(shape or (2, 3, 6, 6), generator=torch.Generator().manual_seed(seed))


def plain(tensor: torch.Tensor) -> Any:
    tensor = tensor.detach()
    return (tensor if tensor.dtype == torch.float64 else tensor.float()).numpy()


def with_torchs_dropout(model: nn.Module) -> nn.Module:
    """The same network with torch's dropout for ours, whose masks are drawn otherwise."""
    for name, module in list(model.named_modules()):
        if isinstance(module, Dropout):
            parent = model.get_submodule(name.rpartition(".")[0])
            setattr(parent, name.rpartition(".")[2], nn.Dropout(module.p).train(module.training))
    return model


def state(model: nn.Module) -> dict[str, Any]:
    """All that a recording must leave alone."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {
        "values": {name: tensor.detach().clone() for name, tensor in tensors.items()},
        "versions": {name: tensor._version for name, tensor in tensors.items()},
        "identity": {name: id(tensor) for name, tensor in tensors.items()},
        "flags": {name: tensor.requires_grad for name, tensor in tensors.items()},
        "grads": {n: None if p.grad is None else p.grad.detach().clone() for n, p in model.named_parameters()},
        "modes": {name: module.training for name, module in model.named_modules()},
        "hooks": {name: len(module._forward_hooks) for name, module in model.named_modules()},
        "random": torch.get_rng_state(),
    }


def assert_untouched(model: nn.Module, before: dict[str, Any]) -> None:
    after = state(model)
    for what in ("versions", "identity", "flags", "modes", "hooks"):
        assert after[what] == before[what], what
    assert torch.equal(after["random"], before["random"])
    for name, value in before["values"].items():
        assert torch.equal(value, after["values"][name]), name
    for name, value in before["grads"].items():
        now = after["grads"][name]
        assert (now is None) == (value is None), name
        assert value is None or torch.equal(value, now), name


def same_as_engine(
    model: nn.Module,
    x: torch.Tensor,
    label: Any = None,
    *,
    training: bool = False,
    loss: Callable[..., torch.Tensor] | None = None,
    logits: Callable[[Any], torch.Tensor] = lambda given: given,
) -> Tape:
    """Record, run the model itself from the same random numbers, and compare every bit; the tape."""
    torch.manual_seed(3)
    before = state(model)
    tape = record(model, x, label, training=training, loss=loss)
    assert_untouched(model, before)
    own, image = copy.deepcopy(model).train(training), x.clone().requires_grad_()
    y = logits(own(image))
    targets = () if label is None else (torch.as_tensor(label),)
    scalar = (loss or functional.cross_entropy)(y, *targets)
    scalar.backward()  # type: ignore[no-untyped-call]
    np.testing.assert_array_equal(tape.values[tape.output], plain(y))
    np.testing.assert_array_equal(tape.values["loss"], plain(scalar))
    assert image.grad is not None
    np.testing.assert_array_equal(tape.gradients["input"], plain(image.grad))
    for name, parameter in own.named_parameters():
        if parameter.grad is None:
            # What is held still has a derivative all the same, which the engine does not ask for.
            assert name not in tape.gradients or not parameter.requires_grad, name
        else:
            np.testing.assert_array_equal(tape.gradients[name], plain(parameter.grad), name)
    assert [node.name for node in tape.nodes] == list(dict.fromkeys(node.name for node in tape.nodes))
    assert {node.name for node in tape.nodes} == set(tape.values)
    assert all(tape.values[node.name].shape == node.shape for node in tape.nodes)
    return tape


def ops(tape: Tape) -> dict[str, str]:
    """Every node that computes, and its operation."""
    return {n.name: n.op for n in tape.nodes if n.op not in {"parameter", "buffer", "constant", "input"}}
