"""A loss that is no number stops the run at that step, which is told; the last checkpoint is of before."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from tests.faults.conftest import Tried
from tests.faults.harness import MOMENTUM, Ended, Forks, Whole, metrics, resume, step, train

from pellucid.files import read_tensors


def _stopped_at(ended: Ended, run: Path, at: int | None = None) -> int:
    """The step that the run stopped at: told, written down, and the last checkpoint is of before and finite."""
    assert ended.code == 1, ended.err
    said = ended.told()
    bad = json.loads((run / "bad_step.json").read_text("utf-8"))
    assert "the loss is no longer a number" in said
    assert f"epoch {bad['epoch']}, step {bad['step']}, batch {bad['batch']}" in said
    assert bad["pictures"]
    assert bad["pictures"][0] in said
    assert at is None or bad["step"] == at
    assert 0 <= step(run) < bad["step"]
    for name in ("last", "previous", "best"):
        path = run / "checkpoints" / f"{name}.safetensors"
        if path.exists():
            arrays = read_tensors(path)
            assert all(np.isfinite(array).all() for array in arrays.values()), name
    assert all(math.isfinite(value) for row in metrics(run) for value in row.values() if value is not None)
    assert all(row["step"] < bad["step"] for row in metrics(run))
    assert not (run / "result.json").exists()
    return int(bad["step"])


@pytest.mark.parametrize("at", [20, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 2, 21, 47))])
def test_a_loss_that_is_none_at_a_step(at: int, forks: Forks, whole: Whole, work: Path, tried: Tried) -> None:
    """In the first step, within an epoch, in its last step and in the first of the next: without it, it goes on."""
    begin = train(MOMENTUM)
    ended = forks.run(work, "@nan_loss", str(at), *begin)
    assert _stopped_at(ended, work / "run", at) == at
    assert step(work / "run") == at - 1
    assert "in the loss itself" in ended.told()
    last = forks.run(work, *resume())
    assert last.code == 0, last.err
    (work / "run" / "bad_step.json").unlink(missing_ok=True)
    tried("a loss that is not a number at a step", work / "run", whole(begin), killed=False)


def test_a_layer_that_overflows_is_named_with_its_pictures(
    forks: Forks, whole: Whole, work: Path, tried: Tried
) -> None:
    begin = train(MOMENTUM)
    ended = forks.run(work, "@overflow", "conv1", "30", *begin)
    assert _stopped_at(ended, work / "run", 30) == 30
    bad = json.loads((work / "run" / "bad_step.json").read_text("utf-8"))
    assert bad["layer"] == "conv1"
    assert "conv1" in ended.told()
    assert len(bad["pictures"]) == 1
    last = forks.run(work, *resume())
    assert last.code == 0, last.err
    (work / "run" / "bad_step.json").unlink(missing_ok=True)
    tried("a layer that overflows at a step", work / "run", whole(begin), killed=False)


def test_a_rate_far_too_high(forks: Forks, work: Path) -> None:
    ended = forks.run(work, *train((*MOMENTUM, "--lr", "1e30", "--schedule", "constant")))
    _stopped_at(ended, work / "run")
    assert "try --lr 1e+29" in ended.told()
    # Gone on with it is stopped again, and says the same.
    again = forks.run(work, *resume())
    assert again.code == 1
    assert again.told() == ended.told()
