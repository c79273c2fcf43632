r"""Optimisers: what one step makes of a weight, its gradient, and what was remembered.

With p the weight, g its gradient, η the learning rate and t the number of this step (from 1):

- **gradient descent** p − η·g; over the whole set (batch), one image (single sample), or some (mini-batch): `batches`;
- **momentum** v ← μ·v + g, p − η·v: a heavy ball;
- **Nesterov** v ← μ·v + g, p − η·(g + μ·v): looks where the ball will be;
- **Adagrad** s ← s + g², p − η_t·g/(√s + ε), η_t = η/(1 + (t − 1)·decay): steep directions get small steps, for ever;
- **RMSprop** s ← α·s + (1 − α)·g², p − η·g/(√s + ε): forgets old steepness; Keras has √(s + ε) below the line, where
  the same ε weighs more;
- **Adadelta** s ← ρ·s + (1 − ρ)·g², d = g·√(u + ε)/√(s + ε), u ← ρ·u + (1 − ρ)·d², p − η·d: the step has p's unit;
- **Adam** m ← β₁·m + (1 − β₁)·g, v ← β₂·v + (1 − β₂)·g², with both divided by 1 − βᵗ (they start at 0 and would be too
  small): p − η·m̂/(√v̂ + ε);
- **AdamW** the same, with the weight decay taken off p itself and not put into g;
- **Muon** Nesterov's direction, its whole matrix made orthogonal first: see `muon`.

Weight decay λ elsewhere adds λ·p to g (the slope of λ/2·p²). Clipping comes before both: `clip` is the factor that
clipping by norm found (1 for none), so that g = clip·(the raw gradient) + λ·p.

>>> p, g = np.array([1.0]), np.array([0.5])
>>> OPTIMISERS["gradient_descent"].step(p, g, {}, 1, lr=0.1)[0].tolist()
[0.95]
>>> adam = OPTIMISERS["adam"]
>>> after, state = adam.step(p, g, adam.start(p), 1, lr=0.1)
>>> after.round(6).tolist(), state["m"].round(6).tolist()
([0.9], [0.05])
>>> adam.terms((0,), p, g, adam.start(p), 1, lr=0.1).numbers()
'1 − 0.1·0.5/(√0.25 + 1e-08) = 0.9'

Sources: Polyak 1964; Nesterov 1983, Sutskever et al. 2013; Duchi et al. 2011; Hinton 2012 (lecture 6e); Zeiler 2012;
Kingma & Ba 2015; Loshchilov & Hutter 2019.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from pellucid.textbook.muon import MUON
from pellucid.textbook.terms import Array
from pellucid.textbook.update import Hyper, Optimiser, Values


def batches(rng: np.random.Generator, images: int, size: int) -> Iterator[Array]:
    """The images of one epoch in random order, `size` at a time: all for batch, 1 for single-sample descent.

    >>> [len(batch) for batch in batches(np.random.default_rng(0), 10, 4)]
    [4, 4, 2]
    """
    if not 1 <= size <= images:
        raise ValueError(f"size is {size}, but a batch of {images} images holds 1 to {images}")
    order = rng.permutation(images)
    for start in range(0, images, size):
        yield order[start : start + size]


# --- the rules, each beside its slopes ----------------------------------------------------------------------------


def descent(x: Values, h: Hyper, _: int) -> dict[str, Array]:
    """P − η·g."""
    return {"next": x["p"] - h["lr"] * x["g"]}


def descent_slopes(x: Values, h: Hyper, _: int) -> dict[str, Array]:
    """1 and −η."""
    return {"p": np.ones_like(x["p"]), "g": np.full_like(x["g"], -h["lr"])}


def momentum(x: Values, h: Hyper, _: int) -> dict[str, Array]:
    """V ← μ·v + g, p − η·v."""
    v = h["momentum"] * x["velocity"] + x["g"]
    return {"velocity": v, "next": x["p"] - h["lr"] * v}


def momentum_slopes(x: Values, h: Hyper, step: int) -> dict[str, Array]:
    """1, −η, and −η·μ for the velocity."""
    return {**descent_slopes(x, h, step), "velocity": np.full_like(x["g"], -h["lr"] * h["momentum"])}


def nesterov(x: Values, h: Hyper, _: int) -> dict[str, Array]:
    """V ← μ·v + g, p − η·(g + μ·v)."""
    v = h["momentum"] * x["velocity"] + x["g"]
    return {"velocity": v, "next": x["p"] - h["lr"] * (x["g"] + h["momentum"] * v)}


def nesterov_slopes(x: Values, h: Hyper, _: int) -> dict[str, Array]:
    """1, −η·(1 + μ), −η·μ²."""
    mu, lr = h["momentum"], h["lr"]
    one = np.ones_like(x["p"])
    return {"p": one, "g": -lr * (1 + mu) * one, "velocity": -lr * mu**2 * one}


def adagrad(x: Values, h: Hyper, step: int) -> dict[str, Array]:
    """S ← s + g², p − η_t·g/(√s + ε)."""
    s = x["square_sum"] + x["g"] ** 2
    rate = np.full_like(s, h["lr"] / (1 + (step - 1) * h["lr_decay"]))
    return {"rate": rate, "square_sum": s, "next": x["p"] - rate * x["g"] / (np.sqrt(s) + h["eps"])}


def adagrad_slopes(x: Values, h: Hyper, step: int) -> dict[str, Array]:
    """With r = √s + ε and ds/dg = 2g: −η_t·(1/r − g²/(r²√s)) for g, η_t·g/(2r²√s) for s."""
    s = x["square_sum"] + x["g"] ** 2
    rate = h["lr"] / (1 + (step - 1) * h["lr_decay"])
    return _divided(x, s, h["eps"], rate, 1.0, 1.0, "square_sum")


def rmsprop(x: Values, h: Hyper, _: int) -> dict[str, Array]:
    """S ← α·s + (1 − α)·g², p − η·g/(√s + ε)."""
    s = h["alpha"] * x["square_average"] + (1 - h["alpha"]) * x["g"] ** 2
    return {"square_average": s, "next": x["p"] - h["lr"] * x["g"] / (np.sqrt(s) + h["eps"])}


def rmsprop_slopes(x: Values, h: Hyper, _: int) -> dict[str, Array]:
    """As Adagrad's, with ds/dg = 2(1 − α)g and ds'/ds = α."""
    s = h["alpha"] * x["square_average"] + (1 - h["alpha"]) * x["g"] ** 2
    return _divided(x, s, h["eps"], h["lr"], h["alpha"], 1 - h["alpha"], "square_average")


def rmsprop_keras(x: Values, h: Hyper, _: int) -> dict[str, Array]:
    """S ← α·s + (1 − α)·g², p − η·g/√(s + ε)."""
    s = h["alpha"] * x["square_average"] + (1 - h["alpha"]) * x["g"] ** 2
    return {"square_average": s, "next": x["p"] - h["lr"] * x["g"] / np.sqrt(s + h["eps"])}


def rmsprop_keras_slopes(x: Values, h: Hyper, _: int) -> dict[str, Array]:
    """With r = √(s + ε): ∂next/∂g = −η·(1/r − (1 − α)·g²/r³), ∂next/∂s = η·α·g/(2r³)."""
    r = np.sqrt(h["alpha"] * x["square_average"] + (1 - h["alpha"]) * x["g"] ** 2 + h["eps"])
    return {
        "p": np.ones_like(x["p"]),
        "g": -h["lr"] * (1 / r - (1 - h["alpha"]) * x["g"] ** 2 / r**3),
        "square_average": h["lr"] * h["alpha"] * x["g"] / (2 * r**3),
    }


def _divided(x: Values, s: Array, eps: float, rate: float, keeps: float, takes: float, state: str) -> dict[str, Array]:
    """Slopes of p − rate·g/(√s + ε) with s = keeps·(old) + takes·g²; where s is 0 the step is 0."""
    root = np.sqrt(s)
    r = root + eps
    bend = np.divide(1.0, r**2 * root, out=np.zeros_like(root), where=root > 0)
    return {
        "p": np.ones_like(x["p"]),
        "g": -rate * (1 / r - takes * x["g"] ** 2 * bend),
        state: rate * keeps * x["g"] * bend / 2,
    }


def adadelta(x: Values, h: Hyper, _: int) -> dict[str, Array]:
    """S ← ρ·s + (1 − ρ)·g², d = g·√(u + ε)/√(s + ε), u ← ρ·u + (1 − ρ)·d², p − η·d."""
    s = h["rho"] * x["square_average"] + (1 - h["rho"]) * x["g"] ** 2
    d = x["g"] * np.sqrt(x["delta_average"] + h["eps"]) / np.sqrt(s + h["eps"])
    u = h["rho"] * x["delta_average"] + (1 - h["rho"]) * d**2
    return {"square_average": s, "d": d, "delta_average": u, "next": x["p"] - h["lr"] * d}


def adadelta_slopes(x: Values, h: Hyper, _: int) -> dict[str, Array]:
    """With a = √(u + ε), b = √(s + ε): dd/dg = a/b − (1 − ρ)·a·g²/b³, dd/ds = −ρ·g·a/(2b³), dd/du = g/(2ab)."""
    s = h["rho"] * x["square_average"] + (1 - h["rho"]) * x["g"] ** 2
    a, b = np.sqrt(x["delta_average"] + h["eps"]), np.sqrt(s + h["eps"])
    g, lr = x["g"], h["lr"]
    return {
        "p": np.ones_like(x["p"]),
        "g": -lr * (a / b - (1 - h["rho"]) * a * g**2 / b**3),
        "square_average": lr * h["rho"] * g * a / (2 * b**3),
        "delta_average": -lr * g / (2 * a * b),
    }


def adam(x: Values, h: Hyper, step: int) -> dict[str, Array]:
    """M and v averaged, both freed of their start at 0, p − η·m̂/(√v̂ + ε)."""
    m = h["beta1"] * x["m"] + (1 - h["beta1"]) * x["g"]
    v = h["beta2"] * x["v"] + (1 - h["beta2"]) * x["g"] ** 2
    m_hat, v_hat = m / (1 - h["beta1"] ** step), v / (1 - h["beta2"] ** step)
    return {
        "m": m,
        "v": v,
        "m_hat": m_hat,
        "v_hat": v_hat,
        "next": x["p"] - h["lr"] * m_hat / (np.sqrt(v_hat) + h["eps"]),
    }


def adam_slopes(x: Values, h: Hyper, step: int) -> dict[str, Array]:
    """With r = √v̂ + ε: ∂/∂m̂ = −η/r, ∂/∂v̂ = η·m̂/(2r²√v̂), then through m and v to g and the states."""
    made = adam(x, h, step)
    first, second = 1 - h["beta1"] ** step, 1 - h["beta2"] ** step
    root = np.sqrt(made["v_hat"])
    r = root + h["eps"]
    by_m = -h["lr"] / r / first
    bend = np.divide(1.0, r**2 * root, out=np.zeros_like(root), where=root > 0)
    by_v = h["lr"] * made["m_hat"] * bend / 2 / second
    return {
        "p": np.ones_like(x["p"]),
        "g": by_m * (1 - h["beta1"]) + by_v * (1 - h["beta2"]) * 2 * x["g"],
        "m": by_m * h["beta1"],
        "v": by_v * h["beta2"],
    }


def adamw(x: Values, h: Hyper, step: int) -> dict[str, Array]:
    """Adam on p·(1 − η·λ), the gradient free of the decay."""
    shrunk = x["p"] * (1 - h["lr"] * h["weight_decay"])
    return {"shrunk": shrunk, **adam({**x, "p": shrunk}, h, step)}


def adamw_slopes(x: Values, h: Hyper, step: int) -> dict[str, Array]:
    """Adam's, and 1 − η·λ for p."""
    return {**adam_slopes(x, h, step), "p": np.full_like(x["p"], 1 - h["lr"] * h["weight_decay"])}


MOVING: Hyper = {"lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8}
HEAVY: Hyper = {"momentum": 0.9}

#: Every optimiser by name.
OPTIMISERS: Mapping[str, Optimiser] = {
    o.name: o
    for o in (
        Optimiser("gradient_descent", "straight downhill", (), {}, "{p} − {lr}·{g}", descent, descent_slopes),
        Optimiser("momentum", "a heavy ball", ("velocity",), HEAVY, "{p} − {lr}·{velocity}", momentum, momentum_slopes),
        Optimiser(
            "nesterov",
            "a heavy ball that looks ahead",
            ("velocity",),
            HEAVY,
            "{p} − {lr}·({g} + {momentum}·{velocity})",
            nesterov,
            nesterov_slopes,
        ),
        Optimiser(
            "adagrad",
            "smaller steps where it was steep",
            ("square_sum",),
            {"lr_decay": 0.0, "eps": 1e-10},
            "{p} − {rate}·{g}/(√{square_sum} + {eps})",
            adagrad,
            adagrad_slopes,
        ),
        Optimiser(
            "adadelta",
            "steps in the weight's own unit",
            ("square_average", "delta_average"),
            {"lr": 1.0, "rho": 0.9, "eps": 1e-6},
            "{p} − {lr}·{d}",
            adadelta,
            adadelta_slopes,
        ),
        Optimiser(
            "rmsprop",
            "smaller steps where it has lately been steep",
            ("square_average",),
            {"alpha": 0.99, "eps": 1e-8},
            "{p} − {lr}·{g}/(√{square_average} + {eps})",
            rmsprop,
            rmsprop_slopes,
        ),
        Optimiser(
            "rmsprop_keras",
            "the same, with ε under the root",
            ("square_average",),
            {"alpha": 0.9, "eps": 1e-7},
            "{p} − {lr}·{g}/√({square_average} + {eps})",
            rmsprop_keras,
            rmsprop_keras_slopes,
        ),
        Optimiser(
            "adam",
            "momentum over recent steepness",
            ("m", "v"),
            MOVING,
            "{p} − {lr}·{m_hat}/(√{v_hat} + {eps})",
            adam,
            adam_slopes,
        ),
        Optimiser(
            "adamw",
            "Adam with the decay on the weight itself",
            ("m", "v"),
            {**MOVING, "weight_decay": 1e-2},
            "{shrunk} − {lr}·{m_hat}/(√{v_hat} + {eps})",
            adamw,
            adamw_slopes,
            decoupled=True,
        ),
        MUON,
    )
}
