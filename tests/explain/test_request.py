"""Requests that cannot be met are refused in one sentence, and leave the model as it was."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from tests.explain.recording import assert_untouched, images, state
from torch import nn, optim

from pellucid import nets
from pellucid.errors import UsageError
from pellucid.explain.record import record


def refused(sentence: str, model: Any, *arguments: Any, **settings: Any) -> None:
    before = state(model) if isinstance(model, nn.Module) else None
    with pytest.raises(UsageError, match=f"^{re.escape(sentence)}$"):
        record(model, *arguments, **settings)
    if before is not None:
        assert_untouched(model, before)


def linear() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(3, 4)


@pytest.mark.parametrize(
    ("label", "sentence"),
    [
        (3, "the label has shape (1,), but there are 2 images: give one class for each"),
        ([0, 1, 2], "the label has shape (3,), but there are 2 images: give one class for each"),
        ([0, 4], "label 4 is none of the model's 4 classes: give one from 0 to 3"),
        ([-1, 0], "label -1 is none of the model's 4 classes: give one from 0 to 3"),
        ([0.5, 1], "the label is of type float32: give class numbers from 0 to 3, or a loss"),
        ([True, False], "the label is of type bool: give class numbers from 0 to 3, or a loss"),
    ],
)
def test_labels(label: Any, sentence: str) -> None:
    refused(sentence, linear(), images(2, 3), label)


def test_labels_of_any_kind_of_whole_number() -> None:
    for label in ([1, 2], (1, 2), torch.tensor([1, 2], dtype=torch.uint8), np.array([1, 2], np.int32)):
        assert record(linear(), images(2, 3), label).values["label"].tolist() == [1, 2]
    assert record(linear(), images(1, 3), 2).values["label"].tolist() == [2]


def test_logits_that_are_none() -> None:
    sentence = "cross-entropy is of logits (N, classes), and these have shape (2, 5, 4): give a loss"
    refused(sentence, linear(), images(2, 5, 3), [0, 1])
    refused("the model gives no tensor, so there are no logits to explain: let forward return them", Silent(), images())


class Silent(nn.Module):
    def forward(self, x: torch.Tensor) -> None:
        x.sum()


def test_losses() -> None:
    sentence = (
        "the loss gives shape (2, 4) (torch.float32), and gradients are of a single number: end it in a mean or a sum"
    )
    refused(sentence, linear(), images(2, 3), loss=lambda y: y)
    with pytest.raises(
        UsageError, match=r"^the loss does not take logits of shape \(2, 4\) of float32 and a label of sha"
    ):
        record(linear(), images(2, 3), torch.zeros(3, 4), loss=lambda y, t: (y - t).sum())


def test_steps_and_clipping() -> None:
    model = linear()
    sgd = optim.SGD(model.parameters(), 0.1)
    refused(
        "a step of the optimizer needs gradients: give record() a label or a loss as well",
        model,
        images(2, 3),
        optimizer=sgd,
    )
    sentence = "clip={'norm': 1} says how gradients are clipped before a step: give record() the optimizer"
    refused(sentence, model, images(2, 3), [0, 1], clip={"norm": 1})
    sentence = """clip is {'nrom': 1}: write {"norm": limit} or {"value": limit} (did you mean 'norm'?)"""
    refused(sentence, model, images(2, 3), [0, 1], optimizer=sgd, clip={"nrom": 1})
    for limit in (0, -1.0, float("nan"), float("inf"), "1"):
        sentence = f"clip is {{'value': {limit!r}}}: the limit of a gradient's value is a number above 0"
        refused(sentence, model, images(2, 3), [0, 1], optimizer=sgd, clip={"value": limit})
    sentence = (
        "the optimizer holds a parameter of shape (4, 3) that is none of the model's: make it over the parameters of "
        "the model that is recorded"
    )
    refused(sentence, model, images(2, 3), [0, 1], optimizer=optim.SGD(linear().parameters(), 0.1))
    with pytest.raises(
        UsageError, match=r"^LBFGS needs more than gradients for a step .*'closure'\): give record\(\) an"
    ):
        record(model, images(2, 3), [0, 1], optimizer=optim.LBFGS(model.parameters()))


def test_images_and_models() -> None:
    refused("images is of str, which is no tensor or array: give (N, C, H, W)", linear(), "cat.png")
    sentence = "the model has layers that take their size from a first batch: call model(images) once first"
    with pytest.raises(UsageError, match=f"^{re.escape(sentence)}$"):
        record(nn.LazyLinear(2), images(2, 3))
    with torch.autocast("cpu"):
        refused(
            "record() was called inside torch.autocast, which hides its casts: write the autocast into the model's "
            "forward, and call record() outside",
            linear(),
            images(2, 3),
        )


@pytest.mark.filterwarnings("ignore:The tensor attributes:UserWarning")
def test_programs_are_for_the_shapes_and_the_mode_they_were_exported_for() -> None:
    program = torch.export.export(nn.LSTM(3, 4, batch_first=True).eval(), (images(2, 5, 3),))
    # Run on another batch, the graph would read and write outside its memory.
    sentence = (
        "the images have shape (5, 5, 3) (torch.float32), but the program was exported for (2, 5, 3) (torch.float32): "
        "give those, or export it for these"
    )
    refused(sentence, program, images(5, 5, 3))
    sentence = (
        "the training pass is asked for, but the program was exported in evaluation mode, which is fixed in it: pass "
        "training=False, or export the model in training mode"
    )
    refused(sentence, program, images(2, 5, 3), training=True)
    trained = torch.export.export(nn.Dropout().train(), (images(2, 3),))
    with pytest.raises(
        UsageError, match=r"^the evaluation pass is asked for, .* pass training=True, or export the model in"
    ):
        record(trained, images(2, 3))
    refused("the model takes 1 tensors, but 2 are given", program, (images(2, 5, 3), images(2, 5, 3)))


def test_regions_that_contradict_each_other() -> None:
    class Both(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                y = x * 2
                y[:, 0] += 1
            return x * y

    model = Both()
    assert record(model, images(2, 3)).output == "mul@2"
    with pytest.raises(UsageError, match=r"^the model turns gradients off for a part of its pass"):
        record(model, images(2, 3), [0, 1])


def test_recording_fails_without_a_trace() -> None:
    model = nets.build("lenet5", 10, (1, 32, 32), seed=0).train()
    model(images(2, 1, 32, 32)).sum().backward()
    refused(
        "the model does not take images of shape (2, 1, 30, 30) of float32: in conv3 (Conv2d): Calculated padded input "
        "size per channel: (4 x 4). Kernel size: (5 x 5). Kernel size can't be greater than actual input size; give "
        "images of shape (N, 1, 32, 32), in the type of its weights",
        model,
        images(2, 1, 30, 30),
        training=True,
    )
    refused("label 10 is none of the model's 10 classes: give one from 0 to 9", model, images(1, 1, 32, 32), 10)
