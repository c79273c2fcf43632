from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from pellucid.recipe import Recipe, settle
from pellucid.training import Profiled, Run, Started, run
from pellucid.training.clock import PARTS, Clock


def test_time_is_the_parts_whose_mark_ends_it_and_nobodys_outside() -> None:
    clock = Clock(torch.device("cpu"))
    for _ in range(2):
        with clock:
            time.sleep(0.02)
            clock.mark("data")
            time.sleep(0.05)
            clock.mark("optimiser")
        time.sleep(0.05)
    assert clock.steps == 2
    assert clock.seconds["data"] == pytest.approx(0.04, abs=0.03)
    assert clock.seconds["optimiser"] == pytest.approx(0.10, abs=0.04)
    found = clock.to_json(threads=2, flop=100, peak=1000.0)
    assert sum(found["share"].values()) == pytest.approx(1)
    assert found["milliseconds"]["optimiser"] == pytest.approx(50, abs=20)
    # Sleeping keeps no thread busy.
    assert found["busy"] < 0.3


def test_the_rate_is_that_of_forward_and_backward_alone() -> None:
    clock = Clock(
        torch.device("cpu"), seconds=dict.fromkeys(PARTS, 0.0) | {"forward": 1.0, "backward": 3.0, "data": 6.0}
    )
    clock.steps = 8
    found = clock.to_json(threads=1, flop=10, peak=40.0)
    assert found["flop_per_second"] == 20
    assert found["share_of_peak"] == 0.5
    assert found["share"]["data"] == 0.6


def test_nothing_measured_is_no_division_by_zero() -> None:
    found = Clock(torch.device("cpu")).to_json(threads=1, flop=0, peak=0.0)
    assert found["share_of_peak"] == found["busy"] == 0


def test_a_run_tells_where_its_time_went_and_gives_the_same_network(tmp_path: Path) -> None:
    pins: dict[str, Any] = {"precision": "float32", "layout": "nchw", "threads": 1, "epochs": 2, "batch_size": 64}
    recipe = settle(Recipe(data="digits", net="lenet5"), **pins)
    begun, events = 0.0, []
    for event in run(recipe, out=tmp_path / "timed", profile=True):
        begun = time.perf_counter() if isinstance(event, Started) else begun
        events.append(event)
        if isinstance(event, Profiled):
            took = time.perf_counter() - begun
    (profiled,) = [event for event in events if isinstance(event, Profiled)]
    found = json.loads((tmp_path / "timed" / "profile.json").read_text())
    assert found == profiled.found
    assert list(found["milliseconds"]) == list(PARTS)
    assert found["steps"] == 2 * 21
    assert 0 < found["steps"] * sum(found["milliseconds"].values()) / 1e3 < took
    assert min(found["share"]["forward"], found["share"]["backward"]) > found["share"]["data"]
    assert 0 < found["share_of_peak"] < 1
    *_, plain = run(recipe, out=tmp_path / "plain")
    assert isinstance(plain, Run)
    weights = Path("bundle") / "model.safetensors"
    assert (tmp_path / "timed" / weights).read_bytes() == (tmp_path / "plain" / weights).read_bytes()
    assert not (tmp_path / "plain" / "profile.json").exists()
