from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pellucid.textbook import OPERATIONS
from pellucid.textbook.recurrent import LSTM, RNN

Array = npt.NDArray[Any]


def stack(gates: int, d: int, h: int, layers: int, scale: float = 0.5) -> list[Any]:
    rng = np.random.default_rng(0)
    found: list[Any] = []
    for layer in range(layers):
        found += [rng.standard_normal((gates * h, d if layer == 0 else h)) * scale]
        found += [rng.standard_normal((gates * h, h)) * scale, rng.standard_normal(gates * h), None]
    return found


def test_every_value_inside_is_recomputed_and_so_is_its_gradient() -> None:
    x = np.random.default_rng(1).standard_normal((2, 4, 3))
    arrays = [x, None, None, *stack(4, 3, 2, 2)]
    out, kept = LSTM.forward(*arrays)
    inside = LSTM.interior(kept)
    assert set(inside) == {f"{layer}.{name}" for layer in (0, 1) for name in "ifgoch"}
    dy = {"y": np.ones_like(out["y"])}
    gradients = LSTM.backward(dy, kept)
    for name, value in inside.items():
        assert value.shape == (2, 4, 2)
        for index in np.ndindex(value.shape):
            terms = LSTM.terms(index, *arrays, output=name, kept=kept)
            assert terms.recompute() == pytest.approx(float(value[index]), abs=1e-13)
            pulls = LSTM.grad_terms(index, name, dy, *arrays, kept=kept)
            assert pulls.recompute() == pytest.approx(float(gradients[name][index]), abs=1e-13)


def test_a_state_is_pulled_on_from_time_and_from_depth() -> None:
    x = np.random.default_rng(1).standard_normal((1, 3, 2))
    arrays = [x, None, None, *stack(4, 2, 2, 2)]
    dy = {"y": np.ones((1, 3, 2))}
    sources = {g.source for g in LSTM.grad_terms((0, 0, 1), "0.h", dy, *arrays).groups}
    assert sources == {f"{layer}.{gate}.grad" for layer in (0, 1) for gate in "ifgo"}
    top = {g.source for g in LSTM.grad_terms((0, 2, 1), "1.h", dy, *arrays).groups}
    assert top == {"y.grad"}, "at the last step nothing comes from time, above the top layer nothing from depth"
    times = {int(i[1]) for g in LSTM.grad_terms((0, 0), "w_xh_l0", dy, *arrays).groups for i in g.index}
    assert times == {0, 1, 2}, "a weight is pulled on at every step"


def test_an_rnns_gradient_vanishes_and_an_lstms_cell_keeps_it() -> None:
    """Thirty steps: the RNN's states lose their gradient, the LSTM's cell (forget gate open) hardly any."""
    x = np.zeros((1, 30, 1))
    _, kept = RNN.forward(x, None, np.ones((4, 1)), 0.5 * np.eye(4), None, None)
    through = np.abs(RNN.backward({"h_n": np.ones((1, 1, 4))}, kept)["0.h"]).sum(axis=(0, 2))
    assert through[0] < 1e-8 * through[-1]
    open_gates = np.concatenate([np.zeros(4), np.full(4, 6.0), np.zeros(8)])
    _, kept = LSTM.forward(x, None, None, np.ones((16, 1)), np.zeros((16, 4)), open_gates, None)
    along = np.abs(LSTM.backward({"c_n": np.ones((1, 1, 4))}, kept)["0.c"]).sum(axis=(0, 2))
    assert along[0] > 0.9 * along[-1]


def test_five_layers() -> None:
    x = np.random.default_rng(1).standard_normal((2, 3, 4))
    arrays = [x, None, None, *stack(4, 4, 3, 5)]
    out, kept = LSTM.forward(*arrays)
    assert out["y"].shape == (2, 3, 3)
    assert out["h_n"].shape == out["c_n"].shape == (5, 2, 3)
    assert len(LSTM.interior(kept)) == 5 * 6
    assert OPERATIONS["lstm"].outputs == ("y", "h_n", "c_n")


def test_refusals() -> None:
    good = stack(1, 2, 3, 1)
    with pytest.raises(ValueError, match="rnn was given 5 arrays, but takes x, h0, w_xh_l0, w_hh_l0, b_l0, b_hh_l0"):
        RNN.forward(np.zeros((1, 2, 2)), None, *good[:3])
    with pytest.raises(ValueError, match=r"x has shape \(2, 2\), but rnn takes \(N, T, D\)"):
        RNN.forward(np.zeros((2, 2)), None, *good)
    with pytest.raises(ValueError, match="w_xh_l0 and w_hh_l0 are needed"):
        RNN.forward(np.zeros((1, 2, 2)), None, None, *good[1:])
    with pytest.raises(ValueError, match=r"h0 has shape \(1, 3\), but one state \(N, H\) a layer asks for \(1, 1, 3\)"):
        RNN.forward(np.zeros((1, 2, 2)), np.zeros((1, 3)), *good)
    with pytest.raises(ValueError, match=r"output is '1.h', which is none of y, 0.h, h_n"):
        RNN.terms((0, 0, 0), np.zeros((1, 2, 2)), None, *good, output="1.h")
    with pytest.raises(ValueError, match=r"\[0, 2, 0\] is out of range for y of shape \(1, 2, 3\)"):
        RNN.terms((0, 2, 0), np.zeros((1, 2, 2)), None, *good)
