"""Optimisers by name, and how the learning rate goes over a run."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from pellucid.bundle.fit import heads
from pellucid.recipe import LEARNING_RATES, Optimizer, Schedule
from pellucid.training.finetune import Group, depth_groups
from pellucid.training.muon import Muon
from pellucid.training.rmsprop import KerasRMSprop
from pellucid.training.uncompiled import leave_the_compiler_out, plain

# The one-cycle schedule climbs from a fifth of its peak over this share of the run, then falls to zero in a line.
_ONECYCLE_START, _ONECYCLE_CLIMB = 0.2, 0.2
_WARMUP = 0.05
_NORMALISATIONS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm)

_SGD, _ADAM, _ADAMW = plain(torch.optim.SGD), plain(torch.optim.Adam), plain(torch.optim.AdamW)

# Where torch has one kernel for the whole update it takes a third of the time of the loop over the formula's parts.
_MAKERS: dict[Optimizer, Callable[..., torch.optim.Optimizer]] = {
    "sgd": lambda groups, lr: _SGD(groups, lr=lr, fused=True),
    "momentum": lambda groups, lr: _SGD(groups, lr=lr, momentum=0.9, fused=True),
    "nesterov": lambda groups, lr: _SGD(groups, lr=lr, momentum=0.9, nesterov=True, fused=True),
    "adagrad": plain(torch.optim.Adagrad),
    "adadelta": plain(torch.optim.Adadelta),
    "rmsprop": KerasRMSprop,
    "adam": lambda groups, lr: _ADAM(groups, lr=lr, fused=True),
    "adamw": lambda groups, lr: _ADAMW(groups, lr=lr, fused=True),
    "muon": Muon,
}
#: AdamW's rate, which what is no matrix has under Muon, times Muon's: as their usual rates.
_BESIDE_MUON = LEARNING_RATES["adamw"] / LEARNING_RATES["muon"]


def decayed(model: nn.Module) -> list[nn.Parameter]:
    """The trainable parameters that L1 and L2 pull on: matrices and filters, not biases and normalisations."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad and parameter.ndim > 1]


def make_optimizer(
    model: nn.Module,
    optimizer: Optimizer,
    lr: float,
    weight_decay: float,
    lr_decay_by_depth: float | None = None,
    bias_rate: float = 1.0,
) -> torch.optim.Optimizer:
    """The optimiser of that name, over the model's trainable parameters.

    Weight decay pulls on matrices and filters only: on a bias or a normalisation's scale it takes away what the layer
    needs and regularises nothing (He et al. 2019, Bag of Tricks, section 3.1). With `lr_decay_by_depth` lower layers
    have lower rates, see `depth_groups`. The shifts of normalisations have `bias_rate` times the others' rate. Under
    Muon what is no hidden layer's matrix follows AdamW, at a tenth of the rate.
    `set_rate` goes by what each group notes of both.
    """
    parts = (
        [Group([parameter for parameter in model.parameters() if parameter.requires_grad], 1.0)]
        if lr_decay_by_depth is None
        else depth_groups(model, lr_decay_by_depth)
    )
    leave_the_compiler_out()
    raised = {id(shift) for shift in _shifts(model)} if bias_rate != 1 else set()
    turned = _hidden(model) if optimizer == "muon" else set()
    beside = _BESIDE_MUON if optimizer == "muon" else 1.0
    groups: list[dict[str, Any]] = []
    for part in parts:
        hidden = [parameter for parameter in part.parameters if id(parameter) in turned]
        left = [parameter for parameter in part.parameters if id(parameter) not in turned]
        matrices = [parameter for parameter in left if parameter.ndim > 1]
        others = [parameter for parameter in left if parameter.ndim <= 1 and id(parameter) not in raised]
        shifts = [parameter for parameter in left if id(parameter) in raised]
        for parameters, factor, decay in (
            (hidden, 1.0, weight_decay),
            (matrices, beside, weight_decay),
            (others, beside, 0.0),
            (shifts, beside * bias_rate, 0.0),
        ):
            multiplier = part.multiplier * factor
            group = {"params": parameters, "lr": lr * multiplier, "multiplier": multiplier, "weight_decay": decay}
            groups.append({**group, "orthogonal": True} if parameters is hidden else group)
    return _MAKERS[optimizer]([group for group in groups if group["params"]], lr=lr)


def _hidden(model: nn.Module) -> set[int]:
    """The matrices and filters between the pictures and the answer, which is not made of directions but of classes."""
    last = {id(parameter) for name in heads(model) for parameter in model.get_submodule(name).parameters()}
    return {id(p) for p in model.parameters() if p.ndim > 1 and id(p) not in last}


def _shifts(model: nn.Module) -> list[nn.Parameter]:
    """What normalisations add to each channel."""
    modules = (module for module in model.modules() if isinstance(module, _NORMALISATIONS))
    return [bias for module in modules if (bias := module._parameters["bias"]) is not None and bias.ndim == 1]


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of the next step, in each group times that group's multiplier."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["multiplier"]


def rate_of(optimizer: torch.optim.Optimizer) -> float:
    """The rate that `set_rate` set last."""
    groups = optimizer.param_groups
    plain = next((group["lr"] for group in groups if group["multiplier"] == 1), None)
    return float(groups[0]["lr"] / groups[0]["multiplier"] if plain is None else plain)


def learning_rate(schedule: Schedule, peak: float, step: int, steps: int, halving: int | None = None) -> float:
    """The learning rate of step `step` (from 0) of `steps`.

    onecycle: a line up from a fifth of the peak, then a line down towards zero (Smith 2018). step: halved at each fifth
    of the run, or every `halving` steps. tenths: a tenth from half of the run on, a hundredth from three quarters on
    (He et al. 2016). exponential: down to a hundredth. cosine: half a cosine down to zero (Loshchilov and Hutter 2017).
    warmup-cosine: a line up over the first twentieth, then the cosine (Goyal et al. 2017). plateau is constant here:
    what lowers it is not the step.
    """
    done = step / max(1, steps)
    match schedule:
        case "constant" | "plateau":
            return peak
        case "step":
            return peak * 0.5 ** (math.floor(done * 5) if halving is None else step // halving)
        case "tenths":
            return peak * 0.1 ** ((done >= 0.5) + (done >= 0.75))
        case "exponential":
            return float(peak * 0.01**done)
        case "cosine":
            return peak * (1 + math.cos(math.pi * done)) / 2
        case "warmup-cosine":
            if done < _WARMUP:
                return peak * (step + 1) / (math.floor(_WARMUP * steps) + 1)
            return peak * (1 + math.cos(math.pi * (done - _WARMUP) / (1 - _WARMUP))) / 2
        case "onecycle":
            climbing = _ONECYCLE_START + (1 - _ONECYCLE_START) * done / _ONECYCLE_CLIMB
            return peak * min(climbing, (1 - done) / (1 - _ONECYCLE_CLIMB))
