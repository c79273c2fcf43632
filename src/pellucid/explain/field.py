"""The receptive field of a number: exactly which numbers of the input it can depend on.

It follows the graph backwards, operation by operation, with a mask for every array: through branches, strides, holes of
a dilated kernel, borders, sums over everything. What the numbers are plays no part: a weight of 0 counts, and so does a
unit that is silent on this picture. (Which numbers it does depend on here, and how much, its gradient says.) Only a
kernel that was itself computed from an input counts as a whole, borders or not.

Source: Araujo, Norris & Sim 2019, "Computing receptive fields of convolutional neural networks"; for a chain of layers
their formula, `textbook.sizes.field`, gives the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pellucid.errors import DataError, PellucidError, UsageError
from pellucid.explain.address import find
from pellucid.explain.field_rules import batch_statistics, reads
from pellucid.explain.node import LEAVES, Array, Node, operation_of
from pellucid.explain.rules import arrays_of, family
from pellucid.explain.walk import Walk

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pellucid.explain.tape import Tape


@dataclass(frozen=True, eq=False)
class Region:
    """What of one input a number can depend on: `mask` has the input's shape, the axis of images included."""

    name: str
    mask: Array

    @cached_property
    def count(self) -> int:
        """How many numbers of the input it is."""
        return int(np.count_nonzero(self.mask))

    @cached_property
    def box(self) -> tuple[slice, ...]:
        """The smallest box around it, a slice for each axis; empty slices where it is nothing."""
        found = []
        for axis in range(self.mask.ndim):
            others = tuple(other for other in range(self.mask.ndim) if other != axis)
            at = np.flatnonzero(self.mask.any(axis=others))
            found.append(slice(int(at[0]), int(at[-1]) + 1) if len(at) else slice(0, 0))
        return tuple(found)

    @property
    def whole(self) -> bool:
        """Whether it fills its box: no holes, no corners missing."""
        return self.count == int(np.prod([side.stop - side.start for side in self.box], dtype=np.int64))

    def text(self) -> str:
        """One line: how many numbers, and in which box (first and last place on each axis)."""
        share = f"{self.count:,} of {self.mask.size:,} numbers of {self.name}"
        if not self.count:
            return share
        sides = ", ".join(f"{s.start}" if s.stop == s.start + 1 else f"{s.start} to {s.stop - 1}" for s in self.box)
        return f"{share}: [{sides}]" + ("" if self.whole else ", with gaps")


@dataclass(frozen=True, eq=False)
class Field:
    """The receptive field of the number (or the whole array) at an address: a region for every input of the pass.

    `notes` say what made it larger than the pictures' own (statistics of the batch), and where it could only be
    bounded: an operation without a rule counts as reading all it was given. `exact` is False then.
    """

    address: str
    regions: tuple[Region, ...]
    notes: tuple[str, ...] = ()
    exact: bool = True

    @property
    def mask(self) -> Array:
        """The first input's region as a mask."""
        return self.regions[0].mask

    @property
    def box(self) -> tuple[slice, ...]:
        """The smallest box around it in the first input."""
        return self.regions[0].box

    @property
    def count(self) -> int:
        """How many numbers of the first input it is."""
        return self.regions[0].count

    def text(self) -> str:
        """One line an input, and one a note."""
        verb = "can depend on" if self.exact else "can depend on at most"
        lines = [f"{self.address} {verb} {region.text()}" for region in self.regions]
        return "\n".join([*lines, *self.notes])


def receptive_field(tape: Tape, address: str) -> Field:
    """The receptive field of the value at an address; without an index, of the whole array.

    Raises UsageError for an address that the tape does not have, or of anything but a value (a gradient), and DataError
    for a tape that does not fit together.
    """
    where = find(tape, address)
    if where.what:
        raise UsageError(
            f"{address}: only a value has a receptive field: ask that of {where.node}, not its {where.what!r}"
        )
    inputs = [node.name for node in tape.nodes if node.op == "input"]
    if not inputs:
        raise UsageError(f"{address}: the tape has no input for a receptive field to lie in: record a pass with one")
    value = tape.values[where.node]
    mask = np.ones(value.shape, dtype=bool)
    if where.index is not None:
        mask = np.zeros(value.shape, dtype=bool)
        mask[where.index] = True
    try:
        found = back(Walk(tape), where.node, mask)
    except PellucidError:
        raise
    except (ArithmeticError, ValueError, TypeError, LookupError, AttributeError, MemoryError) as error:
        raise DataError(
            f"{address}: its operation, or one before it, does not fit what the tape has of it "
            f"({type(error).__name__}: {error!s:.200}): record the pass again"
        ) from error
    nothing = {name: np.zeros(tape.values[name].shape, dtype=bool) for name in inputs}
    regions = tuple(Region(name, found.masks.get(name, nothing[name])) for name in inputs)
    return Field(str(where), regions, tuple(_notes(tape, found)), not found.unruled)


def _notes(tape: Tape, found: Back) -> Iterator[str]:
    """What made the field larger than one expects, from the input upwards."""
    for node in reversed(found.passed):
        if node in found.unruled:
            yield f"{node.name} ({node.op}) has no rule: counted as reading all it was given"
        elif node.op == "batch_norm" and batch_statistics(arrays_of(tape, node), node.attributes):
            yield f"{node.name} takes mean and variance from the whole batch: every image of it counts"


class Back(NamedTuple):
    """What a value depends on, on the way to the inputs: a mask a node, the operations passed, those without a rule."""

    masks: dict[str, Array]
    passed: list[Node]
    unruled: list[Node]


def back(walk: Walk, name: str, mask: Array, *, nonzero: bool = False) -> Back:
    """The masks, by node, of all that a masked value depends on and that itself depends on an input.

    An operation without a rule counts as reading all it was given. With `nonzero` numbers that are 0 are left out, and
    what only they depend on.
    """
    tape, found = walk.tape, Back({name: mask}, [], [])
    for node in reversed(tape.nodes):
        if node.op in LEAVES or not node.is_primary or node.name not in walk.live:
            continue
        family_masks = [found.masks[other.name] for other in tape.family(node.name) if other.name in found.masks]
        if not any(meant.any() for meant in family_masks):
            continue
        found.passed.append(node)
        for at, read in _read(walk, node, found).items():
            more = read & (tape.values[at] != 0) if nonzero else read
            found.masks[at] = found.masks[at] | more if at in found.masks else more
    return found


def _read(walk: Walk, node: Node, found: Back) -> dict[str, Array]:
    """What the masked outputs of one operation read, by node, of nodes that depend on an input."""
    tape = walk.tape
    every = {at: np.ones(tape.values[at].shape, dtype=bool) for at in node.inputs if at in walk.live}
    known = operation_of(node)
    if known is None:
        found.unruled.append(node)
        return every
    operation, settings = known
    outputs = {out: found.masks[at] for out, at in family(tape, node, operation).items() if at in found.masks}
    read = reads(operation, outputs, arrays_of(tape, node), settings)
    masks: dict[str, Array] = {}
    for source, at in walk.sources(node, operation).items():
        if at in walk.live and (source in read or at in every):
            # Without a mask it is a weight, computed from an input, in an operation whose rule leaves the weights out.
            more = read.get(source, every.get(at))
            assert more is not None
            masks[at] = masks[at] | more if at in masks else more
    return masks
