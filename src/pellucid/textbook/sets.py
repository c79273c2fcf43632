"""What the normalisations share: sets of numbers with common statistics, the way back, and the terms of a set.

The derivation is on the page `normalisation`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pellucid.textbook.operation import given
from pellucid.textbook.terms import Array, Group, Index, Terms, check_index, gather, grid, plain, row, unknown

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Sets:
    """Which numbers of x share statistics, and which share γ and β.

    `split` is a shape of x with its sets' axes apart, `over` the axes of that shape that a set runs over, and
    `channels` the axes of x that γ and β have.
    """

    split: tuple[int, ...]
    over: tuple[int, ...]
    channels: tuple[int, ...]

    @property
    def size(self) -> int:
        """N of the page."""
        return math.prod(self.split[a] for a in self.over)

    def members(self, index: Index, shape: tuple[int, ...]) -> Array:
        """The indices (n, rank) of all numbers in the set of x[index]."""
        at = np.unravel_index(np.ravel_multi_index(index, shape), self.split)
        inner = grid(*[range(size) if a in self.over else int(at[a]) for a, size in enumerate(self.split)])
        return np.stack(np.unravel_index(np.ravel_multi_index(tuple(inner.T), self.split), shape), axis=1)

    def standardise(self, x: Array, eps: float) -> tuple[Array, Array]:
        """x̂ in the shape of x, and s in a shape that broadcasts with `split`."""
        parted = x.reshape(self.split)
        centred = parted - parted.mean(axis=self.over, keepdims=True)
        s = 1 / np.sqrt((centred**2).mean(axis=self.over, keepdims=True) + eps)
        return (centred * s).reshape(x.shape), np.asarray(s, dtype=x.dtype)

    def per_channel(self, parameter: Array | None, x: Array) -> Array:
        """γ or β in a shape that broadcasts with x; 1 where there is none."""
        if parameter is None:
            return np.ones((1,) * x.ndim, dtype=x.dtype)
        return parameter.reshape([size if a in self.channels else 1 for a, size in enumerate(x.shape)])

    def others(self, x: Array) -> tuple[int, ...]:
        """The axes of x over which γ and β are shared."""
        return tuple(a for a in range(x.ndim) if a not in self.channels)


class Kept(NamedTuple):
    """What the way back needs. `fixed`: the statistics were constants, so nothing flows back through them."""

    x_hat: Array
    s: Array
    gamma: Array | None
    beta: Array | None
    sets: Sets
    fixed: bool


def scaled(x: Array, x_hat: Array, gamma: Array | None, beta: Array | None, sets: Sets) -> Array:
    """γ·x̂ + β, where they are given."""
    y = x_hat * sets.per_channel(gamma, x)
    return y if beta is None else y + sets.per_channel(beta, x)


def backward(dy: Array | Mapping[str, Array], kept: Kept) -> dict[str, Array]:
    """The three sums of the page; one and the same for batch, layer and group."""
    if not isinstance(dy, np.ndarray):
        dy = dy["y"]
    x_hat, s, gamma, beta, sets, fixed = kept
    d_hat = (dy * sets.per_channel(gamma, x_hat)).reshape(sets.split)
    if fixed:
        dx = d_hat * s
    else:
        hat = x_hat.reshape(sets.split)
        through_mean = d_hat.mean(axis=sets.over, keepdims=True)
        through_spread = (d_hat * hat).mean(axis=sets.over, keepdims=True)
        dx = s * (d_hat - through_mean - hat * through_spread)
    shared = sets.others(x_hat)
    return given(
        x=dx.reshape(dy.shape),
        gamma=None if gamma is None else (dy * x_hat).sum(axis=shared),
        beta=None if beta is None else dy.sum(axis=shared),
    )


def set_terms(index: Index, x: Array, gamma: Array | None, beta: Array | None, sets: Sets, eps: float) -> Terms:
    """All n numbers of the set, each with γ·s·(δ − 1/n − x̂·x̂/n); γ and β."""
    index = check_index(index, x.shape, "the output of the normalisation")
    at = sets.members(index, x.shape)
    value = gather(x, at)
    own = int(np.flatnonzero((at == np.array(index)).all(axis=1))[0])
    channel = row(tuple(index[a] for a in sets.channels))
    s = 1 / math.sqrt(value.var() + eps)
    hat = (value - value.mean()) * s
    g = 1.0 if gamma is None else float(gather(gamma, channel)[0])
    slope = g * s * ((np.arange(len(value)) == own) - 1 / len(value) - hat * hat[own] / len(value))
    scale = abs(g) * s * float(abs(value[own]) + np.abs(value).mean())
    groups = [Group("x", at, value, slope)]
    return affine(groups, channel, float(hat[own]), gamma, beta, scale, set_rule, {"eps": eps, "own": own})


def affine(
    groups: list[Group],
    channel: Array,
    hat: float,
    gamma: Array | None,
    beta: Array | None,
    scale: float,
    rule: Any,
    constants: dict[str, Any],
) -> Terms:
    """Terms of γ·x̂ + β once those of x̂ are there."""
    template = "({x} − {mean})/√({variance} + {eps})"
    if gamma is not None:
        groups.append(plain("gamma", channel, gamma, hat))
        template += "·{gamma}"
    if beta is not None:
        groups.append(plain("beta", channel, beta))
        scale += abs(float(groups[-1].value[0]))
        template += " + {beta}"
    return Terms(tuple(groups), template, scale, "formula", rule, constants)


def set_rule(groups: Mapping[str, Group], constants: Mapping[str, Any]) -> dict[str, float]:
    """μ and σ² of the set, then (x − μ)/√(σ² + ε)·γ + β for the member meant."""
    value = groups["x"].value
    steps = {"x": float(value[constants["own"]]), "mean": float(value.mean()), "variance": float(value.var())}
    return finish(steps, groups, constants)


def finish(steps: dict[str, float], groups: Mapping[str, Group], constants: Mapping[str, Any]) -> dict[str, float]:
    """(x − μ)/√(σ² + ε)·γ + β from x, μ and σ²."""
    y = (steps["x"] - steps["mean"]) / math.sqrt(steps["variance"] + constants["eps"])
    steps["eps"] = constants["eps"]
    if "gamma" in groups:
        steps["gamma"] = float(groups["gamma"].value[0])
        y *= steps["gamma"]
    if "beta" in groups:
        steps["beta"] = float(groups["beta"].value[0])
        y += steps["beta"]
    return {**steps, "y": y}


def set_grad_terms(
    index: Index,
    wrt: str,
    dy: Array,
    x: Array,
    gamma: Array | None,
    beta: Array | None,
    sets: Sets,
    eps: float,
    fixed: tuple[Array, Array] | None = None,
) -> Terms:
    """The gradients that reach x, γ or β; `fixed` gives mean and s a channel where they are constants."""
    shapes = {"x": x.shape} | given_shapes(gamma=gamma, beta=beta)
    if wrt not in shapes:
        raise unknown(wrt, list(shapes), "the argument of the normalisation whose gradient is asked for")
    index = check_index(index, shapes[wrt], f"{wrt}.grad")
    wide = x.astype(np.float64)
    if fixed is None:
        x_hat, s = sets.standardise(wide, eps)
        mean = wide.reshape(sets.split).mean(axis=sets.over, keepdims=True)
        magnitude = np.abs(wide).reshape(sets.split).mean(axis=sets.over, keepdims=True)
    else:
        mean, s = sets.per_channel(fixed[0], wide), sets.per_channel(fixed[1], wide)
        x_hat, magnitude = (wide - mean) * s, np.abs(mean)
    # |x̂| as it is computed: a difference, whose rounding is that of its two sides.
    size = ((np.abs(wide).reshape(sets.split) + magnitude) * s).reshape(x.shape)
    if wrt != "x":
        spread = [range(n) for n in x.shape]
        for axis, i in zip(sets.channels, index, strict=True):
            spread[axis] = range(i, i + 1)
        at = grid(*spread)
        group = plain("y.grad", at, dy, gather(x_hat, at) if wrt == "gamma" else 1.0)
        reach = gather(size, at) if wrt == "gamma" else np.ones(len(group))
        template = "gamma.grad = Σ y.grad·x̂" if wrt == "gamma" else "beta.grad = Σ y.grad"
        return Terms((group,), template, float((np.abs(group.value) * reach).sum()))
    spread_s = np.broadcast_to(s, sets.split).reshape(x.shape)
    g = np.broadcast_to(sets.per_channel(gamma, wide), x.shape)
    if fixed is not None:
        group = plain("y.grad", row(index), dy, g[index] * spread_s[index])
        return Terms((group,), "x.grad = y.grad·γ/√(σ² + ε)", float(np.abs(group.contribution).sum()))
    at = sets.members(index, x.shape)
    own = (at == np.array(index)).all(axis=1)
    n = len(at)
    outer = gather(g, at) * spread_s[index]
    group = plain("y.grad", at, dy, outer * (own - 1 / n - gather(x_hat, at) * x_hat[index] / n))
    reach = np.abs(outer) * (own + 1 / n + gather(size, at) * size[index] / n)
    scale = float((np.abs(group.value) * reach).sum())
    return Terms((group,), "x.grad[m] = Σ_j y.grad[j]·γ[j]·s·(δ − 1/n − x̂[j]·x̂[m]/n)", scale)


def given_shapes(**arrays: Array | None) -> dict[str, tuple[int, ...]]:
    """The shapes of the arrays that were given."""
    return {name: array.shape for name, array in arrays.items() if array is not None}
