"""The notation `INPUT -> [[CONV(32)]*2 -> POOL?]*2 -> [FC(512)]*1 -> FC(10)`, read into a tree of layers.

    network := INPUT -> item -> item ...
    item    := LAYER(arguments) or [item -> item ...], then *N (repeat) and ? (optional), each at most once

Nothing is evaluated: the text is cut into words, and each word must be one the notation knows. Every error shows the
place with a caret. What the tree becomes for an image of a given size is decided in `pellucid.nets.plan`.
"""

from __future__ import annotations

import dataclasses
import re
import unicodedata
from dataclasses import dataclass
from typing import NamedTuple, NoReturn

from pellucid.errors import UsageError, did_you_mean
from pellucid.nets.sizes import Shape
from pellucid.nets.specs import ELSEWHERE, LAYERS, Layer, Value, Values

MOST_LAYERS = 1000
MOST_DEPTH = 16
#: Characters of the line that an error shows.
SHOWN = 100

_TOKEN = re.compile(
    r"(?P<space>\s+)|(?P<arrow>->|→)|(?P<word>[A-Za-z_]\w*(?:-\w+)*)"
    r"|(?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)|(?P<mark>[\[\](),=*?×])",
    re.ASCII,
)
_FULL_WIDTH = str.maketrans("（），［］【】＝＊？", "(),[][]=*?")


@dataclass(frozen=True, slots=True)
class Item:
    """One layer, and where in the text it stands."""

    layer: Layer
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Group:
    """Items in a row, all of them `times` times over; an optional group is left out where it does not fit."""

    nodes: tuple[Node, ...]
    times: int = 1
    optional: bool = False


Node = Item | Group


@dataclass(frozen=True, slots=True)
class Net:
    """A network as written: the image its INPUT names, if any, and its layers as a tree."""

    text: str
    image: Shape | None
    layers: Group
    input_span: tuple[int, int]


class _Token(NamedTuple):
    kind: str
    text: str
    start: int
    end: int


def place(text: str, at: int) -> str:
    """Where character `at` of the network stands, in words; the line is named where there are several."""
    line, column = text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at)
    return f"line {line}, column {column} of the network" if "\n" in text.strip() else f"column {column} of the network"


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


def read(text: str) -> Net:
    """The tree of layers that `text` writes. Raises UsageError, with a caret, for what is not the notation."""
    return _Reader(text).network()


class _Reader:
    """Reads the tokens from left to right; `at` is the one to be read next."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.depth = 0
        self.tokens = self._cut()

    def _cut(self) -> list[_Token]:
        tokens, at = [], 0
        while at < len(self.text):
            match = _TOKEN.match(self.text, at)
            if match is None:
                self._strange(at)
            if match.lastgroup != "space":
                tokens.append(_Token(str(match.lastgroup), match.group(), at, match.end()))
            at = match.end()
        return [*tokens, _Token("end", "", len(self.text), len(self.text))]

    def _strange(self, at: int) -> NoReturn:
        char = self.text[at]
        plain = char.translate(_FULL_WIDTH)
        remedy = f"write the plain {plain!r}" if plain != char else "take it out"
        if char in ">-=–—⇒⟶":
            remedy = "layers are joined by '->'"
        elif char in "{}<>|;":
            remedy = "groups are written [ ], options ( ), and layers are joined by '->'"
        self._fail(at, at + 1, f"{char!r} means nothing here: {remedy}")

    def _fail(self, start: int, end: int, sentence: str) -> NoReturn:
        raise UsageError(complain(self.text, start, end, f"{place(self.text, start)}: {sentence}"))

    def _fail_at(self, token: _Token, sentence: str) -> NoReturn:
        self._fail(token.start, token.end, sentence)

    @property
    def next(self) -> _Token:
        return self.tokens[self.at]

    def _take(self) -> _Token:
        self.at += 1
        return self.tokens[self.at - 1]

    def _expect(self, mark: str, sentence: str) -> _Token:
        if self.next.text != mark:
            self._fail_at(self.next, sentence)
        return self._take()

    def network(self) -> Net:
        first = self.next
        if first.kind == "end":
            self._fail_at(first, "there are no layers; write, say, INPUT -> CONV(32) -> POOL -> FC(10)")
        if first.text.lower() != "input":
            self._fail_at(first, f"a network begins with INPUT, not {first.text!r}; write INPUT -> in front of it")
        self._take()
        image = self._image()
        span = first.start, self.tokens[self.at - 1].end
        if self.next.kind == "end":
            self._fail_at(self.next, "no layer follows INPUT; write, say, INPUT -> CONV(32) -> POOL -> FC(10)")
        if self.next.text in {"*", "×", "?"}:
            self._fail_at(self.next, f"INPUT is neither repeated nor optional; take the {self.next.text!r} out")
        self._arrow()
        layers = Group(tuple(self._chain()))
        if self.next.kind != "end":
            self._fail_at(self.next, f"{self.next.text!r} closes nothing; take it out")
        if count(layers) > MOST_LAYERS:
            self._fail_at(first, f"that makes {count(layers):,} layers, and {MOST_LAYERS:,} is the most; write fewer")
        return Net(self.text, image, layers, span)

    def _image(self) -> Shape | None:
        if self.next.text != "(":
            return None
        opening = self._take()
        sizes = []
        for token, key, value in self._arguments(opening):
            number = Values(whole=(1, 100_000)).read(value.text)
            if key or not isinstance(number, int):
                self._fail_at(token, f"INPUT takes channels, height and width, say INPUT(3,32,32), not {token.text!r}")
            sizes.append(number)
        if len(sizes) != 3:
            last = self.tokens[self.at - 1]
            found = f"{len(sizes)} number{'' if len(sizes) == 1 else 's'}"
            sentence = f"INPUT takes channels, height and width, say INPUT(3,32,32), but {found} stand here"
            self._fail(opening.start, last.end, sentence)
        return tuple(sizes)

    def _arrow(self) -> None:
        token = self.next
        if token.kind != "arrow":
            self._fail_at(token, f"expected '->' before {token.text!r}")
        self._take()
        if self.next.kind == "end":
            self._fail_at(token, "nothing follows the last '->'; write a layer after it or take it out")

    def _chain(self) -> list[Node]:
        nodes = [self._suffixes(self._item())]
        while self.next.kind != "end" and self.next.text != "]":
            self._arrow()
            nodes.append(self._suffixes(self._item()))
        return nodes

    def _item(self) -> Node:
        token = self._take()
        if token.text == "[":
            return self._bracket(token)
        if token.kind == "arrow":
            self._fail_at(token, f"a layer is missing before this {token.text!r}")
        if token.kind != "word":
            self._fail_at(token, f"expected a layer, found {token.text or 'the end'!r}; write, say, CONV(32) or [")
        word = token.text.lower()
        if word == "input":
            self._fail_at(token, "INPUT stands once, at the beginning; take this one out")
        if word not in LAYERS:
            remedy = ELSEWHERE.get(word) or did_you_mean(word, LAYERS)
            self._fail_at(token, f"{token.text!r} is no layer: {remedy}")
        return self._layer(token)

    def _bracket(self, opening: _Token) -> Group:
        self.depth += 1
        if self.depth > MOST_DEPTH:
            self._fail_at(opening, f"brackets nest deeper than {MOST_DEPTH}; write the layers out")
        if self.next.text == "]":
            self._fail(opening.start, self.next.end, "these brackets are empty; write layers between them")
        nodes = self._chain()
        if self.next.text != "]":
            self._fail_at(opening, "this '[' is never closed; write the ']' that belongs to it")
        self._take()
        self.depth -= 1
        return Group(tuple(nodes))

    def _suffixes(self, node: Node) -> Node:
        seen: set[str] = set()
        while self.next.text in {"*", "×", "?"}:
            token = self._take()
            kind = "?" if token.text == "?" else "*"
            if kind in seen:
                self._fail_at(token, f"a second {token.text!r} on one item; take it out")
            seen.add(kind)
            node = self._optional(node, token) if kind == "?" else self._repeated(node)
        return node

    def _optional(self, node: Node, token: _Token) -> Group:
        if not _windowed(node):
            self._fail_at(token, "only what has a window (CONV, POOL) can be too large for a map; take the '?' out")
        return Group((node,), optional=True)

    def _repeated(self, node: Node) -> Group:
        token = self._take()
        times = Values(whole=(1, MOST_LAYERS)).read(token.text) if token.kind == "number" else None
        if not isinstance(times, int):
            found = token.text or "the end"
            sentence = f"after '*' stands how often, a whole number from 1 to {MOST_LAYERS:,}, not {found!r}"
            self._fail_at(token, f"{sentence}; write, say, *2")
        group = Group((node,), times=times)
        if count(group) > MOST_LAYERS:
            self._fail_at(
                token, f"that makes {count(group):,} layers, and {MOST_LAYERS:,} is the most; repeat less often"
            )
        return group

    def _layer(self, token: _Token) -> Item:
        kind, settled = LAYERS[token.text.lower()]
        options: dict[str, Value] = dict(settled)
        fields = {item.name: item for item in dataclasses.fields(kind)}
        if self.next.text == "(":
            for first, key, value in self._arguments(self._take()):
                name = key.lower() if key else self._placed(kind, options, value)
                if name not in fields:
                    remedy = did_you_mean(name, fields) if fields else "it has none"
                    self._fail_at(first, f"{kind.WORD} has no option {name!r}: {remedy}")
                if name in options:
                    self._fail_at(first, f"{name} of {kind.WORD} is given twice; take one out")
                values: Values = fields[name].metadata["values"]
                read_value = values.read(value.text)
                if read_value is None:
                    self._fail_at(value, _refused(kind, name, value.text, values))
                options[name] = read_value
        end = self.tokens[self.at - 1].end
        for name, item in fields.items():
            if item.default is dataclasses.MISSING and name not in options:
                example = f"{kind.WORD}(32)"
                self._fail(token.start, end, f"{kind.WORD} does not say its {name}; write, say, {example}")
        layer = kind(**options)
        if problem := layer.problem():
            self._fail(token.start, end, f"{layer.text}: {problem}")
        return Item(layer, token.start, end)

    def _placed(self, kind: type[Layer], options: dict[str, Value], value: _Token) -> str:
        """The option that a value without a name gives: the first one not given yet that could be it."""
        placed = {item.name: item for item in dataclasses.fields(kind) if item.metadata["placed"]}
        open_ = [name for name in placed if name not in options]
        for name in open_:
            if placed[name].metadata["values"].read(value.text) is not None:
                return name
        if open_:
            return open_[0]
        named = [item.name for item in dataclasses.fields(kind) if item.name not in options]
        remedy = f"write which option it is, say {named[0]}={value.text}" if named else "take it out"
        return self._fail_at(value, f"{kind.WORD} has no place for {value.text!r}: {remedy}")

    def _arguments(self, opening: _Token) -> list[tuple[_Token, str, _Token]]:
        """What stands between parentheses: for each argument its first token, its name or "", and its value."""
        arguments: list[tuple[_Token, str, _Token]] = []
        while self.next.text != ")":
            if arguments:
                self._separator(opening)
            first = self._value(opening)
            if self.next.text == "=":
                self._take()
                arguments.append((first, first.text, self._value(opening)))
            elif any(name for _, name, _ in arguments):
                self._fail_at(first, f"{first.text!r} has no name but follows one that has; write it first")
            else:
                arguments.append((first, "", first))
        self._take()
        return arguments

    def _separator(self, opening: _Token) -> None:
        if self.next.kind in {"end", "arrow"}:
            self._unclosed(opening)
        self._expect(",", f"expected ',' or ')' before {self.next.text!r}; each option has one value, say kernel=3")

    def _value(self, opening: _Token) -> _Token:
        if self.next.kind in {"end", "arrow"}:
            self._unclosed(opening)
        if self.next.kind not in {"word", "number"}:
            self._fail_at(self.next, f"expected a number or a word, found {self.next.text!r}; write, say, kernel=3")
        return self._take()

    def _unclosed(self, opening: _Token) -> NoReturn:
        self._fail_at(opening, "this '(' is never closed; write the ')' that belongs to it")


def _refused(kind: type[Layer], name: str, found: str, values: Values) -> str:
    if name == "activation" and found.lower() == "softmax":
        return f"activation=softmax: {ELSEWHERE['softmax']}"
    near = f"; {did_you_mean(found, values.words)}" if values.words and found[0].isalpha() else ""
    near = near if "did you mean" in near else ""
    return f"{name} of {kind.WORD} is {values}, not {found!r}{near}"


def _windowed(node: Node) -> bool:
    if isinstance(node, Item):
        return node.layer.WINDOWED and getattr(node.layer, "size", None) != "global"
    return any(_windowed(inner) for inner in node.nodes)


def count(node: Node) -> int:
    """How many layers a node has at most, repeats written out."""
    return 1 if isinstance(node, Item) else node.times * sum(count(inner) for inner in node.nodes)
