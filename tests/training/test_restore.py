"""The step a finished run would take next, from its folder."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

import pellucid
from pellucid.errors import DataError
from pellucid.explain.record import record
from pellucid.files import read_tensors, read_tensors_metadata, write_json, write_tensors
from pellucid.training.losses import balanced, focal
from pellucid.training.restore import last_step, own_loss

PINS: dict[str, Any] = {
    "precision": "float32",
    "layout": "nchw",
    "threads": 1,
    "epochs": 2,
    "batch_size": 64,
    "sample": 0.3,
}
NET = "INPUT(1,8,8) -> CONV(4) -> POOL -> CONV(8) -> POOL -> FC(classes)"


@pytest.fixture
def digits(tmp_path: Path) -> Any:
    def train(**settings: Any) -> tuple[Path, Any]:
        run = pellucid.train("digits", out=tmp_path / "run", **{"net": NET} | PINS | settings)
        return run.folder, run.recogniser.model

    return train


@pytest.mark.parametrize(
    ("settings", "rule", "state"),
    [
        ({"optimizer": "sgd"}, "gradient_descent", None),
        ({"optimizer": "nesterov", "clip_norm": 0.5}, "nesterov", "velocity"),
        ({"optimizer": "rmsprop", "clip_value": 0.01}, "rmsprop_keras", "square_average"),
        ({"optimizer": "adam", "lr_decay_by_depth": 0.5}, "adam", "m"),
        ({"optimizer": "adam+adamw@0.4", "freeze": 1}, "adamw", "v"),
        ({"optimizer": "adadelta", "label_smoothing": 0.1}, "adadelta", "delta_average"),
        ({"optimizer": "adagrad", "loss": "focal"}, "adagrad", "square_sum"),
    ],
)
def test_every_rule_goes_on_as_the_engine_would(
    digits: Any, settings: dict[str, Any], rule: str, state: str | None
) -> None:
    folder, model = digits(**settings)
    step = last_step(folder, model)
    assert step.optimizer is not None
    image, label = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([3])
    loss, _ = own_loss(folder, tuple("0123456789"))
    tape = record(model, image, 3, loss=loss, optimizer=step.optimizer, clip=step.clip)
    weight = "fc1.weight"
    assert tape.update is not None
    assert tape.update.parameters[weight].rule == rule
    if state is not None:
        assert np.abs(tape.value(f"{weight}.state.{state}")).max() > 0
    for index in ("[3,0]", "[9,17]"):
        assert tape.why(f"{weight}.next{index}").relative < 1e-5
    # The same step, taken by the engine on a copy.
    mine, mover = copy.deepcopy((model, step.optimizer))
    mover.zero_grad()
    (loss or functional.cross_entropy)(mine(image), label).backward()  # type: ignore[no-untyped-call]
    if step.clip is not None and "norm" in step.clip:
        torch.nn.utils.clip_grad_norm_(mine.parameters(), step.clip["norm"])
    elif step.clip is not None:
        torch.nn.utils.clip_grad_value_(mine.parameters(), step.clip["value"])
    mover.step()
    np.testing.assert_array_equal(tape.after[weight], mine.get_parameter(weight).detach().numpy())


def test_the_loss_is_the_runs_own_with_its_weights_of_classes(digits: Any) -> None:
    folder, model = digits(loss="focal", balance="weights", val=0.2)
    loss, _ = own_loss(folder, tuple("0123456789"))
    assert loss is not None
    image, label = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([3, 1, 4, 1, 5])
    rows = [line.split(",") for line in (folder / "images.csv").read_text().splitlines()[1:]]
    counts = [sum(row[1:3] == [str(digit), "train"] for row in rows) for digit in range(10)]
    assert sum(counts) > 100
    with torch.no_grad():
        expected = focal(model(image), label, weight_k=balanced(counts).float())
        torch.testing.assert_close(loss(model(image), label), expected)


def test_plain_cross_entropy_a_bundle_alone_and_a_loss_of_ones_own_are_recorded_as_cross_entropy(
    digits: Any, tmp_path: Path
) -> None:
    folder, _ = digits()
    assert own_loss(folder, "0123456789") == (None, [])
    assert own_loss(folder / "bundle", "0123456789") == (None, [])
    write_json(tmp_path / "recipe.json", {"data": "digits", "optimisation": {"loss": "custom"}})
    loss, notes = own_loss(tmp_path, "0123456789")
    assert loss is None
    assert "the run's own is known to the program that trained it alone" in notes[0]


def test_the_memory_is_the_checkpoints(digits: Any) -> None:
    folder, model = digits(optimizer="adam")
    step = last_step(folder, model)
    assert step.optimizer is not None
    arrays = read_tensors(folder / "checkpoints" / "last.safetensors")
    moments = [array for name, array in arrays.items() if name.endswith(".exp_avg")]
    found = [state["exp_avg"].numpy() for state in step.optimizer.state.values()]
    assert sorted(float(array.sum()) for array in found) == sorted(float(array.sum()) for array in moments)
    assert any("epoch 2, learning rate" in note for note in step.notes)


def test_rates_by_depth_stay_apart(digits: Any) -> None:
    folder, model = digits(lr_decay_by_depth=0.5)
    step = last_step(folder, model)
    assert step.optimizer is not None
    rates = [group["lr"] for group in step.optimizer.param_groups]
    assert max(rates) == pytest.approx(4 * min(rates))


def test_a_bundle_alone_has_none(digits: Any) -> None:
    folder, model = digits()
    step = last_step(folder / "bundle", model)
    assert step.optimizer is None
    assert "no checkpoint" in step.notes[0]


def test_a_checkpoint_of_another_network_is_refused(digits: Any) -> None:
    folder, model = digits(optimizer="adam")
    path = folder / "checkpoints" / "last.safetensors"
    arrays, metadata = read_tensors(path), read_tensors_metadata(path)
    forged = {name: array[..., :1] if name.endswith("exp_avg") else array for name, array in arrays.items()}
    write_tensors(path, forged, metadata)
    with pytest.raises(DataError, match=r"last\.safetensors"):
        last_step(folder, model)


def test_quick_goes_on_with_its_shifts_at_their_own_rate_and_its_stem_held_still(digits: Any) -> None:
    folder, model = digits(net="quick(4)", bias_rate=4.0)
    step = last_step(folder, model)
    assert step.optimizer is not None
    rates = {id(p): group["lr"] for group in step.optimizer.param_groups for p in group["params"]}
    held = {name for name, p in model.named_parameters() if id(p) not in rates}
    assert held == {"stem.conv.weight", *(name for name in dict(model.named_parameters()) if "norm.weight" in name)}
    usual = rates[id(model.get_parameter("head.weight"))]
    assert rates[id(model.get_parameter("block1.norm.bias"))] == pytest.approx(4 * usual)
    # The memory is that of each parameter's own.
    arrays = read_tensors(folder / "checkpoints" / "last.safetensors")
    saved = sorted(float(np.abs(value).sum()) for key, value in arrays.items() if key.startswith("optimizer."))
    taken = sorted(float(state["momentum_buffer"].abs().sum()) for state in step.optimizer.state.values())
    assert taken == pytest.approx(saved)
    for parameter, state in step.optimizer.state.items():
        assert state["momentum_buffer"].shape == parameter.shape
