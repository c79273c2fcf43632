"""Optimisers by name, and how the learning rate goes over a run."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from pellucid.recipe import Optimisation, Optimizer, Schedule

# The one-cycle schedule climbs from a fifth of its peak over this share of the run, then falls to zero in a line.
_ONECYCLE_START, _ONECYCLE_CLIMB = 0.2, 0.2

_MAKERS: dict[Optimizer, Callable[..., torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "momentum": lambda groups, lr: torch.optim.SGD(groups, lr, momentum=0.9),
    "nesterov": lambda groups, lr: torch.optim.SGD(groups, lr, momentum=0.9, nesterov=True),
    "adagrad": torch.optim.Adagrad,
    "adadelta": torch.optim.Adadelta,
    # ρ and ε as in Keras, whose examples made this rule common with images.
    "rmsprop": lambda groups, lr: torch.optim.RMSprop(groups, lr, alpha=0.9, eps=1e-7),
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
}


def make_optimizer(model: nn.Module, optimisation: Optimisation) -> torch.optim.Optimizer:
    """The optimiser that a recipe names, over the model's trainable parameters.

    Weight decay pulls on matrices and filters only: on a bias or a normalisation's scale it takes away what the layer
    needs and regularises nothing (He et al. 2019, Bag of Tricks, section 3.1).
    """
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": optimisation.weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return _MAKERS[optimisation.optimizer]([group for group in groups if group["params"]], lr=optimisation.rate)


def learning_rate(schedule: Schedule, peak: float, step: int, steps: int) -> float:
    """The learning rate of step `step` (from 0) of `steps`.

    onecycle: a line up from a fifth of the peak, then a line down towards zero (Smith 2018). step: halved at each fifth
    of the run. exponential: down to a hundredth. cosine: half a cosine down to zero (Loshchilov and Hutter 2017).
    """
    done = step / max(1, steps)
    match schedule:
        case "constant":
            return peak
        case "step":
            return peak * 0.5 ** math.floor(done * 5)
        case "exponential":
            return float(peak * 0.01**done)
        case "cosine":
            return peak * (1 + math.cos(math.pi * done)) / 2
        case "onecycle":
            climbing = _ONECYCLE_START + (1 - _ONECYCLE_START) * done / _ONECYCLE_CLIMB
            return peak * min(climbing, (1 - done) / (1 - _ONECYCLE_CLIMB))
