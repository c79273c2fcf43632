"""Why a model could not be recorded: torch's sentence, the module, the line, and what to change."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.explain.recording import assert_untouched, images, state
from torch import nn

from pellucid.errors import UsageError
from pellucid.explain import blame
from pellucid.explain.record import record


class Branches(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2 if x.sum() > 0 else x


class Leaves(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(x.detach().numpy() * 2)


class Net(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.fc, self.norm, self.inner = nn.Linear(3, 2), nn.BatchNorm1d(2), inner

    def forward(self, x: torch.Tensor) -> Any:
        return self.inner(self.norm(self.fc(x)))


@pytest.mark.parametrize(
    ("inner", "said", "remedy"),
    [
        (Branches(), "Could not guard on data-dependent", "replace the decision on a tensor's value by torch.where"),
        (Leaves(), ".numpy() is not supported", "let forward use tensors and torch's operations alone"),
    ],
)
def test_a_model_that_cannot_be_exported(
    inner: nn.Module, said: str, remedy: str, capfd: pytest.CaptureFixture[str]
) -> None:
    model = Net(inner).train()
    before = state(model)
    with pytest.raises(UsageError) as caught:
        record(model, images(2, 3), [0, 1], training=True)
    assert_untouched(model, before)
    message = str(caught.value)
    assert message.startswith(f"torch.export cannot export Net: in inner ({type(inner).__name__}, test_blame.py:")
    assert said in message
    assert remedy in message
    assert "\n" not in message
    # The error is the one report of it.
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger("torch._subclasses.fake_tensor").level == logging.NOTSET


def test_images_that_the_model_does_not_take(capfd: pytest.CaptureFixture[str]) -> None:
    model = Net(nn.Identity()).train()
    before = state(model)
    with pytest.raises(UsageError) as caught:
        record(model, images(2, 4), training=True)
    assert_untouched(model, before)
    line = Net.forward.__code__.co_firstlineno + 1
    assert str(caught.value) == (
        f"the model does not take images of shape (2, 4) of float32: in fc (Linear, test_blame.py:{line}): "
        "mat1 and mat2 shapes cannot be multiplied (2x4 and 3x2); "
        "give images of the shape it was built for, in the type of its weights"
    )
    assert capfd.readouterr() == ("", "")


def test_types_that_export_lets_pass() -> None:
    model = Net(nn.Identity())
    with pytest.raises(
        UsageError, match=r"images of shape \(2, 3\) of float64: in fc \(Linear.*must have the same dtype"
    ):
        record(model, images(2, 3).double())


def test_places_and_sentences() -> None:
    assert blame.sentence(ValueError("\n  one line.\n another")) == "one line"
    assert blame.sentence(ValueError()) == "ValueError"
    model = Net(Branches())

    def fails(self: nn.Module) -> None:
        raise ValueError("why")

    with pytest.raises(ValueError, match="why") as caught:
        fails(model.inner)
    error, here = caught.value, str(Path(__file__).parent)
    assert blame.module_at_fault(error, {id(model.inner): "inner"}) == ("inner", model.inner)
    assert blame.module_at_fault(error, {}) is None
    assert blame.line_at_fault(error).startswith("test_blame.py:")
    assert blame.line_at_fault(error, here) == ""
    assert blame.place(error, {}, here) == ""
