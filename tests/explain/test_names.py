"""Names of nodes: the module's path, what stands beside it, numbers for repeats, containers as aliases."""

from __future__ import annotations

import doctest

import pytest

from pellucid.explain import names
from pellucid.explain.names import Call, container_aliases, joined, name_calls, short, source_of, stack_of, unique

ROOT = ("", "")


def call(op: str, *readers: int, inside: tuple[str, ...] = ()) -> Call:
    """`inside` are keys of calls; a key's path is what stands before its @."""
    return Call((ROOT, *((key, key.split("@")[0]) for key in inside)), op, readers)


def test_the_docstring() -> None:
    assert doctest.testmod(names).failed == 0


def test_a_leaf_modules_last_value_has_its_path() -> None:
    calls = [
        call("zeros", 2, inside=("lstm",)),
        call("zeros", 2, inside=("lstm",)),
        call("lstm", 3, inside=("lstm",)),
        call("cat", 4),
    ]
    assert name_calls(calls, set()) == ["lstm.zeros", "lstm.zeros@2", "lstm", "cat"]


def test_a_counter_that_stands_last_is_not_what_a_module_gives() -> None:
    calls = [call("batch_norm", 2, inside=("bn",)), call("add", inside=("bn",)), call("relu", 3)]
    assert name_calls(calls, set()) == ["bn", "bn.add", "relu"]


def test_a_module_that_calls_others_names_its_own_operations() -> None:
    inner = ("layer1", "layer1.0")
    calls = [
        call("conv2d", 1, inside=(*inner, "layer1.0.conv")),
        call("add", 2, inside=inner),
        call("relu", 3, inside=(*inner, "layer1.0.relu")),
        call("flatten", 4),
        call("flatten", 5),
    ]
    assert name_calls(calls, set()) == ["layer1.0.conv", "layer1.0.add", "layer1.0.relu", "flatten", "flatten@2"]
    found = container_aliases(calls, name_calls(calls, set()), set())
    assert found == {"layer1": "layer1.0.relu", "layer1.0": "layer1.0.relu"}


def test_calls_of_one_module_are_numbered_and_so_are_its_containers() -> None:
    calls = [call("relu", k + 1, inside=(f"block@{k}", f"block.relu@{k}")) for k in range(3)]
    made = name_calls(calls, set())
    assert made == ["block.relu", "block.relu@2", "block.relu@3"]
    aliases = {"block": "block.relu", "block@2": "block.relu@2", "block@3": "block.relu@3"}
    assert container_aliases(calls, made, set()) == aliases


def test_taken_names_are_left_to_those_who_have_them() -> None:
    taken = {"input", "scale.mul"}
    calls = [call("relu", 1, inside=("input",)), call("mul", 2, inside=("scale",)), call("mul", 3, inside=("scale",))]
    assert name_calls(calls, taken) == ["input@2", "scale.mul@2", "scale"]
    assert {"input@2", "scale"} <= taken
    # A parameter called as a container is found first.
    inside = call("relu", 1, inside=("block", "block.relu"))
    assert container_aliases([inside], ["block.relu"], {"block"}) == {}


def test_a_container_that_gives_two_values_away_has_no_alias() -> None:
    inside = ("block",)
    calls = [
        call("relu", 2, inside=(*inside, "block.a")),
        call("relu", 2, inside=(*inside, "block.b")),
        call("add", 3),
    ]
    assert container_aliases(calls, name_calls(calls, set()), set()) == {}


@pytest.mark.parametrize(
    ("target", "name"),
    [
        ("aten.conv2d.default", "conv2d"),
        ("aten.relu_.default", "relu"),
        ("aten.__and__.Tensor", "and"),
        ("aten._native_batch_norm_legit_functional.default", "batch_norm"),
        ("aten._native_batch_norm_legit_no_training.default", "batch_norm"),
        ("aten.native_dropout.default", "dropout"),
        ("aten.max_pool2d_with_indices.default", "max_pool2d_with_indices"),
        ("sym_size", "sym_size"),
    ],
)
def test_operations_in_short(target: str, name: str) -> None:
    assert short(target) == name


def test_unique_names() -> None:
    taken: set[str] = set()
    assert [unique("a", taken) for _ in range(3)] == ["a", "a@2", "a@3"]
    assert (joined("", "a"), joined("a", ""), joined("a", "b")) == ("a", "a", "a.b")


def test_stacks_come_from_the_meta_of_a_node() -> None:
    meta = {"nn_module_stack": {"k": ("", "Net"), "k.a": ("a", "Block"), "k.a.b@1": ("a.b", "ReLU")}}
    assert stack_of(meta) == (("k", ""), ("k.a", "a"), ("k.a.b@1", "a.b"))
    assert stack_of({}) == (ROOT,)
    assert stack_of({"nn_module_stack": None}, root="loss") == (("", "loss"),)
    assert stack_of(meta, root="loss", without="a")[1:] == (("k.a", "loss"), ("k.a.b@1", "loss.b"))


def test_the_line_of_the_users_program() -> None:
    frame = '  File "{}", line {}, in forward\n    {}\n'
    trace = (
        frame.format("/home/me/model.py", 12, "x = self.conv1(x)")
        + frame.format("/lib/torch/nn/conv.py", 9, "return f(x)")
        + frame.format("<eval_with_key>.3", 5, "relu = aten.relu(x)")
    )
    assert source_of({"stack_trace": trace}, ("/lib/torch",)) == "model.py:12: x = self.conv1(x)"
    assert source_of({"stack_trace": trace}, ("/lib/torch", "/home")) == ""
    assert source_of({}, ()) == ""
