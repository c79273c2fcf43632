from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.explain.engine import Pass, checked, everyday, indices, recurrent, spelled
from torch.nn import functional

from pellucid.errors import DataError, UsageError, VerificationError
from pellucid.explain import Node, Pixels, Tape


@pytest.mark.parametrize("training", [False, True])
def test_every_operation_of_an_everyday_network_is_explained(training: bool) -> None:
    for seed in range(3):
        tape = everyday(training=training, seed=seed)
        rng = np.random.default_rng(seed)
        for node in tape.nodes:
            for index in indices(node.shape, rng):
                made = checked(tape, spelled(node.name, index))
                assert made.address == spelled(node.name, index)


def test_every_value_inside_an_lstm_is_explained() -> None:
    tape = recurrent(layers=3)
    rng = np.random.default_rng(0)
    for node in tape.nodes:
        for index in indices(node.shape, rng):
            made = checked(tape, spelled(node.name, index))
            assert bool(made.details) == (
                node.op == "parameter" or "recomputed" in node.attributes or node.op == "input"
            )


def test_an_lstm_whose_interior_was_not_kept_is_explained_all_the_same() -> None:
    tape = recurrent(interior=False)
    made = tape.why("lstm[1,3,2]")
    assert [term.address for term in made.terms] == ["lstm.1.o[1,3,2]", "lstm.1.c[1,3,2]"]
    assert made.relative < 1e-5
    with pytest.raises(UsageError, match=r"lstm\.1\.o: the tape has no value of that name"):
        tape.why(made.terms[0].address)


def test_a_state_that_was_not_given_is_no_term() -> None:
    tape = recurrent()
    assert {term.address.partition("[")[0] for term in tape.why("lstm.0.f[0,0,1]").terms} == {
        "input",
        "lstm.bias_ih_l0",
        "lstm.bias_hh_l0",
    }
    assert [term.address for term in tape.why("lstm.0.c[0,0,1]").terms] == ["lstm.0.g[0,0,1]"]
    later = tape.why("lstm.0.c[0,1,1]")
    assert [(term.address, term.factor) for term in later.terms] == [
        ("lstm.0.c[0,0,1]", "lstm.0.f[0,1,1]"),
        ("lstm.0.g[0,1,1]", "lstm.0.i[0,1,1]"),
    ]


def test_a_convolution_says_which_pixel_met_which_weight() -> None:
    tape = everyday()
    made = tape.why("conv1[1,4,2,3]")
    assert made.combine == "sum"
    assert len(made.terms) == 28
    by_address = {term.address: term for term in made.terms}
    term = by_address["input[1,2,4,3]"]
    assert term.factor == "conv1.weight[4,2,2,0]"
    assert term.coefficient == tape.value(term.factor)
    assert by_address["conv1.bias[4]"].factor is None
    assert tape.why("pool[0,0,0]").combine == "max"
    assert tape.why("fc[0,1]").address == "fc[0,1]"
    assert tape.why("stem[1,2,2]").address == "pool[0,1,2,2]"


def test_x_times_x_has_x_twice() -> None:
    tape = everyday()
    made = tape.why("square[0,1,2,2]")
    assert [term.address for term in made.terms] == ["add[0,1,2,2]", "add[0,1,2,2]"]
    assert made.value == pytest.approx(float(tape.value("add[0,1,2,2]")) ** 2)


def test_a_pixel_is_what_preprocessing_made_of_it() -> None:
    raw = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 4)).astype(np.uint8)
    mean, std = (0.491, 0.482, 0.447), (0.247, 0.243, 0.262)
    shaped = [np.array(numbers, np.float32)[None, :, None, None] for numbers in (mean, std)]
    values = (raw.astype(np.float32) / 255 - shaped[0]) / shaped[1]
    raw[0, 1, 2, 3], values[0, 1, 2, 3] = 137, (137 / 255 - 0.482) / 0.243
    tape = Tape(
        nodes=[Node("input", "input", shape=raw.shape)],
        values={"input": values},
        inputs=("input",),
        pixels=Pixels(raw, mean, std),
    )
    for index in indices(raw.shape, np.random.default_rng(1), 40):
        checked(tape, spelled("input", index))
    made = tape.why("input[1,2,3]")
    assert made.numbers == "(137/255 − 0.482)/0.243 = 0.227386"
    (term,) = made.terms
    assert (term.address, term.value) == ("input.raw[0,1,2,3]", 137.0)
    assert term.coefficient == pytest.approx(1 / (255 * 0.243))
    assert tape.value(term.address) == 137.0
    assert tape.why(term.address).formula == "a pixel of the picture, 0 to 255, given"
    wrong = replace(tape, pixels=Pixels(raw, mean, (0.25, 0.25, 0.25)))
    with pytest.raises(VerificationError, match=r"input\[0,1,2,3\]: recomputed"):
        wrong.why("input[1,2,3]")


def test_what_is_given_is_explained_by_nothing_and_says_where_it_goes() -> None:
    tape = everyday()
    made = tape.why("conv1.weight[3,0,1,1]")
    assert (made.combine, made.terms, made.residual, made.relative) == ("given", (), 0.0, 0.0)
    assert made.value == tape.value("conv1.weight[3,0,1,1]")
    assert made.formula == "a parameter, given"
    assert made.details == ("its gradient: conv1.weight.grad[3,0,1,1]",)
    assert tape.why("bn.running_mean[2]").formula == "a buffer, given"
    assert tape.why("labels[1]").value == 1.0
    assert tape.why("labels[1]").details == ()
    assert tape.why("input[0,1,2,3]").formula == "an input, given"


def test_the_loss_is_a_number_without_an_index() -> None:
    tape = everyday()
    made = checked(tape, "loss")
    assert made.address == "loss"
    assert made.op == "cross_entropy"
    assert len(made.terms) == 8


def test_an_operation_without_a_rule_is_said_to_be_one() -> None:
    p = Pass()
    x = p.leaf("input", "input", p.random(2, 3))
    p.op("cumsum", "aten.cumsum.default", ["input"], x.cumsum(1), dim=1)
    tape = p.tape()
    with pytest.raises(UsageError) as error:
        tape.why("cumsum[0,1]")
    assert str(error.value) == (
        "cumsum[0,1]: aten.cumsum.default, which computes cumsum (net.py:1: cumsum), has no rule in the textbook, so "
        "what the number is made of is not known; the number itself is tape.value('cumsum[0,1]')"
    )
    assert tape.value("cumsum[0,1]") == pytest.approx(float(x.detach()[0, :2].sum()))


def test_a_number_that_its_terms_do_not_make_is_refused() -> None:
    tape = everyday()
    tape.values["conv1"] = tape.values["conv1"].copy()
    tape.values["conv1"][0, 3, 1, 1] += 0.01
    with pytest.raises(VerificationError, match=r"conv1\[0,3,1,1\]: recomputed from its terms it is .* the residual"):
        tape.why("conv1[3,1,1]")
    tape.why("conv1[3,1,2]")


def test_a_whole_array_is_not_explained() -> None:
    with pytest.raises(UsageError, match=r"conv1: is an array of shape \(2, 6, 6, 6\): ask for .* conv1\[0,0,0,0\]"):
        everyday().why("conv1")


def test_a_tape_that_does_not_fit_together_is_refused() -> None:
    tape = everyday()
    tape.nodes[:] = [replace(node, attributes={"stride": 0}) if node.name == "conv2" else node for node in tape.nodes]
    with pytest.raises(DataError, match=r"conv2\[0,0,0,0\]: the rule of convolution does not fit"):
        tape.why("conv2[0,0,0]")


def test_nan_and_infinity_are_traced_to_their_terms() -> None:
    p = Pass()
    x = p.random(1, 2, 4, 4)
    x[0, 1, 2, 2] = float("nan")
    x[0, 0, 0, 0] = float("inf")
    x = p.leaf("input", "input", x)
    w = p.leaf("parameter", "conv.weight", p.random(3, 2, 3, 3))
    y = p.op("conv", "convolution", ["input", "conv.weight", None], functional.conv2d(x, w))
    z = p.op("softmax", "softmax", ["conv"], y.softmax(1), axis=1)
    p.op("relu", "relu", ["softmax"], z.relu())
    tape = p.tape()
    made = tape.why("conv[1,1,1]")
    assert np.isnan(made.value)
    assert np.isnan(made.engine_value)
    assert made.residual == 0.0
    assert made.nonfinite == ("input[0,1,2,2]",)
    assert made.largest(1)[0].address == "input[0,1,2,2]"
    assert "not finite: input[0,1,2,2]" in made.text()
    assert tape.why("conv[1,0,0]").nonfinite == ("input[0,0,0,0]", "input[0,1,2,2]")
    assert tape.why("relu[1,1,1]").nonfinite == ("softmax[0,1,1,1]",)
    assert set(tape.why("softmax[1,1,1]").nonfinite) == {f"conv[0,{c},1,1]" for c in range(3)}


def test_where_a_number_first_became_infinite_no_term_is() -> None:
    p = Pass()
    x = p.leaf("input", "input", torch.tensor([[1e30, 2.0]]))
    p.op("multiply", "multiply", ["input", "input"], x * x)
    tape = p.tape()
    made = tape.why("multiply[0,0]")
    assert made.engine_value == np.inf
    assert made.value == pytest.approx(1e60)
    assert made.residual == -np.inf
    assert made.nonfinite == ()
    assert tape.why("multiply[0,1]").value == 4.0


def test_masked_scores_of_minus_infinity_have_probability_zero() -> None:
    p = Pass()
    x = p.leaf("input", "input", torch.tensor([[0.5, -float("inf"), 1.5]]))
    p.op("softmax", "softmax", ["input"], x.softmax(1), axis=1)
    tape = p.tape()
    assert tape.why("softmax[0,1]").value == 0.0
    made = tape.why("softmax[0,2]")
    assert made.nonfinite == ("input[0,1]",)
    assert made.value == pytest.approx(made.engine_value, rel=1e-6)


def test_nothing_but_zeros_is_explained_at_scale_zero() -> None:
    p = Pass()
    x = p.leaf("input", "input", torch.zeros(1, 2, 4, 4))
    w = p.leaf("parameter", "conv.weight", p.random(3, 2, 3, 3))
    p.op("conv", "convolution", ["input", "conv.weight", None], functional.conv2d(x, w))
    tape = p.tape()
    made = tape.why("conv[1,1,1]")
    assert (made.value, made.scale, made.residual, made.relative) == (0.0, 0.0, 0.0, 0.0)
    tape.values["conv"] = tape.values["conv"] + np.float32(1e-9)
    with pytest.raises(VerificationError):
        tape.why("conv[1,1,1]")


@pytest.mark.parametrize(("precision", "unit"), [("bfloat16", 8e-3), ("float16", 1e-3)])
def test_the_bound_is_the_precisions(precision: str, unit: float) -> None:
    p = Pass()
    kind = getattr(torch, precision)
    x, w = p.random(2, 16).to(kind), p.random(8, 16).to(kind)
    y = functional.linear(x, w)
    p.leaf("input", "input", x.float())
    p.leaf("parameter", "fc.weight", w.float())
    p.op("fc", "linear", ["input", "fc.weight", None], y.float())
    tape = p.tape(precision=precision)
    worst = max(tape.why(spelled("fc", index)).relative for index in np.ndindex(2, 8))
    assert unit / 100 < worst <= unit, "the rounding of the engine shows, and stays within the bound"
    assert tape.why("fc[0,0]").bound == unit
    with pytest.raises(VerificationError):
        [replace(tape, precision="float32").why(spelled("fc", index)) for index in np.ndindex(2, 8)]


def test_a_large_convolution_is_explained_quickly() -> None:
    p = Pass()
    x = p.leaf("input", "input", p.random(1, 512, 5, 5))
    w = p.leaf("parameter", "conv.weight", p.random(8, 512, 3, 3))
    p.op("conv", "convolution", ["input", "conv.weight", None], functional.conv2d(x, w))
    tape = p.tape()
    taken = []
    for k in range(5):
        start = time.process_time()
        made = tape.why(f"conv[{k},1,1]")
        assert len(made.terms) == 4608
        taken.append(time.process_time() - start)
        assert made.relative < 1e-6
    assert min(taken) < 0.1
