"""The grids of a number's terms."""

from __future__ import annotations

import numpy as np
import pytest

from pellucid.explain import Tape
from pellucid.explain.node import Node
from pellucid.explain.patches import others, patches
from pellucid.textbook import OPERATIONS


def tape_of(op: str, *arrays: np.ndarray, **attributes: object) -> Tape:
    """One operation on given arrays, the first an input."""
    names = ("input", "w", "b")[: len(arrays)]
    kinds = ("input", "parameter", "parameter")
    nodes = [Node(name, kind, shape=array.shape) for name, kind, array in zip(names, kinds, arrays, strict=False)]
    y = OPERATIONS[op].forward(*arrays, **attributes)[0]
    nodes.append(Node("y", op, names, attributes, y.shape))
    values = dict(zip(names, arrays, strict=True)) | {"y": y}
    return Tape(nodes=nodes, values=values, inputs=("input",), output="y")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def test_a_convolution_is_patch_times_kernel(rng: np.random.Generator) -> None:
    x, w, b = (rng.normal(size=shape).astype(np.float32) for shape in ((2, 3, 8, 9), (4, 3, 3, 2), (4,)))
    tape = tape_of("convolution", x, w, b, stride=2)
    made = patches(tape.why("y[1,2,1,3]"))
    assert {patch.channel for patch in made} == {0, 1, 2}
    assert [patch.weight for patch in made] == sorted((patch.weight for patch in made), reverse=True)
    for patch in made:
        assert patch.title == f"input[1,{patch.channel},2..4,6..7]"
        np.testing.assert_array_equal(patch.value, x[1, patch.channel, 2:5, 6:8])
        np.testing.assert_array_equal(patch.coefficient, w[2, patch.channel])
        np.testing.assert_allclose(patch.contribution, x[1, patch.channel, 2:5, 6:8] * w[2, patch.channel], rtol=1e-6)
        assert patch.factor == f"w[2,{patch.channel}]"
    whole = tape.why("y[1,2,1,3]")
    assert others(whole, made) == pytest.approx(float(b[2]), rel=1e-6)
    assert others(whole, made[:1]) + made[0].total == pytest.approx(whole.value)


def test_rows_beyond_the_border_are_left_out_and_dilation_is_kept(rng: np.random.Generator) -> None:
    x, w = rng.normal(size=(1, 1, 7, 7)).astype(np.float32), rng.normal(size=(1, 1, 3, 3)).astype(np.float32)
    patch = patches(tape_of("convolution", x, w, padding=2, dilation=2).why("y[0,0,0]"))[0]
    assert (patch.rows, patch.columns) == ((0, 2), (0, 2))
    np.testing.assert_array_equal(patch.coefficient, w[0, 0, 1:, 1:])


def test_a_pool_is_a_patch(rng: np.random.Generator) -> None:
    x = rng.normal(size=(1, 2, 4, 4)).astype(np.float32)
    (patch,) = patches(tape_of("max_pool", x, kernel=2).why("y[1,1,0]"))
    np.testing.assert_array_equal(patch.value, x[0, 1, 2:, :2])
    assert patch.total == pytest.approx(float(x[0, 1, 2:, :2].max()))


def test_what_lies_in_no_window_has_none(rng: np.random.Generator) -> None:
    linear = tape_of("linear", *(rng.normal(size=shape).astype(np.float32) for shape in ((2, 5), (3, 5), (3,))))
    assert patches(linear.why("y[1]")) == ()
    assert patches(tape_of("relu", rng.normal(size=(1, 2, 4, 4)).astype(np.float32)).why("y[0,0,0]")) == ()
    pointwise = [rng.normal(size=shape).astype(np.float32) for shape in ((1, 5, 4, 4), (2, 5, 1, 1))]
    assert patches(tape_of("convolution", *pointwise).why("y[0,0,0]")) == ()
    large = [rng.normal(size=shape).astype(np.float32) for shape in ((1, 1, 12, 12), (1, 1, 12, 12))]
    assert patches(tape_of("convolution", *large).why("y[0,0,0]")) == ()
