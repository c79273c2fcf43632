r"""Adding, subtracting, multiplying and dividing arrays: residual connections, gates, and the arithmetic of a graph.

For y = a + b both slopes are 1: a residual connection hands the gradient on unchanged, which is why deep residual
networks train. For y = a·b (a gate) each one's slope is the other. For y = a/b: 1/b and −a/b². For y = xᵏ: k·xᵏ⁻¹. A
number that was broadcast adds up the gradients of everything it was used for.

>>> y, kept = MULTIPLY.forward(np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([10.0, 0.5]))
>>> y.tolist(), MULTIPLY.backward(np.ones((2, 2)), kept)["b"].tolist()
([[10.0, 1.0], [30.0, 2.0]], [4.0, 6.0])

Sources: He et al. 2016 (residual connections); Hochreiter & Schmidhuber 1997 (gates).
"""

from __future__ import annotations

import numpy as np

from pellucid.textbook.elementwise import Elementwise
from pellucid.textbook.operation import Argument, Attribute
from pellucid.textbook.terms import Array

Slopes = tuple[Array | None, ...]
A_B = (Argument("a", "*", "any array"), Argument("b", "*", "an array that broadcasts with a"))


def add_slopes(a: Array, b: Array) -> Slopes:
    """Both 1."""
    return np.ones_like(a), np.ones_like(b)


def subtract_slopes(a: Array, b: Array) -> Slopes:
    """1 and −1."""
    return np.ones_like(a), -np.ones_like(b)


def multiply_slopes(a: Array, b: Array) -> Slopes:
    """Each the other."""
    return b, a


def divide_slopes(a: Array, b: Array) -> Slopes:
    """1/b and −a/b²."""
    return 1 / b, -a / b**2


def power(x: Array, exponent: float) -> Array:
    """The value x to the power of a fixed exponent."""
    return np.asarray(x**exponent)


def power_slopes(x: Array, exponent: float) -> Slopes:
    """k·xᵏ⁻¹."""
    return (np.asarray(exponent * x ** (exponent - 1)),)


ADD = Elementwise("add", np.add, add_slopes, "{a} + {b}", A_B)
SUBTRACT = Elementwise("subtract", np.subtract, subtract_slopes, "{a} − {b}", A_B)
MULTIPLY = Elementwise("multiply", np.multiply, multiply_slopes, "{a}·{b}", A_B)
DIVIDE = Elementwise("divide", np.divide, divide_slopes, "{a}/{b}", A_B)
POWER = Elementwise(
    "power",
    power,
    power_slopes,
    "{x}^{exponent}",
    attributes=(Attribute("exponent", 2.0, "k of xᵏ; fixed, not learnt"),),
)

OPERATIONS = (
    ADD.operation("arithmetic", "the sum of two arrays (a residual connection)"),
    SUBTRACT.operation("arithmetic", "the difference of two arrays"),
    MULTIPLY.operation("arithmetic", "the product, element by element (a gate)"),
    DIVIDE.operation("arithmetic", "the quotient, element by element"),
    POWER.operation("arithmetic", "every number to a fixed power"),
)
