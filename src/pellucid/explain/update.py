"""Why a parameter is what it is after a step: the optimiser's rule on the parameter, its gradient, and its memory."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from pellucid.errors import UsageError
from pellucid.explain.address import Address, array_at, spelled
from pellucid.explain.explanation import Explanation
from pellucid.explain.node import CLIP_EPS, Array, Clipping, Index, Node, Step, number
from pellucid.textbook import OPTIMISERS, Group, Terms
from pellucid.textbook.clipping import by_value, by_value_slopes
from pellucid.textbook.terms import gather, plain, row, summed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pellucid.explain.tape import Tape

#: How the rules make their steps and moments, in an order in which each stands on those before; `old` are the moments
#: as they were.
_MADE: Mapping[str, str] = {
    "shrunk": "{p}·(1 − {lr}·{weight_decay})",
    "velocity": "{momentum}·{old.velocity} + {g}",
    "square_sum": "{old.square_sum} + {g}²",
    "rate": "{lr}/(1 + ({step} − 1)·{lr_decay})",
    "square_average": "{keeps}·{old.square_average} + (1 − {keeps})·{g}²",
    "d": "{g}·√({old.delta_average} + {eps})/√({square_average} + {eps})",
    "delta_average": "{rho}·{old.delta_average} + (1 − {rho})·{d}²",
    "m": "{beta1}·{old.m} + (1 − {beta1})·{g}",
    "v": "{beta2}·{old.v} + (1 − {beta2})·{g}²",
    "m_hat": "{m}/(1 − {beta1}^{step})",
    "v_hat": "{v}/(1 − {beta2}^{step})",
    "ahead": "{g} + {momentum}·{velocity}",
    "unit": "{ahead}/{length}",
    "direction": "3.4445·{before} + {pull}",
    "turn": "{lr}·√({ratio})",
}


def explained(tape: Tape, node: Node, index: Index) -> Explanation:
    """A parameter after the optimiser's step. Raises UsageError for a rule that the textbook does not have."""
    assert tape.update is not None
    address, value = spelled(f"{node.name}.next", index), number(tape.after[node.name], index)
    step, clipping = tape.update.parameters.get(node.name), tape.update.clipping
    if step is None:
        left = summed(
            [plain("p", row(index), tape.values[node.name])], "p, left as it was: frozen, or without a gradient"
        )
        return Explanation(address, "parameter", left, {"p": node.name}, value, tape.precision)
    if step.rule not in OPTIMISERS:
        raise UsageError(
            f"{address}: the step was made by {step.rule}, which has no rule in the textbook, so what the number is "
            f"made of is not known; the number itself is tape.value({address!r})"
        )
    made = _terms(step, clipping, index, tape.values[node.name], array_at(tape, Address(node.name, "grad")))
    names = {"p": node.name, "g": f"{node.name}.grad"}
    names |= {state: f"{node.name}.state.{state}" for state in OPTIMISERS[step.rule].states}
    details = tuple(_details(step, clipping, made, index))
    return Explanation(address, step.rule, made, names, value, tape.precision, details=details)


def _terms(step: Step, clipping: Clipping | None, index: Index, p: Array, g: Array) -> Terms:
    """The rule's terms; the gradient among them is the raw one, from before any clipping."""
    optimiser, hyper = OPTIMISERS[step.rule], dict(step.hyper)
    if clipping is None or clipping.kind == "norm":
        hyper["clip"] = 1.0 if clipping is None else clipping.factor
        return optimiser.terms(index, p, g, step.state, step.step, **hyper)
    limit = clipping.limit
    made = optimiser.terms(index, p, by_value(g, limit), step.state, step.step, **hyper)

    def raw(group: Group) -> Group:
        value = gather(g, group.index)
        (slope,) = by_value_slopes(value, limit)
        return group if group.source != "g" else replace(group, value=value, coefficient=group.coefficient * slope)

    def rule(groups: Mapping[str, Group], constants: Mapping[str, Any]) -> dict[str, float]:
        clipped = replace(groups["g"], value=by_value(groups["g"].value, limit))
        return optimiser.recompute({**groups, "g": clipped}, constants)

    return replace(made, groups=tuple(raw(group) for group in made.groups), rule=rule)


def _details(step: Step, clipping: Clipping | None, made: Terms, index: Index) -> list[str]:
    """How the gradient entered the rule, and how each moment was made: of the parameter's own place."""
    raw = {group.source: _at(group, index) for group in made.groups}
    steps = made.steps()
    lines = []
    if clipping is not None and clipping.norm is not None:
        lines.append(
            f"clip = min(1, limit/(norm + {CLIP_EPS:g})) = min(1, {_short(clipping.limit)}/({_short(clipping.norm)} + "
            f"{CLIP_EPS:g})) = {_short(clipping.factor)}"
        )
    elif clipping is not None:
        limit = _short(clipping.limit)
        lines.append(
            f"clipped = min(max(grad, −limit), limit) = min(max({_short(raw['g'])}, −{limit}), {limit}) = "
            f"{_short(max(min(raw['g'], clipping.limit), -clipping.limit))}"
        )
    decay = 0.0 if OPTIMISERS[step.rule].decoupled else steps["weight_decay"]
    if steps["g"] != raw["g"] or clipping is not None or decay:
        lines.append(_entered(raw, steps, clipping, decay))
    words = {name: _short(value) for name, value in steps.items()}
    words |= {"step": str(step.step), "keeps": words.get("alpha", words.get("rho", ""))}
    old = SimpleNamespace(**{name: _short(value) for name, value in raw.items()})
    for name, template in _MADE.items():
        if name in steps and (name != "rate" or steps["lr_decay"]):
            lines.append(f"{name} = {template.format(old=old, **words)} = {words[name]}")
    return lines


def _at(group: Group, index: Index) -> float:
    """The value of the group's term at that place: where there is but one, its own."""
    return float(group.value[0] if len(group) == 1 else group.value[(group.index == index).all(1)][0])


def _entered(raw: Mapping[str, float], steps: Mapping[str, float], clipping: Clipping | None, decay: float) -> str:
    """The gradient as the rule took it."""
    symbols, numbers = "grad", _short(raw["g"])
    if clipping is not None and clipping.kind == "norm":
        symbols, numbers = "clip·grad", f"{_short(steps['clip'])}·{numbers}"
    elif clipping is not None:
        symbols, numbers = "clipped", _short(max(min(raw["g"], clipping.limit), -clipping.limit))
    if decay:
        symbols, numbers = f"{symbols} + weight_decay·p", f"{numbers} + {_short(decay)}·{_short(raw['p'])}"
    return f"g = {symbols} = {numbers} = {_short(steps['g'])}"


def _short(value: float) -> str:
    """Six digits; a negative number in brackets, so that it reads well in a product."""
    return f"({value:.6g})" if value < 0 else f"{value:.6g}"
