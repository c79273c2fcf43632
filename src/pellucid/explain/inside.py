"""The inside of recurrent operations: gates and states that the engine does not give, from the textbook's own pass.

The engine's operation stays one node with the engine's outputs. What its cells computed on the way is computed again,
in float64 from the recorded arrays, and so are the gradients, from those recorded at the outputs. The two agree at the
outputs up to rounding, which is measured; where they do not, the operation is not opened.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from pellucid.explain.names import unique
from pellucid.explain.node import BOUNDS, Array, Node
from pellucid.textbook.recurrent import LSTM, RNN

if TYPE_CHECKING:
    from pellucid.explain.tape import Tape

RECURRENCES = {recurrence.name: recurrence for recurrence in (LSTM, RNN)}


@dataclass(frozen=True, eq=False)
class Inside:
    """The nodes in one recurrent operation, their values and gradients, and how far its outputs are from the engine's.

    All go by the name inside the operation ("0.f").
    """

    values: dict[str, Array]
    gradients: dict[str, Array]
    difference: float


def inside(node: Node, outputs: Mapping[str, str], values: Mapping[str, Array], slopes: Mapping[str, Array]) -> Inside:
    """What the cells of a recurrent node computed: "0.f" (N, T, H) and so on, in the engine's type of number.

    `outputs` names the nodes of the operation's outputs, `values` and `slopes` hold what was recorded. Gradients are
    given only where the loss has some at the outputs.
    """
    recurrence = RECURRENCES[node.op]
    arrays = [None if name is None else values[name].astype(np.float64) for name in node.inputs]
    made, kept = recurrence.forward(*arrays)  # type: ignore[arg-type]
    difference = max(float(np.abs(made[output] - values[name]).max(initial=0)) for output, name in outputs.items())
    dtype = values[node.name].dtype
    found = {output: array.astype(dtype) for output, array in recurrence.interior(kept).items()}
    arrived = {output: slopes[name].astype(np.float64) for output, name in outputs.items() if name in slopes}
    back = recurrence.backward(arrived, kept) if arrived else {}
    return Inside(found, {output: back[output].astype(dtype) for output in found if output in back}, difference)


def open_up(tape: Tape) -> None:
    """Add what is inside every recurrent node of a tape, after the node's last output; say how near the engine's it is.

    A stack that was recorded layer by layer ("lstm.layer0"), or turned ("lstm.cells"), is also found under the names of
    one that was not: "lstm.0.f".
    """
    outputs: dict[str, dict[str, str]] = {}
    last: dict[str, int] = {}
    for position, node in enumerate(tape.nodes):
        if node.op in RECURRENCES and "output" in node.attributes:
            outputs.setdefault(node.first, {})[str(node.attributes["output"])] = node.name
            last[node.first] = position
    # Not through the tape, which looks names up in the list that grows here.
    nodes = {node.name: node for node in tape.nodes}
    after: dict[int, list[Node]] = {}
    for name, named in outputs.items():
        node = nodes[name]
        found = inside(node, named, tape.values, tape.gradients)
        size = max(1.0, *(float(np.abs(tape.values[output]).max(initial=0)) for output in named.values()))
        # NaN is not near anything.
        if not found.difference <= BOUNDS[tape.precision] * size:
            says = f"not opened into cells, since the textbook's outputs are {found.difference:.1e} from the engine's"
        else:
            says = f"cells computed again by the textbook, within {found.difference:.1e} of the engine's outputs"
            after[last[name]] = _added(tape, node, found)
        tape.notes.append(f"{name}: {says}")
    tape.nodes[:] = [one for k, node in enumerate(tape.nodes) for one in (node, *after.get(k, ()))]


def _added(tape: Tape, node: Node, found: Inside) -> list[Node]:
    """The nodes inside an operation, their arrays entered into the tape."""
    nodes = []
    for output, array in found.values.items():
        name = unique(f"{node.name}.{output}", set(tape.values))
        settings = {**node.attributes, "of": node.name, "output": output, "recomputed": True}
        nodes.append(replace(node, name=name, attributes=settings, shape=array.shape))
        tape.values[name] = array
        if output in found.gradients:
            tape.gradients[name] = found.gradients[output]
        plain = re.sub(r"\.layer(\d+)\.0\.(\w+)$", r".\1.\2", name)
        plain = re.sub(r"\.cells\.(\d+\.\w+)$", r".\1", plain)
        if plain not in tape.values:
            tape.aliases[plain] = name
    return nodes
