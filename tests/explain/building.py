"""Tapes by hand: a few textbook operations, one after the other, with their values."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from pellucid.explain.node import Node, operation_of
from pellucid.explain.tape import Tape
from pellucid.textbook.recurrent import Recurrence

Array = npt.NDArray[Any]


class Builder:
    """A pass under construction. Every method returns the name of the node it adds."""

    def __init__(self, seed: int = 0, dtype: Any = np.float64) -> None:
        self.nodes: list[Node] = []
        self.values: dict[str, Array] = {}
        self.rng = np.random.default_rng(seed)
        self.dtype = dtype

    def leaf(self, kind: str, name: str, value: Any) -> str:
        array = np.asarray(value)
        self.values[name] = array if array.dtype.kind in "iu" else array.astype(self.dtype)
        self.nodes.append(Node(name, kind, shape=array.shape))
        return name

    def input(self, *shape: int, name: str = "input") -> str:
        return self.leaf("input", name, self.rng.normal(size=shape))

    def parameter(self, name: str, *shape: int) -> str:
        return self.leaf("parameter", name, self.rng.normal(size=shape))

    def op(self, name: str, op: str, *inputs: str | None, **attributes: Any) -> str:
        node = Node(name, op, inputs, attributes)
        found = operation_of(node)
        assert found is not None, op
        operation, settings = found
        out, kept = operation.forward(*[None if i is None else self.values[i] for i in inputs], **settings)
        outputs = {operation.outputs[0]: out} if isinstance(out, np.ndarray) else out
        for output, value in outputs.items():
            first = output == operation.outputs[0]
            if output.startswith("running_"):
                continue  # a buffer of this name stands on the tape already, as it was before
            mine = dict(attributes)
            if len(operation.outputs) > 1:
                mine["output"] = output
            if not first:
                mine["of"] = name
            self.add(name if first else f"{name}.{output}", op, inputs, mine, value)
        owner = getattr(operation.forward, "__self__", None)
        if isinstance(owner, Recurrence):
            for inside, value in owner.interior(kept).items():
                mine = {**attributes, "of": name, "output": inside, "recomputed": True}
                self.add(f"{name}.{inside}", op, inputs, mine, value)
        return name

    def add(self, name: str, op: str, inputs: tuple[str | None, ...], attributes: dict[str, Any], value: Any) -> None:
        self.nodes.append(Node(name, op, inputs, attributes, np.shape(value)))
        self.values[name] = np.asarray(value)

    def conv(self, name: str, x: str, filters: int, kernel: int = 3, *, bias: bool = True, **settings: Any) -> str:
        channels = self.values[x].shape[1] // int(settings.get("groups", 1))
        w = self.parameter(f"{name}.weight", filters, channels, kernel, kernel)
        b = self.parameter(f"{name}.bias", filters) if bias else None
        return self.op(name, "convolution", x, w, b, **settings)

    def linear(self, name: str, x: str, units: int, *, bias: bool = True) -> str:
        w = self.parameter(f"{name}.weight", units, self.values[x].shape[-1])
        return self.op(name, "linear", x, w, self.parameter(f"{name}.bias", units) if bias else None)

    def batch_norm(self, name: str, x: str, *, training: bool = False) -> str:
        channels = self.values[x].shape[1]
        gamma, beta = self.parameter(f"{name}.weight", channels), self.parameter(f"{name}.bias", channels)
        mean = self.leaf("buffer", f"{name}.running_mean", self.rng.normal(size=channels))
        variance = self.leaf("buffer", f"{name}.running_var", self.rng.uniform(0.5, 2, size=channels))
        return self.op(name, "batch_norm", x, gamma, beta, mean, variance, training=training)

    def lstm(self, name: str, x: str, units: int, layers: int = 1, kind: str = "lstm") -> str:
        gates, states = (4, 2) if kind == "lstm" else (1, 1)
        below, weights = self.values[x].shape[2], []
        for layer in range(layers):
            weights.append(self.parameter(f"{name}.weight_ih_l{layer}", gates * units, below))
            weights.append(self.parameter(f"{name}.weight_hh_l{layer}", gates * units, units))
            weights.append(self.parameter(f"{name}.bias_ih_l{layer}", gates * units))
            weights.append(self.parameter(f"{name}.bias_hh_l{layer}", gates * units))
            below = units
        return self.op(name, kind, x, *(None,) * states, *weights)

    def tape(self, output: str | None = None, **more: Any) -> Tape:
        inputs = tuple(node.name for node in self.nodes if node.op == "input")
        last = [node.name for node in self.nodes if node.is_primary][-1]
        precision = "float64" if self.dtype is np.float64 else "float32"
        more = {"inputs": inputs, "output": output or last, "precision": precision, **more}
        return Tape(nodes=self.nodes, values=self.values, **more)


def replayed(tape: Tape, given: dict[str, Array]) -> dict[str, Array]:
    """Every value of the pass again by the textbook, with other values for some leaves."""
    values = {node.name: tape.values[node.name] for node in tape.nodes if not node.inputs} | given
    for node in tape.nodes:
        found = operation_of(node)
        if found is None or not node.is_primary:
            continue
        operation, settings = found
        out, kept = operation.forward(*[None if i is None else values[i] for i in node.inputs], **settings)
        made = operation.by_name(out)
        owner = getattr(operation.forward, "__self__", None)
        if isinstance(owner, Recurrence):
            made |= owner.interior(kept)
        for other in tape.family(node.name):
            values[other.name] = made[str(other.attributes.get("output", operation.outputs[0]))]
    return values
