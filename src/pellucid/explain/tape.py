"""The tape: one recorded pass of a network, as plain arrays and JSON, that answers why a number in it is what it is.

    tape.value("conv1[3,10,12]")              one number; without brackets the whole array
    tape.why("conv1[3,10,12]")                what it was made of
    tape.why("conv1.grad[3,10,12]")           what its gradient was made of
    tape.why("conv1.weight.next[3,0,1,1]")    what the optimiser's step made of a weight

How addresses are written is told in `pellucid.explain.address`. Nothing here needs the engine that computed the pass.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from pellucid.explain import activity, flow, tape_file, why
from pellucid.explain import address as addresses
from pellucid.explain import field as fields
from pellucid.explain import path as paths
from pellucid.explain import saliency as maps
from pellucid.explain.node import Array, Clipping, Node, Pixels, Step, Update, number, operation_of

if TYPE_CHECKING:
    import os
    from typing import Self

    from pellucid.explain.activity import LayerActivity
    from pellucid.explain.explanation import Explanation
    from pellucid.explain.field import Field
    from pellucid.explain.flow import Flow
    from pellucid.explain.path import Path

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
        found = self._by_name.get(name) or self._by_name.get(self.aliases.get(name, ""))
        if found is None:
            raise addresses.unknown(self, name)
        return found

    def value(self, address: str) -> float | Array:
        """The number at an address, or the whole array of an address without an index.

        Raises UsageError for an address that the tape does not have, saying what is near.
        """
        place = addresses.find(self, address)
        array = addresses.array_at(self, place)
        return array if place.index is None else number(array, place.index)

    def why(self, address: str) -> Explanation:
        """What the number at an address was made of.

        A value: the terms of the operation that computed it. A gradient: what reached it from everything that read the
        value. A parameter after the step: the optimiser's rule. An input: the pixel before preprocessing, if the tape
        has it. Parameters and other things given are explained by nothing.

        Raises UsageError for an address that is none or names a whole array, and for an operation without a rule;
        VerificationError where the number recomputed from its terms is not the engine's; DataError for a tape that
        does not fit together.
        """
        return why.answer(self, address)

    def receptive_field(self, address: str) -> Field:
        """Which numbers of the inputs the value at an address can depend on; without an index, any of its numbers."""
        return fields.receptive_field(self, address)

    def path(self, address: str, k: int = 5) -> list[Path]:
        """The k strongest chains of terms from a number down to an input, strongest first."""
        return paths.path(self, address, k)

    def sparsity(self) -> list[LayerActivity]:
        """Which units are at work behind every activation: shares of active and saturated ones, and the dead."""
        return activity.sparsity(self)

    def gradient_flow(self) -> Flow:
        """How the gradient of the loss shrinks or grows on its way back, by layer and by step in time."""
        return flow.gradient_flow(self)

    def saliency(
        self, label: int | None = None, *, image: int = 0, times_input: bool = False, of: str = "logit"
    ) -> Array:
        """How much each pixel (H, W) moves the logit of a class, by default the largest, or (`of`) the loss."""
        return maps.saliency(self, label, image=image, times_input=times_input, of=of)

    def grad_cam(self, label: int | None = None, *, image: int = 0) -> Array:
        """Where in an image (H, W) the last feature maps speak for a class, by default that of the largest logit."""
        return maps.grad_cam(self, label, image=image)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the tape as one file, atomically. Raises UsageError for what a tape cannot hold, and PellucidError."""
        tape_file.write(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """The tape in a file that `save` wrote. Raises DataError for one that is missing, damaged or was forged."""
        return cls(**tape_file.read(path))

    def family(self, first: str) -> list[Node]:
        """Every node of the operation whose first output is the node `first`: that one, other outputs, interior."""
        return self._families.get(first, [])

    def consumers(self, name: str) -> list[tuple[Node, list[int]]]:
        """The operations that read this node's value, each with the positions among its arguments where it does."""
        return list(self._consumers.get(name, []))

    @cached_property
    def _by_name(self) -> dict[str, Node]:
        return {node.name: node for node in self.nodes}

    @cached_property
    def _families(self) -> dict[str, list[Node]]:
        found: dict[str, list[Node]] = {}
        for node in self.nodes:
            found.setdefault(node.first, []).append(node)
        return found

    @cached_property
    def _consumers(self) -> dict[str, list[tuple[Node, list[int]]]]:
        found: dict[str, list[tuple[Node, list[int]]]] = {}
        for node in self.nodes:
            if node.is_primary:
                for name in dict.fromkeys(name for name in node.inputs if name is not None):
                    positions = [k for k, other in enumerate(node.inputs) if other == name]
                    found.setdefault(name, []).append((node, positions))
        return found
