from __future__ import annotations

import numpy as np
import pytest
import torch

from pellucid.textbook import norms


def test_what_reaches_the_direction_stands_at_right_angles_to_it() -> None:
    rng = np.random.default_rng(0)
    v, g = rng.standard_normal((4, 3, 2)), rng.uniform(0.5, 2, (4, 1, 1))
    _, kept = norms.weight_forward(v, g)
    dv = norms.weight_backward(rng.standard_normal(v.shape), kept)["v"]
    np.testing.assert_allclose((dv * v).sum(axis=(1, 2)), 0, atol=1e-12)


def test_the_length_of_a_weight_is_g() -> None:
    rng = np.random.default_rng(1)
    v, g = rng.standard_normal((4, 3, 2)), rng.uniform(0.5, 2, (1, 1, 2))
    w, _ = norms.weight_forward(v, g, axis=2)
    np.testing.assert_allclose(norms.norm_forward(w, (0, 1), keep=True)[0], g, rtol=1e-12)
    np.testing.assert_allclose(w, torch._weight_norm(torch.tensor(v), torch.tensor(g), 2).numpy(), rtol=1e-12)


def test_a_norm_of_0_has_no_direction() -> None:
    x = np.zeros((2, 3))
    y, kept = norms.norm_forward(x, (1,))
    assert norms.norm_backward(np.ones(2), kept)["x"].tolist() == x.tolist()
    assert norms.norm_terms((0,), x, (1,)).recompute() == y[0] == 0.0
    assert norms.norm_grad_terms((0, 1), "x", np.ones(2), x, (1,)).recompute() == 0.0


def test_refusals() -> None:
    v = np.zeros((2, 3))
    with pytest.raises(ValueError, match=r"g has shape \(3, 1\), but v of shape \(2, 3\) asks for \(2, 1\)"):
        norms.weight_forward(v, np.zeros((3, 1)))
    with pytest.raises(ValueError, match=r"axis is 2, but v of shape \(2, 3\) has axes 0 to 1"):
        norms.weight_forward(v, np.zeros((2, 1)), axis=2)
    with pytest.raises(ValueError, match=r"axes are \(2,\), but x of shape \(2, 3\) has axes 0 to 1, each once"):
        norms.norm_forward(v, (2,))
    with pytest.raises(ValueError, match="weight_norm whose gradient is asked for is 'w', which is none of v, g"):
        norms.weight_grad_terms((0, 0), "w", v, v, np.ones((2, 1)))
