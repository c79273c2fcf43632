"""What training makes small: functions of logits and labels that give one number.

Logits are (N, classes). Labels are (N,), or (N, classes) where pictures are mixtures: the share of each class.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

from pellucid.recipe import Recipe

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

#: Focal loss: how fast a picture's weight falls as it becomes easy (γ of the paper, which found 2 best).
FOCUS = 2.0


@dataclass(frozen=True, eq=False)
class Weighed:
    """A loss whose mean is one by weights, one for each class."""

    loss: Loss
    weight_k: torch.Tensor

    def __call__(self, logits_nk: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The loss of a batch."""
        return self.loss(logits_nk, labels)


def mass(loss: Loss, labels: torch.Tensor) -> float | torch.Tensor:
    """What a batch's mean loss is divided by: its pictures, or, with class weights, the weights of their labels.

    Mixtures count by the picture, as torch's cross-entropy has it, and so does a loss of one's own.
    """
    if not isinstance(loss, Weighed) or labels.ndim == 2:
        return float(len(labels))
    wide = torch.float32 if labels.device.type == "mps" else torch.float64
    return loss.weight_k.to(labels.device, wide)[labels].sum()


def make_loss(recipe: Recipe, class_counts: Sequence[int] = ()) -> Loss:
    """The loss that a recipe names; `class_counts`, pictures of each class, are what `--balance weights` goes by."""
    weight_k = balanced(class_counts) if recipe.optimisation.balance == "weights" else None
    smoothing = recipe.regularisation.label_smoothing

    def cross_entropy(logits_nk: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(logits_nk, labels, _beside(weight_k, logits_nk), label_smoothing=smoothing)

    def focal_loss(logits_nk: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return focal(logits_nk, labels, weight_k=_beside(weight_k, logits_nk))

    chosen: Loss = {"mse": mse, "focal": focal_loss}.get(recipe.optimisation.loss, cross_entropy)
    return chosen if weight_k is None else Weighed(chosen, weight_k)


def mse(logits_nk: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean over the batch of the squared distance between the softmax and the one-hot target (the Brier score)."""
    return (logits_nk.softmax(1) - _shares(logits_nk, labels)).square().sum(1).mean()


def focal(
    logits_nk: torch.Tensor, labels: torch.Tensor, *, focus: float = FOCUS, weight_k: torch.Tensor | None = None
) -> torch.Tensor:
    """Mean of −(1 − p)^γ ln p, p the probability of the right class (Lin et al. 2017, equation 4).

    What is already recognised hardly counts. With γ = 0 it is cross-entropy. Class weights are applied and divided by
    as torch's cross-entropy does.
    """
    log_p_nk = logits_nk.log_softmax(1)
    share_nk = _shares(logits_nk, labels)
    if weight_k is not None:
        share_nk = share_nk * weight_k
    each_n = -(share_nk * (1 - log_p_nk.exp()) ** focus * log_p_nk).sum(1)
    return each_n.sum() / (share_nk.sum() if labels.ndim == 1 else len(each_n))


def balanced(class_counts: Sequence[int]) -> torch.Tensor:
    """A weight for each class in inverse proportion to its pictures; 1 on average over the pictures."""
    counts_k = torch.tensor(class_counts, dtype=torch.float64)
    return counts_k.sum() / (len(counts_k) * counts_k.clamp(min=1))


def _shares(logits_nk: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return labels if labels.ndim == 2 else functional.one_hot(labels, logits_nk.shape[1]).to(logits_nk.dtype)


def _beside(weight_k: torch.Tensor | None, logits_nk: torch.Tensor) -> torch.Tensor | None:
    return None if weight_k is None else weight_k.to(logits_nk.device, logits_nk.dtype)
