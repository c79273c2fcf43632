"""Gradients from a tape, by the textbook's backward passes: of any number with respect to what it was computed from.

A tape's own gradients are those of its loss. Other numbers have gradients too, a logit above all; they are computed
here from the recorded values, without the engine that recorded them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pellucid.errors import UsageError
from pellucid.explain.address import find
from pellucid.explain.node import LEAVES, Array, Node, operation_of
from pellucid.explain.rules import arrays_of, family, no_rule
from pellucid.explain.walk import Walk, recurrence_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pellucid.explain.tape import Tape


def backward_from(tape: Tape, address: str, wanted: Iterable[str] | None = None) -> dict[str, Array]:
    """By node name: the gradient of the value at an address with respect to every value on the way to the nodes wanted.

    `wanted` are names of nodes, the inputs unless given. An address without an index stands for the sum of the array.
    A node that the value does not depend on has no gradient. Raises UsageError for an address that is none or means
    anything but a value, for a name that no node has, and for an operation without a rule on the way.
    """
    where = find(tape, address)
    if where.what:
        raise UsageError(f"{address}: gradients start at a value: ask {where.node}, not its {where.what!r}")
    value = tape.values[where.node]
    if value.dtype.kind != "f":
        raise UsageError(f"{address}: holds whole numbers, which have no gradient: ask a value that was computed")
    seed = np.ones_like(value)
    if where.index is not None:
        seed = np.zeros_like(value)
        seed[where.index] = 1
    targets = {node.name for node in tape.nodes if node.op == "input"} if wanted is None else set(wanted)
    names = {tape.node(name).name for name in targets}
    return _back(tape, where.node, seed, names)


def _back(tape: Tape, name: str, seed: Array, targets: set[str]) -> dict[str, Array]:
    """The walk from a node down to the targets, through the operations that lie between."""
    above = _above(tape, targets)
    walk, found = Walk(tape), {name: seed}
    for node in reversed(tape.nodes):
        if node.op in LEAVES or not node.is_primary:
            continue
        reached = [other for other in tape.family(node.name) if other.name in found]
        if not reached or not any(given in above for given in node.inputs):
            continue
        for at, gradient in _through(walk, node, found).items():
            if at in above:
                found[at] = found[at] + gradient if at in found else gradient
    return found


def _above(tape: Tape, targets: set[str]) -> set[str]:
    """The targets and all that was computed from them."""
    found = set(targets)
    for node in tape.nodes:
        if any(given in found for given in node.inputs):
            found.add(node.name)
    return found


def _through(walk: Walk, node: Node, found: Mapping[str, Array]) -> dict[str, Array]:
    """What comes out of one operation's backward pass, by the nodes that it was given."""
    known = operation_of(node)
    if known is None:
        raise no_rule(node, node.name)
    operation, settings = known
    arrays = arrays_of(walk.tape, node)
    nodes = family(walk.tape, node, operation)
    arrived = {output: found[at] for output, at in nodes.items() if at in found}
    kept = walk.kept(node, operation)
    if recurrence_of(operation) is None:
        kept = operation.forward(*arrays, **settings)[1]
    inside = [output for output in arrived if output not in operation.outputs]
    if inside:
        raise UsageError(
            f"{nodes[inside[0]]}: lies inside {node.name}, whose backward pass starts at its outputs: "
            f"ask a number of {node.name}"
        )
    first = operation.outputs[0]
    several = len(operation.outputs) > 1
    gradients = operation.backward(arrived if several else arrived[first], kept)
    names = operation.argument_names(len(node.inputs))
    made: dict[str, Array] = {}
    for argument, at in zip(names, node.inputs, strict=True):
        if at is not None and argument in gradients:
            made[at] = made[at] + gradients[argument] if at in made else gradients[argument]
    made |= {at: gradients[output] for output, at in nodes.items() if output in gradients and output not in names}
    return made
