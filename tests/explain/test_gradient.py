from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.explain.engine import Pass, checked, everyday, indices, recurrent, spelled
from torch.nn import functional

from pellucid.errors import UsageError, VerificationError


@pytest.mark.parametrize("training", [False, True])
def test_every_gradient_of_an_everyday_network_is_explained(training: bool) -> None:
    for seed in range(3):
        tape = everyday(training=training, seed=seed)
        rng = np.random.default_rng(seed)
        assert set(tape.gradients) == {n.name for n in tape.nodes} - {"labels", "bn.running_mean", "bn.running_var"}
        for name, gradient in tape.gradients.items():
            for index in indices(gradient.shape, rng):
                made = checked(tape, spelled(f"{name}.grad", index))
                assert made.address == spelled(f"{name}.grad", index)
                assert made.combine == ("given" if name == "loss" else "sum")


@pytest.mark.parametrize("layers", [1, 3])
def test_every_gradient_through_time_is_explained(layers: int) -> None:
    tape = recurrent(layers)
    rng = np.random.default_rng(layers)
    assert "lstm.c_n" not in tape.gradients
    assert len(tape.gradients) == len(tape.nodes) - 2
    for name, gradient in tape.gradients.items():
        for index in indices(gradient.shape, rng):
            checked(tape, spelled(f"{name}.grad", index))


def test_without_its_interior_an_lstm_sends_the_same_back() -> None:
    tape = recurrent(interior=False)
    for name in ("input", "lstm.weight_hh_l0", "lstm.bias_ih_l1", "fc.weight"):
        for index in indices(tape.values[name].shape, np.random.default_rng(0)):
            made = tape.why(spelled(f"{name}.grad", index))
            assert abs(made.residual) <= 1e-5 * made.scale


def test_a_weight_of_an_lstm_was_pulled_on_at_every_step() -> None:
    tape = recurrent()
    made = tape.why("lstm.weight_hh_l1.grad[7,2]")
    assert [term.address for term in made.terms] == [f"lstm.1.f.grad[{n},{t},2]" for t in range(6) for n in range(2)]
    assert [term.factor for term in made.terms[2:]] == [f"lstm.1.h[{n},{t},2]" for t in range(5) for n in range(2)]
    assert [term.factor for term in made.terms[:2]] == [None, None], "the state before the first step was zeros"


def test_a_cell_is_pulled_on_through_its_output_and_by_the_next_step() -> None:
    tape = recurrent()
    made = tape.why("lstm.0.c.grad[1,2,3]")
    assert [(term.address, term.factor) for term in made.terms] == [
        ("lstm.0.h.grad[1,2,3]", None),
        ("lstm.0.c.grad[1,3,3]", "lstm.0.f[1,3,3]"),
    ]
    last = tape.why("lstm.1.h.grad[1,5,3]")
    assert {term.address for term in last.terms} == {"lstm.grad[1,5,3]", "lstm.h_n.grad[1,1,3]"}


def test_a_value_read_twice_is_pulled_on_twice() -> None:
    tape = everyday()
    made = tape.why("pool.grad[0,1,2,2]")
    assert {term.address.partition(".")[0] for term in made.terms} == {"conv2", "add"}
    assert made.op == "convolution, add"
    assert tape.why("fc.grad[0,1]").op == "cross_entropy"
    assert made.formula.startswith("the sum over what reads it: conv2 (x.grad[n,c,h,w] = Σ")
    square = tape.why("add.grad[0,1,2,2]")
    assert [term.address for term in square.terms] == ["square.grad[0,1,2,2]"] * 2
    assert square.value == pytest.approx(
        2 * float(tape.value("add[0,1,2,2]")) * float(tape.value("square.grad[0,1,2,2]"))
    )


def test_a_weight_that_two_layers_share_is_pulled_on_by_both() -> None:
    tape = everyday()
    made = tape.why("conv2.weight.grad[2,3,0,0]")
    by_layer = {layer: [t for t in made.terms if t.address.startswith(layer)] for layer in ("conv2.grad", "conv2@2")}
    assert {layer: len(terms) for layer, terms in by_layer.items()} == {"conv2.grad": 18, "conv2@2": 18}
    assert by_layer["conv2.grad"][0].factor == "pool[0,3,0,0]"
    assert by_layer["conv2@2"][0].factor == "conv2[0,3,0,0]"


def test_of_equal_largest_numbers_the_first_is_pulled_on() -> None:
    p = Pass()
    x = p.leaf("input", "input", torch.tensor([[[[1.0, 2.0], [2.0, 2.0]]]]))
    y = p.op("pool", "max_pool", ["input"], functional.max_pool2d(x, 2), kernel=2)
    p.op("loss", "loss", ["pool"], y.sum(), operation="mean", axes=(0, 1, 2, 3), average=False, keep=False)
    tape = p.tape("loss")
    assert [tape.why(f"input.grad[0,0,{i},{j}]").value for i, j in np.ndindex(2, 2)] == [0.0, 1.0, 0.0, 0.0]
    assert not tape.why("input.grad[0,0,1,1]").terms or tape.why("input.grad[0,0,1,1]").scale == 0.0


def test_a_broadcast_number_is_pulled_on_by_all_that_it_reached() -> None:
    p = Pass()
    x = p.leaf("input", "input", p.random(2, 3, 4))
    gate = p.leaf("parameter", "gate", p.random(3, 1))
    y = p.op("multiply", "multiply", ["input", "gate"], x * gate)
    p.op("loss", "loss", ["multiply"], y.square().mean() * 0 + y.sum(), operation="mean", average=False, keep=False)
    tape = p.tape("loss")
    made = checked(tape, "gate.grad[1,0]")
    assert len(made.terms) == 8
    assert made.value == pytest.approx(float(x.detach()[:, 1].sum()), rel=1e-6)


def test_the_loss_pulls_on_itself_by_one() -> None:
    tape = everyday()
    made = tape.why("loss.grad")
    assert (made.value, made.combine, made.terms) == (1.0, "given", ())
    tape.gradients.pop("loss")
    assert tape.why("loss.grad").value == 1.0
    assert checked(tape, "fc.grad[1,2]").terms[0].address == "loss.grad"


def test_what_the_loss_does_not_depend_on_has_no_gradient() -> None:
    with pytest.raises(UsageError, match=r"labels\.grad: the loss does not depend on labels in a way that has a slope"):
        everyday().why("labels.grad[0]")
    with pytest.raises(UsageError, match=r"conv1\.grad: the tape has no loss, .* record with a label or a loss"):
        replace(everyday(), loss=None, gradients={}).why("conv1.grad[0,0,0]")


def test_a_reader_without_slope_or_share_sends_nothing_back() -> None:
    p = Pass()
    x = p.leaf("input", "input", p.random(2, 3))
    d = p.op("detach", "aten.detach.default", ["input"], x.detach())
    p.op("side", "multiply", ["detach", "detach"], d * d)
    p.op("unused", "relu", ["input"], x.relu())
    y = p.op("tanh", "tanh", ["input"], x.tanh())
    p.op("loss", "loss", ["tanh"], y.sum(), operation="mean", average=False, keep=False)
    tape = p.tape("loss")
    made = checked(tape, "input.grad[1,2]")
    assert [term.address for term in made.terms] == ["tanh.grad[1,2]"]
    assert made.formula.endswith("y being tanh")


def test_as_a_constant_a_value_is_not_pulled_on() -> None:
    """The weights of the classes have no gradient, though they be a value that has one from elsewhere."""
    p = Pass()
    w = p.leaf("parameter", "w", p.random(3).abs() + 0.5)
    x = p.leaf("input", "input", p.random(2, 3))
    labels = p.leaf("constant", "labels", torch.tensor([2, 0]))
    y = p.op("multiply", "multiply", ["input", "w"], x * w)
    loss = functional.cross_entropy(y, labels, weight=w.detach())
    p.op("loss", "loss", ["multiply", "labels", "w"], loss, operation="cross_entropy")
    tape = p.tape("loss")
    made = checked(tape, "w.grad[1]")
    assert {term.address for term in made.terms} == {"multiply.grad[0,1]", "multiply.grad[1,1]"}
    checked(tape, "multiply.grad[1,1]")


def test_a_reader_without_a_rule_is_said_to_be_one() -> None:
    p = Pass()
    x = p.leaf("input", "input", p.random(2, 3))
    y = p.op("cumsum", "aten.cumsum.default", ["input"], x.cumsum(1))
    p.op("loss", "loss", ["cumsum"], y.sum(), operation="mean", average=False, keep=False)
    tape = p.tape("loss")
    with pytest.raises(UsageError, match=r"input\.grad\[1,2\]: aten\.cumsum\.default, which computes cumsum"):
        tape.why("input.grad[1,2]")
    assert checked(tape, "cumsum.grad[1,2]").value == 1.0


def test_a_gradient_that_nothing_accounts_for_is_refused() -> None:
    tape = everyday()
    nodes = [node for node in tape.nodes if node.name != "conv2@2"]
    nodes = [replace(node, inputs=tuple(None if name == "conv2@2" else name for name in node.inputs)) for node in nodes]
    with pytest.raises(VerificationError, match=r"conv2\.grad\[0,1,1,1\]: recomputed from its terms it is 0, but"):
        replace(tape, nodes=nodes).why("conv2.grad[1,1,1]")
    tape.gradients["conv1.weight"] = tape.gradients["conv1.weight"] * np.float32(1.01)
    with pytest.raises(VerificationError, match=r"conv1\.weight\.grad\[3,0,1,1\]"):
        tape.why("conv1.weight.grad[3,0,1,1]")
