"""The best strength of every value inside a recurrent network against its own terms."""

from __future__ import annotations

import numpy as np
import pytest
from tests.explain.building import Builder

from pellucid.explain.node import operation_of
from pellucid.explain.path_recurrent import recurrent
from pellucid.explain.rules import family
from pellucid.explain.walk import Walk


@pytest.mark.parametrize("starts", [False, True])
@pytest.mark.parametrize("kind", ["rnn", "lstm"])
def test_every_value_has_the_best_of_its_terms(kind: str, starts: bool) -> None:
    build = Builder(1)
    x = build.input(2, 3, 2)
    build.lstm("net", x, 2, layers=2, kind=kind)
    node = next(node for node in build.nodes if node.name == "net")
    if starts:
        states = [build.input(2, 2, 2, name=f"{s}0") for s in ("h", "c")][: 1 if kind == "rnn" else 2]
        build.nodes = [other for other in build.nodes if other.op != kind]
        build.op("net", kind, x, *states, *node.inputs[1 + len(states) :])
    tape = build.tape("net")
    node, walk = tape.node("net"), Walk(tape)
    known = operation_of(node)
    assert known is not None
    rng = np.random.default_rng(2)
    given = {
        name: np.log(rng.uniform(0.1, 1, size=tape.values[at].shape))
        for name, at in walk.sources(node, known[0]).items()
        if tape.node(at).op == "input"
    }
    found = recurrent(walk.kept(node, known[0]), given)
    nodes = family(tape, node, known[0])
    assert set(found) == set(nodes)
    for output, at in nodes.items():
        for index in np.ndindex(tape.values[at].shape):
            groups = walk.terms(tape.node(at), index).groups
            total = sum(float(np.abs(group.contribution).sum()) for group in groups)
            ways = [-np.inf]
            for group in groups:
                logs = given.get(group.source, found.get(group.source))
                if logs is not None:
                    with np.errstate(divide="ignore"):
                        ways += (np.log(np.abs(group.contribution) / total) + logs[tuple(group.index.T)]).tolist()
            assert found[output][index] == pytest.approx(max(ways), rel=1e-9), (output, index)


def test_what_leads_to_no_input_has_no_chain() -> None:
    build = Builder(2)
    build.lstm("net", build.leaf("constant", "input", np.ones((1, 2, 2))), 2)
    tape = build.tape()
    node = tape.node("net")
    known = operation_of(node)
    assert known is not None
    found = recurrent(Walk(tape).kept(node, known[0]), {"x": None, "h0": None, "c0": None})
    assert all(np.isneginf(part).all() for part in found.values())
