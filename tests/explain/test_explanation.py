from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.explain.engine import everyday, recurrent

from pellucid.errors import UsageError, VerificationError
from pellucid.explain import Explanation, Term
from pellucid.textbook import Group, Terms

TAPE = everyday()


def summed(values: list[float], scale: float | None = None) -> Terms:
    at = np.arange(len(values)).reshape(-1, 1)
    group = Group("x", at, np.array(values, float), np.ones(len(values)))
    return Terms((group,), "Σ x", float(np.abs(values).sum()) if scale is None else scale)


def explanation(made: Terms, engine: float, precision: str = "float32") -> Explanation:
    return Explanation("y[0]", "sum", made, {"x": "input"}, engine, precision)


def test_it_recomputes_itself_and_cannot_be_told_its_value() -> None:
    made = explanation(summed([1.0, 2.0]), 3.00001)
    assert (made.value, made.engine_value, made.scale) == (3.0, 3.00001, 3.0)
    assert made.residual == 3.0 - 3.00001
    assert made.relative == pytest.approx(1e-5 / 3)
    assert made.numbers == "1·1 + 2·1 = 3"
    with pytest.raises(TypeError):
        Explanation("y[0]", "sum", summed([1.0]), {}, 1.0, value=5.0)  # type: ignore[call-arg]
    with pytest.raises(AttributeError):
        made.value = 2.0  # type: ignore[misc]


@pytest.mark.parametrize(("precision", "bound"), [("float32", 1e-4), ("bfloat16", 8e-3), ("float16", 1e-3)])
def test_beyond_the_bound_there_is_none(precision: str, bound: float) -> None:
    explanation(summed([1.0, -1.0, 1.0]), 1.0 + 2.9 * bound, precision)
    with pytest.raises(VerificationError) as error:
        explanation(summed([1.0, -1.0, 1.0]), 1.0 + 3.1 * bound, precision)
    assert f"is beyond {bound:g} of the scale 3: the recorded numbers, or the rule of sum, are wrong" in str(
        error.value
    )
    assert error.value.exit_code == 4


def test_a_dropped_term_shows() -> None:
    values = list(np.random.default_rng(0).normal(size=50))
    for k in range(50):
        with pytest.raises(VerificationError):
            explanation(summed(values[:k] + values[k + 1 :]), sum(values))


@given(st.lists(st.floats(width=32) | st.just(math.nan), max_size=6), st.floats(width=32))
def test_of_any_numbers_it_is_made_or_refused(values: list[float], engine: float) -> None:
    with np.errstate(all="ignore"):
        terms = summed(values)
    try:
        made = explanation(terms, engine)
    except VerificationError:
        assert math.isfinite(engine)
        return
    assert set(made.nonfinite) == {f"input[{k}]" for k, value in enumerate(values) if not math.isfinite(value)}
    if math.isfinite(made.value) and math.isfinite(engine):
        assert abs(made.value - engine) <= made.allowed
    assert len(made.largest(2)) == min(3, len(values))
    json.dumps(made.to_json(), allow_nan=False)
    assert made.text()


def test_a_finite_number_out_of_terms_that_are_not_is_not_believed_blindly() -> None:
    def rule(groups: Mapping[str, Group], _: Mapping[str, Any]) -> dict[str, float]:
        return {"y": float(groups["x"].value[np.isfinite(groups["x"].value)].sum())}

    at = np.arange(3).reshape(-1, 1)
    group = Group("x", at, np.array([1.0, -np.inf, 2.0]), np.array([1.0, 0.0, 1.0]))
    terms = Terms((group,), "{y}", math.nan, "formula", rule)
    made = explanation(terms, 3.0)
    assert made.nonfinite == ("input[1]",)
    assert made.scale == 3.0
    with pytest.raises(VerificationError):
        explanation(terms, 3.1)


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_no_finite_number_is_made_of_one_that_is_not(value: float) -> None:
    with pytest.raises(VerificationError):
        explanation(summed([value, 1.0]), 1.0)
    assert explanation(summed([value, 1.0]), value).nonfinite == ("input[0]",)


def test_the_smallest_numbers_may_be_flushed_to_zero() -> None:
    made = explanation(summed([1e-39, 2e-39]), 0.0)
    assert made.residual == pytest.approx(3e-39)
    assert made.relative < made.bound
    with pytest.raises(VerificationError):
        explanation(summed([1e-37, 2e-37]), 0.0)


@pytest.mark.parametrize("address", ["conv1[1,4,2,3]", "conv1.weight.grad[3,0,1,1]", "pool.grad[0,1,2,2]", "fc[1,2]"])
def test_grouping_and_cutting_leave_the_sum(address: str) -> None:
    made = TAPE.why(address)
    total = sum(term.contribution for term in made.terms)
    tolerance = 1e-12 * made.scale
    for by in ("channel", "position", "image", "source"):
        terms = made.grouped(by)
        assert sum(term.contribution for term in terms) == pytest.approx(total, abs=tolerance)
        assert sum(term.count for term in terms) == len(made.terms)
        assert len({term.address for term in terms}) == len(terms)
    for count in (0, 1, 5, len(made.terms) - 1, len(made.terms), 10_000):
        terms = made.largest(count)
        assert sum(term.contribution for term in terms) == pytest.approx(total, abs=tolerance)
        assert sum(term.count for term in terms) == len(made.terms)
        assert len(terms) == min(count + 1, len(made.terms))


def test_groups_are_named_by_what_they_share() -> None:
    made = TAPE.why("conv1[1,4,2,3]")
    x, w = TAPE.value("input"), TAPE.value("conv1.weight")
    assert not isinstance(x, float)
    assert not isinstance(w, float)
    product = x[1, :, 2:5, 3:6].astype(float) * w[4]
    channels = made.grouped("channel")
    assert [term.address for term in channels] == [*(f"input[1,{c},:,:]" for c in range(3)), "conv1.bias[4]"]
    for c in range(3):
        assert channels[c] == Term(f"input[1,{c},:,:]", None, None, channels[c].contribution, None, 9)
        assert channels[c].contribution == pytest.approx(product[c].sum())
    positions = made.grouped("position")
    assert positions[4].address == "input[1,:,3,4]"
    assert positions[4].contribution == pytest.approx(product[:, 1, 1].sum())
    assert [(term.address, term.count) for term in made.grouped("source")] == [("input", 27), ("conv1.bias[4]", 1)]
    images = TAPE.why("conv1.weight.grad[3,0,1,1]").grouped("image")
    assert [term.address for term in images] == ["conv1.grad[0,:,:,:]", "conv1.grad[1,:,:,:]"]


def test_a_sequence_has_its_channels_last() -> None:
    tape = recurrent()
    made = tape.why("lstm.weight_ih_l0.grad[3,1]")
    channels = [term for term in made.grouped("channel") if term.address.startswith("lstm")]
    assert [(term.address, term.count) for term in channels] == [(f"lstm.0.i.grad[{n},:,3]", 6) for n in range(2)]
    steps = made.grouped("position")
    assert steps[0].address == "lstm.0.i.grad[0,0,3]"
    assert len(steps) == 12


def test_the_largest_come_first_and_the_rest_are_one() -> None:
    made = TAPE.why("conv1[1,4,2,3]")
    *first, rest = made.largest(5)
    every = sorted(made.terms, key=lambda term: -abs(term.contribution))
    assert list(first) == every[:5]
    assert rest == Term("(23 more)", None, None, rest.contribution, None, 23)
    assert rest.contribution == pytest.approx(sum(term.contribution for term in every[5:]))
    assert made.largest(28) == tuple(every)


def test_what_makes_no_sense_is_refused() -> None:
    made = TAPE.why("conv1[1,4,2,3]")
    with pytest.raises(UsageError, match=r"terms are not grouped by 'chanel': did you mean 'channel'\?"):
        made.grouped("chanel")
    with pytest.raises(UsageError, match="the largest -1 terms were asked for: ask for 0 or more"):
        made.largest(-1)


def test_as_json_it_is_plain_values() -> None:
    made = TAPE.why("conv1[1,4,2,3]")
    plain = json.loads(json.dumps(made.to_json(), allow_nan=False))
    assert plain["address"] == "conv1[1,4,2,3]"
    assert plain["value"] - plain["engine_value"] == plain["residual"]
    assert plain["bound"] == 1e-4
    assert len(plain["terms"]) == 28
    assert sum(term["contribution"] for term in plain["terms"]) == pytest.approx(plain["value"])
    assert len(made.to_json(most=3)["terms"]) == 4
    given_ = TAPE.why("conv1.weight[0,0,0,0]").to_json()
    assert (given_["combine"], given_["terms"], given_["residual"]) == ("given", [], 0.0)
    nan = explanation(summed([math.nan, math.inf]), math.nan).to_json()
    assert (nan["value"], nan["terms"][1]["value"], nan["nonfinite"]) == ("nan", "inf", ["input[0]", "input[1]"])


def test_as_text_it_has_the_formula_the_terms_and_the_residual() -> None:
    made = TAPE.why("conv1[1,4,2,3]")
    lines = made.text(most=3).splitlines()
    assert lines[0] == f"conv1[1,4,2,3] = {made.value:.9g}"
    assert lines[1].startswith("  convolution: y[n,o,i,j] = Σ")
    assert lines[2].startswith("  ")
    assert lines[2].endswith(f"{made.value:.6g}" if made.value >= 0 else f"({made.value:.6g})")
    assert len(lines) == 3 + 4 + 1
    assert "(25 more)" in lines[6]
    assert lines[7].startswith(f"  the engine has {made.engine_value:.9g}; residual")
    assert TAPE.why("conv1.weight[0,0,0,0]").text().splitlines()[1] == "  parameter: a parameter, given"
