r"""One output number from one number of each input: the shared half of activations and arithmetic.

Let $y = f(a, b, …)$ element by element, the inputs broadcast to one shape. By the chain rule the loss L has

$$\partial L/\partial a = \sum \partial L/\partial y · \partial f/\partial a,$$

the sum over all outputs that the same number was broadcast to (one, where nothing was broadcast). So a function and
its slopes are all that a page has to give; forward, backward and terms follow, here, once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pellucid.textbook.arrays import unbroadcast
from pellucid.textbook.operation import Argument, Attribute, Operation
from pellucid.textbook.terms import Array, Group, Index, Terms, check_index, gather, grid, plain, row, summed, unknown

if TYPE_CHECKING:
    from typing import Self

X = (Argument("x", "*", "any array"),)


@dataclass(frozen=True)
class Kept:
    """What the way back needs: the inputs, and the settings."""

    arrays: tuple[Array, ...]
    attributes: dict[str, Any]


@dataclass(frozen=True)
class Elementwise:
    """An elementwise function: f, its slopes (one an input, None where an input has no gradient), and its formula.

    `template` has the inputs and attributes in braces. `scale(*arrays, **attributes)`, where given, is what a rounding
    error of y is proportional to; otherwise |y| + Σ|slope · input|. `curved` says that the slope comes out of a
    subtraction (1 − tanh²), so an error in a gradient is proportional to |dy|, not to the product.
    """

    name: str
    f: Callable[..., Array]
    slopes: Callable[..., tuple[Array | None, ...]]
    template: str
    arguments: tuple[Argument, ...] = X
    attributes: tuple[Attribute, ...] = ()
    scale: Callable[..., Array] | None = None
    curved: bool = False

    def forward(self, *arrays: Array, **attributes: Any) -> tuple[Array, Kept]:
        """Y = f(arrays), in the type of the arrays; keeps the arrays and the settings."""
        self._check(arrays, attributes)
        y = self.f(*arrays, **attributes)
        return np.asarray(y, dtype=np.result_type(*arrays)), Kept(arrays, attributes)

    def backward(self, dy: Array, kept: Kept) -> dict[str, Array]:
        """dL/da = Σ dL/dy · ∂f/∂a for every input a that has a gradient."""
        slopes = self.slopes(*kept.arrays, **kept.attributes)
        return {
            argument.name: unbroadcast(np.asarray(dy * slope, dtype=array.dtype), array.shape)
            for argument, array, slope in zip(self.arguments, kept.arrays, slopes, strict=True)
            if slope is not None
        }

    def terms(self, index: Index, *arrays: Array, **attributes: Any) -> Terms:
        """The one number of each input, its slope, and the formula."""
        index, picked, values = self._at(index, arrays, attributes)
        slopes = [s if s is None else float(s) for s in self.slopes(*values, **attributes)]
        groups = tuple(
            Group(argument.name, row(at), np.array([value]), np.array([slope or 0.0]))
            for argument, at, value, slope in zip(self.arguments, picked, values, slopes, strict=True)
        )
        if self.scale is not None:
            scale = float(self.scale(*values, **attributes))
        else:
            scale = abs(float(self.f(*values, **attributes))) + sum(
                abs(slope * float(value)) for slope, value in zip(slopes, values, strict=True) if slope is not None
            )
        defaults = {attribute.name: attribute.default for attribute in self.attributes}
        return Terms(groups, self.template, scale, "formula", self.rule, {**defaults, **attributes})

    def grad_terms(self, index: Index, wrt: str, dy: Array, *arrays: Array, **attributes: Any) -> Terms:
        """The gradients of all outputs that this number was broadcast to, each times its local slope."""
        names = [argument.name for argument in self.arguments if argument.differentiable]
        if wrt not in names:
            raise unknown(wrt, names, f"the argument of {self.name} whose gradient is asked for")
        position = [argument.name for argument in self.arguments].index(wrt)
        shape = arrays[position].shape
        index = check_index(index, shape, f"{wrt}.grad")
        lead = dy.ndim - len(shape)
        axes = [range(size) for size in dy.shape[:lead]]
        for at, here, there in zip(index, shape, dy.shape[lead:], strict=True):
            axes.append(range(there) if here == 1 else range(at, at + 1))
        where = grid(*axes)
        values = [gather(np.broadcast_to(array, dy.shape), where) for array in arrays]
        slope = np.asarray(self.slopes(*values, **attributes)[position], dtype=np.float64)
        group = plain("y.grad", where, dy, slope)
        reach = np.maximum(np.abs(group.coefficient), 1.0) if self.curved else np.abs(group.coefficient)
        return summed([group], f"{wrt}.grad = Σ y.grad · ∂y/∂{wrt}", float((np.abs(group.value) * reach).sum()))

    def rule(self, groups: Mapping[str, Group], constants: Mapping[str, Any]) -> dict[str, float]:
        """The formula: y from the values of the terms and the settings."""
        values = {name: group.value[0] for name, group in groups.items()}
        return {**values, **constants, "y": float(self.f(*values.values(), **constants))}

    def operation(self, page: str, summary: str) -> Operation:
        """The entry of the registry."""
        return Operation(
            self.name,
            page,
            summary,
            self.arguments,
            self.forward,
            self.backward,
            self.terms,
            self.grad_terms,
            self.attributes,
        )

    def with_slopes(self, slopes: Callable[..., tuple[Array | None, ...]]) -> Self:
        """The same function with other slopes (for trying what a wrong derivative does)."""
        return type(self)(
            self.name, self.f, slopes, self.template, self.arguments, self.attributes, self.scale, self.curved
        )

    def _check(self, arrays: tuple[Array, ...], attributes: dict[str, Any]) -> None:
        if len(arrays) != len(self.arguments):
            takes = ", ".join(argument.name for argument in self.arguments)
            raise ValueError(f"{self.name} takes {len(self.arguments)} arrays ({takes}), but was given {len(arrays)}")
        known = [attribute.name for attribute in self.attributes]
        for name in attributes:
            if name not in known:
                raise unknown(name, known or ["(it has no settings)"], f"a setting of {self.name}")
        try:
            np.broadcast_shapes(*[array.shape for array in arrays])
        except ValueError as error:
            shapes = " and ".join(str(array.shape) for array in arrays)
            formula = self.template.translate({ord("{"): None, ord("}"): None})
            raise ValueError(f"shapes {shapes} do not fit: {formula} needs equal sizes, or 1, on each axis") from error

    def _at(
        self, index: Index, arrays: tuple[Array, ...], attributes: dict[str, Any]
    ) -> tuple[Index, list[Index], list[Any]]:
        self._check(arrays, attributes)
        index = check_index(
            index, np.broadcast_shapes(*[array.shape for array in arrays]), f"the output of {self.name}"
        )
        picked = []
        for array in arrays:
            tail = index[len(index) - array.ndim :]
            picked.append(tuple(0 if size == 1 else i for i, size in zip(tail, array.shape, strict=True)))
        return index, picked, [np.float64(array[at]) for array, at in zip(arrays, picked, strict=True)]
