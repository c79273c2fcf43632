"""Runs killed by a real SIGKILL at random moments end with the bytes of the run that nothing happened to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from tests.faults.conftest import Tried
from tests.faults.harness import (
    MOMENTUM,
    SOURCE,
    SWITCHED,
    Forks,
    Whole,
    photographs,
    recover,
    resume,
    step,
    train,
    wait_for,
)

#: Kills tried in the quick suite; and in the long one besides.
QUICK, LONG = 12, 100


def _recipe(number: int, photos: Path) -> Sequence[str]:
    return (MOMENTUM, SWITCHED, photographs(photos))[number % 3]


def _killed(
    forks: Forks, work: Path, begin: Sequence[str], share: float, *, late: bool, lasts: float, **fault: object
) -> bool:
    """Begin, or go on with, a run and kill it at a moment; whether it was still running.

    The moment is `share` of the time that the run lasts, from when its folder appears; or with `late` from when the
    first checkpoint inside an epoch has appeared.
    """
    run = work / "run"
    arguments = resume() if run.exists() else begin
    child = forks.start(work, *arguments, **fault)
    if wait_for(lambda: step(run) > 0 if late else run.exists(), child):
        time.sleep(share * lasts)
    child.signal(signal.SIGKILL)
    code = child.wait().code
    assert code in {-signal.SIGKILL, 0}
    return code == -signal.SIGKILL


@pytest.fixture(scope="module")
def lasts(forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Sequence[str]], float]:
    """Seconds from the appearance of a run's folder to its end, on this machine; measured once."""
    measured: dict[tuple[str, ...], float] = {}

    def seconds(begin: Sequence[str]) -> float:
        if tuple(begin) not in measured:
            place = tmp_path_factory.mktemp("timed")
            child = forks.start(place, *begin)
            wait_for((place / "run").exists, child)
            begun = time.perf_counter()
            assert child.wait().code == 0
            measured[tuple(begin)] = time.perf_counter() - begun
        return measured[tuple(begin)]

    return seconds


@pytest.mark.parametrize(
    "number", [*range(QUICK), *(pytest.param(n, marks=pytest.mark.slow) for n in range(QUICK, QUICK + LONG))]
)
def test_a_run_killed_at_a_random_moment_ends_as_if_it_had_not_been(
    number: int,
    forks: Forks,
    whole: Whole,
    lasts: Callable[[Sequence[str]], float],
    photos: Path,
    work: Path,
    tmp_path: Path,
    tried: Tried,
) -> None:
    drawn = np.random.default_rng([7, number])
    late, share, again = number % 2 == 1, float(drawn.random()), bool(drawn.random() < 0.3)
    begin = train(_recipe(number, photos), every=float(drawn.choice([0.0, 0.05])))
    unbroken = whole(train(_recipe(number, photos)))
    seconds = lasts(begin)
    killed = _killed(forks, work, begin, share, late=late, lasts=seconds)
    # A run that was quicker this time than the one before it had ended already: nearer to its beginning, then.
    while not killed:
        share /= 2
        (work / "run").rename(tmp_path / f"ended-{share}")
        killed = _killed(forks, work, begin, share, late=late, lasts=seconds)
    resumed = 1
    if again:
        resumed += _killed(forks, work, begin, float(drawn.random()) / 2, late=False, lasts=seconds)
    last = recover(forks, work, begin)
    assert last.code == 0, last.err
    last.told()
    tried(
        "killed after the first checkpoint inside an epoch" if late else "killed at any moment",
        work / "run",
        unbroken,
        resumed=resumed,
    )


@pytest.mark.slow
@pytest.mark.parametrize("number", range(6))
def test_a_process_of_its_own_killed_ends_as_if_it_had_not_been(
    number: int, whole: Whole, forks: Forks, work: Path, tried: Tried
) -> None:
    """The same without the server that forks: `python -m pellucid`, from its start."""
    begin = train(MOMENTUM)
    drawn = np.random.default_rng([8, number])
    own = {"PYTHONPATH": str(SOURCE), "PELLUCID_CACHE": str(work / "cache"), "OMP_NUM_THREADS": "1"}

    def start(arguments: Sequence[str]) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "pellucid", *arguments]
        return subprocess.Popen(
            command, cwd=work, env={**os.environ, **own}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )

    process = start(begin)
    while step(work / "run") <= 0 and process.poll() is None:
        time.sleep(0.001)
    time.sleep(0.3 * float(drawn.random()))
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    process = start(resume())
    _, said = process.communicate()
    assert process.returncode == 0, said
    assert b"Traceback" not in said
    tried("killed, a process of its own", work / "run", whole(begin))
