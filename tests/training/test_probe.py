from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pellucid import nets
from pellucid.data.batches import Batches
from pellucid.data.preprocess import Preprocess
from pellucid.recipe import Engine, Recipe, settle
from pellucid.training import probe
from pellucid.training.finetune import freeze
from pellucid.training.loop import Training
from pellucid.training.losses import make_loss
from pellucid.training.memory import NoRoomError

CPU = torch.device("cpu")


def scene(batch_size: int = 8, **pins: object) -> tuple[torch.nn.Module, Batches, Recipe]:
    recipe = settle(Recipe(data="x"), net="lenet5", batch_size=batch_size, **pins)
    pixels = torch.zeros((16, 32, 32, 1), dtype=torch.uint8)
    preprocess = Preprocess(size=(32, 32), resize="crop", channels=1, mean=(0.5,), std=(0.5,))
    model = nets.build("lenet5", 10, (1, 32, 32), seed=0)
    return model, Batches(pixels, torch.zeros(16, dtype=torch.int64), preprocess, (), batch_size, 0), recipe


def choose(again: bool = False, **settings: Any) -> probe.Measured:
    model, batches, recipe = scene(**settings)
    return probe.choose(model, batches, recipe, make_loss(recipe), again=again)


def test_the_slow_engine_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine made slow on purpose must lose, whatever this machine thinks of the others."""
    step = Training.take_step

    def slowed(self: Training, x: torch.Tensor, labels: torch.Tensor) -> None:
        if self.recipe.engine.layout != "nhwc":
            time.sleep(0.03)
        step(self, x, labels)

    monkeypatch.setattr(Training, "take_step", slowed)
    measured = choose(precision="float32", threads=1)
    assert measured.engine.layout == "nhwc"
    assert [row["layout"] for row in measured.table if row["chosen"]] == ["nhwc"]


def scripted(
    monkeypatch: pytest.MonkeyPatch, milliseconds: Callable[[int, int], float], steps: int = 200
) -> tuple[list[int], list[int]]:
    """How often one thread and two were tried, by steps that take `milliseconds(threads, tries so far)`, of so many."""
    clock, tries = [0.0], {1: [0], 2: [0]}

    def step(_: Training, __: object) -> float:
        count = torch.get_num_threads()
        took = milliseconds(count, tries[count][0])
        tries[count][0] += 1
        clock[0] += took / 1e3
        return took

    monkeypatch.setattr(probe, "own_cores", lambda: 2)
    monkeypatch.setattr(probe, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    monkeypatch.setattr(probe, "_step", step)
    monkeypatch.setattr(Training, "steps", steps)
    return tries[1], tries[2]


def test_threads_that_are_disturbed_for_a_while_are_tried_on(monkeypatch: pytest.MonkeyPatch) -> None:
    # Two threads were seen to take 40 ms in place of 18 for most of a second, while one took 36.
    scripted(monkeypatch, lambda threads, tried: 36 if threads == 1 else (40 if tried < 5 else 18))
    assert choose(precision="float32", layout="nchw").engine.threads == 2


def test_a_clear_case_takes_few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = scripted(monkeypatch, lambda threads, _: 36 if threads == 1 else 20)
    assert choose(precision="float32", layout="nchw").engine.threads == 2
    assert (one[0], two[0]) == (probe.FEWEST_ROUNDS + 1,) * 2


@pytest.mark.parametrize(("steps", "two", "tries"), [(200, 2, 3), (20, 1, 2)])
def test_long_steps_decide_on_more_than_one_unless_the_run_is_short(
    monkeypatch: pytest.MonkeyPatch, steps: int, two: int, tries: int
) -> None:
    # The seconds are over after the first round that counts, in which two threads were disturbed.
    one, others = scripted(monkeypatch, lambda threads, n: 1600 if threads == 1 or n < 2 else 800, steps)
    assert choose(precision="float32", layout="nchw").engine.threads == two
    assert (one[0], others[0]) == (tries, tries)


def test_what_is_beaten_by_long_steps_is_tried_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = scripted(monkeypatch, lambda threads, _: 3000 if threads == 1 else 1600)
    assert choose(precision="float32", layout="nchw").engine.threads == 2
    assert (one[0], two[0]) == (2, 2)


def test_an_engine_that_memory_has_no_room_for_is_no_candidate(monkeypatch: pytest.MonkeyPatch) -> None:
    gradient = Training._accumulate

    def narrow(self: Training, *arguments: Any, **named: Any) -> Any:
        if self.recipe.engine.layout == "nchw":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return gradient(self, *arguments, **named)

    monkeypatch.setattr(Training, "_accumulate", narrow)
    measured = choose(precision="float32", threads=1)
    assert measured.engine.layout == "nhwc"
    assert [(row["layout"], row["chosen"]) for row in measured.table] == [("nhwc", True)]


def test_where_none_has_room_they_are_compared_in_parts(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = Training._one_part

    def narrow(self: Training, x_nhwc: torch.Tensor, *rest: Any) -> Any:
        if len(x_nhwc) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return part(self, x_nhwc, *rest)

    monkeypatch.setattr(Training, "_one_part", narrow)
    assert len(choose(precision="float32", threads=1).table) == 2
    # What was measured of parts is not remembered for the whole.
    assert not (own_cache / "engines.json").exists()
    monkeypatch.setattr(Training, "_one_part", lambda *_: torch.empty(1 << 60))
    with pytest.raises(NoRoomError, match=r"no room for a training step of 1 picture of 32×32"):
        choose(precision="float32", threads=1)


def test_the_plain_engine_stands_unless_clearly_beaten() -> None:
    assert probe.pick([10.0, 9.6, 9.55]) == 0
    assert probe.pick([10.0, 9.4, 9.0]) == 1
    assert probe.pick([10.0, 12.0, 8.0, 7.0]) == 3


def test_model_and_random_state_are_untouched() -> None:
    model, batches, recipe = scene()
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    probe.choose(model, batches, recipe, make_loss(recipe))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)


def test_a_measurement_is_remembered_and_repeated_on_request(own_cache: Path) -> None:
    first = choose()
    second = choose()
    assert not first.remembered
    assert second.remembered
    assert (second.engine, second.table) == (first.engine, first.table)
    assert not choose(again=True).remembered
    # What was measured for one batch holds for no other.
    assert not choose(batch_size=4).remembered
    assert len(json.loads((own_cache / "engines.json").read_text("utf-8"))) == 2


def test_a_damaged_memory_is_measured_anew(own_cache: Path) -> None:
    choose()
    (own_cache / "engines.json").write_text("{", encoding="utf-8")
    assert not choose().remembered
    assert choose().remembered


def test_a_memory_that_cannot_be_written_costs_nothing(own_cache: Path) -> None:
    own_cache.write_text("a file where the folder should be", encoding="utf-8")
    assert not choose().remembered


def test_what_is_pinned_is_not_measured() -> None:
    assert choose(precision="float64", layout="nchw", threads=1).table == ()
    measured = choose(precision="float32", layout="nhwc")
    assert {(row["precision"], row["layout"]) for row in measured.table} <= {("float32", "nhwc")}


def test_bfloat16_is_a_candidate_only_where_it_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "bfloat16_works", lambda _: False)
    assert {e.precision for e in probe.candidates(Engine(), CPU)} == {"float32"}
    monkeypatch.setattr(probe, "bfloat16_works", lambda _: True)
    assert {e.precision for e in probe.candidates(Engine(), CPU)} == {"float32", "bfloat16"}


def test_the_plainest_engine_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "own_cores", lambda: 8)
    first = probe.candidates(Engine(), CPU)[0]
    assert (first.precision, first.layout, first.threads) == ("float32", "nchw", 1)
    assert {e.threads for e in probe.candidates(Engine(), CPU)} == {1, 4, 8}


@pytest.mark.parametrize(("milliseconds", "steps"), [(0.5, 11), (1.9, 3), (2.0, 1), (4.0, 1), (60.0, 1)])
def test_a_short_step_is_repeated_and_a_long_one_is_not(
    monkeypatch: pytest.MonkeyPatch, milliseconds: float, steps: int
) -> None:
    model, batches, recipe = scene(precision="float32", layout="nchw", threads=1)
    training = Training(model, batches, recipe, make_loss(recipe))
    taken: list[int] = []
    monkeypatch.setattr(training, "take_step", lambda *_: taken.append(training.step))
    monkeypatch.setattr(time, "perf_counter", lambda: len(taken) * milliseconds / 1e3)
    assert probe._step(training, probe._endless(batches)) == pytest.approx(milliseconds)
    assert taken == [0] * steps


def test_frozen_statistics_are_held_still_while_steps_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A frozen normalisation that took batch statistics would be timed at work it will not do."""
    modes: list[bool] = []
    step = Training.take_step

    def watched(self: Training, x: torch.Tensor, labels: torch.Tensor) -> None:
        modes.extend(module.training for module in self.model.modules() if isinstance(module, torch.nn.BatchNorm2d))
        step(self, x, labels)

    monkeypatch.setattr(Training, "take_step", watched)
    _, batches, recipe = scene(precision="float32", threads=1)
    model = nets.build("INPUT -> CONV(4, norm=batch) -> FC(classes)", 10, (1, 32, 32), seed=0)
    freeze(model, "head")
    probe.choose(model, batches, settle(recipe, freeze="head"), make_loss(recipe))
    assert modes
    assert not any(modes)
    assert all(module.training for module in model.modules())


def test_what_is_not_trained_is_not_measured() -> None:
    assert probe.settled(probe.untried(Engine()))
    pinned = Engine(precision="float64", layout="nchw", threads=3)
    assert probe.untried(pinned) == pinned
