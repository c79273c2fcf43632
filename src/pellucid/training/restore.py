"""A finished run's loss, and the step it would take next: its optimiser with what that remembers, its clipping."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from pellucid.data.record import read_record
from pellucid.errors import DataError
from pellucid.files import read_lines, read_tensors, read_tensors_metadata
from pellucid.recipe import Recipe, read_recipe
from pellucid.training.checkpoint import LAST, LIMIT, load_optimizer
from pellucid.training.finetune import freeze
from pellucid.training.losses import Loss, make_loss
from pellucid.training.optimise import make_optimizer


@dataclass(frozen=True)
class Step:
    """What a step is made with; `optimizer` is None where there is nothing to restore one from."""

    optimizer: torch.optim.Optimizer | None = None
    clip: Mapping[str, float] | None = None
    """{"norm": limit} or {"value": limit}."""
    notes: list[str] = field(default_factory=list)


def last_step(run: str | os.PathLike[str], model: nn.Module) -> Step:
    """The step of a run, over `model`'s parameters: memory and learning rate as at its last step.

    `model` is the run's network as its bundle has it, of the best epoch. A bundle alone has no optimiser: the notes
    then say so. Raises DataError for a checkpoint that is damaged or of another network.
    """
    folder = Path(run)
    checkpoint, rows = folder / "checkpoints" / LAST, folder / "metrics.jsonl"
    if not checkpoint.is_file() or not rows.is_file():
        return Step(notes=[f"{folder} has no checkpoint, so there is no optimiser to tell the next step of"])
    recipe = read_recipe(folder / "recipe.json")
    history = read_lines(rows)
    if not history:
        return Step(notes=[f"{folder} has no finished epoch, so there is no optimiser to tell the next step of"])
    last = history[-1]
    step, epoch, rate = last.get("step"), last.get("epoch"), last.get("lr")
    if not (
        isinstance(step, int)
        and isinstance(epoch, int)
        and isinstance(rate, (int, float))
        and 1 <= epoch <= step < 1 << 53
        and 0 <= rate < 1e9
    ):
        raise DataError(f"{rows}: its last line has no epoch, step and learning rate that can be: take the line out")
    optimizer = _optimizer(checkpoint, model, recipe, int(step), int(epoch), float(rate))
    rules = recipe.regularisation
    clip = {"norm": rules.clip_norm, "value": rules.clip_value}
    notes = [
        f"the step is that of the run's last one (epoch {last['epoch']}, learning rate {last['lr']:.3g}), taken with "
        "this picture alone"
    ]
    if rules.l1:
        notes.append(f"--l1 {rules.l1:g}: training adds the slope of the L1 penalty to the gradient, and this does not")
    if rules.clip_norm and rules.clip_value:
        notes.append("training clips by value and then by norm; this clips by norm alone")
    kept = [(name, limit) for name, limit in clip.items() if limit is not None][:1]
    return Step(optimizer, dict(kept) or None, notes)


def own_loss(run: str | os.PathLike[str], classes: Sequence[str]) -> tuple[Loss | None, list[str]]:
    """The loss that a run made small, and notes on what of it cannot be had; None for plain cross-entropy.

    A bundle alone does not say, and a loss of one's own is known to one's own program alone: cross-entropy then.
    """
    folder = Path(run)
    if not (folder / "recipe.json").is_file():
        return None, []
    recipe = read_recipe(folder / "recipe.json")
    if recipe.optimisation.loss == "custom":
        return None, ["the loss is cross-entropy: the run's own is known to the program that trained it alone"]
    notes = []
    if recipe.regularisation.teacher is not None:
        notes.append("the loss is that against the label alone: training adds the teacher's answers")
    if recipe.optimisation.loss == "cross-entropy" and not recipe.regularisation.label_smoothing:
        # Weights of classes cancel in the mean over one picture.
        return None, notes
    counts = Counter(row.label for row in read_record(folder) or () if row.split == "train")
    return make_loss(recipe, [counts[name] for name in classes]), notes


def _optimizer(
    checkpoint: Path, model: nn.Module, recipe: Recipe, step: int, epoch: int, rate: float
) -> torch.optim.Optimizer:
    """The optimiser whose memory the checkpoint holds."""
    steps = (recipe.optimisation.epochs or epoch) * step // epoch
    stages = recipe.optimisation.stages
    stage = sum(step - 1 >= later.begins * steps for later in stages[1:])
    if recipe.freeze is not None:
        freeze(model, recipe.freeze)
    decay, by_depth = recipe.regularisation.weight_decay, recipe.optimisation.lr_decay_by_depth
    bias_rate = recipe.optimisation.bias_rate or 1.0
    optimizer = make_optimizer(model, stages[stage].optimizer, rate, decay, by_depth, bias_rate)
    arrays = read_tensors(checkpoint, limit=LIMIT)
    try:
        load_optimizer(
            optimizer, arrays, json.loads(read_tensors_metadata(checkpoint, limit=LIMIT)["state"])["optimizer"]
        )
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"{checkpoint}: not a checkpoint of this run ({error})") from error
    moments = [(p, value) for p, state in optimizer.state.items() for value in state.values()]
    if any(isinstance(value, torch.Tensor) and value.ndim and value.shape != p.shape for p, value in moments):
        raise DataError(f"{checkpoint}: its optimiser's memory is of another network than the bundle's")
    return optimizer
