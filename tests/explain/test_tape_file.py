from __future__ import annotations

import copy
import json
import math
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.explain.engine import everyday, indices, recurrent, spelled
from tests.explain.test_update import trained

from pellucid.errors import DataError, PellucidError, UsageError
from pellucid.explain import Clipping, Node, Pixels, Tape, Update
from pellucid.files import read_tensors, read_tensors_metadata, write_tensors

Change = Callable[[dict[str, Any], dict[str, Any]], Any]


def full(precision: str = "float32") -> Tape:
    """A tape with everything a tape may have."""
    raw = np.random.default_rng(0).integers(0, 256, (5, 6, 1, 1)).astype(np.uint8)
    image = (raw.astype(np.float32) / 255 - np.float32(0.5)) / np.float32(0.25)
    tape = trained("adam", "norm", x=torch.from_numpy(image.reshape(5, 6)))
    flat = Node("input", "flatten", ("image",), {"start": 1}, (5, 6), "stem", "net.py:3: x = x.flatten(1)")
    nodes = [flat if node.name == "input" else node for node in tape.nodes]
    nodes.insert(0, Node("image", "input", shape=raw.shape))
    values, gradients = {"image": image, **tape.values}, tape.gradients
    return replace(
        tape,
        nodes=nodes,
        values=values,
        gradients=gradients,
        inputs=("image",),
        output="fc",
        pixels=Pixels(raw, (0.5,) * 6, (0.25,) * 6),
        notes=["NaN first appeared nowhere", "花 \udc80"],
        aliases={"head": "fc"},
        precision=precision,
    )


def same(a: Any, b: Any) -> None:
    """Every part equal, to the bit and the type."""
    assert set(a) == set(b)
    for name in a:
        assert a[name].dtype == b[name].dtype
        assert a[name].shape == b[name].shape
        assert a[name].tobytes() == b[name].tobytes()


def listed(value: Any) -> Any:
    """As JSON has it: tuples as lists."""
    if isinstance(value, (list, tuple)):
        return [listed(one) for one in value]
    return {key: listed(one) for key, one in value.items()} if isinstance(value, dict) else value


def assert_equal(ours: Tape, back: Tape) -> None:
    assert back.nodes == [replace(node, attributes=listed(node.attributes)) for node in ours.nodes]
    same(ours.values, back.values)
    same(ours.gradients, back.gradients)
    same(ours.after, back.after)
    for name in ("precision", "training", "inputs", "output", "loss", "notes", "aliases"):
        assert getattr(back, name) == getattr(ours, name), name
        assert type(getattr(back, name)) is type(getattr(ours, name)), name
    assert (ours.update is None) == (back.update is None)
    if ours.update is not None and back.update is not None:
        assert ours.update.clipping == back.update.clipping
        assert list(ours.update.parameters) == list(back.update.parameters)
        for name, step in ours.update.parameters.items():
            other = back.update.parameters[name]
            assert (step.rule, dict(step.hyper), step.step) == (other.rule, other.hyper, other.step)
            same(step.state, other.state)
    assert (ours.pixels is None) == (back.pixels is None)
    if ours.pixels is not None and back.pixels is not None:
        assert (ours.pixels.mean, ours.pixels.std) == (back.pixels.mean, back.pixels.std)
        same({"": ours.pixels.values}, {"": back.pixels.values})


@pytest.mark.parametrize(
    "make", [full, everyday, recurrent, lambda: everyday(training=True), lambda: trained("adagrad")]
)
def test_what_is_loaded_equals_what_was_saved(make: Callable[[], Tape], tmp_path: Path) -> None:
    tape = make()
    tape.save(tmp_path / "a")
    back = Tape.load(tmp_path / "a")
    assert_equal(tape, back)
    rng = np.random.default_rng(0)
    for node in tape.nodes:
        for index in indices(node.shape, rng, 2):
            address = spelled(node.name, index)
            assert back.why(address).text() == tape.why(address).text()
    back.save(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_arrays_in_another_order_in_memory_are_saved_as_they_are_read(tmp_path: Path) -> None:
    """The library writes other numbers for arrays that are not contiguous, and 0-d ones are easily made (1,)."""
    tape = everyday()
    tape.values["conv1"] = np.asfortranarray(tape.values["conv1"])
    tape.values["relu"] = tape.values["relu"].transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2)
    tape.gradients["fc"] = np.repeat(tape.gradients["fc"], 2, axis=0)[::2]
    assert not tape.values["relu"].flags.c_contiguous
    tape.save(tmp_path / "a")
    back = Tape.load(tmp_path / "a")
    for name, array in tape.values.items():
        np.testing.assert_array_equal(back.values[name], array)
        assert back.values[name].shape == array.shape
    np.testing.assert_array_equal(back.gradients["fc"], tape.gradients["fc"])
    assert back.values["loss"].shape == ()


def test_numbers_that_json_does_not_have_survive(tmp_path: Path) -> None:
    clamp = {"low": -math.inf, "high": [math.inf, 1.0], "deep": {"nan": math.nan, "none": None, "yes": True}}
    x = np.array([np.nan, np.inf, -0.0], np.float32)
    tape = Tape(
        nodes=[
            Node("x", "input", shape=(3,)),
            Node("y", "aten.clamp.default", ("x", None), clamp, (3,), "m", "a.py:1"),
        ],
        values={"x": x, "y": x},
        inputs=("x",),
    )
    tape.save(tmp_path / "a")
    back = Tape.load(tmp_path / "a")
    read = back.nodes[1].attributes
    assert (read["low"], read["high"]) == (-math.inf, [math.inf, 1.0])
    assert math.isnan(read["deep"]["nan"])
    assert (read["deep"]["none"], read["deep"]["yes"]) == (None, True)
    assert back.values["x"].tobytes() == x.tobytes()
    infinite = trained("momentum", "norm")
    assert infinite.update is not None
    infinite.update = Update(infinite.update.parameters, Clipping("norm", math.inf, math.nan))
    infinite.save(tmp_path / "b")
    clipping = Tape.load(tmp_path / "b").update
    assert clipping is not None
    assert clipping.clipping is not None
    assert clipping.clipping.limit == math.inf
    assert math.isnan(clipping.clipping.norm or 0)


def test_a_save_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    everyday().save(path)
    before = path.read_bytes()

    def refuse(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", refuse)
    with pytest.raises(PellucidError, match="no space left"):
        trained("adam").save(path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]


def test_what_a_file_cannot_hold_is_refused(tmp_path: Path) -> None:
    tape = everyday()
    odd = replace(tape, nodes=[*tape.nodes[:-1], replace(tape.nodes[-1], attributes={"f": np.ones(2)})])
    with pytest.raises(UsageError, match=r"'f' in 'attributes' .* holds array.*, a ndarray, which JSON does not have"):
        odd.save(tmp_path / "a")
    with pytest.raises(UsageError, match="which is not stored here"):
        replace(tape, values={**tape.values, "fc": tape.values["fc"].astype(complex)}).save(tmp_path / "a")
    with pytest.raises(UsageError, match="is too large to be read again"):
        replace(tape, notes=["x" * (13 << 20)]).save(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tape") / "full"
    full().save(path)
    return path


def forged(saved: Path, tmp_path: Path, change: Change) -> Path:
    """The tape with its description or arrays changed, written as another program might."""
    description = json.loads(read_tensors_metadata(saved)["pellucid.tape"])
    arrays: dict[str, Any] = dict(read_tensors(saved))
    change(description, arrays)
    path = tmp_path / "forged"
    write_tensors(path, arrays, {"pellucid.tape": json.dumps(description)})
    return path


def at(description: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(node for node in description["nodes"] if node["name"] == name)
    return found


def put(path: str, value: Any) -> Change:
    """A change of one entry of the description; a step of the path that names a node finds it."""

    def change(description: dict[str, Any], _: dict[str, Any]) -> None:
        *steps, last = path.split("/")
        entry: Any = description
        for step in steps:
            entry = at(description, step[1:]) if step.startswith("@") else entry[step]
        entry[last] = value

    return change


def array(name: str, value: Any) -> Change:
    def change(_: dict[str, Any], arrays: dict[str, Any]) -> None:
        arrays.pop(name, None) if value is None else arrays.update({name: value})

    return change


HOSTILE: dict[str, tuple[Change, str]] = {
    "another version": (put("version", 2), "is a tape of version 2, and 1 is read here"),
    "true as version": (put("version", True), "is a tape of version True"),
    "a field more": (put("extra", 1), "and nothing else"),
    "no nodes": (put("nodes", []), "no list of nodes"),
    "nodes that are texts": (put("nodes", ["a"]), "a node should have"),
    "a name twice": (put("@fc/name", "image"), "two nodes are named 'image'"),
    "a name of no text": (put("@fc/name", 5), "the name of a node is 5"),
    "an absent input": (
        put("@fc/inputs", ["nothing", "fc.weight", "fc.bias"]),
        "'fc' reads 'nothing', which is no node",
    ),
    "an input that is itself": (put("@fc/inputs", ["fc", "fc.weight", "fc.bias"]), "'fc' reads 'fc', which is no node"),
    "an input that comes later": (put("@fc/inputs", ["loss", "fc.weight", None]), "'fc' reads 'loss'"),
    "inputs that are a text": (put("@fc/inputs", "image"), "the inputs of 'fc' are no list"),
    "an input that is a list": (put("@fc/inputs", [["image"], "fc.weight", None]), "reads"),
    "too many inputs": (put("@fc/inputs", ["image"] * 4), "does not fit its operation"),
    "a weight left out": (put("@fc/inputs", ["input", None, "fc.bias"]), "is a linear without its w"),
    "a given node that reads": (put("@fc.bias/inputs", ["fc.weight"]), "is given, and yet is computed"),
    "a shape of text": (put("@fc/shape", "5"), "the shape of 'fc' are no list"),
    "a negative shape": (put("@fc/shape", [-5, 4]), "the shape of 'fc' is"),
    "a fractional shape": (put("@fc/shape", [5.0, 4]), "the shape of 'fc' is"),
    "another shape": (put("@fc/shape", [4, 5]), "'values/fc' has shape (5, 4), and its node (4, 5)"),
    "a huge shape": (put("@fc/shape", [10**18, 4]), "'values/fc' has shape (5, 4), and its node"),
    "a setting it has not": (put("@fc/attributes", {"shell": "rm"}), "has a setting 'shell', which linear has not"),
    "attributes that are a list": (put("@fc/attributes", []), "the attributes of 'fc' are no object"),
    "an output of nothing": (
        put("@fc/attributes", {"of": "nothing", "output": "y"}),
        "which is no operation before it",
    ),
    "an output of another": (put("@fc/attributes", {"of": "image", "output": "y"}), "is no output of 'image'"),
    "an output that is a list": (put("@fc/attributes", {"output": []}), "the output that 'fc' is has no name"),
    "recomputed, perhaps": (put("@fc/attributes", {"recomputed": 3}), "is recomputed, or is not"),
    "a missing array": (array("values/fc", None), "it has no array 'values/fc'"),
    "an array more": (array("values/more", np.ones(2)), "an array 'values/more' that nothing speaks of"),
    "an array of nothing": (array("else", np.ones(2)), "an array 'else' that nothing speaks of"),
    "half floats": (array("values/fc", np.ones((5, 4), np.float16)), "'values/fc' is of type float16"),
    "a gradient of no node": (array("gradients/more", np.ones(2)), "its gradients are of 'more'"),
    "a gradient of another shape": (array("gradients/fc", np.ones(2)), "'gradients/fc' has shape (2,), and its node"),
    "a gradient of whole numbers": (array("gradients/fc", np.ones((5, 4), int)), "'gradients/fc' is of type int64"),
    "a weight after no step": (
        array("after/image", np.ones((5, 6, 1, 1))),
        "it has 'image' after a step, no parameter",
    ),
    "weights after no step": (put("update", None), "after a step, no parameter"),
    "a state of another shape": (array("state/m/fc.bias", np.ones(2)), "'state/m/fc.bias' has shape (2,)"),
    "gradients without a loss": (put("loss", None), "it has gradients, and no loss"),
    "a loss of no node": (put("loss", "more"), "its loss 'more' is no node"),
    "a loss of many numbers": (put("loss", "fc"), "its loss 'fc' is no single number"),
    "an output of no node": (put("output", "more"), "its output 'more' is no node"),
    "an input that is computed": (put("inputs", ["fc"]), "its input 'fc' is no input"),
    "inputs that are no texts": (put("inputs", [[]]), "its inputs are not texts"),
    "an unknown precision": (put("precision", "float8"), "its precision is none that is known"),
    "a list as precision": (put("precision", []), "its precision is none that is known"),
    "a number as mode": (put("training", 1), "its mode of training"),
    "notes of numbers": (put("notes", [1]), "its notes are not texts"),
    "an alias of nothing": (put("aliases", {"a": "nothing"}), "its alias 'a' names no node"),
    "an alias that shadows": (put("aliases", {"fc": "image"}), "its alias 'fc' names no node"),
    "aliases of a list": (put("aliases", []), "its aliases are no object"),
    "an update of text": (put("update", "sgd"), "its update is none"),
    "a step of no parameter": (put("update/parameters", {"image": {}}), "its update changes 'image', no parameter"),
    "a step of nothing": (put("update/parameters/fc.bias", {}), "the step of 'fc.bias' is none"),
    "step 0": (put("update/parameters/fc.bias/step", 0), "the step of 'fc.bias' has number 0"),
    "a huge step": (put("update/parameters/fc.bias/step", 10**90), "the step of 'fc.bias' has number 1000"),
    "a rule of no text": (put("update/parameters/fc.bias/rule", None), "the step of 'fc.bias' has no rule"),
    "a setting of text": (put("update/parameters/fc.bias/hyper/lr", "1"), "has settings of no number"),
    "a setting more": (put("update/parameters/fc.bias/hyper/evil", 1), "has a setting 'evil', which adam has not"),
    "a state less": (put("update/parameters/fc.bias/states", ["m"]), "does not remember what adam does"),
    "clipping by nothing": (put("update/clipping/kind", "luck"), "its clipping has no kind and limit"),
    "clipping at 0": (put("update/clipping/limit", 0), "its clipping has no kind and limit"),
    "clipping by norm without one": (put("update/clipping/norm", None), "its clipping by norm has norm None"),
    "clipping by value with a norm": (put("update/clipping/kind", "value"), "its clipping by value has norm"),
    "pixels of floats": (array("pixels", np.ones((5, 6, 1, 1))), "'pixels' is of type float64"),
    "pixels of 16 bits": (array("pixels", np.ones((5, 6, 1, 1), np.uint16)), "its pixels are uint16"),
    "pixels of another shape": (array("pixels", np.ones((5, 6, 2, 1), np.uint8)), "'pixels' has shape"),
    "pixels without an input": (put("inputs", []), "it has pixels, and no input"),
    "a mean too few": (put("pixels/mean", [0.5]), "its mean is not one number a channel"),
    "a mean of nan": (put("pixels/mean", [{"$float": "nan"}] * 6), "its mean is not one number a channel"),
    "a std of 0": (put("pixels/std", [0] * 6), "its std is not above 0"),
    "too deep": (put("notes", json.loads("[" * 60 + "]" * 60)), "nested more than"),
}


@pytest.mark.parametrize("name", list(HOSTILE))
def test_a_forged_description_is_refused(name: str, saved: Path, tmp_path: Path) -> None:
    change, says = HOSTILE[name]
    path = forged(saved, tmp_path, change)
    with pytest.raises(DataError) as error:
        Tape.load(path)
    assert str(error.value).startswith(f"{path}")
    assert says in str(error.value)


def test_files_that_are_no_tapes_are_refused(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no such file"):
        Tape.load(tmp_path / "nothing")
    with pytest.raises(DataError, match="is a folder"):
        Tape.load(tmp_path)
    for text in (b"", b"{}", b"PK\x03\x04", b"\x80\x04."):
        (tmp_path / "a").write_bytes(text)
        with pytest.raises(DataError):
            Tape.load(tmp_path / "a")
    write_tensors(tmp_path / "b", {"w": np.ones(2)}, {"format": "pt"})
    with pytest.raises(DataError, match=r"is a safetensors file but no tape: name a file that `Tape.save` wrote"):
        Tape.load(tmp_path / "b")
    # Metadata of others beside ours do no harm.
    write_tensors(tmp_path / "f", read_tensors(saved), {**read_tensors_metadata(saved), "format": "np"})
    assert_equal(Tape.load(saved), Tape.load(tmp_path / "f"))
    for text in (b"[]", b"nonsense", b'"text"', b"null"):
        write_tensors(tmp_path / "c", {"w": np.ones(2)}, {"pellucid.tape": text.decode()})
        with pytest.raises(DataError):
            Tape.load(tmp_path / "c")
    data = saved.read_bytes()
    (tmp_path / "d").write_bytes(struct.pack("<Q", 1 << 60) + data[8:])
    with pytest.raises(DataError, match="does not fit into a file"):
        Tape.load(tmp_path / "d")
    (tmp_path / "e").write_bytes(struct.pack("<Q", 20 << 20) + b"{" * (21 << 20))
    with pytest.raises(DataError, match="is above the"):
        Tape.load(tmp_path / "e")


def test_a_cut_or_damaged_file_is_refused_or_is_the_same(saved: Path, tmp_path: Path) -> None:
    """Cut anywhere it is refused; one bit turned in its header is refused, or leaves a tape that answers or refuses."""
    data = saved.read_bytes()
    path = tmp_path / "damaged"
    rng = np.random.default_rng(0)
    for length in [*range(0, 40, 7), *rng.integers(0, len(data), 40).tolist()]:
        path.write_bytes(data[:length])
        with pytest.raises(DataError):
            Tape.load(path)
    header = int.from_bytes(data[:8], "little")
    refused = 0
    for _ in range(300):
        changed = bytearray(data)
        changed[int(rng.integers(8 + header))] ^= 1 << int(rng.integers(8))
        path.write_bytes(changed)
        try:
            tape = Tape.load(path)
        except DataError:
            refused += 1
            continue
        asked(tape)
    assert refused > 150


def asked(tape: Tape) -> None:
    """Every node of a tape that was accepted answers, or refuses in our words."""
    for node in tape.nodes:
        first = spelled(node.name, (0,) * len(node.shape))
        for address in (first, first.replace(node.name, f"{node.name}.grad", 1)):
            try:
                tape.why(address)
            except PellucidError:
                continue


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=5,
)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_value_anywhere_is_refused_or_does_no_harm(saved: Path, tmp_path: Path, data: st.DataObject) -> None:
    original = json.loads(read_tensors_metadata(saved)["pellucid.tape"])
    description = copy.deepcopy(original)
    entry: Any = description
    while True:
        keys = list(entry) if isinstance(entry, dict) else list(range(len(entry)))
        key = data.draw(st.sampled_from(keys))
        if isinstance(entry[key], (dict, list)) and len(entry[key]) and data.draw(st.integers(0, 9)):
            entry = entry[key]
            continue
        entry[key] = data.draw(JSON)
        break
    path = tmp_path / "forged"
    text = json.dumps(description)
    write_tensors(path, read_tensors(saved), {"pellucid.tape": text})
    try:
        tape = Tape.load(path)
    except DataError:
        return
    asked(tape)


def test_settings_that_no_operation_could_have_are_refused_when_asked(tmp_path: Path) -> None:
    """Whatever a loaded tape says of a stride, an axis or a step, the answer is an explanation or a sentence."""
    odd = [0, -1, 10**18, 1.5, "x", None, True, [1, 2, 3], [], [0, 0], {"a": 1}, math.inf, math.nan, -(10**30)]
    tape = everyday()
    for node in tape.nodes:
        names = [name for name in node.attributes if name not in {"operation", "output"}]
        for name in names:
            for value in odd:
                changed = replace(node, attributes={**node.attributes, name: value})
                forged_tape = replace(tape, nodes=[changed if n is node else n for n in tape.nodes])
                asked(forged_tape)
