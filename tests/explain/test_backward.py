"""Gradients of any number from a tape, against autograd and finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.explain.building import Builder, replayed
from tests.explain.test_field import excited, inception, residual

from pellucid.errors import UsageError
from pellucid.explain.address import find
from pellucid.explain.backward import backward_from
from pellucid.explain.tape import Tape


def slope(tape: Tape, address: str, name: str, index: tuple[int, ...], step: float = 1e-6) -> float:
    """The central difference of a number with respect to one number of an input or a parameter."""
    where, ends = find(tape, address), []
    for sign in (1, -1):
        moved = tape.values[name].copy()
        moved[index] += sign * step
        value = replayed(tape, {name: moved})[where.node]
        ends.append(float(value.sum() if where.index is None else value[where.index]))
    return (ends[0] - ends[1]) / (2 * step)


def checked(tape: Tape, address: str, names: list[str]) -> None:
    found = backward_from(tape, address, names)
    rng = np.random.default_rng(0)
    for name in names:
        assert found[name].shape == tape.values[name].shape
        for _ in range(12):
            index = tuple(int(rng.integers(size)) for size in tape.values[name].shape)
            assert found[name][index] == pytest.approx(slope(tape, address, name, index), rel=1e-4, abs=1e-6)


def test_through_blocks_branches_and_gates() -> None:
    build = Builder(1)
    x = residual(build, build.input(2, 2, 6, 6), "block", 3, stride=2)
    x = excited(build, inception(build, x, "mixed"), "se")
    x = build.op("flatten", "flatten", build.op("gap", "global_average_pool", x))
    tape = build.tape(build.linear("fc", x, 3))
    checked(tape, "fc[1,2]", ["input", "block.conv1.weight", "fc.bias", "block.bn1.weight"])
    checked(tape, "mixed.cat", ["input"])


def test_only_what_lies_between_is_computed() -> None:
    build = Builder(2)
    x = build.op("relu", "relu", build.conv("conv1", build.input(1, 1, 5, 5), 2))
    x = build.op("gap", "global_average_pool", build.conv("conv2", x, 2))
    tape = build.tape(build.linear("fc", build.op("flat", "flatten", x), 2))
    found = backward_from(tape, "fc[0,0]", ["conv2"])
    assert set(found) == {"fc", "flat", "gap", "conv2"}
    np.testing.assert_allclose(
        found["conv2"], np.broadcast_to(tape.values["fc.weight"][0, :, None, None], (1, 2, 1, 1))
    )


@pytest.mark.parametrize("kind", ["rnn", "lstm"])
def test_through_time_with_the_interior(kind: str) -> None:
    build = Builder(3)
    x = build.lstm("net", build.input(2, 3, 2), 2, layers=2, kind=kind)
    tape = build.tape(build.linear("fc", build.op("last", "select", x, axis=1, index=2), 2))
    checked(tape, "fc[1,0]", ["input", "net.weight_hh_l0", "net.bias_ih_l1"])
    found = backward_from(tape, "fc[1,0]")
    assert found["net.0.h"].shape == (2, 3, 2)
    np.testing.assert_allclose(found["net.1.h"][1, 2], tape.values["fc.weight"][0])
    checked(tape, "net.h_n[0,1,1]", ["input"])


def test_against_autograd_on_a_recorded_network() -> None:
    from pellucid.explain.record import record

    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3, padding=1, bias=False),
        torch.nn.BatchNorm2d(4),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Conv2d(4, 6, 3, stride=2),
        torch.nn.Tanh(),
        torch.nn.Flatten(),
        torch.nn.Linear(54, 5),
    ).eval()
    x = torch.randn(2, 1, 14, 14, requires_grad=True)
    tape = record(net, x.detach())
    (wanted,) = torch.autograd.grad(net(x)[1, 3], x)
    found = backward_from(tape, f"{tape.output}[1,3]")[tape.inputs[0]]
    np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-4, atol=1e-7)


def test_a_number_used_twice_gets_both_gradients() -> None:
    build = Builder(6)
    x = build.input(1, 3)
    tape = build.tape(build.op("cube", "multiply", build.op("square", "multiply", x, x), x))
    np.testing.assert_allclose(backward_from(tape, "cube")["input"], 3 * tape.values["input"] ** 2)


def test_what_a_value_does_not_depend_on_has_none() -> None:
    build = Builder(4)
    left, right = build.input(1, 2, name="left"), build.input(1, 3, name="right")
    build.linear("a", left, 2)
    tape = build.tape(build.linear("b", right, 2))
    assert set(backward_from(tape, "b[0,0]")) == {"b", "right"}


def test_refusals() -> None:
    build = Builder(5)
    x = build.lstm("net", build.input(1, 2, 2), 2)
    build.add("sorted", "aten.sort.default", (x,), {}, np.sort(build.values[x]))
    labels = build.leaf("constant", "labels", np.array([1]))
    tape = build.tape(build.op("tanh", "tanh", "sorted"))
    with pytest.raises(UsageError, match=r"aten\.sort\.default.*has no rule"):
        backward_from(tape, "tanh[0,0,0]")
    with pytest.raises(UsageError, match=r"net\.0\.f: lies inside net"):
        backward_from(tape, "net.0.f[0,0,0]")
    with pytest.raises(UsageError, match="labels: holds whole numbers"):
        backward_from(tape, labels)
    with pytest.raises(UsageError, match="did you mean 'input'"):
        backward_from(tape, "tanh[0,0,0]", ["inputs"])
    tape.loss, tape.gradients = "tanh", {"tanh": np.ones((1, 2, 2))}
    with pytest.raises(UsageError, match="gradients start at a value"):
        backward_from(tape, "tanh.grad[0,0,0]")
