"""The three-way comparison: the textbook in float64, torch's autograd in float64, and central differences."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from tests.agree.cases import Example

from pellucid.textbook import Operation

Array = npt.NDArray[Any]


def close(ours: Array, theirs: Array, tolerance: float, what: str, floor: float = 0.0) -> None:
    """Same shape, and no element further apart than `tolerance` times the largest of them (or the floor)."""
    assert ours.shape == theirs.shape, f"{what}: shape {ours.shape}, but {theirs.shape} expected"
    if theirs.size:
        allowed = tolerance * max(float(np.abs(theirs).max()), floor)
        apart = float(np.abs(ours - theirs).max())
        assert apart <= allowed, f"{what}: {apart:.3g} apart, but {allowed:.3g} allowed"


def forward(operation: Operation, example: Example, arrays: list[Array | None]) -> tuple[dict[str, Array], Any]:
    y, kept = operation.forward(*arrays, **example.attributes)
    return operation.by_name(y), kept


def learnable(operation: Operation, example: Example) -> dict[str, int]:
    """Name -> position of every array that was given and has a gradient."""
    names = operation.argument_names(len(example.arrays))
    constant = {argument.name for argument in operation.arguments if not argument.differentiable}
    return {n: k for k, n in enumerate(names) if example.arrays[k] is not None and n not in constant}


def autograd(
    operation: Operation, example: Example, pulls: dict[str, Array]
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Torch's outputs, and its gradients of all inputs, parameters and interior values."""
    leaves = learnable(operation, example)
    tensors = [None if a is None else torch.from_numpy(np.array(a)) for a in example.arrays]
    for position in leaves.values():
        tensor = tensors[position]
        assert tensor is not None
        tensor.requires_grad_()
    out = example.torch(*tensors)
    total: Any = sum((out[name] * torch.from_numpy(dy)).sum() for name, dy in pulls.items())
    names, wanted = list(leaves), [tensors[position] for position in leaves.values()]
    for name in example.interior:
        # A value in time is many tensors there, one a step: name@0, name@1, ….
        steps = [key for key in out if key == name or key.startswith(f"{name}@")]
        names += steps
        wanted += [out[key] for key in steps]
    found: Any = torch.autograd.grad(total, wanted, allow_unused=True)  # type: ignore[arg-type]
    gradients: dict[str, Array] = {}
    parts: dict[str, list[Array]] = {}
    for name, tensor, gradient in zip(names, wanted, found, strict=True):
        assert tensor is not None
        value = (torch.zeros_like(tensor) if gradient is None else gradient).numpy()
        if "@" in name:
            parts.setdefault(name.split("@")[0], []).append(value)
        else:
            gradients[name] = value
    gradients |= {name: np.stack(steps, axis=1) for name, steps in parts.items()}
    return {name: out[name].detach().numpy() for name in operation.outputs if name in out}, gradients


def pulled(
    operation: Operation, example: Example, outputs: dict[str, Array], rng: np.random.Generator
) -> dict[str, Array]:
    """A random gradient for each output that has one."""
    names = example.pulled or operation.outputs
    return {name: rng.standard_normal(outputs[name].shape) for name in names}


def given(operation: Operation, pulls: dict[str, Array]) -> Any:
    """dy as the operation takes it: the array itself, or by name."""
    return pulls if len(operation.outputs) > 1 else pulls[operation.outputs[0]]


def agree(operation: Operation, example: Example, rng: np.random.Generator) -> None:
    """Forward and every gradient, shapes and types; textbook, autograd and differences."""
    outputs, kept = forward(operation, example, example.arrays)
    pulls = pulled(operation, example, outputs, rng)
    gradients = operation.backward(given(operation, pulls), kept)
    theirs, autograds = autograd(operation, example, pulls)
    assert set(outputs) == set(theirs), f"{operation.name} gives {sorted(outputs)}, torch {sorted(theirs)}"
    for name, y in theirs.items():
        assert outputs[name].dtype == np.float64
        close(outputs[name], y, 1e-9, f"{operation.name} {name}")
    assert set(gradients) == set(autograds), (
        f"{operation.name} has gradients {sorted(gradients)}, torch {sorted(autograds)}"
    )
    # A gradient that is all rounding (a normalised single number; 1 − tanh² far out, which torch too takes as that
    # difference) is judged by what it was made from.
    floor = 1e-3 * max((float(np.abs(g).max()) for g in autograds.values() if g.size), default=0.0)
    floor = max(floor, 1e-6 * max(float(np.abs(d).max()) for d in pulls.values()))
    for name, gradient in autograds.items():
        assert gradients[name].dtype == np.float64, f"{operation.name} {name}.grad is {gradients[name].dtype}"
        close(gradients[name], gradient, 1e-9, f"{operation.name} {name}.grad", floor)
    differences(operation, example, pulls, gradients, rng)
    single(operation, example, outputs, pulls, gradients)


def differences(
    operation: Operation,
    example: Example,
    pulls: dict[str, Array],
    gradients: dict[str, Array],
    rng: np.random.Generator,
) -> None:
    """(L(x + h) − L(x − h))/2h along a random direction of each array, and along a few single elements."""
    size = 1e-5
    floor = 1e-2 * max((float(np.abs(g).max()) for g in gradients.values() if g.size), default=0.0)

    def loss(position: int, array: Array) -> float:
        arrays = [array if k == position else a for k, a in enumerate(example.arrays)]
        outputs, _ = forward(operation, example, arrays)
        return float(sum((outputs[name] * dy).sum() for name, dy in pulls.items()))

    outputs, _ = forward(operation, example, example.arrays)
    rounding = 1e-4 * float(sum(np.abs(outputs[name] * dy).sum() for name, dy in pulls.items()))
    # In a tail (GELU at −7) y is small, but made from numbers near 1, and they are rounded too.
    rounding = max(rounding, 1e-5 * max(float(np.abs(d).max()) for d in pulls.values()))
    for name, position in learnable(operation, example).items():
        array = example.arrays[position]
        assert array is not None
        random = rng.standard_normal(array.shape)
        ways = [random / max(float(np.linalg.norm(random)), 1e-9)]
        for _ in range(min(2, array.size)):
            one = np.zeros(array.size)
            one[rng.integers(array.size)] = 1.0
            ways.append(one.reshape(array.shape))
        for way in ways:
            slope = (loss(position, array + size * way) - loss(position, array - size * way)) / (2 * size)
            ours = np.asarray((gradients[name] * way).sum())
            # The difference of two losses cannot be better than their own rounding over 2h.
            reach = max(floor, rounding, float(np.abs(gradients[name]).max()))
            close(ours, np.asarray(slope), 1e-6, f"{operation.name} {name}.grad against differences", reach)


def single(
    operation: Operation,
    example: Example,
    outputs: dict[str, Array],
    pulls: dict[str, Array],
    gradients: dict[str, Array],
) -> None:
    """The same in float32: the type stays, and the numbers are near."""

    def narrow(array: Array | None) -> Array | None:
        return array.astype(np.float32) if array is not None and array.dtype == np.float64 else array

    near, kept = forward(operation, example, [narrow(array) for array in example.arrays])
    dy = {name: np.asarray(narrow(d)) for name, d in pulls.items()}
    nearby = operation.backward(given(operation, dy), kept)
    # Two equal and opposite pulls may leave next to nothing (a normalised pair); rounding goes with the pulls.
    floor = max(float(np.abs(d).max()) for d in [*pulls.values(), *gradients.values()] if d.size)
    for name, y in outputs.items():
        assert near[name].dtype == np.float32, f"{operation.name} {name} of float32 is {near[name].dtype}"
        close(near[name].astype(np.float64), y, 1e-3, f"{operation.name} {name} in float32", 1.0)
    for name, gradient in gradients.items():
        assert nearby[name].dtype == np.float32, f"{operation.name} {name}.grad of float32 is {nearby[name].dtype}"
        close(nearby[name].astype(np.float64), gradient, 1e-3, f"{operation.name} {name}.grad in float32", floor)
