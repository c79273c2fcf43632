"""Options as they are written between parentheses: what each may be, and how a set of them reads and writes itself.

Layers, networks by name and initialisers are frozen dataclasses whose fields are made with `option`. A field called
`output_padding` is written `output-padding=`.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Value = int | float | str | bool


@dataclass(frozen=True, slots=True)
class Values:
    """What an option may be: words, whole numbers within a range, any number within [0, 1), or any number above 0."""

    words: tuple[str, ...] = ()
    whole: tuple[int, int] | None = None
    share: bool = False
    positive: bool = False

    def read(self, text: str) -> Value | None:
        """`text` as a value; None where it is not one."""
        word = text.lower()
        if word in self.words:
            return {"true": True, "false": False}.get(word, word)
        try:
            number = float(text)
        except ValueError:
            return None
        if self.whole is not None and number.is_integer() and self.whole[0] <= number <= self.whole[1]:
            return int(number)
        fits = (self.share and 0 <= number < 1) or (self.positive and 0 < number < math.inf)
        return number if fits else None

    def __str__(self) -> str:
        kinds = [f"a whole number from {self.whole[0]} to {self.whole[1]:,}"] if self.whole else []
        kinds += ["a number from 0 up to, but not including, 1"] if self.share else []
        kinds += ["a number above 0"] if self.positive else []
        return " or ".join([*kinds, *([" | ".join(self.words)] if self.words else [])])


COUNT = Values(whole=(1, 1_000_000))
WINDOW = Values(whole=(1, 10_000))
FLAG = Values(words=("true", "false"))


def option(values: Values, default: Any = dataclasses.MISSING, *, placed: bool = False, many: bool = False) -> Any:
    """A field that is read as one of `values`; `placed` ones need no `name=` in front.

    Of a `many` one, which is a tuple, several values may stand in a row.
    """
    return field(default=default, metadata={"values": values, "placed": placed, "many": many})


def options_of(kind: DataclassInstance | type[DataclassInstance]) -> list[dataclasses.Field[Any]]:
    """The fields that may be written; the others are settled by the word itself."""
    return [item for item in dataclasses.fields(kind) if "values" in item.metadata]


def written(options: DataclassInstance, word: str) -> str:
    """`word` with the options in parentheses, those at their default left out."""
    words = []
    for item in options_of(options):
        value = getattr(options, item.name)
        if value == item.default:
            continue
        shown = ", ".join(_shown(each) for each in value) if item.metadata["many"] else _shown(value)
        words.append(shown if item.metadata["placed"] else f"{option_name(item)}={shown}")
    return f"{word}({', '.join(words)})" if words else word


def option_name(item: dataclasses.Field[Any]) -> str:
    """What a field is called where it is written."""
    return item.name.replace("_", "-")


def _shown(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)
