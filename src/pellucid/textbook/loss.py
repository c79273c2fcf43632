r"""Losses: how wrong, as one number; and why classifiers take cross-entropy.

**Mean squared error** of m numbers against their targets: L = Σ (x − t)²/m, slope 2(x − t)/m.

**Cross-entropy** of scores x against labels, p = softmax(x) for each image:

$$L = -\frac1D\sum_{n,c} q_{nc}\log p_{nc},\qquad
q_{nc} = u_c\Bigl((1-\epsilon)\,[c = \text{label}_n] + \tfrac{\epsilon}{C}\Bigr),$$

with smoothing ε (0 for plain labels), class weights u (1 unless given), and D = Σ_n u of the labels (N without
weights), or 1 for a sum. Since ∂log p_c/∂x_k = δ_ck − p_k,

$$\frac{\partial L}{\partial x_{nk}} = \frac1D\Bigl(p_{nk}\sum_c q_{nc} - q_{nk}\Bigr),$$

which without weights is (p − q)/N: predicted minus wanted.

**The two compared.** Let one sigmoid unit p = σ(x) be wrong and sure: x = −10, target 1. Squared error has the slope
2(p − 1)·p(1 − p) ≈ −0.00009: the surface is flat where the answer is worst. Cross-entropy has p − 1 ≈ −1: the worse,
the steeper. `surface` gives both, to be drawn.

For given probabilities (0.7, 0.2, 0.1) the loss against class 0 is −log 0.7:

>>> p = np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]])
>>> [round(probability_forward(p[n : n + 1], np.array([0]))[0].item(), 4) for n in (0, 1)]
[0.3567, 2.3026]

Axes: x N C, labels N. Sources: Bishop 2006, ch. 4–5; Szegedy et al. 2016 (label smoothing).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pellucid.textbook import softmax
from pellucid.textbook.activation import sigmoid
from pellucid.textbook.operation import CONSTANT, Argument, Attribute, Operation
from pellucid.textbook.terms import (
    Array,
    Group,
    Index,
    Terms,
    check_index,
    check_shape,
    gather,
    grid,
    plain,
    summed,
    unknown,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

# --- mean squared error -------------------------------------------------------------------------------------------


class KeptError(NamedTuple):
    """What the way back needs: x − t, and by how many numbers the sum is divided."""

    error: Array
    number: int


def _count(x: Array, target: Array, reduction: str) -> int:
    check_shape(target, x.shape, "target", f"Σ (x − t)² with x {x.shape}")
    return x.size if _averages(reduction) else 1


def _averages(reduction: str) -> bool:
    if reduction not in {"mean", "sum"}:
        raise unknown(reduction, ["mean", "sum"], "reduction")
    return reduction == "mean"


def squared_forward(x: Array, target: Array, reduction: str = "mean") -> tuple[Array, KeptError]:
    """Σ (x − t)²/m, a single number; keeps x − t."""
    count = _count(x, target, reduction)
    error = x - target
    return np.asarray((error**2).sum() / count, dtype=error.dtype), KeptError(error, count)


def squared_backward(dy: Array, kept: KeptError) -> dict[str, Array]:
    """Dx = dy·2(x − t)/m, and the opposite for the target."""
    dx = dy * (2 * kept.error) / kept.number
    return {"x": dx, "target": -dx}


def squared_rule(groups: Mapping[str, Group], constants: Mapping[str, Any]) -> dict[str, float]:
    """Σ (x − t)²/m."""
    total = float(((groups["x"].value - groups["target"].value) ** 2).sum())
    return {"total": total, "count": constants["count"], "y": total / constants["count"]}


def squared_terms(index: Index, x: Array, target: Array, reduction: str = "mean") -> Terms:
    """Every number and its target, with slopes ±2(x − t)/m."""
    count = _count(x, target, reduction)
    check_index(index, (), "the loss")
    at = grid(*map(range, x.shape))
    value, wanted = gather(x, at), gather(target, at)
    slope = 2 * (value - wanted) / count
    groups = (Group("x", at, value, slope), Group("target", at, wanted, -slope))
    scale = float(((value - wanted) ** 2).sum()) / count
    return Terms(groups, "Σ (x − t)²/m = {total}/{count}", scale, "formula", squared_rule, {"count": count})


def squared_grad_terms(index: Index, wrt: str, dy: Array, x: Array, target: Array, reduction: str = "mean") -> Terms:
    """The loss's own gradient, through ±2(x − t)/m."""
    count = _count(x, target, reduction)
    if wrt not in {"x", "target"}:
        raise unknown(wrt, ["x", "target"], "the argument of mean_squared_error whose gradient is asked for")
    index = check_index(index, x.shape, f"{wrt}.grad")
    slope = 2 * (float(x[index]) - float(target[index])) / count
    return summed([plain("y.grad", grid(), dy, slope if wrt == "x" else -slope)], f"{wrt}.grad = y.grad·2(x − t)/m")


# --- cross-entropy ------------------------------------------------------------------------------------------------


class KeptEntropy(NamedTuple):
    """What the way back needs: the probabilities p, and the weights q/D, both (N, C)."""

    p_nc: Array
    q_nc: Array


def _weights(x: Array, labels: Array, class_weights: Array | None, smoothing: float, reduction: str) -> Array:
    """q/D of the page, (N, C), float64."""
    if x.ndim != 2 or labels.shape != x.shape[:1]:
        raise ValueError(
            f"x has shape {x.shape} and labels {labels.shape}, but cross-entropy takes x (N, C) and labels (N,)"
        )
    classes = x.shape[1]
    if labels.size and not (labels.min() >= 0 and labels.max() < classes):
        raise ValueError(
            f"labels run from {labels.min()} to {labels.max()}, but x of shape {x.shape} knows 0 to {classes - 1}"
        )
    if not 0 <= smoothing <= 1:
        raise ValueError(f"smoothing is {smoothing}, but (1 − ε)·[c = label] + ε/C needs 0 ≤ ε ≤ 1")
    u_c = np.ones(classes) if class_weights is None else np.asarray(class_weights, dtype=np.float64)
    check_shape(u_c, (classes,), "class_weights", f"one weight a class of x {x.shape}")
    q_nc = ((1 - smoothing) * (labels[:, None] == np.arange(classes)) + smoothing / classes) * u_c
    return np.asarray(q_nc / u_c[labels].sum() if _averages(reduction) else q_nc)


def entropy_forward(
    x: Array, labels: Array, class_weights: Array | None = None, *, smoothing: float = 0.0, reduction: str = "mean"
) -> tuple[Array, KeptEntropy]:
    """−Σ q·log p/D, a single number; keeps p and q/D."""
    q_nc = _weights(x, labels, class_weights, smoothing, reduction).astype(x.dtype)
    log_p, kept = softmax.log_forward(x, axis=1)
    return np.asarray(-(q_nc * log_p).sum(), dtype=x.dtype), KeptEntropy(kept.p, q_nc)


def entropy_backward(dy: Array, kept: KeptEntropy) -> dict[str, Array]:
    """Dx = dy·(p·Σ_c q − q)/D."""
    p_nc, q_nc = kept
    return {"x": dy * (p_nc * q_nc.sum(axis=1, keepdims=True) - q_nc)}


def entropy_rule(groups: Mapping[str, Group], constants: Mapping[str, Any]) -> dict[str, float]:
    """−Σ q·(x − log Σ eˣ), image by image."""
    q_nc = constants["q"]
    x_nc = groups["x"].value.reshape(q_nc.shape)
    largest = x_nc.max(axis=1, keepdims=True)
    log_p = x_nc - largest - np.log(np.exp(x_nc - largest).sum(axis=1, keepdims=True))
    return {"y": float(-(q_nc * log_p).sum())}


def entropy_terms(
    index: Index,
    x: Array,
    labels: Array,
    class_weights: Array | None = None,
    *,
    smoothing: float = 0.0,
    reduction: str = "mean",
) -> Terms:
    """All N·C scores, with slopes (p·Σ q − q)/D."""
    check_index(index, (), "the loss")
    q_nc = _weights(x, labels, class_weights, smoothing, reduction)
    at = grid(*map(range, x.shape))
    value = x.astype(np.float64)
    log_p, kept = softmax.log_forward(value, axis=1)
    slope = kept.p * q_nc.sum(axis=1, keepdims=True) - q_nc
    largest = value.max(axis=1, keepdims=True)
    # A log p is a difference: its rounding is that of the scores and of the logarithm it is made of.
    scale = float((q_nc * (np.abs(value) + np.abs(largest) + np.abs(value - largest - log_p))).sum())
    group = Group("x", at, value.ravel(), slope.ravel())
    template = "−Σ_n,c q[n,c]·log softmax(x)[n,c] = {y}"
    return Terms((group,), template, scale, "formula", entropy_rule, {"q": q_nc})


def entropy_grad_terms(
    index: Index,
    wrt: str,
    dy: Array,
    x: Array,
    labels: Array,
    class_weights: Array | None = None,
    *,
    smoothing: float = 0.0,
    reduction: str = "mean",
) -> Terms:
    """The loss's own gradient, through (p·Σ q − q)/D."""
    if wrt != "x":
        raise unknown(wrt, ["x"], "the argument of cross_entropy whose gradient is asked for")
    n, c = check_index(index, x.shape, "x.grad")
    q_c = _weights(x, labels, class_weights, smoothing, reduction)[n]
    log_p_c = softmax.log_forward(x[n].astype(np.float64))[0]
    share = float(np.exp(log_p_c[c]) * q_c.sum())
    group = plain("y.grad", grid(), dy, share - q_c[c])
    # The p is that of a rounded logarithm: its own rounding grows with |log p|.
    reach = share * (1 + abs(float(log_p_c[c]))) + q_c[c]
    return summed([group], "x.grad = y.grad·(p·Σ q − q)", float(abs(group.value[0]) * reach))


# --- cross-entropy of probabilities -------------------------------------------------------------------------------


class KeptProbabilities(NamedTuple):
    """What the way back needs."""

    p_nc: Array
    labels: Array


def _own(p: Array, labels: Array) -> Array:
    """The probability of each label; refuses labels that do not fit, and p ≤ 0, which has no logarithm."""
    _weights(p, labels, None, 0.0, "mean")
    own = p[np.arange(len(labels)), labels]
    if (own <= 0).any():
        raise ValueError(
            f"the probability of label {labels[own <= 0][0]} is {own[own <= 0][0]}, but −log p needs p > 0"
        )
    return own


def probability_forward(p: Array, labels: Array) -> tuple[Array, KeptProbabilities]:
    """−Σ_n log p[n, label]/N; keeps p."""
    return np.asarray(-np.log(_own(p, labels)).mean(), dtype=p.dtype), KeptProbabilities(p, labels)


def probability_backward(dy: Array, kept: KeptProbabilities) -> dict[str, Array]:
    """∂(−log p)/∂p = −1/p for the label's probability; the others have no say."""
    p_nc, labels = kept
    chosen = labels[:, None] == np.arange(p_nc.shape[1])
    return {"p": np.where(chosen, -dy / p_nc / len(labels), 0.0).astype(p_nc.dtype)}


def probability_rule(groups: Mapping[str, Group], _: Mapping[str, Any]) -> dict[str, float]:
    """−Σ log p/N."""
    p = groups["p"].value
    total = float(-np.log(p).sum())
    return {"total": total, "count": len(p), "y": total / len(p)}


def probability_terms(index: Index, p: Array, labels: Array) -> Terms:
    """One probability an image, slope −1/(p·N)."""
    check_index(index, (), "the loss")
    own = _own(p, labels).astype(np.float64)
    at = np.stack([np.arange(len(labels)), labels], axis=1)
    group = Group("p", at, own, -1 / own / len(own))
    scale = float((np.abs(np.log(own)) + 1e-7).mean())
    return Terms((group,), "Σ −log p[n,label]/N = {total}/{count}", scale, "formula", probability_rule)


def probability_grad_terms(index: Index, wrt: str, dy: Array, p: Array, labels: Array) -> Terms:
    """The loss's own gradient, through −1/(p·N) at the label and 0 elsewhere."""
    if wrt != "p":
        raise unknown(wrt, ["p"], "the argument of cross_entropy_of_probabilities whose gradient is asked for")
    n, c = check_index(index, p.shape, "p.grad")
    own = _own(p, labels)
    slope = -1 / float(own[n]) / len(own) if labels[n] == c else 0.0
    return summed([plain("y.grad", grid(), dy, slope)], "p.grad = −y.grad/(p·N) at the label, else 0")


def surface(weights: Array, biases: Array, x: Array, target: Array) -> tuple[Array, Array]:
    """Both losses of one sigmoid unit σ(w·x + b) for every w and b: (W,), (B,), (N,), (N,) -> two of (W, B)."""
    z = weights[:, None, None] * x + biases[None, :, None]
    squared = ((sigmoid(z) - target) ** 2).mean(axis=-1)
    # −t·log σ(z) − (1 − t)·log σ(−z), with log σ(z) = −log(1 + e⁻ᶻ).
    entropy = (target * np.logaddexp(0, -z) + (1 - target) * np.logaddexp(0, z)).mean(axis=-1)
    return squared, entropy


REDUCTION = Attribute("reduction", "mean", "'mean' or 'sum'")
LABELS = Argument("labels", "n", "the class of each image, a whole number", CONSTANT)

OPERATIONS = (
    Operation(
        "mean_squared_error",
        "softmax_loss",
        "the mean of the squared differences",
        (Argument("x", "*", "the outputs"), Argument("target", "*", "what they should be")),
        squared_forward,
        squared_backward,
        squared_terms,
        squared_grad_terms,
        (REDUCTION,),
    ),
    Operation(
        "cross_entropy",
        "softmax_loss",
        "minus the logarithm of the label's probability, from scores",
        (
            Argument("x", "nc", "the scores (logits)"),
            LABELS,
            Argument("class_weights", "c", "weight of each class", CONSTANT, optional=True),
        ),
        entropy_forward,
        entropy_backward,
        entropy_terms,
        entropy_grad_terms,
        (Attribute("smoothing", 0.0, "ε: the share spread over all classes"), REDUCTION),
    ),
    Operation(
        "cross_entropy_of_probabilities",
        "softmax_loss",
        "minus the logarithm of the label's probability, from probabilities",
        (Argument("p", "nc", "the probabilities"), LABELS),
        probability_forward,
        probability_backward,
        probability_terms,
        probability_grad_terms,
    ),
)
