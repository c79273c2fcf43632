"""Exported graphs as flat lists of steps."""

from __future__ import annotations

from typing import Any

import torch
from tests.explain.recording import images, pooled, small
from torch import nn

from pellucid.explain.graph import GRAD_REGION, bound, found, mapped, program_of, written


def test_a_region_without_gradients_is_unrolled() -> None:
    def forward(m: Any, x: torch.Tensor) -> Any:
        y = m.conv(x)
        with torch.no_grad():
            z = y * 2
            with torch.enable_grad():
                z = z + y
        return pooled(m, y * z)

    program = program_of(torch.export.export(small(forward), (images(),)), ())
    assert program.regions == {GRAD_REGION}
    steps = [(str(s.target).split(".")[1], s.grad) for s in program.steps]
    assert [name for name, _ in steps] == ["conv2d", "mul", "add", "mul", "mean", "linear"]
    assert [grad for _, grad in steps] == [True, False, True, True, True, True]
    assert program.readers[program.steps[0].node] == [1, 2, 3]
    assert program.last_read(program.outputs[0]) == len(program.steps)
    assert program.kept() == list(range(6))


def test_counters_are_not_kept_and_parts_are_counted_by_who_reads_them() -> None:
    def forward(m: Any, x: torch.Tensor) -> Any:
        y = m.norm(m.norm(x))
        left, right = y.chunk(2, 1)
        return right.relu() if left is not None else right

    model = small(forward, norm=nn.BatchNorm2d(2))
    program = program_of(torch.export.export(model, (images(2, 2, 3, 3),)), ())
    kept = [str(program.steps[k].target) for k in program.kept()]
    assert kept == ["aten.batch_norm.default"] * 2 + ["aten.chunk.default", "aten.relu.default"]
    chunk = program.steps[program.kept()[2]]
    assert program.picked(chunk.node) == {1}
    assert [call.readers for call in program.calls(program.kept())] == [(1,), (2,), (3,), (4,)]


def test_inputs_say_what_they_are() -> None:
    model = small(lambda m, x: pooled(m, m.conv(x)) + m.shift + torch.tensor(2.0))
    model.register_buffer("shift", torch.zeros(5))
    program = program_of(torch.export.export(model, (images(),)), ())
    kinds = {name: kind for _, kind, name in program.inputs}
    assert kinds["conv.weight"] == "PARAMETER"
    assert kinds["shift"] == "BUFFER"
    assert list(kinds.values()).count("USER_INPUT") == 1
    assert set(program.constants) == {name for name, kind in kinds.items() if kind == "CONSTANT_TENSOR"}


def test_arguments_are_bound_by_name_with_defaults() -> None:
    schema = torch.ops.aten.conv2d.default._schema
    assert bound(schema, (1, 2), {"padding": [1, 1]}) == {
        "input": 1,
        "weight": 2,
        "bias": None,
        "stride": [1, 1],
        "padding": [1, 1],
        "dilation": [1, 1],
        "groups": 1,
    }


def test_what_an_operation_writes_to() -> None:
    assert written(torch.ops.aten.add_.Tensor._schema) == ["self"]
    assert written(torch.ops.aten.view.default._schema) == []
    assert written(torch.ops.aten.add.Tensor._schema) == []


def test_nested_values_are_mapped_and_found() -> None:
    nested = {"a": [1, (2.5, "x")], "b": 3}
    assert mapped(nested, lambda n: n + 1, lambda v: isinstance(v, int)) == {"a": [2, (2.5, "x")], "b": 4}
    assert found(nested, lambda v: isinstance(v, int)) == [1, 3]
