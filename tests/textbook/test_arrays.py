from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid.textbook import arrays


@pytest.mark.parametrize(
    ("axes", "a", "b"),
    [
        ("ij,jk->ik", (2, 3), (3, 4)),
        ("ngcijkl,gockl->ngoij", (2, 2, 3, 4, 4, 2, 2), (2, 5, 3, 2, 2)),
        ("ngoij,ngcijkl->gockl", (2, 2, 5, 4, 4), (2, 2, 3, 4, 4, 2, 2)),
        ("ncih,jh->ncij", (2, 3, 4, 5), (6, 5)),
        ("i,j->ij", (3,), (4,)),
        ("bi,bi->b", (3, 4), (3, 4)),
    ],
)
def test_a_contraction_is_einsum(axes: str, a: Any, b: Any) -> None:
    rng = np.random.default_rng(0)
    left, right = rng.standard_normal(a), rng.standard_normal(b)
    np.testing.assert_allclose(arrays.contract(axes, left, right), np.einsum(axes, left, right), atol=1e-12)


@settings(max_examples=60, derandomize=True, deadline=None, database=None)
@given(
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    more=st.tuples(st.integers(0, 4), st.integers(0, 4)),
)
def test_folding_is_the_transpose_of_windows(kernel: Any, stride: Any, dilation: Any, more: Any) -> None:
    """⟨windows(x), y⟩ = ⟨x, fold(y)⟩, and every window holds what its formula says."""
    rng = np.random.default_rng(0)
    shape = tuple(dilation[a] * (kernel[a] - 1) + 1 + more[a] for a in (0, 1))
    x = rng.standard_normal((2, *shape))
    view = arrays.windows(x, kernel, stride, dilation)
    y = rng.standard_normal(view.shape)
    np.testing.assert_allclose((view * y).sum(), (x * arrays.fold(y, shape, stride, dilation)).sum(), atol=1e-9)
    i, j, k, m = (int(rng.integers(size)) for size in view.shape[1:])
    assert view[1, i, j, k, m] == x[1, i * stride[0] + k * dilation[0], j * stride[1] + m * dilation[1]]


@settings(max_examples=60, derandomize=True, deadline=None, database=None)
@given(st.integers(1, 4), st.integers(1, 3), st.integers(0, 3), st.integers(1, 3), st.integers(0, 6))
def test_covering_is_tapping_seen_from_the_input(
    kernel: int, stride: int, before: int, dilation: int, more: int
) -> None:
    size = dilation * (kernel - 1) + 1 + more
    out = arrays.out_size(size, kernel, stride, (before, before), dilation, "height")
    seen = {
        (h, int(k), i)
        for i in range(out)
        for k, h in zip(*arrays.taps(i, kernel, stride, before, dilation, size), strict=True)
    }
    back = {
        (h, int(k), int(i))
        for h in range(size)
        for k, i in zip(*arrays.covers(h, kernel, stride, before, dilation, out), strict=True)
    }
    assert {(int(h), k, i) for h, k, i in seen} == back


def test_broadcasting_and_back() -> None:
    d = np.arange(24.0).reshape(2, 3, 4)
    assert arrays.unbroadcast(d, (3, 1)).tolist() == d.sum(axis=(0, 2))[:, None].tolist()
    assert arrays.unbroadcast(d, (2, 3, 4)).tolist() == d.tolist()
    assert arrays.unbroadcast(d, ()) == d.sum()


def test_settings_as_a_number_or_a_pair() -> None:
    assert arrays.pair(2, "stride", 1) == (2, 2)
    assert arrays.sides((1, 2)) == ((1, 1), (2, 2))
    assert arrays.sides(((0, 1), (2, 3))) == ((0, 1), (2, 3))
    for wrong in (0, (1,), (1, 2, 3)):
        with pytest.raises(ValueError, match="but must be one or two whole numbers ≥ 1"):
            arrays.pair(wrong, "stride", 1)
