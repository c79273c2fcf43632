r"""Normalisation: take the mean off, divide by the spread, then let the network choose both again.

A set of n numbers x_m shares one mean and one variance:

$$\mu = \tfrac1n\sum_m x_m,\quad \sigma^2 = \tfrac1n\sum_m (x_m-\mu)^2,\quad s = \frac{1}{\sqrt{\sigma^2+\epsilon}},
\quad
\hat x_m = (x_m-\mu)\,s,\quad y_m = \gamma\,\hat x_m + \beta.$$

What is a set is the whole difference: **batch** normalisation takes all images and places of one channel, **layer**
normalisation the last axes of one image, **group** normalisation a group of channels of one image.

**Backward.** x_m moves y_j in three ways, through itself, through μ and through σ². With ∂μ/∂x_m = 1/n and
∂s/∂x_m = −s³(x_m − μ)/n = −s²·x̂_m/n,

$$\frac{\partial\hat x_j}{\partial x_m} = s\Bigl(\delta_{jm} - \tfrac1n - \tfrac1n\hat x_j\hat x_m\Bigr)
\;\Rightarrow\;
\frac{\partial L}{\partial x_m}
= s\Bigl(d\hat x_m - \tfrac1n\sum_j d\hat x_j - \tfrac1n\hat x_m\sum_j d\hat x_j\hat x_j\Bigr),
\quad d\hat x_j = \gamma_j\,\frac{\partial L}{\partial y_j},$$

and, summed over all that share a γ and β, dγ = Σ dy·x̂ and dβ = Σ dy.

**Running averages.** In training batch normalisation also updates r ← (1 − momentum)·r + momentum·(batch's), for the
mean, and for the variance with n − 1 in place of n. In evaluation these take the place of μ and σ², which are then
constants: dx = dy·γ·s, and nothing more.

>>> x, one, zero = np.array([[1.0], [3.0]]), np.ones(1), np.zeros(1)
>>> out, kept = batch_forward(x, one, zero, zero, one, training=True, eps=0.0)
>>> out["y"].ravel().tolist(), round(out["running_mean"].item(), 4), round(out["running_variance"].item(), 4)
([-1.0, 1.0], 0.2, 1.1)

Axes: batch N C …, layer … D (any number of last axes), group N C …. Sources: Ioffe & Szegedy 2015; Ba et al. 2016; Wu &
He 2018.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from pellucid.textbook.operation import CONSTANT, PARAMETER, Argument, Attribute, Operation, given
from pellucid.textbook.sets import Kept, Sets, affine, backward, finish, scaled, set_grad_terms, set_terms
from pellucid.textbook.terms import Array, Group, Index, Terms, check_index, check_shape, gather, plain, row, unknown

if TYPE_CHECKING:
    from collections.abc import Mapping


# --- batch --------------------------------------------------------------------------------------------------------


def _of_batch(x: Array, parameters: dict[str, Array | None]) -> Sets:
    if x.ndim < 2:
        raise ValueError(f"x has shape {x.shape}, but batch normalisation takes (N, C, …)")
    for name, parameter in parameters.items():
        if parameter is not None:
            check_shape(parameter, (x.shape[1],), name, f"one number a channel of x {x.shape}")
    return Sets(x.shape, tuple(a for a in range(x.ndim) if a != 1), (1,))


def batch_forward(
    x: Array,
    gamma: Array | None = None,
    beta: Array | None = None,
    running_mean: Array | None = None,
    running_variance: Array | None = None,
    *,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> tuple[dict[str, Array], Kept]:
    """The output y and the running averages, by name; keeps x̂ and s.

    Without running averages the batch's own statistics are always used.
    """
    sets = _of_batch(
        x, {"gamma": gamma, "beta": beta, "running_mean": running_mean, "running_variance": running_variance}
    )
    after: dict[str, Array] = given(running_mean=running_mean, running_variance=running_variance)
    if not training and running_mean is not None and running_variance is not None:
        s = 1 / np.sqrt(sets.per_channel(running_variance, x) + eps)
        x_hat = (x - sets.per_channel(running_mean, x)) * s
        kept = Kept(x_hat, s, gamma, beta, sets, True)
    else:
        if sets.size < 2:
            raise ValueError(f"x of shape {x.shape} has {sets.size} number a channel: σ² needs at least 2 to train")
        x_hat, s = sets.standardise(x, eps)
        kept = Kept(x_hat, s, gamma, beta, sets, False)
        if training and running_mean is not None and running_variance is not None:
            mean, variance = x.mean(axis=sets.over), x.var(axis=sets.over, ddof=1)
            after["running_mean"] = ((1 - momentum) * running_mean + momentum * mean).astype(x.dtype)
            after["running_variance"] = ((1 - momentum) * running_variance + momentum * variance).astype(x.dtype)
    return {"y": scaled(x, x_hat, gamma, beta, sets), **after}, kept


def batch_terms(
    index: Index,
    x: Array,
    gamma: Array | None = None,
    beta: Array | None = None,
    running_mean: Array | None = None,
    running_variance: Array | None = None,
    *,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    output: str = "y",
) -> Terms:
    """y: the channel's numbers (training) or the running averages; `output` may name a running average."""
    sets = _of_batch(
        x, {"gamma": gamma, "beta": beta, "running_mean": running_mean, "running_variance": running_variance}
    )
    known = {"running_mean": running_mean, "running_variance": running_variance}
    if output != "y":
        old = known.get(output)
        if old is None:
            raise unknown(output, ["y", *(name for name, array in known.items() if array is not None)], "output")
        return _running_terms(index, x, output, old, momentum if training else 0.0, sets)
    if training or running_mean is None or running_variance is None:
        return set_terms(index, x, gamma, beta, sets, eps)
    index = check_index(index, x.shape, "the output of batch_norm")
    channel = row((index[1],))
    m, v, value = float(running_mean[index[1]]), float(running_variance[index[1]]), float(x[index])
    g = 1.0 if gamma is None else float(gamma[index[1]])
    s = 1 / math.sqrt(v + eps)
    groups = [
        plain("x", row(index), x, g * s),
        plain("running_mean", channel, running_mean, -g * s),
        plain("running_variance", channel, running_variance, -0.5 * g * (value - m) * s**3),
    ]
    scale = abs(g) * s * (abs(value) + abs(m))
    return affine(groups, channel, (value - m) * s, gamma, beta, scale, evaluation_rule, {"eps": eps})


def evaluation_rule(groups: Mapping[str, Group], constants: Mapping[str, Any]) -> dict[str, float]:
    """(x − μ)/√(σ² + ε)·γ + β, with the running averages for μ and σ²."""
    steps = {
        "x": float(groups["x"].value[0]),
        "mean": float(groups["running_mean"].value[0]),
        "variance": float(groups["running_variance"].value[0]),
    }
    return finish(steps, groups, constants)


def batch_grad_terms(
    index: Index,
    wrt: str,
    dy: Array | Mapping[str, Array],
    x: Array,
    gamma: Array | None = None,
    beta: Array | None = None,
    running_mean: Array | None = None,
    running_variance: Array | None = None,
    *,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Terms:
    """For x: every gradient of the channel (training) or its own; for γ and β: all gradients of the channel."""
    del momentum
    sets = _of_batch(
        x, {"gamma": gamma, "beta": beta, "running_mean": running_mean, "running_variance": running_variance}
    )
    fixed = None
    if not training and running_mean is not None and running_variance is not None:
        fixed = (running_mean.astype(np.float64), 1 / np.sqrt(running_variance.astype(np.float64) + eps))
    return set_grad_terms(index, wrt, dy if isinstance(dy, np.ndarray) else dy["y"], x, gamma, beta, sets, eps, fixed)


def _running_terms(index: Index, x: Array, output: str, old: Array, momentum: float, sets: Sets) -> Terms:
    """(1 − momentum)·old + momentum·(mean or variance of the channel)."""
    (channel,) = check_index(index, old.shape, output)
    at = sets.members((0, channel, *(0,) * (x.ndim - 2)), x.shape)
    value = gather(x, at)
    if output == "running_mean":
        slope = np.full(len(value), momentum / len(value))
        scale = momentum * float(np.abs(value).mean())
    else:
        slope = 2 * momentum * (value - value.mean()) / max(len(value) - 1, 1)
        scale = momentum * float((np.abs(value) + np.abs(value).mean()).max() ** 2)
    groups = (Group("x", at, value, slope), plain(output, row((channel,)), old, 1 - momentum))
    constants = {"momentum": momentum, "which": output}
    template = "(1 − {momentum})·{old} + {momentum}·{now}"
    return Terms(groups, template, scale + abs(float(old[channel])), "formula", running_rule, constants)


def running_rule(groups: Mapping[str, Group], constants: Mapping[str, Any]) -> dict[str, float]:
    """The old average and the batch's, mixed."""
    which, momentum = constants["which"], constants["momentum"]
    value = groups["x"].value
    now = 0.0
    if momentum:
        now = float(value.mean() if which == "running_mean" else value.var(ddof=1))
    old = float(groups[which].value[0])
    return {"momentum": momentum, "old": old, "now": now, "y": (1 - momentum) * old + momentum * now}


# --- layer and group ----------------------------------------------------------------------------------------------


def _of_layer(x: Array, parameters: dict[str, Array | None], axes: int) -> Sets:
    if not 1 <= axes <= x.ndim:
        raise ValueError(f"axes is {axes}, but x of shape {x.shape} has 1 to {x.ndim} last axes to normalise")
    last = tuple(range(x.ndim - axes, x.ndim))
    for name, parameter in parameters.items():
        if parameter is not None:
            check_shape(parameter, x.shape[x.ndim - axes :], name, f"the last {axes} axes of x {x.shape}")
    return Sets(x.shape, last, last)


def _of_group(x: Array, parameters: dict[str, Array | None], groups: int) -> Sets:
    if x.ndim < 2 or groups < 1 or x.shape[1] % groups:
        raise ValueError(
            f"{groups} groups do not split x of shape {x.shape} evenly: C of (N, C, …) must be a multiple of G"
        )
    for name, parameter in parameters.items():
        if parameter is not None:
            check_shape(parameter, (x.shape[1],), name, f"one number a channel of x {x.shape}")
    split = (x.shape[0], groups, x.shape[1] // groups, *x.shape[2:])
    return Sets(split, tuple(range(2, len(split))), (1,))


def layer_forward(
    x: Array, gamma: Array | None = None, beta: Array | None = None, *, axes: int = 1, eps: float = 1e-5
) -> tuple[Array, Kept]:
    """Every row of the last `axes` axes normalised by itself; keeps x̂ and s."""
    sets = _of_layer(x, {"gamma": gamma, "beta": beta}, axes)
    x_hat, s = sets.standardise(x, eps)
    return scaled(x, x_hat, gamma, beta, sets), Kept(x_hat, s, gamma, beta, sets, False)


def layer_terms(
    index: Index, x: Array, gamma: Array | None = None, beta: Array | None = None, *, axes: int = 1, eps: float = 1e-5
) -> Terms:
    """The row's numbers, γ and β."""
    return set_terms(index, x, gamma, beta, _of_layer(x, {"gamma": gamma, "beta": beta}, axes), eps)


def layer_grad_terms(
    index: Index,
    wrt: str,
    dy: Array,
    x: Array,
    gamma: Array | None = None,
    beta: Array | None = None,
    *,
    axes: int = 1,
    eps: float = 1e-5,
) -> Terms:
    """For x: every gradient of the row; for γ and β: those of all rows."""
    sets = _of_layer(x, {"gamma": gamma, "beta": beta}, axes)
    return set_grad_terms(index, wrt, dy, x, gamma, beta, sets, eps)


def group_forward(
    x: Array, gamma: Array | None = None, beta: Array | None = None, *, groups: int = 1, eps: float = 1e-5
) -> tuple[Array, Kept]:
    """Every group of channels of every image normalised by itself; keeps x̂ and s."""
    sets = _of_group(x, {"gamma": gamma, "beta": beta}, groups)
    x_hat, s = sets.standardise(x, eps)
    return scaled(x, x_hat, gamma, beta, sets), Kept(x_hat, s, gamma, beta, sets, False)


def group_terms(
    index: Index, x: Array, gamma: Array | None = None, beta: Array | None = None, *, groups: int = 1, eps: float = 1e-5
) -> Terms:
    """The group's numbers, γ and β."""
    return set_terms(index, x, gamma, beta, _of_group(x, {"gamma": gamma, "beta": beta}, groups), eps)


def group_grad_terms(
    index: Index,
    wrt: str,
    dy: Array,
    x: Array,
    gamma: Array | None = None,
    beta: Array | None = None,
    *,
    groups: int = 1,
    eps: float = 1e-5,
) -> Terms:
    """For x: every gradient of the group; for γ and β: those of the channel in all images."""
    sets = _of_group(x, {"gamma": gamma, "beta": beta}, groups)
    return set_grad_terms(index, wrt, dy, x, gamma, beta, sets, eps)


IMAGE = Argument("x", "nc…", "the feature maps")
GAMMA = Argument("gamma", "c", "the new spread", PARAMETER, optional=True)
BETA = Argument("beta", "c", "the new mean", PARAMETER, optional=True)
EPS = Attribute("eps", 1e-5, "added to the variance, so that no division is by zero")

OPERATIONS = (
    Operation(
        "batch_norm",
        "normalisation",
        "each channel over images and places",
        (
            IMAGE,
            GAMMA,
            BETA,
            Argument("running_mean", "c", "average of the batches' means", CONSTANT, optional=True),
            Argument("running_variance", "c", "average of the batches' variances (n − 1)", CONSTANT, optional=True),
        ),
        batch_forward,
        backward,
        batch_terms,
        batch_grad_terms,
        (
            Attribute("training", False, "the batch's statistics, or the running ones"),
            Attribute("momentum", 0.1, "weight of the new batch in the running averages"),
            EPS,
        ),
        outputs=("y", "running_mean", "running_variance"),
    ),
    Operation(
        "layer_norm",
        "normalisation",
        "each image (or row) over its last axes",
        (
            Argument("x", "…d", "any array"),
            Argument("gamma", "d", "the new spread", PARAMETER, optional=True),
            Argument("beta", "d", "the new mean", PARAMETER, optional=True),
        ),
        layer_forward,
        backward,
        layer_terms,
        layer_grad_terms,
        (Attribute("axes", 1, "how many of the last axes"), EPS),
    ),
    Operation(
        "group_norm",
        "normalisation",
        "each group of channels of each image",
        (IMAGE, GAMMA, BETA),
        group_forward,
        backward,
        group_terms,
        group_grad_terms,
        (Attribute("groups", 1, "equal groups of channels"), EPS),
    ),
)
