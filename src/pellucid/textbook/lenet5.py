r"""LeNet-5 from the functions of the textbook alone, with its training loop.

LeCun's network of 1998 with tanh, average pooling and a softmax output in place of the radial units:

| layer  | what                       | output (C, H, W) | parameters          |
|--------|----------------------------|------------------|---------------------|
| conv1  | convolution 6 @ 5×5, tanh  | 6, 28, 28        | 6·(25 + 1) = 156    |
| pool1  | average 2×2                | 6, 14, 14        |                     |
| conv2  | convolution 16 @ 5×5, tanh | 16, 10, 10       | 16·(150 + 1) = 2416 |
| pool2  | average 2×2                | 16, 5, 5         |                     |
| conv3  | convolution 120 @ 5×5, tanh| 120, 1, 1        | 48120               |
| fc1    | linear 120 → 84, tanh      | 84               | 10164               |
| fc2    | linear 84 → 10             | 10               | 850                 |

61,706 parameters for ten classes. An image is 32×32 of one channel.

>>> weights = start(np.random.default_rng(0))
>>> sum(w.size for w in weights.values())
61706
>>> loss, gradients = loss_and_gradients(weights, np.zeros((2, 1, 32, 32)), np.array([3, 7]))
>>> sorted(gradients) == sorted(weights), 2.0 < loss < 2.6
(True, True)

Source: LeCun, Bottou, Bengio & Haffner 1998, "Gradient-based learning applied to document recognition".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pellucid.textbook import convolution, initialiser, linear, loss, pooling, shape
from pellucid.textbook.activation import TANH
from pellucid.textbook.optimiser import OPTIMISERS, batches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pellucid.textbook.terms import Array

#: The layers in order: the convolutions (outputs, inputs, kernel), then the linear ones (outputs, inputs).
SHAPES = {
    "conv1": (6, 1, 5, 5),
    "conv2": (16, 6, 5, 5),
    "conv3": (120, 16, 5, 5),
    "fc1": (84, 120),
    "fc2": (10, 84),
}


@dataclass(frozen=True)
class Pass:
    """A forward pass: the scores (N, 10), and what every step keeps for the way back, by name, in order."""

    scores: Array
    kept: dict[str, Any]


def start(rng: np.random.Generator, classes: int = 10) -> dict[str, Array]:
    """Xavier weights and zero biases, by name ("conv1.weight"), float64."""
    weights = {}
    for name, sizes in SHAPES.items():
        sized = (classes, *sizes[1:]) if name == "fc2" else sizes
        weights[f"{name}.weight"] = initialiser.xavier(rng, sized)
        weights[f"{name}.bias"] = np.zeros(sized[0])
    return weights


def forward(weights: Mapping[str, Array], x_nchw: Array) -> Pass:
    """The scores of images (N, 1, 32, 32)."""
    if x_nchw.ndim != 4 or x_nchw.shape[1:] != (1, 32, 32):
        raise ValueError(
            f"x has shape {x_nchw.shape}, but LeNet-5 takes (N, 1, 32, 32): ⌊(32 − 5)/1⌋ + 1 = 28, and so on to 1"
        )
    kept: dict[str, Any] = {}
    a = x_nchw
    for name in ("conv1", "conv2", "conv3"):
        a, kept[name] = convolution.forward(a, weights[f"{name}.weight"], weights[f"{name}.bias"])
        a, kept[f"{name}.tanh"] = TANH.forward(a)
        if name != "conv3":
            a, kept[f"{name}.pool"] = pooling.average_forward(a, 2)
    a, kept["flatten"] = shape.flatten_forward(a)
    a, kept["fc1"] = linear.forward(a, weights["fc1.weight"], weights["fc1.bias"])
    a, kept["fc1.tanh"] = TANH.forward(a)
    a, kept["fc2"] = linear.forward(a, weights["fc2.weight"], weights["fc2.bias"])
    return Pass(a, kept)


def backward(d_scores: Array, done: Pass) -> dict[str, Array]:
    """The gradient of every weight, and of the images as "x": each step of `forward`, from the last to the first."""
    ways: dict[str, Callable[..., dict[str, Array]]] = {
        "conv": convolution.backward,
        "fc": linear.backward,
        "tanh": TANH.backward,
        "pool": pooling.average_backward,
        "flatten": shape.flatten_backward,
    }
    gradients: dict[str, Array] = {}
    d = d_scores
    for name, kept in reversed(done.kept.items()):
        kind = name.split(".")[-1].rstrip("0123456789")
        found = ways[kind](d, kept)
        d = found["x"]
        if "w" in found:
            gradients[f"{name}.weight"], gradients[f"{name}.bias"] = found["w"], found["b"]
    return {**gradients, "x": d}


def loss_and_gradients(weights: Mapping[str, Array], x_nchw: Array, labels: Array) -> tuple[float, dict[str, Array]]:
    """The mean cross-entropy of a batch, and the gradient of every weight."""
    done = forward(weights, x_nchw)
    value, kept = loss.entropy_forward(done.scores, labels)
    gradients = backward(loss.entropy_backward(np.ones_like(value), kept)["x"], done)
    return float(value), {name: gradients[name] for name in weights}


def train(
    weights: dict[str, Array],
    x_nchw: Array,
    labels: Array,
    order: Iterator[Array],
    *,
    optimiser: str = "momentum",
    **hyper: float,
) -> Iterator[tuple[float, dict[str, Array]]]:
    """One step for each batch of indices in `order`; yields its loss and the weights after it."""
    rule = OPTIMISERS[optimiser]
    states = {name: rule.start(w) for name, w in weights.items()}
    weights = dict(weights)
    for step, batch in enumerate(order, start=1):
        value, gradients = loss_and_gradients(weights, x_nchw[batch], labels[batch])
        for name, gradient in gradients.items():
            weights[name], states[name] = rule.step(weights[name], gradient, states[name], step, **hyper)
        yield value, dict(weights)


def epochs(rng: np.random.Generator, images: int, size: int, count: int) -> Iterator[Array]:
    """The batches of `count` epochs, every epoch in a new order."""
    for _ in range(count):
        yield from batches(rng, images, size)


def accuracy(weights: Mapping[str, Array], x_nchw: Array, labels: Array) -> float:
    """The share of images whose largest score is their label's."""
    return float((forward(weights, x_nchw).scores.argmax(axis=1) == labels).mean())
