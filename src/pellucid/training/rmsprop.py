"""RMSprop as in Keras, whose examples made this rule common with images."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch


class KerasRMSprop(torch.optim.Optimizer):
    """s ← ρ·s + (1 − ρ)·g², then w ← w − η·g/√(s + ε).

    ε stands under the root, where torch's RMSprop has it beside: with ε = 1e-7 no gradient counts for less than
    3·10⁻⁴, so that weights which hardly matter are not sent about at the full rate.
    """

    #: What `pellucid.explain` calls it.
    textbook_rule = "rmsprop_keras"

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        *,
        rho: float = 0.9,
        epsilon: float = 1e-7,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "rho": rho, "epsilon": epsilon, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient. Weight decay is L2, part of the gradient."""
        assert closure is None, "one gradient a step"
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                gradient = parameter.grad
                if group["weight_decay"]:
                    gradient = gradient.add(parameter, alpha=group["weight_decay"])
                state = self.state[parameter]
                if not state:
                    state["square"] = torch.zeros_like(parameter)
                state["square"].mul_(group["rho"]).addcmul_(gradient, gradient, value=1 - group["rho"])
                parameter.addcdiv_(gradient, (state["square"] + group["epsilon"]).sqrt_(), value=-group["lr"])
