"""The sum inside every gate, a = W_xh·x + W_hh·h + b: forward, backward and terms, shared by all recurrent cells.

The derivation is on the page `cells`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pellucid.textbook.activation import sigmoid
from pellucid.textbook.operation import given
from pellucid.textbook.terms import (
    Array,
    Factor,
    Group,
    Index,
    Terms,
    check_index,
    check_shape,
    gather,
    grid,
    plain,
    products,
    row,
    summed,
    unknown,
)

if TYPE_CHECKING:
    from collections.abc import Mapping


class Inputs(NamedTuple):
    """What every cell's sum is made of; biases may be missing."""

    x: Array
    h_prev: Array
    w_xh: Array
    w_hh: Array
    b: Array | None
    b_hh: Array | None


class Gate(NamedTuple):
    """One gate as its sum sees it: its name, the slope of its activation (N, H), and that slope's bound."""

    name: str
    slope: Array
    bound: float


def preactivation(inputs: Inputs, gates: int) -> Array:
    """A = W_xh·x + W_hh·h + b, (N, gates·H)."""
    x, h, w_xh, w_hh, b, b_hh = inputs
    rows = gates * h.shape[-1]
    if x.ndim != 2 or h.ndim != 2 or x.shape[0] != h.shape[0]:
        raise ValueError(f"x has shape {x.shape} and h {h.shape}, but a cell takes x (N, D) and h (N, H)")
    check_shape(
        w_xh, (rows, x.shape[1]), "w_xh", f"a = W_xh·x + W_hh·h with {gates} gate(s), x {x.shape} and h {h.shape}"
    )
    check_shape(w_hh, (rows, h.shape[1]), "w_hh", f"a = W_xh·x + W_hh·h with {gates} gate(s), h {h.shape}")
    a = x @ w_xh.T + h @ w_hh.T
    for name, bias in (("b", b), ("b_hh", b_hh)):
        if bias is not None:
            check_shape(bias, (rows,), name, f"one bias a row of w_xh {w_xh.shape}")
            a = a + bias
    return np.asarray(a)


def through_sum(da: Array, inputs: Inputs) -> dict[str, Array]:
    """The gradients of everything in the sum, from that of the sum, (N, gates·H)."""
    db = da.sum(axis=0)
    return given(
        x=da @ inputs.w_xh,
        h_prev=da @ inputs.w_hh,
        w_xh=da.T @ inputs.x,
        w_hh=da.T @ inputs.h_prev,
        b=None if inputs.b is None else db,
        b_hh=None if inputs.b_hh is None else db,
    )


def gate_rule(groups: Mapping[str, Group], constants: Mapping[str, Any]) -> dict[str, float]:
    """The activation of Σ value · factor over all groups (a bias has no factor)."""
    a = float(sum((g.value * (1.0 if g.factor is None else g.factor.value)).sum() for g in groups.values()))
    y = float(np.tanh(a) if constants["activation"] == "tanh" else sigmoid(np.asarray(a)))
    return {"sum": a, "y": y}


def gate_terms(n: int, k: int, inputs: Inputs, activation: str, value: float, slope: float) -> Terms:
    """Row k of the sum for image n: the products with x and with h, and the biases, each times the gate's slope."""
    groups, size = [], abs(value)
    for source, array, factor, weights in (
        ("x", inputs.x, "w_xh", inputs.w_xh),
        ("h_prev", inputs.h_prev, "w_hh", inputs.w_hh),
    ):
        d = range(array.shape[1])
        group = products(source, grid(n, d), array, factor, grid(k, d), weights)
        assert group.factor is not None
        part = Factor(factor, group.factor.index, group.factor.value, slope * group.value)
        groups.append(Group(source, group.index, group.value, slope * group.coefficient, part))
    for source, bias in (("b", inputs.b), ("b_hh", inputs.b_hh)):
        if bias is not None:
            groups.append(plain(source, row((k,)), bias, slope))
    size += sum(float(np.abs(group.contribution).sum()) for group in groups)
    name = "σ" if activation == "sigmoid" else "tanh"
    constants = {"activation": activation}
    return Terms(
        tuple(groups), name + "(Σ x·w_xh + Σ h·w_hh + b) = " + name + "({sum})", size, "formula", gate_rule, constants
    )


def sum_grad_terms(index: Index, wrt: str, inputs: Inputs, gates: list[Gate], flow: Mapping[str, Array]) -> Terms:
    """What reaches x, h_prev, a weight or a bias: every gate's gradient, through its slope and the other factor."""
    arrays = {name: array for name, array in inputs._asdict().items() if array is not None}
    if wrt not in arrays:
        raise unknown(wrt, list(arrays), "the argument of the cell whose gradient is asked for")
    index = check_index(index, arrays[wrt].shape, f"{wrt}.grad")
    batch, size = inputs.h_prev.shape
    groups, scale = [], 0.0
    for g, gate in enumerate(gates):
        if wrt in {"x", "h_prev"}:
            factor = "w_xh" if wrt == "x" else "w_hh"
            at = grid(index[0], range(size))
            where = grid(g * size + np.arange(size), index[1])
            other = gather(arrays[factor], where)
        else:
            if index[0] // size != g:
                continue
            at = grid(range(batch), index[0] % size)
            factor = {"w_xh": "x", "w_hh": "h_prev"}.get(wrt, "")
            where = grid(range(batch), index[1]) if factor else at
            other = gather(arrays[factor], where) if factor else np.ones(batch)
        value, slope = gather(flow[gate.name], at), gather(gate.slope, at)
        part = Factor(factor, where, other, slope * value) if factor else None
        groups.append(Group(f"{gate.name}.grad", at, value, slope * other, part))
        scale += float(np.abs(value * other).sum()) * gate.bound
    return summed(groups, f"{wrt}.grad = Σ gate.grad · slope · the other factor", scale)
