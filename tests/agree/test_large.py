"""Terms of tensors as large as networks have them: random elements, and how long one answer takes."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pellucid.textbook import OPERATIONS

Array = npt.NDArray[Any]
RNG = np.random.default_rng(0)


def normal(*shape: int) -> Array:
    return RNG.standard_normal(shape)


LARGE: dict[str, tuple[list[Array | None], dict[str, Any]]] = {
    "convolution": ([normal(2, 64, 28, 28), normal(32, 64, 3, 3), normal(32)], {"padding": 1, "stride": 2}),
    "depthwise_convolution": ([normal(2, 96, 28, 28), normal(96, 1, 3, 3), None], {"padding": 1}),
    "transposed_convolution": ([normal(2, 64, 14, 14), normal(64, 32, 4, 4), None], {"padding": 1, "stride": 2}),
    "linear": ([normal(8, 4096), normal(256, 4096), normal(256)], {}),
    "max_pool": ([normal(4, 32, 56, 56)], {"kernel": 3, "stride": 2, "padding": 1}),
    "average_pool": ([normal(4, 32, 56, 56)], {"kernel": 3, "stride": 2, "padding": 1}),
    "adaptive_average_pool": ([normal(2, 32, 50, 47)], {"size": 7}),
    "batch_norm": (
        [normal(8, 32, 28, 28) * 3 + 50, normal(32), normal(32), np.zeros(32), np.ones(32)],
        {"training": True},
    ),
    "layer_norm": ([normal(4, 64, 768) + 20, normal(768), normal(768)], {}),
    "group_norm": ([normal(4, 64, 28, 28), normal(64), normal(64)], {"groups": 8}),
    "gelu": ([normal(4, 64, 28, 28) * 4], {}),
    "softmax": ([normal(32, 1000) * 5], {}),
    "cross_entropy": ([normal(64, 1000) * 5, RNG.integers(0, 1000, 64)], {}),
    "lstm": (
        [
            normal(2, 28, 28),
            None,
            None,
            *[w for d in (28, 64) for w in (normal(256, d) / 8, normal(256, 64) / 8, normal(256), None)],
        ],
        {},
    ),
}


@pytest.mark.parametrize("name", list(LARGE))
def test_random_elements_are_recomputed(name: str) -> None:
    operation = OPERATIONS[name]
    arrays, attributes = LARGE[name]
    y, kept = operation.forward(*arrays, **attributes)
    outputs = operation.by_name(y)
    first = operation.outputs[0]
    dy = {first: RNG.standard_normal(outputs[first].shape)}
    pull: Any = dy if len(operation.outputs) > 1 else dy[first]
    more = {"kept": kept} if name == "lstm" else {}
    for _ in range(30):
        index = tuple(int(RNG.integers(size)) for size in outputs[first].shape)
        terms = operation.terms(index, *arrays, **attributes, **more)
        assert abs(terms.recompute() - float(outputs[first][index])) <= 1e-12 * terms.scale
    gradients = operation.backward(pull, kept)
    more |= {"flow": operation.backward.__self__.flow(pull, kept)} if name == "lstm" else {}  # type: ignore[attr-defined]
    for wrt, gradient in gradients.items():
        for _ in range(10):
            index = tuple(int(RNG.integers(size)) for size in gradient.shape)
            terms = operation.grad_terms(index, wrt, pull, *arrays, **attributes, **more)
            assert abs(terms.recompute() - float(gradient[index])) <= 1e-11 * terms.scale, wrt


def test_a_convolution_of_4608_terms_answers_quickly() -> None:
    x, w = normal(1, 512, 7, 7).astype(np.float32), normal(512, 512, 3, 3).astype(np.float32)
    operation = OPERATIONS["convolution"]
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        terms = operation.terms((0, 100, 3, 3), x, w, padding=1)
        result = terms.recompute()
        seconds.append(time.perf_counter() - start)
    assert len(terms) == 4608
    assert np.isfinite(result)
    assert min(seconds) < 0.05, f"{min(seconds) * 1000:.1f} ms for 4,608 terms"
