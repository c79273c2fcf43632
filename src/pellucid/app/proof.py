"""`pellucid verify RUN --resume`: a short run killed and resumed on this machine, beside one that was never stopped."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from pellucid.app.flags import Fault
from pellucid.data.record import read_record
from pellucid.errors import DataError, PellucidError, UsageError, VerificationError
from pellucid.files import read_bytes, read_lines, read_tensors, read_tensors_metadata, write_json
from pellucid.recipe import Recipe, read_recipe, settle
from pellucid.training.checkpoint import LAST, LIMIT
from pellucid.training.session import METRICS

#: Steps of an epoch and epochs of the short runs, and how many tries there are to kill one inside an epoch.
STEPS, EPOCHS, TRIES = 8, 2, 5

#: Seconds between two looks at the run that is to be killed, and until it is given up.
LOOK, WAIT = 0.002, 600.0

#: What of a run is of the clock, and differs each time.
TIMES = {"seconds", "images_per_second"}


@dataclass(frozen=True)
class Proof:
    """A pair of runs that ended alike."""

    steps: int
    """Of each run."""
    killed_after: int
    """The step of the checkpoint that the killed run went on from."""
    arrays: int
    """Arrays of the last checkpoint compared: weights, the optimiser's memory, averages, sums."""
    numbers: int
    """Numbers in them."""
    bytes: int
    """Of model.safetensors, compared byte by byte."""

    def to_json(self) -> dict[str, Any]:
        """What `verify --resume --json` prints."""
        return asdict(self)


def prove(run: Path, tell: Callable[[str], object]) -> Proof:
    """Train the run's recipe briefly, twice: once unbroken, once killed with SIGKILL inside an epoch and resumed.

    `tell` is given sentences on what goes on. Raises VerificationError that names the first field that differs, and
    UsageError for a run that the command line cannot repeat.
    """
    if not (run / "recipe.json").is_file():
        raise UsageError(f"{run}: no recipe.json here, so no run to repeat; give the folder that train made")
    recipe = read_recipe(run / "recipe.json")
    if "custom" in (recipe.net, recipe.optimisation.loss):
        raise UsageError(f"{run}: trained a network or a loss of your own, which only your own program can repeat")
    if recipe.head_alone:
        raise UsageError(f"{run}: trained nothing but a head on given weights, so there is no step to be resumed at")
    with tempfile.TemporaryDirectory(prefix="pellucid-") as scratch:
        folder = Path(scratch)
        write_json(folder / "recipe.json", _short(recipe, run).to_json())
        tell("training a short run that nobody stops")
        _train(folder, folder / "whole", every=1e9)
        for attempt in range(TRIES):
            parted = folder / f"parted-{attempt}"
            tell("training it again, and killing it inside an epoch")
            step = _kill(folder, parted)
            if step:
                tell(f"killed; its last checkpoint is of step {step}; going on from there")
                _finish(["--resume", str(parted)])
                return _compare(folder / "whole", parted, step)
    raise PellucidError(
        f"{run}: its short run ended {TRIES} times before it could be killed inside an epoch; try again"
    )


def _short(recipe: Recipe, run: Path) -> Recipe:
    """The same recipe over few pictures and epochs."""
    rows = [row for row in read_record(run) or () if row.split == "train"]
    size = recipe.optimisation.batch_size
    batch = size if isinstance(size, int) else len(rows) // STEPS + 1
    wanted = max(STEPS * batch, 10 * len({row.label for row in rows}))
    share = min(1.0, wanted / max(1, len(rows)))
    return settle(recipe, epochs=EPOCHS, sample=recipe.pictures.sample * math.ceil(share * 1e4) / 1e4)


def _command(arguments: list[str]) -> list[str]:
    # The recipe has been trained before: faults of its data were put up with then.
    return [
        sys.executable,
        "-m",
        "pellucid",
        "train",
        *arguments,
        "--json",
        "--max-bad",
        "1",
        "--accept",
        *get_args(Fault),
    ]


def _train(folder: Path, out: Path, *, every: float) -> None:
    _finish(["--recipe", str(folder / "recipe.json"), "--out", str(out), "--checkpoint-every", str(every)])


def _finish(arguments: list[str]) -> None:
    done = subprocess.run(_command(arguments), capture_output=True, check=False)  # noqa: S603  (this very program)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise PellucidError(f"the short run ended with {done.returncode}: {said[-1] if said else 'without a word'}")


def _kill(folder: Path, out: Path) -> int:
    """Train with a checkpoint after every step, and kill in the second half: the last checkpoint's step, 0 if too late.

    Nothing is asked of the run, so that it is cut off anywhere: within a step, a write, a renaming.
    """
    arguments = ["--recipe", str(folder / "recipe.json"), "--out", str(out), "--checkpoint-every", "0"]
    checkpoint, target = out / "checkpoints" / LAST, 0
    with subprocess.Popen(  # noqa: S603  (this very program)
        _command(arguments), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as child:
        given_up = time.monotonic() + WAIT
        while child.poll() is None and time.monotonic() < given_up:
            step, _ = _step(checkpoint)
            target = target or (step and int(np.random.default_rng(os.getpid()).integers(STEPS + 1, 2 * STEPS - 1)))
            if step and step >= target:
                break
            time.sleep(LOOK)
        finished = child.poll() is not None
        child.kill()
    step, seen = _step(checkpoint)
    return 0 if finished or not seen else step


def _step(checkpoint: Path) -> tuple[int, int]:
    """The step of a checkpoint, and the pictures of its epoch up to there; zeros where there is none to be read yet."""
    try:
        state = json.loads(read_tensors_metadata(checkpoint, limit=LIMIT)["state"])
        return int(state["step"]), int(state["seen"])
    except (DataError, KeyError):
        return 0, 0


def _compare(whole: Path, parted: Path, killed_after: int) -> Proof:
    """The first field that differs, as an error; else what was compared."""
    arrays = numbers = 0
    for place, one, other in _fields(whole, parted):
        if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
            _same_numbers(place, one, other)
            arrays, numbers = arrays + 1, numbers + one.size
        elif one != other:
            raise _differ(f"{place} is {one!r:.60} in the run never stopped and {other!r:.60} in the one resumed")
    model = read_bytes(whole / "bundle" / "model.safetensors", limit=LIMIT)
    if model != read_bytes(parted / "bundle" / "model.safetensors", limit=LIMIT):
        raise _differ("model.safetensors, though all numbers in the checkpoints are equal")
    steps = int(_state(whole)["step"])
    return Proof(steps, killed_after, arrays, numbers, len(model))


def _fields(whole: Path, parted: Path) -> Iterator[tuple[str, Any, Any]]:
    """Everything that two runs leave, pair by pair: place, of the one, of the other."""
    rows, other_rows = read_lines(whole / METRICS), read_lines(parted / METRICS)
    yield "the number of lines in metrics.jsonl", len(rows), len(other_rows)
    for number, (row, other) in enumerate(zip(rows, other_rows, strict=False), 1):
        yield f"the fields of line {number} of metrics.jsonl", sorted(row), sorted(other)
        for key in (key for key in row if key not in TIMES):
            yield f"{key} in line {number} of metrics.jsonl", row[key], other[key]
    state, other_state = _state(whole), _state(parted)
    for key in sorted((state.keys() | other_state.keys()) - TIMES):
        yield f"{key} in {LAST}", state.get(key), other_state.get(key)
    arrays, others = (read_tensors(run / "checkpoints" / LAST, limit=LIMIT) for run in (whole, parted))
    yield f"the arrays of {LAST}", sorted(arrays), sorted(others)
    for name in arrays:
        yield name, arrays[name], others[name]


def _state(run: Path) -> dict[str, Any]:
    state: dict[str, Any] = json.loads(read_tensors_metadata(run / "checkpoints" / LAST, limit=LIMIT)["state"])
    return state


def _same_numbers(place: str, one: NDArray[Any], other: NDArray[Any]) -> None:
    if one.shape != other.shape or one.dtype != other.dtype:
        raise _differ(f"{place} is {one.dtype} {one.shape} in the run never stopped and {other.dtype} {other.shape}")
    # Bit for bit: minus zero is not zero, and a NaN is itself.
    bits, other_bits = (array.reshape(-1).view(np.uint8).reshape(array.size, -1) for array in (one, other))
    different = np.flatnonzero((bits != other_bits).any(axis=1)) if one.size else np.empty(0, np.int64)
    if len(different):
        first = np.unravel_index(int(different[0]), one.shape)
        at = f"[{','.join(str(int(i)) for i in first)}]" if first else ""
        raise _differ(
            f"{place}{at} is {one[first]!r} in the run never stopped and {other[first]!r} in the one resumed "
            f"({len(different):,} of its {one.size:,} numbers differ)"
        )


def _differ(what: str) -> VerificationError:
    return VerificationError(
        f"a resumed run does not end as an unbroken one on this machine: {what}; please report it with the run's "
        "recipe.json and environment.json"
    )
