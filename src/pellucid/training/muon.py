"""Muon (Jordan et al. 2024): see `pellucid.textbook.muon` for what a step is, and why.

torch has one, for parameters of two axes alone, whose directions are made in bfloat16. Here filters have them too, and
they are made in the parameter's own precision, so that a step can be computed again.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import torch

# Of the polynomial a·s + b·s³ + c·s⁵ that singular values go through.
_A, _B, _C = 3.4445, -4.7750, 2.0315
# torch's method as it was written, which does not import torch's compiler: see `uncompiled`.
_adamw = inspect.unwrap(torch.optim.AdamW.step)


class Muon(torch.optim.AdamW):
    """Muon for the groups of parameters that are `orthogonal`; AdamW for the others.

    Momentum and rounds are those that its author found best for pictures (airbench94_muon, 2024); language models have
    0.95 and 5.
    """

    #: What `pellucid.explain` calls it.
    textbook_rule = "muon"

    def __init__(self, groups: list[dict[str, Any]], lr: float, momentum: float = 0.6, rounds: int = 3) -> None:
        muons = {"orthogonal": False, "momentum": momentum, "rounds": rounds}
        super().__init__([{**muons, **group} for group in groups], lr=lr, fused=True)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient. Weight decay is taken off the parameter itself."""
        assert closure is None, "one gradient a step"
        groups = self.param_groups
        try:
            self.param_groups = [group for group in groups if not group["orthogonal"]]
            _adamw(self)
        finally:
            self.param_groups = groups
        for group in groups:
            for parameter in group["params"]:
                if group["orthogonal"] and parameter.grad is not None:
                    self._turn(parameter, group)

    def _turn(self, parameter: torch.Tensor, group: dict[str, Any]) -> None:
        gradient, state = parameter.grad, self.state[parameter]
        assert gradient is not None
        if not state:
            # A count as AdamW's, which looks for one wherever it finds a state.
            state["step"], state["velocity"] = torch.zeros(()), torch.zeros_like(parameter)
        state["step"] += 1
        state["velocity"].mul_(group["momentum"]).add_(gradient)
        ahead = gradient.add(state["velocity"], alpha=group["momentum"])
        direction = _orthogonal(ahead.reshape(len(ahead), -1), group["rounds"]).view_as(ahead)
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        rows = len(parameter)
        parameter.add_(direction, alpha=-group["lr"] * math.sqrt(max(1.0, rows**2 / parameter.numel())))


def _orthogonal(matrix: torch.Tensor, rounds: int, eps: float = 1e-7) -> torch.Tensor:
    turned = len(matrix) > matrix.shape[1]
    x: torch.Tensor = (matrix.T if turned else matrix) / matrix.norm().clamp(min=eps)
    for _ in range(rounds):
        square = x @ x.T
        x = torch.addmm(x, torch.addmm(square, square, square, beta=_B, alpha=_C), x, beta=_A)
    return x.mT if turned else x
