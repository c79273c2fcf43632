r"""Muon: momentum whose matrix has all of its directions made about equally long.

A gradient's matrix, of a layer's filters the first axis by all others, is mostly a few directions: a step along it
moves the layer hardly at all along the others. With v ← μ·v + g and U = g + μ·v as Nesterov has them, Muon takes
X = U/‖U‖ and then, five times, with A = XXᵀ,

$$X \leftarrow a\,X + (b\,A + c\,A^2)\,X, \qquad a = 3.4445,\; b = -4.775,\; c = 2.0315$$

(with fewer columns than rows, of the transposed). Each singular value s of X becomes a·s + b·s³ + c·s⁵ and the
directions stay, so that nothing has to be taken apart to find them; after five times every s that was not tiny lies
between about 0.7 and 1.2. The polynomial does not settle at 1: its slope at 0 was made steep instead. The step is

p·(1 − η·λ) − η·√max(1, rows/columns)·X.

Backwards, with Y what X becomes, B = b·A + c·A² (symmetric, as A is) and dB = dY·Xᵀ: dA = b·dB + c·(dB·A + A·dB), and
dX = a·dY + B·dY + (dA + dAᵀ)·X; then through the norm, dU = (dX − X·Σ dX·X)/‖U‖.

>>> u = np.array([[4.0, 0.0], [0.0, 1.0]])
>>> np.linalg.svd(orthogonal(u)[0])[1].round(2).tolist()
[0.74, 0.74]

Sources: Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024; Higham, "Functions of
matrices", 2008, chapter 8 (Newton–Schulz).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from pellucid.textbook.terms import Array, Group, Index, Terms, check_index, gather, grid, row
from pellucid.textbook.update import Hyper, Optimiser, Values, effective

#: The polynomial's coefficients.
A, B, C = 3.4445, -4.7750, 2.0315
#: Of no use are more; a forged tape might ask for any number.
MOST_ROUNDS = 100


class Kept(NamedTuple):
    """What the way back needs: X before each round, the norm (None where ε stood for it), and whether U was turned."""

    rounds: tuple[Array, ...]
    norm: float | None
    turned: bool


def orthogonal(u: Array, rounds: int = 5, eps: float = 1e-7) -> tuple[Array, Kept]:
    """A matrix (rows, columns) with its directions made about equally long, in the matrix's type."""
    turned = u.shape[0] > u.shape[1]
    norm = float(np.linalg.norm(u.astype(np.float64)))
    x = ((u.T if turned else u) / max(norm, eps)).astype(u.dtype)
    before = []
    for _ in range(rounds):
        before.append(x)
        square = x @ x.T
        x = A * x + (B * square + C * square @ square) @ x
    return (x.T if turned else x), Kept(tuple(before), norm if norm > eps else None, turned)


def orthogonal_backward(dy: Array, kept: Kept, eps: float = 1e-7) -> Array:
    """The gradient with respect to the matrix."""
    dx = dy.T if kept.turned else dy
    for x in reversed(kept.rounds):
        square = x @ x.T
        d_polynomial = dx @ x.T
        d_square = B * d_polynomial + C * (d_polynomial @ square + square @ d_polynomial)
        dx = A * dx + (B * square + C * square @ square) @ dx + (d_square + d_square.T) @ x
    x = kept.rounds[0] if kept.rounds else np.zeros_like(dx)
    du = dx / eps if kept.norm is None else (dx - x * (dx * x).sum()) / kept.norm
    return np.asarray(du.T if kept.turned else du)


def rate(lr: float, shape: tuple[int, ...]) -> float:
    """η·√max(1, rows/columns), for a parameter of that shape: then every layer's answer moves about as far."""
    rows = shape[0] if shape else 1
    return lr * math.sqrt(max(1.0, rows**2 / math.prod(shape)))


def _matrix(array: Array) -> Array:
    """The first axis by all others."""
    return array.reshape(array.shape[0] if array.ndim else 1, -1)


def muon(x: Values, h: Hyper, _: int) -> dict[str, Array]:
    """V ← μ·v + g, and p·(1 − η·λ) less the rate times the matrix of g + μ·v made orthogonal: of a whole parameter."""
    velocity = h["momentum"] * x["velocity"] + x["g"]
    ahead = x["g"] + h["momentum"] * velocity
    direction = orthogonal(_matrix(ahead), int(h["rounds"]), h["eps"])[0].reshape(ahead.shape)
    shrunk = x["p"] * (1 - h["lr"] * h["weight_decay"])
    return {
        "velocity": velocity,
        "ahead": ahead,
        "shrunk": shrunk,
        "direction": direction,
        "next": shrunk - rate(h["lr"], ahead.shape) * direction,
    }


def muon_slopes(x: Values, h: Hyper, _: int, index: Index) -> dict[str, Array]:
    """Of p[index] after the step, with respect to p[index], to all of the gradient and to all of the velocity."""
    ahead = x["g"] * (1 + h["momentum"]) + h["momentum"] ** 2 * x["velocity"]
    kept = orthogonal(_matrix(ahead), int(h["rounds"]), h["eps"])[1]
    one = np.zeros_like(ahead)
    one[index] = -rate(h["lr"], ahead.shape)
    slope = orthogonal_backward(_matrix(one), kept, h["eps"]).reshape(one.shape)
    return {
        "p": np.atleast_1d(1 - h["lr"] * h["weight_decay"]),
        "g": slope * (1 + h["momentum"]),
        "velocity": slope * h["momentum"] ** 2,
    }


class Muon(Optimiser):
    """Each number after the step is made of one weight, and of the whole parameter's gradient and velocity."""

    def settings(self, hyper: Hyper, step: int) -> dict[str, float]:
        """All settings, checked."""
        settings = super().settings(hyper, step)
        if not 0 <= settings["rounds"] <= MOST_ROUNDS:
            raise ValueError(f"rounds is {settings['rounds']:g}, but the directions are done after {MOST_ROUNDS}")
        return settings

    def terms(self, index: Index, p: Array, g: Array, state: Mapping[str, Array], step: int, **hyper: float) -> Terms:
        """What p[index] will be after the step: from p[index], and from every g and every velocity."""
        settings = self.settings(hyper, step)
        index = check_index(index, p.shape, "p")
        everywhere = grid(*(range(size) for size in p.shape))
        raw = {
            "p": gather(p, row(index)),
            "g": g.astype(np.float64),
            "velocity": state["velocity"].astype(np.float64),
        }
        slope = muon_slopes(effective(raw, settings, coupled=False), settings, step, index)
        slope["g"] = slope["g"] * settings["clip"]
        groups = tuple(
            Group(name, row(index) if name == "p" else everywhere, value.reshape(-1), slope[name].reshape(-1))
            for name, value in raw.items()
        )
        constants = {**settings, "step": step, "shape": p.shape, "index": index}
        made = self.recompute({group.source: group for group in groups}, constants)
        # The direction is a sum over a row, and its rounding that of the longest of the numbers on the way.
        scale = abs(made["p"]) + abs(made["turn"])
        return Terms(groups, self.template, scale, "formula", self.recompute, constants)

    def recompute(self, groups: Mapping[str, Group], constants: Mapping[str, Any]) -> dict[str, float]:
        """The rule again, from the values of the terms; the named numbers are those at the index.

        `unit` is the number of the matrix brought to length 1, and `before` what the last round made of it, by `pull`,
        which is the sum over the matrix's other rows (or columns).
        """
        shape, index = constants["shape"], constants["index"]
        settings = {name: value for name, value in constants.items() if name not in {"step", "shape", "index"}}
        raw = {name: group.value.reshape(shape) for name, group in groups.items() if name != "p"}
        raw["p"] = np.zeros(shape)
        raw["p"][index] = groups["p"].value[0]
        values = effective(raw, settings, coupled=False)
        made = self.rule(values, settings, int(constants["step"]))
        next_ = made.pop("next")
        kept = orthogonal(_matrix(made["ahead"]), int(settings["rounds"]), settings["eps"])[1]
        steps = {name: float(value[index]) for name, value in (values | made).items()} | settings
        steps["ratio"] = rate(1.0, shape) ** 2
        steps["turn"] = rate(settings["lr"], shape)
        steps["length"] = max(float(np.linalg.norm(made["ahead"])), settings["eps"])
        steps["unit"] = steps["ahead"] / steps["length"]
        if kept.rounds:
            before = kept.rounds[-1].T if kept.turned else kept.rounds[-1]
            steps["before"] = float(before.reshape(shape)[index])
            steps["pull"] = steps["direction"] - A * steps["before"]
        return {**steps, "next": float(next_[index])}


MUON = Muon(
    "muon",
    "momentum with all of its directions made equally long",
    ("velocity",),
    {"lr": 0.02, "momentum": 0.95, "rounds": 5.0, "eps": 1e-7},
    "{shrunk} − {turn}·{direction}",
    muon,
    None,
    decoupled=True,
)
