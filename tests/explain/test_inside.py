"""Recurrent networks: the engine's numbers at the outputs, the textbook's inside, the two in agreement."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tests.explain.recording import Written, images, ops, same_as_engine
from torch import nn

from pellucid.explain import Tape
from pellucid.explain.record import record
from pellucid.textbook import OPERATIONS


def network(kind: str, *, last: Any = lambda y: y[:, -1], **settings: Any) -> Any:
    torch.manual_seed(0)
    cells = getattr(nn, kind)(5, 4, **settings)
    width = 8 if settings.get("bidirectional") else 4
    return Written(lambda m, x: m.fc(last(m.cells(x)[0])), cells=cells, fc=nn.Linear(width, 3))


def boundary(tape: Tape, name: str) -> dict[str, float]:
    """How far the textbook's own pass, from the recorded arrays, is from each recorded output."""
    node = tape.node(name)
    arrays = [None if one is None else tape.values[one].astype(np.float64) for one in node.inputs]
    made, _ = OPERATIONS[node.op].forward(*arrays)
    recorded = {one.attributes["output"]: one.name for one in tape.nodes if one.first == name}
    return {output: float(np.abs(array - tape.values[recorded[output]]).max()) for output, array in made.items()}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", ["LSTM", "RNN"])
def test_a_stack_opens_into_cells(kind: str, bias: bool) -> None:
    tape = same_as_engine(network(kind, num_layers=2, batch_first=True, bias=bias), images(2, 6, 5), [0, 1])
    op, states = ("lstm", "hc") if kind == "LSTM" else ("rnn", "h")
    values = "ifgoch" if kind == "LSTM" else "h"
    inside = [f"cells.{layer}.{value}" for layer in (0, 1) for value in values]
    assert list(ops(tape)) == ["cells", *(f"cells.{s}_n" for s in states), *inside, "select", "fc", "loss"]
    assert all(difference < 1e-6 for difference in boundary(tape, "cells").values())
    assert len(boundary(tape, "cells")) == 1 + len(states)
    for name in inside:
        node = tape.node(name)
        assert (node.op, node.first, node.attributes["recomputed"], node.is_primary) == (op, "cells", True, False)
        assert node.attributes["output"] == name.removeprefix("cells.")
        assert tape.values[name].shape == (2, 6, 4)
        assert tape.values[name].dtype == tape.gradients[name].dtype == np.float32
    # The top layer's states are the output, and nothing follows but the output of the last step.
    np.testing.assert_allclose(tape.values["cells.1.h"], tape.values["cells"], atol=1e-6)
    np.testing.assert_allclose(tape.gradients["cells.1.h"][:, -1], tape.gradients["cells"][:, -1], atol=1e-6)
    assert any(note.startswith("cells: cells computed again by the textbook, within ") for note in tape.notes)


def test_gradients_inside_are_those_of_the_loss() -> None:
    """Against autograd on the cells written out step by step."""
    model = network("LSTM", batch_first=True)
    x = images(2, 6, 5)
    tape = record(model, x, [0, 1])
    weights = [p.detach() for p in model.cells.parameters()]
    kept: dict[str, list[torch.Tensor]] = {value: [] for value in "ifgoch"}
    h = c = torch.zeros(2, 4)
    for t in range(6):
        gates = x[:, t] @ weights[0].T + weights[2] + h @ weights[1].T + weights[3]
        i, f, g, o = gates.chunk(4, 1)
        parts = dict(zip("ifgo", (i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()), strict=True))
        parts = {name: part.requires_grad_() for name, part in parts.items()}
        c = parts["f"] * c + parts["i"] * parts["g"]
        h = parts["o"] * c.tanh()
        for name, part in {**parts, "c": c, "h": h}.items():
            part.requires_grad_().retain_grad()
            kept[name].append(part)
    nn.functional.cross_entropy(model.fc(h), torch.tensor([0, 1])).backward()  # type: ignore[no-untyped-call]
    for value, steps in kept.items():
        np.testing.assert_allclose(tape.values[f"cells.0.{value}"], torch.stack(steps, 1).detach(), atol=1e-6)
        slopes = torch.stack([torch.zeros_like(s) if s.grad is None else s.grad for s in steps], 1)
        np.testing.assert_allclose(tape.gradients[f"cells.0.{value}"], slopes, atol=1e-6)


@pytest.mark.parametrize("kind", ["LSTM", "RNN"])
def test_dropout_between_layers_is_recorded_layer_by_layer(kind: str) -> None:
    model = network(kind, num_layers=3, batch_first=True, dropout=0.4)
    tape = same_as_engine(model, images(2, 6, 5), [0, 1], training=True)
    assert not [op for op in ops(tape).values() if op.startswith("aten")]
    for layer in range(3):
        assert all(difference < 1e-6 for difference in boundary(tape, f"cells.layer{layer}").values())
        assert tape.node(f"cells.{layer}.h").name == f"cells.layer{layer}.0.h"
    for layer in range(2):
        below, mask = tape.values[f"cells.layer{layer}"], tape.values[f"cells.dropout{layer}.mask"]
        np.testing.assert_allclose(tape.values[f"cells.dropout{layer}"], below * mask / 0.6, rtol=1e-6)
        assert tape.node(f"cells.layer{layer + 1}").inputs[0] == f"cells.dropout{layer}"
    assert tape.values["cells.h_n"].shape == (3, 2, 4)
    # At rest nothing is dropped, and it is one operation.
    assert tape.node("cells").op == "identity"
    assert record(model, images(2, 6, 5)).node("cells").op == ("lstm" if kind == "LSTM" else "rnn")


@pytest.mark.parametrize("training", [False, True])
def test_sequences_with_the_time_first_are_turned(training: bool) -> None:
    model = network("LSTM", last=lambda y: y[-1], num_layers=2, dropout=0.4)
    tape = same_as_engine(model, images(6, 2, 5), [0, 1], training=training)
    assert not [op for op in ops(tape).values() if op.startswith("aten")]
    assert tape.values["cells"].shape == (6, 2, 4)
    assert tape.node("cells.0.f").shape == (2, 6, 4)
    np.testing.assert_array_equal(tape.values["cells.cells"].transpose(1, 0, 2), tape.values["cells"])


def test_states_at_the_start_and_the_end_may_be_the_users() -> None:
    cells = nn.LSTM(5, 4, batch_first=True)
    model: Any = Written(lambda m, x: m.fc(m.cells(x, (m.h, m.c))[1][1][0]), cells=cells, fc=nn.Linear(4, 3))
    model.h, model.c = images(1, 2, 4), images(1, 2, 4, seed=5)
    tape = same_as_engine(model, images(2, 6, 5), [0, 1])
    assert tape.node("cells").inputs[1:3] == ("h", "c")
    assert "cells" not in tape.gradients
    np.testing.assert_allclose(tape.gradients["cells.0.c"][:, -1], tape.gradients["cells.c_n"][0], atol=1e-7)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [("LSTM", {"bidirectional": True}), ("GRU", {}), ("RNN", {"nonlinearity": "relu"}), ("LSTM", {"proj_size": 4})],
)
def test_what_the_textbook_has_not_is_one_operation_without_a_rule(kind: str, settings: Any) -> None:
    if "proj_size" in settings:
        torch.manual_seed(0)
        cells = nn.LSTM(5, 6, proj_size=4, batch_first=True)
        model: Any = Written(lambda m, x: m.fc(m.cells(x)[0][:, -1]), cells=cells, fc=nn.Linear(4, 3))
    else:
        model = network(kind, batch_first=True, **settings)
    tape = same_as_engine(model, images(2, 6, 5), [0, 1])
    assert tape.node("cells").op.startswith("aten.")
    assert not [name for name in tape.values if name.startswith("cells.0")]
    assert tape.notes == []


def test_numbers_that_are_not_finite_are_not_opened() -> None:
    model = network("LSTM", batch_first=True)
    tape = record(model, images(2, 6, 5) * float("nan"), [0, 1])
    assert not [name for name in tape.values if name.startswith("cells.0")]
    assert any(note.startswith("cells: not opened into cells") for note in tape.notes)
    assert tape.notes[0].startswith("the first number that is not finite is input[0,0,0], of input: nan")


@pytest.mark.parametrize("mode", [torch.no_grad, torch.enable_grad, torch.inference_mode])
def test_without_a_loss_the_pass_is_that_of_the_mode_around_it(mode: Any) -> None:
    """The engine's LSTM takes another path, with other roundings, where no gradient is to pass."""
    torch.manual_seed(0)
    cells = nn.LSTM(28, 64, 3, batch_first=True)
    model = Written(lambda m, x: m.fc(m.cells(x)[0][:, -1]), cells=cells, fc=nn.Linear(64, 3))
    x = images(2, 28, 28)
    with mode():
        tape, logits = record(model, x), model(x)
    np.testing.assert_array_equal(tape.values[tape.output], logits.detach().numpy())
