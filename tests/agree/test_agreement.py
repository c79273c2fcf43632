"""The one test over the registry: every operation agrees three ways, and none is missing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.agree.cases import CASES
from tests.agree.checks import agree

from pellucid.textbook import OPERATIONS

#: What the textbook promises, word by word; a name that leaves the registry fails here.
PROMISED = {
    "linear",
    "convolution",
    "depthwise_convolution",
    "separable_convolution",
    "pointwise_convolution",
    "transposed_convolution",
    "true_convolution",
    "unrolled_convolution",
    "max_pool",
    "average_pool",
    "global_average_pool",
    "adaptive_average_pool",
    "spatial_pyramid_pool",
    "soft_pool",
    "flatten",
    "padding",
    "add",
    "multiply",
    "concatenate",
    "batch_norm",
    "layer_norm",
    "group_norm",
    "dropout",
    "dropout_scaled_at_test",
    "sigmoid",
    "tanh",
    "relu",
    "leaky_relu",
    "elu",
    "gelu",
    "silu",
    "hard_tanh",
    "relu6",
    "hard_swish",
    "softplus",
    "softmax",
    "log_softmax",
    "mean_squared_error",
    "cross_entropy",
    "l1_penalty",
    "l2_penalty",
    "rnn_cell",
    "lstm_cell",
    "rnn",
    "lstm",
    "clip_by_value",
    "clip_by_norm",
    "identity",
    "reshape",
    "permute",
    "slice",
    "select",
    "expand",
    "take",
    "stack",
    "mean",
    "average_pool_3d",
    "adaptive_max_pool",
    "largest",
    "matmul",
    "subtract",
    "divide",
    "power",
    "exp",
    "log",
    "clamp",
    "maximum",
    "minimum",
    "where",
    "prelu",
    "weight_norm",
    "euclidean_norm",
}


def test_nothing_promised_is_missing() -> None:
    assert not PROMISED - set(OPERATIONS)


def test_every_operation_is_tried() -> None:
    assert set(CASES) == set(OPERATIONS)


@pytest.mark.parametrize("name", list(OPERATIONS))
@settings(max_examples=60, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(data=st.data(), seed=st.integers(0, 2**32 - 1))
def test_agreement(name: str, data: st.DataObject, seed: int) -> None:
    torch.set_num_threads(1)
    rng = np.random.default_rng(seed)
    example = CASES[name](lambda low, high: data.draw(st.integers(low, high)), rng)
    agree(OPERATIONS[name], example, rng)
