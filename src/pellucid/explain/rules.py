"""From the tape to the textbook and back: a node's arrays for a rule, and the tape's names for what a rule answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pellucid.errors import UsageError
from pellucid.textbook.cells import KeptLstm, KeptRnn
from pellucid.textbook.gates import Inputs
from pellucid.textbook.recurrent import Flow, Kept

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pellucid.explain.node import Array, Node
    from pellucid.explain.tape import Tape
    from pellucid.textbook import Operation, Terms

#: The recurrent operations whose interior a tape may hold -> the values of one cell, and the states that have a start.
_CELLS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "rnn": (("h",), ("h",)),
    "lstm": (("i", "f", "g", "o", "c", "h"), ("h", "c")),
}


class Opened(NamedTuple):
    """The interior of a recurrent operation as the tape has it, in the form its rules take; `flow` with a loss only."""

    kept: Kept
    flow: Flow | None


def no_rule(node: Node, address: str) -> UsageError:
    """The error for a number that an operation without a rule made, or took."""
    where = f" in {node.module}" if node.module else ""
    line = f" ({node.source})" if node.source else ""
    return UsageError(
        f"{address}: {node.op}, which computes {node.name}{where}{line}, has no rule in the textbook, so what the "
        f"number is made of is not known; the number itself is tape.value({address!r})"
    )


def arrays_of(tape: Tape, node: Node) -> list[Array | None]:
    """The arrays that the node's operation took, in order; None where one was left out."""
    return [None if name is None else tape.values[name] for name in node.inputs]


def output_of(node: Node, operation: Operation) -> str:
    """Which output, or value of the interior, of its operation this node is."""
    return str(node.attributes.get("output", operation.outputs[0]))


def family(tape: Tape, node: Node, operation: Operation) -> dict[str, str]:
    """The node of every output, and interior value, that the tape has of this node's operation."""
    return {output_of(other, operation): other.name for other in tape.family(node.first)}


def gradients_of(tape: Tape, node: Node, operation: Operation) -> dict[str, Array]:
    """The gradients that arrive at the outputs of the node's operation, by the outputs' names."""
    nodes = family(tape, node, operation)
    found = {}
    for output in operation.outputs:
        name = nodes.get(output)
        if name in tape.gradients:
            found[output] = tape.gradients[name]
        elif name is not None and name == tape.loss:
            found[output] = np.ones(())
    return found


def names_of(tape: Tape, node: Node, operation: Operation, terms: Terms) -> dict[str, str]:
    """The tape's address of the array behind every source and factor; none for an argument that was left out."""
    arguments = dict(zip(operation.argument_names(len(node.inputs)), node.inputs, strict=True))
    nodes = family(tape, node, operation)
    sources = {group.source for group in terms.groups}
    sources |= {group.factor.source for group in terms.groups if group.factor is not None}
    found: dict[str, str] = {}
    for source in sources:
        # A cell calls what comes back from the next step "h.grad_from_next".
        inner, gradient, _ = source.partition(".grad")
        if not gradient and source in arguments:
            name = arguments[source]
            if name is not None:
                found[source] = name
        else:
            found[source] = nodes.get(inner, f"{node.first}.{inner}") + gradient
    return found


def sequences(tape: Tape, arrays: Iterable[str]) -> frozenset[str]:
    """Those of the array addresses that are sequences (N, T, D): what a recurrent operation takes, gives, and keeps."""
    found = set()
    for array in arrays:
        name = array.removesuffix(".grad")
        if name not in tape.values:
            # The interior of an operation that was not kept.
            continue
        node = tape.node(name)
        read = any(reader.op in _CELLS and 0 in at for reader, at in tape.consumers(node.name))
        last = str(node.attributes.get("output", "")).endswith("_n")
        if len(node.shape) == 3 and not last and (read or node.op in _CELLS):
            found.add(array)
    return frozenset(found)


def boundary(tape: Tape, node: Node, operation: Operation, terms: Terms, names: Mapping[str, str]) -> float:
    """What is added to the scale where an interior that was computed beside the pass explains a number of the engine's.

    The two were rounded on different ways through all the steps, and a unit is made from all units of the step before:
    its rounding is that of a typical unit, however small it is itself. So each term's share grows by what it would be
    for the mean |value| over the units beside it, and likewise for its factor.
    """
    if operation.name not in _CELLS:
        return 0.0
    arguments = set(operation.argument_names(len(node.inputs)))
    extra = 0.0
    for group in terms.groups:
        for part in (group, group.factor):
            if part is None or part.source.removesuffix(".grad") in {*arguments, *operation.outputs}:
                continue
            array = _array(tape, names[part.source])
            beside = np.abs(part.value) if array is None else np.abs(array[tuple(part.index.T[:-1])]).mean(axis=-1)
            extra += float((np.abs(part.coefficient) * beside).sum())
    return extra


def _array(tape: Tape, address: str) -> Array | None:
    """The array at an address without an index; None where the tape has none."""
    name = address.removesuffix(".grad")
    return tape.values.get(address) if name == address else tape.gradients.get(name)


def opened(tape: Tape, node: Node, operation: Operation) -> Opened | None:
    """The interior of a recurrent operation from the values and gradients on the tape; None where it has none.

    Without it the textbook would compute the interior again. From the tape, a term's value is the one the reader finds
    at its address.
    """
    if operation.name not in _CELLS:
        return None
    values, states = _CELLS[operation.name]
    named = dict(zip(operation.argument_names(len(node.inputs)), arrays_of(tape, node), strict=True))
    layers = (len(node.inputs) - 1 - len(states)) // 4
    wanted = [f"{layer}.{value}" for layer in range(layers) for value in values]
    nodes = family(tape, node, operation)
    if not all(name in nodes for name in wanted):
        return None
    inside = {name: tape.values[nodes[name]] for name in wanted}
    steps = [_steps(layer, named, inside, states) for layer in range(layers)]
    kept = Kept(steps, tuple(s for s in states if named[f"{s}0"] is not None))
    if not all(nodes[name] in tape.gradients for name in wanted):
        return Opened(kept, None)
    pulls = {name: tape.gradients[nodes[name]] for name in wanted}
    length = next(iter(inside.values())).shape[1]
    received, gave = [], []
    for layer in range(layers):
        at = [{value: pulls[f"{layer}.{value}"][:, t] for value in values} for t in range(length)]
        received.append([{"h": step["h"]} for step in at])
        gave.append([{value: pull for value, pull in step.items() if value != "h"} for step in at])
    # Of the arguments only names and shapes are read.
    shapes = {name: array for name, array in named.items() if array is not None}
    return Opened(kept, Flow({**shapes, **pulls}, received, gave))


def _steps(
    layer: int, named: Mapping[str, Array | None], inside: Mapping[str, Array], states: tuple[str, ...]
) -> list[Any]:
    """What every step of one layer kept."""
    below = named["x"] if layer == 0 else inside[f"{layer - 1}.h"]
    assert below is not None
    weights = [named[f"{name}_l{layer}"] for name in ("w_xh", "w_hh", "b", "b_hh")]
    h = inside[f"{layer}.h"]
    steps: list[Any] = []
    before: dict[str, Array] = {}
    for state in states:
        start = named[f"{state}0"]
        before[state] = np.zeros_like(h[:, 0]) if start is None else start[layer]
    own = {name.removeprefix(f"{layer}."): array for name, array in inside.items() if name.startswith(f"{layer}.")}
    for t in range(h.shape[1]):
        inputs = Inputs(below[:, t], before["h"], *weights)  # type: ignore[arg-type]
        now = {name: array[:, t] for name, array in own.items()}
        if "c" in states:
            i, f, g, o, c = (now[name] for name in ("i", "f", "g", "o", "c"))
            steps.append(KeptLstm(inputs, before["c"], i, f, g, o, c, np.tanh(c)))
        else:
            steps.append(KeptRnn(inputs, now["h"], None, None))
        before = {state: now[state] for state in states}
    return steps
