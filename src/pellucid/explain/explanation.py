"""Explanations: what one number was made of, recomputed from that alone, and how far this lies from the engine's.

An explanation is made of the textbook's terms, and recomputes the number from them as it is made. There is none
without a residual, and none whose residual is beyond the bound: that raises VerificationError.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from pellucid.errors import UsageError, VerificationError, did_you_mean
from pellucid.explain import shares
from pellucid.explain.node import BOUNDS
from pellucid.explain.shares import Part, Term

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pellucid.textbook import Terms

#: Smaller numbers may be flushed to zero by the engine, or have lost digits, whatever the scale. One a term.
_SMALLEST: Mapping[str, float] = {
    "float32": float(np.finfo(np.float32).tiny),
    "float64": float(np.finfo(np.float64).tiny),
    "bfloat16": float(np.finfo(np.float32).tiny),
    "float16": float(np.finfo(np.float16).smallest_subnormal),
}

#: What terms can be grouped by -> rank of their array -> the axes that tell the groups apart.
_KEPT: Mapping[str, Mapping[int, tuple[int, ...]] | None] = {
    "source": None,
    "image": {2: (0,), 3: (0,), 4: (0,), 5: (0,)},
    "channel": {2: (0, 1), 3: (0, 1), 4: (0, 1), 5: (0, 1)},
    "position": {2: (0,), 3: (0, 2), 4: (0, 2, 3), 5: (0, 2, 3, 4)},
}
#: A sequence (N, T, D) has its channels last.
_KEPT_IN_TIME: Mapping[str, tuple[int, ...]] = {"channel": (0, 2), "position": (0, 1)}


@dataclass(frozen=True, eq=False)
class Explanation:
    """What one number was made of.

    `op` names the rule: the operation that made a value, those that a gradient came back from, the optimiser's; of what
    is given, what it is. `made` are the textbook's terms, None where a number was made of nothing (a weight, an input),
    and `given` then stands for a formula. `names` has the address of the array behind each source of the terms,
    `sequences` those arrays that are (N, T, D). `precision` is the engine's. `details` are sentences beside the
    formula: how a moment was made, by what a gradient was clipped.

    `value` is recomputed from the terms alone, in float64, and `residual` = value − engine_value. VerificationError is
    raised where |residual| exceeds `bound` · `scale`, the scale being the rule's own (mostly Σ|terms|). A number that
    is NaN or infinite in the engine has no such measure: it is not refused, and `nonfinite` names the terms that made
    it so; where there are none, it became so here, by a division by zero or by growing beyond the engine's largest
    number.
    """

    address: str
    op: str
    made: Terms | None
    names: Mapping[str, str]
    engine_value: float
    precision: str = "float32"
    given: str = ""
    details: tuple[str, ...] = ()
    sequences: frozenset[str] = frozenset()
    value: float = field(init=False)
    residual: float = field(init=False)
    formula: str = field(init=False)
    numbers: str = field(init=False)

    def __post_init__(self) -> None:
        made = self.made
        if made is None:
            texts = self.given, f"{self.engine_value:.6g}"
            value = self.engine_value
        else:
            with np.errstate(all="ignore"):
                value = made.recompute()
                texts = made.formula, made.numbers()
        same = value == self.engine_value or (math.isnan(value) and math.isnan(self.engine_value))
        residual = 0.0 if same else value - self.engine_value
        named = zip(("value", "residual", "formula", "numbers"), (value, residual, *texts), strict=True)
        for name, entry in named:
            object.__setattr__(self, name, entry)
        if math.isfinite(self.engine_value) and not abs(residual) <= self.allowed:
            raise VerificationError(
                f"{self.address}: recomputed from its terms it is {value:.9g}, but the engine has "
                f"{self.engine_value:.9g}; the residual {residual:.3g} is beyond {self.bound:g} of the scale "
                f"{self.scale:.3g}: the recorded numbers, or the rule of {self.op}, are wrong"
            )

    @property
    def combine(self) -> str:
        """How the terms make the number: "sum", "max", "formula", or "given" where there are none."""
        return "given" if self.made is None else self.made.combine

    @property
    def scale(self) -> float:
        """What a rounding error in this number is proportional to; of its finite terms, if some are not finite."""
        if self.made is None:
            return abs(self.engine_value)
        if math.isfinite(self.made.scale):
            return self.made.scale
        finite = [part.contribution[np.isfinite(part.contribution)] for part in self.parts]
        return max(abs(self.engine_value), float(sum(np.abs(one).sum() for one in finite)))

    @property
    def bound(self) -> float:
        """The largest |residual| / scale that rounding in the engine's precision explains."""
        return BOUNDS[self.precision]

    @property
    def allowed(self) -> float:
        """The largest |residual|: bound · scale, and the smallest normal number for each term."""
        terms = 0 if self.made is None else len(self.made)
        return self.bound * self.scale + _SMALLEST[self.precision] * (1 + terms)

    @property
    def relative(self) -> float:
        """|residual| as a share of the scale; where that is as small as numbers get, of what they can be rounded by."""
        return abs(self.residual) * self.bound / self.allowed

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """The terms as arrays, one entry for each array they come from."""
        return () if self.made is None else shares.parts_of(self.made, self.names)

    @cached_property
    def terms(self) -> tuple[Term, ...]:
        """Every term, as one object each."""
        return tuple(term for part in self.parts for term in part.every())

    @cached_property
    def nonfinite(self) -> tuple[str, ...]:
        """The addresses of the terms that are NaN or infinite."""
        return shares.not_finite(self.parts)

    def largest(self, count: int = 8) -> tuple[Term, ...]:
        """The terms that contribute most, largest first, and the rest as one term "(N more)". Raises UsageError."""
        if count < 0:
            raise UsageError(f"the largest {count} terms were asked for: ask for 0 or more")
        return shares.largest(self.parts, count)

    def grouped(self, by: str = "channel") -> tuple[Term, ...]:
        """Terms summed by "channel", "position", "image" (of what they come from), or "source" (one for each array).

        Raises UsageError for another word.
        """
        if by not in _KEPT:
            raise UsageError(f"terms are not grouped by {by!r}: {did_you_mean(by, _KEPT)}")

        def kept(array: str, rank: int) -> tuple[int, ...]:
            if array in self.sequences and by in _KEPT_IN_TIME:
                return _KEPT_IN_TIME[by]
            axes = _KEPT[by]
            return () if axes is None else axes.get(rank, tuple(range(rank)))

        return shares.grouped(self.parts, kept)

    def to_json(self, most: int | None = None) -> dict[str, Any]:
        """The explanation as plain values that JSON has; of the terms all, or the `most` largest.

        NaN and infinity become the words "nan", "inf" and "-inf".
        """
        terms = self.terms if most is None else self.largest(most)
        words = ("address", "op", "formula", "numbers", "combine", "value", "engine_value", "residual", "scale")
        made: dict[str, Any] = {word: _plain(getattr(self, word)) for word in (*words, "bound", "relative")}
        made["details"] = list(self.details)
        made["nonfinite"] = list(self.nonfinite)
        made["terms"] = [{word: _plain(entry) for word, entry in asdict(term).items()} for term in terms]
        return made

    def text(self, most: int = 8) -> str:
        """The explanation as lines of text, with the `most` largest terms."""
        lines = [f"{self.address} = {self.value:.9g}", f"  {self.op}: {self.formula}", f"  {self.numbers}"]
        lines += [f"  {line}" for line in self.details]
        terms = self.largest(most)
        if self.combine == "formula":
            lines.append("  number × slope, for each (the formula makes the value of them, not their sum):")
        wide = max([len(term.what) for term in terms], default=0)
        for term in terms:
            if term.value is None or term.coefficient is None:
                lines.append(f"    {term.what:{wide}}  {'':25} {term.contribution:+.6g}")
            else:
                product = f"{term.value:.6g} × {term.coefficient:.6g}"
                lines.append(f"    {term.what:{wide}}  {product:>23} = {term.contribution + 0.0:+.6g}")
        if self.nonfinite:
            more = f" and {len(self.nonfinite) - most} more" if len(self.nonfinite) > most else ""
            lines.append(f"  not finite: {', '.join(self.nonfinite[:most])}{more}")
        if self.made is not None:
            lines.append(
                f"  the engine has {self.engine_value:.9g}; residual {self.residual:.2g}, {self.relative:.1g} of the "
                f"scale {self.scale:.4g} (at most {self.bound:g})"
            )
        return "\n".join(lines)


def _plain(entry: Any) -> Any:
    return str(entry) if isinstance(entry, float) and not math.isfinite(entry) else entry
