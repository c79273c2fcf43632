"""A training run's state on disk: one safetensors file, so that it is either the old one or the new one, never half.

It holds the weights, the optimiser's state, the epoch's sums and the step. Nothing else is needed to go on: the order
of the pictures, what augmentation makes of them and dropout's masks follow from the seed and the step.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pellucid.bundle.folder import fill, tensors
from pellucid.errors import DataError
from pellucid.files import read_tensors, read_tensors_metadata, write_tensors
from pellucid.training.loop import Training

LAST, BEST = "last.safetensors", "best.safetensors"


def save_checkpoint(folder: Path, training: Training, facts: dict[str, Any]) -> None:
    """Write `checkpoints/last.safetensors`; `facts` are plain JSON values to find again on resuming."""
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
    arrays["sums.loss"], arrays["sums.correct"] = _array(training.loss_sum), _array(training.correct)
    state = {
        "step": training.step,
        "seen": training.seen,
        "optimizer": scalars,
        **facts,
    }
    write_tensors(folder / "checkpoints" / LAST, arrays, {"state": json.dumps(state)})


def load_checkpoint(folder: Path, training: Training) -> dict[str, Any] | None:
    """Put the run's last checkpoint into `training`, and return its facts; None if there is none yet.

    Raises DataError for a checkpoint that is damaged or of another network.
    """
    path = folder / "checkpoints" / LAST
    if not path.is_file():
        return None
    arrays = read_tensors(path)
    try:
        state: dict[str, Any] = json.loads(read_tensors_metadata(path)["state"])
        for part, model in (("model.", training.model), ("average.", training.average)):
            if model is not None:
                fill(model, {key.removeprefix(part): arrays[key] for key in arrays if key.startswith(part)}, path)
        training.step, training.seen = int(state["step"]), int(state["seen"])
        # The optimiser whose memory was saved is that of the step before; the next step may begin another.
        training.enter_stage(training.step - 1)
        load_optimizer(training.optimizer, arrays, state["optimizer"])
        training.loss_sum.copy_(_tensor(arrays["sums.loss"]))
        training.correct.copy_(_tensor(arrays["sums.correct"]))
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"{path}: not a checkpoint of this run ({error}); train again without --resume") from error
    return state


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
