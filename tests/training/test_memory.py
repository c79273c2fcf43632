"""A batch that memory has no room for gives the gradient it would have given."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pellucid.data.batches import Batches
from pellucid.data.preprocess import Preprocess
from pellucid.errors import PellucidError
from pellucid.recipe import Engine, Precision, Recipe, settle
from pellucid.training import Epoch, Noted, Run, resume, run
from pellucid.training.loop import Training, place
from pellucid.training.losses import make_loss
from pellucid.training.memory import NoRoomError, Whole, most_parts

CPU = torch.device("cpu")


class Narrow(nn.Module):
    """Passes at most so many pictures on, and raises what the processor's allocator raises for more."""

    def __init__(self, most: int, error: Callable[[], Exception] | None = None) -> None:
        super().__init__()
        self.most, self.error, self.asked = most, error, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.asked += 1
        if len(x) > self.most:
            if self.error is not None:
                raise self.error()
            torch.empty(1 << 60, dtype=torch.uint8)  # the real thing
        return x


def network(most: int, *, norm: bool = False) -> nn.Sequential:
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6)] if norm else [nn.Conv2d(3, 6, 3), nn.Tanh()]
    return nn.Sequential(*layers, Narrow(most), nn.Flatten(), nn.Linear(6 * 36, 4))


def training(model: nn.Module, *, precision: Precision = "float64", n: int = 24, **settings: Any) -> Training:
    engine = Engine(precision=precision, layout="nchw", threads=1)
    usual = {"optimizer": "momentum", "lr": 0.05, "schedule": "constant", "epochs": 3, "batch_size": n}
    recipe = settle(Recipe(engine=engine), **{**usual, **settings})
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (n, 8, 8, 3), generator=generator).to(torch.uint8)
    labels = (torch.rand(n, generator=generator) ** 2 * 4).long()
    preprocess = Preprocess(size=(8, 8), resize="crop", channels=3, mean=(0.5,) * 3, std=(0.25,) * 3)
    batches = Batches(pixels, labels, preprocess, tuple(recipe.pictures.augment or ()), n, seed=0)
    loss = make_loss(recipe, labels.bincount(minlength=4).tolist())
    return Training(place(model, engine, CPU), batches, recipe, loss)


@pytest.mark.parametrize(("precision", "close"), [("float32", 1e-6), ("float64", 1e-12)])
@pytest.mark.parametrize(
    "settings",
    [{}, {"balance": "weights"}, {"balance": "weights", "loss": "focal"}, {"augment": ("mixup",)}, {"loss": "mse"}],
    ids=str,
)
@pytest.mark.parametrize(("most", "parts"), [(23, 2), (12, 2), (11, 4), (5, 8), (1, 24)])
def test_the_gradient_is_that_of_the_whole_batch(
    precision: Precision, close: float, settings: dict[str, Any], most: int, parts: int
) -> None:
    whole, parted = (training(network(m), precision=precision, **settings) for m in (24, most))
    for work in (whole, parted):
        list(work.run_epoch())
    assert parted.parts == parts
    assert whole.parts == 1
    for a, b in zip(whole.model.parameters(), parted.model.parameters(), strict=True):
        assert a.grad is not None
        assert b.grad is not None
        assert (a.grad - b.grad).abs().max() <= close
        assert (a - b).abs().max() <= close
    assert parted.sums()[0] == pytest.approx(whole.sums()[0], abs=close)
    assert parted.sums()[1] == pytest.approx(whole.sums()[1], abs=1e-6)
    assert parted.seen == 24


def test_the_failed_attempt_leaves_no_trace_in_the_statistics() -> None:
    """They move as in a network that took the parts at once."""
    found, given = training(network(6, norm=True)), training(network(24, norm=True))
    given.parts = 4
    for work in (found, given):
        list(work.run_epoch())
    assert found.parts == 4
    for a, b in zip(found.model.state_dict().values(), given.model.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert found.model.state_dict()["1.num_batches_tracked"] == 4


def test_dropouts_masks_follow_from_seed_step_and_parts() -> None:
    def dropped(most: int) -> nn.Sequential:
        model = network(most)
        model.insert(1, nn.Dropout(0.5))
        return model

    found, given = training(dropped(6)), training(dropped(24))
    given.parts = 4
    for work in (found, given):
        list(work.run_epoch())
    for a, b in zip(found.model.parameters(), given.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_batch_normalisation_compares_at_least_two_pictures() -> None:
    work = training(network(1, norm=True))
    with pytest.raises(NoRoomError, match=r"no room for a training step of 2 pictures of 8×8: .* smaller --net or"):
        list(work.run_epoch())
    assert work.parts == 12
    # In a network that is not trained it takes what it has.
    assert most_parts(work.model.eval(), 24) == 24


def test_when_no_picture_has_room_it_says_what_to_do() -> None:
    before = training(network(0))
    start = [p.detach().clone() for p in before.model.parameters()]
    with pytest.raises(PellucidError, match=r"memory has no room for a training step of 1 picture of 8×8"):
        list(before.run_epoch())
    assert all(torch.equal(a, b) for a, b in zip(start, before.model.parameters(), strict=True))


def test_what_cannot_be_divided_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    work = training(network(24))
    monkeypatch.setattr(work.optimizer, "step", lambda: torch.empty(1 << 60))
    with pytest.raises(NoRoomError, match=r"no room for the optimiser's own numbers: .* take --optimizer sgd"):
        list(work.run_epoch())
    monkeypatch.setattr("pellucid.data.batches.gather", lambda *_: np.empty(1 << 45))
    with pytest.raises(NoRoomError, match=r"no room for a batch of pictures: .* take a smaller --batch-size"):
        list(training(network(24), augment=()).run_epoch())


def test_another_error_is_not_swallowed() -> None:
    model = network(1)
    narrow = model[2]
    assert isinstance(narrow, Narrow)
    narrow.error = lambda: RuntimeError("shape '[3]' is invalid")
    with pytest.raises(RuntimeError, match="is invalid"):
        list(training(model).run_epoch())
    assert narrow.asked == 1


def test_it_says_so_once_and_what_it_means_for_batch_normalisation() -> None:
    plain, normed = training(network(6)), training(network(6, norm=True))
    assert plain.note() is None
    for work in (plain, normed):
        list(work.run_epoch())
    said = "memory ran out: the batch of 24 is now taken in 4 parts, with the gradient accumulated"
    assert plain.note() == said
    assert normed.note() == f"{said}; batch-norm statistics now come from 6 pictures at a time"


def test_a_whole_batch_counts_by_weight_only_where_the_loss_does() -> None:
    labels = torch.tensor([0, 0, 0, 1])
    weighed = make_loss(settle(Recipe(), balance="weights"), [3, 1])
    assert float(Whole.of(weighed, labels).mass) == pytest.approx(3 * 4 / 6 + 4 / 2)
    assert Whole.of(weighed, labels, mixed=True) == (4, 4.0)
    assert Whole.of(make_loss(Recipe()), labels) == (4, 4.0)


def test_a_run_tells_it_once_and_leaves_it_in_its_notes(tmp_path: Path) -> None:
    net = nn.Sequential(Narrow(20), nn.Flatten(), nn.Linear(64, 10))
    recipe = settle(Recipe(data="digits"), epochs=2, size=8, batch_size=64, lr=0.1, layout="nchw", threads=1)
    # Its engine is measured: one after the other has no room, and so they are compared in parts.
    *events, last = run(recipe, out=tmp_path / "run", model=net)
    said = "memory ran out: the batch of 64 is now taken in 4 parts, with the gradient accumulated"
    assert isinstance(last, Run)
    assert last.notes == (said,)
    told = [event.text for event in events if isinstance(event, Noted)]
    assert told == [said]


def test_a_run_in_parts_goes_on_in_as_many(tmp_path: Path, record_property: Callable[[str, Any], None]) -> None:
    """Memory that ran out before the stop need not run out after it: the parts are the run's, not the moment's."""

    def net(most: int) -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(Narrow(most), nn.Flatten(), nn.Linear(64, 10))

    pins: dict[str, Any] = {"precision": "float32", "layout": "nchw", "threads": 1}
    recipe = settle(Recipe(data="digits"), epochs=2, size=8, batch_size=64, lr=0.1, **pins)
    *_, whole = run(recipe, out=tmp_path / "whole", model=net(20))
    stopped = None
    for event in run(recipe, out=tmp_path / "parted", model=net(20)):
        if isinstance(event, Epoch):
            os.kill(os.getpid(), signal.SIGTERM)
        stopped = event
    assert isinstance(stopped, Run)
    assert stopped.stopped
    *_, resumed = resume(stopped.folder, model=net(1000))
    assert isinstance(whole, Run)
    assert isinstance(resumed, Run)
    weights = [one.folder.joinpath("bundle/model.safetensors").read_bytes() for one in (whole, resumed)]
    assert weights[0] == weights[1]
    assert resumed.notes == whole.notes
    record_property("fault", {"fault": "memory run out, and stopped", "resumed": 1, "killed": False, "lost": False})


FAULTS = """
import resource
import numpy as np
from pellucid.training.memory import keeping_freed


def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        np.ones(10_000_000)  # 80 MB: glibc never comes to keep as much by itself
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


without = faults()
with keeping_freed():
    faults()
    inside = faults()
print(without, inside, faults())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="these are settings of glibc's")
def test_what_is_freed_serves_the_next_step() -> None:
    """The system clears and maps no page anew while a run is on, and does again behind it."""
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True, timeout=100)
    without, inside, after = map(int, done.stdout.split())
    assert inside < without / 5
    assert inside < after / 5


BOUNDED = """
import resource, sys
import pellucid, torch

torch.set_num_threads(1)
common = {"net": "INPUT -> CONV(64, norm=batch) -> CONV(64) -> POOL -> FC(classes)", "size": 32, "threads": 1}
common |= {"precision": "float32", "layout": "nchw", "augment": ()}
# Everything that is loaded late is there before memory is bounded.
pellucid.train("digits", epochs=1, batch_size=16, out="warm", **common)
size = next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmSize"))
# What a process takes beside the batch (stacks, arenas, oneDNN's scratch) differs between machines: too little even
# for two pictures has to end in a sentence, and the first bound above it in parts, as the batch wants over a gigabyte.
for room in (150, 300, 600):
    resource.setrlimit(resource.RLIMIT_AS, (size + room * 1_000_000, resource.RLIM_INFINITY))
    try:
        run = pellucid.train("digits", epochs=1, batch_size=1024, out=f"bounded-{room}", **common)
        break
    except pellucid.PellucidError as error:
        assert "memory has no room" in str(error), error
assert (run.folder / "result.json").is_file()
print(run.notes[0])
"""


def test_a_run_with_too_little_memory_ends_well(tmp_path: Path) -> None:
    if sys.platform != "linux":
        pytest.skip("memory is bounded by Linux's means")
    done = subprocess.run(
        [sys.executable, "-c", BOUNDED], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=200
    )
    assert done.returncode == 0, done.stderr
    assert "memory ran out: the batch of 1024 is now taken in" in done.stdout
    assert "batch-norm statistics now come from" in done.stdout
