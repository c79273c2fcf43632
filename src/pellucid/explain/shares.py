"""The terms of an explanation: kept as arrays, one object each only when asked for, grouped, or cut to the largest.

A 3×3×512 convolution has 4,608 terms a number. As arrays they cost half a millisecond, as objects ten times that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pellucid.explain.address import spelled
from pellucid.explain.node import Array

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pellucid.textbook import Terms


@dataclass(frozen=True)
class Term:
    """One number's share in another: contribution = coefficient · value.

    `factor` is the address of the number that multiplies it (the weight beside a pixel), where there is one. A term
    that stands for several has their number as its `count`, their sum as its contribution, and no value or
    coefficient of its own.
    """

    address: str
    value: float | None
    coefficient: float | None
    contribution: float
    factor: str | None = None
    count: int = 1

    @property
    def what(self) -> str:
        """Its address, and that of the weight that multiplies it."""
        return self.address if self.factor is None else f"{self.address} × {self.factor}"


@dataclass(frozen=True, eq=False)
class Part:
    """Terms from one array, M of them: the array's address, index (M, rank), value, coefficient, contribution (M,).

    `factor` is the address of the array that multiplies them, "" where there is none, `factor_index` (M, rank).
    """

    array: str
    index: Array
    value: Array
    coefficient: Array
    contribution: Array
    factor: str
    factor_index: Array

    def __len__(self) -> int:
        return len(self.value)

    def term(self, k: int) -> Term:
        """Term number k."""
        factor = spelled(self.factor, self.factor_index[k].tolist()) if self.factor else None
        address = spelled(self.array, self.index[k].tolist())
        return Term(address, float(self.value[k]), float(self.coefficient[k]), float(self.contribution[k]), factor)

    def every(self) -> list[Term]:
        """All of them, as one object each."""
        addresses = [spelled(self.array, at) for at in self.index.tolist()]
        factors: list[str | None] = [None] * len(self)
        if self.factor:
            factors = [spelled(self.factor, at) for at in self.factor_index.tolist()]
        numbers = (self.value.tolist(), self.coefficient.tolist(), self.contribution.tolist())
        return [Term(*row) for row in zip(addresses, *numbers, factors, strict=True)]


def parts_of(made: Terms, names: Mapping[str, str]) -> tuple[Part, ...]:
    """The textbook's groups under the names that their arrays have on the tape.

    `names` maps a source to an array's address. A source without one is an optional argument that was left out, which
    counts as zeros: its terms are zero and are not listed.
    """
    parts = []
    for group in made.groups:
        if group.source in names:
            factor = "" if group.factor is None else names.get(group.factor.source, "")
            at = group.index if group.factor is None else group.factor.index
            with np.errstate(all="ignore"):
                contribution = group.contribution
            parts.append(
                Part(names[group.source], group.index, group.value, group.coefficient, contribution, factor, at)
            )
    return tuple(parts)


def largest(parts: Sequence[Part], count: int) -> tuple[Term, ...]:
    """The `count` terms that contribute most, largest first, and one more that is the sum of the rest.

    Equal ones stay in order. A contribution that is not finite comes first.
    """
    contribution = _contributions(parts)
    size = np.nan_to_num(np.abs(contribution), nan=np.inf, posinf=np.inf)
    order = np.argsort(-size, kind="stable")
    if len(order) <= count:
        return tuple(_pick(parts, order))
    rest = order[count:]
    with np.errstate(all="ignore"):
        left = float(contribution[rest].sum())
    return (*_pick(parts, order[:count]), Term(f"({len(rest):,} more)", None, None, left, None, len(rest)))


def grouped(parts: Sequence[Part], kept: Callable[[str, int], tuple[int, ...]]) -> tuple[Term, ...]:
    """One term for all that agree on the axes that `kept` gives for an array and its rank, in order of their first."""
    terms: list[Term] = []
    for array in dict.fromkeys(part.array for part in parts):
        mine = [part for part in parts if part.array == array]
        index = np.concatenate([part.index for part in mine])
        rank = index.shape[1]
        axes = list(kept(array, rank))
        keys, first, which, counts = np.unique(
            index[:, axes], axis=0, return_index=True, return_inverse=True, return_counts=True
        )
        with np.errstate(all="ignore"):
            sums = np.bincount(which.ravel(), weights=_contributions(mine), minlength=len(keys))
        for k in np.argsort(first, kind="stable").tolist():
            if counts[k] == 1:
                terms += _pick(mine, first[k : k + 1])
                continue
            words = [":"] * rank
            for axis, at in zip(axes, keys[k].tolist(), strict=True):
                words[axis] = str(at)
            name = f"{array}[{','.join(words)}]" if axes else array
            terms.append(Term(name, None, None, float(sums[k]), None, int(counts[k])))
    return tuple(terms)


def not_finite(parts: Sequence[Part]) -> tuple[str, ...]:
    """The addresses of the terms whose value or contribution is NaN or infinite."""
    found: list[str] = []
    for part in parts:
        bad = np.flatnonzero(~(np.isfinite(part.value) & np.isfinite(part.contribution)))
        found += [spelled(part.array, part.index[k].tolist()) for k in bad.tolist()]
    return tuple(found)


def _contributions(parts: Sequence[Part]) -> Array:
    return np.concatenate([part.contribution for part in parts]) if parts else np.zeros(0)


def _pick(parts: Sequence[Part], order: Array) -> list[Term]:
    """The terms of these numbers, counted through all parts."""
    ends = np.cumsum([len(part) for part in parts])
    chosen = []
    for k in order.tolist():
        which = int(np.searchsorted(ends, k, side="right"))
        chosen.append(parts[which].term(k - int(ends[which]) + len(parts[which])))
    return chosen
