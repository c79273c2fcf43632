"""One update rule of an optimiser: what a step makes of a weight, and the terms of every weight that it makes.

A rule is data: its states, its settings, the formula and the slopes of it. Gradient descent, p − η·g, whose weight
decay joins the gradient before the rule sees it:

>>> rule = lambda x, h, step: {"next": x["p"] - h["lr"] * x["g"]}
>>> slopes = lambda x, h, step: {"p": np.ones_like(x["p"]), "g": np.full_like(x["g"], -h["lr"])}
>>> descent = Optimiser("descent", "downhill", (), {}, "{p} − {lr}·{g}", rule, slopes)
>>> p, g = np.array([1.0, 2.0]), np.array([0.5, 0.5])
>>> descent.step(p, g, {}, 1, lr=0.1, weight_decay=0.2)[0].round(6).tolist()
[0.93, 1.91]
>>> descent.terms((1,), p, g, {}, 1, lr=0.1, weight_decay=0.2).numbers()
'2 − 0.1·0.9 = 1.91'
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pellucid.textbook.terms import Array, Group, Index, Terms, check_index, check_shape, gather, row, unknown

Values = Mapping[str, Array]
Hyper = Mapping[str, float]
#: Of one number: the named steps of the formula, new states by their names, and at the end "next".
Rule = Callable[[Values, Hyper, int], dict[str, Array]]


#: Settings of every rule, with their defaults.
COMMON: Hyper = {"lr": 1e-2, "weight_decay": 0.0, "clip": 1.0}


@dataclass(frozen=True)
class Optimiser:
    """One update rule: its states (zeros at the start), its settings with defaults, the rule, and its slopes.

    `slopes` gives ∂next/∂ of p (with g held), of g (as it enters the rule), and of every state before the step: of a
    rule that goes number by number. A subclass whose numbers depend on each other has its own `terms`.
    """

    name: str
    summary: str
    states: tuple[str, ...]
    defaults: Hyper
    template: str
    rule: Rule
    slopes: Rule | None
    decoupled: bool = False
    """Whether weight decay is taken off the weight itself, and is no part of the gradient."""

    def start(self, p: Array) -> dict[str, Array]:
        """The states before the first step."""
        return {name: np.zeros_like(p) for name in self.states}

    def step(
        self, p: Array, g: Array, state: Mapping[str, Array], step: int, **hyper: float
    ) -> tuple[Array, dict[str, Array]]:
        """The weights and the states after step number `step` (from 1), in the weights' type."""
        settings = self.settings(hyper, step)
        values = self.entering(p, g, state, settings)
        made = self.rule(values, settings, step)
        return made["next"].astype(p.dtype), {name: made[name].astype(p.dtype) for name in self.states}

    def terms(self, index: Index, p: Array, g: Array, state: Mapping[str, Array], step: int, **hyper: float) -> Terms:
        """What p[index] will be after the step: from p, its gradient, and each state."""
        settings = self.settings(hyper, step)
        assert self.slopes is not None
        at = row(check_index(index, p.shape, "p"))
        arrays = {"p": p, "g": g, **{name: state[name] for name in self.states}}
        raw = {name: gather(array, at) for name, array in arrays.items()}
        slope = self.slopes(effective(raw, settings, not self.decoupled), settings, step)
        # The gradient reaches the rule times `clip`, and through weight decay p is part of it.
        slope = {**slope, "p": slope["p"] + settings["weight_decay"] * (not self.decoupled) * slope["g"]}
        slope["g"] = slope["g"] * settings["clip"]
        groups = tuple(Group(name, at, value, np.atleast_1d(slope[name])) for name, value in raw.items())
        after = float(self.rule(effective(raw, settings, not self.decoupled), settings, step)["next"][0])
        before = float(raw["p"][0])
        # A memory that the new gradient nearly undoes leaves little, with the rounding of both.
        carried = sum(float(np.abs(slope[name] * raw[name]).sum()) for name in self.states)
        scale = abs(before) + abs(before - after) + carried
        return Terms(groups, self.template, scale, "formula", self.recompute, {**settings, "step": step})

    def recompute(self, groups: Mapping[str, Group], constants: Mapping[str, Any]) -> dict[str, float]:
        """The rule again, from the values of the terms."""
        settings = {name: value for name, value in constants.items() if name != "step"}
        raw = {name: group.value for name, group in groups.items()}
        values = effective(raw, settings, not self.decoupled)
        made = self.rule(values, settings, int(constants["step"]))
        steps = {name: float(value[0]) for name, value in values.items()} | dict(settings)
        return (
            steps
            | {name: float(value[0]) for name, value in made.items() if name != "next"}
            | {"next": float(made["next"][0])}
        )

    def entering(self, p: Array, g: Array, state: Mapping[str, Array], settings: Hyper) -> Values:
        """What the rule takes of one parameter, checked."""
        check_shape(g, p.shape, "g", f"one gradient a weight of p {p.shape}")
        for name in self.states:
            if name not in state:
                raise unknown(name, list(state) or ["(no state was given)"], f"a state of {self.name}")
            check_shape(state[name], p.shape, name, f"one number a weight of p {p.shape}")
        return effective({"p": p, "g": g, **{name: state[name] for name in self.states}}, settings, not self.decoupled)

    def settings(self, hyper: Hyper, step: int) -> dict[str, float]:
        """All settings, checked: these, and the defaults of the others."""
        known = {**COMMON, **self.defaults}
        for name, value in hyper.items():
            if name not in known:
                raise unknown(name, list(known), f"a setting of {self.name}")
            if value < 0:
                raise ValueError(f"{name} is {value}, but the rule {self.template} needs {name} ≥ 0")
        if step < 1:
            raise ValueError(f"step is {step}, but steps are counted from 1")
        return {**known, **hyper}


def effective(raw: Values, settings: Hyper, coupled: bool = True) -> dict[str, Array]:
    """The values with the gradient as it enters the rule: clip·g, and λ·p where weight decay is part of it."""
    g = raw["g"] * settings["clip"]
    if coupled and settings["weight_decay"]:
        g = g + settings["weight_decay"] * raw["p"]
    return {**raw, "g": g}
