r"""Functions of one number, and the choices between two: what the arithmetic of a graph is made of besides + − · /.

Each with its slope, for the chain rule dL/dx = dL/dy · f'(x):

- exp: eˣ itself. log: 1/x. log(1 + x): 1/(1 + x). eˣ − 1: eˣ.
- sin: cos x. cos: −sin x. |x|: the sign of x, 0 at 0. −x: −1.
- erf, 2/√π·∫₀ˣ e^(−t²) dt: 2/√π·e^(−x²).
- clamp min(max(x, low), high): 1 between the limits and on them, else 0.
- softsign x/(1 + |x|): 1/(1 + |x|)².
- log σ(x) = −log(1 + e⁻ˣ): 1 − σ(x) = σ(−x).
- mish x·tanh(s), s = log(1 + eˣ): tanh(s) + x·(1 − tanh²(s))·σ(x), since s' = σ.
- SELU λ·x above 0, λ·α(eˣ − 1) below: λ, and λ·α·eˣ. With α = 1.6733 and λ = 1.0507 a layer of many independent inputs
  keeps mean 0 and variance 1.

And of two arrays, broadcast against each other:

- the larger, the smaller: 1 for the one chosen, 0 for the other; equal ones share, 1/2 each.
- where: the first where the condition holds, else the second; each has slope 1 where it was taken.

>>> y, kept = MAXIMUM.forward(np.array([1.0, 2.0, 3.0]), np.array([2.0, 2.0, 2.0]))
>>> y.tolist(), MAXIMUM.backward(np.ones(3), kept)["a"].tolist()
([2.0, 2.0, 3.0], [0.0, 0.5, 1.0])

Sources: Klambauer et al. 2017 (SELU); Misra 2019 (mish).
"""

from __future__ import annotations

import numpy as np
from scipy.special import erf

from pellucid.textbook.activation import sigmoid, softplus
from pellucid.textbook.elementwise import Elementwise
from pellucid.textbook.operation import CONSTANT, Argument, Attribute
from pellucid.textbook.terms import Array

Slopes = tuple[Array | None, ...]
A_B = (Argument("a", "*", "any array"), Argument("b", "*", "an array that broadcasts with a"))

#: α and λ of SELU (Klambauer et al. 2017, equation 14).
ALPHA, SCALE = 1.6732632423543772, 1.0507009873554805


def exp_slopes(x: Array) -> Slopes:
    """eˣ."""
    return (np.exp(x),)


def log_slopes(x: Array) -> Slopes:
    """1/x."""
    return (1 / x,)


def log_of_more_slopes(x: Array) -> Slopes:
    """1/(1 + x)."""
    return (1 / (1 + x),)


def sine_slopes(x: Array) -> Slopes:
    """The cosine."""
    return (np.cos(x),)


def cosine_slopes(x: Array) -> Slopes:
    """−sin x."""
    return (-np.sin(x),)


def absolute_slopes(x: Array) -> Slopes:
    """The sign, 0 at 0."""
    return (np.sign(x),)


def negative_slopes(x: Array) -> Slopes:
    """−1."""
    return (-np.ones_like(x),)


def erf_slopes(x: Array) -> Slopes:
    """2/√π·e^(−x²)."""
    return (np.exp(-(x**2)) * (2 / np.sqrt(np.pi)),)


def clamp(x: Array, low: float | None = None, high: float | None = None) -> Array:
    """min(max(x, low), high), either limit left out if it is None."""
    return np.asarray(np.clip(x, low, high))


def clamp_slopes(x: Array, low: float | None = None, high: float | None = None) -> Slopes:
    """1 between the limits and on them, else 0."""
    return (np.where(clamp(x, low, high) == x, 1.0, 0.0),)


def softsign(x: Array) -> Array:
    """x/(1 + |x|)."""
    return np.asarray(x / (1 + np.abs(x)))


def softsign_slopes(x: Array) -> Slopes:
    """1/(1 + |x|)²."""
    return (1 / (1 + np.abs(x)) ** 2,)


def log_sigmoid(x: Array) -> Array:
    """The value log σ(x), as −softplus(−x), which never overflows."""
    return -softplus(-x)


def log_sigmoid_slopes(x: Array) -> Slopes:
    """σ(−x)."""
    return (sigmoid(-x),)


def mish(x: Array) -> Array:
    """x·tanh(log(1 + eˣ))."""
    return np.asarray(x * np.tanh(softplus(x)))


def mish_slopes(x: Array) -> Slopes:
    """tanh(s) + x·(1 − tanh²(s))·σ(x)."""
    t = np.tanh(softplus(x))
    return (t + x * (1 - t**2) * sigmoid(x),)


def selu(x: Array) -> Array:
    """λ·x above 0, λ·α(eˣ − 1) below."""
    return np.where(x > 0, SCALE * x, SCALE * ALPHA * np.expm1(np.minimum(x, 0)))


def selu_slopes(x: Array) -> Slopes:
    """λ above 0, λ·α·eˣ below."""
    return (np.where(x > 0, SCALE, SCALE * ALPHA * np.exp(np.minimum(x, 0))),)


def maximum_slopes(a: Array, b: Array) -> Slopes:
    """1 for the larger; 1/2 each where they are equal."""
    first = (a > b) + 0.5 * (a == b)
    return first, 1 - first


def minimum_slopes(a: Array, b: Array) -> Slopes:
    """1 for the smaller; 1/2 each where they are equal."""
    return maximum_slopes(b, a)


def where(condition: Array, a: Array, b: Array) -> Array:
    """The value a where the condition is not 0, else b."""
    return np.where(condition != 0, a, b)


def where_slopes(condition: Array, a: Array, b: Array) -> Slopes:
    """1 where it was taken."""
    del a, b
    taken = np.where(condition != 0, 1.0, 0.0)
    return None, taken, 1 - taken


def _size(x: Array) -> Array:
    """|x|, where y is x times something made by adding to 1."""
    return np.asarray(np.abs(x))


EXP = Elementwise("exp", np.exp, exp_slopes, "e^{x}")
LOG = Elementwise("log", np.log, log_slopes, "log({x})")
LOG_OF_MORE = Elementwise("log1p", np.log1p, log_of_more_slopes, "log(1 + {x})")
EXP_BUT_ONE = Elementwise("expm1", np.expm1, exp_slopes, "e^{x} − 1")
SINE = Elementwise("sine", np.sin, sine_slopes, "sin({x})", curved=True)
COSINE = Elementwise("cosine", np.cos, cosine_slopes, "cos({x})", curved=True)
ABSOLUTE = Elementwise("absolute", np.abs, absolute_slopes, "|{x}|")
NEGATIVE = Elementwise("negative", np.negative, negative_slopes, "−{x}")
ERF = Elementwise("erf", erf, erf_slopes, "erf({x})", curved=True)
CLAMP = Elementwise(
    "clamp",
    clamp,
    clamp_slopes,
    "min(max({x}, low), high)",
    attributes=(Attribute("low", None, "smallest output, or None"), Attribute("high", None, "largest output, or None")),
)
SOFTSIGN = Elementwise("softsign", softsign, softsign_slopes, "{x}/(1 + |{x}|)")
LOG_SIGMOID = Elementwise("log_sigmoid", log_sigmoid, log_sigmoid_slopes, "log(1/(1 + e^(−{x})))", curved=True)
MISH = Elementwise("mish", mish, mish_slopes, "{x}·tanh(log(1 + e^{x}))", scale=_size, curved=True)
SELU = Elementwise("selu", selu, selu_slopes, "λ·{x} if {x} > 0, else λ·α(e^{x} − 1)", curved=True)
MAXIMUM = Elementwise("maximum", np.maximum, maximum_slopes, "max({a}, {b})", A_B)
MINIMUM = Elementwise("minimum", np.minimum, minimum_slopes, "min({a}, {b})", A_B)
WHERE = Elementwise(
    "where",
    where,
    where_slopes,
    "{a} if {condition}, else {b}",
    (Argument("condition", "*", "not 0 where a is taken", CONSTANT), *A_B),
)
OPERATIONS = (
    EXP.operation("arithmetic", "e to the power of every number"),
    LOG.operation("arithmetic", "the natural logarithm"),
    LOG_OF_MORE.operation("arithmetic", "the logarithm of 1 + x, exact for small x"),
    EXP_BUT_ONE.operation("arithmetic", "eˣ − 1, exact for small x"),
    SINE.operation("arithmetic", "the sine"),
    COSINE.operation("arithmetic", "the cosine"),
    ABSOLUTE.operation("arithmetic", "the absolute value"),
    NEGATIVE.operation("arithmetic", "the number with the other sign"),
    ERF.operation("arithmetic", "the error function"),
    CLAMP.operation("arithmetic", "x held between two limits, either of which may be missing"),
    MAXIMUM.operation("arithmetic", "the larger of two"),
    MINIMUM.operation("arithmetic", "the smaller of two"),
    WHERE.operation("arithmetic", "one of two, by a condition"),
    SOFTSIGN.operation("activation", "any number to (−1, 1), with long tails"),
    LOG_SIGMOID.operation("activation", "the logarithm of the sigmoid"),
    MISH.operation("activation", "x weighted by the tanh of its softplus"),
    SELU.operation("activation", "the ELU that keeps mean 0 and variance 1"),
)
