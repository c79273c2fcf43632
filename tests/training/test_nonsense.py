"""Numbers that are none, sent in at a chosen step and layer: the run stops there, and says where."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

import pellucid
from pellucid.data.batches import cuts, order
from pellucid.errors import PellucidError
from pellucid.files import read_tensors
from pellucid.training import Event, Started

PINS: dict[str, Any] = {
    "epochs": 3, "batch_size": 64, "augment": (), "size": 8, "precision": "float32", "layout": "nchw", "threads": 1,
}  # fmt: skip
#: Of digits' 1,797 pictures 360 are test and 144 val.
TRAIN = 1293


class Faulty(nn.Module):
    """Passes its input on; at the given call in training some pictures' numbers, or all gradients, become NaN."""

    def __init__(self, at: int, pictures: tuple[int, ...] = (), *, backwards: bool = False) -> None:
        super().__init__()
        self.at, self.pictures, self.backwards, self.calls = at, pictures, backwards, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training and torch.is_grad_enabled():
            self.calls += 1
        if not self.training or self.calls < self.at:
            return x
        x = x.clone()
        if self.backwards:
            x.register_hook(lambda grad: grad * math.nan)  # type: ignore[no-untyped-call]
        x[list(self.pictures)] = math.nan
        return x


def train(tmp_path: Path, fault: Faulty) -> tuple[str, dict[str, object], list[str]]:
    """The sentence, the file and the names of the training pictures."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), fault, nn.Linear(32, 10))
    names: list[str] = []

    def watch(event: Event) -> None:
        if isinstance(event, Started):
            lines = (event.folder / "images.csv").read_text(encoding="utf-8").splitlines()[1:]
            names.extend(line.split(",")[0] for line in lines if ",train," in line)

    with pytest.raises(PellucidError) as error:
        pellucid.train("digits", net=net, out=tmp_path / "run", lr=0.1, checkpoint_every=0, watch=watch, **PINS)
    return str(error.value), json.loads((tmp_path / "run" / "bad_step.json").read_text()), names


def test_the_first_layer_batch_and_pictures_are_named(tmp_path: Path) -> None:
    # The engine is pinned, so no step is taken to measure it; the network's check takes none in training mode.
    said, file, names = train(tmp_path, Faulty(at=25, pictures=(3, 17)))
    per_epoch = len(cuts(TRAIN, 64))
    epoch, number = divmod(24, per_epoch)
    index_n = order(0, epoch, TRAIN)[cuts(TRAIN, 64)[number]]
    expected = [names[index_n[3]], names[index_n[17]]]
    assert file["step"] == 25
    assert (file["epoch"], file["batch"]) == (epoch + 1, number + 1)
    assert file["layer"] == "3"
    assert file["pictures"] == expected
    assert "step 25," in said
    assert "first in the answer of 3 (Faulty), for 2 of its 64 pictures" in said
    assert all(name in said for name in expected)


def test_the_last_checkpoint_is_of_before_and_sound(tmp_path: Path) -> None:
    train(tmp_path, Faulty(at=25, pictures=(0,)))
    arrays = read_tensors(tmp_path / "run" / "checkpoints" / "last.safetensors", sealed=True)
    assert all(bool(torch.from_numpy(array).isfinite().all()) for array in arrays.values())
    with pytest.raises(PellucidError, match=r"no network of your own|give it to pellucid\.train"):
        list(pellucid.training.resume(tmp_path / "run"))


def test_an_update_that_ruins_the_weights_is_the_bad_step(tmp_path: Path) -> None:
    said, file, _ = train(tmp_path, Faulty(at=7, backwards=True))
    assert file["step"] == 7
    assert file["layer"] == "1.weight"
    assert "the weights 1.weight are no numbers after its update" in said


def test_a_loss_that_makes_the_nan_itself_is_said_to(tmp_path: Path) -> None:
    calls = 0

    def loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return nn.functional.cross_entropy(logits, labels) * (math.nan if calls == 5 else 1.0)

    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    with pytest.raises(PellucidError, match=r"step 5, .*first in the loss itself, the logits being numbers.*look into"):
        pellucid.train("digits", net=net, loss=loss, out=tmp_path / "run", lr=0.1, **PINS)


def test_where_no_step_is_looked_at_the_bad_one_is_found_from_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As on a graphics card, which is not made to wait for every loss.
    from pellucid.training.loop import Training

    class Late(Training):
        said: ClassVar[list[bool]] = []

        @property
        def strict(self) -> bool:
            return self.said[2:] == [True]

        @strict.setter
        def strict(self, value: bool) -> None:
            # What the loop and the session say to begin with is for the processor; looking again is obeyed.
            self.said.append(value)

    monkeypatch.setattr("pellucid.training.runs.Training", Late)
    settings: dict[str, Any] = {**PINS, "size": 16, "optimizer": "sgd", "lr": 1e12}
    with pytest.raises(PellucidError, match=r"no longer a number .*learning rate") as error:
        pellucid.train("digits", net="cifar-cnn", out=tmp_path / "late", **settings)
    late = json.loads((tmp_path / "late" / "bad_step.json").read_text())
    monkeypatch.undo()
    with pytest.raises(PellucidError) as strict:
        pellucid.train("digits", net="cifar-cnn", out=tmp_path / "strict", **settings)
    assert json.loads((tmp_path / "strict" / "bad_step.json").read_text()) == late
    assert str(error.value).replace("/late/", "/strict/") == str(strict.value)
