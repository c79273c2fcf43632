"""What was exported is used again, and never when it is out of date."""

from __future__ import annotations

import copy
import gc
from typing import Any

import numpy as np
import pytest
import torch
from tests.explain.recording import images, pooled, small
from torch import nn

from pellucid.explain.cache import PROGRAMS, forget
from pellucid.explain.record import record


def test_what_was_exported_is_used_again_until_something_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    exports = []
    export = torch.export.export

    def counted(model: nn.Module, *rest: Any, **more: Any) -> Any:
        exports.append(type(model).__name__)
        return export(model, *rest, **more)

    monkeypatch.setattr(torch.export, "export", counted)
    model = small(lambda m, x: pooled(m, m.pool(m.conv(x))), pool=nn.MaxPool2d(2, 1))

    def again(x: torch.Tensor = images(), **more: Any) -> int:  # noqa: B008
        exports.clear()
        tape = record(model, x, [0] * len(x), **more)
        own = copy.deepcopy(model).train(bool(more.get("training")))
        np.testing.assert_array_equal(tape.values[tape.output], own(x).detach().numpy())
        return exports.count("Written")

    assert again() == 1
    assert again() == 0
    with torch.no_grad():
        model.conv.weight.mul_(2)
    assert again() == 0
    assert again(images(3, 3, 6, 6)) == 1
    assert again(images(2, 3, 6, 6, seed=9)) == 0
    assert again(training=True) == 1
    model.pool.stride = 2
    assert again() == 1
    handle = model.conv.register_forward_hook(lambda _module, _args, y: y * 3)
    assert again() == 1
    handle.remove()
    model.pool = nn.AvgPool2d(2)
    assert again() == 1
    assert forget(model) == 6
    assert forget(model) == 0
    assert again() == 1


def test_a_model_that_is_gone_takes_its_graphs_with_it() -> None:
    forget()
    model = nn.Linear(3, 2)
    record(model, images(2, 3))
    record(model, images(4, 3))
    assert [len(kept) for kept in PROGRAMS.values()] == [2]
    del model
    gc.collect()
    assert len(PROGRAMS) == 0
    assert forget() == 0


def test_a_failed_recording_leaves_nothing_behind() -> None:
    forget()
    model = nn.Linear(3, 2)
    with pytest.raises(ValueError, match="does not take images"):
        record(model, images(2, 4))
    assert forget() == 0


def test_an_object_at_an_old_ones_address_is_another() -> None:
    model = small(lambda m, x: pooled(m, m.scale(m.conv(x))))
    for factor in (1.0, 2.0, 3.0):
        # The function before is gone, and its address is free for this one.
        model.scale = eval(f"lambda y: y * {factor}")
        gc.collect()
        tape = record(model, images())
        np.testing.assert_array_equal(tape.values[tape.output], model(images()).detach().numpy())
