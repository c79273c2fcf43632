"""Ways through a tape's graph: what an operation was given, whose number a term is, and which nodes depend on which."""

from __future__ import annotations

import inspect
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from pellucid.explain.node import LEAVES, Array, Index, Node, operation_of
from pellucid.explain.rules import arrays_of, family, opened, output_of
from pellucid.textbook.elementwise import Elementwise
from pellucid.textbook.recurrent import Recurrence

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pellucid.explain.tape import Tape
    from pellucid.textbook import Operation, Terms

#: Operations that put numbers elsewhere and compute nothing: every output is one number of an input, or a constant.
COPIES = frozenset(
    {
        "identity",
        "reshape",
        "flatten",
        "permute",
        "slice",
        "select",
        "expand",
        "concatenate",
        "padding",
        "stack",
    }
)


class Walk:
    """A tape's graph, ready for questions that pass through many of its operations."""

    def __init__(self, tape: Tape) -> None:
        self.tape = tape
        self._opened: dict[str, Any] = {}

    @cached_property
    def live(self) -> set[str]:
        """The names of all nodes that depend on an input, the inputs among them."""
        found = {node.name for node in self.tape.nodes if node.op == "input"}
        for node in self.tape.nodes:
            if any(given in found for given in node.inputs):
                found.add(node.name)
        return found

    def before(self, name: str) -> set[str]:
        """The names of all nodes that `name` was computed from, its own among them."""
        found: set[str] = set()
        left = [name]
        while left:
            here = left.pop()
            if here not in found:
                found.add(here)
                left += [given for given in self.tape.node(here).inputs if given is not None]
        return found

    def sources(self, node: Node, operation: Operation) -> dict[str, str]:
        """By the name that the operation's terms use for it: the node of each argument, and of each value inside."""
        names = operation.argument_names(len(node.inputs))
        given = {name: at for name, at in zip(names, node.inputs, strict=True) if at is not None}
        inside = {
            output: name
            for output, name in family(self.tape, node, operation).items()
            if output not in operation.outputs
        }
        return {**inside, **given}

    def terms(self, node: Node, index: Index) -> Terms:
        """The textbook's terms of one number of a node that has a rule: those of `Tape.why`."""
        found = operation_of(node)
        assert found is not None
        operation, settings = found
        output = output_of(node, operation)
        if len(operation.outputs) > 1 or output not in operation.outputs:
            settings["output"] = output
        kept = self.kept(node, operation)
        if kept is not None:
            settings["kept"] = kept
        return operation.terms(index, *arrays_of(self.tape, node), **settings)

    def kept(self, node: Node, operation: Operation) -> Any:
        """Of a recurrent operation: what its cells kept, from the tape where it has the interior; None of others."""
        if recurrence_of(operation) is None:
            return None
        if node.first not in self._opened:
            inside = opened(self.tape, node, operation)
            kept = operation.forward(*arrays_of(self.tape, node))[1] if inside is None else inside.kept
            self._opened[node.first] = kept
        return self._opened[node.first]


def elementwise_of(operation: Operation) -> Elementwise | None:
    """The elementwise function behind an operation, where it is one."""
    owner = getattr(operation.forward, "__self__", None)
    return owner if isinstance(owner, Elementwise) else None


def recurrence_of(operation: Operation) -> Recurrence | None:
    """The recurrent network behind an operation, where it is one."""
    owner = getattr(operation.forward, "__self__", None)
    return owner if isinstance(owner, Recurrence) else None


def origins(operation: Operation, arrays: Sequence[Array | None], settings: Mapping[str, Any]) -> Array:
    """Of an operation that only copies: for each output, the place of its number among all inputs, from 1 on.

    The inputs' numbers are counted in order, one array after the other; 0 is a constant (a border).
    """
    places, start = [], 1
    for array in arrays:
        size = 0 if array is None else array.size
        places.append(None if array is None else np.arange(start, start + size).reshape(array.shape))
        start += size
    takes_value = "value" in inspect.signature(operation.forward).parameters
    settings = {**settings, "value": 0} if takes_value else settings
    return np.asarray(operation.forward(*places, **settings)[0], dtype=np.int64)


_ON_AXIS_1 = frozenset(
    {
        "convolution",
        "true_convolution",
        "depthwise_convolution",
        "pointwise_convolution",
        "separable_convolution",
        "unrolled_convolution",
        "transposed_convolution",
        "max_pool",
        "average_pool",
        "soft_pool",
        "adaptive_average_pool",
        "adaptive_max_pool",
        "global_average_pool",
        "batch_norm",
        "group_norm",
    }
)
_ON_LAST_AXIS = frozenset({"linear", "rnn", "lstm"})


def channel_axis(tape: Tape, node: Node) -> int:
    """Which axis of a node's value its channels (units, features) are on.

    The first inputs are followed back to what decides: a convolution or a pooling has its channels on axis 1, a linear
    or a recurrent layer on the last one, an input of four axes on axis 1; `permute` on the way moves them.
    """
    moves: list[Node] = []
    while node.op not in LEAVES and node.op not in _ON_AXIS_1 | _ON_LAST_AXIS:
        first = next((given for given in node.inputs if given is not None), None)
        if first is None:
            break
        moves.append(node)
        node = tape.node(first)
    dimensions = len(node.shape)
    on_1 = node.op in _ON_AXIS_1 or (node.op not in _ON_LAST_AXIS and dimensions == 4)
    axis = min(1, dimensions - 1) if on_1 else dimensions - 1
    for move in reversed(moves):
        if move.op == "permute":
            axis = [int(a) % dimensions for a in move.attributes["axes"]].index(axis)
        elif len(move.shape) < dimensions:
            # (N, C, 1, 1) flattened to (N, C), and the like.
            axis = min(axis, len(move.shape) - 1)
        dimensions = len(move.shape)
    return max(axis, 0)
