"""How far each layer's weights and numbers spread, for one batch: first weights too small or too large show here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from pellucid.nets.describe import describe
from pellucid.nets.watch import devices, same_buffers

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Variance:
    """One call of one layer: its name, what it is, and the variance of all numbers that it gave."""

    name: str
    layer: str
    variance: float
    weights: float | None = None
    """The variance of the layer's weights, biases aside; None where it has none."""


@dataclass(frozen=True, slots=True)
class Variances:
    """The layers in the order in which they are called. `str` writes them as a table."""

    rows: tuple[Variance, ...]

    def __str__(self) -> str:
        shown = ((row.name, row.layer, _short(row.weights), _short(row.variance)) for row in self.rows)
        table = [("name", "layer", "weights", "numbers"), *shown]
        names, layers, *_ = (max(len(line[column]) for line in table) for column in range(4))
        lines = [f"{name:{names}}  {layer:{layers}}  {own:>9}  {given:>9}" for name, layer, own, given in table]
        lines.insert(1, f"{'─' * names}  {'─' * layers}  {'─' * 9}  {'─' * 9}")
        return "\n".join(lines)


def variances(model: nn.Module, x: Tensor) -> Variances:
    """The variance after each layer of `model` for the batch `x`, over all numbers of the layer.

    The model runs in the mode it is in: normalisation by the batch in training, by its statistics in evaluation. It is
    left as it was.
    """
    rows: list[Variance] = []
    handles = []
    with same_buffers(model), torch.random.fork_rng(devices=devices(model)), torch.no_grad():
        try:
            for name, module in model.named_modules():
                if not any(True for _ in module.children()):
                    handles.append(module.register_forward_hook(_recorded(name, rows)))
            model(x)
        finally:
            for handle in handles:
                handle.remove()
    return Variances(tuple(rows))


def _recorded(name: str, rows: list[Variance]) -> Any:
    def hook(module: nn.Module, _args: Any, output: Any) -> None:
        tensor = _first(output)
        if tensor is not None and tensor.is_floating_point():
            variance = tensor.double().var(correction=0).item()
            rows.append(Variance(name or type(module).__name__, describe(module), variance, _weights(module)))

    return hook


def _short(variance: float | None) -> str:
    return "" if variance is None else f"{variance:.3g}"


def _weights(module: nn.Module) -> float | None:
    own = [weight.detach().double().flatten() for weight in module.parameters(recurse=False) if weight.ndim > 1]
    return torch.cat(own).var(correction=0).item() if own else None


def _first(value: Any) -> Tensor | None:
    """The first tensor: a recurrent layer gives its outputs, then its states."""
    if isinstance(value, torch.Tensor):
        return value
    return (
        next((found for found in map(_first, value) if found is not None), None) if isinstance(value, tuple) else None
    )
