"""`terms` and `grad_terms`: they recompute the number, coefficients are autograd's, the scale bounds rounding."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from tests.agree.cases import Example, drawn
from tests.agree.checks import autograd, forward, given, learnable, pulled

from pellucid.textbook import OPERATIONS, Group, Operation, Terms

Array = npt.NDArray[Any]
NAMES = list(OPERATIONS)
SEEDS = range(4)
MOST = 60


def draw(name: str, seed: int) -> tuple[Operation, Example, np.random.Generator]:
    torch.set_num_threads(1)
    rng = np.random.default_rng([NAMES.index(name), seed])
    return OPERATIONS[name], drawn(name, rng), rng


def indices(shape: tuple[int, ...], rng: np.random.Generator) -> list[tuple[int, ...]]:
    """Every index of a small array; of a larger one a random choice."""
    every = list(itertools.product(*map(range, shape)))
    return every if len(every) <= MOST else [every[k] for k in rng.choice(len(every), MOST, replace=False)]


def terms_of(operation: Operation, example: Example, name: str, index: tuple[int, ...]) -> Terms:
    output = {} if name == "y" and len(operation.outputs) == 1 else {"output": name}
    return operation.terms(index, *example.arrays, **output, **example.attributes)


def inside(example: Example, tensors: list[Any]) -> dict[str, torch.Tensor]:
    """Torch's outputs and interior values by the textbook's names (steps of a sequence put side by side)."""
    out = example.torch(*tensors)
    steps: dict[str, list[torch.Tensor]] = {}
    for name in out:
        if "@" in name:
            steps.setdefault(name.split("@")[0], []).append(out[name])
    whole = {name: tensor for name, tensor in out.items() if "@" not in name}
    return whole | {name: torch.stack(parts, 1) for name, parts in steps.items()}


def tensors_of(example: Example, kind: torch.dtype = torch.float64) -> list[Any]:
    made: list[Any] = []
    for array in example.arrays:
        tensor = None if array is None else torch.from_numpy(np.array(array))
        made.append(tensor.to(kind) if tensor is not None and tensor.is_floating_point() else tensor)
    return made


@pytest.mark.parametrize("name", NAMES)
def test_every_output_is_recomputed(name: str) -> None:
    for seed in SEEDS:
        operation, example, rng = draw(name, seed)
        for output, tensor in inside(example, tensors_of(example)).items():
            values = tensor.detach().numpy()
            for index in indices(values.shape, rng):
                terms = terms_of(operation, example, output, index)
                value = float(values[index])
                assert abs(terms.recompute() - value) <= 1e-12 * terms.scale + 1e-300, (output, index, terms.numbers())
                assert abs(value) <= terms.scale * (1 + 1e-9), "the scale must cover the value"
                assert terms.formula
                assert terms.numbers()


@pytest.mark.parametrize("name", NAMES)
def test_every_gradient_is_recomputed(name: str) -> None:
    for seed in SEEDS:
        operation, example, rng = draw(name, seed)
        outputs, kept = forward(operation, example, example.arrays)
        pulls = pulled(operation, example, outputs, rng)
        gradients = operation.backward(given(operation, pulls), kept)
        for wrt, gradient in gradients.items():
            for index in indices(gradient.shape, rng):
                terms = operation.grad_terms(index, wrt, given(operation, pulls), *example.arrays, **example.attributes)
                assert terms.combine == "sum", "a gradient is linear in the gradients that reach it"
                assert abs(terms.recompute() - float(gradient[index])) <= 1e-12 * terms.scale + 1e-300, (wrt, index)


def scatter(terms: Terms, shapes: dict[str, tuple[int, ...]]) -> dict[str, Array]:
    """The coefficients added up where they belong, by source and by factor."""
    found: dict[str, Array] = {}
    for group in terms.groups:
        parts: list[Any] = [group] if group.factor is None else [group, group.factor]
        for part in parts:
            into = found.setdefault(part.source, np.zeros(shapes[part.source]))
            for at, coefficient in zip(part.index.tolist(), part.coefficient.tolist(), strict=True):
                into[tuple(at)] += coefficient
    return found


#: Operations whose gradients' terms stand on gradients inside the operation.
COMPOSED = {"separable_convolution", "rnn_cell", "lstm_cell", "rnn", "lstm"}
#: In time every value also acts through later steps, which autograd counts and one cell's terms must not; the cells
#: themselves are held against autograd.
SINGLE = [name for name in NAMES if name not in {"rnn", "lstm"}]


@pytest.mark.parametrize("name", SINGLE)
def test_coefficients_are_autograds(name: str) -> None:
    for seed in SEEDS:
        operation, example, rng = draw(name, seed)
        tensors = tensors_of(example)
        leaves = {n: tensors[k].requires_grad_() for n, k in learnable(operation, example).items()}
        out = inside(example, tensors)
        points = leaves | {n: out[n] for n in example.interior}
        shapes = {n: tuple(t.shape) for n, t in points.items()}
        constants = {a.name for a in operation.arguments if not a.differentiable}
        shapes |= {
            n: () if a is None else a.shape
            for n, a in zip(operation.argument_names(len(example.arrays)), example.arrays, strict=True)
        }
        slopes: dict[tuple[str, tuple[int, ...]], dict[str, Array]] = {}
        for output in [n for n in out if out[n].requires_grad]:
            for index in itertools.product(*map(range, out[output].shape)):
                found: Any = torch.autograd.grad(
                    out[output][index], list(points.values()), retain_graph=True, allow_unused=True
                )
                slopes[output, index] = {
                    n: np.zeros(shapes[n]) if g is None else g.numpy() for n, g in zip(points, found, strict=True)
                }
        for (output, index), theirs in slopes.items():
            ours = scatter(terms_of(operation, example, output, index), shapes)
            wanted = set(ours) - constants if example.interior else set(leaves)
            for n in wanted:
                np.testing.assert_allclose(ours.get(n, np.zeros(shapes[n])), theirs[n], rtol=1e-8, atol=1e-10)
        grad_coefficients(operation, example, rng, slopes)


def grad_coefficients(operation: Operation, example: Example, rng: np.random.Generator, slopes: dict[Any, Any]) -> None:
    """The coefficient of y.grad[j] in the gradient of an element e is ∂y[j]/∂e."""
    outputs, kept = forward(operation, example, example.arrays)
    pulls = pulled(operation, example, outputs, rng)
    for wrt, gradient in operation.backward(given(operation, pulls), kept).items():
        for index in indices(gradient.shape, rng)[:12]:
            terms = operation.grad_terms(index, wrt, given(operation, pulls), *example.arrays, **example.attributes)
            for group in terms.groups:
                if group.source.endswith("_from_next"):
                    assert (group.coefficient == 1).all()
                    continue
                source = group.source.removesuffix(".grad")
                listed: dict[tuple[int, ...], float] = {}
                for at, coefficient in zip(group.index.tolist(), group.coefficient.tolist(), strict=True):
                    listed[tuple(at)] = listed.get(tuple(at), 0.0) + coefficient
                for (output, at_output), theirs in slopes.items():
                    if output == source:
                        np.testing.assert_allclose(
                            listed.get(at_output, 0.0), theirs[wrt][index], rtol=1e-8, atol=1e-10
                        )


@pytest.mark.parametrize("name", NAMES)
def test_values_are_the_arrays_own_and_the_result_follows_them(name: str) -> None:
    """Recomputing uses the terms: a value moved by h moves the result by coefficient · h."""
    operation, example, rng = draw(name, 1)
    named = dict(zip(operation.argument_names(len(example.arrays)), example.arrays, strict=True))
    for output, tensor in inside(example, tensors_of(example)).items():
        for index in indices(tuple(tensor.shape), rng)[:5]:
            terms = terms_of(operation, example, output, index)
            for g, group in enumerate(terms.groups):
                array = named.get(group.source)
                if array is not None:
                    np.testing.assert_array_equal(array[tuple(group.index.T)], group.value)
                if group.source in {a.name for a in operation.arguments if not a.differentiable}:
                    continue
                if not len(group):
                    continue  # a window wholly on the padding
                k, h = int(rng.integers(len(group))), 1e-6
                moved = [moved_by(terms, g, k, step).recompute() for step in (h, -h)]
                slope = (moved[0] - moved[1]) / (2 * h)
                assert abs(slope - group.coefficient[k]) <= 1e-6 * max(1.0, abs(group.coefficient[k]), terms.scale)


def moved_by(terms: Terms, g: int, k: int, step: float) -> Terms:
    group = terms.groups[g]
    value = group.value.copy()
    value[k] += step
    groups = list(terms.groups)
    groups[g] = Group(group.source, group.index, value, group.coefficient, group.factor)
    return replace(terms, groups=tuple(groups))


@pytest.mark.parametrize("name", NAMES)
def test_single_precision_stays_within_the_scale(name: str) -> None:
    """What torch computes in float32 differs from the terms of its float32 inputs by at most 1e-5 of the scale."""
    bound = 1e-5
    for seed in SEEDS:
        operation, example, rng = draw(name, seed)
        arrays = [a.astype(np.float32) if a is not None and a.dtype == np.float64 else a for a in example.arrays]
        example = replace(example, arrays=arrays)
        loose = replace(example, torch=loosely(example))
        for output, tensor in inside(loose, tensors_of(example, torch.float32)).items():
            values = tensor.detach().numpy()
            assert values.dtype == np.float32
            for index in indices(values.shape, rng)[:20]:
                terms = terms_of(operation, example, output, index)
                assert abs(terms.recompute() - float(values[index])) <= bound * terms.scale, (output, index)
        outputs, kept = forward(operation, example, arrays)
        pulls = {n: d.astype(np.float32) for n, d in pulled(operation, example, outputs, rng).items()}
        _, gradients = autograd(operation, loose, pulls)
        if name in COMPOSED:
            # The terms stand on gradients inside the operation, which torch rounds in its own way on the way there.
            gradients = operation.backward(given(operation, pulls), kept)
        for wrt, gradient in gradients.items():
            for index in indices(gradient.shape, rng)[:20]:
                terms = operation.grad_terms(index, wrt, given(operation, pulls), *arrays, **example.attributes)
                assert abs(terms.recompute() - float(gradient[index])) <= bound * terms.scale, (wrt, index)


def loosely(example: Example) -> Any:
    """The example's torch, its own cross-checks (made for float64) held to float32."""

    def run(*tensors: Any) -> Any:
        original = torch.testing.assert_close
        torch.testing.assert_close = lambda a, b, **_: original(a, b, rtol=1e-4, atol=1e-5)
        try:
            return example.torch(*tensors)
        finally:
            torch.testing.assert_close = original

    return run
