"""A recipe: everything that decides a training run, as small frozen dataclasses.

Two runs with equal recipes on one machine give the same network, to the byte.
"""

from __future__ import annotations

from pellucid.recipe.change import PRESETS, settle
from pellucid.recipe.file import read_recipe, to_toml
from pellucid.recipe.settings import (
    LEARNING_RATES,
    NETWORKS,
    Augmentation,
    Balance,
    Device,
    Engine,
    HeadKind,
    Layout,
    Loss,
    Monitor,
    Normalise,
    Optimisation,
    Optimizer,
    Pictures,
    Precision,
    Recipe,
    Regularisation,
    Resize,
    Schedule,
    Stage,
)
from pellucid.recipe.usual import usual_batch_size, usual_bias_rate, usual_epochs, usual_rate

__all__ = [
    "LEARNING_RATES",
    "NETWORKS",
    "PRESETS",
    "Augmentation",
    "Balance",
    "Device",
    "Engine",
    "HeadKind",
    "Layout",
    "Loss",
    "Monitor",
    "Normalise",
    "Optimisation",
    "Optimizer",
    "Pictures",
    "Precision",
    "Recipe",
    "Regularisation",
    "Resize",
    "Schedule",
    "Stage",
    "read_recipe",
    "settle",
    "to_toml",
    "usual_batch_size",
    "usual_bias_rate",
    "usual_epochs",
    "usual_rate",
]
