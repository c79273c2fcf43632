from __future__ import annotations

import numpy as np
import pytest
from tests.explain.building import Builder

from pellucid.explain.node import operation_of
from pellucid.explain.walk import COPIES, Walk, channel_axis, elementwise_of, origins, recurrence_of
from pellucid.textbook import OPERATIONS


def test_what_depends_on_an_input_and_what_a_value_was_made_from() -> None:
    build = Builder(1)
    x = build.linear("fc", build.input(1, 2), 2)
    scaled = build.op("scaled", "multiply", "fc.weight", "fc.weight")
    build.op("relu", "relu", x)
    walk = Walk(build.tape())
    assert walk.live == {"input", "fc", "relu"}
    assert walk.before("fc") == {"fc", "input", "fc.weight", "fc.bias"}
    assert walk.before(scaled) == {"scaled", "fc.weight"}


def test_terms_are_those_of_why() -> None:
    build = Builder(2)
    build.lstm("net", build.input(1, 3, 2), 2)
    tape = build.tape()
    walk = Walk(tape)
    for name in ("net", "net.h_n", "net.0.f", "net.0.c"):
        node = tape.node(name)
        found = operation_of(node)
        assert found is not None
        index = (0,) * len(node.shape)
        mine = [(term.value, term.contribution) for term in walk.terms(node, index)]
        theirs = [(term.value, term.contribution) for term in tape.why(f"{name}[{','.join('0' * len(index))}]").terms]
        # `why` leaves out terms of an argument that was left out: states of zeros at the start.
        assert [pair for pair in mine if pair[1]] == [pair for pair in theirs if pair[1]]
    sources = walk.sources(tape.node("net"), OPERATIONS["lstm"])
    assert sources["x"] == "input"
    assert sources["0.f"] == "net.0.f"
    assert sources["w_hh_l0"] == "net.weight_hh_l0"
    assert "h0" not in sources
    assert "y" not in sources


def test_where_copies_come_from() -> None:
    first, second = np.zeros((1, 2)), np.zeros((1, 3))
    assert origins(OPERATIONS["concatenate"], [first, second], {"axis": 1}).tolist() == [[1, 2, 3, 4, 5]]
    padded = origins(OPERATIONS["padding"], [first], {"widths": [[1, 1]], "value": 7.5})
    assert padded.tolist() == [[0, 1, 2, 0]]
    assert origins(OPERATIONS["permute"], [np.zeros((2, 3))], {"axes": [1, 0]}).tolist() == [[1, 4], [2, 5], [3, 6]]


@pytest.mark.parametrize("name", sorted(COPIES))
def test_copies_are_operations_of_one_term_and_slope_one(name: str) -> None:
    from tests.agree.cases import drawn

    for seed in range(4):
        example = drawn(name, np.random.default_rng(seed))
        y, _ = OPERATIONS[name].forward(*example.arrays, **example.attributes)
        for index in np.ndindex(y.shape):
            terms = list(OPERATIONS[name].terms(index, *example.arrays, **example.attributes))
            assert len(terms) <= 1
            assert all(term.coefficient == 1 for term in terms)


def test_kinds_of_operations() -> None:
    assert elementwise_of(OPERATIONS["relu"]) is not None
    assert elementwise_of(OPERATIONS["linear"]) is None
    assert recurrence_of(OPERATIONS["lstm"]) is not None
    assert recurrence_of(OPERATIONS["lstm_cell"]) is None


def test_channels_by_axis() -> None:
    build = Builder(3)
    x = build.input(2, 3, 4, 4)
    build.op("relu", "relu", build.conv("conv", x, 5, 1))
    build.op("moved", "permute", "relu", axes=[0, 2, 3, 1])
    build.op("flat", "flatten", build.op("pool", "global_average_pool", "conv"))
    build.op("rows", "reshape", x, shape=[2, 12, 4])
    build.lstm("lstm", "rows", 3)
    build.op("last", "select", "lstm", axis=1, index=5)
    build.op("tanh", "tanh", build.linear("fc", "moved", 2))
    tape = build.tape()
    wanted = {"input": 1, "relu": 1, "moved": 3, "flat": 1, "lstm": 2, "last": 1, "tanh": 3}
    assert {name: channel_axis(tape, tape.node(name)) for name in wanted} == wanted
