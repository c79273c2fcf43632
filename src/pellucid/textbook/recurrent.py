r"""Recurrent networks in time: cells one after the other, layers one above the other, and the way back through time.

Layer l reads a sequence, at every step t by the same cell with the same weights, and hands its states h to layer l + 1:

$$h^l_t = \text{cell}^l\bigl(h^{l-1}_t,\,h^l_{t-1}\bigr),\qquad h^{0}_t = x_t,\qquad y_t = h^{\text{top}}_t.$$

**Back-propagation through time** unrolls this and walks it backwards: a state at t has fed the cell at t + 1 and the
layer above at t, so its gradient is what comes back from both,

$$dh^l_t = \underbrace{dh^l_{t}\text{ from cell}^l_{t+1}}_{\text{time}}
+ \underbrace{dx\text{ from cell}^{l+1}_t}_{\text{depth}},$$

and since all steps share their weights, dW = Σ_t of the cells' own. Over k steps an RNN's gradient is multiplied by k
factors W_hhᵀ·(1 − h²); an LSTM's, along the cell, by f alone.

>>> one = np.ones((1, 1))
>>> out, kept = RNN.forward(np.ones((1, 3, 1)), None, one, 0.5 * one, None, None)
>>> out["y"].ravel().round(4).tolist()
[0.7616, 0.8811, 0.8938]
>>> RNN.backward({"h_n": np.ones((1, 1, 1))}, kept)["x"].ravel().round(4).tolist()
[0.0047, 0.0225, 0.2011]

Axes: x N T D, y N T H, states L N H (layer, image, unit). Values inside are named by layer: "0.f" is layer 0's forget
gate, (N, T, H). Sources: Elman 1990; Werbos 1990 (through time); Hochreiter & Schmidhuber 1997.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from pellucid.textbook import cells
from pellucid.textbook.operation import PARAMETER, Argument, Operation
from pellucid.textbook.terms import (
    Array,
    Factor,
    Group,
    Index,
    Terms,
    check_index,
    check_shape,
    plain,
    row,
    summed,
    unknown,
)

WEIGHTS = ("w_xh", "w_hh", "b", "b_hh")


class Kept(NamedTuple):
    """What the way back needs: what every cell kept, [layer][t], and which initial states were given."""

    steps: list[list[Any]]
    states: tuple[str, ...]


class Use(NamedTuple):
    """One use of a number by a cell: by which cell, as which of its arguments or values, and at which index there."""

    layer: int
    t: int
    name: str
    at: tuple[int, ...]


class Flow(NamedTuple):
    """The gradients of a whole pass: by name, and, for each cell [layer][t], what it was given and what it gave."""

    gradients: dict[str, Array]
    given: list[list[dict[str, Array]]]
    gave: list[list[dict[str, Array]]]


@dataclass(frozen=True)
class Recurrence:
    """A stack of one kind of cell: `states` are what a cell hands on in time, `values` what it makes inside."""

    name: str
    states: tuple[str, ...]
    values: tuple[str, ...]
    cell_forward: Callable[..., tuple[dict[str, Array], Any]]
    cell_backward: Callable[..., dict[str, Array]]
    cell_terms: Callable[..., Terms]
    cell_grad_terms: Callable[..., Terms]

    def names(self, count: int) -> tuple[str, ...]:
        """x, h0 (and c0), then w_xh, w_hh, b and b_hh of each layer."""
        first = ("x", *(f"{state}0" for state in self.states))
        layers, rest = divmod(count - len(first), len(WEIGHTS))
        if rest or layers < 1:
            takes = ", ".join((*first, *(f"{w}_l0" for w in WEIGHTS)))
            raise ValueError(
                f"{self.name} was given {count} arrays, but takes {takes}, and the last four for every layer more"
            )
        return (*first, *(f"{w}_l{layer}" for layer in range(layers) for w in WEIGHTS))

    def forward(self, x_ntd: Array, *arrays: Array | None) -> tuple[dict[str, Array], Kept]:
        """Y (N, T, H) and the last states (L, N, H), by name; keeps what every cell keeps.

        `arrays`: the initial states (None for zeros), then four weights a layer (biases may be None).
        """
        named = dict(zip(self.names(1 + len(arrays)), (x_ntd, *arrays), strict=True))
        layers = (len(arrays) - len(self.states)) // len(WEIGHTS)
        if x_ntd.ndim != 3 or x_ntd.shape[1] < 1:
            raise ValueError(f"x has shape {x_ntd.shape}, but {self.name} takes (N, T, D) with T ≥ 1")
        below, last, steps = x_ntd, [], []
        for layer in range(layers):
            weights = [named[f"{w}_l{layer}"] for w in WEIGHTS]
            if weights[0] is None or weights[1] is None:
                raise ValueError(f"w_xh_l{layer} and w_hh_l{layer} are needed: h = cell(W_xh·x + W_hh·h)")
            size = (x_ntd.shape[0], weights[1].shape[1])
            state = {s: self._initial(named[f"{s}0"], s, layer, (layers, *size), below.dtype) for s in self.states}
            outputs, kept_steps = [], []
            for t in range(x_ntd.shape[1]):
                state, kept = self.cell_forward(below[:, t], *[state[s] for s in self.states], *weights)
                outputs.append(state["h"])
                kept_steps.append(kept)
            steps.append(kept_steps)
            last.append(state)
            below = np.stack(outputs, axis=1)
        ends = {f"{s}_n": np.stack([state[s] for state in last]) for s in self.states}
        given_states = tuple(s for s in self.states if named[f"{s}0"] is not None)
        return {"y": below, **ends}, Kept(steps, given_states)

    def interior(self, kept: Kept) -> dict[str, Array]:
        """Every value inside, by layer: "0.f" and so on, (N, T, H)."""
        return {
            f"{layer}.{name}": np.stack([self._value(step, name) for step in steps], axis=1)
            for layer, steps in enumerate(kept.steps)
            for name in self.values
        }

    def backward(self, dy: Mapping[str, Array], kept: Kept) -> dict[str, Array]:
        """Through time: the gradients of x, of the initial states, of all weights, and of every value inside."""
        return self.flow(dy, kept).gradients

    def flow(self, dy: Mapping[str, Array], kept: Kept) -> Flow:
        """The walk itself: from the top layer down, from the last step to the first."""
        layers, length = len(kept.steps), len(kept.steps[0])
        received: list[list[dict[str, Array]]] = [[] for _ in range(layers)]
        gave: list[list[dict[str, Array]]] = [[] for _ in range(layers)]
        out: dict[str, Array] = {}
        above = [dy["y"][:, t] for t in range(length)] if "y" in dy else [np.float64(0)] * length
        for layer in reversed(range(layers)):
            zero = np.zeros_like(self._value(kept.steps[layer][0], "h"))
            carry = {s: dy[f"{s}_n"][layer] if f"{s}_n" in dy else zero for s in self.states}
            total: dict[str, Array] = {}
            for t in reversed(range(length)):
                arrives = {**carry, "h": np.asarray(carry["h"] + above[t], dtype=zero.dtype)}
                gives = self.cell_backward(arrives, kept.steps[layer][t])
                received[layer].insert(0, arrives)
                gave[layer].insert(0, gives)
                carry = {s: gives[f"{s}_prev"] for s in self.states}
                for name in WEIGHTS:
                    if name in gives:
                        total[name] = total[name] + gives[name] if name in total else gives[name]
            above = [step["x"] for step in gave[layer]]
            out |= {f"{name}_l{layer}": gradient for name, gradient in total.items()}
            for name in self.values:
                steps = [{**into, **of}[name] for into, of in zip(received[layer], gave[layer], strict=True)]
                out[f"{layer}.{name}"] = np.stack(steps, axis=1)
        for s in kept.states:
            out[f"{s}0"] = np.stack([gave[layer][0][f"{s}_prev"] for layer in range(layers)])
        return Flow({"x": np.stack(above, axis=1), **out}, received, gave)

    def terms(self, index: Index, *arrays: Array | None, output: str = "y", kept: Kept | None = None) -> Terms:
        """Of y, a last state, or a value inside ("0.f" at [n, t, d]): the terms of the cell that made it."""
        if kept is None:
            _, kept = self.forward(*arrays)  # type: ignore[arg-type]
        layers, length = len(kept.steps), len(kept.steps[0])
        batch, size = self._value(kept.steps[-1][0], "h").shape
        ends = {f"{s}_n": s for s in self.states}
        if output in ends:
            layer, n, d = check_index(index, (layers, batch, size), output)
            name, t = ends[output], length - 1
        else:
            inside = {f"{number}.{value}": (number, value) for number in range(layers) for value in self.values}
            known = {"y": (layers - 1, "h"), **inside}
            if output not in known:
                raise unknown(output, [*known, *ends], "output")
            layer, name = known[output]
            step = self._value(kept.steps[layer][0], name)
            n, t, d = check_index(index, (step.shape[0], length, step.shape[1]), output)
        terms = self.cell_terms((n, d), output=name, kept=kept.steps[layer][t])
        return replace(terms, groups=tuple(_placed(group, layer, t) for group in terms.groups))

    def grad_terms(
        self,
        index: Index,
        wrt: str,
        dy: Mapping[str, Array],
        *arrays: Array | None,
        kept: Kept | None = None,
        flow: Flow | None = None,
    ) -> Terms:
        """Of an argument, or of a value inside ("0.c" at [n, t, d]): from the cells it fed."""
        if kept is None:
            _, kept = self.forward(*arrays)  # type: ignore[arg-type]
        if flow is None:
            flow = self.flow(dy, kept)
        if wrt not in flow.gradients:
            raise unknown(wrt, list(flow.gradients), f"the argument of {self.name} whose gradient is asked for")
        index = check_index(index, flow.gradients[wrt].shape, f"{wrt}.grad")
        cells_fed, ends_fed = self._fed(wrt, index, len(kept.steps), len(kept.steps[0]))
        groups: list[Group] = []
        scale = 0.0
        for layer, t, name, at in cells_fed:
            arrived, gave = flow.given[layer][t], flow.gave[layer][t]
            terms = self.cell_grad_terms(at, name, arrived, kept=kept.steps[layer][t], flow={**arrived, **gave})
            # What a cell calls "from the next step" is that step's cell, which stands in this list itself.
            groups += [_placed(group, layer, t) for group in terms.groups if not group.source.endswith("_next")]
            scale += terms.scale
        for source, at in ends_fed:
            if source in dy:
                groups.append(plain(f"{source}.grad", row(at), dy[source]))
                scale += float(abs(groups[-1].value[0]))
        return summed(_merged(groups), f"{wrt}.grad = Σ over the cells it fed", scale)

    def _fed(self, wrt: str, index: Index, layers: int, length: int) -> tuple[list[Use], list[tuple[str, Index]]]:
        """Where one number goes: into which cells [layer, t] (as what, at which index), and to which outputs."""
        if wrt == "x":
            return [Use(0, index[1], "x", (index[0], index[2]))], []
        if wrt in {f"{s}0" for s in self.states}:
            return [Use(index[0], 0, f"{wrt[0]}_prev", index[1:])], []
        if "." not in wrt:
            name, number = wrt.rsplit("_l", 1)
            return [Use(int(number), t, name, index) for t in range(length)], []
        number, name = wrt.split(".", maxsplit=1)
        layer, (n, t, d) = int(number), index
        uses: list[Use] = []
        ends: list[tuple[str, Index]] = []
        if name != "h":
            uses.append(Use(layer, t, name, (n, d)))
        if name in self.states and t + 1 < length:
            uses.append(Use(layer, t + 1, f"{name}_prev", (n, d)))
        elif name in self.states:
            ends.append((f"{name}_n", (layer, n, d)))
        if name == "h" and layer + 1 < layers:
            uses.append(Use(layer + 1, t, "x", (n, d)))
        elif name == "h":
            ends.append(("y", (n, t, d)))
        return uses, ends

    def operation(self, summary: str) -> Operation:
        """The entry of the registry."""
        states = tuple(
            Argument(f"{s}0", "lnh", "the state at the start, zeros unless given", optional=True) for s in self.states
        )
        weights = tuple(
            Argument(f"{a.name}_l0", a.axes, a.meaning + ", of layer 0; then of layer 1, …", PARAMETER, a.optional)
            for a in cells.WEIGHTS
        )
        return Operation(
            self.name,
            "recurrent",
            summary,
            (Argument("x", "ntd", "the sequences"), *states, *weights),
            self.forward,
            self.backward,
            self.terms,
            self.grad_terms,
            outputs=("y", *(f"{s}_n" for s in self.states)),
            interior=tuple(f"0.{value}" for value in self.values),
            names=self.names,
        )

    def _value(self, kept: Any, name: str) -> Array:
        """A value of a cell, (N, H); an LSTM keeps o and tanh(c), whose product h is."""
        if name == "h" and not hasattr(kept, "h"):
            return np.asarray(kept.o * kept.tanh_c)
        return np.asarray(getattr(kept, name))

    def _initial(self, given: Array | None, state: str, layer: int, shape: tuple[int, ...], dtype: Any) -> Array:
        if given is None:
            return np.zeros(shape[1:], dtype=dtype)
        check_shape(given, shape, f"{state}0", "one state (N, H) a layer")
        return np.asarray(given[layer])


def _placed(group: Group, layer: int, t: int) -> Group:
    """A cell's group with the names and indices of the whole: layer and step put in."""
    source, index = _place(group.source, group.index, layer, t)
    factor = group.factor
    if factor is not None:
        name, at = _place(factor.source, factor.index, layer, t)
        factor = replace(factor, source=name, index=at)
    return replace(group, source=source, index=index, factor=factor)


def _place(source: str, index: Array, layer: int, t: int) -> tuple[str, Array]:
    if source in WEIGHTS:
        return f"{source}_l{layer}", index
    if source == "x":
        return ("x" if layer == 0 else f"{layer - 1}.h"), np.insert(index, 1, t, axis=1)
    if source.endswith("_prev"):
        state = source.removesuffix("_prev")
        if t == 0:
            return f"{state}0", np.insert(index, 0, layer, axis=1)
        return f"{layer}.{state}", np.insert(index, 1, t - 1, axis=1)
    return f"{layer}.{source}", np.insert(index, 1, t, axis=1)


def _merged(groups: list[Group]) -> list[Group]:
    """Groups of the same source and factor as one (the steps of a weight's gradient)."""
    alike: dict[tuple[str, str], list[Group]] = {}
    for group in groups:
        alike.setdefault((group.source, "" if group.factor is None else group.factor.source), []).append(group)
    merged = []
    for (source, _), parts in alike.items():
        factors = [part.factor for part in parts if part.factor is not None]
        joined = Factor(factors[0].source, *_joined(factors)) if factors else None
        merged.append(Group(source, *_joined(parts), joined))
    return merged


def _joined(parts: list[Group] | list[Factor]) -> tuple[Array, Array, Array]:
    """Indices, values and coefficients one behind the other."""
    return (
        np.concatenate([part.index for part in parts]),
        np.concatenate([part.value for part in parts]),
        np.concatenate([part.coefficient for part in parts]),
    )


RNN = Recurrence("rnn", ("h",), ("h",), cells.rnn_forward, cells.rnn_backward, cells.rnn_terms, cells.rnn_grad_terms)
LSTM = Recurrence(
    "lstm",
    ("h", "c"),
    cells.LSTM_VALUES,
    cells.lstm_forward,
    cells.lstm_backward,
    cells.lstm_terms,
    cells.lstm_grad_terms,
)

OPERATIONS = (
    RNN.operation("RNN cells in time, in one or more layers"),
    LSTM.operation("LSTM cells in time, in one or more layers"),
)
