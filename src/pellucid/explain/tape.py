"""The tape: one recorded pass of a network, as plain arrays and JSON, that answers why any of its numbers is what it is.

    tape.value("conv1[3,10,12]")         one number; without brackets the whole array
    tape.why("conv1[3,10,12]")           what it was made of
    tape.why("conv1.grad[3,10,12]")      what its gradient was made of
    tape.why("conv1.weight.next[3,0,1,1]")   what the optimiser's step made of a weight

Nothing here needs the engine that computed the pass.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from pellucid.explain.node import Array, Clipping, Node, Pixels, Step, Update, operation_of

__all__ = ["Clipping", "Node", "Pixels", "Step", "Tape", "Update", "operation_of"]


@dataclass(eq=False)
class Tape:
    """One pass: its nodes in order of computation, and every number by its node's name.

    Arrays are float32 (bfloat16 and float16 widened) or float64; whole numbers are as they were. `gradients` are those
    of the loss, before any clipping; a value that the loss does not depend on has none. `after` are the parameters
    after the step that `update` describes. `precision` is the engine's, and decides how far a number recomputed here
    may lie from the engine's. `inputs` and `output` name nodes, `loss` too where one was computed. `aliases` name a
    container's output ("layer1.0" for "layer1.0.relu@2"). `notes` say what is noteworthy about the pass, such as where
    the first NaN appeared.
    """

    nodes: list[Node]
    values: dict[str, Array]
    gradients: dict[str, Array] = field(default_factory=dict)
    after: dict[str, Array] = field(default_factory=dict)
    update: Update | None = None
    precision: str = "float32"
    training: bool = False
    inputs: tuple[str, ...] = ()
    output: str = ""
    loss: str | None = None
    pixels: Pixels | None = None
    notes: list[str] = field(default_factory=list)
    aliases: dict[str, str] = field(default_factory=dict)

    def node(self, name: str) -> Node:
        """The node of that name, or of that alias. Raises UsageError for a name that is neither."""
        return self._by_name[self.aliases.get(name, name)]

    def consumers(self, name: str) -> list[tuple[Node, list[int]]]:
        """The operations that read this node's value, each with the positions among its arguments where it does."""
        return list(self._consumers.get(name, []))

    @cached_property
    def _by_name(self) -> dict[str, Node]:
        return {node.name: node for node in self.nodes}

    @cached_property
    def _consumers(self) -> dict[str, list[tuple[Node, list[int]]]]:
        found: dict[str, list[tuple[Node, list[int]]]] = {}
        for node in self.nodes:
            if node.is_primary:
                for name in dict.fromkeys(name for name in node.inputs if name is not None):
                    positions = [k for k, other in enumerate(node.inputs) if other == name]
                    found.setdefault(name, []).append((node, positions))
        return found
