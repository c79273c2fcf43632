r"""Penalties on large weights: L1 and L2.

**L1** λ·Σ|w|: slope λ·sign(w) (0 at 0), the same pull whatever the size, so small weights end at exactly 0.
**L2** λ·Σw²: slope 2λw, a pull in proportion; a step of gradient descent with rate η shrinks every weight by the factor
1 − 2ηλ, hence "weight decay".

>>> w = np.array([3.0, -0.5])
>>> l1_forward(w, strength=0.1)[0].item(), l2_forward(w, strength=0.1)[0].item()
(0.35000000000000003, 0.925)
>>> l1_backward(np.array(1.0), (w, 0.1))["w"].tolist(), l2_backward(np.array(1.0), (w, 0.1))["w"].round(9).tolist()
([0.1, -0.1], [0.6, -0.1])

Sources: Hoerl & Kennard 1970; Tibshirani 1996; Krogh & Hertz 1992.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pellucid.textbook.operation import PARAMETER, Argument, Attribute, Operation
from pellucid.textbook.terms import Array, Group, Index, Terms, check_index, gather, grid, plain, summed, unknown

if TYPE_CHECKING:
    from collections.abc import Mapping

#: What both keep for the way back: the weights, and the strength λ.
Kept = tuple[Array, float]


def l1_forward(w: Array, strength: float = 1.0) -> tuple[Array, Kept]:
    """λ·Σ|w|, a single number; keeps w."""
    return np.asarray(_checked(strength) * np.abs(w).sum(), dtype=w.dtype), (w, strength)


def l1_backward(dy: Array, kept: Kept) -> dict[str, Array]:
    """Dw = dy·λ·sign(w)."""
    w, strength = kept
    return {"w": np.asarray(dy * strength * np.sign(w), dtype=w.dtype)}


def l1_terms(index: Index, w: Array, strength: float = 1.0) -> Terms:
    """Every weight, with slope λ·sign(w): the contributions λ·|w| add up."""
    check_index(index, (), "the penalty")
    at = grid(*map(range, w.shape))
    return summed([plain("w", at, w, _checked(strength) * np.sign(gather(w, at)))], "y = Σ w·λ·sign(w)")


def l1_grad_terms(index: Index, wrt: str, dy: Array, w: Array, strength: float = 1.0) -> Terms:
    """The penalty's own gradient, through λ·sign(w)."""
    slope = strength * float(np.sign(w[_own(index, wrt, w)]))
    return summed([plain("y.grad", grid(), dy, slope)], "w.grad = y.grad·λ·sign(w)")


def l2_forward(w: Array, strength: float = 1.0) -> tuple[Array, Kept]:
    """λ·Σw², a single number; keeps w."""
    return np.asarray(_checked(strength) * (w**2).sum(), dtype=w.dtype), (w, strength)


def l2_backward(dy: Array, kept: Kept) -> dict[str, Array]:
    """Dw = dy·2λw."""
    w, strength = kept
    return {"w": np.asarray(dy * (2 * strength) * w, dtype=w.dtype)}


def l2_rule(groups: Mapping[str, Group], constants: Mapping[str, Any]) -> dict[str, float]:
    """λ·Σw²."""
    total = float((groups["w"].value ** 2).sum())
    return {"strength": constants["strength"], "total": total, "y": constants["strength"] * total}


def l2_terms(index: Index, w: Array, strength: float = 1.0) -> Terms:
    """Every weight, with slope 2λw."""
    check_index(index, (), "the penalty")
    at = grid(*map(range, w.shape))
    value = gather(w, at)
    scale = _checked(strength) * float((value**2).sum())
    group = Group("w", at, value, 2 * strength * value)
    return Terms((group,), "λ·Σ w² = {strength}·{total}", scale, "formula", l2_rule, {"strength": strength})


def l2_grad_terms(index: Index, wrt: str, dy: Array, w: Array, strength: float = 1.0) -> Terms:
    """The penalty's own gradient, through 2λw."""
    slope = 2 * strength * float(w[_own(index, wrt, w)])
    return summed([plain("y.grad", grid(), dy, slope)], "w.grad = y.grad·2λw")


def _own(index: Index, wrt: str, w: Array) -> Index:
    if wrt != "w":
        raise unknown(wrt, ["w"], "the argument of a penalty whose gradient is asked for")
    return check_index(index, w.shape, "w.grad")


def _checked(strength: float) -> float:
    if strength < 0:
        raise ValueError(f"strength is {strength}, but λ·Σ|w| and λ·Σw² need λ ≥ 0")
    return strength


W = (Argument("w", "*", "the weights", PARAMETER),)
STRENGTH = (Attribute("strength", 1.0, "λ"),)

OPERATIONS = (
    Operation("l1_penalty", "penalty", "λ·Σ|w|", W, l1_forward, l1_backward, l1_terms, l1_grad_terms, STRENGTH),
    Operation("l2_penalty", "penalty", "λ·Σw²", W, l2_forward, l2_backward, l2_terms, l2_grad_terms, STRENGTH),
)
