"""The notation `INPUT -> [[CONV(32)]*2 -> POOL?]*2 -> [FC(512)]*1 -> FC(10)`, read into a tree of layers.

    network := INPUT -> item -> item ...
    item    := LAYER(arguments) or [item -> item ...], then *N (repeat) and ? (optional), each at most once

Nothing is evaluated: the text is cut into words, and each word must be one the notation knows. Every error shows the
place with a caret. What the tree becomes for an image of a given size is decided in `pellucid.nets.plan`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pellucid.errors import did_you_mean
from pellucid.nets.grammar import Reader, Token
from pellucid.nets.options import Values
from pellucid.nets.sizes import Shape
from pellucid.nets.specs import ELSEWHERE, LAYERS

if TYPE_CHECKING:
    from pellucid.nets.layer import Layer

MOST_LAYERS = 1000
MOST_DEPTH = 16


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


def read(text: str) -> Net:
    """The tree of layers that `text` writes. Raises UsageError, with a caret, for what is not the notation."""
    return _Reader(text).network()


class _Reader(Reader):
    depth = 0

    def network(self) -> Net:
        first = self.next
        if first.kind == "end":
            self.fail_at(first, "there are no layers; write, say, INPUT -> CONV(32) -> POOL -> FC(10)")
        if first.text.lower() != "input":
            self.fail_at(first, f"a network begins with INPUT, not {first.text!r}; write INPUT -> in front of it")
        self.take()
        image = self._image()
        span = first.start, self.tokens[self.at - 1].end
        if self.next.kind == "end":
            self.fail_at(self.next, "no layer follows INPUT; write, say, INPUT -> CONV(32) -> POOL -> FC(10)")
        if self.next.text in {"*", "×", "?"}:
            self.fail_at(self.next, f"INPUT is neither repeated nor optional; take the {self.next.text!r} out")
        self._arrow()
        layers = Group(tuple(self._chain()))
        if self.next.kind != "end":
            self.fail_at(self.next, f"{self.next.text!r} closes nothing; take it out")
        if count(layers) > MOST_LAYERS:
            self.fail_at(first, f"that makes {count(layers):,} layers, and {MOST_LAYERS:,} is the most; write fewer")
        return Net(self.text, image, layers, span)

    def _image(self) -> Shape | None:
        if self.next.text != "(":
            return None
        opening = self.take()
        sizes = []
        for token, key, value in self.arguments(opening):
            number = Values(whole=(1, 100_000)).read(value.text)
            if key or not isinstance(number, int):
                self.fail_at(token, f"INPUT takes channels, height and width, say INPUT(3,32,32), not {token.text!r}")
            sizes.append(number)
        if len(sizes) != 3:
            last = self.tokens[self.at - 1]
            found = f"{len(sizes)} number{'' if len(sizes) == 1 else 's'}"
            sentence = f"INPUT takes channels, height and width, say INPUT(3,32,32), but {found} stand here"
            self.fail(opening.start, last.end, sentence)
        return tuple(sizes)

    def _arrow(self) -> None:
        token = self.next
        if token.kind != "arrow":
            self.fail_at(token, f"expected '->' before {token.text!r}")
        self.take()
        if self.next.kind == "end":
            self.fail_at(token, "nothing follows the last '->'; write a layer after it or take it out")

    def _chain(self) -> list[Node]:
        nodes = [self._suffixes(self._item())]
        while self.next.kind != "end" and self.next.text != "]":
            self._arrow()
            nodes.append(self._suffixes(self._item()))
        return nodes

    def _item(self) -> Node:
        token = self.take()
        if token.text == "[":
            return self._bracket(token)
        if token.kind == "arrow":
            self.fail_at(token, f"a layer is missing before this {token.text!r}")
        if token.kind != "word":
            self.fail_at(token, f"expected a layer, found {token.text or 'the end'!r}; write, say, CONV(32) or [")
        word = token.text.lower()
        if word == "input":
            self.fail_at(token, "INPUT stands once, at the beginning; take this one out")
        if word not in LAYERS:
            remedy = ELSEWHERE.get(word) or did_you_mean(word, LAYERS)
            self.fail_at(token, f"{token.text!r} is no layer: {remedy}")
        return self._layer(token)

    def _bracket(self, opening: Token) -> Group:
        self.depth += 1
        if self.depth > MOST_DEPTH:
            self.fail_at(opening, f"brackets nest deeper than {MOST_DEPTH}; write the layers out")
        if self.next.text == "]":
            self.fail(opening.start, self.next.end, "these brackets are empty; write layers between them")
        nodes = self._chain()
        if self.next.text != "]":
            self.fail_at(opening, "this '[' is never closed; write the ']' that belongs to it")
        self.take()
        self.depth -= 1
        return Group(tuple(nodes))

    def _suffixes(self, node: Node) -> Node:
        seen: set[str] = set()
        while self.next.text in {"*", "×", "?"}:
            token = self.take()
            kind = "?" if token.text == "?" else "*"
            if kind in seen:
                self.fail_at(token, f"a second {token.text!r} on one item; take it out")
            seen.add(kind)
            node = self._optional(node, token) if kind == "?" else self._repeated(node)
        return node

    def _optional(self, node: Node, token: Token) -> Group:
        if not _windowed(node):
            self.fail_at(token, "only what has a window (CONV, POOL) can be too large for a map; take the '?' out")
        return Group((node,), optional=True)

    def _repeated(self, node: Node) -> Group:
        token = self.take()
        times = Values(whole=(1, MOST_LAYERS)).read(token.text) if token.kind == "number" else None
        if not isinstance(times, int):
            found = token.text or "the end"
            sentence = f"after '*' stands how often, a whole number from 1 to {MOST_LAYERS:,}, not {found!r}"
            self.fail_at(token, f"{sentence}; write, say, *2")
        group = Group((node,), times=times)
        if count(group) > MOST_LAYERS:
            self.fail_at(
                token, f"that makes {count(group):,} layers, and {MOST_LAYERS:,} is the most; repeat less often"
            )
        return group

    def _layer(self, token: Token) -> Item:
        kind, settled = LAYERS[token.text.lower()]
        layer = self.options(token, kind, settled, kind.WORD, f"{kind.WORD}(32)")
        end = self.tokens[self.at - 1].end
        if problem := layer.problem():
            self.fail(token.start, end, f"{layer.text}: {problem}")
        return Item(layer, token.start, end)


def _windowed(node: Node) -> bool:
    if isinstance(node, Item):
        return node.layer.WINDOWED and getattr(node.layer, "size", None) != "global"
    return any(_windowed(inner) for inner in node.nodes)


def count(node: Node) -> int:
    """How many layers a node has at most, repeats written out."""
    return 1 if isinstance(node, Item) else node.times * sum(count(inner) for inner in node.nodes)
