"""What an operation of the textbook is: a description, and the four functions that every page has.

    forward(*arrays, **attributes)                     -> (y, kept)     kept: what the way back needs, by name
    backward(dy, kept)                                 -> {name: gradient} for every input and parameter
    terms(index, *arrays, **attributes)                -> Terms of y[index]
    grad_terms(index, wrt, dy, *arrays, **attributes)  -> Terms of the gradient of argument `wrt` at index

Arrays go in the order of `arguments`, None where an optional one is left out. An operation with several outputs gives
and takes dictionaries by name in place of y and dy (a missing gradient is zero), and its `terms` takes `output=`, which
may also name a value of its interior (a gate); `backward` then gives the gradients of the interior beside the others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pellucid.textbook.terms import Array, Terms

INPUT, PARAMETER, CONSTANT = "input", "parameter", "constant"


@dataclass(frozen=True)
class Argument:
    """An array an operation takes: its name, axes (lower-case letters of DESIGN), and whether it has a gradient.

    `kind` is "input", "parameter" or "constant" (labels, a dropout mask, running averages: no gradient).
    """

    name: str
    axes: str
    meaning: str
    kind: str = INPUT
    optional: bool = False

    @property
    def differentiable(self) -> bool:
        """Whether backward gives a gradient for it."""
        return self.kind != CONSTANT


@dataclass(frozen=True)
class Attribute:
    """A setting of an operation that is no array: its name, default and meaning (with its unit)."""

    name: str
    default: Any
    meaning: str


@dataclass(frozen=True)
class Operation:
    """One operation: what it takes, what it gives, and its four functions (see the module's docstring)."""

    name: str
    page: str
    summary: str
    arguments: tuple[Argument, ...]
    forward: Callable[..., tuple[Any, Any]]
    backward: Callable[..., dict[str, Array]]
    terms: Callable[..., Terms]
    grad_terms: Callable[..., Terms]
    attributes: tuple[Attribute, ...] = ()
    outputs: tuple[str, ...] = ("y",)
    interior: tuple[str, ...] = ()
    names: Callable[[int], tuple[str, ...]] | None = None

    @property
    def variadic(self) -> bool:
        """Whether it takes any number of arrays; `names(count)` then says what each is called."""
        return self.names is not None

    def argument_names(self, count: int) -> tuple[str, ...]:
        """The name of each of `count` arrays given in order."""
        if self.names is not None:
            return self.names(count)
        if count > len(self.arguments):
            takes = ", ".join(argument.name for argument in self.arguments)
            raise ValueError(f"{self.name} was given {count} arrays, but takes {len(self.arguments)} ({takes})")
        return tuple(argument.name for argument in self.arguments[:count])

    def by_name(self, y: Array | Mapping[str, Array]) -> dict[str, Array]:
        """The outputs (or their gradients) as a dictionary, whether the operation has one or several."""
        return {self.outputs[0]: y} if isinstance(y, np.ndarray) else dict(y)


def given(**gradients: Array | None) -> dict[str, Array]:
    """The gradients of the arguments that were given (an optional one left out has none)."""
    return {name: gradient for name, gradient in gradients.items() if gradient is not None}
