from __future__ import annotations

import numpy as np
import pytest

from pellucid.textbook.gates import Inputs, gate_terms, preactivation, through_sum


def inputs() -> Inputs:
    rng = np.random.default_rng(0)
    return Inputs(*(rng.standard_normal(shape) for shape in ((2, 3), (2, 4), (8, 3), (8, 4), (8,), (8,))))


def test_the_sum_and_its_way_back() -> None:
    values = inputs()
    a = preactivation(values, 2)
    joined = np.concatenate([values.x, values.h_prev], axis=1) @ np.concatenate([values.w_xh, values.w_hh], axis=1).T
    np.testing.assert_allclose(a, joined + values.b + values.b_hh, atol=1e-12)
    back = through_sum(np.ones((2, 8)), values)
    assert set(back) == {"x", "h_prev", "w_xh", "w_hh", "b", "b_hh"}
    np.testing.assert_array_equal(back["b"], back["b_hh"], "two parts of one bias have one gradient")


def test_a_gate_is_its_products_through_its_activation() -> None:
    values = inputs()
    a = float(preactivation(values, 2)[1, 5])
    terms = gate_terms(1, 5, values, "tanh", np.tanh(a), 1 - np.tanh(a) ** 2)
    assert len(terms) == 3 + 4 + 2
    assert terms.recompute() == pytest.approx(np.tanh(a), rel=1e-14)


def test_a_bias_of_the_wrong_length() -> None:
    with pytest.raises(ValueError, match=r"b_hh has shape \(3,\), but one bias a row of w_xh \(8, 3\) asks for \(8,\)"):
        preactivation(inputs()._replace(b_hh=np.zeros(3)), 2)
