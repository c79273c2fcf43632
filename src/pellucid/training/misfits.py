"""What does not fit together in a recipe once the length of the run is known, refused before any work."""

from __future__ import annotations

from pellucid.data.batches import cuts
from pellucid.errors import UsageError
from pellucid.recipe import Recipe, Schedule
from pellucid.training.monitor import PLATEAU_PATIENCE

#: Steps below which a schedule has no room for its parts: five rates, three rates (of a half and two quarters), a
#: warm-up of a twentieth. The others are curves over the run, however short.
LEAST_STEPS: dict[Schedule, int] = {"step": 5, "tenths": 4, "warmup-cosine": 20}


def refuse_misfits(recipe: Recipe, pictures: int) -> None:
    """Raise UsageError where a part of the recipe could never come into effect in a run over so many pictures.

    Epochs and batch size of the recipe are settled.
    """
    optimisation = recipe.optimisation
    epochs, size = optimisation.epochs, optimisation.batch_size
    assert epochs is not None
    assert size is not None
    steps = epochs * len(cuts(pictures, pictures if size == "all" else size))
    _refuse_schedule(recipe, epochs, steps)
    if optimisation.patience is not None and optimisation.patience >= epochs:
        raise UsageError(
            f"--patience {optimisation.patience}: is never over in a run of {_epochs(epochs)}; "
            f"leave it away, or give at least --epochs {optimisation.patience + 1}"
        )
    if len(optimisation.stages) > 1 and optimisation.stages[1].begins * steps > steps - 1:
        first, second = optimisation.stages
        raise UsageError(
            f"--optimizer {optimisation.optimizer}: of {steps} steps none is left for {second.optimizer}; "
            f"begin it sooner, or write --optimizer {first.optimizer}"
        )


def _refuse_schedule(recipe: Recipe, epochs: int, steps: int) -> None:
    optimisation = recipe.optimisation
    if optimisation.halving is not None:
        if optimisation.halving >= epochs:
            raise UsageError(
                f"--schedule {optimisation.schedule}: is longer than the run, of {_epochs(epochs)}, and would never "
                f"halve the rate; give at least --epochs {optimisation.halving + 1}, or --schedule constant"
            )
        return
    if optimisation.shape == "plateau" and epochs < PLATEAU_PATIENCE + 3:
        raise UsageError(
            f"--schedule plateau: lowers the rate after {PLATEAU_PATIENCE + 1} epochs without improvement, and a "
            f"run of {_epochs(epochs)} has no room for that; give at least --epochs {PLATEAU_PATIENCE + 3}, "
            "or --schedule constant"
        )
    least = LEAST_STEPS.get(optimisation.shape, 1)
    if steps < least:
        raise UsageError(
            f"--schedule {optimisation.schedule}: needs at least {least} steps, and this run has {steps}; "
            "give more --epochs, a smaller --batch-size, or --schedule onecycle, which fits any run"
        )


def _epochs(number: int) -> str:
    return f"{number} epoch{'s' if number > 1 else ''}"
