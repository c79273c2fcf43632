from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pellucid.textbook import cells


def weights(d: int, h: int, gates: int) -> list[Any]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal((gates * h, d)), rng.standard_normal((gates * h, h)), rng.standard_normal(gates * h)]


def test_an_open_forget_gate_keeps_the_cell() -> None:
    """With f = 1 and i = 0 the cell is what it was, and so is its gradient: the road on which nothing vanishes."""
    h, d = 3, 2
    w_xh, w_hh = np.zeros((4 * h, d)), np.zeros((4 * h, h))
    b = np.concatenate([np.full(h, -50.0), np.full(h, 50.0), np.zeros(2 * h)])
    c = np.random.default_rng(0).standard_normal((1, h))
    out, kept = cells.lstm_forward(np.ones((1, d)), np.zeros((1, h)), c, w_xh, w_hh, b)
    np.testing.assert_allclose(out["c"], c, atol=1e-12)
    back = cells.lstm_backward({"c": np.ones((1, h))}, kept)
    np.testing.assert_allclose(back["c_prev"], 1, atol=1e-12)


def test_the_cells_terms_are_its_gates() -> None:
    x, h, c = np.ones((1, 2)), np.zeros((1, 3)), np.ones((1, 3))
    w = weights(2, 3, 4)
    _, kept = cells.lstm_forward(x, h, c, *w)
    terms = cells.lstm_terms((0, 1), x, h, c, *w, output="c")
    assert [(g.source, g.factor.source if g.factor else None) for g in terms.groups] == [("c_prev", "f"), ("g", "i")]
    gate = cells.lstm_terms((0, 1), output="f", kept=kept)
    assert {g.source for g in gate.groups} == {"x", "h_prev", "b"}
    assert gate.steps()["sum"] == pytest.approx(float(x[0] @ w[0][4] + h[0] @ w[1][4] + w[2][4]))


def test_the_output_of_an_rnn_cell() -> None:
    w = weights(2, 3, 1)
    w_hy = np.ones((1, 3))
    out, _ = cells.rnn_forward(np.ones((1, 2)), np.zeros((1, 3)), w[0], w[1], w[2], w_hy=w_hy)
    assert out["y"][0, 0] == pytest.approx(out["h"].sum())


def test_refusals() -> None:
    w = weights(2, 3, 4)
    x, h, c = np.ones((1, 2)), np.zeros((1, 3)), np.ones((1, 3))
    with pytest.raises(
        ValueError, match=r"w_xh has shape \(12, 2\), but a = W_xh·x .* with 1 gate.* asks for \(3, 2\)"
    ):
        cells.rnn_forward(x, h, *w)
    with pytest.raises(ValueError, match=r"c_prev has shape \(1, 2\), but c = f·c_prev"):
        cells.lstm_forward(x, h, c[:, :2], *w)
    with pytest.raises(ValueError, match=r"x has shape \(2,\) and h \(1, 3\), but a cell takes"):
        cells.lstm_forward(x[0], h, c, *w)
    with pytest.raises(ValueError, match="output is 'q', which is none of i, f, g, o, c, h"):
        cells.lstm_terms((0, 0), x, h, c, *w, output="q")
    with pytest.raises(ValueError, match="output is 'y', which is none of h"):
        cells.rnn_terms((0, 0), x, h, *[a[:3] for a in w], output="y")
