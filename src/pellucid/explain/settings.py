"""An optimiser of torch's, read into the textbook's words: its rule, its settings, and what it remembers.

An optimiser, or a setting of one, that the textbook has no rule for keeps the engine's own name, and nothing is said
about how it works.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from pellucid.explain.node import Array, Step
from pellucid.textbook import OPTIMISERS

#: By class: the textbook's name of each setting, and of each array that is remembered, by the engine's.
_NUMBERS: Mapping[str, Mapping[str, str]] = {
    "SGD": {"momentum": "momentum"},
    "Adagrad": {"lr_decay": "lr_decay", "eps": "eps"},
    "Adadelta": {"rho": "rho", "eps": "eps"},
    "RMSprop": {"alpha": "alpha", "eps": "eps"},
    "rmsprop_keras": {"rho": "alpha", "epsilon": "eps"},
    "Adam": {"eps": "eps"},
    "AdamW": {"eps": "eps"},
    "muon": {"momentum": "momentum", "rounds": "rounds"},
}
_ARRAYS: Mapping[str, Mapping[str, str]] = {
    "SGD": {"momentum_buffer": "velocity"},
    "Adagrad": {"sum": "square_sum"},
    "Adadelta": {"square_avg": "square_average", "acc_delta": "delta_average"},
    "RMSprop": {"square_avg": "square_average"},
    "rmsprop_keras": {"square": "square_average"},
    "Adam": {"exp_avg": "m", "exp_avg_sq": "v"},
    "AdamW": {"exp_avg": "m", "exp_avg_sq": "v"},
    "muon": {"velocity": "velocity"},
}
#: Settings under which torch computes what the textbook has no rule for.
_BEYOND = ("maximize", "amsgrad", "centered", "dampening")


def rule_of(optimiser: str, group: Mapping[str, Any]) -> str | None:
    """The textbook's rule for a class of torch.optim and the settings of one group of parameters; None without one.

    An optimiser of another make may name its rule itself, in a class attribute `textbook_rule`.
    """
    if optimiser not in _NUMBERS or any(group.get(name) for name in _BEYOND):
        return None
    if optimiser == "SGD":
        return "nesterov" if group["nesterov"] else "momentum" if group["momentum"] else "gradient_descent"
    if optimiser == "RMSprop" and group["momentum"]:
        return None
    if optimiser in {"Adam", "AdamW"}:
        return "adamw" if group.get("decoupled_weight_decay", optimiser == "AdamW") else "adam"
    return optimiser.lower()


def step_of(optimiser: str, group: Mapping[str, Any], state: Mapping[str, Array], p: Array) -> Step:
    """What the coming step does to parameter `p`: `state` is what the optimiser remembers of it (nothing at first).

    `optimiser` is the name of the class, "" for one that is not torch's own. Where the textbook has no rule, `rule` is
    that name with the settings that led beyond it.
    """
    if optimiser == "muon" and not group["orthogonal"]:
        optimiser = "AdamW"
    number = int(state["step"]) + 1 if "step" in state else 1
    rule = rule_of(optimiser, group)
    if rule is None:
        beyond = [name for name in (*_BEYOND, "momentum") if group.get(name)] if optimiser in _NUMBERS else []
        name = f"{optimiser or 'an optimiser of your own'}" + (f" ({', '.join(beyond)})" if beyond else "")
        return Step(name, _plain(group), {key: array for key, array in state.items() if array.shape == p.shape}, number)
    hyper = {"lr": float(group["lr"]), "weight_decay": float(group["weight_decay"])}
    hyper |= {ours: float(group[theirs]) for theirs, ours in _NUMBERS[optimiser].items()}
    if rule in {"adam", "adamw"}:
        hyper |= {"beta1": float(group["betas"][0]), "beta2": float(group["betas"][1])}
    known = {"lr", "weight_decay", *OPTIMISERS[rule].defaults}
    arrays = {ours: state[theirs] for theirs, ours in _ARRAYS[optimiser].items() if theirs in state}
    remembered = {name: arrays.get(name, np.zeros_like(p)) for name in OPTIMISERS[rule].states}
    return Step(rule, {name: value for name, value in hyper.items() if name in known}, remembered, number)


def _plain(group: Mapping[str, Any]) -> dict[str, float]:
    return {
        name: float(value)
        for name, value in group.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    }
