from __future__ import annotations

import numpy as np
import pytest
import torch

from pellucid.textbook import OPTIMISERS
from pellucid.textbook.muon import A, B, C, orthogonal, orthogonal_backward, rate

SHAPES = [(3, 5), (5, 3), (4, 4), (1, 6), (6, 1)]


@pytest.mark.parametrize("shape", SHAPES)
def test_singular_values_go_through_the_polynomial_and_directions_stay(shape: tuple[int, int]) -> None:
    u = np.random.default_rng(0).standard_normal(shape)
    left, s, right = np.linalg.svd(u, full_matrices=False)
    s = s / np.linalg.norm(s)
    for _ in range(5):
        s = A * s + B * s**3 + C * s**5
    np.testing.assert_allclose(orthogonal(u)[0], left @ np.diag(s) @ right, rtol=0, atol=1e-12)


def test_all_directions_become_about_equally_long() -> None:
    rng = np.random.default_rng(1)
    u = (
        np.linalg.qr(rng.standard_normal((40, 40)))[0]
        @ np.diag(np.geomspace(1, 0.01, 40))
        @ rng.standard_normal((40, 90))
    )
    values = np.linalg.svd(orthogonal(u)[0])[1]
    assert np.linalg.cond(u) > 100
    # The band that the method's author gives: 0.7 to 1.2.
    assert values.min() > 0.6
    assert values.max() < 1.25


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [1.0, 1e-12])
def test_the_way_back_is_the_slope(shape: tuple[int, int], size: float) -> None:
    rng = np.random.default_rng(2)
    u, dy = rng.standard_normal(shape) * size, rng.standard_normal(shape)
    du = orthogonal_backward(dy, orthogonal(u)[1])
    for index in np.ndindex(shape):
        ends = []
        for way in (1e-6 * size, -1e-6 * size):
            moved = u.copy()
            moved[index] += way
            ends.append((orthogonal(moved)[0] * dy).sum())
        assert du[index] == pytest.approx((ends[0] - ends[1]) / (2e-6 * size), rel=1e-6, abs=1e-7 * np.abs(du).max())


def test_without_a_gradient_nothing_moves() -> None:
    rule, p = OPTIMISERS["muon"], np.ones((3, 2))
    after, state = rule.step(p, np.zeros((3, 2)), rule.start(p), 1)
    assert after.tolist() == p.tolist()
    assert not state["velocity"].any()


@pytest.mark.parametrize("shape", [(6, 4), (4, 6)])
def test_twenty_steps_are_torchs(shape: tuple[int, int]) -> None:
    rng, rule = np.random.default_rng(3), OPTIMISERS["muon"]
    ours = rng.standard_normal(shape)
    theirs = torch.nn.Parameter(torch.from_numpy(ours.copy()))
    engine = torch.optim.Muon([theirs], lr=0.1, weight_decay=0.3, momentum=0.9)
    state = rule.start(ours)
    for step in range(1, 21):
        g = rng.standard_normal(shape)
        before = ours
        ours, state = rule.step(ours, g, state, step, lr=0.1, weight_decay=0.3, momentum=0.9)
        theirs.grad = torch.from_numpy(g)
        engine.step()  # type: ignore[no-untyped-call]
        # Theirs makes the directions in bfloat16, of eight bits: a tenth of the step at most.
        np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=0, atol=0.1 * np.abs(ours - before).max())
        with torch.no_grad():
            theirs.copy_(torch.from_numpy(ours))


def test_a_filters_matrix_is_its_first_axis_by_the_others() -> None:
    rng, rule = np.random.default_rng(4), OPTIMISERS["muon"]
    p, g = rng.standard_normal((4, 2, 3, 3)), rng.standard_normal((4, 2, 3, 3))
    after, _ = rule.step(p, g, rule.start(p), 1, lr=0.1)
    flat, _ = rule.step(p.reshape(4, 18), g.reshape(4, 18), rule.start(p.reshape(4, 18)), 1, lr=0.1)
    np.testing.assert_array_equal(after.reshape(4, 18), flat)
    assert rate(0.1, (4, 2, 3, 3)) == 0.1
    assert rate(0.1, (18, 2)) == pytest.approx(0.3)


def test_rounds_are_few() -> None:
    rule, p = OPTIMISERS["muon"], np.ones((2, 2))
    with pytest.raises(ValueError, match="rounds is 1e\\+09, but"):
        rule.step(p, p, rule.start(p), 1, rounds=1e9)
