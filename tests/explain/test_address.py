from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.explain.engine import everyday, recurrent
from tests.explain.test_update import trained

from pellucid.errors import UsageError
from pellucid.explain import Node, Tape
from pellucid.explain.address import Address, find

TAPE = everyday()


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("conv1[1,3,4,5]", Address("conv1", "", (1, 3, 4, 5))),
        ("conv1[3,4,5]", Address("conv1", "", (0, 3, 4, 5))),
        (" conv1 [ 3, 4 ,5 ] ", Address("conv1", "", (0, 3, 4, 5))),
        ("conv1.grad[3,4,5]", Address("conv1", "grad", (0, 3, 4, 5))),
        ("conv1.weight[3,0,1,1]", Address("conv1.weight", "", (3, 0, 1, 1))),
        ("conv1.weight.grad[3,0,1,1]", Address("conv1.weight", "grad", (3, 0, 1, 1))),
        ("conv2@2[5,0,0]", Address("conv2@2", "", (0, 5, 0, 0))),
        ("labels[1]", Address("labels", "", (1,))),
        ("fc[2]", Address("fc", "", (0, 2))),
        ("stem[5,2,2]", Address("pool", "", (0, 5, 2, 2))),
        ("stem.grad[5,2,2]", Address("pool", "grad", (0, 5, 2, 2))),
        ("loss", Address("loss", "", ())),
        ("loss[]", Address("loss", "", ())),
        ("loss.grad", Address("loss", "grad", ())),
        ("conv1", Address("conv1", "", None)),
        ("conv1.weight.grad", Address("conv1.weight", "grad", None)),
    ],
)
def test_an_address_is_completed(text: str, address: Address) -> None:
    found = find(TAPE, text)
    assert found == address
    assert find(TAPE, str(found)) == found


def test_addresses_of_the_step() -> None:
    tape = trained("adam")
    assert find(tape, "fc.weight.next[1,2]") == Address("fc.weight", "next", (1, 2))
    assert find(tape, "fc.weight.state.m[1,2]") == Address("fc.weight", "state.m", (1, 2))
    assert str(find(tape, "fc.bias.state.v[3]")) == "fc.bias.state.v[3]"
    with pytest.raises(UsageError, match=r"remembers no 'velocity' of fc\.weight: known are: m, v"):
        find(tape, "fc.weight.state.velocity[1,2]")
    with pytest.raises(UsageError, match="gradient_descent remembers nothing"):
        find(trained("gradient_descent"), "fc.weight.state.velocity[1,2]")


def test_a_nodes_own_name_wins() -> None:
    values = {"a": np.zeros(3), "a.grad": np.ones(4), "odd[0]": np.ones(2)}
    tape = Tape(nodes=[Node(name, "parameter", shape=v.shape) for name, v in values.items()], values=values)
    assert find(tape, "a.grad[3]") == Address("a.grad", "", (3,))
    assert find(tape, "odd[0]") == Address("odd[0]", "", None)


def test_image_0_is_meant_only_where_images_are_counted() -> None:
    tape = recurrent(layers=2)
    assert find(tape, "lstm.0.f[3,4]") == Address("lstm.0.f", "", (0, 3, 4))
    # (layers, images, units): two layers, and two images, but the first axis counts layers.
    for text in ("lstm.h_n[1,2]", "lstm.weight_ih_l0[3]"):
        with pytest.raises(UsageError, match=r"takes . indices, not \d"):
            find(tape, text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("pol[0,0,0]", "pol: the tape has no value of that name: did you mean 'pool'?"),
        (
            "conv1.wieght.grad[0,0,0,0]",
            "conv1.wieght: the tape has no value of that name: did you mean 'conv1.weight'?",
        ),
        ("conv1.gard[0,0,0]", "conv1.gard: the tape has no value of that name: did you mean 'conv1.grad'?"),
        ("conv1[6,0,0]", "conv1[6,0,0]: [0, 6, 0, 0] is out of range for conv1 of shape (2, 6, 6, 6)"),
        ("conv1[2,0,0,0]", "[2, 0, 0, 0] is out of range for conv1 of shape (2, 6, 6, 6): each index runs from 0"),
        ("conv1[0,0]", "conv1[0,0]: conv1 has shape (2, 6, 6, 6), which takes 4 indices, not 2: write conv1[0,0,0,0]"),
        ("fc.bias[0,1]", "fc.bias has shape (4,), which takes 1 index, not 2: write fc.bias[0]"),
        ("conv1.weight[0,0,0]", "takes 4 indices, not 3"),
        ("loss[0]", "loss has shape (), which takes 0 indices, not 1: write loss"),
        ("conv1[-1,0,0]", "conv1[-1,0,0]: [-1,0,0] is no index: write whole numbers from 0, such as [0,0,0,0]"),
        ("conv1[a]", "[a] is no index"),
        ("conv1[1.5,0,0]", "[1.5,0,0] is no index"),
        ("conv1[0,0,]", "[0,0,] is no index"),
        ("conv1[0]x", "conv1[0]x: is no address"),
        ("conv1[0][0]", "conv1[0][0]: is no address"),
        ("input.raw[0,0,0]", "input.raw: the tape has no pixels of input from before preprocessing: read input"),
        ("", "the tape has no value of that name"),
    ],
)
def test_a_wrong_address_is_refused(text: str, says: str) -> None:
    with pytest.raises(UsageError) as error:
        find(TAPE, text)
    assert says in str(error.value)


def test_of_many_names_only_some_are_listed() -> None:
    values = {f"layer{k}": np.zeros(1) for k in range(30)}
    tape = Tape(nodes=[Node(name, "parameter", shape=(1,)) for name in values], values=values)
    with pytest.raises(UsageError, match=r"tape\.nodes has the names of all 30, such as layer27, layer28, layer29"):
        find(tape, "?")


def test_a_parameter_without_a_gradient_has_no_next() -> None:
    tape = trained("momentum")
    assert tape.update is not None
    tape.gradients.pop("fc.bias")
    with pytest.raises(UsageError, match=r"fc\.bias\.grad: the loss does not depend on fc\.bias"):
        tape.why("fc.bias.next[0]")
    tape = replace(tape, after={})
    with pytest.raises(UsageError, match="it has no…"):
        find(tape, "fc.weight.next[0,0]")


@given(st.text(alphabet="conv1.grad[]0,123 @stemlo-٣²", max_size=24))
def test_any_text_is_an_address_or_refused(text: str) -> None:
    try:
        found = find(TAPE, text)
    except UsageError:
        return
    value = TAPE.value(text)
    assert isinstance(value, float) == (found.index is not None)
