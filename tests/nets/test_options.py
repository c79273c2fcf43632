"""Options in parentheses: what each may be, several in a row, and reading back what was written."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from pellucid.errors import UsageError
from pellucid.nets.grammar import Reader, complain, place
from pellucid.nets.options import COUNT, FLAG, Values, option, options_of, written


@dataclass(frozen=True, slots=True)
class Example:
    """Two settled by the word, the rest to be written."""

    settled: int
    rate: float = option(Values(positive=True), 0.5, placed=True)
    sizes: tuple[int, ...] = option(COUNT, (1,), placed=True, many=True)
    deep_sea: bool = option(FLAG, False)


def read(text: str) -> Example:
    reader = Reader(text)
    return reader.options(reader.take(), Example, {"settled": 3}, "example")


@pytest.mark.parametrize(
    ("text", "example"),
    [
        ("example", Example(3)),
        ("example(0.25)", Example(3, 0.25)),
        ("example(rate=2.5e-1, sizes=4)", Example(3, 0.25, (4,))),
        ("example(2, 3, 4)", Example(3, 2.0, (3, 4))),
        ("example(2, 3, 4, deep-sea=True)", Example(3, 2.0, (3, 4), deep_sea=True)),
    ],
)
def test_reads_and_reads_back(text: str, example: Example) -> None:
    assert read(text) == example
    again = written(example, "example")
    assert written(read(again), "example") == again


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("example(deep-see=true)", "example has no option 'deep-see': did you mean 'deep-sea'?"),
        ("example(settled=4)", "example has no option 'settled'"),
        ("example(0)", "rate of example is a number above 0, not '0'"),
        ("example(rate=inf)", "rate of example is a number above 0, not 'inf'"),
        ("example(rate=1, rate=2)", "rate of example is given twice; take one out"),
        ("example(rate=1, 2)", "'2' has no name but follows one that has; write it first"),
        ("example(2, 3", "this '(' is never closed"),
        ("example(2 3)", "expected ',' or ')' before '3'"),
    ],
)
def test_refuses(text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(text)
    assert said in str(caught.value)
    assert "of the network: " in str(caught.value)


def test_what_is_settled_cannot_be_written() -> None:
    assert [item.name for item in options_of(Example)] == ["rate", "sizes", "deep_sea"]


def test_places_and_carets() -> None:
    assert place("ab(c", 3) == "column 4 of the network"
    assert place("a\nbc", 3, "the initialiser") == "line 2, column 2 of the initialiser"
    assert complain("he(3)", 3, 4, "no") == "no\n  he(3)\n     ^"
    # A full-width bracket takes two columns of a terminal.
    assert complain("he（3", 3, 4, "no") == "no\n  he（3\n      ^"
