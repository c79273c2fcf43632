"""Every rule against the engine: the ATen operation itself, and the textbook call that stands for it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from pellucid.explain.lower import PASS_THROUGH, Lowered, Ref, functions, layers, lower, lower_part, moves, taken
from pellucid.textbook import OPERATIONS


@dataclass(frozen=True)
class T:
    """A random tensor of a shape, from −2 to 2 or from `low` to `high`; "fixed" has no gradient, "steps" ties."""

    shape: tuple[int, ...]
    kind: str = "float"
    low: float = -2.0
    high: float = 2.0


def t(*shape: int, **settings: Any) -> T:
    return T(shape, **settings)


def made(rng: np.random.Generator, value: T) -> torch.Tensor:
    array: Any = rng.uniform(value.low, value.high, value.shape)
    if value.kind == "int":
        array = rng.integers(int(value.low), int(value.high), value.shape)
    elif value.kind == "steps":
        array = np.round(array)
    elif value.kind == "bool":
        array = array > 0
    return torch.tensor(array).requires_grad_(value.kind in {"float", "steps"})


class Pass:
    """One ATen call: its arguments by the names of the schema, as a recorder gives them, and its tensors by name."""

    def __init__(self, target: str, given: list[Any], seed: int = 0) -> None:
        self.target, self.rng = target, np.random.default_rng(seed)
        self.tensors: dict[str, torch.Tensor] = {}
        _, name, overload = target.split(".")
        self.operation = getattr(getattr(torch.ops.aten, name), overload)
        self.values: dict[str, Any] = {}
        self.arguments: dict[str, Any] = {}
        for number, argument in enumerate(self.operation._schema.arguments):
            value = given[number] if number < len(given) else argument.default_value
            self.values[argument.name], self.arguments[argument.name] = self.both(value, argument.name)

    def both(self, value: Any, name: str) -> tuple[Any, Any]:
        """The value for the engine and for the table."""
        if isinstance(value, list) and any(isinstance(v, T) for v in value):
            pairs = [self.both(v, f"{name}.{number}") for number, v in enumerate(value)]
            return [a for a, _ in pairs], [b for _, b in pairs]
        if not isinstance(value, T):
            return value, value
        tensor = made(self.rng, value)
        self.tensors[name] = tensor
        return tensor, Ref(name, tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))

    def run(self) -> Any:
        """What the engine gives: its first output, where it has several."""
        result = self.operation(
            *[self.values[a.name] for a in self.operation._schema.arguments if not a.kwarg_only],
            **{a.name: self.values[a.name] for a in self.operation._schema.arguments if a.kwarg_only},
        )
        return result[0] if isinstance(result, tuple) else result


def arrays_of(lowered: Lowered, tensors: dict[str, torch.Tensor]) -> list[Any]:
    return [
        None if x is None else tensors[x.name].detach().numpy() if isinstance(x, Ref) else np.asarray(x)
        for x in lowered.inputs
    ]


def compare(lowered: Lowered, y: torch.Tensor, tensors: dict[str, torch.Tensor], rng: np.random.Generator) -> None:
    """The textbook's output and gradients beside the engine's."""
    operation = OPERATIONS[lowered.op]
    assert json.loads(json.dumps(lowered.attributes)) == lowered.attributes, "settings that JSON keeps as they are"
    arrays = arrays_of(lowered, tensors)
    outputs, kept = operation.forward(*arrays, **lowered.attributes)
    output = operation.by_name(outputs)[lowered.output or operation.outputs[0]]
    assert (lowered.output is None) == (len(operation.outputs) == 1)
    np.testing.assert_allclose(output, y.detach().numpy(), rtol=1e-8, atol=1e-8)
    assert output.shape == tuple(y.shape)
    if not y.requires_grad:
        return
    dy = rng.standard_normal(tuple(y.shape))
    gradients = operation.backward({"y": dy} if lowered.output else dy, kept)
    (y * torch.from_numpy(dy)).sum().backward()  # type: ignore[no-untyped-call]
    total: dict[str, Any] = {}
    for name, given in zip(operation.argument_names(len(arrays)), lowered.inputs, strict=True):
        if isinstance(given, Ref) and name in gradients:
            total[given.name] = total.get(given.name, 0) + gradients[name]
    for name, tensor in tensors.items():
        if tensor.grad is not None:
            np.testing.assert_allclose(total.get(name, np.zeros(tensor.shape)), tensor.grad, rtol=1e-7, atol=1e-7)


X4 = t(2, 4, 6, 5)
RUNNING = [t(4, kind="fixed"), t(4, kind="fixed", low=0.5)]
LSTM = [t(8, 3), t(8, 2), t(8), t(8), t(8, 2), t(8, 2), t(8), t(8)]
RNN = [t(2, 3), t(2, 2)]

KNOWN: list[tuple[str, list[Any]]] = [
    ("conv2d.default", [X4, t(3, 4, 3, 2)]),
    ("conv2d.default", [X4, t(6, 2, 3, 3), t(6), [2, 1], [1, 2], [1, 2], 2]),
    ("conv2d.default", [X4, t(6, 4, 3, 3), None, [2], [1], [1]]),
    ("conv2d.padding", [X4, t(4, 1, 4, 3), t(4), [1, 1], "same", [1, 2], 4]),
    ("conv2d.padding", [X4, t(4, 4, 2, 2), None, [2, 2], "valid"]),
    ("convolution.default", [X4, t(3, 4, 2, 2), t(3), [1, 2], [1, 0], [2, 1], False, [0, 0], 1]),
    ("convolution.default", [X4, t(4, 3, 2, 2), t(3), [2, 2], [1, 0], [1, 1], True, [1, 0], 1]),
    ("conv_transpose2d.input", [X4, t(4, 3, 3, 3), t(6), [2, 2], [1, 1], [1, 1], 2, [1, 1]]),
    ("linear.default", [t(2, 3, 4), t(5, 4), t(5)]),
    ("linear.default", [t(4), t(5, 4)]),
    ("max_pool2d.default", [X4, [2, 3]]),
    ("max_pool2d.default", [X4, [3, 3], [2, 2], [1, 1], [1, 1], True]),
    ("max_pool2d.default", [X4, [2], [1], [0], [2]]),
    ("max_pool2d_with_indices.default", [X4, [2, 2], [2, 1], [1, 0]]),
    ("avg_pool2d.default", [X4, [2, 2]]),
    ("avg_pool2d.default", [X4, [3, 2], [2, 2], [1, 1], True, False]),
    ("avg_pool2d.default", [X4, [3, 3], [1, 1], [1, 1], False, True]),
    ("avg_pool2d.default", [X4, [300, 300], [300, 300], [0, 0], True]),
    ("avg_pool3d.default", [t(2, 1, 6, 4, 5), [5, 1, 1], [1, 1, 1]]),
    ("avg_pool3d.default", [t(2, 2, 6, 4, 5), [3, 2, 2], [], [1, 0, 1], True, False]),
    ("adaptive_avg_pool2d.default", [X4, [1, 1]]),
    ("adaptive_avg_pool2d.default", [X4, [4, 7]]),
    ("_adaptive_avg_pool2d.default", [X4, [3, 2]]),
    ("batch_norm.default", [X4, t(4), t(4), *RUNNING, False, 0.1, 1e-3, False]),
    ("batch_norm.default", [X4, t(4), None, *RUNNING, True, 0.3, 1e-5, False]),
    ("batch_norm.default", [X4, None, None, None, None, True, 0.0, 1e-8, False]),
    ("native_batch_norm.default", [X4, t(4), t(4), *RUNNING, False, 0.1, 1e-5]),
    ("_native_batch_norm_legit.default", [X4, t(4), t(4), *RUNNING, True, 0.1, 1e-5]),
    ("_native_batch_norm_legit.no_stats", [X4, t(4), t(4), True, 0.1, 1e-5]),
    ("_native_batch_norm_legit_functional.default", [X4, t(4), t(4), *RUNNING, True, 0.1, 1e-5]),
    ("_native_batch_norm_legit_no_training.default", [X4, t(4), t(4), *RUNNING, 0.1, 1e-3]),
    ("_batch_norm_with_update_functional.default", [X4, t(4), t(4), *RUNNING, 0.1, 1e-3]),
    ("layer_norm.default", [X4, [5]]),
    ("layer_norm.default", [X4, [6, 5], t(6, 5), t(6, 5), 1e-6]),
    ("native_layer_norm.default", [X4, [5], t(5), None, 1e-6]),
    ("group_norm.default", [X4, 2, t(4), t(4), 1e-4]),
    ("native_group_norm.default", [X4, t(4), t(4), 2, 4, 30, 2, 1e-5]),
    ("instance_norm.default", [X4, t(4), t(4), None, None, True, 0.1, 1e-5, False]),
    ("dropout.default", [X4, 0.3, False]),
    ("dropout.default", [X4, 0.0, True]),
    ("lstm.input", [t(2, 5, 3), [t(2, 2, 2), t(2, 2, 2)], LSTM, True, 2, 0.0, True, False, True]),
    ("lstm.input", [t(2, 5, 3), [t(1, 2, 2), t(1, 2, 2)], LSTM[:2], False, 1, 0.5, True, False, True]),
    ("rnn_tanh.input", [t(2, 5, 3), t(1, 2, 2), [*RNN, t(2), t(2)], True, 1, 0.0, False, False, True]),
    ("cross_entropy_loss.default", [t(3, 5), t(3, kind="int", low=0, high=5)]),
    ("cross_entropy_loss.default", [t(3, 5), t(3, kind="int", low=0, high=5), None, 2, -100, 0.1]),
    ("mse_loss.default", [t(3, 5), t(3, 5)]),
    ("mse_loss.default", [t(3, 5), t(3, 5), 2]),
    *[
        (f"{name}.default", [X4])
        for name in ("relu", "relu6", "sigmoid", "tanh", "silu", "hardswish", "hardsigmoid", "hardtanh", "gelu")
    ],
    ("hardtanh.default", [X4, 0.0, 6.0]),
    ("hardtanh.default", [X4, -0.5, 1]),
    ("gelu.default", [X4, "tanh"]),
    ("leaky_relu.default", [X4]),
    ("leaky_relu.default", [X4, 0.3]),
    ("elu.default", [X4]),
    ("elu.default", [X4, 0.5]),
    ("softplus.default", [X4, 2]),
    ("softmax.int", [X4, 1]),
    ("_softmax.default", [X4, -1, False]),
    ("log_softmax.int", [X4, -2]),
    ("_log_softmax.default", [X4, 0, False]),
    ("add.Tensor", [t(2, 3), t(3)]),
    ("add.Tensor", [t(2, 3), 1.5]),
    ("add.Tensor", [t(2, kind="int", low=0, high=9), 1]),
    ("add.Scalar", [t(2, 3), 2]),
    ("sub.Tensor", [t(2, 1), t(2, 3)]),
    ("sub.Scalar", [t(2, 3), 2.5]),
    ("rsub.Tensor", [t(2, 3), t(3)]),
    ("rsub.Scalar", [t(2, 3), 1]),
    ("mul.Tensor", [t(2, 3), t(2, 1)]),
    ("mul.Tensor", [t(2, 3), 1e-4]),
    ("mul.Tensor", [t(2, 3), t(2, 3, kind="bool")]),
    ("mul.Scalar", [t(2, 3), -2]),
    ("div.Tensor", [t(2, 3), t(3, low=1)]),
    ("div.Tensor", [t(2, 3), 3]),
    ("div.Scalar", [t(2, 3), 0.5]),
    ("div.Tensor_mode", [t(2, 3), t(3, low=1), None]),
    ("true_divide.Tensor", [t(2, 3), t(3, low=1)]),
    ("pow.Tensor_Scalar", [t(2, 3, low=0.5), 0.75]),
    ("pow.Tensor_Scalar", [t(2, 3), 2]),
    ("square.default", [t(2, 3)]),
    ("sqrt.default", [t(2, 3, low=0.5)]),
    ("rsqrt.default", [t(2, 3, low=0.5)]),
    ("reciprocal.default", [t(2, 3, low=0.5)]),
    ("clone.default", [X4]),
    ("contiguous.default", [X4]),
    ("alias.default", [X4]),
    ("lift_fresh_copy.default", [X4]),
    ("to.dtype", [X4, torch.float64]),
    ("to.dtype", [t(3, kind="int", low=0, high=9), torch.float32]),
    ("to.dtype_layout", [X4]),
    ("to.device", [X4, torch.device("cpu"), torch.float64]),
    ("to.other", [X4, t(1)]),
    ("_to_copy.default", [X4, torch.float64]),
    ("type_as.default", [X4, t(1)]),
    ("view.default", [X4, [2, -1, 5]]),
    ("view.default", [X4, [240]]),
    ("_unsafe_view.default", [X4, [8, 30]]),
    ("reshape.default", [X4, [2, 2, 2, 30]]),
    ("reshape.default", [t(3, 1), [-1]]),
    ("reshape_as.default", [X4, t(8, 30)]),
    ("view_as.default", [X4, t(8, 30)]),
    ("flatten.using_ints", [X4, 1]),
    ("flatten.using_ints", [X4]),
    ("flatten.using_ints", [X4, -3, 2]),
    ("flatten.using_ints", [t()]),
    ("unflatten.int", [X4, 1, [2, -1]]),
    ("squeeze.default", [t(2, 1, 3, 1)]),
    ("squeeze.dim", [t(2, 1, 3, 1), -1]),
    ("squeeze.dim", [t(2, 1, 3, 1), 0]),
    ("squeeze.dims", [t(2, 1, 3, 1), [1, -1]]),
    ("unsqueeze.default", [t(2, 3), -1]),
    ("unsqueeze.default", [t(2, 3), 0]),
    ("permute.default", [X4, [0, -2, 3, 1]]),
    ("transpose.int", [X4, 1, -1]),
    ("swapaxes.default", [X4, 0, 2]),
    ("swapdims.default", [X4, 0, 2]),
    ("t.default", [t(2, 3)]),
    ("t.default", [t(3)]),
    ("numpy_T.default", [t(2, 3, 4)]),
    ("movedim.int", [X4, 1, -1]),
    ("movedim.intlist", [X4, [3, 0], [0, 2]]),
    ("slice.Tensor", [X4, 2, 0, 9223372036854775807, 2]),
    ("slice.Tensor", [X4, -1, -3, -1]),
    ("slice.Tensor", [X4, 1, 3, 2]),
    ("slice.Tensor", [X4]),
    ("narrow.default", [X4, -1, -3, 2]),
    ("narrow.default", [X4, 1, 1, 2]),
    ("select.int", [X4, 1, -1]),
    ("select.int", [X4, -1, 2]),
    ("expand.default", [t(2, 1), [3, -1, 4]]),
    ("expand_as.default", [t(3, 1), t(2, 3, 4)]),
    ("cat.default", [[t(2, 3), t(2, 1), t(2, 2)], -1]),
    ("concat.default", [[t(2, 3), t(1, 3)]]),
    ("pad.default", [X4, [1, 2]]),
    ("pad.default", [X4, [0, 0, 0, 0, 2, 2], "constant", 1.5]),
    ("constant_pad_nd.default", [X4, [1, 0, 2, 1], -3]),
    ("mean.default", [X4]),
    ("mean.dim", [X4, [-1, 2]]),
    ("mean.dim", [X4, [1], True]),
    ("mean.dim", [X4, None, True]),
    ("mean.dim", [X4, []]),
    ("sum.default", [X4]),
    ("sum.dim_IntList", [X4, [0, 3]]),
    ("sum.dim_IntList", [X4, [0], True]),
    *[(f"{name}.default", [X4]) for name in ("exp", "expm1", "sin", "cos", "abs", "neg", "erf", "mish", "selu")],
    ("log_sigmoid.default", [X4]),
    ("log.default", [t(2, 3, low=0.2)]),
    ("log1p.default", [t(2, 3, low=0.2)]),
    ("prelu.default", [X4, t(1, low=0.1)]),
    ("prelu.default", [t(3, 4), t(4)]),
    ("prelu.default", [X4, t(4)]),
    ("clamp.default", [X4, -1, 0.5]),
    ("clamp.default", [X4, None, 1]),
    ("clamp.default", [t(3, 4, kind="steps"), 0, 1]),
    ("clamp_min.default", [t(3, 4, kind="steps"), 0]),
    ("clamp_max.default", [X4, 0.3]),
    ("maximum.default", [X4, t(6, 5)]),
    ("maximum.default", [t(9, 4, kind="steps"), t(9, 4, kind="steps")]),
    ("minimum.default", [X4, t(6, 5)]),
    ("minimum.default", [t(9, 4, kind="steps"), t(9, 4, kind="steps")]),
    ("where.self", [t(6, 5, kind="bool"), X4, t(5)]),
    ("where.ScalarOther", [t(6, 5, kind="bool"), X4, 0]),
    ("where.ScalarSelf", [t(6, 5, kind="bool"), 1.5, X4]),
    ("matmul.default", [t(2, 1, 3, 4), t(5, 4, 2)]),
    ("mm.default", [t(3, 4), t(4, 2)]),
    ("bmm.default", [t(2, 3, 4), t(2, 4, 2)]),
    ("stack.default", [[t(2, 3), t(2, 3), t(2, 3)], -1]),
    ("stack.default", [[t(2, 3), t(2, 3)]]),
    ("amax.default", [X4]),
    ("amax.default", [t(5, 6, kind="steps"), [-1], True]),
    ("max.dim", [X4, 1]),
    ("max.dim", [t(5, 6, kind="steps"), -1, True]),
    ("linalg_vector_norm.default", [X4, 2, [-1, 1], True]),
    ("linalg_vector_norm.default", [X4]),
    ("adaptive_max_pool2d.default", [X4, [4, 3]]),
    ("detach.default", [X4]),
    ("copy.default", [t(2, 3, 5, kind="fixed"), t(5, kind="fixed")]),
    ("pad.default", [X4, [-1, 0, -2, -1]]),
    ("pad.default", [X4, [2, 1, 0, 3], "reflect"]),
    ("pad.default", [X4, [2, 1, 0, 3], "replicate"]),
    ("pad.default", [X4, [2, 1, 0, 3], "circular"]),
    ("reflection_pad2d.default", [X4, [2, 1, 0, 3]]),
    ("replication_pad2d.default", [X4, [2, 1, 0, 8]]),
    ("flip.default", [X4, [-1, 1]]),
    ("roll.default", [X4, [2, -1], [1, -1]]),
    ("repeat.default", [X4, [1, 2, 1, 3]]),
    ("tile.default", [X4, [2, 1]]),
    ("repeat_interleave.self_int", [X4, 3, -1]),
    ("channel_shuffle.default", [t(2, 6, 3, 3), 2]),
    ("upsample_nearest2d.vec", [X4, None, [2.0, 3.0]]),
    ("upsample_nearest2d.vec", [X4, None, [1.7, 0.6]]),
    ("upsample_nearest2d.vec", [X4, [41, 4], None]),
    ("upsample_nearest2d.default", [X4, [6, 13]]),
    ("_weight_norm.default", [t(3, 4, 2), t(3, 1, 1)]),
    ("_weight_norm.default", [t(3, 4, 2), t(1, 1, 2), 2]),
    ("_weight_norm_interface.default", [t(3, 4, 2), t(3, 1, 1)]),
]


def numbered(cases: list[tuple[str, list[Any]]]) -> list[Any]:
    return [pytest.param(name, given, id=f"{name}-{number}") for number, (name, given) in enumerate(cases)]


@pytest.mark.parametrize(("name", "given"), numbered(KNOWN))
def test_the_textbook_call_is_the_engines(name: str, given: list[Any]) -> None:
    torch.set_num_threads(1)
    call = Pass(f"aten.{name}", given)
    lowered = lower(call.target, call.arguments, lambda ref: ref.shape)
    assert lowered is not None
    compare(lowered, call.run(), call.tensors, call.rng)


def test_every_rule_is_tried() -> None:
    every = [*layers.RULES, *functions.RULES, *moves.RULES, *taken.RULES]
    tables = set(every)
    # These two draw their mask, which has a test of its own.
    assert {f"aten.{name}" for name, _ in KNOWN} == tables - {"aten.native_dropout.default", DROPPED_WHOLE}
    assert len(tables) == len(every), "one rule an operation"


DROPPED_WHOLE = "aten.feature_dropout.default"

#: Settings that the textbook lacks, and what would be wrong if they were passed over.
BEYOND: list[tuple[str, list[Any]]] = [
    ("conv2d.default", [t(4, 6, 5), t(3, 4, 3, 2)]),  # no batch
    ("conv2d.padding", [t(4, 6, 5), t(3, 4, 3, 2), None, [1, 1], "same"]),
    ("convolution.default", [t(2, 4, 6), t(3, 4, 3), None, [1], [0], [1], False, [0], 1]),  # one axis
    ("conv_transpose2d.input", [t(4, 6, 5), t(4, 3, 3, 3)]),
    ("linear.default", [t(2, 4), t(4)]),
    ("max_pool2d.default", [t(4, 6, 5), [2, 2]]),
    ("avg_pool2d.default", [t(4, 6, 5), [2, 2]]),
    ("avg_pool2d.default", [X4, [2, 2], [2, 2], [0, 0], False, True, 3]),  # a divisor of its own
    ("avg_pool3d.default", [t(1, 6, 4, 5), [5, 1, 1]]),
    ("adaptive_avg_pool2d.default", [t(4, 6, 5), [1, 1]]),
    ("adaptive_avg_pool2d.default", [X4, [0, 1]]),
    ("instance_norm.default", [X4, None, None, *RUNNING, False, 0.1, 1e-5, False]),  # the running averages
    ("dropout.default", [X4, 0.5, True]),  # the mask is unknown
    ("dropout.default", [X4, 1.0, True]),
    ("lstm.input", [t(5, 2, 3), [t(1, 2, 2), t(1, 2, 2)], LSTM[:4], True, 1, 0.0, True, False, False]),
    ("lstm.input", [t(2, 5, 3), [t(2, 2, 2), t(2, 2, 2)], LSTM, True, 2, 0.5, True, False, True]),
    ("lstm.input", [t(2, 5, 3), [t(2, 2, 2), t(2, 2, 2)], LSTM, True, 1, 0.0, True, True, True]),
    ("lstm.input", [t(5, 3), [t(1, 2), t(1, 2)], LSTM[:4], True, 1, 0.0, True, False, True]),
    ("lstm.input", [t(2, 5, 3), [t(1, 2, 1), t(1, 2, 2)], [*LSTM[:4], t(1, 2)], True, 1, 0.0, True, False, True]),
    ("cross_entropy_loss.default", [t(3, 5), t(3, 5)]),  # probabilities
    ("cross_entropy_loss.default", [t(3, 5), t(3, kind="int", low=0, high=5), None, 0]),  # one loss an image
    ("cross_entropy_loss.default", [t(3, 5), t(3, kind="int", low=0, high=5), None, 1, 2]),
    ("cross_entropy_loss.default", [t(3, 5, 2), t(3, 2, kind="int", low=0, high=5)]),
    ("mse_loss.default", [t(3, 5), t(3, 5), 0]),
    ("mse_loss.default", [t(3, 5), t(5)]),
    ("relu.default", [t(2, kind="int", low=-3, high=3)]),
    ("elu.default", [X4, 1.0, 1.05]),
    ("elu.default", [X4, 1.0, 1.0, 2.0]),
    ("softplus.default", [X4, 1.0, 2.0]),
    ("softmax.int", [X4, 1, torch.float64]),
    ("_softmax.default", [X4, 1, True]),
    ("log_softmax.int", [t(), 0]),
    ("add.Tensor", [t(2, 3), t(3), 2]),
    ("sub.Tensor", [t(2, 3), t(3), 0.5]),
    ("rsub.Scalar", [t(2, 3), 1, 2]),
    ("add.Tensor", [t(2, kind="bool"), t(2, kind="bool")]),
    ("mul.Tensor", [t(2, 3), 1j]),
    ("div.Tensor", [t(2, kind="int", low=1, high=9), 2]),
    ("div.Tensor_mode", [t(2, 3), t(3, low=1), "floor"]),
    ("pow.Tensor_Scalar", [t(2, kind="int", low=1, high=9), 2]),
    ("square.default", [t(2, kind="int", low=1, high=9)]),
    ("to.dtype", [X4, torch.int64]),
    ("to.dtype_layout", [t(2, kind="int", low=1, high=9)]),
    ("type_as.default", [X4, t(1, kind="int")]),
    ("narrow.default", [X4, 1, t(kind="int", low=0, high=1), 2]),
    ("cat.default", [[t(0), t(2, 3)], 0]),
    ("pad.default", [X4, [-1, 2]]),  # cuts here and adds there
    ("roll.default", [X4, [1], []]),
    ("repeat.default", [t(2, 3), [2, 1, 1]]),
    ("repeat_interleave.self_int", [t(2, 3), 2]),
    ("copy.default", [t(2, 3), t(3, kind="int")]),
    ("mean.dim", [X4, [1], False, torch.float64]),
    ("sum.default", [t(2, kind="bool")]),
    ("clamp.default", [t(2, kind="int", low=1, high=9), 2]),
    ("maximum.default", [t(2, kind="int", low=1, high=9), t(2, kind="int", low=1, high=9)]),
    ("where.self", [t(2, kind="bool"), t(2, kind="int"), t(2, kind="int")]),
    ("matmul.default", [t(3, 4), t(4)]),
    ("matmul.default", [t(4), t(4, 3)]),
    ("amax.default", [t(2, kind="int", low=1, high=9)]),
    ("max.dim", [t(2, kind="int", low=1, high=9), 0]),
    ("linalg_vector_norm.default", [X4, 1]),
    ("linalg_vector_norm.default", [X4, 2, [1], False, torch.float64]),
    ("adaptive_max_pool2d.default", [t(4, 6, 5), [1, 1]]),
    ("_weight_norm.default", [t(3, 4), t(), -1]),
    ("cumsum.default", [X4, 1]),
]


@pytest.mark.parametrize(("name", "given"), numbered(BEYOND))
def test_what_the_textbook_lacks_has_no_rule(name: str, given: list[Any]) -> None:
    call = Pass(f"aten.{name}", given)
    assert lower(call.target, call.arguments) is None


@pytest.mark.parametrize(
    ("name", "given", "wanted"),
    [
        (
            "conv2d.default",
            [X4, t(3, 4, 3, 2)],
            {"stride": [1, 1], "padding": [0, 0], "dilation": [1, 1], "groups": 1},
        ),
        (
            "max_pool2d.default",
            [X4, [2, 3]],
            {"kernel": [2, 3], "stride": [2, 3], "padding": [0, 0], "ceil": False, "dilation": [1, 1]},
        ),
        (
            "avg_pool2d.default",
            [X4, [2]],
            {"kernel": [2, 2], "stride": [2, 2], "padding": [0, 0], "ceil": False, "count_padding": True},
        ),
        ("layer_norm.default", [X4, [6, 5]], {"axes": 2, "eps": 1e-5}),
        ("leaky_relu.default", [X4], {"slope": 0.01}),
        ("gelu.default", [X4], {"approximate": "none"}),
        ("flatten.using_ints", [X4], {"start": 0}),
        ("transpose.int", [X4, 0, -1], {"axes": [3, 1, 2, 0]}),
        ("slice.Tensor", [X4, -2, None, 100, 4], {"axis": 2, "start": 0, "stop": 6, "step": 4}),
        ("cat.default", [[t(2, 3), t(1, 3)]], {"axis": 0}),
        ("pad.default", [X4, [1, 2, 3, 4]], {"widths": [[3, 4], [1, 2]], "value": 0.0}),
        ("mean.dim", [X4, [-1]], {"axes": [3], "average": True, "keep": False}),
        ("cross_entropy_loss.default", [t(3, 5), t(3, kind="int")], {"smoothing": 0.0, "reduction": "mean"}),
    ],
)
def test_defaults(name: str, given: list[Any], wanted: dict[str, Any]) -> None:
    call = Pass(f"aten.{name}", given)
    lowered = lower(call.target, call.arguments)
    assert lowered is not None
    assert lowered.attributes == wanted


def test_arguments_stand_in_the_textbooks_order() -> None:
    """Six weights of an LSTM without biases, and a difference turned round."""
    call = Pass("aten.lstm.input", [t(2, 5, 3), [t(1, 2, 2), t(1, 2, 2)], LSTM[:2], False, 1, 0.0, False, False, True])
    lowered = lower(call.target, call.arguments)
    assert lowered is not None
    names = [None if x is None else x.name for x in lowered.inputs]
    assert names == ["input", "hx.0", "hx.1", "params.0", "params.1", None, None]
    call = Pass("aten.rsub.Scalar", [t(2), 1])
    assert lower(call.target, call.arguments) == Lowered("subtract", (1, call.arguments["self"]), {})


@pytest.mark.parametrize("target", ["aten.dropout.default", "aten.native_dropout.default", DROPPED_WHOLE])
def test_a_dropout_that_drops_takes_its_mask(target: str) -> None:
    torch.set_num_threads(1)
    call = Pass(target, [X4, 0.4, True])
    torch.manual_seed(3)
    y = call.run()
    mask = (y.detach() != 0).double()
    if target == DROPPED_WHOLE:
        mask = mask.amax((2, 3), keepdim=True)
    call.tensors["mask"] = mask
    lowered = lower(target, {**call.arguments, "mask": Ref("mask", tuple(mask.shape), "float64")})
    assert lowered is not None
    assert lowered.attributes == {"p": 0.4, "training": True}
    assert 0 < mask.mean() < 1
    compare(lowered, y, call.tensors, call.rng)


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("chunk.default", [X4, 2, 1]),
        ("chunk.default", [X4, 3, 3]),
        ("chunk.default", [X4, 4, -1]),
        ("split.Tensor", [X4, 4, 2]),
        ("split.sizes", [X4, [1, 3], 1]),
        ("split_with_sizes.default", [X4, [4, 0, 1], -1]),
        ("unbind.int", [X4, 1]),
        ("unbind.int", [X4, -1]),
    ],
)
def test_parts(name: str, given: list[Any]) -> None:
    target = f"aten.{name}"
    parts = list(Pass(target, given).run())
    for number in range(len(parts)):
        call = Pass(target, given)
        lowered = lower_part(target, call.arguments, number)
        assert lowered is not None
        assert lowered.op in PASS_THROUGH
        compare(lowered, call.run()[number], call.tensors, call.rng)
    assert lower(target, call.arguments) is None, "a list is no array"
    assert lower_part("aten.relu.default", {"self": call.arguments["self"]}, 0) is None


def test_what_passes_through_only_moves_numbers() -> None:
    """Whatever an operation of PASS_THROUGH gives was given to it."""
    assert set(OPERATIONS) >= PASS_THROUGH
    tried = set()
    for name, given in KNOWN:
        call = Pass(f"aten.{name}", given)
        lowered = lower(call.target, call.arguments)
        assert lowered is not None
        if lowered.op in PASS_THROUGH:
            tried.add(lowered.op)
            y, _ = OPERATIONS[lowered.op].forward(*arrays_of(lowered, call.tensors), **lowered.attributes)
            assert np.isin(y, arrays_of(lowered, call.tensors)[0]).all()
    assert tried == PASS_THROUGH
