"""Receptive fields against poisoned inputs (NaN spreads to all that reads it), and against the formula for chains."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from tests.explain.building import Builder, replayed

from pellucid.errors import UsageError
from pellucid.explain.address import find
from pellucid.explain.field import receptive_field
from pellucid.explain.node import Node
from pellucid.explain.tape import Tape
from pellucid.textbook import sizes

Array = npt.NDArray[Any]


def poisoned(tape: Tape, address: str, name: str = "input") -> Array:
    """Which numbers of an input spoil the number at the address when they are NaN."""
    where = find(tape, address)
    spoils = np.zeros(tape.values[name].shape, dtype=bool)
    for index in np.ndindex(spoils.shape):
        given = tape.values[name].copy()
        given[index] = np.nan
        with np.errstate(all="ignore"):
            value = replayed(tape, {name: given})[where.node]
        spoils[index] = np.isnan(value if where.index is None else value[where.index]).any()
    return spoils


def residual(build: Builder, x: str, name: str, filters: int, stride: int = 1) -> str:
    """A residual block, with a 1×1 shortcut where the shape changes."""
    y = build.conv(f"{name}.conv1", x, filters, 3, bias=False, stride=stride, padding=1)
    y = build.op(f"{name}.relu", "relu", build.batch_norm(f"{name}.bn1", y))
    y = build.batch_norm(f"{name}.bn2", build.conv(f"{name}.conv2", y, filters, 3, bias=False, padding=1))
    if stride != 1:
        x = build.batch_norm(f"{name}.down.1", build.conv(f"{name}.down.0", x, filters, 1, bias=False, stride=stride))
    return build.op(f"{name}.relu@2", "relu", build.op(f"{name}.add", "add", y, x))


def inception(build: Builder, x: str, name: str) -> str:
    """Four branches, concatenated: 1×1, 1×1 then 3×3, 1×1 then 5×5, pooling then 1×1."""
    one = build.conv(f"{name}.b1", x, 2, 1)
    three = build.conv(f"{name}.b2.1", build.conv(f"{name}.b2.0", x, 1, 1), 2, 3, padding=1)
    five = build.conv(f"{name}.b3.1", build.conv(f"{name}.b3.0", x, 1, 1), 2, 5, padding=2)
    pool = build.op(f"{name}.b4.0", "max_pool", x, kernel=3, stride=1, padding=1)
    return build.op(f"{name}.cat", "concatenate", one, three, five, build.conv(f"{name}.b4.1", pool, 2, 1), axis=1)


def excited(build: Builder, x: str, name: str) -> str:
    """Squeeze and excite: each channel scaled by what all of them say."""
    squeezed = build.op(f"{name}.pool", "global_average_pool", x)
    low = build.op(f"{name}.relu", "relu", build.conv(f"{name}.fc1", squeezed, 2, 1))
    high = build.op(f"{name}.sigmoid", "sigmoid", build.conv(f"{name}.fc2", low, build.values[x].shape[1], 1))
    return build.op(f"{name}.mul", "multiply", x, high)


def checked(tape: Tape, address: str) -> None:
    field = receptive_field(tape, address)
    np.testing.assert_array_equal(field.mask, poisoned(tape, address))
    assert field.exact
    assert field.count == field.mask.sum()
    inside = np.zeros(field.mask.shape, dtype=bool)
    inside[field.box] = True
    assert (inside | ~field.mask).all()


def test_through_residual_blocks() -> None:
    build = Builder(1)
    x = residual(build, build.input(2, 2, 9, 9), "layer1", 2)
    x = residual(build, x, "layer2", 3, stride=2)
    tape = build.tape(x)
    for address in ("layer1.relu[1,1,0,8]", "layer2.relu@2[0,2,0,0]", "layer2.down.0[0,1,4,2]", "layer2.add[1,0,2,3]"):
        checked(tape, address)


def test_through_inception_and_its_branches() -> None:
    build = Builder(2)
    tape = build.tape(inception(build, build.conv("stem", build.input(1, 2, 8, 7), 2, 3, stride=2, padding=1), "mixed"))
    for channel in (0, 2, 5, 7):
        checked(tape, f"mixed.cat[{channel},1,2]")


def test_a_kernel_with_holes_leaves_gaps() -> None:
    build = Builder(3)
    tape = build.tape(build.conv("conv", build.input(1, 2, 9, 9), 2, 3, dilation=2, padding=2))
    checked(tape, "conv[0,4,4]")
    field = receptive_field(tape, "conv[0,4,4]")
    assert field.count == 2 * 9
    assert not field.regions[0].whole
    assert field.box == (slice(0, 1), slice(0, 2), slice(2, 7), slice(2, 7))
    assert (
        field.text() == "conv[0,0,4,4] can depend on 18 of 162 numbers of input: [0, 0 to 1, 2 to 6, 2 to 6], with gaps"
    )
    checked(tape, "conv[1,0,8]")


def test_global_pooling_sees_one_image_and_all_of_it() -> None:
    build = Builder(4)
    x = build.op("pool", "global_average_pool", excited(build, build.conv("c", build.input(3, 1, 5, 5), 3, 3), "se"))
    tape = build.tape(build.linear("fc", build.op("flatten", "flatten", x), 2))
    checked(tape, "fc[1,0]")
    assert receptive_field(tape, "fc[1,0]").box == (slice(1, 2), slice(0, 1), slice(0, 5), slice(0, 5))
    checked(tape, "se.mul[2,1,0,0]")


def test_statistics_of_the_batch_reach_every_image() -> None:
    build = Builder(5)
    x = build.batch_norm("bn", build.conv("conv", build.input(3, 1, 5, 4), 2, 2), training=True)
    tape = build.tape(build.op("relu", "relu", x))
    checked(tape, "relu[1,0,1,1]")
    field = receptive_field(tape, "relu[1,0,1,1]")
    assert field.box[0] == slice(0, 3)
    assert field.notes == ("bn takes mean and variance from the whole batch: every image of it counts",)
    assert "every image" in field.text()


def test_moves_and_groups() -> None:
    build = Builder(6)
    x = build.conv("conv", build.input(1, 4, 4, 4), 4, 2, groups=2)
    x = build.op("split", "reshape", x, shape=[1, 2, 2, 3, 3])
    x = build.op("shuffle", "reshape", build.op("swap", "permute", x, axes=[0, 2, 1, 3, 4]), shape=[1, 4, 3, 3])
    x = build.op("half", "slice", x, axis=1, start=1, stop=4, step=2)
    x = build.op("pad", "padding", x, widths=[[1, 0], [0, 1]])
    tape = build.tape(build.op("pick", "select", x, axis=1, index=1))
    for address in ("shuffle[1,1,1]", "half[1,0,2]", "pad[0,0,1]", "pad[0,1,1]", "pick[2,2]"):
        checked(tape, address)
    assert receptive_field(tape, "pad[0,0,1]").count == 0
    assert receptive_field(tape, "pad[0,0,1]").box == (slice(0, 0),) * 4


@pytest.mark.parametrize("kind", ["rnn", "lstm"])
def test_a_state_has_seen_the_steps_up_to_its_own(kind: str) -> None:
    build = Builder(7)
    x = build.lstm("net", build.input(2, 4, 3), 3, layers=2, kind=kind)
    last = build.op("last", "select", x, axis=1, index=3)
    tape = build.tape(build.linear("fc", last, 2))
    for address in ("net[1,2,0]", "net.h_n[0,1,2]", "net.0.h[0,1,1]", "net.1.h[1,0,0]", "fc[0,1]"):
        checked(tape, address)
    if kind == "lstm":
        for address in ("net.1.f[0,2,1]", "net.0.o[1,3,0]", "net.c_n[1,0,0]"):
            checked(tape, address)
    assert receptive_field(tape, "net[1,2,0]").box == (slice(1, 2), slice(0, 3), slice(0, 3))


def test_a_chain_of_layers_agrees_with_the_formula() -> None:
    layers = [("conv1", 5, 2, 2, 1), ("pool1", 3, 2, 1, 1), ("conv2", 3, 1, 0, 2), ("conv3", 3, 2, 1, 1)]
    build = Builder(8)
    x, below = build.input(1, 1, 61, 61), sizes.IMAGE
    chain = []
    for name, kernel, stride, pad, dilation in layers:
        if name.startswith("pool"):
            x = build.op(name, "average_pool", x, kernel=kernel, stride=stride, padding=pad)
        else:
            x = build.conv(name, x, 1, kernel, stride=stride, padding=pad, dilation=dilation)
        chain.append(sizes.Layer(name, (below,), sizes.Window(kernel, stride, pad, dilation)))
        below = name
    tape = build.tape(x)
    for name, *_ in layers:
        high, wide = tape.values[name].shape[2:]
        for i, j in ((0, 0), (high // 2, wide // 3), (high - 1, wide - 1)):
            box = receptive_field(tape, f"{name}[0,{i},{j}]").box
            for at, side in ((i, box[2]), (j, box[3])):
                first, last = sizes.backwards(chain, name, (at, at), 61)
                assert (side.start, side.stop - 1) == (first, last)
    middle = tape.values["conv3"].shape[2] // 2
    side = receptive_field(tape, f"conv3[0,{middle},{middle}]").box[2]
    assert side.stop - side.start == sizes.field(chain, "conv3").size


def test_several_inputs_and_a_whole_array() -> None:
    build = Builder(9)
    left, right = build.input(1, 2, name="left"), build.input(1, 3, name="right")
    tape = build.tape(build.op("cat", "concatenate", build.linear("a", left, 2), build.linear("b", right, 2), axis=1))
    field = receptive_field(tape, "cat[0,3]")
    assert [(region.name, region.count) for region in field.regions] == [("left", 0), ("right", 3)]
    assert [region.count for region in receptive_field(tape, "cat").regions] == [2, 3]
    assert field.text().splitlines()[0] == "cat[0,3] can depend on 0 of 2 numbers of left"


def test_an_input_a_weight_and_a_number_used_twice() -> None:
    build = Builder(10)
    x = build.input(1, 1, 4, 4)
    build.conv("conv", x, 1, 3)
    tape = build.tape(build.op("square", "multiply", x, x))
    assert receptive_field(tape, "input[0,1,2]").count == 1
    assert receptive_field(tape, "conv.weight[0,0,0,0]").count == 0
    checked(tape, "square[0,3,3]")


def test_a_kernel_that_was_computed_from_an_input() -> None:
    """Each output of a linear map and of a convolution reads its own kernel, and with it what that was made from."""
    build = Builder(13)
    image, maker = build.input(1, 2, 3, 3), build.input(3, 2, name="maker")
    w = build.op("kernel", "reshape", build.linear("made", maker, 8), shape=[3, 2, 2, 2])
    build.op("conv", "convolution", image, w, None)
    up = build.op("turned", "reshape", "made", shape=[2, 3, 2, 2])
    tape = build.tape(build.op("up", "transposed_convolution", image, up, None))
    field = receptive_field(tape, "conv[1,0,0]")
    np.testing.assert_array_equal(field.regions[1].mask, poisoned(tape, "conv[0,1,0,0]", "maker"))
    assert field.regions[1].count == 2
    np.testing.assert_array_equal(field.mask, poisoned(tape, "conv[0,1,0,0]"))
    # Of a transposed convolution the whole kernel counts: a bound.
    mask = receptive_field(tape, "up[1,1,1]").regions[1].mask
    assert (mask | ~poisoned(tape, "up[0,1,1,1]", "maker")).all()
    assert mask.any()


def test_an_operation_without_a_rule_counts_as_reading_all() -> None:
    build = Builder(11)
    x = build.op("relu", "relu", build.input(1, 1, 3, 3))
    build.add("sorted", "aten.sort.default", (x,), {}, np.sort(build.values[x]))
    tape = build.tape(build.op("tanh", "tanh", "sorted"))
    field = receptive_field(tape, "tanh[0,1,1]")
    assert field.count == 9
    assert not field.exact
    assert field.notes == ("sorted (aten.sort.default) has no rule: counted as reading all it was given",)
    assert "at most" in field.text()


def test_refusals() -> None:
    build = Builder(12)
    tape = build.tape(build.linear("fc", build.input(1, 2), 2))
    tape.loss, tape.gradients = "fc", {"fc": np.ones((1, 2))}
    with pytest.raises(UsageError, match=r"fc\.grad\[0,1\]: only a value has a receptive field"):
        receptive_field(tape, "fc.grad[0,1]")
    with pytest.raises(UsageError, match="did you mean"):
        receptive_field(tape, "fcc[0,1]")
    bare = Tape(nodes=[Node("w", "parameter", shape=(2,))], values={"w": np.ones(2)})
    with pytest.raises(UsageError, match="the tape has no input"):
        receptive_field(bare, "w[0]")
