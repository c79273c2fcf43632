"""What one number is made of: its terms, how they combine, and the scale against which an error in it is judged.

A number y of a pass is explained by `Terms`: groups of numbers of other arrays, each with its value, its coefficient
(always the local derivative ∂y/∂value) and its contribution (coefficient · value). `combine` says how they make y:

- "sum": y = Σ coefficient · value; for what is linear, and for every gradient (a gradient is linear in the gradients
  that reach it),
- "max": y = the largest value,
- "formula": the written formula, evaluated by `rule` from the values; the coefficients are its slopes.

Groups hold arrays, not objects: a 3×3×512 convolution has 4,608 terms a number, and asking for them stays cheap.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Iterator

Array = npt.NDArray[Any]
Index = tuple[int, ...]

#: Words of a formula's template, and the symbol each has in print.
SYMBOLS = {"gamma": "γ", "beta": "β", "eps": "ε", "mean": "μ", "variance": "σ²", "alpha": "α", "norm": "‖x‖"}


@dataclass(frozen=True)
class Term:
    """One number's share in another: `contribution = coefficient · value`."""

    source: str
    index: Index
    value: float
    coefficient: float
    contribution: float


@dataclass(frozen=True, eq=False)
class Factor:
    """The array whose elements multiply a group's values (the weights beside the pixels), element by element.

    `index` has shape (M, rank), `value` and `coefficient` (M,); `coefficient` is the local derivative with respect to
    the factor, as the group's own is with respect to its value.
    """

    source: str
    index: Array
    value: Array
    coefficient: Array


@dataclass(frozen=True, eq=False)
class Group:
    """M terms from one array.

    `source` names the array: an argument ("x", "w"), a value inside the operation ("f"), or the gradient that
    arrives at an output ("y.grad"). `index` (M, rank) says which of its elements, `value` (M,) what they are and
    `coefficient` (M,) the local derivative with respect to each, both in float64.
    """

    source: str
    index: Array
    value: Array
    coefficient: Array
    factor: Factor | None = None

    @property
    def contribution(self) -> Array:
        """Coefficient · value, shape (M,)."""
        return np.asarray(self.coefficient * self.value)

    def __len__(self) -> int:
        return len(self.value)


Rule = Callable[[Mapping[str, Group], Mapping[str, Any]], dict[str, float]]


@dataclass(frozen=True, eq=False)
class Terms:
    """The terms of one number, and all that is needed to make the number from them again.

    `template` is the formula; words in braces are what `steps` returns a number for. `constants` are the numbers that
    are no terms (ε, a stride, which member of a group is meant). `scale` is positive: what a rounding error in this
    number is proportional to (Σ|terms|, unless the rule says otherwise).
    """

    groups: tuple[Group, ...]
    template: str
    scale: float
    combine: str = "sum"
    rule: Rule | None = None
    constants: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return sum(len(group) for group in self.groups)

    def __iter__(self) -> Iterator[Term]:
        """Every term, as one object each; for reading, not for speed."""
        for group in self.groups:
            rows = zip(group.index.tolist(), group.value.tolist(), group.coefficient.tolist(), strict=True)
            for index, value, coefficient in rows:
                yield Term(group.source, tuple(index), value, coefficient, coefficient * value)

    def steps(self) -> dict[str, float]:
        """The named numbers on the way from the terms to the result, which comes last."""
        if self.combine == "sum":
            return {"y": float(sum(group.contribution.sum() for group in self.groups))}
        if self.combine == "max":
            return {"y": float(max(group.value.max() for group in self.groups))}
        if self.rule is None:
            raise ValueError(f"terms that combine by {self.combine!r} need the rule that evaluates it")
        return self.rule({group.source: group for group in self.groups}, self.constants)

    def recompute(self) -> float:
        """The number again, in float64, from the terms and `combine` alone."""
        return float(list(self.steps().values())[-1])

    @property
    def formula(self) -> str:
        """The formula with symbols."""
        names = {name: SYMBOLS.get(name, name) for name in self.steps()}
        return self.template.format(**names) if self.combine == "formula" else self.template

    def numbers(self, most: int = 6) -> str:
        """The formula with the numbers in it; of a sum or a maximum at most `most` terms, in order."""
        steps = self.steps()
        result = list(steps.values())[-1]
        if self.combine == "formula":
            return (
                f"{self.template.format(**{name: _short(value) for name, value in steps.items()})} = {_short(result)}"
            )
        terms = [term for term, _ in zip(self, range(most), strict=False)]
        more = ["…"] if len(self) > most else []
        if self.combine == "max":
            return f"max({', '.join([_short(term.value) for term in terms] + more)}) = {_short(result)}"
        products = [f"{_short(term.value)}·{_short(term.coefficient)}" for term in terms]
        return f"{' + '.join(products + more)} = {_short(result)}"


def _short(number: float | str | None) -> str:
    """Six digits; negative ones in brackets, so that they read well in a product. A setting may be a word, or none."""
    if number is None or isinstance(number, str):
        return str(number)
    return f"({number:.6g})" if number < 0 else f"{number:.6g}"


def gather(array: Array, index: Array) -> Array:
    """The elements of `array` at the rows of `index` (M, rank), as float64 (M,)."""
    # A single number (a loss) has no axes: its one row of the index is empty.
    return np.asarray(array[tuple(index.T)], dtype=np.float64).reshape(len(index))


def grid(*axes: Any) -> Array:
    """Every combination of the given indices, last axis fastest, as rows (M, number of axes).

    >>> grid([0, 1], 5, [2, 3]).tolist()
    [[0, 5, 2], [0, 5, 3], [1, 5, 2], [1, 5, 3]]
    """
    if not axes:
        return np.zeros((1, 0), dtype=np.int64)
    meshes = np.meshgrid(*[np.atleast_1d(np.asarray(axis, dtype=np.int64)) for axis in axes], indexing="ij")
    return np.stack([mesh.ravel() for mesh in meshes], axis=1)


def row(index: Index) -> Array:
    """One index as an index array of one row, shape (1, rank)."""
    return np.asarray(index, dtype=np.int64).reshape(1, len(index))


def products(source: str, index: Array, array: Array, factor: str, factor_index: Array, factors: Array) -> Group:
    """Terms value · factor: the coefficient of each is the other."""
    value, other = gather(array, index), gather(factors, factor_index)
    return Group(source, index, value, other, Factor(factor, factor_index, other, value))


def plain(source: str, index: Array, array: Array, coefficient: float | Array = 1.0) -> Group:
    """Terms with a coefficient that is no element of an array (1 for a bias)."""
    value = gather(array, index)
    return Group(source, index, value, np.broadcast_to(np.asarray(coefficient, dtype=np.float64), value.shape).copy())


def summed(groups: list[Group], template: str, scale: float | None = None) -> Terms:
    """Terms that add up; the scale is Σ|contribution| unless the rule knows better."""
    if scale is None:
        scale = float(sum(np.abs(group.contribution).sum() for group in groups))
    return Terms(tuple(groups), template, scale)


def check_index(index: Index, shape: tuple[int, ...], name: str) -> Index:
    """`index` as a tuple of ints that names an element of an array of `shape`, else a ValueError that says both."""
    index = tuple(int(i) for i in index)
    inside = len(index) == len(shape) and all(0 <= i < size for i, size in zip(index, shape, strict=True))
    if not inside:
        raise ValueError(
            f"index {list(index)} is out of range for {name} of shape {shape}: 0 ≤ index < shape on each axis"
        )
    return index


def check_shape(array: Array, shape: tuple[int, ...], name: str, formula: str) -> None:
    """Refuse an array of another shape than `formula` asks for, naming both."""
    if array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}, but {formula} asks for {shape}")


def unknown(word: str, known: list[str], what: str) -> ValueError:
    """The error for a name that is none of `known`."""
    return ValueError(f"{what} is {word!r}, which is none of {', '.join(known)}")
