"""Which units of a network are at work: shares of active and saturated numbers behind every activation.

- Behind a **rectifier** (ReLU and its kin) a number is active where the unit is on: not 0 behind ReLU, ReLU6 and
  hard-swish, and behind those that have no exact zero (leaky ReLU, ELU, GELU, SiLU, softplus, Mish …) where its input
  is above 0. A channel that is active nowhere, in no image of the batch, is **dead** as far as this batch can tell; a
  dead ReLU passes no gradient on and does not come back to life by itself.
- A number is **saturated** where the slope of the activation is less than `FLAT` and the unit is not merely off: hardly
  any gradient passes. That is told of sigmoid, tanh and the like, of the gates of recurrent networks, and of ReLU6
  above 6. Of these a channel is dead that is saturated everywhere.

A unit is one number of an image (a place in a feature map, a feature of a row); a channel all its places.

Sources: Glorot, Bordes & Bengio 2011 (sparse rectifiers); Maas et al. 2013 (dead units).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pellucid.explain.node import Array, Node, operation_of
from pellucid.explain.rules import arrays_of
from pellucid.explain.walk import Walk, channel_axis, elementwise_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pellucid.explain.tape import Tape

#: A slope below this counts as flat.
FLAT = 0.01

#: On where the output is not 0; on where the input is above 0; no off, only flat ends.
_EXACT = frozenset({"relu", "relu6", "hard_swish"})
_SIDED = frozenset({"leaky_relu", "prelu", "elu", "selu", "celu", "gelu", "silu", "softplus", "mish"})
_BOUNDED = frozenset({"sigmoid", "tanh", "hard_tanh", "hard_sigmoid", "softsign"})


@dataclass(frozen=True, eq=False)
class LayerActivity:
    """One activation over the batch.

    `active`: share of numbers that are on, None where there is no off. `channels`: that share a channel (of bounded
    activations: the share that is not saturated). `saturated`: share of numbers on a flat end, None where there is
    none. `dead_channels`: those never active (or always saturated); `dead_units` counts units the same way.
    """

    name: str
    op: str
    shape: tuple[int, ...]
    active: float | None
    saturated: float | None
    channels: Array
    dead_channels: tuple[int, ...]
    units: int
    dead_units: int

    def text(self) -> str:
        """One line."""
        parts = []
        if self.active is not None:
            parts.append(f"{self.active:.1%} active")
        if self.saturated is not None:
            parts.append(f"{self.saturated:.1%} saturated")
        parts.append(f"{len(self.dead_channels)} of {len(self.channels)} channels dead")
        parts.append(f"{self.dead_units:,} of {self.units:,} units")
        return f"{self.name} ({self.op}): {', '.join(parts)}"


class _At(NamedTuple):
    """Which numbers of an activation are on, and which on a flat end; None where it has no such thing."""

    on: Array | None
    flat: Array | None


def sparsity(tape: Tape) -> list[LayerActivity]:
    """One entry for every activation of the pass, and for every gate of its recurrent networks, in order."""
    walk, found = Walk(tape), []
    for node in tape.nodes:
        if node.name in walk.live and node.shape and tape.values[node.name].size:
            at = _at(tape, node)
            if at is not None:
                found.append(_activity(tape, node, at))
    return found


def table(layers: Sequence[LayerActivity]) -> str:
    """The entries as lines, one below the other."""
    return "\n".join(layer.text() for layer in layers) or "no activation in this pass"


def _activity(tape: Tape, node: Node, at: _At) -> LayerActivity:
    works = at.on if at.on is not None else ~_known(at.flat)
    recurrent = bool(node.attributes.get("recomputed"))
    axis = works.ndim - 1 if recurrent else channel_axis(tape, node)
    others = tuple(other for other in range(works.ndim) if other != axis)
    channels = works.mean(axis=others) if others else works.astype(np.float64)
    # Over the batch; a single row has no axis for it.
    per_unit = works.any(axis=0) if works.ndim > 1 else works
    return LayerActivity(
        node.name,
        node.op,
        node.shape,
        None if at.on is None else float(at.on.mean()),
        None if at.flat is None else float(at.flat.mean()),
        np.asarray(channels, dtype=np.float64),
        tuple(np.flatnonzero(channels == 0).tolist()),
        int(per_unit.size),
        int(per_unit.size - np.count_nonzero(per_unit)),
    )


def _at(tape: Tape, node: Node) -> _At | None:
    """What is on and what is flat in a node's value; None for what is no activation."""
    y = tape.values[node.name]
    if node.attributes.get("recomputed"):
        return _of_gate(str(node.attributes["output"]).rpartition(".")[2], node.op, y)
    known = operation_of(node)
    if known is None or not node.is_primary:
        return None
    operation, settings = known
    function = elementwise_of(operation)
    low, high = settings.get("low"), settings.get("high")
    # A clamp between 0 and a limit is a rectifier with a ceiling.
    rectifies = node.op in _EXACT or (node.op in {"hard_tanh", "clamp"} and low == 0)
    if function is None or not (rectifies or node.op in _SIDED | _BOUNDED):
        return None
    given = arrays_of(tape, node)
    if node.op in _SIDED:
        x = _known(given[0])
        return _At(np.broadcast_to(x > 0, y.shape), None)
    slopes = function.slopes(*[_known(array).astype(np.float64) for array in given], **settings)
    flat = np.abs(np.broadcast_to(_known(slopes[0]), y.shape)) < FLAT
    if not rectifies:
        return _At(None, flat)
    has_ceiling = node.op == "relu6" or high is not None
    return _At(y != 0, flat & (y != 0) if has_ceiling else None)


def _of_gate(value: str, op: str, y: Array) -> _At | None:
    """A gate's slope follows from its value: σ·(1 − σ), or 1 − tanh²."""
    wide = y.astype(np.float64)
    if op == "lstm" and value in {"i", "f", "o"}:
        return _At(None, wide * (1 - wide) < FLAT)
    if (op, value) in {("lstm", "g"), ("rnn", "h")}:
        return _At(None, 1 - wide**2 < FLAT)
    return None


def _known(array: Array | None) -> Array:
    assert array is not None
    return array
