"""A training run's state on disk: one sealed safetensors file, so that it is the old one or the new one, never half.

It holds the weights, the optimiser's state, the epoch's sums, the step, and the weights that were best so far. Nothing
else is needed to go on: the order of the pictures, what augmentation makes of them and dropout's masks follow from the
seed and the step. The checkpoint before is kept beside it, for the day when the disk has changed a byte of the last.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pellucid.bundle.folder import fill, tensors
from pellucid.errors import DataError
from pellucid.files import read_tensors, read_tensors_metadata, write_tensors
from pellucid.training.loop import Training

LAST, PREVIOUS, BEST = "last.safetensors", "previous.safetensors", "best.safetensors"

#: The most bytes of a checkpoint that is read: the weights of a large network, four times over.
LIMIT = 64 << 30

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Found:
    """What a checkpoint held beside the state of the training."""

    facts: dict[str, Any]
    best: Arrays | None
    """The weights that were best so far."""
    damage: str | None
    """Why the one before the last was used; None for the last."""


def save_checkpoint(folder: Path, training: Training, facts: dict[str, Any], best: Arrays | None = None) -> None:
    """Write `checkpoints/last.safetensors`, and keep the one before it as `previous.safetensors`.

    `facts` are plain JSON values to find again on resuming, `best` the weights that were best so far.
    """
    arrays = {f"model.{name}": array for name, array in tensors(training.model).items()}
    scalars: dict[str, Any] = {}
    for index, state in training.optimizer.state_dict()["state"].items():
        for name, value in state.items():
            if isinstance(value, torch.Tensor):
                arrays[f"optimizer.{index}.{name}"] = _array(value)
            else:
                scalars[f"{index}.{name}"] = value
    if training.average is not None:
        arrays |= {f"average.{name}": array for name, array in tensors(training.average).items()}
    arrays |= {f"best.{name}": array for name, array in (best or {}).items()}
    arrays["sums.loss"], arrays["sums.correct"] = _array(training.loss_sum), _array(training.correct)
    state = {
        "step": training.step,
        "seen": training.seen,
        "optimizer": scalars,
        **facts,
    }
    path = folder / "checkpoints" / LAST
    write_tensors(path, arrays, {"state": json.dumps(state)}, seal=True, previous=PREVIOUS)


def load_checkpoint(folder: Path, training: Training) -> Found | None:
    """Put the run's last sound checkpoint into `training`; None if there is none yet.

    Where the last is damaged, the one before it. Raises DataError where both are, or for one of another network.
    """
    damage: list[DataError] = []
    for name in (LAST, PREVIOUS):
        path = folder / "checkpoints" / name
        if not path.is_file():
            continue
        try:
            arrays = read_tensors(path, limit=LIMIT, sealed=True)
            metadata = read_tensors_metadata(path, limit=LIMIT)
        except DataError as error:
            damage.append(error)
            continue
        state = _put(path, arrays, metadata, training)
        return Found(state, _part(arrays, "best.") or None, str(damage[0]) if damage else None)
    if damage:
        raise DataError(
            f"{damage[0]}: no checkpoint of this run is sound; take {folder / 'checkpoints'} away and --resume begins "
            "at the first step"
        )
    return None


def _put(path: Path, arrays: Arrays, metadata: dict[str, str], training: Training) -> dict[str, Any]:
    try:
        state: dict[str, Any] = json.loads(metadata["state"])
        fill(training.model, _part(arrays, "model."), path)
        if training.average is not None:
            fill(training.average, _part(arrays, "average."), path)
        training.step, training.seen = int(state["step"]), int(state["seen"])
        # The optimiser whose memory was saved is that of the step before; the next step may begin another.
        training.enter_stage(training.step - 1)
        load_optimizer(training.optimizer, arrays, state["optimizer"])
        training.loss_sum.copy_(_tensor(arrays["sums.loss"]))
        training.correct.copy_(_tensor(arrays["sums.correct"]))
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"{path}: not a checkpoint of this run ({error}); train again without --resume") from error
    return state


def _part(arrays: Arrays, prefix: str) -> Arrays:
    return {key.removeprefix(prefix): array for key, array in arrays.items() if key.startswith(prefix)}


def load_optimizer(optimizer: torch.optim.Optimizer, arrays: dict[str, NDArray[Any]], scalars: dict[str, Any]) -> None:
    """Give an optimiser the memory that a checkpoint holds, as arrays and scalars by parameter and name."""
    whole = optimizer.state_dict()
    state: dict[int, dict[str, Any]] = {}
    for key, array in arrays.items():
        if key.startswith("optimizer."):
            _, index, name = key.split(".", 2)
            state.setdefault(int(index), {})[name] = _tensor(array)
    for key, value in scalars.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({**whole, "state": state})
    # Moments in their parameters' own layout, as they were in the run that was never stopped: a mixed pair sends the
    # update down another kernel.
    for parameter, values in optimizer.state.items():
        for name, value in values.items():
            if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                values[name] = torch.empty_like(parameter).copy_(value)


def _array(tensor: torch.Tensor) -> NDArray[Any]:
    array: NDArray[Any] = tensor.detach().cpu().contiguous().numpy()
    return array


def _tensor(array: NDArray[Any]) -> torch.Tensor:
    return torch.from_numpy(np.array(array))
