"""Recorded passes are the engine's, bit for bit, and leave the model as it was."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from tests.explain.recording import (
    assert_untouched,
    images,
    ops,
    pooled,
    same_as_engine,
    small,
    state,
    with_torchs_dropout,
)
from torch import nn
from torch.nn import functional

from pellucid import nets
from pellucid.explain import Pixels
from pellucid.explain.record import record

NETS = {
    "lenet5": (1, 32, 32),
    "cifar-cnn": (3, 16, 16),
    "quick": (3, 16, 16),
    "resnet18": (3, 32, 32),
    "resnet20": (3, 16, 16),
    "rnn(units=8, layers=2)": (1, 10, 10),
    "lstm(units=8, layers=2)": (1, 10, 10),
    "lstm(units=8, layers=3, dropout=0.5)": (1, 10, 10),
    "INPUT(3, 16, 16) -> [CONV(8) -> BATCHNORM -> POOL]*2 -> FC(12) -> DROPOUT(0.3) -> FC(10)": (3, 16, 16),
}
LARGE = {"googlenet": (3, 64, 64), "vgg11-bn": (3, 32, 32)}


def compared(net: str, image: tuple[int, int, int], training: bool) -> None:
    model = with_torchs_dropout(nets.build(net, 10, image, seed=0)).train(training)
    tape = same_as_engine(model, images(3, *image), [1, 2, 9], training=training)
    assert tape.training == training
    assert tape.precision == "float32"
    assert tape.inputs == ("input",)
    assert tape.loss == "loss"
    assert not [op for op in ops(tape).values() if op.startswith("aten")]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("net", NETS)
def test_logits_loss_and_gradients_are_the_engines(net: str, training: bool) -> None:
    compared(net, NETS[net], training)


@pytest.mark.slow
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("net", LARGE)
def test_those_of_large_networks_too(net: str, training: bool) -> None:
    compared(net, LARGE[net], training)


def test_a_mode_is_set_for_the_recording_alone() -> None:
    model: Any = nets.build("resnet20", 10, (3, 8, 8), seed=0).train()
    model.layer1.eval()
    before = state(model)
    tape = record(model, images(2, 3, 8, 8), [0, 1])
    assert_untouched(model, before)
    # Every part is in evaluation, as after model.eval().
    assert {n.attributes["training"] for n in tape.nodes if n.op == "batch_norm"} == {False}
    trained = record(model, images(2, 3, 8, 8), [0, 1], training=True)
    assert_untouched(model, before)
    modes = {n.name: n.attributes["training"] for n in trained.nodes if n.op == "batch_norm"}
    assert modes["bn1"]
    assert not modes["layer1.0.bn1"]


def test_our_dropout_draws_torchs_masks_in_a_recording() -> None:
    model = nets.build("INPUT(1, 6, 6) -> FC(8) -> DROPOUT(0.5) -> FC(4)", 4, (1, 6, 6), seed=0).train()
    x = images(2, 1, 6, 6)
    torch.manual_seed(5)
    ours = record(model, x, [0, 1], training=True)
    torch.manual_seed(5)
    logits = with_torchs_dropout(copy.deepcopy(model))(x)
    np.testing.assert_array_equal(ours.values[ours.output], logits.detach().numpy())
    name = next(node.name for node in ours.nodes if node.op == "dropout")
    assert set(np.unique(ours.values[f"{name}.mask"])) == {0.0, 1.0}
    assert ours.node(f"{name}.mask").op == "constant"


def test_without_a_label_there_is_the_pass_alone() -> None:
    model = small(lambda m, x: pooled(m, m.conv(x).relu()))
    with torch.no_grad():
        tape = record(model, images())
    assert (tape.gradients, tape.after, tape.update, tape.loss) == ({}, {}, None, None)
    np.testing.assert_array_equal(tape.values[tape.output], model(images()).detach().numpy())
    assert not tape.training


def test_arrays_take_the_models_type() -> None:
    model = small(lambda m, x: pooled(m, m.conv(x))).double()
    tape = record(model, images().numpy(), [0, 1])
    assert tape.precision == "float64"
    assert {array.dtype for array in tape.gradients.values()} == {np.dtype("float64")}
    same_as_engine(model, images().double(), [0, 1])


@pytest.mark.parametrize(("kind", "name"), [(torch.bfloat16, "bfloat16"), (torch.float16, "float16")])
def test_short_types_are_widened_and_named(kind: torch.dtype, name: str) -> None:
    model = small(lambda m, x: pooled(m, m.conv(x).relu())).to(kind)
    tape = same_as_engine(model, images().to(kind), [0, 1])
    assert tape.precision == name
    assert tape.values["conv"].dtype == np.float32
    # Widening is exact, so narrowing gives the numbers back.
    back = torch.from_numpy(tape.values["conv"]).to(kind)
    assert torch.equal(back, model.conv(images().to(kind)))


def test_memory_in_another_order_is_recorded_as_it_lies() -> None:
    model = small(lambda m, x: pooled(m, m.conv(x).relu())).to(memory_format=torch.channels_last)
    same_as_engine(model, images().to(memory_format=torch.channels_last), [0, 1])


def test_later_steps_leave_the_tape_alone() -> None:
    model = small(lambda m, x: pooled(m, m.conv(x) * m.fc.weight.t()[0, 0]))
    x = images()
    tape = record(model, x, [0, 1])
    before = {name: array.copy() for name, array in tape.values.items()}
    with torch.no_grad():
        for tensor in (x, *model.parameters()):
            tensor.fill_(7.0)
    for name, array in before.items():
        np.testing.assert_array_equal(tape.values[name], array, name)


@pytest.mark.parametrize(
    ("give", "take"),
    [
        (lambda y: {"aux": y * 2, "logits": y}, lambda given: given["logits"]),
        (lambda y: (y, y * 2), lambda given: given[0]),
        (lambda y: {"first": y, "second": y * 2}, lambda given: given["first"]),
    ],
)
def test_the_logits_are_found_among_what_the_model_gives(give: Any, take: Any) -> None:
    same_as_engine(small(lambda m, x: give(pooled(m, m.conv(x)))), images(), [0, 1], logits=take)


@dataclass
class Answer:
    hidden: torch.Tensor
    logits: torch.Tensor


def test_the_logits_may_be_an_attribute() -> None:
    torch.export.register_dataclass(Answer, serialized_type_name="tests.explain.Answer")
    model = small(lambda m, x: Answer(hidden=(y := m.conv(x)), logits=pooled(m, y)))
    same_as_engine(model, images(), [0, 1], logits=lambda given: given.logits)


def test_gradients_are_recorded_wherever_record_is_called() -> None:
    model = small(lambda m, x: pooled(m, m.conv(x).relu()))
    whole = record(model, images(), [0, 1])
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            again = record(model, images(), [0, 1])
            assert not torch.is_grad_enabled()
        for name, gradient in whole.gradients.items():
            np.testing.assert_array_equal(again.gradients[name], gradient, name)


def test_a_module_may_be_called_loss() -> None:
    model = small(lambda m, x: m.loss(pooled(m, m.conv(x))), loss=nn.Linear(5, 3))
    tape = same_as_engine(model, images(), [0, 1])
    assert tape.output == "loss@2"
    assert tape.node("loss").op == "loss"
    assert tape.node("loss@2").inputs == ("fc", "loss.weight", "loss.bias")


def test_several_inputs_have_their_own_names() -> None:
    class Two(nn.Module):
        def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
            return left @ right

    tape = record(Two(), (images(2, 3), images(3, 4)), [0, 1])
    assert tape.inputs == ("left", "right")
    assert set(tape.gradients) >= {"left", "right"}


def test_losses_of_ones_own_have_nodes() -> None:
    model = small(lambda m, x: pooled(m, m.conv(x)))
    penalty = lambda y, t: functional.cross_entropy(y, t) + 0.1 * (model.fc.weight**2).sum()  # noqa: E731
    tape = record(model, images(), [0, 1], loss=penalty)
    penalty(model(images()), torch.tensor([0, 1])).backward()  # type: ignore[no-untyped-call]
    assert model.fc.weight.grad is not None
    np.testing.assert_array_equal(tape.gradients["fc.weight"], model.fc.weight.grad.numpy())
    node = tape.nodes[-1]
    assert (node.name, node.op, node.attributes["operation"]) == ("loss", "loss", "add")
    assert node.inputs == ("loss.cross_entropy_loss", "loss.mul")
    # The weight in the loss is the model's own, one node with its whole gradient.
    assert tape.node("loss.pow").inputs == ("fc.weight",)


def test_a_loss_may_be_a_module_a_pick_or_the_models_own_output() -> None:
    model = small(lambda m, x: pooled(m, m.conv(x)))
    weighed = record(model, images(), [0, 1], loss=nn.CrossEntropyLoss(weight=torch.rand(5), label_smoothing=0.1))
    assert weighed.nodes[-1].inputs == (weighed.output, "label", "loss.weight")
    assert weighed.node("loss.weight").op == "buffer"
    picked = same_as_engine(model, images(), loss=lambda y: y[0, 1])
    assert picked.nodes[-1].attributes == {"operation": "select", "axis": 0, "index": 1}
    own = small(lambda m, x: pooled(m, m.conv(x)).sum())
    same_as_engine(own, images(), loss=lambda y: y)


def test_an_exported_program_is_recorded_as_the_model(tmp_path: Any) -> None:
    model = nets.build("lenet5", 10, (1, 32, 32), seed=0).eval()
    x = images(2, 1, 32, 32)
    torch.export.save(torch.export.export(model, (x,)), tmp_path / "net.pt2")
    program = torch.export.load(tmp_path / "net.pt2")
    ours, theirs = record(model, x, [1, 2]), record(program, x, [1, 2])
    assert [node.name for node in theirs.nodes] == [node.name for node in ours.nodes]
    for name, array in ours.gradients.items():
        np.testing.assert_array_equal(theirs.gradients[name], array, name)


def test_an_exported_program_may_leave_the_batch_open() -> None:
    model = small(lambda m, x: pooled(m, m.conv(x)))
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(model, (images(3, 3, 6, 6),), dynamic_shapes=({0: batch},))
    tape = record(program, images(2, 3, 6, 6), [0, 1])
    np.testing.assert_array_equal(tape.values[tape.output], model(images(2, 3, 6, 6)).detach().numpy())


def test_nodes_say_where_they_come_from() -> None:
    model = nets.build("resnet20", 10, (3, 8, 8), seed=0)
    tape = record(model, images(1, 3, 8, 8), 4)
    node = tape.node("layer1.0.add")
    assert (node.op, node.module) == ("add", "layer1.0")
    assert node.source.startswith("resnet.py:")
    assert tape.aliases["layer1.0"] == "layer1.0.relu2"
    assert tape.node("layer1").name == "layer1.2.relu2"
    # The order of computation, leaves first.
    kinds = [node.op in {"parameter", "buffer", "constant", "input"} for node in tape.nodes]
    assert kinds == sorted(kinds, reverse=True)
    seen: set[str] = set()
    for one in tape.nodes:
        assert seen.issuperset(name for name in one.inputs if name)
        seen.add(one.name)


def test_pixels_stay_beside_the_input() -> None:
    pixels = Pixels(np.zeros((2, 3, 6, 6), np.uint8), (0.5,) * 3, (0.25,) * 3)
    assert record(small(lambda m, x: pooled(m, m.conv(x))), images(), pixels=pixels).pixels is pixels


def test_the_first_number_that_is_not_finite_is_named() -> None:
    model = small(lambda m, x: pooled(m, (m.conv(x) - 1e4).log()))
    tape = record(model, images(), [0, 1])
    assert tape.notes[0] == "the first number that is not finite is log[0,0,0,0], of log: nan"
    assert np.isnan(tape.values["loss"])


def test_the_first_gradient_that_is_not_finite_is_named() -> None:
    model = small(lambda m, x: pooled(m, (m.conv(x) * 0).sqrt()))
    tape = record(model, images(), [0, 1])
    assert np.isfinite(tape.values["loss"])
    assert any(note.startswith("the first number that is not finite is mul.grad[0,0,0,0]") for note in tape.notes)


def test_a_large_sum_is_no_infinity() -> None:
    model = small(lambda m, x: pooled(m, (m.conv(x) + 1e38) * 1e-38))
    assert record(model, images(), [0, 1]).notes == []
