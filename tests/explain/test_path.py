"""The strongest chains against brute force: every chain there is, from what `why` says of each number."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from tests.explain.building import Builder
from tests.explain.test_field import excited, inception, residual

from pellucid.errors import UsageError
from pellucid.explain.address import find
from pellucid.explain.node import Node
from pellucid.explain.path import Path, path
from pellucid.explain.tape import Tape
from pellucid.explain.walk import Walk
from pellucid.textbook import Terms

ENDS = {"parameter", "buffer", "constant"}


def every_chain(tape: Tape, address: str) -> list[tuple[float, tuple[str, ...]]]:
    """Strength and addresses of every chain of strength > 0 from a number down to an input."""
    steps: dict[str, list[tuple[str, float]]] = {}

    def onward(at: str) -> list[tuple[str, float]]:
        if at not in steps:
            terms = tape.why(at).terms
            total = sum(abs(term.contribution) for term in terms)
            steps[at] = [(t.address, abs(t.contribution) / total) for t in terms if total and t.contribution]
        return steps[at]

    def grow(at: str, strength: float, above: tuple[str, ...]) -> list[tuple[float, tuple[str, ...]]]:
        node = tape.node(at.partition("[")[0])
        if node.op == "input":
            return [(strength, (*above, at))]
        if node.op in ENDS:
            return []
        found = []
        for below, share in onward(at):
            found += grow(below, strength * share, (*above, at))
        return found

    return sorted(grow(str(find(tape, address)), 1.0, ()), key=lambda chain: -chain[0])


def checked(tape: Tape, address: str, k: int = 12) -> list[Path]:
    """The k strongest, compared with all there are; with ties, by strength, and each one a chain there is."""
    wanted = every_chain(tape, address)
    found = path(tape, address, k)
    assert len(found) == min(k, len(wanted))
    strengths = [chain.strength for chain in found]
    np.testing.assert_allclose(strengths, [strength for strength, _ in wanted[:k]], rtol=1e-8)
    assert all(a >= b * (1 - 1e-12) for a, b in itertools.pairwise(strengths))
    real: dict[tuple[str, ...], list[float]] = {}
    for strength, chain in wanted:
        real.setdefault(chain, []).append(strength)
    for one in found:
        assert any(math.isclose(one.strength, strength, rel_tol=1e-9) for strength in real[one.addresses])
        follows(tape, one)
    return found


def follows(tape: Tape, chain: Path) -> None:
    """Each step is a term of the number before it, with the value, contribution and share that `why` gives."""
    assert math.isclose(chain.strength, math.prod(chain.shares), rel_tol=1e-9)
    assert chain.values[0] == tape.value(chain.addresses[0])
    for above, link in zip(chain.addresses, chain.links[1:], strict=False):
        terms = tape.why(above).terms
        total = sum(abs(term.contribution) for term in terms)
        mine = [t for t in terms if t.address == link.address and t.contribution == link.contribution]
        assert mine
        assert link.value == mine[0].value
        assert math.isclose(link.share, abs(link.contribution) / total, rel_tol=1e-12)


def test_through_residual_blocks_and_pooling() -> None:
    build = Builder(1)
    x = residual(build, build.op("pool", "max_pool", build.input(1, 1, 6, 6), kernel=2), "block", 2, stride=2)
    x = build.op("flatten", "flatten", build.op("gap", "global_average_pool", x))
    tape = build.tape(build.linear("fc", x, 3))
    for unit in range(3):
        checked(tape, f"fc[0,{unit}]", k=20)


def test_through_inception_and_its_concatenation() -> None:
    build = Builder(2)
    x = inception(build, build.input(1, 2, 4, 4), "mixed")
    x = build.op("average", "average_pool", x, kernel=2)
    tape = build.tape(build.linear("fc", build.op("flatten", "flatten", x), 2))
    checked(tape, "fc[0,1]", k=40)
    checked(tape, "mixed.cat[5,1,1]")


def test_through_a_gate_both_factors_lead_on() -> None:
    build = Builder(3)
    x = excited(build, build.conv("conv", build.input(1, 1, 4, 4), 2, 3), "se")
    tape = build.tape(build.op("log", "log_softmax", build.op("gap", "mean", x, axes=[2, 3], keep=False)))
    found = checked(tape, "log[0,1]", k=30)
    assert {any("se.sigmoid" in a for a in chain.addresses) for chain in found} == {True, False}


def test_statistics_of_the_batch_and_of_a_row() -> None:
    build = Builder(4)
    x = build.batch_norm("bn", build.conv("conv", build.input(2, 1, 3, 3), 2, 2), training=True)
    x = build.op("flatten", "flatten", build.op("relu", "relu", x))
    gamma = build.parameter("norm.weight", 8)
    x = build.op("norm", "layer_norm", x, gamma, None)
    tape = build.tape(build.linear("fc", x, 2))
    found = checked(tape, "fc[0,0]", k=30)
    images = {chain.addresses[-1].split("[")[1][0] for chain in found}
    assert images == {"0", "1"}


def test_ties_are_all_there() -> None:
    """A picture of one colour under a kernel of one weight: every chain is as strong as the next."""
    build = Builder(5)
    x = build.leaf("input", "input", np.ones((1, 1, 4, 4)))
    w = build.leaf("parameter", "conv.weight", np.ones((2, 1, 2, 2)))
    x = build.op("conv", "convolution", x, w, None)
    x = build.op("pool", "average_pool", x, kernel=3)
    tape = build.tape(build.op("sum", "mean", x, axes=[1, 2, 3], average=False, keep=False))
    found = checked(tape, "sum[0]", k=50)
    assert len({chain.addresses for chain in found}) == 50
    assert {round(chain.strength * 72, 9) for chain in found} == {1.0}
    assert len(path(tape, "sum[0]", k=1000)) == 72


def test_a_plain_picture_is_no_harder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of chains of one strength but for rounding: one must be finished before the next is begun."""
    asked: list[tuple[int, ...]] = []
    terms = Walk.terms

    def counted(walk: Walk, node: Node, index: tuple[int, ...]) -> Terms:
        asked.append(index)
        return terms(walk, node, index)

    monkeypatch.setattr(Walk, "terms", counted)
    build = Builder(6, np.float32)
    x = build.leaf("input", "input", np.full((1, 3, 12, 12), 0.3))
    for number in range(5):
        w = build.leaf("parameter", f"conv{number}.weight", np.full((5, build.values[x].shape[1], 3, 3), 0.1 / 3))
        x = build.op(f"relu{number}", "relu", build.op(f"conv{number}", "convolution", x, w, None))
    tape = build.tape(build.op("pool", "global_average_pool", x))
    found = path(tape, "pool[0,2,0,0]", k=5)
    strength = 1 / (tape.values[x].shape[2] ** 2 * 27 * 45**4)
    assert [chain.strength for chain in found] == pytest.approx([strength] * 5)
    assert len(asked) < 60


def test_a_value_used_twice_gives_two_chains() -> None:
    build = Builder(7)
    x = build.linear("fc", build.input(1, 2), 2, bias=False)
    tape = build.tape(build.op("square", "multiply", x, x))
    found = checked(tape, "square[0,1]", k=10)
    assert len(found) == 4
    assert found[0].addresses == found[1].addresses


def test_chains_end_where_nothing_contributes() -> None:
    """A silent unit, a border, a dropped number: no chain goes through them, and none ends at a bias."""
    build = Builder(8)
    x = build.leaf("input", "input", np.array([[1.0, -2.0, 0.0]]))
    x = build.op("relu", "relu", x)
    x = build.op("pad", "padding", x, widths=[[1, 1]], value=3.0)
    tape = build.tape(build.linear("fc", x, 2))
    found = checked(tape, "fc[0,0]")
    assert [chain.addresses[-1] for chain in found] == ["input[0,0]"]
    assert path(tape, "relu[0,1]") == []
    assert path(tape, "fc.bias[0]") == []


@pytest.mark.parametrize("kind", ["rnn", "lstm"])
def test_through_time(kind: str) -> None:
    build = Builder(9)
    x = build.lstm("net", build.input(2, 3, 2), 2, layers=2, kind=kind)
    x = build.op("last", "select", x, axis=1, index=2)
    tape = build.tape(build.linear("fc", x, 2))
    found = checked(tape, "fc[1,0]", k=25)
    if kind == "lstm":
        assert found[0].addresses[2].startswith("net[1,2,") or "net.1." in found[0].addresses[2]
    checked(tape, "net.h_n[0,1,1]", k=25)
    checked(tape, "net.0.h[0,2,1]", k=25)
    if kind == "lstm":
        checked(tape, "net.1.c[1,1,0]", k=25)
        checked(tape, "net.0.g[1,2,1]", k=25)


def test_operations_without_a_rule_of_their_own_are_searched_all_the_same() -> None:
    """A transposed convolution and a loss: bounded, or made from their terms."""
    build = Builder(10)
    w = build.parameter("up.weight", 2, 1, 2, 2)
    x = build.op("up", "transposed_convolution", build.input(1, 2, 2, 2), w, None, stride=2)
    x = build.op("scores", "flatten", x)
    labels = build.leaf("constant", "labels", np.array([3]))
    build.op("loss", "cross_entropy", x, labels)
    tape = build.tape("scores")
    checked(tape, "loss", k=20)
    checked(tape, "up[0,1,2]")


def test_a_bound_costs_time_but_no_exactness(monkeypatch: pytest.MonkeyPatch) -> None:
    from pellucid.explain import path_rules

    build = Builder(11)
    w = build.parameter("up.weight", 2, 2, 3, 3)
    x = build.op("up", "transposed_convolution", build.conv("c", build.input(1, 1, 4, 4), 2, 3), w, None, stride=2)
    x = build.op("gap", "global_average_pool", build.op("relu", "relu", x))
    tape = build.tape(build.linear("fc", build.op("flatten", "flatten", x), 2))
    monkeypatch.setattr(path_rules.by_terms, "__defaults__", (3, ""))
    checked(tape, "fc[0,1]", k=25)


def test_what_is_not_finite_leads_nowhere() -> None:
    build = Builder(15)
    x = build.leaf("input", "input", np.array([[1.0, np.nan, 2.0, np.inf]]))
    one = build.op("one", "slice", x, axis=1, start=0, stop=1)
    two = build.op("two", "slice", x, axis=1, start=1, stop=2)
    three = build.op("three", "slice", x, axis=1, start=2, stop=3)
    tape = build.tape(build.op("cat", "concatenate", one, build.op("relu", "relu", two), three, axis=1))
    assert len(path(tape, "cat[0,0]")) == 1
    assert path(tape, "cat[0,1]") == []
    with np.errstate(all="ignore"):
        everything = build.linear("fc", build.conv("conv", build.op("as", "reshape", x, shape=[1, 1, 2, 2]), 1, 2), 1)
    assert path(build.tape(everything), "fc[0,0,0,0]") == []


def test_of_an_input_itself_and_how_it_reads() -> None:
    build = Builder(12)
    tape = build.tape(build.linear("fc", build.leaf("input", "input", np.array([[2.0, 1.0]])), 2, bias=False))
    tape.values["fc.weight"][:] = [[3.0, -2.0], [1.0, 1.0]]
    tape.values["fc"][:] = [[4.0, 3.0]]
    (alone,) = path(tape, "input[0,1]")
    assert (alone.strength, alone.addresses, alone.shares) == (1.0, ("input[0,1]",), ())
    first, second = path(tape, "fc[0,0]", k=2)
    assert first.text().splitlines() == [
        "strength 0.75",
        "  fc[0,0] = 4",
        "  input[0,0] = 2  (75.0% of the above: +6)",
    ]
    assert (second.contributions, second.values) == ((-2.0,), (4.0, 1.0))


@pytest.mark.parametrize("k", [0, -1, 1.5, True])
def test_a_number_of_chains_that_is_none(k: Any) -> None:
    build = Builder(13)
    tape = build.tape(build.linear("fc", build.input(1, 2), 2))
    with pytest.raises(UsageError, match=f"k is {k}, but"):
        path(tape, "fc[0,0]", k)


def test_refusals() -> None:
    build = Builder(14)
    x = build.op("relu", "relu", build.linear("fc", build.input(1, 2), 2))
    build.add("sorted", "aten.sort.default", (x,), {}, np.sort(build.values[x]))
    tape = build.tape(build.op("tanh", "tanh", "sorted"))
    with pytest.raises(UsageError, match=r"sort.*has no rule"):
        path(tape, "tanh[0,1]")
    with pytest.raises(UsageError, match=r"fc: is an array of shape \(1, 2\): ask for one of its numbers, such as fc"):
        path(tape, "fc")
    tape.loss, tape.gradients = "fc", {"fc": np.ones((1, 2))}
    with pytest.raises(UsageError, match="chains of terms start at a value"):
        path(tape, "fc.grad[0,1]")


def greedy(tape: Tape, address: str) -> float:
    """The strength of the chain that takes the largest term each time, until one ends; 0 if not at an input."""
    strength, at = 1.0, str(find(tape, address))
    while tape.node(at.partition("[")[0]).op not in {*ENDS, "input"}:
        terms = [t for t in tape.why(at).terms if tape.node(t.address.partition("[")[0]).op not in ENDS]
        total = sum(abs(term.contribution) for term in tape.why(at).terms)
        if not terms or not total:
            return 0.0
        largest = max(terms, key=lambda term: abs(term.contribution))
        strength, at = strength * abs(largest.contribution) / total, largest.address
    return strength if tape.node(at.partition("[")[0]).op == "input" else 0.0


@pytest.mark.parametrize(
    ("net", "image", "training"),
    [
        ("resnet20", (3, 16, 16), False),
        ("googlenet", (3, 32, 32), False),
        ("cifar-cnn", (3, 32, 32), False),
        ("resnet20", (3, 12, 12), True),
    ],
)
def test_whole_networks_as_recorded(net: str, image: tuple[int, int, int], training: bool) -> None:
    """Each step is what `why` says, the first chain no weaker than the greedy one, and the last no stronger."""
    from pellucid import nets
    from pellucid.explain.record import record

    pictures = torch.randn(2, *image, generator=torch.Generator().manual_seed(0))
    tape = record(nets.build(net, 5, image, seed=0), pictures, training=training)
    address = f"{tape.output}[1,2]"
    found = path(tape, address, 4)
    assert len(found) == 4
    for chain in found[:2]:
        follows(tape, chain)
        assert tape.node(chain.addresses[-1].partition("[")[0]).op == "input"
    assert len({chain.addresses for chain in found}) == 4
    assert found[0].strength >= greedy(tape, address) * (1 - 1e-9)
    assert [chain.strength for chain in found] == sorted((chain.strength for chain in found), reverse=True)
