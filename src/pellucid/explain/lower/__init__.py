"""From the engine's operations to the textbook's: an ATen call becomes a call of `textbook.OPERATIONS`, or nothing.

The tables in `layers`, `functions`, `moves` and `taken` have a rule for each operation (overload by overload) that the
textbook knows. A rule reads the call's settings and gives `None` where one of them is beyond the textbook: an operation
is explained as it was computed, or not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pellucid.explain.lower import functions, layers, moves, taken
from pellucid.explain.lower.call import Call, Lowered, Ref, Rules, Shape

_RULES: Rules = {**layers.RULES, **functions.RULES, **moves.RULES, **taken.RULES}

#: Operations of the textbook that compute nothing: every number they give is one they were given, in another place.
PASS_THROUGH: frozenset[str] = frozenset(
    {"identity", "flatten", "reshape", "permute", "slice", "select", "expand", "take"}
)


def _shape(tensor: Ref) -> Shape:
    return tensor.shape


def lower(target: str, arguments: Mapping[str, Any], shapes: Callable[[Any], Shape] = _shape) -> Lowered | None:
    """The textbook call for one ATen call, or None where there is no rule.

    `target` is the operation with its overload ("aten.conv2d.default"), `arguments` its arguments by the names of its
    schema, defaults filled in: tensors as Ref, everything else as it is. A dropout that drew a mask has it as `mask`, 0
    where dropped and 1 elsewhere. Of several outputs the first is meant. `shapes` gives the shape of a tensor.
    """
    rule = _RULES.get(target)
    return None if rule is None else rule(Call(arguments, shapes))


def lower_part(
    target: str, arguments: Mapping[str, Any], part: int, shapes: Callable[[Any], Shape] = _shape
) -> Lowered | None:
    """The textbook call for one part of an operation that gives a list (chunk, split, unbind), or None."""
    rule = moves.PARTS.get(target)
    return None if rule is None else rule(Call(arguments, shapes), part)


__all__ = ["PASS_THROUGH", "Lowered", "Ref", "lower", "lower_part"]
