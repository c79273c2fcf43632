r"""Recurrent cells: one step in time of an RNN, and of an LSTM with its gates.

**RNN** (Elman 1990): the state is made from the state before and the new input, the output from the state,

$$h_t = \tanh(W_{hh}h_{t-1} + W_{xh}x_t + b),\qquad y_t = W_{hy}h_t + b_y.$$

Backward, with a the sum inside: h's own gradient is what comes from the next step plus W_hyᵀ·dy, then

$$da = dh\,(1-h^2),\quad dx = W_{xh}^\top da,\quad dh_{t-1} = W_{hh}^\top da,\quad dW_{xh} = da\,x^\top,\quad
dW_{hh} = da\,h_{t-1}^\top,\quad db = da.$$

Every step back multiplies by W_hhᵀ and by 1 − h² ≤ 1: this is how gradients vanish (or explode).

**LSTM** (Hochreiter & Schmidhuber 1997; Gers et al. 2000): a cell c that is added to, and gates between 0 and 1,

$$i = \sigma(a_i),\quad f = \sigma(a_f),\quad g = \tanh(a_g),\quad o = \sigma(a_o),\qquad
c_t = f\,c_{t-1} + i\,g,\qquad h_t = o\tanh(c_t),$$

each a the same sum of x and h_{t−1} with its own weights; they lie in W_xh (4H, D) and W_hh (4H, H) in the order i, f,
g, o. Backward, from the output to the gates:

$$do = dh\tanh c_t,\quad dc = dc_{\text{next}} + dh\,o\,(1-\tanh^2 c_t),\quad di = dc\,g,\quad df = dc\,c_{t-1},\quad
dg = dc\,i,\quad dc_{t-1} = dc\,f,$$

then da = di·i(1 − i) and so on, (1 − g²) for g, and from da as above. Along the cell a step back multiplies by f alone.

A bias may come in two parts, b and b_hh, as engines keep it; both have the same gradient.

>>> one = np.ones((1, 1))
>>> out, _ = rnn_forward(one, 0 * one, 0.5 * one, one, w_hy=2 * one)
>>> round(out["h"].item(), 4), round(out["y"].item(), 4)
(0.4621, 0.9242)
>>> out, kept = lstm_forward(one, 0 * one, 2 * one, np.zeros((4, 1)), np.zeros((4, 1)))
>>> kept.i.item(), out["c"].item(), round(out["h"].item(), 4)
(0.5, 1.0, 0.3808)

Axes: x N D, h and c N H, W_xh (gates·H, D), W_hh (gates·H, H), W_hy (O, H).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pellucid.textbook.activation import sigmoid
from pellucid.textbook.gates import Gate, Inputs, gate_terms, preactivation, sum_grad_terms, through_sum
from pellucid.textbook.operation import PARAMETER, Argument, Operation, given
from pellucid.textbook.terms import (
    Array,
    Group,
    Index,
    Terms,
    check_index,
    check_shape,
    grid,
    plain,
    products,
    row,
    summed,
    unknown,
)

if TYPE_CHECKING:
    from collections.abc import Mapping


# --- RNN ----------------------------------------------------------------------------------------------------------


class KeptRnn(NamedTuple):
    """What the way back needs: the inputs, the state h, and the weights and bias of the output."""

    inputs: Inputs
    h: Array
    w_hy: Array | None
    b_y: Array | None


def rnn_forward(
    x: Array,
    h_prev: Array,
    w_xh: Array,
    w_hh: Array,
    b: Array | None = None,
    b_hh: Array | None = None,
    w_hy: Array | None = None,
    b_y: Array | None = None,
) -> tuple[dict[str, Array], KeptRnn]:
    """H = tanh(W_hh·h + W_xh·x + b), and, with w_hy, y = W_hy·h + b_y; keeps h."""
    inputs = Inputs(x, h_prev, w_xh, w_hh, b, b_hh)
    h = np.tanh(preactivation(inputs, 1))
    out = {"h": h}
    if w_hy is not None:
        check_shape(w_hy, (w_hy.shape[0], h.shape[1]), "w_hy", f"y = W_hy·h with h {h.shape}")
        out["y"] = h @ w_hy.T if b_y is None else h @ w_hy.T + b_y
    return out, KeptRnn(inputs, h, w_hy, b_y)


def rnn_backward(dy: Mapping[str, Array], kept: KeptRnn) -> dict[str, Array]:
    """The page's sums; "h" is the whole gradient of the state."""
    inputs, h, w_hy, b_y = kept
    dh = dy.get("h", np.zeros_like(h))
    outer: dict[str, Array] = {}
    if w_hy is not None:
        d_out = dy.get("y", np.zeros((h.shape[0], w_hy.shape[0]), dtype=h.dtype))
        dh = dh + d_out @ w_hy
        outer = given(w_hy=d_out.T @ h, b_y=None if b_y is None else d_out.sum(axis=0))
    da = dh * (1 - h**2)
    return {**through_sum(da, inputs), **outer, "h": dh}


def rnn_gates(kept: KeptRnn) -> list[Gate]:
    """The one gate of an RNN is its state."""
    return [Gate("h", 1 - kept.h**2, 1.0)]


def rnn_terms(index: Index, *arrays: Array | None, output: str = "h", kept: KeptRnn | None = None) -> Terms:
    """H from x and h_prev, and y from h. `kept`, where the forward pass is there already, spares another."""
    out, kept = (_rnn_outputs(kept), kept) if kept is not None else rnn_forward(*arrays)  # type: ignore[arg-type]
    if output not in out:
        raise unknown(output, list(out), "output")
    n, k = check_index(index, out[output].shape, output)
    if output == "h":
        value = float(kept.h[n, k])
        return gate_terms(n, k, kept.inputs, "tanh", value, 1 - value**2)
    assert kept.w_hy is not None
    d = range(kept.h.shape[1])
    groups = [products("h", grid(n, d), kept.h, "w_hy", grid(k, d), kept.w_hy)]
    if kept.b_y is not None:
        groups.append(plain("b_y", row((k,)), kept.b_y))
    return summed(groups, "y[n,o] = Σ_d h[n,d]·w_hy[o,d] + b_y[o]")


def _rnn_outputs(kept: KeptRnn) -> dict[str, Array]:
    return {"h": kept.h} if kept.w_hy is None else {"h": kept.h, "y": kept.h @ kept.w_hy.T}


def rnn_grad_terms(
    index: Index,
    wrt: str,
    dy: Mapping[str, Array],
    *arrays: Array | None,
    kept: KeptRnn | None = None,
    flow: Mapping[str, Array] | None = None,
) -> Terms:
    """`wrt` is an argument or "h" itself, whose gradient comes from y and from the next step."""
    if kept is None:
        _, kept = rnn_forward(*arrays)  # type: ignore[arg-type]
    if flow is None:
        flow = rnn_backward(dy, kept)
    if wrt == "h":
        n, d = check_index(index, kept.h.shape, "h.grad")
        groups = []
        if "h" in dy:
            groups.append(plain("h.grad_from_next", row((n, d)), dy["h"]))
        if kept.w_hy is not None and "y" in dy:
            every = range(kept.w_hy.shape[0])
            groups.append(products("y.grad", grid(n, every), dy["y"], "w_hy", grid(every, d), kept.w_hy))
        return summed(groups, "h.grad[n,d] = h.grad from the next step + Σ_o y.grad[n,o]·w_hy[o,d]")
    if wrt == "w_hy" and kept.w_hy is not None:
        o, d = check_index(index, kept.w_hy.shape, "w_hy.grad")
        n_all = range(kept.h.shape[0])
        return summed(
            [products("y.grad", grid(n_all, o), dy["y"], "h", grid(n_all, d), kept.h)], "w_hy.grad = Σ_n y.grad·h"
        )
    if wrt == "b_y" and kept.b_y is not None:
        (o,) = check_index(index, kept.b_y.shape, "b_y.grad")
        return summed([plain("y.grad", grid(range(kept.h.shape[0]), o), dy["y"])], "b_y.grad = Σ_n y.grad")
    return sum_grad_terms(index, wrt, kept.inputs, rnn_gates(kept), flow)


# --- LSTM ---------------------------------------------------------------------------------------------------------


class KeptLstm(NamedTuple):
    """What the way back needs: the inputs, the cell before, the gates, the cell and its tanh, (N, H) each."""

    inputs: Inputs
    c_prev: Array
    i: Array
    f: Array
    g: Array
    o: Array
    c: Array
    tanh_c: Array


def lstm_forward(
    x: Array,
    h_prev: Array,
    c_prev: Array,
    w_xh: Array,
    w_hh: Array,
    b: Array | None = None,
    b_hh: Array | None = None,
) -> tuple[dict[str, Array], KeptLstm]:
    """H = o·tanh(c), c = f·c_prev + i·g; keeps the gates and the cell."""
    inputs = Inputs(x, h_prev, w_xh, w_hh, b, b_hh)
    a = preactivation(inputs, 4)
    check_shape(c_prev, h_prev.shape, "c_prev", f"c = f·c_prev + i·g with h {h_prev.shape}")
    a_i, a_f, a_g, a_o = np.split(a, 4, axis=1)
    i, f, g, o = sigmoid(a_i), sigmoid(a_f), np.tanh(a_g), sigmoid(a_o)
    c = f * c_prev + i * g
    tanh_c = np.tanh(c)
    return {"h": o * tanh_c, "c": c}, KeptLstm(inputs, c_prev, i, f, g, o, c, tanh_c)


def lstm_backward(dy: Mapping[str, Array], kept: KeptLstm) -> dict[str, Array]:
    """The page's chain; beside the arguments' gradients those of i, f, g, o and the whole one of c."""
    inputs, c_prev, i, f, g, o, c, tanh_c = kept
    dh, dc_next = dy.get("h", np.zeros_like(c)), dy.get("c", np.zeros_like(c))
    do = dh * tanh_c
    dc = dc_next + dh * o * (1 - tanh_c**2)
    di, df, dg = dc * g, dc * c_prev, dc * i
    da = np.concatenate([di * i * (1 - i), df * f * (1 - f), dg * (1 - g**2), do * o * (1 - o)], axis=1)
    return {**through_sum(da, inputs), "c_prev": dc * f, "i": di, "f": df, "g": dg, "o": do, "c": dc}


def lstm_gates(kept: KeptLstm) -> list[Gate]:
    """The four gates, in the order of the weights' rows."""
    i, f, g, o = kept.i, kept.f, kept.g, kept.o
    return [
        Gate("i", i * (1 - i), 0.25),
        Gate("f", f * (1 - f), 0.25),
        Gate("g", 1 - g**2, 1.0),
        Gate("o", o * (1 - o), 0.25),
    ]


def output_rule(groups: Mapping[str, Group], _: Mapping[str, Any]) -> dict[str, float]:
    """o·tanh(c): the first group is the gate, the second the cell."""
    o, c = (float(group.value[0]) for group in groups.values())
    return {"o": o, "c": c, "y": o * float(np.tanh(c))}


LSTM_VALUES = ("i", "f", "g", "o", "c", "h")


def lstm_terms(index: Index, *arrays: Array | None, output: str = "h", kept: KeptLstm | None = None) -> Terms:
    """H from o and c, c from the gates, a gate from x and h_prev."""
    if kept is None:
        _, kept = lstm_forward(*arrays)  # type: ignore[arg-type]
    if output not in LSTM_VALUES:
        raise unknown(output, list(LSTM_VALUES), "output")
    n, d = check_index(index, kept.c.shape, output)
    at = row((n, d))
    if output == "h":
        tanh_c, o = float(kept.tanh_c[n, d]), float(kept.o[n, d])
        groups = (plain("o", at, kept.o, tanh_c), plain("c", at, kept.c, o * (1 - tanh_c**2)))
        scale = abs(o * tanh_c) + abs(float(groups[1].contribution[0]))
        return Terms(groups, "{o}·tanh({c})", scale, "formula", output_rule)
    if output == "c":
        groups = (products("c_prev", at, kept.c_prev, "f", at, kept.f), products("g", at, kept.g, "i", at, kept.i))
        return summed(list(groups), "c = f·c_prev + i·g")
    number = LSTM_VALUES.index(output)
    gate = lstm_gates(kept)[number]
    value = float(getattr(kept, output)[n, d])
    activation = "tanh" if output == "g" else "sigmoid"
    return gate_terms(n, number * kept.c.shape[1] + d, kept.inputs, activation, value, float(gate.slope[n, d]))


def lstm_grad_terms(
    index: Index,
    wrt: str,
    dy: Mapping[str, Array],
    *arrays: Array | None,
    kept: KeptLstm | None = None,
    flow: Mapping[str, Array] | None = None,
) -> Terms:
    """`wrt` is an argument, a gate, or "c", whose gradient comes from h and from the next step."""
    if kept is None:
        _, kept = lstm_forward(*arrays)  # type: ignore[arg-type]
    if flow is None:
        flow = lstm_backward(dy, kept)
    if wrt not in {"c", "o", "i", "f", "g", "c_prev"}:
        return sum_grad_terms(index, wrt, kept.inputs, lstm_gates(kept), flow)
    n, d = check_index(index, kept.c.shape, f"{wrt}.grad")
    at = row((n, d))
    dh = dy.get("h", np.zeros_like(kept.c))
    if wrt == "o":
        return summed([plain("h.grad", at, dh, float(kept.tanh_c[n, d]))], "o.grad = h.grad·tanh(c)")
    if wrt == "c":
        o = float(kept.o[n, d])
        groups = [plain("h.grad", at, dh, o * (1 - float(kept.tanh_c[n, d]) ** 2))]
        scale = float(abs(groups[0].value[0])) * o
        if "c" in dy:
            groups.append(plain("c.grad_from_next", at, dy["c"]))
            scale += float(abs(groups[1].value[0]))
        return summed(groups, "c.grad = h.grad·o·(1 − tanh²(c)) + c.grad from the next step", scale)
    factor = {"i": "g", "f": "c_prev", "g": "i", "c_prev": "f"}[wrt]
    return summed(
        [products("c.grad", at, flow["c"], factor, at, getattr(kept, factor))], f"{wrt}.grad = c.grad·{factor}"
    )


X = Argument("x", "nd", "the input of this step")
H = Argument("h_prev", "nh", "the state before")
C = Argument("c_prev", "nh", "the cell before")
WEIGHTS = (
    Argument("w_xh", "kd", "weights of the input, a row for each gate and unit", PARAMETER),
    Argument("w_hh", "kh", "weights of the state", PARAMETER),
    Argument("b", "k", "biases", PARAMETER, optional=True),
    Argument("b_hh", "k", "a second part of the biases", PARAMETER, optional=True),
)
OUT = (
    Argument("w_hy", "oh", "weights of the output", PARAMETER, optional=True),
    Argument("b_y", "o", "biases of the output", PARAMETER, optional=True),
)

OPERATIONS = (
    Operation(
        "rnn_cell",
        "recurrent",
        "one step of an RNN",
        (X, H, *WEIGHTS, *OUT),
        rnn_forward,
        rnn_backward,
        rnn_terms,
        rnn_grad_terms,
        outputs=("h", "y"),
    ),
    Operation(
        "lstm_cell",
        "recurrent",
        "one step of an LSTM",
        (X, H, C, *WEIGHTS),
        lstm_forward,
        lstm_backward,
        lstm_terms,
        lstm_grad_terms,
        outputs=("h", "c"),
        interior=("i", "f", "g", "o"),
    ),
)
