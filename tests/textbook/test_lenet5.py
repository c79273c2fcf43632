from __future__ import annotations

import numpy as np
import pytest

from pellucid.textbook import lenet5


def test_the_parameters_are_lecuns() -> None:
    sizes = {name: w.size for name, w in lenet5.start(np.random.default_rng(0)).items()}
    per_layer = [sizes[f"{layer}.weight"] + sizes[f"{layer}.bias"] for layer in lenet5.SHAPES]
    assert per_layer == [156, 2416, 48120, 10164, 850]
    assert sum(per_layer) == 61_706


def test_the_gradient_is_a_difference() -> None:
    rng = np.random.default_rng(0)
    weights = lenet5.start(rng)
    x, labels = rng.standard_normal((3, 1, 32, 32)), np.array([0, 5, 9])
    _, gradients = lenet5.loss_and_gradients(weights, x, labels)
    for name, gradient in gradients.items():
        way = rng.standard_normal(gradient.shape)
        ends = [
            lenet5.loss_and_gradients({**weights, name: weights[name] + h * way}, x, labels)[0] for h in (1e-5, -1e-5)
        ]
        assert (ends[0] - ends[1]) / 2e-5 == pytest.approx(float((gradient * way).sum()), rel=1e-6, abs=1e-9)


def test_an_image_of_another_size() -> None:
    with pytest.raises(ValueError, match=r"x has shape \(1, 1, 28, 28\), but LeNet-5 takes \(N, 1, 32, 32\)"):
        lenet5.forward(lenet5.start(np.random.default_rng(0)), np.zeros((1, 1, 28, 28)))
