"""The best strength of a chain from every value inside a recurrent network, step by step and layer by layer.

As in the textbook's terms: a gate is made of the input and of the state before, a cell c = f·c_prev + i·g of the cell
before and of g (f and i are what multiplies them), a state h = o·tanh(c) of o and of c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pellucid.explain.path_sums import log, share_of, sums
from pellucid.textbook.cells import KeptLstm, KeptRnn

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pellucid.explain.node import Array
    from pellucid.textbook.gates import Inputs

GATES = ("i", "f", "g", "o")


def recurrent(kept: Any, logs: Mapping[str, Array | None]) -> dict[str, Array]:
    """Of y, the last states and every value inside: log of the best strength. `logs`: of x, h0 and c0, by name."""
    x = logs.get("x")
    out: dict[str, Array] = {}
    ends: dict[str, list[Array]] = {}
    below = x
    for layer, steps in enumerate(kept.steps):
        made: dict[str, list[Array]] = {}
        before = {s: _start(logs.get(f"{s}0"), layer) for s in ("h", "c")}
        for t, step in enumerate(steps):
            under = np.full(step.inputs.x.shape, -np.inf) if below is None else below[:, t]
            now = _lstm(step, under, before) if isinstance(step, KeptLstm) else _rnn(step, under, before["h"])
            for name, part in now.items():
                made.setdefault(name, []).append(part)
            before = {s: now.get(s) for s in ("h", "c")}
        out |= {f"{layer}.{name}": np.stack(parts, axis=1) for name, parts in made.items()}
        for s in ("h", "c"):
            if s in made:
                ends.setdefault(f"{s}_n", []).append(made[s][-1])
        below = out[f"{layer}.h"]
    assert below is not None
    return {**out, "y": below, **{name: np.stack(parts) for name, parts in ends.items()}}


def _start(logs: Array | None, layer: int) -> Array | None:
    return None if logs is None else logs[layer]


def _known(logs: Array | None, like: Array) -> Array:
    return np.full(like.shape, -np.inf) if logs is None else logs


def _gates(inputs: Inputs, below: Array, before: Array | None) -> Array:
    """Log of the best from every row of the sum W_xh·x + W_hh·h + b, (N, gates·H)."""
    x = np.concatenate([inputs.x, inputs.h_prev], axis=1)
    logs = np.concatenate([below, _known(before, inputs.h_prev)], axis=1)
    w = np.concatenate([inputs.w_xh, inputs.w_hh], axis=1)
    biases = [np.abs(b.astype(np.float64)) for b in (inputs.b, inputs.b_hh) if b is not None]
    return sums(w, np.sum(biases, axis=0) if biases else None, x, logs)


def _rnn(step: KeptRnn, below: Array, before: Array | None) -> dict[str, Array]:
    found = _gates(step.inputs, below, before)
    return {"h": np.where(1 - step.h**2 != 0, found, -np.inf)}


def _lstm(step: KeptLstm, below: Array, before: Mapping[str, Array | None]) -> dict[str, Array]:
    values = [part.astype(np.float64) for part in (step.i, step.f, step.g, step.o, step.c, step.c_prev)]
    i, f, g, o, c, c_prev = values
    tanh_c = step.tanh_c.astype(np.float64)
    rows = np.split(_gates(step.inputs, below, before["h"]), 4, axis=1)
    slopes = (step.i * (1 - step.i), step.f * (1 - step.f), 1 - step.g**2, step.o * (1 - step.o))
    made = {name: np.where(slope != 0, row, -np.inf) for name, row, slope in zip(GATES, rows, slopes, strict=True)}
    kept, added = np.abs(f * c_prev), np.abs(i * g)
    made["c"] = share_of(np.maximum(log(kept) + _known(before["c"], c), log(added) + made["g"]), kept + added)
    by_o, by_c = np.abs(o * tanh_c), np.abs(o * (1 - tanh_c**2) * c)
    made["h"] = share_of(np.maximum(log(by_o) + made["o"], log(by_c) + made["c"]), by_o + by_c)
    return made
