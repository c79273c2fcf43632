r"""Activations: what makes a stack of linear layers more than one linear layer.

Each takes one number and gives one number, y = f(x), so that dL/dx = dL/dy · f'(x). Beside each f stands its slope f',
derived once:

- sigmoid σ(x) = 1/(1 + e⁻ˣ): σ' = e⁻ˣ/(1 + e⁻ˣ)² = σ·(1 − σ), at most 1/4 (at x = 0), so two layers of it let at most
  1/16 of a gradient through.
- tanh(x) = 2σ(2x) − 1: tanh' = 1 − tanh².
- SiLU x·σ(x): product rule, σ + x·σ·(1 − σ).
- GELU x·Φ(x), Φ the normal distribution: Φ + x·φ, where φ(x) = e^(−x²/2)/√(2π).
- softplus log(1 + eᵝˣ)/β: eᵝˣ/(1 + eᵝˣ) = σ(βx).
- ELU: x above 0, α(eˣ − 1) below, where the slope is α·eˣ.
- ReLU and its kin are straight pieces: the slope is that of the piece, and of the left piece at the joint (of ReLU: 0).

>>> y, kept = SIGMOID.forward(np.array([0.0, 2.0]))
>>> y.round(4).tolist(), SIGMOID.backward(np.array([1.0, 1.0]), kept)["x"].round(4).tolist()
([0.5, 0.8808], [0.25, 0.105])

Sources: Clevert et al. 2016 (ELU); Hendrycks & Gimpel 2016 (GELU); Elfwing et al. 2018 (SiLU); Howard et al. 2019
(hard-swish); Dugas et al. 2001 (softplus); Maas et al. 2013 (leaky ReLU).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import erf

from pellucid.textbook.elementwise import Elementwise
from pellucid.textbook.operation import Attribute
from pellucid.textbook.terms import Array

Slopes = tuple[Array | None, ...]


def sigmoid(x: Array) -> Array:
    """1/(1 + e⁻ˣ), through e^(−|x|), which never overflows."""
    e = np.exp(-np.abs(x))
    return np.asarray(np.where(x >= 0, 1 / (1 + e), e / (1 + e)))


def sigmoid_slopes(x: Array) -> Slopes:
    """Slope σ·(1 − σ), the second factor as σ(−x): 1 − σ loses its digits where σ is nearly 1."""
    return (sigmoid(x) * sigmoid(-x),)


def tanh_slopes(x: Array) -> Slopes:
    """Slope 1 − tanh²."""
    return (1 - np.tanh(x) ** 2,)


def relu(x: Array) -> Array:
    """The larger of x and 0."""
    return np.asarray(np.maximum(x, 0))


def relu_slopes(x: Array) -> Slopes:
    """Slope 1 above 0, else 0."""
    return (np.where(x > 0, 1.0, 0.0),)


def leaky_relu(x: Array, slope: float = 0.01) -> Array:
    """Itself above 0, slope·x below."""
    return np.where(x > 0, x, slope * x)


def leaky_relu_slopes(x: Array, slope: float = 0.01) -> Slopes:
    """Slope 1 above 0, else `slope`."""
    return (np.where(x > 0, 1.0, slope),)


def elu(x: Array, alpha: float = 1.0) -> Array:
    """Itself above 0, α(eˣ − 1) below."""
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


def elu_slopes(x: Array, alpha: float = 1.0) -> Slopes:
    """Slope 1 above 0, α·eˣ below."""
    return (np.where(x > 0, 1.0, alpha * np.exp(np.minimum(x, 0))),)


def normal_distribution(x: Array) -> Array:
    """Φ(x) = (1 + erf(x/√2))/2: the share of a standard normal variable below x."""
    return np.asarray(0.5 * (1 + erf(x / np.sqrt(2.0))))


#: GELU's published approximation is x/2·(1 + tanh(√(2/π)·(x + CUBIC·x³))).
CUBIC = 0.044715


def gelu(x: Array, approximate: str = "none") -> Array:
    """The value x·Φ(x), or ("tanh") x/2·(1 + tanh(√(2/π)(x + 0.044715x³)))."""
    if _exact(approximate):
        return np.asarray(x * normal_distribution(x))
    return np.asarray(0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + CUBIC * x**3))))


def gelu_slopes(x: Array, approximate: str = "none") -> Slopes:
    """Slope Φ + x·φ; of the approximation, with t = tanh(u): (1 + t)/2 + x/2·(1 − t²)·u'."""
    if _exact(approximate):
        return (normal_distribution(x) + x * np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi),)
    t = np.tanh(np.sqrt(2 / np.pi) * (x + CUBIC * x**3))
    du = np.sqrt(2 / np.pi) * (1 + 3 * CUBIC * x**2)
    return (0.5 * (1 + t) + 0.5 * x * (1 - t**2) * du,)


def _exact(approximate: str) -> bool:
    if approximate not in {"none", "tanh"}:
        raise ValueError(f"approximate is {approximate!r}, but GELU knows 'none' (x·Φ(x)) and 'tanh'")
    return approximate == "none"


def silu(x: Array) -> Array:
    """The value x·σ(x)."""
    return np.asarray(x * sigmoid(x))


def silu_slopes(x: Array) -> Slopes:
    """Slope σ + x·σ·(1 − σ)."""
    return (sigmoid(x) + x * sigmoid(x) * sigmoid(-x),)


def hard_tanh(x: Array, low: float = -1.0, high: float = 1.0) -> Array:
    """The value x, held between low and high."""
    if not low < high:
        raise ValueError(f"low is {low} and high is {high}, but min(max(x, low), high) needs low < high")
    return np.asarray(np.clip(x, low, high))


def hard_tanh_slopes(x: Array, low: float = -1.0, high: float = 1.0) -> Slopes:
    """Slope 1 strictly between low and high, else 0."""
    return (np.where((x > low) & (x < high), 1.0, 0.0),)


def relu6(x: Array) -> Array:
    """The value x, held between 0 and 6."""
    return hard_tanh(x, 0.0, 6.0)


def relu6_slopes(x: Array) -> Slopes:
    """Slope 1 strictly between 0 and 6, else 0."""
    return hard_tanh_slopes(x, 0.0, 6.0)


def hard_sigmoid(x: Array) -> Array:
    """The straight line x/6 + 1/2, held between 0 and 1."""
    return np.asarray(np.clip(x + 3, 0, 6) / 6)


def hard_sigmoid_slopes(x: Array) -> Slopes:
    """Slope 1/6 strictly between −3 and 3, else 0."""
    return (np.where((x > -3) & (x < 3), 1 / 6, 0.0),)


def hard_swish(x: Array) -> Array:
    """The value x·min(max(x + 3, 0), 6)/6."""
    return np.asarray(x * np.clip(x + 3, 0, 6) / 6)


def hard_swish_slopes(x: Array) -> Slopes:
    """Slope 0 up to −3, (2x + 3)/6 between, 1 from 3 on."""
    return (np.where(x <= -3, 0.0, np.where(x >= 3, 1.0, x / 3 + 0.5)),)


def softplus(x: Array, beta: float = 1.0) -> Array:
    """log(1 + eᵝˣ)/β, as max(x, 0) + log(1 + e^(−β|x|))/β, which never overflows."""
    return np.asarray(np.maximum(x, 0) + np.log1p(np.exp(-beta * np.abs(x))) / beta)


def softplus_slopes(x: Array, beta: float = 1.0) -> Slopes:
    """Slope σ(βx)."""
    return (sigmoid(beta * x),)


def _size(x: Array, **_: Any) -> Array:
    """|x|: the rounding scale of x·(something made by adding to 1 or 3), small as the product may be."""
    return np.asarray(np.abs(x))


SIGMOID = Elementwise("sigmoid", sigmoid, sigmoid_slopes, "1/(1 + e^(−{x}))", curved=True)
TANH = Elementwise("tanh", np.tanh, tanh_slopes, "tanh({x})", curved=True)
RELU = Elementwise("relu", relu, relu_slopes, "max({x}, 0)")
LEAKY_RELU = Elementwise(
    "leaky_relu",
    leaky_relu,
    leaky_relu_slopes,
    "{x} if {x} > 0, else slope·{x}",
    attributes=(Attribute("slope", 0.01, "slope below 0"),),
)
ELU = Elementwise(
    "elu",
    elu,
    elu_slopes,
    "{x} if {x} > 0, else α(e^{x} − 1)",
    attributes=(Attribute("alpha", 1.0, "the depth it tends to, −α"),),
    curved=True,
)
GELU = Elementwise(
    "gelu",
    gelu,
    gelu_slopes,
    "{x}·Φ({x})",
    attributes=(Attribute("approximate", "none", "'none' for x·Φ(x), 'tanh' for the published approximation"),),
    scale=_size,
    curved=True,
)
SILU = Elementwise("silu", silu, silu_slopes, "{x}/(1 + e^(−{x}))", scale=_size, curved=True)
HARD_TANH = Elementwise(
    "hard_tanh",
    hard_tanh,
    hard_tanh_slopes,
    "min(max({x}, low), high)",
    attributes=(Attribute("low", -1.0, "smallest output"), Attribute("high", 1.0, "largest output")),
)
RELU6 = Elementwise("relu6", relu6, relu6_slopes, "min(max({x}, 0), 6)")
HARD_SIGMOID = Elementwise(
    "hard_sigmoid", hard_sigmoid, hard_sigmoid_slopes, "min(max({x} + 3, 0), 6)/6", scale=np.ones_like
)
HARD_SWISH = Elementwise(
    "hard_swish", hard_swish, hard_swish_slopes, "{x}·min(max({x} + 3, 0), 6)/6", scale=_size, curved=True
)
SOFTPLUS = Elementwise(
    "softplus",
    softplus,
    softplus_slopes,
    "log(1 + e^(β·{x}))/β",
    attributes=(Attribute("beta", 1.0, "sharpness: the larger, the nearer to ReLU"),),
)

OPERATIONS = (
    SIGMOID.operation("activation", "the logistic function: any number to (0, 1)"),
    TANH.operation("activation", "the hyperbolic tangent: any number to (−1, 1)"),
    RELU.operation("activation", "the rectifier: negative numbers to 0"),
    LEAKY_RELU.operation("activation", "a rectifier that lets a little of the negative side through"),
    ELU.operation("activation", "a rectifier with a smooth negative side"),
    GELU.operation("activation", "x weighted by the share of a normal variable below it"),
    SILU.operation("activation", "x weighted by its sigmoid (also called swish)"),
    HARD_TANH.operation("activation", "x held between two limits"),
    RELU6.operation("activation", "x held between 0 and 6"),
    HARD_SIGMOID.operation("activation", "the sigmoid in straight pieces"),
    HARD_SWISH.operation("activation", "SiLU in straight pieces"),
    SOFTPLUS.operation("activation", "a smooth rectifier"),
)
