"""Every rule against the textbook's terms, which name each number that an output is made of."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from tests.agree.cases import CASES, drawn

from pellucid.explain.field_rules import by_terms, reads
from pellucid.explain.walk import recurrence_of
from pellucid.textbook import OPERATIONS
from pellucid.textbook.operation import PARAMETER

Array = npt.NDArray[Any]

#: The terms of these name values inside them, one step down only.
ONE_STEP = {name for name, operation in OPERATIONS.items() if operation.interior or recurrence_of(operation)}
#: Their arrays are parameters all.
OF_WEIGHTS = {name for name, operation in OPERATIONS.items() if {a.kind for a in operation.arguments} == {PARAMETER}}


def first_output(name: str, arrays: list[Any], attributes: dict[str, Any]) -> Array:
    operation = OPERATIONS[name]
    return np.asarray(operation.by_name(operation.forward(*arrays, **attributes)[0])[operation.outputs[0]])


@pytest.mark.parametrize("name", sorted(set(CASES) - ONE_STEP - OF_WEIGHTS))
def test_reads_what_the_terms_name(name: str) -> None:
    operation = OPERATIONS[name]
    for seed in range(8):
        rng = np.random.default_rng(seed)
        example = drawn(name, rng)
        y = first_output(name, example.arrays, example.attributes)
        mask = rng.random(y.shape) < [0.05, 0.3, 1.0][seed % 3]
        if y.size and not mask.any():
            mask.flat[rng.integers(y.size)] = True
        found = reads(operation, {operation.outputs[0]: mask}, example.arrays, example.attributes)
        wanted = by_terms(operation, operation.outputs[0], mask, example.arrays, example.attributes)
        kinds = {a.name: a.kind for a in operation.arguments}
        inputs = [n for n in wanted if kinds.get(n, "input") != PARAMETER and n in found]
        assert inputs
        for argument in inputs:
            np.testing.assert_array_equal(found[argument], wanted[argument], err_msg=f"{name} {seed} {argument}")


@pytest.mark.parametrize("name", sorted(ONE_STEP | {"rnn_cell", "max_pool", "convolution", "batch_norm"}))
def test_reads_what_a_poisoned_number_spoils(name: str) -> None:
    """NaN in one number of an argument comes out wherever that number is read: 0·NaN is NaN."""
    operation = OPERATIONS[name]
    for seed in range(4):
        rng = np.random.default_rng(seed)
        example = drawn(name, rng)
        arrays = list(example.arrays)
        states = [n for n in operation.argument_names(len(arrays)) if n in {"x", "h_prev", "c_prev", "h0", "c0"}]
        y = first_output(name, arrays, example.attributes)
        mask = np.zeros(y.shape, dtype=bool)
        mask.flat[rng.integers(y.size)] = True
        found = reads(operation, {operation.outputs[0]: mask}, arrays, example.attributes)
        for argument in states:
            k = operation.argument_names(len(arrays)).index(argument)
            if arrays[k] is not None:
                wanted = poisoned(name, arrays, example.attributes, k, mask)
                np.testing.assert_array_equal(found[argument], wanted, err_msg=f"{name} {seed} {argument}")


def poisoned(name: str, arrays: list[Any], attributes: dict[str, Any], which: int, mask: Array) -> Array:
    """Which numbers of an argument spoil a masked output."""
    spoils = np.zeros(arrays[which].shape, dtype=bool)
    for index in np.ndindex(spoils.shape):
        spoilt = arrays[which].astype(np.float64)
        spoilt[index] = np.nan
        given = [*arrays[:which], spoilt, *arrays[which + 1 :]]
        with np.errstate(all="ignore"):
            spoils[index] = np.isnan(first_output(name, given, attributes)[mask]).any()
    return spoils


@pytest.mark.parametrize("name", ["linear", "convolution", "batch_norm"])
def test_weights_of_the_outputs_meant(name: str) -> None:
    """Where a weight was itself computed from an input, it is read with the outputs that it makes."""
    operation, rng = OPERATIONS[name], np.random.default_rng(3)
    example = drawn(name, rng)
    if name == "convolution":
        x = rng.normal(size=(1, 2, 5, 5))
        example.arrays, example.attributes = [x, rng.normal(size=(3, 2, 3, 3)), rng.normal(size=3)], {}
    y = first_output(name, example.arrays, example.attributes)
    mask = np.zeros(y.shape, dtype=bool)
    mask[(0,) * y.ndim] = True
    found = reads(operation, {"y": mask}, example.arrays, example.attributes)
    wanted = by_terms(operation, "y", mask, example.arrays, example.attributes)
    for argument in operation.arguments:
        if argument.kind == PARAMETER and argument.name in wanted:
            np.testing.assert_array_equal(found[argument.name], wanted[argument.name])


def test_a_rule_of_another_output_goes_by_terms() -> None:
    rng = np.random.default_rng(0)
    x, mean, variance = rng.normal(size=(2, 3, 4)), np.zeros(3), np.ones(3)
    arrays, settings = [x, None, None, mean, variance], {"training": True}
    found = reads(OPERATIONS["batch_norm"], {"running_mean": np.array([False, True, False])}, arrays, settings)
    assert found["x"][:, 1].all()
    assert found["x"].sum() == 8
