"""Every rule of the best strength against the textbook's terms, one output at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from tests.agree.cases import CASES, drawn

from pellucid.explain.path_rules import best, by_terms
from pellucid.explain.walk import recurrence_of
from pellucid.textbook import OPERATIONS
from pellucid.textbook.operation import INPUT, PARAMETER

Array = npt.NDArray[Any]
#: Chains through these pass by values inside, which have strengths of their own (see path_recurrent).
OF_WEIGHTS = {n for n, operation in OPERATIONS.items() if {a.kind for a in operation.arguments} == {PARAMETER}}
INSIDE = {name for name, operation in OPERATIONS.items() if operation.interior or recurrence_of(operation)}
NAMES = sorted(set(CASES) - INSIDE)


def some_logs(rng: np.random.Generator, array: Array | None, sparse: bool) -> Array | None:
    if array is None:
        return None
    logs = np.log(rng.uniform(1e-3, 1, size=array.shape))
    return np.where(rng.random(array.shape) < 0.3, -np.inf, logs) if sparse else logs


def compared(name: str, arrays: list[Any], attributes: dict[str, Any], rng: np.random.Generator, sparse: bool) -> int:
    """Compare a rule with the terms on all outputs; how many of them have a chain."""
    operation = OPERATIONS[name]
    y = operation.by_name(operation.forward(*arrays, **attributes)[0])[operation.outputs[0]]
    logs = [some_logs(rng, array, sparse) for array in arrays]
    # Weights are not followed, and so need no strengths; rules may leave them out, as the walk does.
    weights = {argument.name for argument in operation.arguments if argument.kind != INPUT and name not in OF_WEIGHTS}
    names = operation.argument_names(len(arrays))
    logs = [None if argument in weights else part for argument, part in zip(names, logs, strict=True)]
    need = np.ones(np.shape(y), dtype=bool)
    found = best(operation, arrays, logs, attributes, need)
    with np.errstate(all="ignore"):
        wanted = by_terms(operation, arrays, logs, attributes, need, most=10**9)
    assert found.shape == wanted.shape
    np.testing.assert_allclose(np.exp(found), np.exp(wanted), rtol=1e-9, atol=1e-12, err_msg=name)
    partly = rng.random(need.shape) < 0.4
    again = best(operation, arrays, logs, attributes, partly)
    np.testing.assert_allclose(np.exp(again[partly]), np.exp(wanted[partly]), rtol=1e-9, atol=1e-12)
    return int(np.isfinite(wanted).sum())


#: The pages of the textbook whose operations are defined at 0.
PAGES = {"linear", "convolution", "pooling", "shape", "activation", "normalisation"}


@pytest.mark.parametrize("name", NAMES)
def test_the_best_of_every_output_is_that_of_its_terms(name: str) -> None:
    ways = 0
    for seed in range(8):
        rng = np.random.default_rng(seed)
        example = drawn(name, rng)
        if any(array is not None and array.size > 4000 for array in example.arrays):
            continue
        # Zeros stop chains: behind a rectifier half of all numbers are.
        if seed % 2 and np.asarray(example.arrays[0]).dtype.kind == "f" and OPERATIONS[name].page in PAGES:
            first = np.asarray(example.arrays[0])
            example.arrays[0] = np.where(rng.random(first.shape) < 0.3, 0.0, first)
        ways += compared(name, example.arrays, example.attributes, rng, sparse=seed % 3 == 0)
    assert ways


def test_many_outputs_without_a_rule_get_a_bound() -> None:
    operation, rng = OPERATIONS["transposed_convolution"], np.random.default_rng(0)
    arrays = [rng.normal(size=(1, 2, 4, 4)), rng.normal(size=(2, 3, 3, 3)), None]
    logs = [some_logs(rng, arrays[0], False), None, None]
    need = np.ones((1, 3, 6, 6), dtype=bool)
    bound = best_of(operation, arrays, logs, need, most=5)
    exact = best_of(operation, arrays, logs, need, most=1000)
    assert (bound >= exact).all()
    assert np.isfinite(bound).all()


def best_of(operation: Any, arrays: Any, logs: Any, need: Array, most: int) -> Array:
    return by_terms(operation, arrays, logs, {}, need, most=most)
