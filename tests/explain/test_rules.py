from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.explain.engine import everyday, recurrent

from pellucid.explain import operation_of
from pellucid.explain.rules import arrays_of, boundary, family, gradients_of, names_of, opened, output_of, sequences
from pellucid.textbook import OPERATIONS


def test_sources_get_the_tapes_names() -> None:
    tape = everyday()
    node = tape.node("conv1")
    known = operation_of(node)
    assert known is not None
    operation, settings = known
    terms = operation.terms((0, 0, 0, 0), *arrays_of(tape, node), **settings)
    assert names_of(tape, node, operation, terms) == {"x": "input", "w": "conv1.weight", "b": "conv1.bias"}
    back = operation.grad_terms((0, 0, 1, 1), "x", tape.gradients["conv1"], *arrays_of(tape, node), **settings)
    assert names_of(tape, node, operation, back) == {"y.grad": "conv1.grad", "w": "conv1.weight"}


def test_an_argument_that_was_left_out_has_no_array_and_no_name() -> None:
    tape = recurrent()
    node = tape.node("lstm")
    assert [array is None for array in arrays_of(tape, node)][:3] == [False, True, True]
    operation = OPERATIONS["lstm"]
    terms = operation.terms((0, 0, 1), *arrays_of(tape, node), output="0.f")
    names = names_of(tape, node, operation, terms)
    assert "h0" in {group.source for group in terms.groups}
    assert "h0" not in names
    assert names["w_xh_l0"] == "lstm.weight_ih_l0"


def test_the_outputs_and_the_interior_of_an_operation_are_a_family() -> None:
    tape = recurrent(layers=1)
    inside = {f"0.{name}": f"lstm.0.{name}" for name in "ifgoch"}
    wanted = {"y": "lstm", "h_n": "lstm.h_n", "c_n": "lstm.c_n", **inside}
    for name in ("lstm", "lstm.h_n", "lstm.0.f"):
        assert family(tape, tape.node(name), OPERATIONS["lstm"]) == wanted
    assert output_of(tape.node("lstm.0.f"), OPERATIONS["lstm"]) == "0.f"
    assert output_of(tape.node("fc"), OPERATIONS["linear"]) == "y"


def test_gradients_are_those_of_the_outputs_that_the_loss_depends_on() -> None:
    tape = recurrent(layers=1)
    found = gradients_of(tape, tape.node("lstm.0.f"), OPERATIONS["lstm"])
    assert list(found) == ["y", "h_n"]
    assert found["h_n"] is tape.gradients["lstm.h_n"]
    tape.gradients.pop("loss")
    assert gradients_of(tape, tape.node("loss"), OPERATIONS["cross_entropy"])["y"] == 1.0


def test_the_interior_is_the_tapes_and_equals_the_textbooks() -> None:
    tape = recurrent(layers=2)
    node, operation = tape.node("lstm"), OPERATIONS["lstm"]
    inside = opened(tape, node, operation)
    assert inside is not None
    assert inside.flow is not None
    _, kept = operation.forward(*arrays_of(tape, node))
    for layer in range(2):
        for t in range(6):
            ours, theirs = inside.kept.steps[layer][t], kept.steps[layer][t]
            for name in ("c_prev", "i", "f", "g", "o", "c", "tanh_c"):
                np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=0, atol=1e-6)
            np.testing.assert_allclose(ours.inputs.h_prev, theirs.inputs.h_prev, rtol=0, atol=1e-6)
            np.testing.assert_allclose(ours.inputs.x, theirs.inputs.x, rtol=0, atol=1e-6)
            assert np.shares_memory(ours.f, tape.values[f"lstm.{layer}.f"])
    gradients = operation.backward(gradients_of(tape, node, operation), kept)
    for name in ("0.f", "1.c", "0.h"):
        np.testing.assert_allclose(inside.flow.gradients[name], gradients[name], rtol=0, atol=1e-6)


def test_without_its_interior_or_gradients_nothing_is_opened() -> None:
    tape = recurrent(interior=False)
    assert opened(tape, tape.node("lstm"), OPERATIONS["lstm"]) is None
    assert opened(tape, tape.node("fc"), OPERATIONS["linear"]) is None
    without = opened(replace(recurrent(), gradients={}, loss=None), tape.node("lstm"), OPERATIONS["lstm"])
    assert without is not None
    assert without.flow is None


def test_an_interior_computed_beside_the_pass_is_as_exact_as_a_typical_unit() -> None:
    tape = recurrent(layers=1)
    node, operation = tape.node("lstm"), OPERATIONS["lstm"]
    n, t, d = 1, 2, 3
    terms = operation.terms((n, t, d), *arrays_of(tape, node), output="y")
    names = names_of(tape, node, operation, terms)
    o, c = (np.abs(tape.values[f"lstm.0.{name}"][n, t]).mean() for name in ("o", "c"))
    slopes = [abs(float(group.coefficient[0])) for group in terms.groups]
    extra = boundary(tape, node, operation, terms, names)
    assert extra == pytest.approx(slopes[0] * o + slopes[1] * c, rel=1e-5)
    made = tape.why(f"lstm[{n},{t},{d}]")
    assert made.scale == pytest.approx(terms.scale + extra, rel=1e-4)
    # Beside each other, both computed again, they are judged by their own size.
    inner = operation.terms((n, t, d), *arrays_of(tape, node), output="0.h")
    assert tape.why(f"lstm.0.h[{n},{t},{d}]").scale == pytest.approx(inner.scale, rel=1e-4)
    # A weight's gradient: the gate's gradient and the state beside it.
    weight = tape.why("lstm.weight_hh_l0.grad[7,2]")
    own = sum(abs(term.contribution) for term in weight.terms)
    assert weight.scale > 1.5 * own


def test_elsewhere_nothing_is_added_to_a_scale() -> None:
    tape = everyday()
    node, operation = tape.node("fc"), OPERATIONS["linear"]
    terms = operation.terms((0, 1), *arrays_of(tape, node))
    assert boundary(tape, node, operation, terms, names_of(tape, node, operation, terms)) == 0.0


def test_sequences_are_told_from_pictures() -> None:
    tape = recurrent()
    arrays = ["input", "input.grad", "lstm", "lstm.0.f", "lstm.0.f.grad", "lstm.h_n", "fc.weight", "lstm.0.none"]
    assert sequences(tape, arrays) == {"input", "input.grad", "lstm", "lstm.0.f", "lstm.0.f.grad"}
    assert sequences(everyday(), ["conv1", "fc"]) == frozenset()
