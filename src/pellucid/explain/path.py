"""The strongest chains of terms from a number down to the input.

A number is a sum (or a formula) of terms; the share of a term is |contribution| / Σ|contributions|, over all terms that
`why` lists, biases and statistics among them. A chain goes from a number to one of its terms, from that to one of its
own, down to a number of an input. Its strength is the product of its shares: 1 where every number had one term only.
What multiplies a term (a weight) is not followed, and a chain that ends elsewhere than at an input does not count, nor
does one through a term that contributes 0.

The k strongest are found exactly, and without trying all: the best strength from every number down to the input is
computed once, operation by operation (`path_rules`), and then chains are grown from the top, the one that can become
strongest first (best-first search with an exact heuristic; Hart, Nilsson & Raphael 1968).
"""

from __future__ import annotations

import heapq
import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pellucid.errors import UsageError
from pellucid.explain.address import find, spelled
from pellucid.explain.field import back
from pellucid.explain.node import Array, Index, Node, number, operation_of
from pellucid.explain.path_recurrent import recurrent
from pellucid.explain.path_rules import best
from pellucid.explain.path_sums import log, share_of
from pellucid.explain.rules import arrays_of, family, no_rule
from pellucid.explain.walk import Walk, recurrence_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pellucid.explain.tape import Tape
    from pellucid.textbook import Group

#: Chains whose logarithms of strength agree to so many digits count as equally strong, and the longer is grown first:
#: on a plain background thousands are equal but for rounding, and all of them would be grown in step.
_DIGITS = 9


@dataclass(frozen=True)
class Link:
    """One number of a chain: its contribution to the number before it, and its share there (of the first: value, 1)."""

    address: str
    value: float
    contribution: float
    share: float


@dataclass(frozen=True)
class Path:
    """One chain of terms, from the number asked about (first) down to a number of an input (last).

    `log_strength` is the natural logarithm of the strength, which underflows in networks of hundreds of layers.
    """

    links: tuple[Link, ...]
    log_strength: float

    @property
    def strength(self) -> float:
        """The product of the shares."""
        return math.exp(self.log_strength)

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where each number stands, from the top down."""
        return tuple(link.address for link in self.links)

    @property
    def values(self) -> tuple[float, ...]:
        """The numbers, from the top down."""
        return tuple(link.value for link in self.links)

    @property
    def shares(self) -> tuple[float, ...]:
        """The share of each number in the one before, from the second on."""
        return tuple(link.share for link in self.links[1:])

    @property
    def contributions(self) -> tuple[float, ...]:
        """What each number contributes to the one before, from the second on."""
        return tuple(link.contribution for link in self.links[1:])

    def text(self) -> str:
        """The strength, then a line for each number."""
        lines = [f"strength {self.strength:.3g}"]
        for depth, link in enumerate(self.links):
            share = "" if depth == 0 else f"  ({link.share:.1%} of the above: {link.contribution:+.4g})"
            lines.append(f"  {link.address} = {link.value:.6g}{share}")
        return "\n".join(lines)


def path(tape: Tape, address: str, k: int = 5) -> list[Path]:
    """The k strongest chains from the value at an address down to an input, strongest first; fewer if there are fewer.

    Raises UsageError for an address that is none, of a whole array or of anything but a value, for k < 1, and where an
    operation on the way has no rule.
    """
    where = find(tape, address)
    if isinstance(k, bool) or k != int(k) or k < 1:
        raise UsageError(f"k is {k!r}, but the number of chains must be a whole number of 1 or more")
    if where.what:
        raise UsageError(f"{address}: chains of terms start at a value: ask {where.node}, not its {where.what!r}")
    if where.index is None:
        shape = tape.values[where.node].shape
        example = spelled(where.node, (0,) * len(shape))
        raise UsageError(f"{address}: is an array of shape {shape}: ask for one of its numbers, such as {example}")
    walk = Walk(tape)
    mask = np.zeros(tape.values[where.node].shape, dtype=bool)
    mask[where.index] = True
    found = back(walk, where.node, mask, nonzero=True)
    if found.unruled:
        raise no_rule(found.unruled[0], str(where))
    # What is not finite leads nowhere.
    with np.errstate(all="ignore"):
        return _Search(walk, _strengths(walk, found.masks)).strongest(where.node, where.index, int(k))


def _strengths(walk: Walk, masks: Mapping[str, Array]) -> dict[str, Array]:
    """By node: log of the best strength from each of its numbers down to an input; only of nodes in `masks`."""
    tape = walk.tape
    logs: dict[str, Array] = {}
    for node in tape.nodes:
        if node.op == "input" and node.name in masks:
            logs[node.name] = np.zeros(tape.values[node.name].shape)
        known = operation_of(node)
        if known is None or not node.is_primary or node.name not in walk.live:
            continue
        operation, settings = known
        nodes = family(tape, node, operation)
        meant = {output: masks[at] for output, at in nodes.items() if at in masks and masks[at].any()}
        if not meant:
            continue
        given = [None if name is None else logs.get(name) for name in node.inputs]
        if recurrence_of(operation) is not None:
            names = operation.argument_names(len(given))
            inside = recurrent(walk.kept(node, operation), dict(zip(names, given, strict=True)))
            logs |= {at: inside[output] for output, at in nodes.items() if output in inside}
            continue
        arrays = arrays_of(tape, node)
        for output, mask in meant.items():
            logs[nodes[output]] = best(operation, arrays, given, settings, mask, output)
    return logs


class _Kids(NamedTuple):
    """The terms of one number that lead on to an input, strongest way first."""

    groups: list[tuple[str, Group]]
    reach: Array
    log_share: Array
    which: Array
    row: Array

    def term(self, k: int) -> tuple[str, Index, float, float]:
        """Of term k: its node, index, value and contribution."""
        name, group = self.groups[self.which[k]]
        at = self.row[k]
        index = tuple(group.index[at].tolist())
        return name, index, float(group.value[at]), float(group.coefficient[at] * group.value[at])


class _Chain(NamedTuple):
    """A chain that is growing: the links so far are found through `above`."""

    link: Link
    above: _Chain | None
    log_strength: float
    depth: int

    def links(self) -> tuple[Link, ...]:
        """From the top down."""
        found: list[Link] = []
        here: _Chain | None = self
        while here is not None:
            found.append(here.link)
            here = here.above
        return tuple(reversed(found))


class _Search:
    """Best-first: what is grown next is the chain that can become strongest."""

    def __init__(self, walk: Walk, logs: Mapping[str, Array]) -> None:
        self.walk, self.logs = walk, logs
        self.known: dict[tuple[str, Index], _Kids] = {}
        self.heap: list[tuple[float, int, int, _Chain, _Kids, int]] = []
        self.count = itertools.count()

    def strongest(self, name: str, index: Index, k: int) -> list[Path]:
        """The k strongest chains from one number."""
        value = number(self.walk.tape.values[name], index)
        top = _Chain(Link(spelled(name, index), value, value, 1.0), None, 0.0, 0)
        if self.walk.tape.node(name).op == "input":
            return [Path(top.links(), 0.0)]
        self._grow(top, self._kids(name, index), 0)
        done: list[_Chain] = []
        while self.heap and len(done) < k:
            _, _, _, above, kids, at = heapq.heappop(self.heap)
            self._grow(above, kids, at + 1)
            name, index, value, contribution = kids.term(at)
            log_share = float(kids.log_share[at])
            link = Link(spelled(name, index), value, contribution, math.exp(log_share))
            chain = _Chain(link, above, above.log_strength + log_share, above.depth + 1)
            if self.walk.tape.node(name).op == "input":
                done.append(chain)
            else:
                self._grow(chain, self._kids(name, index), 0)
        done.sort(key=lambda chain: -chain.log_strength)
        return [Path(chain.links(), chain.log_strength) for chain in done]

    def _grow(self, chain: _Chain, kids: _Kids, at: int) -> None:
        """Put the chain's term number `at` on the heap, if there is one: the others wait until it was taken."""
        if at < len(kids.reach):
            reach = round(chain.log_strength + float(kids.reach[at]), _DIGITS)
            heapq.heappush(self.heap, (-reach, -chain.depth, -next(self.count), chain, kids, at))

    def _kids(self, name: str, index: Index) -> _Kids:
        if (name, index) not in self.known:
            self.known[name, index] = self._expand(self.walk.tape.node(name), index)
        return self.known[name, index]

    def _expand(self, node: Node, index: Index) -> _Kids:
        known = operation_of(node)
        if known is None:
            return _Kids([], *(np.zeros(0),) * 4)
        sources = self.walk.sources(node, known[0])
        terms = self.walk.terms(node, index)
        total = np.array(sum(float(np.abs(group.contribution).sum()) for group in terms.groups))
        groups: list[tuple[str, Group]] = []
        parts: list[tuple[Any, ...]] = []
        for group in terms.groups:
            name = sources.get(group.source)
            if name is None or name not in self.logs:
                continue
            log_share = share_of(log(np.abs(group.contribution)), total)
            reach = log_share + self.logs[name][tuple(group.index.T)].reshape(len(group))
            on = np.flatnonzero(np.isfinite(reach))
            parts.append((reach[on], log_share[on], np.full(len(on), len(groups)), on))
            groups.append((name, group))
        if not parts:
            return _Kids([], *(np.zeros(0),) * 4)
        reach, log_share, which, rows = (np.concatenate(part) for part in zip(*parts, strict=True))
        order = np.argsort(-reach, kind="stable")
        return _Kids(groups, reach[order], log_share[order], which[order], rows[order])
