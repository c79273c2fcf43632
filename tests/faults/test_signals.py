"""Whatever asks a run to stop, wherever it is: it stops without a traceback, and goes on to the same bytes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from tests.faults.conftest import Tried
from tests.faults.harness import MOMENTUM, SOURCE, Forks, Whole, ended, recover, resume, step, train, wait_for

ASKING = {"Ctrl-C": signal.SIGINT, "SIGTERM": signal.SIGTERM, "SIGHUP": signal.SIGHUP}

#: How a run that was asked to stop may end: saved, or, before it listens, as the system does it; or it was over.
ENDS = {130, 0, -signal.SIGTERM, -signal.SIGHUP}


@pytest.mark.parametrize("name", ASKING)
@pytest.mark.parametrize("number", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in range(1, 10))])
def test_asked_to_stop_at_a_random_moment(
    name: str, number: int, forks: Forks, whole: Whole, work: Path, tried: Tried
) -> None:
    """From the beginning to the end, the reading of data and the writing of the bundle included."""
    drawn = np.random.default_rng([10, number, *map(ord, name)])
    begin = train(MOMENTUM)
    child = forks.start(work, *begin)
    time.sleep(float(drawn.random()) * 1.0)
    child.signal(ASKING[name])
    stopped = child.wait()
    assert stopped.code in ENDS, stopped.err
    stopped.told()
    if stopped.code == 130 and (work / "run").exists() and (work / "run" / "result.json").exists():
        assert "--resume run" in stopped.out + stopped.err
    last = recover(forks, work, begin)
    assert last.code == 0, last.err
    tried(f"asked to stop at any moment: {name}", work / "run", whole(begin), killed=False)


@pytest.mark.parametrize(
    "name", ["SIGTERM", *(pytest.param(name, marks=pytest.mark.slow) for name in ("Ctrl-C", "SIGHUP"))]
)
def test_asked_to_stop_while_training_it_saves_first(
    name: str, forks: Forks, whole: Whole, work: Path, tried: Tried
) -> None:
    """With no checkpoint by time: what is there was saved because it was asked to stop."""
    begin = train(MOMENTUM, every=None)
    child = forks.start(work, "@slowly", "0.01", *begin)
    assert wait_for((work / "run" / "checkpoints").exists, child)
    time.sleep(0.3)
    child.signal(ASKING[name])
    stopped = child.wait()
    assert stopped.code == 130, stopped.err
    assert 0 < step(work / "run") < 80
    last = recover(forks, work, begin)
    assert last.code == 0, last.err
    tried(f"asked to stop while training: {name}", work / "run", whole(train(MOMENTUM)), killed=False)


@pytest.mark.parametrize("second", ["Ctrl-C", pytest.param("SIGTERM", marks=pytest.mark.slow)])
def test_asked_twice_it_stops_at_once(second: str, forks: Forks, whole: Whole, work: Path, tried: Tried) -> None:
    begin = train(MOMENTUM)
    child = forks.start(work, "@slowly", "0.2", *begin)
    assert wait_for(lambda: step(work / "run") > 1, child)
    child.signal(signal.SIGINT)
    # The handler of the first one must have run; a step takes longer than this.
    time.sleep(0.02)
    begun = time.perf_counter()
    child.signal(ASKING[second])
    stopped = child.wait()
    assert stopped.code == (130 if second == "Ctrl-C" else -signal.SIGTERM)
    assert time.perf_counter() - begun < 5
    stopped.told()
    last = recover(forks, work, begin)
    assert last.code == 0, last.err
    tried(f"asked to stop twice: Ctrl-C and {second}", work / "run", whole(begin), killed=False)


def test_in_the_finish_one_is_waited_for_and_the_second_is_not(
    forks: Forks, whole: Whole, work: Path, tried: Tried
) -> None:
    begin = train(MOMENTUM)
    child = forks.start(work, "@slow_finish", *begin)
    assert wait_for((work / "run" / "errors.csv").exists, child)
    child.signal(signal.SIGTERM)
    time.sleep(0.1)
    assert not ended(child)
    child.signal(signal.SIGTERM)
    assert child.wait().code == -signal.SIGTERM
    last = recover(forks, work, begin)
    assert last.code == 0, last.err
    tried("asked to stop twice: SIGTERM in the finish", work / "run", whole(begin), killed=False)


def test_a_run_that_stands_still_goes_on_and_nobody_else_goes_on_with_it(
    forks: Forks, whole: Whole, work: Path, tried: Tried
) -> None:
    begin = train(MOMENTUM)
    child = forks.start(work, *begin)
    assert wait_for(lambda: step(work / "run") > 3, child)
    child.signal(signal.SIGSTOP)
    assert not ended(child)
    before = step(work / "run")
    second = forks.run(work, *resume())
    assert second.code == 2, second.err
    assert "another process is at work in this folder" in second.told()
    assert step(work / "run") == before
    child.signal(signal.SIGCONT)
    assert child.wait().code == 0
    tried("SIGSTOP, a second process, SIGCONT", work / "run", whole(begin), resumed=0, killed=False)


@pytest.mark.slow
@pytest.mark.parametrize("name", ASKING)
@pytest.mark.parametrize("number", range(6))
def test_asked_to_stop_in_the_start_up_of_a_process_of_its_own(
    name: str, number: int, forks: Forks, whole: Whole, work: Path, tried: Tried
) -> None:
    """While Python and torch are being imported, as well as later."""
    drawn = np.random.default_rng([11, number, *map(ord, name)])
    begin = train(MOMENTUM)
    process = subprocess.Popen(
        [sys.executable, "-m", "pellucid", *begin],
        cwd=work,
        env={**os.environ, "PYTHONPATH": str(SOURCE), "PELLUCID_CACHE": str(work / "cache"), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    # The interpreter's own start, in which nobody can listen yet, takes the first tenth of a second or so.
    time.sleep(0.3 + float(drawn.random()) * 4)
    process.send_signal(ASKING[name])
    try:
        said, _ = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode in ENDS, said
    assert b"Traceback" not in said
    last = recover(forks, work, begin)
    assert last.code == 0, last.err
    tried(f"asked to stop in the start-up of a process: {name}", work / "run", whole(begin), killed=False)
