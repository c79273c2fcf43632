"""Operations in place, aliases, shared weights and regions: where a recording could go wrong without a word."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tests.explain.recording import Step, assert_untouched, images, ops, pooled, same_as_engine, small, state
from torch import nn

from pellucid.errors import UsageError
from pellucid.explain.record import record


def setitem(m: Any, x: torch.Tensor) -> Any:
    y = m.conv(x)
    y[:, 0] += 1
    return pooled(m, y * y)


def view_changed(m: Any, x: torch.Tensor) -> Any:
    y = m.conv(x)
    y[:, 1:3].relu_()
    return pooled(m, y)


def base_changed(m: Any, x: torch.Tensor) -> Any:
    y = m.conv(x)
    flat = y.flatten(2)
    y.mul_(2)
    return pooled(m, y) + flat.sum()


def old_value_read(m: Any, x: torch.Tensor) -> Any:
    y = m.conv(x) * 1
    alias = y.view_as(y)
    y.add_(1)
    return pooled(m, alias * 3)


def dropped_and_changed(m: Any, x: torch.Tensor) -> Any:
    # A dropout at rest gives its own input, which no schema says.
    y = m.conv(x) * 1
    z = m.drop(y)
    z.add_(1)
    return pooled(m, y)


UNSAFE: dict[str, Step] = {f.__name__: f for f in (setitem, view_changed, base_changed, old_value_read)}
SAFE: dict[str, Step] = {
    "relu": lambda m, x: pooled(m, m.relu(m.conv(x))),
    "relu twice": lambda m, x: pooled(m, m.relu(m.relu(m.conv(x)) - 0.1)),
    "relu of a sum": lambda m, x: pooled(m, torch.relu_(m.conv(x) + m.conv(x))),
    "add in place": lambda m, x: pooled(m, m.conv(x).add_(m.conv(x))),
    "square": lambda m, x: pooled(m, (y := m.conv(x)) * y),
    "a view in place, its base not read": lambda m, x: pooled(m, m.conv(x)[:, :4].mul_(2)),
}


@pytest.mark.parametrize("name", SAFE)
def test_operations_in_place_become_functions(name: str) -> None:
    tape = same_as_engine(small(SAFE[name], relu=nn.ReLU(inplace=True)), images(), [0, 1])
    assert not [op for op in ops(tape).values() if op.startswith("aten")]
    if name.startswith("relu"):
        before, after = tape.values["add" if "sum" in name else "conv"], tape.values["relu"]
        np.testing.assert_array_equal(after, np.maximum(before, 0))
        assert (before < 0).any()


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", UNSAFE)
def test_what_is_read_through_an_alias_is_as_the_engine_has_it(name: str, training: bool) -> None:
    model = small(UNSAFE[name])
    for _ in range(2):  # the second time from what was kept of the first
        same_as_engine(model, images(), [0, 1], training=training)


def test_a_dropout_at_rest_is_an_alias() -> None:
    model = small(dropped_and_changed, drop=nn.Dropout(0.4))
    same_as_engine(model, images(), [0, 1], training=True)
    before = state(model)
    # run_decompositions gives a graph without the change; torch 2.13.
    with pytest.raises(UsageError, match="in a way that torch loses track of: replace x \\+= y by x = x \\+ y"):
        record(model, images(), [0, 1])
    assert_untouched(model, before)
    model.step = lambda m, x: pooled(m, m.drop(m.conv(x) * 1).add_(1))
    same_as_engine(model, images(), [0, 1])


def test_dropout_and_statistics_survive_the_freeing_of_a_graph() -> None:
    model = small(
        lambda m, x: setitem(m, x) + pooled(m, m.drop(m.norm(m.conv(x)))), drop=nn.Dropout(0.4), norm=nn.BatchNorm2d(4)
    )
    tape = same_as_engine(model, images(), [0, 1], training=True)
    np.testing.assert_array_equal(np.unique(tape.values["drop.mask"]), [0, 1])
    assert tape.node("drop").op == "dropout"
    assert tape.node("norm").attributes["training"]


def test_the_users_images_are_not_changed_in_place() -> None:
    x = images()
    kept = x.clone()
    tape = record(small(lambda m, x: pooled(m, m.conv(x.mul_(2)))), x)
    assert torch.equal(x, kept)
    np.testing.assert_array_equal(tape.values["input"], kept.numpy())
    np.testing.assert_array_equal(tape.values["mul"], 2 * kept.numpy())


def test_tied_weights_are_one_node() -> None:
    second = nn.Linear(4, 4)
    model = small(lambda m, x: m.fc(m.second(m.first(m.conv(x).mean((2, 3))))), first=nn.Linear(4, 4), second=second)
    second.weight = model.first.weight
    tape = same_as_engine(model, images(), [0, 1])
    assert tape.aliases["second.weight"] == "first.weight"
    assert tape.node("second").inputs == ("first", "first.weight", "second.bias")
    assert "second.weight" not in tape.values
    shared = small(lambda m, x: m.fc(m.b(m.a(m.conv(x).mean((2, 3))))), a=(one := nn.Linear(4, 4)), b=one)
    same_as_engine(shared, images(), [0, 1])


def test_a_module_called_twice_gives_two_nodes() -> None:
    block = nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU())
    model = small(lambda m, x: pooled(m, m.block(m.block(m.conv(x)))), block=block)
    tape = same_as_engine(model, images(), [0, 1])
    assert list(ops(tape))[:5] == ["conv", "block.0", "block.1", "block.0@2", "block.1@2"]
    assert tape.aliases["block"] == "block.1"
    assert tape.aliases["block@2"] == "block.1@2"


def test_statistics_are_kept_as_they_stood_before() -> None:
    model = small(lambda m, x: pooled(m, m.norm(m.norm(m.conv(x)))), norm=nn.BatchNorm2d(4))
    model.norm.running_mean.add_(0.5)
    for training in (True, False):
        tape = same_as_engine(model, images(), [0, 1], training=training)
        np.testing.assert_array_equal(tape.values["norm.running_mean"], np.full(4, 0.5, np.float32))
        assert list(ops(tape)) == ["conv", "norm", "norm@2", "mean", "fc", "loss"]


def test_frozen_parameters_have_gradients_and_stay_frozen() -> None:
    model = small(lambda m, x: pooled(m, m.conv(x)))
    whole = record(model, images(), [0, 1]).gradients
    model.conv.requires_grad_(False)
    frozen = record(model, images(), [0, 1]).gradients
    assert not model.conv.weight.requires_grad
    for name, gradient in whole.items():
        np.testing.assert_array_equal(frozen[name], gradient, name)


def test_a_region_without_gradients_passes_none() -> None:
    def forward(m: Any, x: torch.Tensor) -> Any:
        y = m.conv(x)
        with torch.no_grad():
            z = y * 2 + 1
        return pooled(m, y * z)

    tape = same_as_engine(small(forward), images(), [0, 1])
    assert {"mul", "add"} & set(tape.gradients) == set()
    assert tape.node("mul@2").inputs == ("conv", "add")


def test_the_casts_of_an_autocast_are_nodes() -> None:
    def forward(m: Any, x: torch.Tensor) -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            return pooled(m, m.relu(m.conv(x)))

    tape = same_as_engine(small(forward, relu=nn.ReLU(inplace=True)), images(), [0, 1])
    assert tape.precision == "bfloat16"
    assert tape.values["conv.weight"].dtype == np.float32
    casts = ["conv.to_copy", "conv.to_copy@2", "conv.to_copy@3"]
    assert list(ops(tape)) == [*casts, "conv", "relu", "mean", "fc.to_copy", "fc.to_copy@2", "fc", "loss"]
    assert {tape.node(name).inputs[0] for name in casts} == {"input", "conv.weight", "conv.bias"}
    assert tape.node("mean").source.startswith("test_run.py:")


def test_values_drawn_in_the_pass_are_replayed() -> None:
    model = small(lambda m, x: pooled(m, m.conv(x) * torch.rand(2, 1, 1, 1)))
    tape = same_as_engine(model, images(), [0, 1])
    assert tape.node("rand").op == "constant"


@pytest.mark.parametrize("drop", [nn.Dropout(0.3), nn.Dropout(0.4, inplace=True), nn.Dropout2d(0.3), nn.Dropout(0.0)])
def test_dropout_is_replayed_with_its_mask(drop: Any) -> None:
    tape = same_as_engine(small(lambda m, x: pooled(m, m.drop(m.conv(x))), drop=drop), images(), [0, 1], training=True)
    p = drop.p
    if p:
        x, mask, y = (tape.values[name] for name in ("conv", "drop.mask", "drop"))
        np.testing.assert_allclose(y, x * mask / (1 - p), rtol=1e-6)
    assert tape.node("drop").op == ("dropout" if p else "identity")


@pytest.mark.parametrize("drop", [nn.Dropout(1.0), nn.AlphaDropout(0.4)])
def test_a_dropout_without_a_rule_keeps_its_numbers(drop: Any) -> None:
    tape = same_as_engine(small(lambda m, x: pooled(m, m.drop(m.conv(x))), drop=drop), images(), [0, 1], training=True)
    assert tape.node("drop").op.startswith("aten.")
    assert tape.node("drop").inputs == ("conv",)


def test_parts_of_a_value_are_nodes_of_their_own() -> None:
    def forward(m: Any, x: torch.Tensor) -> Any:
        left, right = m.conv(x).chunk(2, 1)
        return pooled(m, torch.cat([right, left * 2], 1))

    tape = same_as_engine(small(forward), images(), [0, 1])
    assert ops(tape)["chunk"] == ops(tape)["chunk.1"] == "slice"
    np.testing.assert_array_equal(tape.values["chunk.1"], tape.values["conv"][:, 2:])


def test_constants_are_leaves() -> None:
    model = small(lambda m, x: pooled(m, (m.conv(x) - torch.tensor([1.0, 2, 3, 4]).view(1, 4, 1, 1)) / m.k * 0.1))
    model.k = torch.tensor(3.0)
    tape = same_as_engine(model, images(), [0, 1])
    assert tape.node("k").op == "constant"
    name = tape.node("mul").inputs[1]
    assert name == "mul.b"
    assert tape.node(name).op == "constant"
    assert tape.values[name] == np.float32(0.1)


def test_an_output_that_is_an_input_is_one_node() -> None:
    tape = record(nn.Identity(), images(2, 4), [0, 1])
    assert tape.output == "input"
    assert "input" in tape.gradients
