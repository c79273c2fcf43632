"""How the gradient of the loss flows back: its size layer by layer, and, in recurrent networks, step by step.

A factor compares neighbours: the norm of the gradient here over the norm at the next layer (or step) towards the loss.
Below 1 the gradient shrinks on its way back, above 1 it grows. Over all layers, or all steps, it has *vanished* where
less than `VANISHED` (a thousandth) is left of it, and *exploded* where it is more than `EXPLODED` (a thousand) times as
large. Layers stand in the order of computation; where branches run side by side, neighbours in the list need not follow
each other.

Sources: Bengio, Simard & Frasconi 1994; Pascanu, Mikolov & Bengio 2013.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pellucid.errors import UsageError
from pellucid.explain.node import LEAVES, Array, Node, operation_of
from pellucid.explain.walk import Walk, recurrence_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pellucid.explain.tape import Tape

#: What is left of a gradient that has vanished, and how much larger one is that has exploded, over all layers or steps.
VANISHED, EXPLODED = 1e-3, 1e3

_PIECE = 1 << 18


@dataclass(frozen=True)
class ParameterFlow:
    """A parameter: the norm of its gradient, its own norm, and their ratio (None of a parameter of zeros)."""

    name: str
    gradient: float
    weight: float
    ratio: float | None


@dataclass(frozen=True)
class LayerFlow:
    """A layer: the norm of ∂L/∂output, its root mean square, the factor to the next layer, and its parameters.

    `factor` is None of the last layer, and where the next one's gradient is 0.
    """

    name: str
    op: str
    gradient: float
    rms: float
    factor: float | None
    parameters: tuple[ParameterFlow, ...]


@dataclass(frozen=True)
class TimeFlow:
    """A layer in time: the norm of ∂L/∂h_t for every step t, and the factor from each step to the one after it.

    `factors` has one entry fewer: entry t is |∂L/∂h_t| / |∂L/∂h_{t+1}|, None where the latter is 0.
    """

    name: str
    layer: int
    gradients: tuple[float, ...]
    factors: tuple[float | None, ...]


@dataclass(frozen=True)
class Flow:
    """How the gradient flows back: by layer, by layer and step in time, and in a sentence for each."""

    layers: tuple[LayerFlow, ...]
    times: tuple[TimeFlow, ...]
    sentences: tuple[str, ...]

    def text(self) -> str:
        """A table of the layers, the steps of recurrent ones, and the sentences."""
        lines = ["layer  |dL/dy|  factor  parameter |dL/dw|/|w|"]
        for layer in self.layers:
            factor = "" if layer.factor is None else f"{layer.factor:.3g}"
            ratios = ", ".join(
                f"{p.name.rpartition('.')[2]} {p.ratio:.2g}" for p in layer.parameters if p.ratio is not None
            )
            lines.append(f"{layer.name}  {layer.gradient:.3g}  {factor or '–'}  {ratios}")
        for time in self.times:
            lines.append(f"{time.name} layer {time.layer}, |dL/dh| from the first step to the last:")
            lines.append("  " + " ".join(f"{size:.2g}" for size in time.gradients))
        return "\n".join([*lines, *self.sentences])


def gradient_flow(tape: Tape) -> Flow:
    """The flow of the loss's gradient. Raises UsageError for a tape without gradients."""
    if not tape.gradients:
        raise UsageError("the tape has no gradients, so none flow: record with a label or a loss")
    walk = Walk(tape)
    layers, times = _layers(walk), _times(tape)
    sentences = []
    if len(layers) > 1:
        sizes = [layer.gradient for layer in layers]
        sentences.append(_verdict(f"from {layers[-1].name} back to {layers[0].name}", sizes, "layer"))
    for time in times:
        if len(time.gradients) > 1:
            where = f"{time.name}, layer {time.layer}, from the last step back to the first"
            sentences.append(_verdict(where, time.gradients, "step"))
    return Flow(tuple(layers), tuple(times), tuple(sentences))


def _layers(walk: Walk) -> list[LayerFlow]:
    """One entry for each operation that has parameters and works on what came from the input."""
    tape = walk.tape
    found: list[tuple[Node, float, float, tuple[ParameterFlow, ...]]] = []
    for node in tape.nodes:
        if node.op in LEAVES or node.op == "loss" or not node.is_primary or node.name not in walk.live:
            continue
        names = [at for given in node.inputs if given and given not in walk.live for at in walk.before(given)]
        own = [other for other in tape.nodes if other.op == "parameter" and other.name in names]
        if own:
            size, count = _of_outputs(tape, node)
            rms = size / math.sqrt(count) if count else 0.0
            found.append((node, size, rms, tuple(_parameter(tape, parameter.name) for parameter in own)))
    sizes = [size for _, size, _, _ in found]
    factors = [*_factors(sizes), None]
    return [
        LayerFlow(node.name, node.op, size, rms, factor, parameters)
        for (node, size, rms, parameters), factor in zip(found, factors, strict=False)
    ]


def _of_outputs(tape: Tape, node: Node) -> tuple[float, int]:
    """The norm of the gradient that arrived at an operation's outputs together, and of how many numbers."""
    outputs = [other.name for other in tape.family(node.name) if not other.attributes.get("recomputed")]
    arrived = [tape.gradients[name] for name in outputs if name in tape.gradients]
    return math.hypot(*(norm(part) for part in arrived)), sum(part.size for part in arrived)


def _parameter(tape: Tape, name: str) -> ParameterFlow:
    weight = norm(tape.values[name])
    gradient = norm(tape.gradients[name]) if name in tape.gradients else 0.0
    return ParameterFlow(name, gradient, weight, gradient / weight if weight else None)


def _times(tape: Tape) -> list[TimeFlow]:
    """One entry for each layer of each recurrent operation whose states the tape has gradients of."""
    found = []
    for node in tape.nodes:
        known = operation_of(node)
        if known is None or not node.is_primary or recurrence_of(known[0]) is None:
            continue
        layer = 0
        while f"{node.name}.{layer}.h" in tape.gradients:
            dh_nth = tape.gradients[f"{node.name}.{layer}.h"]
            sizes = tuple(norm(dh_nth[:, t]) for t in range(dh_nth.shape[1]))
            found.append(TimeFlow(node.name, layer, sizes, tuple(_factors(sizes))))
            layer += 1
    return found


def _factors(sizes: Sequence[float]) -> list[float | None]:
    """Each size over the next one's."""
    return [here / there if there else None for here, there in itertools.pairwise(sizes)]


def norm(array: Array) -> float:
    """√Σ x², in float64."""
    flat, total = array.reshape(-1), 0.0
    # Piece by piece: a layer of a hundred million weights is not widened as a whole.
    for start in range(0, flat.size, _PIECE):
        piece = flat[start : start + _PIECE].astype(np.float64)
        total += float(piece @ piece)
    return math.sqrt(total)


def _verdict(where: str, sizes: Sequence[float], unit: str) -> str:
    """What becomes of the gradient between the last of the sizes that is not 0 and the first."""
    if not all(math.isfinite(size) for size in sizes):
        return f"{where}: the gradient is not a finite number everywhere"
    last = max((k for k, size in enumerate(sizes) if size), default=0)
    if last == 0:
        return f"{where}: no gradient arrives" if not sizes[0] else f"{where}: only the first {unit} has a gradient"
    if not sizes[0]:
        return f"{where}: nothing is left of the gradient: it has vanished"
    left = sizes[0] / sizes[last]
    each = left ** (1 / last)
    word = "it has vanished" if left < VANISHED else "it has exploded" if left > EXPLODED else "it arrives"
    return f"{where}: {left:.2g} times the gradient ({each:.2g} a {unit}, {last} times): {word}"
