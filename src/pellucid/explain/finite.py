"""Where the first number of a pass that is not finite stands."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pellucid.explain.node import Array, Node
    from pellucid.explain.tape import Tape


def not_finite(tape: Tape) -> list[str]:
    """A sentence on the first value, and one on the first gradient on the way back, that is NaN or infinite."""
    found = (_first(tape.nodes, tape.values), _first(reversed(tape.nodes), tape.gradients, ".grad"))
    return [sentence for sentence in found if sentence]


def _first(nodes: Iterable[Node], arrays: Mapping[str, Array], suffix: str = "") -> str:
    for node in nodes:
        array = arrays.get(node.name)
        if array is None or array.dtype.kind != "f":
            continue
        with np.errstate(over="ignore", invalid="ignore"):
            # The sum is quick, and never finite where a number is not; it may overflow by itself.
            suspicious = not np.isfinite(array.sum())
        if suspicious and not np.isfinite(array).all():
            index = [int(i) for i in np.argwhere(~np.isfinite(array))[0]]
            place = f"{node.name}{suffix}" + (f"[{','.join(map(str, index))}]" if index else "")
            return f"the first number that is not finite is {place}, of {node.op}: {array[tuple(index)]}"
    return ""
