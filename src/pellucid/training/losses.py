"""What training makes small: functions of logits and labels that give one number.

Logits are (N, classes). Labels are (N,), or (N, classes) where pictures are mixtures: the share of each class.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch.nn import functional

from pellucid.recipe import Optimisation

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def mse(logits_nk: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean over the batch of the squared distance between the softmax and the one-hot target (the Brier score)."""
    target_nk = labels if labels.ndim == 2 else functional.one_hot(labels, logits_nk.shape[1]).to(logits_nk.dtype)
    return (logits_nk.softmax(1) - target_nk).square().sum(1).mean()


def make_loss(optimisation: Optimisation) -> Loss:
    """The loss that a recipe names."""
    if optimisation.loss == "mse":
        return mse
    return partial(functional.cross_entropy, label_smoothing=optimisation.label_smoothing)
