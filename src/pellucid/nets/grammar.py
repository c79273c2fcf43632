"""Words, numbers and options: what the notation, networks by name and initialisers have in common as text.

Nothing is evaluated: the text is cut into words, and each word must be one that is known. Every error shows the place
with a caret.
"""

from __future__ import annotations

import dataclasses
import re
import unicodedata
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, TypeVar

from pellucid.errors import UsageError, did_you_mean
from pellucid.nets.options import Value, Values, option_name, options_of

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Kind = TypeVar("Kind", bound="DataclassInstance")

NO_SOFTMAX = "the network ends in logits and the loss takes their softmax; leave it away"

#: Characters of the line that an error shows.
SHOWN = 100

_TOKEN = re.compile(
    r"(?P<space>\s+)|(?P<arrow>->|→)|(?P<word>[A-Za-z_]\w*(?:-\w+)*)"
    r"|(?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)|(?P<mark>[\[\](),=*?×])",
    re.ASCII,
)
_FULL_WIDTH = str.maketrans("（），［］【】＝＊？", "(),[][]=*?")


class Token(NamedTuple):
    """A word, a number or a mark, and where in the text it stands."""

    kind: str
    text: str
    start: int
    end: int


def place(text: str, at: int, subject: str = "the network") -> str:
    """Where character `at` of the subject stands, in words; the line is named where there are several."""
    line, column = text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at)
    return f"line {line}, column {column} of {subject}" if "\n" in text.strip() else f"column {column} of {subject}"


def complain(text: str, start: int, end: int, sentence: str) -> str:
    """`sentence`, and below it the line of `text` with carets under the characters from `start` to `end`."""
    head = text.rfind("\n", 0, start) + 1
    tail = text.find("\n", start)
    line, at = text[head : None if tail < 0 else tail], start - head
    if len(line) > SHOWN:
        cut = max(0, min(at - SHOWN // 2, len(line) - SHOWN))
        piece = line[cut : cut + SHOWN]
        line = ("…" if cut else "") + piece + ("…" if cut + SHOWN < len(line) else "")
        at += bool(cut) - cut
    marked = line[at : at + max(1, end - start)] or " "
    return f"{sentence}\n  {line}\n  {' ' * _columns(line[:at])}{'^' * _columns(marked)}"


def _columns(text: str) -> int:
    # Full-width characters take two columns of a terminal, and the carets must stand under them.
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


class Reader:
    """Reads the tokens from left to right; `at` is the one to be read next."""

    #: What an error calls the text.
    subject = "the network"

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.tokens = self._cut()

    def _cut(self) -> list[Token]:
        tokens, at = [], 0
        while at < len(self.text):
            match = _TOKEN.match(self.text, at)
            if match is None:
                self._strange(at)
            if match.lastgroup != "space":
                tokens.append(Token(str(match.lastgroup), match.group(), at, match.end()))
            at = match.end()
        return [*tokens, Token("end", "", len(self.text), len(self.text))]

    def _strange(self, at: int) -> NoReturn:
        char = self.text[at]
        plain = char.translate(_FULL_WIDTH)
        remedy = f"write the plain {plain!r}" if plain != char else "take it out"
        if char in ">-=–—⇒⟶":
            remedy = "layers are joined by '->'"
        elif char in "{}<>|;":
            remedy = "groups are written [ ], options ( ), and layers are joined by '->'"
        self.fail(at, at + 1, f"{char!r} means nothing here: {remedy}")

    def fail(self, start: int, end: int, sentence: str) -> NoReturn:
        """Raise UsageError: the place, the sentence, and carets under the characters from `start` to `end`."""
        raise UsageError(complain(self.text, start, end, f"{place(self.text, start, self.subject)}: {sentence}"))

    def fail_at(self, token: Token, sentence: str) -> NoReturn:
        """Raise UsageError about one token."""
        self.fail(token.start, token.end, sentence)

    @property
    def next(self) -> Token:
        """The token to be read next; one of kind `end` behind the last."""
        return self.tokens[self.at]

    def take(self) -> Token:
        """The next token, which is then read."""
        self.at += 1
        return self.tokens[self.at - 1]

    def expect(self, mark: str, sentence: str) -> Token:
        """The next token, which must be `mark`."""
        if self.next.text != mark:
            self.fail_at(self.next, sentence)
        return self.take()

    def options(self, token: Token, kind: type[Kind], settled: dict[str, Value], word: str, example: str = "") -> Kind:
        """The options of `kind` behind `token`, in parentheses if there are any; `word` is what errors call it.

        `settled` are those that the word itself decides.
        """
        given: dict[str, Any] = dict(settled)
        fields = {option_name(item): item for item in options_of(kind)}
        if self.next.text == "(":
            for first, key, value in self.arguments(self.take()):
                name = key.lower() if key else self._placed(kind, word, given, value)
                if name not in fields:
                    remedy = did_you_mean(name, fields) if fields else "it has none"
                    self.fail_at(first, f"{word} has no option {name!r}: {remedy}")
                item = fields[name]
                if item.name in given and (key or not item.metadata["many"]):
                    self.fail_at(first, f"{name} of {word} is given twice; take one out")
                values: Values = item.metadata["values"]
                read_value = values.read(value.text)
                if read_value is None:
                    self.fail_at(value, _refused(word, name, value.text, values))
                given[item.name] = (*given.get(item.name, ()), read_value) if item.metadata["many"] else read_value
        end = self.tokens[self.at - 1].end
        for name, item in fields.items():
            if item.default is dataclasses.MISSING and item.name not in given:
                self.fail(token.start, end, f"{word} does not say its {name}; write, say, {example}")
        return kind(**given)

    def _placed(self, kind: type[DataclassInstance], word: str, given: dict[str, Any], value: Token) -> str:
        """The option that a value without a name gives: the first one not given yet that could be it."""
        items = options_of(kind)
        placed = [item for item in items if item.metadata["placed"]]
        open_ = [item for item in placed if item.name not in given or item.metadata["many"]]
        for item in open_:
            if item.metadata["values"].read(value.text) is not None:
                return option_name(item)
        if open_:
            return option_name(open_[0])
        named = [option_name(item) for item in items if item.name not in given]
        remedy = f"write which option it is, say {named[0]}={value.text}" if named else "take it out"
        return self.fail_at(value, f"{word} has no place for {value.text!r}: {remedy}")

    def arguments(self, opening: Token) -> list[tuple[Token, str, Token]]:
        """What stands between parentheses: for each argument its first token, its name or "", and its value."""
        arguments: list[tuple[Token, str, Token]] = []
        while self.next.text != ")":
            if arguments:
                self._separator(opening)
            first = self._value(opening)
            if self.next.text == "=":
                self.take()
                arguments.append((first, first.text, self._value(opening)))
            elif any(name for _, name, _ in arguments):
                self.fail_at(first, f"{first.text!r} has no name but follows one that has; write it first")
            else:
                arguments.append((first, "", first))
        self.take()
        return arguments

    def _separator(self, opening: Token) -> None:
        if self.next.kind in {"end", "arrow"}:
            self._unclosed(opening)
        self.expect(",", f"expected ',' or ')' before {self.next.text!r}; each option has one value, say kernel=3")

    def _value(self, opening: Token) -> Token:
        if self.next.kind in {"end", "arrow"}:
            self._unclosed(opening)
        if self.next.kind not in {"word", "number"}:
            self.fail_at(self.next, f"expected a number or a word, found {self.next.text!r}; write, say, kernel=3")
        return self.take()

    def _unclosed(self, opening: Token) -> NoReturn:
        self.fail_at(opening, "this '(' is never closed; write the ')' that belongs to it")


def _refused(word: str, name: str, found: str, values: Values) -> str:
    if name == "activation" and found.lower() == "softmax":
        return f"activation=softmax: {NO_SOFTMAX}"
    near = f"; {did_you_mean(found, values.words)}" if values.words and found[0].isalpha() else ""
    near = near if "did you mean" in near else ""
    return f"{name} of {word} is {values}, not {found!r}{near}"
