"""Why a gradient is what it is: the sum over everything that read the number, each through its local slope."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pellucid.explain.address import Address, array_at, spelled
from pellucid.explain.explanation import Explanation
from pellucid.explain.node import Index, Node, number, operation_of
from pellucid.explain.rules import arrays_of, boundary, gradients_of, names_of, no_rule, opened, output_of, sequences
from pellucid.textbook import Group, Terms
from pellucid.textbook.terms import summed

if TYPE_CHECKING:
    from pellucid.explain.tape import Tape


def explained(tape: Tape, node: Node, index: Index) -> Explanation:
    """∂L/∂ of one number: over everything that read it, the gradient that reached it from there.

    A reader that the loss does not depend on, or that has no slope (a label, a mask), sends nothing back. Raises
    UsageError where a reader has no rule.
    """
    address = spelled(f"{node.name}.grad", index)
    value = number(array_at(tape, Address(node.name, "grad")), index)
    if node.name == tape.loss:
        return Explanation(address, node.op, None, {}, value, tape.precision, "∂L/∂L, given")
    reached: list[tuple[Node, Terms]] = []
    if node.attributes.get("recomputed"):
        # A gate is read inside its own operation.
        operation = operation_of(node)
        if operation is None:
            raise no_rule(node, address)
        reached.append((tape.node(node.first), _through(tape, node, output_of(node, operation[0]), index, inner=True)))
    for reader, positions in tape.consumers(node.name):
        reached += [(reader, terms) for terms in _from(tape, reader, positions, index, address)]
    made = _joined(reached)
    names = {group.source: group.source for group in made.groups}
    names |= {group.factor.source: group.factor.source for group in made.groups if group.factor is not None}
    rules = [reader.attributes.get("operation", reader.op) for reader, _ in reached] or [node.op]
    return Explanation(
        address,
        ", ".join(dict.fromkeys(rules)),
        made,
        names,
        value,
        tape.precision,
        sequences=sequences(tape, names),
    )


def _from(tape: Tape, reader: Node, positions: list[int], index: Index, address: str) -> list[Terms]:
    """What comes back from one reader, for each of its arguments that the number was."""
    known = operation_of(reader)
    if known is None:
        if any(node.name in tape.gradients for node in tape.family(reader.first)):
            raise no_rule(reader, address)
        return []
    operation = known[0]
    if not gradients_of(tape, reader, operation):
        return []
    names = operation.argument_names(len(reader.inputs))
    constant = {argument.name for argument in operation.arguments if not argument.differentiable}
    return [_through(tape, reader, names[position], index) for position in positions if names[position] not in constant]


def _through(tape: Tape, node: Node, wrt: str, index: Index, *, inner: bool = False) -> Terms:
    """The terms of ∂L/∂wrt[index] through one operation, under the tape's names; `inner`: wrt is inside it."""
    known = operation_of(node)
    assert known is not None
    operation, settings = known
    pulls = gradients_of(tape, node, operation)
    made: dict[str, Any] = dict(settings)
    inside = opened(tape, node, operation)
    if inside is not None:
        made["kept"] = inside.kept
        if inside.flow is not None:
            made["flow"] = inside.flow
    dy = pulls[operation.outputs[0]] if len(operation.outputs) == 1 else pulls
    terms = operation.grad_terms(index, wrt, dy, *arrays_of(tape, node), **made)
    names = names_of(tape, node, operation, terms)
    extra = 0.0 if inner else boundary(tape, node, operation, terms, names)
    return replace(terms, groups=tuple(_renamed(group, names) for group in terms.groups), scale=terms.scale + extra)


def _renamed(group: Group, names: dict[str, str]) -> Group:
    """The group with the tape's names; a factor that was left out (a state of zeros) is no longer named."""
    factor = group.factor
    if factor is not None:
        factor = replace(factor, source=names[factor.source]) if factor.source in names else None
    return replace(group, source=names[group.source], factor=factor)


def _joined(reached: list[tuple[Node, Terms]]) -> Terms:
    """One sum of all that came back."""
    if len(reached) == 1:
        reader, terms = reached[0]
        return replace(terms, template=f"{terms.template}, y being {reader.name}")
    ways = ", ".join(f"{reader.name} ({terms.template})" for reader, terms in reached)
    template = f"the sum over what reads it: {ways}" if ways else "nothing that the loss depends on reads it: 0"
    groups = [group for _, terms in reached for group in terms.groups]
    return summed(groups, template, sum(terms.scale for _, terms in reached))
