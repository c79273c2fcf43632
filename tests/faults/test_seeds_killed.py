"""A set of runs (`--seeds`) that is killed goes on, and every run of it ends with the bytes of the unbroken set."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from tests.faults.conftest import Tried
from tests.faults.harness import TINY, Forks, Whole, recover, step, train, wait_for
from tests.faults.test_operations import listed

BEGIN = [*train(TINY, out="set"), "--seeds", "2"]


def _same(tried: Tried, fault: str, found: Path, unbroken: Path, *, resumed: int = 1) -> None:
    for name in ("seed-0", "seed-1"):
        tried(fault, found / name, unbroken / name, resumed=resumed)
    one, two = (json.loads((folder / "seeds.json").read_text("utf-8")) for folder in (found, unbroken))
    assert one == two
    assert {path.name for path in found.iterdir()} == {path.name for path in unbroken.iterdir()}


@pytest.mark.parametrize("number", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in range(1, 10))])
def test_killed_in_its_second_run(number: int, forks: Forks, whole: Whole, work: Path, tried: Tried) -> None:
    drawn = np.random.default_rng([12, number])
    child = forks.start(work, *BEGIN)
    assert wait_for(lambda: step(work / "set" / "seed-1") > 0, child)
    time.sleep(float(drawn.random()) * 0.1)
    child.signal(signal.SIGKILL)
    assert child.wait().code in {-signal.SIGKILL, 0}
    last = recover(forks, work, BEGIN)
    assert last.code == 0, last.err
    _same(tried, "a set of seeds killed in its second run", work / "set", whole(BEGIN))


@pytest.mark.parametrize("which", ["some", pytest.param("all", marks=pytest.mark.slow)])
def test_killed_at_the_operations_of_the_set(
    which: str, forks: Forks, whole: Whole, tmp_path: Path, tried: Tried
) -> None:
    """On its own files, and on the folders of its runs."""
    operations = listed(forks, tmp_path / "listed", BEGIN)
    own = [
        at
        for at, (_, path) in enumerate(operations, 1)
        if Path(path).name == "seeds.json" or path in {".", "set", "set/seed-0", "set/seed-1"} or path.count("/") <= 1
    ]
    numbers = sorted({n for at in own for n in (at, at + 1) if n <= len(operations)})
    assert len(numbers) > 8
    for at in numbers if which == "all" else numbers[:: len(numbers) // 3]:
        work = tmp_path / str(at)
        work.mkdir()
        assert forks.run(work, *BEGIN, kind="die", at=at, half=True).code == -signal.SIGKILL
        last = recover(forks, work, BEGIN)
        assert last.code == 0, (at, operations[at - 1], last.err)
        _same(tried, "a set of seeds killed at an operation of its own", work / "set", whole(BEGIN))
